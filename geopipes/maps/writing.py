"""Writing a map: rows kept as they are done, files made of them at the end, and put in place whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geopipes.errors import MapError
from geopipes.fingerprints import digest
from geopipes.maps.cogs import Color, Look, rgba, write_cog
from geopipes.maps.datasets import check_one_resolution
from geopipes.maps.layers import Layer, Outcome
from geopipes.maps.stores import Store, check_room, left_behind, writing
from geopipes.maps.targets import check_target, expected, mark_of, targets_of
from geopipes.progress import Bar

if TYPE_CHECKING:
    from geopipes.maps.mosaics import Mosaic
    from geopipes.maps.sheets import Layout


@dataclass(frozen=True)
class Written:
    """A file of a map.

    Attributes
    ----------
    path : of the file, or of the store
    date : of its pixels; None where they have none, or several
    """

    path: Path
    date: np.datetime64 | None


def write(
    mosaic: Mosaic,
    path: str | os.PathLike[str],
    *,
    compress: str | None = "deflate",
    overviews: bool = True,
    classes: Mapping[int, str] | None = None,
    colors: Mapping[int, Color] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> list[Written]:
    """Make a map and write it: as Cloud-optimized GeoTIFFs, or as Zarr.

    Rows are kept in a folder beside the target, ``map.tif.partial``, as they are done. A run that is ended anywhere
    leaves it behind; the same call then makes what is missing, and the same bytes. At the end the file is made of the
    rows, checked, and put in its place in one step. Two runs at once of one target: the second is refused.

    Parameters
    ----------
    path : of a file ``.tif`` for each grid, date and answer, or of a store ``.zarr`` for each grid. Where there are
        several, it names them in braces: ``"map_{crs}.tif"``, ``"map_{crs}_{time}_{name}.tif"``
    compress : of GeoTIFF: ``"deflate"``, ``"zstd"`` or ``"lzw"``; None for none
    overviews : whether a GeoTIFF has smaller copies: of classes the most frequent one, of floats the mean
    classes, colors : the names and colours of values: ``{0: "background", 1: "building"}``, ``{1: "#d62728"}``
    overwrite : whether another file may be replaced; one that this very map was written to is left as it is
    progress : show a bar on stderr

    Returns
    -------
    the files, in the order of grids, dates and answers

    Raises
    ------
    MapError
        if the path names too few files or cannot be written, something else is there, another run writes there or was
        ended there that made another map, or the disk has no room
    """
    target = Path(os.path.abspath(os.path.expanduser(path)))
    look = Look(compress, overviews, classes, colors)
    check_target(target)
    document = json.loads(json.dumps(mosaic.document()))
    mark = digest({"map": document, "look": _looked(look)})
    job = _Job(mosaic, target, look, mark, overwrite)
    folder = target.with_name(f"{target.name.translate(str.maketrans('', '', '{}'))}.partial")
    if (there := job.finished()) is not None:
        if left_behind(folder, document):
            Store(folder, document).remove()
        return there
    store = Store(folder, document)
    try:
        job.make(store, progress=progress)
        written = job.put(store)
        with writing(store.folder):
            store.remove()
        return written
    finally:
        store.close()


class _Job:
    """One call of `write`."""

    def __init__(self, mosaic: Mosaic, target: Path, look: Look, mark: str, overwrite: bool) -> None:
        self._mosaic, self._target, self._look, self._mark, self._overwrite = mosaic, target, look, mark, overwrite
        self._layout: Layout = mosaic.layout

    def finished(self) -> list[Written] | None:
        """Give the files if all are there, of this very map; raise if there are others."""
        targets = {
            target.path: target.date for target in targets_of(self._layout, self._target, expected(self._mosaic))
        }
        marks = {path: mark_of(path) for path in targets if path.exists()}
        others = [path for path, mark in marks.items() if mark != self._mark]
        if others and not self._overwrite:
            raise MapError(
                f"write: {others[0]} is there, and holds something else than this map; write elsewhere, or "
                "overwrite=True"
            )
        whole = len(marks) == len(targets) and not others
        return [Written(path, date) for path, date in targets.items()] if whole else None

    def make(self, store: Store, *, progress: bool) -> None:
        """Make the rows that are missing."""
        layout, rules = self._layout, self._mosaic.options.rules
        if store.sheet == len(layout.sheets):
            return
        layers = [Layer.read(document, rules[document["name"]]) for document in store.layers]
        start = layout.begin(store.sheet, store.row)
        bar = Bar(self._mosaic.chips, self._target.name, done=start, unit="chips") if progress else None
        checked, at = False, start
        try:
            for block in self._mosaic.blocks(store.sheet, store.row, layers):
                if not checked:
                    self._rehearse(block.layers, store)
                    check_room(store.folder, self._bytes(block.layers, store))
                    checked = True
                with writing(store.folder):
                    for outcome, row, pixels in block.parts:
                        store.put(block.sheet, outcome, row, pixels)
                    last = block.done == layout.sheets[block.sheet].shape[0]
                    store.note(block.sheet + last, 0 if last else block.done, block.layers)
                if bar is not None:
                    bar.add(max(block.position - at, 0))
                    at = max(at, block.position)
        finally:
            if bar is not None:
                bar.close()

    def _rehearse(self, layers: Sequence[Layer], store: Store) -> None:
        """Write some pixels of each variable as the whole will be: what cannot be written so is said now, not then."""
        outcomes = [outcome for layer in layers for outcome in layer.outcomes()]
        if self._target.suffix == ".zarr":
            check_one_resolution(outcomes)
            return
        raw = store.folder / "rehearsal.raw"
        for outcome in outcomes:
            geobox = self._layout.geobox(self._layout.sheets[0], outcome.layer.scale)[:1, :1]
            with writing(store.folder):
                raw.write_bytes(bytes(outcome.bands * np.dtype(outcome.dtype).itemsize))
                write_cog(raw.with_suffix(".tif"), raw, outcome, geobox, self._look, self._mark)

    def _bytes(self, layers: Sequence[Layer], store: Store) -> int:
        """Give the bytes of all raw pixels that are not kept yet."""
        whole = 0
        for outcome in (outcome for layer in layers for outcome in layer.outcomes()):
            for number, sheet in enumerate(self._layout.sheets):
                high, wide = self._layout.geobox(sheet, outcome.layer.scale).shape
                kept = store.path(number, outcome.name)
                there = kept.stat().st_size if kept.exists() else 0
                whole += max(high * wide * outcome.bands * np.dtype(outcome.dtype).itemsize - there, 0)
        return whole

    def put(self, store: Store) -> list[Written]:
        """Make the files of the rows, and put each in its place."""
        rules = self._mosaic.options.rules
        layers = [Layer.read(document, rules[document["name"]]) for document in store.layers]
        outcomes = {outcome.name: outcome for layer in layers for outcome in layer.outcomes()}
        targets: dict[Path, list[tuple[int, str]]] = {}
        dates: dict[Path, np.datetime64 | None] = {}
        for target in targets_of(self._layout, self._target, [*outcomes]):
            targets.setdefault(target.path, []).append((target.sheet, target.name))
            dates[target.path] = target.date
        for path, keys in targets.items():
            if path.exists() and mark_of(path) == self._mark:
                continue
            fresh = store.folder / path.name
            with writing(path):
                self._file(fresh, store, keys, outcomes)
                _placed(fresh, path)
        return [Written(path, dates[path]) for path in targets]

    def _file(self, fresh: Path, store: Store, keys: list[tuple[int, str]], outcomes: Mapping[str, Outcome]) -> None:
        """Make one file, in the store's folder."""
        if fresh.suffix == ".zarr":
            from geopipes.maps.zarrs import write_zarr

            names = [*dict.fromkeys(name for _, name in keys)]
            check_one_resolution([outcomes[name] for name in names])
            sheets = [
                (number, {name: store.path(number, name) for name in names})
                for number in dict.fromkeys(number for number, _ in keys)
            ]
            shutil.rmtree(fresh, ignore_errors=True)
            write_zarr(fresh, self._layout, sheets, [outcomes[name] for name in names], self._look, self._mark)
            return
        ((number, name),) = keys
        outcome, sheet = outcomes[name], self._layout.sheets[number]
        fresh.unlink(missing_ok=True)
        geobox = self._layout.geobox(sheet, outcome.layer.scale)
        write_cog(fresh, store.path(number, name), outcome, geobox, self._look, self._mark)


def _placed(fresh: Path, path: Path) -> None:
    """Put a file or a store where it belongs, in place of what is there."""
    if fresh.is_dir() and path.exists():
        old = fresh.with_name(f"{path.name}.old")
        path.rename(old)
    fresh.replace(path)


def _looked(look: Look) -> dict[str, Any]:
    """Write down how a map is kept."""
    found: dict[str, Any] = json.loads(json.dumps(vars(look) | {
        "classes": None if look.classes is None else sorted(look.classes.items()),
        "colors": None if look.colors is None else sorted((value, list(rgba(c))) for value, c in look.colors.items()),
    }))  # fmt: skip
    return found
