"""Lattices: windows on regular grids, each found by arithmetic from its number."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from geopipes.chips.frames import Column
from geopipes.chips.rows import At, numbered, small

Indices = npt.NDArray[np.int64]

BEGIN, CUBE, PLACES, WIDTH, TIMES, ROWS, COLS, RUNS = range(8)
"""Rows of a lattice's head."""


class Part(NamedTuple):
    """The windows of one cube: each of its places at each of its dates.

    Attributes
    ----------
    cube : its number
    times, rows, cols : where windows begin; their places are all of rows x cols, row by row
    inside : (rows * cols,) which of these places have a window; None for all
    """

    cube: int
    times: Indices
    rows: Indices
    cols: Indices
    inside: npt.NDArray[np.bool_] | None = None

    @property
    def places(self) -> int:
        """How many have a window."""
        every = len(self.rows) * len(self.cols)
        return every if self.inside is None else int(np.count_nonzero(self.inside))

    def runs(self) -> tuple[Indices, Indices]:
        """Give the places that have a window as runs: the number of each run's first, and its place on the grid."""
        if self.inside is None:
            return np.zeros(1, np.int64), np.zeros(1, np.int64)
        ends = np.flatnonzero(self.inside[1:] != self.inside[:-1]) + 1
        ends = np.concatenate([[0] if self.inside[0] else [], ends, [len(self.inside)]]).astype(np.int64)
        first, last = ends[: len(ends) // 2 * 2].reshape(-1, 2).T
        return np.cumsum(last - first) - (last - first), first


@dataclass(frozen=True, eq=False)
class Lattice:
    """The windows of several cubes, numbered by cube, date, row and column.

    Attributes
    ----------
    head : (8, parts) of each part: its first window, its cube, its places, columns of places, and where it begins
        among all times, rows, columns, and places
    times, rows, cols : where windows begin, of all parts
    runs : (2, k) the places that have a window, of all parts, in runs: the number of each run's first, and what is
        added to the numbers of a run to give places on the grid
    length : windows
    """

    head: Indices
    times: Indices
    rows: Indices
    cols: Indices
    runs: Indices
    length: int

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Lattice:
        """Put the parts of several cubes in one line."""
        parts = [part for part in parts if part.places and len(part.times)]
        lengths = [
            (part.places * len(part.times), len(part.times), len(part.rows), len(part.cols), part.places)
            for part in parts
        ]
        sizes = np.array(lengths, np.int64).reshape(-1, 5).T
        begins = np.cumsum(sizes, axis=1) - sizes
        cubes = np.array([part.cube for part in parts], np.int64)
        head = np.stack([begins[0], cubes, sizes[4], sizes[3], *begins[1:]])
        times, rows, cols = (
            np.concatenate([np.empty(0, np.int64), *(getattr(part, name) for part in parts)])
            for name in ("times", "rows", "cols")
        )
        found = [np.empty((2, 0), np.int64)]
        for part, begin in zip(parts, begins[4].tolist(), strict=True):
            number, place = part.runs()
            found.append(np.stack([number + begin, place - number - begin]))
        return cls(head, times, rows, cols, np.concatenate(found, axis=1), int(sizes[0].sum()))

    def columns(self) -> Mapping[str, Column]:
        """Give the columns cube, time, row and col."""
        values = {"cube": self.head[1], "time": self.times, "row": self.rows, "col": self.cols}
        found = {name: small(each) for name, each in values.items()}
        return {name: Laid(self, name, each.dtype) if each.shape else each for name, each in found.items()}

    def heads(self, number: Any) -> Callable[[int], Any]:
        """Give what gives a row of the head for each window, one number where all are of one part: that is faster."""
        if isinstance(number, int):
            return self._plain[bisect_right(self._begins, number) - 1].__getitem__
        low, high = (bisect_right(self._begins, int(end)) - 1 for end in (number.min(), number.max()))
        if low == high:
            return self._plain[low].__getitem__
        part = np.searchsorted(self.head[BEGIN], number, side="right") - 1
        return lambda row: self.head[row][part]

    @cached_property
    def _begins(self) -> list[int]:
        begins: list[int] = self.head[BEGIN].tolist()
        return begins

    @cached_property
    def _plain(self) -> list[list[int]]:
        plain: list[list[int]] = self.head.T.tolist()
        return plain


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
        return self.lattice.runs.nbytes if self.name == "row" else 0

    def __getitem__(self, at: At) -> Any:
        """Work out the values of some windows."""
        if isinstance(at, int | np.integer):
            return self._worked_out(int(at), (), self.lattice.heads(int(at)))
        number = numbered(at, self.lattice.length)
        if len(number) == 0:
            return np.empty(0, self.dtype)
        return self._worked_out(number, number.shape, self.lattice.heads(number)).astype(self.dtype)

    def _worked_out(self, number: Any, shape: tuple[int, ...], head: Callable[[int], Any]) -> Any:
        lattice = self.lattice
        if self.name == "cube":
            return np.broadcast_to(head(CUBE), shape) if shape else head(CUBE)
        number = number - head(BEGIN)
        date = number // head(PLACES)
        if self.name == "time":
            return lattice.times[head(TIMES) + date]
        place = number - date * head(PLACES) + head(RUNS)
        place = place + lattice.runs[1][np.searchsorted(lattice.runs[0], place, "right") - 1]
        row = place // head(WIDTH)
        if self.name == "row":
            return lattice.rows[head(ROWS) + row]
        return lattice.cols[head(COLS) + place - row * head(WIDTH)]
