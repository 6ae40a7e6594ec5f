"""Where a raster lies on a grid: told from the two geoboxes alone, once for the two."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from geopipes.read.sources import grid_key

Array = np.ndarray[Any, Any]
Key = tuple[Any, ...]

ON_GRID = 1e-6
"""Pixels by which a raster may stand off a grid that is its own: far above rounding, and below what shows."""

LATTICE = 21
"""Points a side at which a raster is placed on the grid; between them its outline bends."""

BEND = 0.02
"""Widening of a raster's place on each side: more than an outline that shows on one grid bends between points."""

SAMPLES = 5
"""Points a side at which the ratio of resolutions is measured."""

WHOLE_RATIO = 0.05
"""Source pixels by which a ratio is rounded to whole ones: kernels that hardly widen would only blur."""


@dataclass(frozen=True)
class Placement:
    """Where a raster lies on a grid.

    Attributes
    ----------
    offset : the grid's (row, column) of the raster's first pixel, where both have the same pixels; else None
    scale : the grid's pixels for one of the raster's, along the raster's own (y, x); of the raster and the grid's
        pixels alone, whatever the grid's bounds
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
    return _placement(grid_key(raster), grid_key(grid))


@lru_cache(maxsize=65536)  # a few hundred bytes each
def _placement(raster: Key, grid: Key) -> Placement:
    height, width, *six, crs = raster
    _, _, *grid_six, grid_crs = grid
    affine, grid_affine = Affine(*six), Affine(*grid_six)
    same_crs = CRS(crs) == CRS(grid_crs)
    if same_crs and (offset := _whole_shift(height, width, affine, grid_affine)) is not None:
        top, left = offset
        return Placement(offset, (1.0, 1.0), (top, top + height, left, left + width))
    there = None if same_crs else _projection(crs, grid_crs)
    x, y = np.meshgrid(np.linspace(0, width, LATTICE), np.linspace(0, height, LATTICE))
    columns, rows = _moved(x, y, affine, there, grid_affine)
    torn = CRS(grid_crs).geographic and np.ptp(columns) * abs(grid_affine.a) > 180  # by the 180th meridian
    if torn or not np.isfinite(rows).all() or not np.isfinite(columns).all():
        bounds = (-inf, inf, -inf, inf)
    else:
        widen = 0.0 if same_crs else BEND
        bounds = (*_widened(rows, widen), *_widened(columns, widen))
    return Placement(None, _scale((height, width, affine, crs), grid_affine, grid_crs, there), bounds)


def _scale(raster: Key, grid_affine: Affine, grid_crs: str, there: pyproj.Transformer | None) -> tuple[float, float]:
    """Measure the grid's pixels for one of the raster's: the median over places where the grid's CRS is used."""
    x, y = _sampled(raster, grid_crs)
    if len(x) == 0:
        return 1.0, 1.0  # nothing will be read
    # One pixel of the raster around each place, along its own x and y, in pixels of the grid.
    steps = np.array([[-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]])[:, :, None]
    # Without the grid's origin, which would change the last bits.
    a, b, _, d, e, *_ = grid_affine
    columns, rows = _moved(x + steps[0], y + steps[1], raster[2], there, Affine(a, b, 0, d, e, 0))
    lengths = np.hypot(columns[2:] - columns[:2], rows[2:] - rows[:2])
    across, down = (float(np.median(axis[np.isfinite(axis)])) if np.isfinite(axis).any() else 1.0 for axis in lengths)
    return _rounded(down), _rounded(across)


def _sampled(raster: Key, grid_crs: str) -> tuple[Array, Array]:
    """Give places of a raster, in its pixels: spread over it, or else over where the grid's CRS is used."""
    height, width, affine, crs = raster
    inner = (np.arange(SAMPLES) + 0.5) / SAMPLES
    x, y = (axis.ravel() for axis in np.meshgrid(inner * width, inner * height))
    area = CRS(grid_crs).proj.area_of_use
    if area is None:
        return x, y
    degrees = None if crs == "EPSG:4326" else _projection(crs, "EPSG:4326")
    lon, lat = applied(affine, x, y) if degrees is None else degrees.transform(*applied(affine, x, y))
    used = (lon >= area.west) & (lon <= area.east) & (lat >= area.south) & (lat <= area.north)
    if used.any() or area.west > area.east:  # over the 180th meridian: the whole raster will do
        return (x[used], y[used]) if used.any() else (x, y)
    lon, lat = (axis.ravel() for axis in np.meshgrid(
        area.west + inner * (area.east - area.west), area.south + inner * (area.north - area.south)
    ))  # fmt: skip
    back = None if crs == "EPSG:4326" else _projection("EPSG:4326", crs)
    x, y = applied(~affine, *((lon, lat) if back is None else back.transform(lon, lat)))
    inside = (x > 0) & (x < width) & (y > 0) & (y < height)
    return x[inside], y[inside]


def _rounded(scale: float) -> float:
    """Take a ratio as 1, or one to a whole number, where it is nearly that."""
    if not scale > 0:
        return 1.0
    inverse = 1 / scale
    return 1 / round(inverse) if round(inverse) >= 1 and abs(inverse - round(inverse)) < WHOLE_RATIO else scale


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


def applied(affine: Affine, x: Array, y: Array) -> tuple[Array, Array]:
    """Take points through an affine transform; multiplying is spelled otherwise from affine 3 on."""
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def _projection(crs: str, to: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(CRS(crs).proj, CRS(to).proj, always_xy=True)


def _widened(positions: Array, share: float) -> tuple[float, float]:
    low, high = float(positions.min()), float(positions.max())
    return low - share * (high - low), high + share * (high - low)
