"""Features as they are read, and on the pixels of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from geopipes import grids
from geopipes.errors import SourceError
from geopipes.labels.packing import Bounds

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Array = npt.NDArray[Any]
Shapes = npt.NDArray[np.object_]

BEND = 0.05
"""Pixels by which a straight edge may be off once it is reprojected: longer edges are divided before."""

LATTICE = 9
"""Points along each side of an area at which a reprojection is looked at."""

SOME = 5
"""Features that an error names."""


@dataclass(frozen=True)
class Features:
    """Some features of vectors, in the order of their ids.

    Attributes
    ----------
    ids : (n,) int64, as the file numbers them
    shapes : (n,) shapely geometries, in the vectors' CRS
    values : (n,) of each column that was asked for
    """

    ids: npt.NDArray[np.int64]
    shapes: Shapes
    values: Mapping[str, Array]

    def take(self, at: Array) -> Features:
        """Give some of them."""
        return Features(self.ids[at], self.shapes[at], {name: column[at] for name, column in self.values.items()})


def check_shapes(name: str, ids: Array, shapes: Shapes, *, of: int | None = None) -> None:
    """Raise where a feature has no geometry; ``of`` is how many there are in all, where that is more.

    Raises
    ------
    SourceError
        names some of them, and how to leave them out
    """
    missing = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    if missing.any():
        raise SourceError(
            f"{name}: {int(missing.sum())} of {of or len(shapes)} features have no geometry, or an empty one (ids "
            f"{ids[missing][:SOME].tolist()}{', ...' if missing.sum() > SOME else ''}), and label nothing. Leave them "
            "out: frame = gp.vectors(path); frame[~(frame.geometry.isna() | frame.geometry.is_empty)]"
        )


def pixels(shapes: Shapes, crs: str, grid: GeoBox) -> Shapes:
    """Give geometries in the pixels of a grid: x along columns, y down the rows.

    Edges that a reprojection would bend are divided first, by a length that depends on CRS and grid alone.
    """
    to, longest = _way(crs, grids.key(grid))
    a, _, c, _, e, f = grid.affine[:6]
    # As GDAL inverts a geotransform: pixels are then those that it finds over the whole grid, bit for bit.
    scale, offset = (1 / a, 1 / e), (-c / a, -f / e)

    def move(xy: Array) -> Array:
        x, y = (xy[:, 0], xy[:, 1]) if to is None else to.transform(xy[:, 0], xy[:, 1])
        return np.stack([offset[0] + x * scale[0], offset[1] + y * scale[1]], axis=1)

    flat = shapely.force_2d(shapes)
    found: Shapes = shapely.transform(flat if longest is None else shapely.segmentize(flat, longest), move)
    return found


def longest_edge(crs: str, grid: GeoBox) -> float | None:
    """Give the longest edge that reprojection to a grid bends by less than `BEND` pixels; None for any length.

    Returns
    -------
    in units of ``crs``
    """
    return _way(crs, grids.key(grid))[1]


def bounds_of(rows: slice, cols: slice, grid: GeoBox, crs: str) -> Bounds | None:
    """Give the bounds, in another CRS, of pixels of a grid, a little wide; None where that shows nothing of them."""
    x, y = np.meshgrid(np.linspace(cols.start, cols.stop, LATTICE), np.linspace(rows.start, rows.stop, LATTICE))
    a, _, c, _, e, f = grid.affine[:6]
    x, y = a * x.ravel() + c, e * y.ravel() + f
    to = _between(str(grids.crs_of(grid)), crs)
    if to is not None:
        x, y = to.transform(x, y)
    there = np.isfinite(x) & np.isfinite(y)
    if not there.any():
        return None
    left, bottom, right, top = x[there].min(), y[there].min(), x[there].max(), y[there].max()
    wide, high = (right - left) / LATTICE, (top - bottom) / LATTICE  # what bulges between the points, and a pixel or so
    return float(left - wide), float(bottom - high), float(right + wide), float(top + high)


@lru_cache(maxsize=256)
def _way(crs: str, key: tuple[Any, ...]) -> tuple[pyproj.Transformer | None, float | None]:
    """Give what puts points onto the CRS of a grid, and the longest edge; None where the CRS is the same."""
    height, width, a, _, c, _, e, f, to = key
    onto, back = _between(crs, to), _between(to, crs)
    if onto is None or back is None:
        return None, None
    x, y = np.meshgrid(np.linspace(0, width, LATTICE), np.linspace(0, height, LATTICE))
    x, y = back.transform(a * x.ravel() + c, e * y.ravel() + f)
    there = np.isfinite(x) & np.isfinite(y)
    x, y = x[there], y[there]
    if len(x) == 0:
        return onto, None
    step = float(min(np.hypot(np.ptp(x), np.ptp(y)) / LATTICE, 1.0 if pyproj.CRS(crs).is_geographic else np.inf))
    worst = 0.0
    for east, north in ((step, 0.0), (0.0, step), (step / 2, step / 2), (step / 2, -step / 2)):
        ends = [onto.transform(x + sign * east / 2, y + sign * north / 2) for sign in (-1, 0, 1)]
        off = [(first + last) / 2 - middle for first, middle, last in zip(*ends, strict=True)]
        bent = np.hypot(off[0] / a, off[1] / e) / (east**2 + north**2)
        worst = max(worst, float(np.nanmax(np.where(np.isfinite(bent), bent, np.nan), initial=0.0)))
    return onto, float(np.sqrt(BEND / worst)) if worst > 0 else None


@lru_cache(maxsize=256)
def _between(crs: str, to: str) -> pyproj.Transformer | None:
    """Give what transforms points; None between equal CRSs."""
    own, other = pyproj.CRS(crs), pyproj.CRS(to)
    if own.equals(other, ignore_axis_order=True):
        return None
    return pyproj.Transformer.from_crs(own, other, always_xy=True)
