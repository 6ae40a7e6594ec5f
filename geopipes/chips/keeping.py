"""What was measured, kept: a journal while it grows, and a file that appears whole."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geopipes.chips.windows import Indices
from geopipes.errors import ChipError
from geopipes.fingerprints import Document, differences, digest

Row = dict[str, float]
"""What was measured of one chip, by column."""

HEADER = b"geopipes"
"""The key of the file's metadata under which the fingerprint stands."""

VERSION = 1
"""Of the file and the journal; another number is another meaning."""


@dataclass(frozen=True)
class Kept:
    """A file of measured columns, and its journal.

    Attributes
    ----------
    path : of the file
    document : what it is measured from and what is measured
    """

    path: Path
    document: Document

    @classmethod
    def at(cls, path: str | os.PathLike[str], document: Document) -> Kept:
        """Take up the file or the journal that may be there.

        Raises
        ------
        ChipError
            if it holds something else, or cannot be read
        """
        kept = cls(Path(path), {"version": VERSION, **document})
        if kept.path.suffix != ".parquet":
            raise ChipError(f"measure({str(path)!r}): needed is a path that ends in .parquet")
        for place, header in ((kept.path, kept._file_header), (kept._journal, kept._journal_header)):
            if place.exists():
                kept._check(place, header())
        return kept

    @property
    def done(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    @property
    def _journal(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    def _check(self, place: Path, found: Document | None) -> None:
        mend = "choose another path, or delete it to measure again"
        if not isinstance(found, dict) or "fingerprint" not in found or "document" not in found:
            raise ChipError(f"measure: {place} holds nothing that measure() wrote; {mend}")
        if found["fingerprint"] != digest(self.document):
            lines = "\n".join(f"  {line}" for line in differences(found["document"], self.document))
            raise ChipError(
                f"measure: {place} was measured of another plan, or otherwise; {mend}. What differs:\n{lines}"
            )

    def _file_header(self) -> Document | None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            metadata = pq.read_schema(self.path).metadata or {}
            found: Document | None = json.loads(metadata.get(HEADER, b"null"))
        except (OSError, ValueError, pa.ArrowException):
            return None
        return found

    def _journal_header(self) -> Document | None:
        with self._journal.open("rb") as file:
            line, row = file.readline(), file.readline()
        try:
            found: Document | None = json.loads(line)
        except ValueError:
            found = None
        begun = isinstance(found, dict) and "fingerprint" in found
        if not line.endswith(b"\n") or (begun and not row.endswith(b"\n")):
            self._journal.unlink()  # nothing was measured: killed before, or of an error in what was asked for
            return {"fingerprint": digest(self.document), "document": self.document}
        return found

    def begun(self, length: int) -> npt.NDArray[np.bool_]:
        """Say which of so many chips are in the journal; a line that was cut off is dropped."""
        done = np.zeros(length, bool)
        if self._journal.exists():
            whole = 0
            with self._journal.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    if whole:
                        done[json.loads(line)[0]] = True
                    whole += len(line)
            os.truncate(self._journal, whole)
        return done

    @contextmanager
    def journal(self) -> Iterator[Callable[[int, Row], None]]:
        """Open the journal; what is given writes a line, of one chip."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self._journal.exists()
        with self._journal.open("a", encoding="utf-8", buffering=1) as file:  # each line goes out by itself
            if new:
                file.write(f"{json.dumps(self._header)}\n")

            def write(number: int, row: Row) -> None:
                file.write(f"{json.dumps([number, row])}\n")

            yield write

    def gathered(self, length: int) -> dict[str, npt.NDArray[np.float64]]:
        """Give the journal as columns, in the order of their names; a class that a chip lacks has the share 0."""
        columns: dict[str, npt.NDArray[np.float64]] = {}
        with self._journal.open(encoding="utf-8") as file:
            next(file)
            for line in file:
                number, row = json.loads(line)
                for name, value in row.items():
                    if name not in columns:
                        columns[name] = np.zeros(length)
                    columns[name][number] = value
        return {name: columns[name] for name in sorted(columns, key=_natural)}

    def finish(self, ids: Indices, columns: dict[str, npt.NDArray[np.float64]]) -> None:
        """Write the file beside its place, move it there, and drop the journal."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({"id": ids, **columns}).replace_schema_metadata({HEADER: json.dumps(self._header)})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        os.close(handle)
        try:
            pq.write_table(table, draft)
            os.replace(draft, self.path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
        self._journal.unlink(missing_ok=True)

    def columns(self) -> dict[str, npt.NDArray[np.float64]]:
        """Read the columns."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.path)
        return {name: table[name].to_numpy() for name in table.column_names if name != "id"}

    @property
    def _header(self) -> Document:
        return {"fingerprint": digest(self.document), "document": self.document}


def _natural(name: str) -> tuple[str, int]:
    """Order share_2 before share_10."""
    head, _, tail = name.rpartition("_")
    return (head, int(tail)) if tail.lstrip("-").isdigit() else (name, 0)
