"""Lattices: windows on regular grids, each found by arithmetic from its number."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from geopipes.chips.frames import At, Column, numbered, small

Indices = npt.NDArray[np.int64]

BEGIN, CUBE, PLACES, WIDTH, TIMES, ROWS, COLS, KEPT = range(8)
"""Rows of a lattice's head."""


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
    head : (8, parts) of each part: its first window, its cube, its places, columns of places, and where it begins
        among all times, rows, columns, and places kept
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
        return cls(head, times, rows, cols, None if whole else np.concatenate(kept), int(sizes[0].sum()))

    def columns(self) -> Mapping[str, Column]:
        """Give the columns cube, time, row and col."""
        values = {"cube": self.head[1], "time": self.times, "row": self.rows, "col": self.cols}
        found = {name: small(each) for name, each in values.items()}
        return {name: Laid(self, name, each.dtype) if each.shape else each for name, each in found.items()}

    def heads(self, number: Any) -> Callable[[int], Any]:
        """Give what gives a row of the head for each window, as one number where all are of one part: that is faster."""
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
        kept = self.lattice.kept
        return 0 if kept is None or self.name != "row" else kept.nbytes

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
        place = number - date * head(PLACES)
        if lattice.kept is not None:
            kept: Any = lattice.kept[head(KEPT) + place]
            place = kept.astype(np.int64)
        row = place // head(WIDTH)
        if self.name == "row":
            return lattice.rows[head(ROWS) + row]
        return lattice.cols[head(COLS) + place - row * head(WIDTH)]
