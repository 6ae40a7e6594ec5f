"""Lattices: windows on regular grids, each found by arithmetic from its number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from geopipes.chips.frames import At, Column, numbered, small

Indices = npt.NDArray[np.int64]


class Part(NamedTuple):
    """The windows of one cube: each of its places at each of its dates.

    Attributes
    ----------
    cube : its number
    times, rows, cols : where windows begin; their places are all of rows x cols, row by row
    kept : which of these places have a window, rising; None for all
    """

    cube: int
    times: Indices
    rows: Indices
    cols: Indices
    kept: npt.NDArray[np.integer[Any]] | None

    @property
    def places(self) -> int:
        """How many have a window."""
        return len(self.rows) * len(self.cols) if self.kept is None else len(self.kept)


@dataclass(frozen=True, eq=False)
class Lattice:
    """The windows of several cubes, numbered by cube, date, row and column.

    Attributes
    ----------
    head : (parts, 8) of each part: its first window, its cube, places, columns, and where it begins among all times,
        rows, columns, and places kept
    times, rows, cols : where windows begin, of all parts
    kept : the places that have a window, of all parts; None where all have
    length : windows
    """

    head: Indices
    times: Indices
    rows: Indices
    cols: Indices
    kept: npt.NDArray[np.integer[Any]] | None
    length: int

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Lattice:
        """Put the parts of several cubes in one line."""
        parts = [part for part in parts if part.places and len(part.times)]
        whole = all(part.kept is None for part in parts)
        kept = [np.arange(part.places) if part.kept is None else part.kept for part in parts if not whole]
        sizes = np.array(
            [(part.places * len(part.times), len(part.times), len(part.rows), len(part.cols), part.places)
             for part in parts], np.int64,
        ).reshape(-1, 5)  # fmt: skip
        begins = np.cumsum(sizes, axis=0) - sizes
        head = np.stack(
            [begins[:, 0], [part.cube for part in parts], sizes[:, 4], sizes[:, 3], *begins[:, 1:].T], axis=1
        ).astype(np.int64)
        times, rows, cols = (
            np.concatenate([np.empty(0, np.int64), *(getattr(part, name) for part in parts)])
            for name in ("times", "rows", "cols")
        )
        return cls(head, times, rows, cols, None if whole else np.concatenate(kept), int(sizes[:, 0].sum()))

    def columns(self) -> Mapping[str, Column]:
        """Give the columns cube, time, row and col."""
        values = {"cube": self.head[:, 1], "time": self.times, "row": self.rows, "col": self.cols}
        found = {name: small(each) for name, each in values.items()}
        return {name: Laid(self, name, each.dtype) if each.shape else each for name, each in found.items()}


@dataclass(frozen=True, eq=False)
class Laid:
    """One column of a lattice: ``cube``, ``time``, ``row`` or ``col``."""

    lattice: Lattice
    name: str
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Windows."""
        return (self.lattice.length,)

    @property
    def nbytes(self) -> int:
        """Bytes of memory: those of the lattice, counted with the rows."""
        kept = self.lattice.kept
        return 0 if kept is None or self.name != "row" else kept.nbytes

    def __getitem__(self, at: At) -> Any:
        """Work out the values of some windows."""
        lattice, number = self.lattice, numbered(at, self.lattice.length)
        # One part for all is reckoned with as plain numbers, which is faster.
        part = 0 if len(lattice.head) == 1 else np.searchsorted(lattice.head[:, 0], number, side="right") - 1
        begin, cube, places, width, of_time, of_row, of_col, of_kept = lattice.head[part].T
        if self.name == "cube":
            return np.broadcast_to(cube, number.shape).astype(self.dtype)
        number = number - begin
        date = number // places
        if self.name == "time":
            return lattice.times[of_time + date].astype(self.dtype)
        place = number - date * places
        if lattice.kept is not None:
            place = lattice.kept[of_kept + place].astype(np.int64)
        row = place // width
        if self.name == "row":
            return lattice.rows[of_row + row].astype(self.dtype)
        return lattice.cols[of_col + place - row * width].astype(self.dtype)
