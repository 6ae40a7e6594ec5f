"""Rows: numbers of millions of rows, worked on some at a time, in few bytes each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from geopipes.errors import ChipError

Rows = npt.NDArray[np.integer[Any]]
At = Rows | slice | int
"""Which rows."""

ALL = slice(None)

AT_ONCE = 1 << 15
"""Rows that are worked on at a time: a polygon takes half a kilobyte, and gathering by small integers 8 bytes a row."""

SORTED_AT_ONCE = 1 << 18
"""Rows that are sorted at a time."""


def chunks(length: int, size: int = AT_ONCE) -> Iterator[slice]:
    """Cut a range of rows into pieces."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def numbered(at: At, length: int) -> Any:
    """Give rows as numbers of 8 bytes, with which one can reckon."""
    return np.arange(*at.indices(length)) if isinstance(at, slice) else np.asarray(at, np.int64)


def gathered(values: npt.NDArray[Any], at: Rows) -> npt.NDArray[Any]:
    """Give ``values[at]`` without 8 bytes for each."""
    out = np.empty((len(at), *values.shape[1:]), values.dtype)
    for piece in chunks(len(at)):
        out[piece] = values[at[piece]]
    return out


def where(mask: npt.NDArray[np.bool_]) -> Rows:
    """Give the places where a mask is True, rising, in the smallest integers that hold them."""
    found = np.empty(np.count_nonzero(mask), smallest(len(mask)))
    done = 0
    for piece in chunks(len(mask)):
        some = np.flatnonzero(mask[piece])
        found[done : done + len(some)] = some + piece.start
        done += len(some)
    return found


def grouped(group: Callable[[slice], Any], length: int, groups: int) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Line rows up group by group, those of one in their order: a sort that takes no 8 bytes for each row.

    Parameters
    ----------
    group : gives the number of the group of each of some rows; asked twice
    length, groups : how many there are

    Returns
    -------
    (length,) the rows, and (groups,) how many there are of each
    """
    held = np.zeros(groups, np.int64)
    for at in chunks(length, SORTED_AT_ONCE):
        held += np.bincount(group(at), minlength=groups)
    line = np.empty(length, smallest(length))
    free = np.cumsum(held) - held
    for at in chunks(length, SORTED_AT_ONCE):
        own = group(at)
        order = np.argsort(own, kind="stable")
        own = own[order]
        first = np.flatnonzero(np.diff(own, prepend=-1))
        count = np.diff(first, append=len(own))
        line[np.repeat(free[own[first]] - first, count) + np.arange(len(own))] = order + at.start
        free[own[first]] += count
    return line, held


def shuffled(length: int, rng: np.random.Generator) -> Rows:
    """Give ``rng.permutation(length)`` in the smallest integers that hold it."""
    rows = np.arange(length, dtype=smallest(length))
    rng.shuffle(rows)
    return rows


def smallest(length: int) -> np.dtype[Any]:
    """Give the smallest unsigned integers that number so many rows."""
    return np.min_scalar_type(max(length - 1, 0))


def small(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Give whole numbers in the smallest signed integers that hold them; one value where all are the same.

    Raises
    ------
    ChipError
        for other numbers
    """
    given = np.asarray(values)
    if given.size and given.dtype.kind not in "iu":
        raise ChipError(f"places of windows are {given.dtype}; whole numbers are needed")
    low, high = (int(given.min()), int(given.max())) if given.size else (0, 0)
    dtype = np.result_type(*(np.min_scalar_type(-abs(end) - 1) for end in (low, high)))
    return np.asarray(low, dtype) if low == high else given.astype(dtype)
