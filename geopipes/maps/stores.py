"""A map that is under way: rows as they are done, beside the target, for a run that goes on after another one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geopipes.errors import MapError
from geopipes.fingerprints import Document, differences
from geopipes.maps.blending import Pixels
from geopipes.maps.layers import Layer, Outcome

VERSION = 1
"""Of what stands in a store; another number is another meaning."""

ROOM = 1 << 20
"""Bytes beyond the pixels that must be free."""


class Store:
    """The rows of a map that are done, in a folder; held by one run at a time.

    A file of raw pixels for each variable of each sheet, (y, bands, x) in this machine's byte order; ``run.json`` says
    what decides them, ``done.json`` how many rows are done. What stands behind these is written again.

    Parameters
    ----------
    folder : is made where it is missing
    document : what decides the pixels

    Raises
    ------
    MapError
        if another run holds it, it is of another map, or it cannot be written
    """

    def __init__(self, folder: Path, document: Document) -> None:
        self.folder, self._document = folder, document
        self._files: dict[str, BinaryIO] = {}
        with writing(folder):
            folder.mkdir(exist_ok=True)
            self._lock = locked(folder / "lock")
        try:
            with writing(folder):
                self._begin()
        except MapError:
            self._lock.close()
            raise

    def _begin(self) -> None:
        run, own = self.folder / "run.json", _own(self._document)
        done = _loaded(self.folder / "done.json")
        if done is None:  # nothing is kept, whoever began it
            _replaced(run, own)
            done = {"sheet": 0, "row": 0, "layers": []}
        elif lines := differences(_loaded(run), own):
            shown = "\n".join(f"  {line}" for line in lines)
            raise MapError(
                f"write: {self.folder} holds rows of another map, of a run that was ended; run that one again to "
                f"finish it, or remove the folder to begin anew. What differs:\n{shown}"
            )
        self.sheet, self.row = int(done["sheet"]), int(done["row"])
        self.layers: list[Document] = done["layers"]

    def path(self, sheet: int, name: str) -> Path:
        """Give the file of a variable's pixels."""
        return self.folder / f"{sheet}-{name}.raw"

    def put(self, sheet: int, outcome: Outcome, row: int, pixels: Pixels) -> None:
        """Keep (bands, n, x) rows of a variable from one on."""
        path = self.path(sheet, outcome.name)
        file = self._files.get(path.name)
        if file is None:
            path.touch()
            file = self._files[path.name] = path.open("r+b")
        file.seek(row * pixels.shape[0] * pixels.shape[2] * pixels.dtype.itemsize)
        file.write(np.ascontiguousarray(pixels.transpose(1, 0, 2)).data)

    def note(self, sheet: int, row: int, layers: Sequence[Layer]) -> None:
        """Note that all rows above one are kept."""
        for name in [*self._files]:
            self._files[name].flush()
            os.fsync(self._files[name].fileno())
            if not name.startswith(f"{sheet}-"):
                self._files.pop(name).close()
        self.layers = [layer.document() for layer in layers]
        self.sheet, self.row = sheet, row
        _replaced(self.folder / "done.json", {"sheet": sheet, "row": row, "layers": self.layers})

    def close(self) -> None:
        """Let go of the folder, and remove it where no other run could go on from it."""
        for file in self._files.values():
            with suppress(OSError):  # what could not be flushed is not noted as done
                file.close()
        self._files.clear()
        if not self._lock.closed and ("unknown" in self._document or not (self.folder / "done.json").exists()):
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def remove(self) -> None:
        """Remove the folder and let go of it."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        (self.folder / "done.json").unlink(missing_ok=True)  # first: what is left is nobody's, should this be ended
        shutil.rmtree(self.folder)
        self._lock.close()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say where something could not be written.

    Raises
    ------
    MapError
        for what the system says: no room, no right, no folder
    """
    try:
        yield
    except OSError as error:
        raise MapError(
            f"write: {path} could not be written: {error.strerror or error}. What is done is kept in the folder "
            f"{path.name if path.suffix == '.partial' else path.parent}, and another run goes on from there"
        ) from error


def left_behind(folder: Path, document: Document) -> bool:
    """Say whether a run of a map that is whole was ended before it could remove its folder."""
    if not folder.exists():
        return False
    return _loaded(folder / "done.json") is None or not differences(_loaded(folder / "run.json"), _own(document))


def _own(document: Document) -> Document:
    return {"version": VERSION, "document": document}


def check_room(folder: Path, needed: int) -> None:
    """Raise where there is no room for so many bytes more.

    Raises
    ------
    MapError
        with what is needed and what is there
    """
    free = shutil.disk_usage(folder).free
    if needed + ROOM > free:
        raise MapError(
            f"write: {folder} has {free / 1e6:,.0f} MB free, and {needed / 1e6:,.0f} MB are needed for the pixels of "
            "the map before they are compressed; make room, or write elsewhere"
        )


def locked(path: Path) -> BinaryIO:
    """Open a file that nobody else may open so, until it is closed or this process ends.

    Raises
    ------
    MapError
        if somebody else has it
    """
    file = path.open("ab")
    try:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise BlockingIOError  # its holder has just removed it
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise MapError(
            f"write: another run is writing this map, and holds {path}; wait for it, or write elsewhere"
        ) from error
    return file


def _loaded(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _replaced(path: Path, document: Document) -> None:
    """Write a document in one step: there is the old one or the new one."""
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
