"""Where pixels of a root grid lie in a raster: exact at the nodes of a lattice, interpolated where that is as good.

The lattice hangs on the root grid and each of its cells is judged by itself, so that a pixel's place never depends
on the window it is asked for in. A cell is interpolated where it differs from PROJ by less than `TOLERANCE` at its
centre and the middles of its edges; else it is halved, and at last each pixel is projected.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from geopipes.read.warps.compiling import compiled
from geopipes.read.warps.operations import unprojected
from geopipes.read.warps.pairs import Pair
from geopipes.read.warps.roots import Array, Root

BITS = 12
"""Binary digits after the point of a raster coordinate: rounding to them decides ties."""

ONE = 1 << BITS

NOWHERE = -(1 << 60)
"""The coordinate of a pixel that has no place in the raster."""

SIZES = (32, 16, 8, 4)
"""Pixels a side of a lattice's cells; below, projecting each pixel costs less than judging the cell."""

TOLERANCE = 1 / ONE
"""Raster pixels by which interpolation may miss PROJ where a cell is judged; 0.01 is promised everywhere."""

BLOCK = 8
"""Cells a side that are projected at once and kept: 256 px, about a chip."""

NODES = 2 * BLOCK + 1
"""Exact points a side of a block: corners of cells and the middles between them."""

KEPT_BLOCKS = 4096
"""Blocks kept, 4.6 kB each: the nodes of 27 scenes of 3,000 px, or of two of 10,980 px."""

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
    (2, y, x), int64: row and col coordinates [2^-12 px of the raster], `NOWHERE` where there is no place
    """
    height, width = rows[1] - rows[0], cols[1] - cols[0]
    places: Array = np.full((2, height, width), NOWHERE, np.int64)
    if pair.separable:
        row, col = axes(pair, rows, cols, at)
        places[0], places[1] = row[:, None], col
        return places
    tops, lefts, points = _cells(pair, rows, cols)
    for size in SIZES:
        if size < SIZES[0]:
            points = _points(pair, tops, lefts, size)
        failed = np.zeros(len(tops), bool)
        fill(points, tops, lefts, size, rows[0], cols[0], at, places, failed)
        tops, lefts = _quarters(tops[failed], lefts[failed], size // 2, rows, cols)
        if len(tops) == 0:
            return places
    y, x = _quarters(tops, lefts, SIZES[-1] // 4, rows, cols)
    places[:, y - rows[0], x - cols[0]] = rounded(np.stack(pair.exact(y + at, x + at)))
    return places


def axes(pair: Pair, rows: Span, cols: Span, at: float) -> tuple[Array, Array]:
    """Give the rows' and the columns' coordinates of a separable pair, (y,) and (x,), as `positions`."""
    y, x = np.arange(*rows) + at, np.arange(*cols) + at
    row, _ = pair.exact(y, np.full(len(y), cols[0] + at))
    _, col = pair.exact(np.full(len(x), rows[0] + at), x)
    return rounded(row), rounded(col)


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
    tops, lefts, points = _cells(pair, rows, cols)
    bounds = np.array([NOWHERE, NOWHERE, NOWHERE, NOWHERE])
    return tuple(bounds.tolist()) if span(points, tops, lefts, SIZES[0], rows, cols, at, bounds) else None


def rounded(coordinates: Array) -> Array:
    """Round coordinates to fixed point, halves up; `NOWHERE` for NaN."""
    nowhere = np.isnan(coordinates)
    fixed: Array = np.floor(np.where(nowhere, 0.0, coordinates) * ONE + 0.5).astype(np.int64)
    fixed[nowhere] = NOWHERE
    return fixed


def _cells(pair: Pair, rows: Span, cols: Span) -> tuple[Array, Array, Array]:
    """Give the largest cells that hold any of a window: their tops, lefts and points, as `_points` does."""
    size = SIZES[0]
    top, left = _starts(rows, size * BLOCK), _starts(cols, size * BLOCK)
    step = NODES - 1
    world = np.empty((2, len(top) * step + 1, len(left) * step + 1))
    for i, y in enumerate(top):
        for j, x in enumerate(left):
            world[:, i * step : (i + 1) * step + 1, j * step : (j + 1) * step + 1] = _block(
                pair.root, pair.definition, y, x
            )
    down, across = np.array(_starts(rows, size)), np.array(_starts(cols, size))
    tops, lefts = np.repeat(down, len(across)), np.tile(across, len(down))
    at_y = (2 * (tops - top.start) // size)[:, None, None] + np.arange(3)[:, None]
    at_x = (2 * (lefts - left.start) // size)[:, None, None] + np.arange(3)
    return tops, lefts, np.stack(pair.on_raster(world[0, at_y, at_x], world[1, at_y, at_x]), axis=1)


def _starts(indices: Span, size: int) -> range:
    """Give where cells of a size begin that hold any of a range of indices."""
    return range(indices[0] // size * size, indices[1], size)


@lru_cache(maxsize=KEPT_BLOCKS)
def _block(root: Root, definition: str, top: int, left: int) -> Array:
    """Give x and y in the raster's CRS at the nodes of a block of cells, (2, 17, 17)."""
    ticks = np.arange(NODES) * (SIZES[0] // 2)
    y, x = np.meshgrid((top + ticks).astype(np.float64), (left + ticks).astype(np.float64), indexing="ij")
    return np.stack(unprojected(definition, *root.world(y, x)))


def _points(pair: Pair, tops: Array, lefts: Array, size: int) -> Array:
    """Give raster coordinates at corners, middles of edges and centre of cells: (cell, 2, 3, 3)."""
    ticks = np.array([0.0, 0.5, 1.0]) * size
    shape = (len(tops), 3, 3)
    y = np.broadcast_to(tops[:, None, None] + ticks[:, None], shape)
    x = np.broadcast_to(lefts[:, None, None] + ticks, shape)
    return np.stack(pair.exact(y, x), axis=1)


def _quarters(tops: Array, lefts: Array, size: int, rows: Span, cols: Span) -> tuple[Array, Array]:
    """Give the cells of a size, a half of the given ones' a side, that hold any of a window."""
    tops = (tops[:, None] + np.array([0, 0, size, size])).ravel()
    lefts = (lefts[:, None] + np.array([0, size, 0, size])).ravel()
    met = (tops < rows[1]) & (tops + size > rows[0]) & (lefts < cols[1]) & (lefts + size > cols[0])
    return tops[met], lefts[met]


@compiled
def fill(
    points: Array, tops: Array, lefts: Array, size: int, row: int, col: int, at: float, places: Array, failed: Array
) -> None:
    """Interpolate the pixels of each cell that bends little enough, and say which cells do not.

    Parameters
    ----------
    points : (cell, 2, 3, 3): row and col coordinates at corners, middles of edges and centre
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
                begin, end = _edges(points[k, axis], (y - top + at) * part)
                line = places[axis, y, first:last]  # indices that cannot be negative run twice as fast
                for x in range(len(line)):
                    line[x] = _fixed(begin + (end - begin) * ((x + first - left + at) * part))


@compiled
def span(points: Array, tops: Array, lefts: Array, size: int, rows: Span, cols: Span, at: float, bounds: Array) -> bool:
    """Find the bounds of a window's coordinates as `fill` would; False where a cell bends too much.

    Interpolated coordinates are extreme at the first and last pixel of a cell's rows and columns.
    """
    bounds[0] = bounds[2] = -NOWHERE
    bounds[1] = bounds[3] = NOWHERE
    part = 1.0 / size
    for k in range(len(tops)):
        if _bent(points[k]):
            return False
        for y in (max(tops[k], rows[0]), min(tops[k] + size, rows[1]) - 1):
            for axis in range(2):
                begin, end = _edges(points[k, axis], (y - tops[k] + at) * part)
                for x in (max(lefts[k], cols[0]), min(lefts[k] + size, cols[1]) - 1):
                    place = _fixed(begin + (end - begin) * ((x - lefts[k] + at) * part))
                    bounds[2 * axis] = min(bounds[2 * axis], place)
                    bounds[2 * axis + 1] = max(bounds[2 * axis + 1], place)
    return True


@compiled
def _fixed(place: float) -> int:
    """Round a coordinate to fixed point, halves up."""
    return math.floor(place * ONE + 0.5)


@compiled
def _edges(p: Array, down: float) -> tuple[float, float]:
    """Interpolate one coordinate along the left and the right edge of a cell."""
    return p[0, 0] + (p[2, 0] - p[0, 0]) * down, p[0, 2] + (p[2, 2] - p[0, 2]) * down


@compiled
def _bent(point: Array) -> bool:
    """Say whether interpolation between a cell's corners misses an exact point; one that is NaN is missed."""
    for axis in range(2):
        p = point[axis]
        top, bottom = (p[0, 0] + p[0, 2]) * 0.5, (p[2, 0] + p[2, 2]) * 0.5
        left, right = (p[0, 0] + p[2, 0]) * 0.5, (p[0, 2] + p[2, 2]) * 0.5
        if not (
            abs(top - p[0, 1]) <= TOLERANCE
            and abs(bottom - p[2, 1]) <= TOLERANCE
            and abs(left - p[1, 0]) <= TOLERANCE
            and abs(right - p[1, 2]) <= TOLERANCE
            and abs((top + bottom) * 0.5 - p[1, 1]) <= TOLERANCE
        ):
            return True
    return False
