"""Frames: columns of millions of rows; choosing rows notes which they are, and copies no column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from geopipes.chips.rows import ALL, AT_ONCE, At, Rows, chunks, gathered, numbered, smallest
from geopipes.errors import ChipError

FEWER = 8
"""How many times smaller the columns of chosen rows are than what the rows were chosen from, to be copied at once."""


class Column(Protocol):
    """Values by row: an array, (n,) or (n, ...); of no dims where all rows have one value; or what works them out."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""

    def __getitem__(self, at: Any, /) -> Any:
        """Give the values at some rows."""


@dataclass(frozen=True)
class Numbers:
    """The column 0, 1, ... length - 1, which takes no memory."""

    length: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest signed integers that hold the numbers."""
        return np.min_scalar_type(-max(self.length, 1))

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows."""
        return (self.length,)

    @property
    def nbytes(self) -> int:
        """None."""
        return 0

    def __getitem__(self, at: At) -> Any:
        """Give the numbers of some rows, which are these."""
        return numbered(at, self.length).astype(self.dtype)


@dataclass(frozen=True, eq=False)
class Frame:
    """Columns of one length: some of its own, the others those of some rows of another frame.

    Attributes
    ----------
    length : rows, n
    columns : its own, by name, n rows each, or without dims where all rows have one value
    base : the frame that rows were chosen from
    pick : (n,) which rows of it, in the smallest integers that hold them
    """

    length: int
    columns: Mapping[str, Column] = field(default_factory=dict)
    base: Frame | None = None
    pick: Rows | None = None

    @classmethod
    def of(cls, length: int, columns: Mapping[str, Any]) -> Frame:
        """Make a frame of arrays of one length, and of single values that stand for all rows.

        Raises
        ------
        ChipError
            for a column of another length
        """
        return cls(length, {name: _checked(name, column, length) for name, column in columns.items()})

    def __len__(self) -> int:
        return self.length

    @property
    def names(self) -> list[str]:
        """The names of all columns."""
        return [*dict.fromkeys([*(() if self.base is None else self.base.names), *self.columns])]

    @property
    def nbytes(self) -> int:
        """Bytes of all that this frame keeps in memory."""
        own = sum(column.nbytes for column in self.columns.values())
        return own + (0 if self.base is None or self.pick is None else self.pick.nbytes + self.base.nbytes)

    @property
    def _copied_nbytes(self) -> int:
        """Bytes of all columns, were they its own."""
        found = [self._found(name) for name in self.names]
        return self.length * sum(one.dtype.itemsize * int(np.prod(one.shape[1:])) for one in found if one.shape)

    def column(self, name: str, at: At = ALL) -> Any:
        """Give a column at some rows, by default all: an array in their order, one value for one row.

        Work and memory go with the rows asked for, not with the length of the frame.

        Raises
        ------
        KeyError
            if there is none of this name
        ChipError, IndexError
            as `take`
        """
        if isinstance(at, int | np.integer):
            return self._values(name, range(self.length)[at])
        column = self._found(name)
        at = at if isinstance(at, slice) else _rows(at, self.length)
        count = len(range(*at.indices(self.length))) if isinstance(at, slice) else len(at)
        if not column.shape:
            return np.broadcast_to(column[()], count)
        if count <= AT_ONCE or (isinstance(column, np.ndarray) and name in self.columns and isinstance(at, slice)):
            return self._values(name, at)
        out = np.empty((count, *column.shape[1:]), column.dtype)
        for piece in chunks(count):
            out[piece] = self._values(name, _part(at, piece, self.length))
        return out

    def row(self, names: Sequence[str], at: int) -> list[Any]:
        """Give what some columns hold at one row, as `column` does of one, in one go."""
        at = range(self.length)[at]
        if not self.columns.keys().isdisjoint(names) or self.base is None or self.pick is None:
            return [self._values(name, at) for name in names]
        return self.base.row(names, int(self.pick[at]))

    def take(self, rows: npt.ArrayLike) -> Frame:
        """Give some rows, in this order.

        Raises
        ------
        ChipError
            if rows are not whole numbers
        IndexError
            for rows that are not there
        """
        picked = _rows(rows, self.length)
        constant = {name: column for name, column in self.columns.items() if not column.shape}
        if len(constant) < len(self.columns):
            some = Frame(len(picked), {}, self, picked)
        elif self.base is None or self.pick is None:
            return Frame(len(picked), constant)
        else:
            some = Frame(len(picked), constant, self.base, gathered(self.pick, picked))
        return some.copied() if FEWER * some._copied_nbytes < some.nbytes else some

    def with_columns(self, columns: Mapping[str, Any]) -> Frame:
        """Add columns, or put others in their place; the rest is shared."""
        return Frame(self.length, {**self.columns, **Frame.of(self.length, columns).columns}, self.base, self.pick)

    def copied(self) -> Frame:
        """Give the same columns without the frame that they were chosen from."""
        if self.base is None:
            return self
        found = {name: (self._found(name), self.column(name)) for name in self.names}
        return Frame(self.length, {name: all_ if one.shape else one for name, (one, all_) in found.items()})

    def __getstate__(self) -> dict[str, Any]:
        """Travel as small as can be: few rows of a large frame without it."""
        frame = self.copied() if self._copied_nbytes < self.nbytes else self
        return frame.__dict__

    def _found(self, name: str) -> Column:
        """Find a column in the frame that it belongs to."""
        column = self.columns.get(name)
        if column is not None:
            return column
        if self.base is None:
            raise KeyError(name)
        return self.base._found(name)

    def _values(self, name: str, at: At) -> Any:
        """Give what a column holds at rows, through all that they were chosen from."""
        column = self.columns.get(name)
        if column is None and self.base is not None and self.pick is not None:
            return self.base._values(name, self.pick[at])
        found: Any = column
        return found[at] if found.shape else found[()]


def _rows(rows: npt.ArrayLike, length: int) -> Rows:
    """Check rows, and give them in the smallest integers; those counted from the end from the front."""
    given = np.asarray(rows)
    if given.size == 0:
        return np.empty(0, smallest(length))
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise ChipError(
            f"take: positions are {given.dtype} of shape {given.shape}; needed are whole numbers in one row, of a mask "
            "numpy.flatnonzero(mask)"
        )
    low, high = int(given.min()), int(given.max())
    if low < -length or high >= length:
        raise IndexError(f"take: positions {low} to {high} of a plan of {length} chips")
    if low >= 0:
        return given.astype(smallest(length))
    wide = given.astype(np.int64)
    return np.where(wide < 0, wide + length, wide).astype(smallest(length))


def _part(at: Rows | slice, piece: slice, length: int) -> Rows | slice:
    """Give a piece of some rows."""
    if not isinstance(at, slice):
        return at[piece]
    some = range(*at.indices(length))[piece]
    return np.arange(some.start, some.stop, some.step)


def _checked(name: str, column: Any, length: int) -> Column:
    """Take a column; an array that repeats one value in place of it becomes this value."""
    found: Any = np.asarray(column) if isinstance(column, np.ndarray) or not hasattr(column, "nbytes") else column
    if isinstance(found, np.ndarray) and found.ndim == 1 and length and found.strides == (0,):
        found = np.asarray(found[0])
    if found.shape and found.shape[0] != length:
        raise ChipError(f"column {name!r} has {found.shape[0]} rows; needed are {length}, or one value for all")
    kept: Column = found
    return kept
