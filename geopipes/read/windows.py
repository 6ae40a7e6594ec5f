"""Windows of rasters, read onto a common grid: exact and slow.

A pixel never depends on the window it is read with. Rasters that already lie on the grid are copied; all others
go through one GDAL warp for each raster and whole grid, never one for a chip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from geopipes.errors import GridError, SourceError
from geopipes.read.handles import Array, Warp, applied, cheap_key, close_handles, opened
from geopipes.read.sources import Source, Variable

RESAMPLINGS = ("nearest", "bilinear", "cubic", "average", "mode")

ON_GRID = 1e-6
"""Pixels by which a raster may stand off a grid that is its own: far above rounding, and what GDAL may err."""

PIECE = 512
"""Pixels a side read from a warp at once: the width of the blocks that GDAL warps."""

LATTICE = 21
"""Points a side at which a raster is placed on the grid; between them its outline bends."""

BEND = 0.02
"""Widening of a raster's place on each side: more than an outline that shows on one grid bends between points."""


def read_source(source: Source, geobox: GeoBox, rows: slice, cols: slice, resampling: str) -> tuple[Array, Array]:
    """Read a window of one raster onto a grid.

    Parameters
    ----------
    source : the raster
    geobox : the whole grid, which the warp is anchored to
    rows, cols : pixel ranges inside the grid
    resampling : "nearest", "bilinear", "cubic", "average" or "mode"; a raster on the same grid is copied

    Returns
    -------
    pixels : (band, y, x), of the source's dtype; of no meaning where not valid
    valid : (band, y, x), bool

    Raises
    ------
    SourceError
        the file is not what its item states, or lacks a band
    ReadError
        the pixels could not be read: names item, asset, href, window and cause
    """
    if resampling not in RESAMPLINGS:
        raise SourceError(f"resampling={resampling!r}: write one of {', '.join(RESAMPLINGS)}")
    height, width = geobox.shape
    if not 0 <= rows.start <= rows.stop <= height or not 0 <= cols.start <= cols.stop <= width:
        raise GridError(f"{_written(rows, cols)}: the grid has {height} x {width} px (y, x)")
    shape = (len(source.bands), rows.stop - rows.start, cols.stop - cols.start)
    data, valid = np.zeros(shape, source.dtype), np.zeros(shape, bool)
    place = placement(source.geobox, geobox)
    if place.offset is not None:
        warp, pieces = None, list(_overlap(source.geobox, place.offset, rows, cols))
    else:
        warp, pieces = Warp(geobox, resampling, place.scale), list(_pieces(rows, cols))
    if not pieces:
        return data, valid
    with opened(source, warp, _written(rows, cols)) as handle:
        for inside, window in pieces:
            data[(..., *inside)], valid[(..., *inside)] = handle.read(source.bands, source.dtype, window)
    return data, valid


def read_variable(variable: Variable, step: int, geobox: GeoBox, rows: slice, cols: slice) -> tuple[Array, Array]:
    """Read a window of a variable at one time step: in each band and pixel the first valid source wins.

    Parameters
    ----------
    variable : what to read; rasters that do not touch the window are never opened
    step : the time step
    geobox : the whole grid
    rows, cols : pixel ranges of the grid, which may reach outside; there nothing is valid

    Returns
    -------
    pixels : (band, y, x), of the variable's dtype; where not valid NaN for floats, else its nodata, else 0
    valid : (band, y, x), bool

    Raises
    ------
    SourceError, ReadError
        as `read_source`
    """
    height, width = geobox.shape
    inner_rows = slice(max(rows.start, 0), min(rows.stop, height))
    inner_cols = slice(max(cols.start, 0), min(cols.stop, width))
    shape = (len(variable.labels or ("",)), rows.stop - rows.start, cols.stop - cols.start)
    nothing = np.nan if variable.dtype.kind == "f" else variable.nodata or 0
    data, valid = np.full(shape, nothing, variable.dtype), np.zeros(shape, bool)
    if inner_rows.start >= inner_rows.stop or inner_cols.start >= inner_cols.stop:
        return data, valid
    inside = (slice(None), _within(inner_rows, rows.start), _within(inner_cols, cols.start))
    inner_data, inner_valid = data[inside], valid[inside]  # views
    for source in variable.sources[step]:
        if not placement(source.geobox, geobox).touches(inner_rows, inner_cols):
            continue
        pixels, there = read_source(source, geobox, inner_rows, inner_cols, variable.resampling)
        there &= ~inner_valid
        inner_data[there] = pixels[there]
        inner_valid |= there
        if inner_valid.all():
            break
    return data, valid


@dataclass(frozen=True)
class Placement:
    """Where a raster lies on a grid.

    Attributes
    ----------
    offset : the grid's (row, column) of the raster's first pixel, where both have the same pixels; else None
    scale : the grid's pixels for one of the raster's, along the raster's own (y, x)
    bounds : (first row, last row, first column, last column) that it can touch, in the grid's pixels
    """

    offset: tuple[int, int] | None
    scale: tuple[float, float]
    bounds: tuple[float, float, float, float]

    def touches(self, rows: slice, cols: slice) -> bool:
        """Say whether a window may hold pixels of the raster."""
        top, bottom, left, right = self.bounds
        return bool(top < rows.stop and rows.start < bottom and left < cols.stop and cols.start < right)


def placement(raster: GeoBox, grid: GeoBox) -> Placement:
    """Find where a raster lies on a grid, once for the two."""
    return _placement(cheap_key(raster), cheap_key(grid))


@lru_cache(maxsize=65536)  # a few hundred bytes each
def _placement(raster: tuple[Any, ...], grid: tuple[Any, ...]) -> Placement:
    height, width, affine, crs = raster
    grid_height, grid_width, grid_affine, grid_crs = grid
    same_crs = CRS(crs) == CRS(grid_crs)
    if same_crs and (offset := _whole_shift(height, width, affine, grid_affine)) is not None:
        top, left = offset
        return Placement(offset, (1.0, 1.0), (top, top + height, left, left + width))
    there, back = (None, None) if same_crs else (_projection(crs, grid_crs), _projection(grid_crs, crs))
    x, y = np.meshgrid(np.linspace(0, width, LATTICE), np.linspace(0, height, LATTICE))
    columns, rows = _moved(x, y, affine, there, grid_affine)
    torn = CRS(grid_crs).geographic and np.ptp(columns) * abs(grid_affine.a) > 180  # by the 180th meridian
    if torn or not np.isfinite(rows).all() or not np.isfinite(columns).all():
        bounds = (-inf, inf, -inf, inf)
    else:
        widen = 0.0 if same_crs else BEND
        bounds = (*_widened(rows, widen), *_widened(columns, widen))
    centre_row = (max(bounds[0], 0) + min(bounds[1], grid_height)) / 2
    centre_column = (max(bounds[2], 0) + min(bounds[3], grid_width)) / 2
    x0, y0 = _moved(np.array(centre_column), np.array(centre_row), grid_affine, back, affine)
    # One pixel of the raster around that place, along its own x and y, in pixels of the grid.
    cross_x, cross_y = x0 + np.array([-0.5, 0.5, 0, 0]), y0 + np.array([0, 0, -0.5, 0.5])
    columns, rows = _moved(cross_x, cross_y, affine, there, grid_affine)
    scale = np.hypot(columns[3] - columns[2], rows[3] - rows[2]), np.hypot(columns[1] - columns[0], rows[1] - rows[0])
    return Placement(None, (_measured(scale[0]), _measured(scale[1])), bounds)


def _whole_shift(height: int, width: int, affine: Affine, grid_affine: Affine) -> tuple[int, int] | None:
    """Give the (row, column) by which a raster is shifted, None where its pixels are not the grid's."""
    x, y = np.array([0, width, 0, width]), np.array([0, 0, height, height])
    at_x, at_y = _moved(x, y, affine, None, grid_affine)
    row, column = round(float(at_y[0])), round(float(at_x[0]))
    off = max(np.abs(at_x - x - column).max(), np.abs(at_y - y - row).max())
    return (row, column) if off < ON_GRID else None


def _moved(x: Array, y: Array, affine: Affine, project: pyproj.Transformer | None, to: Affine) -> tuple[Array, Array]:
    """Take pixel coordinates of one raster to another's; infinite where there are none."""
    x, y = applied(affine, x, y)
    if project is not None:
        x, y = project.transform(x, y)
    with np.errstate(invalid="ignore"):  # an infinite coordinate stays one, or becomes NaN
        return applied(~to, np.asarray(x), np.asarray(y))


def _projection(crs: str, to: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(CRS(crs).proj, CRS(to).proj, always_xy=True)


def _widened(positions: Array, share: float) -> tuple[float, float]:
    low, high = float(positions.min()), float(positions.max())
    return low - share * (high - low), high + share * (high - low)


def _measured(scale: float) -> float:
    """Take a scale as measured, or 1 where there was no place to measure it at: nothing is read there."""
    return float(scale) if np.isfinite(scale) and scale > 0 else 1.0


def _pieces(rows: slice, cols: slice) -> Iterator[tuple[tuple[slice, slice], Window]]:
    """Cut a window along multiples of 512 px of the grid: where each piece lies in it, and on the grid."""
    for row in range(rows.start // PIECE * PIECE, rows.stop, PIECE):
        for col in range(cols.start // PIECE * PIECE, cols.stop, PIECE):
            top, bottom = max(row, rows.start), min(row + PIECE, rows.stop)
            left, right = max(col, cols.start), min(col + PIECE, cols.stop)
            inside = slice(top - rows.start, bottom - rows.start), slice(left - cols.start, right - cols.start)
            yield inside, Window(left, top, right - left, bottom - top)


def _overlap(
    raster: GeoBox, offset: tuple[int, int], rows: slice, cols: slice
) -> Iterator[tuple[tuple[slice, slice], Window]]:
    """Give the part of a window that a raster on the same grid holds: within the window, and of the file."""
    (row, col), (height, width) = offset, raster.shape
    top, bottom = max(row, rows.start), min(row + height, rows.stop)
    left, right = max(col, cols.start), min(col + width, cols.stop)
    if top < bottom and left < right:
        inside = slice(top - rows.start, bottom - rows.start), slice(left - cols.start, right - cols.start)
        yield inside, Window(left - col, top - row, right - left, bottom - top)


def _within(inner: slice, start: int) -> slice:
    return slice(inner.start - start, inner.stop - start)


def _written(rows: slice, cols: slice) -> str:
    return f"rows {rows.start}..{rows.stop}, columns {cols.start}..{cols.stop} of the grid"


__all__ = ["Placement", "close_handles", "placement", "read_source", "read_variable"]
