"""Pixels as a lattice: edges, centres, shifts, and whether two grids share them."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, hypot, isfinite
from typing import Any, Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from geopipes.errors import GridError, GridMismatch

Bounds = tuple[float, float, float, float]
"""(left, bottom, right, top)"""

ON_EDGE = 1e-6
"""Pixels within which a coordinate is a pixel's edge: far above rounding, far below what resampling shows."""

SAME_RESOLUTION = 1e-6
"""Relative difference within which two resolutions are one: 0.01 px over a Sentinel-2 tile."""

LARGEST = 2**31
"""Pixels along a side that GDAL can no longer count."""


@dataclass(frozen=True)
class Lattice:
    """All edges of pixels of a CRS: ``origin + k * resolution`` for whole numbers k, both (y, x)."""

    crs: CRS
    resolution: tuple[float, float]
    origin: tuple[float, float]

    def enclosing(self, bounds: Bounds) -> GeoBox:
        """Give the smallest grid that holds the bounds."""
        left, bottom, right, top = bounds
        if not all(isfinite(bound) for bound in bounds) or left >= right or bottom >= top:
            raise GridError(f"bounds {written(bounds)} (left, bottom, right, top) hold no area")
        dy, dx = self.resolution
        low_y, high_y = self._edges(0, bottom, top)
        low_x, high_x = self._edges(1, left, right)
        height, width = high_y - low_y, high_x - low_x
        if not 0 < height < LARGEST or not 0 < width < LARGEST:
            raise GridError(
                f"bounds {written(bounds)} make a grid of {height} x {width} px of {dy:g} x {dx:g} (y, x); "
                f"a side has 1 to {LARGEST - 1} px. Are both in units of {crs_name(self.crs)}?"
            )
        affine = Affine(dx, 0, self.origin[1] + low_x * dx, 0, -dy, self.origin[0] + high_y * dy)
        return GeoBox((height, width), affine, self.crs)

    def _edges(self, axis: Literal[0, 1], low: float, high: float) -> tuple[int, int]:
        origin, step = self.origin[axis], self.resolution[axis]
        return floor((low - origin) / step + ON_EDGE), ceil((high - origin) / step - ON_EDGE)


def coordinates(
    geobox: GeoBox, rows: slice | None = None, cols: slice | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give pixel centres, equal to the last bit to ``geobox.coordinates`` and to any slice of them.

    Parameters
    ----------
    geobox : axis-aligned
    rows, cols : index ranges with start and stop, which may reach outside the grid; None for all of it

    Returns
    -------
    y and x [units of the CRS], float64
    """
    height, width = geobox.shape
    down, across = rows or slice(0, height), cols or slice(0, width)
    dx, _, left, _, dy, top, *_ = geobox.affine
    # GeoBox.coordinates evaluates the same expression: another order would round differently.
    y = np.arange(down.start, down.stop) * dy + (top + dy / 2)
    x = np.arange(across.start, across.stop) * dx + (left + dx / 2)
    return y, x


def check_same(a: GeoBox, b: GeoBox, what: str) -> None:
    """Raise where two grids are not one.

    Parameters
    ----------
    a, b : the grid that is needed, and the one there is
    what : of which ``b`` is the grid, as the error calls it

    Raises
    ------
    GridMismatch
        says how they differ (CRS, resolution, shift, extent) and how to mend it
    """
    if a == b:
        return
    (dx, skew_x, x), (skew_y, dy, y), _ = _across(a, b)
    if crs_of(a) != crs_of(b):
        found = f"is in {crs_name(crs_of(b))}, and {crs_name(crs_of(a))} is needed"
    elif max(abs(dx - 1), abs(dy - 1), abs(skew_x), abs(skew_y)) > SAME_RESOLUTION:
        turned = "" if b.axis_aligned else ", rotated"
        found = (
            f"has pixels of {b.affine.e:.8g} x {b.affine.a:.8g} (y, x){turned}, "
            f"and {a.affine.e:.8g} x {a.affine.a:.8g} is needed"
        )
    elif pixel_shift(a, b) > ON_EDGE:
        found = f"is shifted by {y - round(y):.6g} px in y and {x - round(x):.6g} px in x"
    elif a.shape != b.shape or max(abs(x), abs(y)) > ON_EDGE:
        found = (
            f"has the same pixels but another extent: {b.shape.y} x {b.shape.x} px (y, x) from row {y:.0f}, "
            f"column {x:.0f} of the grid needed, which has {a.shape.y} x {a.shape.x}"
        )
    else:
        return
    raise GridMismatch(f"{what} {found}; put it on that grid by stack(..., like=...) or reproject(geobox)")


def pixel_shift(a: GeoBox, b: GeoBox) -> float:
    """Give how far the edges of pixels of ``b`` are from those of ``a`` [px of ``a``], 0 to 0.5."""
    corners = np.array([(0, b.shape.x), (0, b.shape.y), (1, 1)])  # two opposite ones: resolutions may differ
    offsets = (_across(a, b) @ corners)[:2]
    return float(np.abs(offsets - np.round(offsets)).max())


def pixel_size(geobox: GeoBox) -> tuple[float, float]:
    """Give the sizes (y, x) of a pixel, along its own sides where it is rotated."""
    a, b, _, d, e, *_ = geobox.affine
    return hypot(b, e), hypot(a, d)


def same_resolution(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Tell whether two resolutions (y, x) are one."""
    return all(abs(one / other - 1) <= SAME_RESOLUTION for one, other in zip(a, b, strict=True))


def crs_of(geobox: GeoBox) -> CRS:
    """Give a grid's CRS.

    Raises
    ------
    GridError
        it has none
    """
    if geobox.crs is None:
        raise GridError(f"{geobox!r} has no CRS; give it one, as GeoBox(shape, affine, 'EPSG:32633')")
    return geobox.crs


def crs_name(crs: CRS) -> str:
    """Name a CRS in an error: by its code, or else by its name."""
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs.proj.name)


def written(bounds: Bounds) -> str:
    """Write bounds in an error, without the digits that rounding adds."""
    return "({})".format(", ".join(f"{bound:.10g}" for bound in bounds))


def _across(a: GeoBox, b: GeoBox) -> NDArray[np.floating[Any]]:
    """Give the matrix that takes pixel coordinates (x, y, 1) of ``b`` to those of ``a``."""
    # Solved, not multiplied by the inverse: origins cancel before they are rounded.
    matrices = [np.array(list(grid.affine), dtype=np.float64).reshape(3, 3) for grid in (a, b)]
    return np.linalg.solve(*matrices)
