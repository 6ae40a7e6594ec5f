"""Closeness: which of millions of places come near some of others, told on rasters of cells before any is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
import numpy.typing as npt

from geopipes.chips.footprints import Floats
from geopipes.chips.rows import AT_ONCE, Rows, chunks, gathered, grouped
from geopipes.chips.windows import Indices

Mask = npt.NDArray[np.bool_]
Centres = npt.NDArray[np.float32]
"""Places on a plane: (2, n), x and y [m], in 4-byte floats."""

CELLS = 2048
"""Cells along each side of the raster on which far chips are told from near ones, at most."""

FINE = 16
"""Cells to a distance, at most, on which it is told that places are surely within it."""


def furthest(places: Centres) -> Floats:
    """Give how far places are at most from the plane's middle, in x and in y."""
    ends = places.max(axis=1, initial=0.0), -places.min(axis=1, initial=0.0)
    far: Floats = np.maximum(*ends).astype(float)
    return far


def rounding(places: Centres) -> float:
    """Give by how much distances between places err at most, as they are kept."""
    return 4 * float(np.spacing(np.float32(max(1.0, furthest(places).max()))))


def close(mine: Centres, there: Centres, i: Rows, j: Rows, reach: float, *, axis: int) -> Iterator[tuple[Rows, Rows]]:
    """Cut places into slabs along an axis, each with those of the other side that may be within reach."""
    a, b = beside(mine, i, there, j, reach)
    i, j = i[a], j[b]
    if len(i) == 0 or len(j) == 0:
        return
    x, y = mine[axis], there[axis]
    lines = cuts(x[i[:: max(len(i) // 10_000, 1)]], ceil(len(i) / (AT_ONCE * (4 if axis == 0 else 1))))
    (line, begin), (others, start) = (_slabs(*each, lines) for each in ((x, i), (y, j)))
    for number in range(len(lines) - 1):
        own = line[begin[number] : begin[number + 1]]
        if len(own):
            low, high = float(x[own].min()) - reach, float(x[own].max()) + reach
            first, last = np.searchsorted(lines[1:-1], (low, high), "right")
            other = others[start[first] : start[last + 1]]
            other = other[(y[other] >= low) & (y[other] <= high)]
            a, b = beside(mine, own, there, other, reach)
            if a.any():
                yield own[a], other[b]


def _slabs(x: Centres, at: Rows, lines: Floats) -> tuple[Rows, Indices]:
    """Line places up by the slabs between lines, and say where each slab begins."""
    line, held = grouped(lambda some: np.searchsorted(lines[1:-1], x[at[some]], "right"), len(at), len(lines) - 1)
    return gathered(at, line), np.concatenate([[0], np.cumsum(held)])


def cuts(x: Centres, pieces: int) -> Floats:
    """Give where to cut a line so that about as many places are in each piece."""
    some = x[:: max(len(x) // 10_000, 1)].astype(float)
    cuts = np.unique(np.quantile(some, np.arange(1, pieces) / pieces))
    return np.array([-np.inf, *cuts, np.inf])


def beside(mine: Centres, i: Rows, there: Centres, j: Rows, reach: float) -> tuple[Mask, Mask]:
    """Say which of some places may have one of the other side within reach, told on a raster of cells."""
    if len(i) == 0 or len(j) == 0:
        return np.zeros(len(i), bool), np.zeros(len(j), bool)
    sides = ((mine, i), (there, j))
    low, high = _bounds(sides)
    cell = np.maximum(reach / 4, (high - low) / (CELLS - 2))
    spread = [ceil(reach / side) for side in cell]
    shape = tuple(int(n) + 2 for n in (high - low) / cell)

    def cells(places: Centres, at: Rows) -> tuple[npt.NDArray[np.int32], ...]:
        return tuple(((places[:, at] - low[:, None]) / cell[:, None]).astype(np.int32))

    seen = []
    for places, at in sides:
        held = np.zeros(shape, bool)
        for some in chunks(len(at)):
            held[cells(places, at[some])] = True
        seen.append(_widened(_widened(held, spread[0], 0), spread[1], 1))
    found = (np.empty(len(i), bool), np.empty(len(j), bool))
    for beside, (places, at), near_ in zip(found, sides, seen[::-1], strict=True):
        for some in chunks(len(at)):
            beside[some] = near_[cells(places, at[some])]
    return found


def within(mine: Centres, there: Centres, distance: float) -> Mask:
    """Say of which places one of the other side surely lies within a distance, told on a raster of cells.

    Two cells hold no places further apart than the far corners of the two.
    """
    none = np.zeros(mine.shape[1], bool)
    distance -= rounding(mine) + rounding(there)
    if not (mine.size and there.size and distance > 0):
        return none
    low, high = _bounds([(mine, None), (there, None)])
    side = max(distance / FINE, float((high - low).max()) / (CELLS - 2))
    shape = tuple(int(n) + 2 for n in (high - low) / side)
    at = [tuple(((xy - low[:, None]) / side).astype(np.int32)) for xy in (mine, there)]
    cells = np.zeros(shape, bool)
    cells[at[1]] = True
    seen, wide, done = np.zeros(shape, bool), cells, 0
    for across in range(min(int(distance / side), shape[0]) - 1, -1, -1):
        along = int(((distance / side) ** 2 - (across + 1) ** 2) ** 0.5) - 1
        if along >= 0:
            wide, done = _widened(wide, along - done, 1), along
            seen |= _shifted(wide, across)
    sure: Mask = seen[at[0]]
    return sure


def _shifted(cells: Mask, by: int) -> Mask:
    """Put what is true so many rows up and down."""
    both = np.zeros_like(cells)
    both[by:] |= cells[: len(cells) - by]
    both[: len(cells) - by] |= cells[by:]
    return both


def _bounds(sides: Sequence[tuple[Centres, Rows | None]]) -> tuple[Floats, Floats]:
    """Give the least and the largest x and y of some places on either side."""
    pieces = [
        places[:, some] if at is None else places[:, at[some]]
        for places, at in sides
        for some in chunks(places.shape[1] if at is None else len(at))
    ]
    return (
        np.min([piece.min(axis=1) for piece in pieces], axis=0).astype(float),
        np.max([piece.max(axis=1) for piece in pieces], axis=0).astype(float),
    )


def _widened(cells: Mask, by: int, axis: int) -> Mask:
    """Spread what is true to the cells on both sides."""
    lines = np.moveaxis(cells, axis, 0)
    wide = lines.copy()
    for step in range(1, min(by, len(lines) - 1) + 1):
        wide[step:] |= lines[:-step]
        wide[:-step] |= lines[step:]
    return np.moveaxis(wide, 0, axis)
