"""Where the pixels of one window of a grid lie in one raster: computed once, shared by bands and dates."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from geopipes.errors import GridError
from geopipes.read.warps.kernels import Cells, Places
from geopipes.read.warps.lattices import BITS, SIZES, Span, axes, cells, positions, reach, reached
from geopipes.read.warps.pairs import Pair, paired
from geopipes.read.warps.roots import Array
from geopipes.read.warps.splitting import PART_SHIFT, Bounds, around, coarser, split
from geopipes.read.warps.weights import radius

RESAMPLINGS = ("nearest", "bilinear", "cubic", "average", "mode")

RECENT = 4
"""Located windows that each thread keeps: of the few grids that the rasters of a chip have."""


NONE: Array = np.empty((0, 0), np.int32)

NO_PLACES = Places(NONE, NONE, NONE.astype(np.uint8), NONE.astype(np.uint8))

NO_CELLS = Cells(np.empty((0, 2, 5, 5)), np.empty(0, np.int64), np.empty(0, np.int64), SIZES[0], 0, 0)


@dataclass(frozen=True, eq=False)
class Located:
    """Where the pixels of one window of a grid lie in one raster.

    Attributes
    ----------
    resampling, scale : as they were asked for
    shape : (height, width) of the window
    image : (height, width) of the raster
    window : rows and columns of the raster that the kernel touches, inside the image; None where it touches none
    period : columns of a raster that closes upon itself around the globe; 0 for others
    cells : for nearest, where all of the lattice's largest are good: the kernel works places out from them
    places : of the centres, (y, x) each, empty where there are cells. Rows and columns, int32: for nearest the raster's
        pixel that holds each centre, for bilinear and cubic the one whose own centre is the last at or before it, which
        may be -1; `OUTSIDE` where the raster does not hold it. Parts, uint8 [2^-8 px], from that centre on; 128 and
        more where the next pixel holds it
    corners : for average and mode, row and col, int64 [2^-8 px], `NOWHERE` where there is no place: of edges, (y + 1,)
        and (x + 1,), where raster and grid are parallel, else of all pixels' corners, (y + 1, x + 1) each
    """

    resampling: str
    scale: tuple[float, float]
    shape: tuple[int, int]
    image: tuple[int, int]
    window: tuple[slice, slice] | None
    period: int
    cells: Cells
    places: Places
    corners: tuple[Array, Array]


def located(
    raster: GeoBox, grid: GeoBox, rows: slice, cols: slice, resampling: str, scale: tuple[float, float]
) -> Located:
    """Find where a window of a grid lies in a raster, within 0.01 px of PROJ everywhere.

    A pixel's place depends on the raster and its place on the root grid alone: neither the window nor the grid's
    bounds change a bit of it.

    Parameters
    ----------
    raster : the raster at the level that is read: any affine transform, any CRS
    grid : axis-aligned, north up
    rows, cols : index ranges of the grid, which may reach outside
    resampling : "nearest", "bilinear", "cubic", "average" or "mode"
    scale : grid pixels for one of the raster's, along the raster's (y, x); below 1 bilinear and cubic widen

    Raises
    ------
    GridError
        an empty window, an unknown resampling, a grid that is not north up, or a raster with no place in its CRS
    """
    pair, down, across = _asked(raster, grid, rows, cols, resampling, scale)
    key = pair, down, across, resampling, scale
    if (kept := _recent.get(key)) is not None:
        return kept
    where = (_areas if resampling in ("average", "mode") else _centres)(pair, down, across, resampling, scale)
    _recent.put(key, where)
    return where


def touched(
    raster: GeoBox, grid: GeoBox, rows: slice, cols: slice, resampling: str, scale: tuple[float, float]
) -> tuple[slice, slice] | None:
    """Find the rows and columns of a raster that a window may need: all of `located`'s window, at little cost.

    Parameters
    ----------
    raster, grid, rows, cols, resampling, scale : as `located`

    Returns
    -------
    slices inside the image; None where nothing is needed
    """
    pair, down, across = _asked(raster, grid, rows, cols, resampling, scale)
    area = resampling in ("average", "mode")
    bounds = reach(pair, _one_more(down) if area else down, _one_more(across) if area else across, 0.0 if area else 0.5)
    if bounds is None:
        return located(raster, grid, rows, cols, resampling, scale).window
    slack = 1 << (PART_SHIFT - 1) if area else 0  # corners are rounded once more
    return _window(pair, _held(bounds, slack), _margins(resampling, scale))


class _Recent(threading.local):
    """The windows that this thread located last: the dates of a chip follow each other."""

    def __init__(self) -> None:
        self.places: OrderedDict[tuple[Any, ...], Located] = OrderedDict()

    def get(self, key: tuple[Any, ...]) -> Located | None:
        where = self.places.get(key)
        if where is not None:
            self.places.move_to_end(key)
        return where

    def put(self, key: tuple[Any, ...], where: Located) -> None:
        self.places[key] = where
        if len(self.places) > RECENT:
            self.places.popitem(last=False)


_recent = _Recent()


def _asked(
    raster: GeoBox, grid: GeoBox, rows: slice, cols: slice, resampling: str, scale: tuple[float, float]
) -> tuple[Pair, Span, Span]:
    if resampling not in RESAMPLINGS:
        raise GridError(f"resampling={resampling!r}: write one of {', '.join(RESAMPLINGS)}")
    if rows.start >= rows.stop or cols.start >= cols.stop:
        raise GridError(f"rows {rows.start}..{rows.stop}, columns {cols.start}..{cols.stop} hold no pixel")
    if not min(scale) > 0:
        raise GridError(f"scale={scale}: grid pixels for one of the raster's are needed, (y, x), above 0")
    pair, (row, col) = paired(raster, grid)
    return pair, (row + rows.start, row + rows.stop), (col + cols.start, col + cols.stop)


def _one_more(indices: Span) -> Span:
    return indices[0], indices[1] + 1


def _margins(resampling: str, scale: tuple[float, float]) -> tuple[int, int]:
    """Give the pixels beyond the one that holds a centre that a kernel touches, along (y, x)."""
    if resampling in ("bilinear", "cubic"):
        return radius(resampling, scale[0]), radius(resampling, scale[1])
    return 0, 0


def _window(pair: Pair, held: Bounds, margins: tuple[int, int]) -> tuple[slice, slice] | None:
    """Give the part of the image that is touched where centres lie in these pixels."""
    top, bottom, left, right = held
    height, width = pair.shape
    if top > bottom or top >= height or bottom < 0 or (not pair.period and (left >= width or right < 0)):
        return None
    down, across = margins
    rows = slice(max(top - down, 0), min(bottom + down + 1, height))
    left, right = left - across, right + across
    if pair.period and (left < 0 or right >= pair.period):  # around the globe: from both ends
        return rows, slice(0, width)
    return rows, slice(max(left, 0), min(right + 1, width))


def _centres(pair: Pair, rows: Span, cols: Span, resampling: str, scale: tuple[float, float]) -> Located:
    """Locate pixel centres, for nearest, bilinear and cubic."""
    shape, margins = (rows[1] - rows[0], cols[1] - cols[0]), _margins(resampling, scale)
    between = resampling != "nearest"
    lattice = None if between or pair.separable or pair.period else cells(pair, rows, cols)
    if lattice is not None and (bounds := reached(lattice, rows, cols, 0.5)) is not None:
        window = _window(pair, _held(bounds), margins)
        good = Cells(*lattice, SIZES[0], rows[0], cols[0])
        return Located(resampling, scale, shape, pair.shape, window, 0, good, NO_PLACES, (NONE, NONE))
    places = positions(pair, rows, cols, 0.5)
    at: Array = np.empty((2, *shape), np.int32)
    parts: Array = np.empty((2, *(shape if between else (0, 0))), np.uint8)
    held = split(places, pair.shape, pair.period, between, at, parts)
    window = _window(pair, held, margins)
    return Located(
        resampling, scale, shape, pair.shape, window, pair.period, NO_CELLS, Places(*at, *parts), (NONE, NONE)
    )


def _held(bounds: Bounds, slack: int = 0) -> Bounds:
    """Give the pixels that hold coordinates between bounds, first and last row, first and last column."""
    top, bottom, left, right = bounds
    return (top - slack) >> BITS, (bottom + slack) >> BITS, (left - slack) >> BITS, (right + slack) >> BITS


def _areas(pair: Pair, rows: Span, cols: Span, resampling: str, scale: tuple[float, float]) -> Located:
    """Locate the corners of pixels, for average and mode."""
    down, across = _one_more(rows), _one_more(cols)
    places = axes(pair, down, across, 0.0) if pair.separable else positions(pair, down, across, 0.0)
    row, col = coarser(places[0]), coarser(places[1])
    each_row, each_col = row, col
    if pair.separable:
        each_row, each_col = (np.ascontiguousarray(a) for a in np.broadcast_arrays(row[:, None], col))
    window = _window(pair, around(each_row, each_col, pair.shape, pair.period), (0, 0))
    shape = rows[1] - rows[0], cols[1] - cols[0]
    return Located(resampling, scale, shape, pair.shape, window, pair.period, NO_CELLS, NO_PLACES, (row, col))
