"""Where pixels of a root grid lie in a raster: exact at the nodes of a lattice, interpolated where that is as good.

The lattice hangs on the root grid and each of its cells is judged by itself, so that a pixel's place never depends
on the window it is asked for in. A cell has 5 x 5 exact points: it is interpolated between 3 x 3 of them, by
parabolas, where that meets the others within `TOLERANCE`; else its 16 parts are judged, and at last each pixel is
projected.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from geopipes.read.scratch import scratch
from geopipes.read.warps.compiling import brief, compiled
from geopipes.read.warps.pairs import Pair
from geopipes.read.warps.roots import Array

BITS = 12
"""Binary digits after the point of a raster coordinate: rounding to them decides ties."""

ONE = 1 << BITS

NOWHERE = -(1 << 60)
"""The coordinate of a pixel that has no place in the raster."""

SIZES = (256, 64, 16, 4)
"""Pixels a side of a lattice's cells, the first about a chip; below, projecting each pixel costs less."""

PARTS = 4
"""Parts of a cell's side that are judged where it is not good enough, and between its exact points."""

TOLERANCE = 1 / ONE
"""Raster pixels by which interpolation may miss PROJ where a cell is judged; 0.01 is promised everywhere."""

KEPT_CELLS = 16384
"""Cells kept, about 0.7 kB each: those of 100 scenes of 3,000 px."""

Span = tuple[int, int]
"""First index, and the one past the last, of the root grid."""


def positions(pair: Pair, rows: Span, cols: Span, at: float) -> Array:
    """Find where the pixels of a window lie in a raster.

    Parameters
    ----------
    pair : the raster and the root grid
    rows, cols : index ranges of the root grid
    at : the point of each pixel: 0.5 for its centre, 0 for its upper-left corner

    Returns
    -------
    (2, y, x), int64: row and col coordinates [2^-12 px of the raster], `NOWHERE` where there is no place; the
    thread's next call overwrites them
    """
    height, width = rows[1] - rows[0], cols[1] - cols[0]
    places = scratch("places", (2, height, width), np.int64)
    if pair.separable:
        row, col = axes(pair, rows, cols, at)
        places[0], places[1] = row[:, None], col
        return places
    points, tops, lefts = cells(pair, rows, cols)
    for size in SIZES:
        if size < SIZES[0]:
            points = _points(pair, tops, lefts, size)
        failed = np.zeros(len(tops), bool)
        fill(points, tops, lefts, size, rows[0], cols[0], at, places, failed)
        if not failed.any():
            return places
        tops, lefts = _smaller(tops[failed], lefts[failed], size // PARTS, rows, cols)
    places[:, tops - rows[0], lefts - cols[0]] = rounded(np.stack(pair.exact(tops + at, lefts + at)))
    return places


def axes(pair: Pair, rows: Span, cols: Span, at: float) -> tuple[Array, Array]:
    """Give the rows' and the columns' coordinates of a separable pair, (y,) and (x,), as `positions`."""
    y, x = np.arange(*rows) + at, np.arange(*cols) + at
    row, _ = pair.exact(y, np.full(len(y), cols[0] + at))
    _, col = pair.exact(np.full(len(x), rows[0] + at), x)
    return rounded(row), rounded(col)


def cells(pair: Pair, rows: Span, cols: Span) -> tuple[Array, Array, Array]:
    """Give the largest cells that hold any of a window: their points, tops and lefts, as `fill` takes them."""
    size = SIZES[0]
    down, across = (range(span[0] // size * size, span[1], size) for span in (rows, cols))
    points = np.stack([_cell(pair, top, left) for top in down for left in across])
    return points, np.repeat(down, len(across)), np.tile(across, len(down))


def reach(pair: Pair, rows: Span, cols: Span, at: float) -> tuple[int, int, int, int] | None:
    """Find between which coordinates a window's pixels lie, from the lattice's nodes alone.

    Returns
    -------
    first and last row, first and last col coordinate, as `positions` would find or a little wider; None where some
    cell needs a closer look than that
    """
    if pair.separable:
        row, col = axes(pair, rows, cols, at)
        if min(row.min(), col.min()) == NOWHERE:
            return None
        return int(row.min()), int(row.max()), int(col.min()), int(col.max())
    return reached(cells(pair, rows, cols), rows, cols, at)


def reached(lattice: tuple[Array, Array, Array], rows: Span, cols: Span, at: float) -> tuple[int, int, int, int] | None:
    """Find the bounds from the `cells` that hold a window."""
    bounds = np.array([NOWHERE, NOWHERE, NOWHERE, NOWHERE])
    return tuple(bounds.tolist()) if span(*lattice, SIZES[0], rows, cols, at, bounds) else None


def rounded(coordinates: Array) -> Array:
    """Round coordinates to fixed point, halves up; `NOWHERE` for NaN."""
    nowhere = np.isnan(coordinates)
    fixed: Array = np.floor(np.where(nowhere, 0.0, coordinates) * ONE + 0.5).astype(np.int64)
    fixed[nowhere] = NOWHERE
    return fixed


@lru_cache(maxsize=KEPT_CELLS)
def _cell(pair: Pair, top: int, left: int) -> Array:
    """Give the points of one of the largest cells, (2, 5, 5)."""
    points: Array = _points(pair, np.array([top]), np.array([left]), SIZES[0])[0]
    return points


def _points(pair: Pair, tops: Array, lefts: Array, size: int) -> Array:
    """Give raster coordinates at 5 x 5 points of cells, from corner to corner: (cell, 2, 5, 5), row and col."""
    ticks = np.linspace(0, size, PARTS + 1)
    shape = (len(tops), len(ticks), len(ticks))
    y = np.broadcast_to(tops[:, None, None] + ticks[:, None], shape)
    x = np.broadcast_to(lefts[:, None, None] + ticks, shape)
    return np.stack(pair.exact(y, x), axis=1)


def _smaller(tops: Array, lefts: Array, size: int, rows: Span, cols: Span) -> tuple[Array, Array]:
    """Give the cells of a size, a quarter of the given ones' a side, that hold any of a window."""
    parts = np.arange(PARTS) * size
    tops = (tops[:, None] + np.repeat(parts, PARTS)).ravel()
    lefts = (lefts[:, None] + np.tile(parts, PARTS)).ravel()
    met = (tops < rows[1]) & (tops + size > rows[0]) & (lefts < cols[1]) & (lefts + size > cols[0])
    return tops[met], lefts[met]


@compiled
def fill(
    points: Array, tops: Array, lefts: Array, size: int, row: int, col: int, at: float, places: Array, failed: Array
) -> None:
    """Interpolate the pixels of each cell that bends little enough, and say which cells do not.

    Parameters
    ----------
    points : (cell, 2, 5, 5): row and col coordinates
    tops, lefts : (cell,) root indices of the cells' first pixels
    size : pixels a side of each
    row, col : root indices of the window's first pixel
    at : the point of each pixel, 0 to 1
    places : (2, y, x), written
    failed : (cell,) bool, set
    """
    part = 1.0 / size  # exact: sizes are powers of two
    for k in range(len(tops)):
        if _bent(points[k]):
            failed[k] = True
            continue
        top, left = tops[k] - row, lefts[k] - col
        first, last = max(left, 0), min(left + size, places.shape[2])
        for y in range(max(top, 0), min(top + size, places.shape[1])):
            for axis in range(2):
                start, slope, bend = between(points[k, axis], (y - top + at) * part)
                line = places[axis, y, first:last]  # indices that cannot be negative run twice as fast
                for x in range(len(line)):
                    along = (x + first - left + at) * part
                    line[x] = math.floor((start + along * (slope + along * bend)) * ONE + 0.5)


@brief
def span(points: Array, tops: Array, lefts: Array, size: int, rows: Span, cols: Span, at: float, bounds: Array) -> bool:
    """Find the bounds of a window's coordinates as `fill` would, or a little wider; False where a cell bends too much.

    A parabola leaves its chord by no more than at its middle, so that the corners of each cell's share tell.
    """
    bounds[0] = bounds[2] = -NOWHERE
    bounds[1] = bounds[3] = NOWHERE
    part = 1.0 / size
    for k in range(len(tops)):
        if _bent(points[k]):
            return False
        for axis in range(2):
            p, sag = points[k, axis], 0.0
            for i in range(0, PARTS + 1, PARTS // 2):
                sag = max(sag, abs(p[i, 2] - 0.5 * (p[i, 0] + p[i, 4])) + abs(p[2, i] - 0.5 * (p[0, i] + p[4, i])))
            for y in (max(tops[k], rows[0]), min(tops[k] + size, rows[1]) - 1):
                start, slope, bend = between(p, (y - tops[k] + at) * part)
                for x in (max(lefts[k], cols[0]), min(lefts[k] + size, cols[1]) - 1):
                    along = (x - lefts[k] + at) * part
                    place = start + along * (slope + along * bend)
                    # Twice: rows between the nodes sag by a little more than those at them.
                    bounds[2 * axis] = min(bounds[2 * axis], math.floor((place - 2 * sag) * ONE + 0.5))
                    bounds[2 * axis + 1] = max(bounds[2 * axis + 1], math.floor((place + 2 * sag) * ONE + 0.5))
    return True


@brief
def between(p: Array, down: float) -> tuple[float, float, float]:
    """Give one coordinate along a row of a cell, as start + along * (slope + along * bend), along being 0 to 1."""
    left = p[0, 0] + down * ((4 * p[2, 0] - 3 * p[0, 0] - p[4, 0]) + down * 2 * (p[0, 0] - 2 * p[2, 0] + p[4, 0]))
    mid = p[0, 2] + down * ((4 * p[2, 2] - 3 * p[0, 2] - p[4, 2]) + down * 2 * (p[0, 2] - 2 * p[2, 2] + p[4, 2]))
    right = p[0, 4] + down * ((4 * p[2, 4] - 3 * p[0, 4] - p[4, 4]) + down * 2 * (p[0, 4] - 2 * p[2, 4] + p[4, 4]))
    return left, 4 * mid - 3 * left - right, 2 * (left - 2 * mid + right)


@brief
def _bent(point: Array) -> bool:
    """Say whether interpolation between a cell's nodes misses any exact point; one that is NaN is missed."""
    for axis in range(2):
        p = point[axis]
        for i in range(PARTS + 1):
            start, slope, bend = between(p, i / PARTS)
            for j in range(PARTS + 1):
                along = j / PARTS
                if not abs(start + along * (slope + along * bend) - p[i, j]) <= TOLERANCE:
                    return True
    return False
