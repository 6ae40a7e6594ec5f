"""Terrain: slope, aspect and hillshade of an elevation, by Horn's method, as gdaldem does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyproj
import xarray as xr

from geopipes.edits import Array
from geopipes.errors import StepError
from geopipes.kinds import is_categorical
from geopipes.pixels.neighbours import over_neighbours
from geopipes.pixels.variables import FLOAT, check_new, known, measured

MARGIN = 1
"""Pixels around each that Horn's method looks at."""

WGS84 = (6378137.0, 1 / 298.257223563)
"""Its semi-major axis [m] and flattening; the ellipsoids of other geographic CRSs differ by less than 0.1%."""

DOUBLE = np.dtype(np.float64)

Formula = Callable[[Any, Any], Any]
"""Of variables: the rise to the east and to the north, metres a metre."""


def slope(dataset: xr.Dataset, elevation: str, *, name: str = "slope") -> xr.Dataset:
    """Add how steep the ground is.

    Parameters
    ----------
    dataset : with the elevation, as a joined DEM: (y, x) or more [m]
    elevation : the variable
    name : of the variable added

    Returns
    -------
    the Dataset with one variable more, float32 [degrees, 0..90], on the dims of the elevation; NaN where it or one of
    its eight neighbours is not known, as at the edge of the grid: chips need a margin of 1 px

    Raises
    ------
    UnknownBand
        if the elevation is not there
    StepError
        if it holds classes, the name is taken, or the grid's CRS tells no distances
    MarginTooSmall
        of a chain, if chips carry no margin

    Notes
    -----
    Horn (1981), "Hill shading and the reflectance map", https://doi.org/10.1109/PROC.1981.11918, as ``gdaldem``
    computes it. Distances are those of the grid's CRS; in degrees, those along the WGS 84 ellipsoid at the row's
    latitude.
    """
    return _terrain(dataset, elevation, name, _slope, "slope")


def aspect(dataset: xr.Dataset, elevation: str, *, name: str = "aspect") -> xr.Dataset:
    """Add where slopes face: the direction downhill.

    Parameters
    ----------
    dataset, elevation, name : as in `slope`

    Returns
    -------
    the Dataset with one variable more, float32 [degrees, 0..360 clockwise from the grid's north]: 90 faces east. NaN
    as in `slope`, and where the ground is flat

    Raises
    ------
    UnknownBand, StepError, MarginTooSmall
        as in `slope`
    """
    return _terrain(dataset, elevation, name, _aspect, "aspect")


def hillshade(
    dataset: xr.Dataset, elevation: str, *, azimuth: float = 315.0, altitude: float = 45.0, name: str = "hillshade"
) -> xr.Dataset:
    """Add how brightly the sun shines on the ground: the cosine of the angle at which its light falls in.

    Parameters
    ----------
    dataset, elevation, name : as in `slope`
    azimuth, altitude : of the sun [degrees], clockwise from the grid's north, and above the horizon

    Returns
    -------
    the Dataset with one variable more, float32 0..1, 0 where the ground lies in its own shadow; NaN as in `slope`.
    ``gdaldem hillshade`` gives ``1 + 254 *`` this

    Raises
    ------
    UnknownBand, StepError, MarginTooSmall
        as in `slope`; StepError for a sun below the horizon too
    """
    if not 0 <= altitude <= 90 or not np.isfinite(azimuth):
        raise StepError(f"hillshade(azimuth={azimuth}, altitude={altitude}): the sun stands 0 to 90 degrees high")
    formula = partial(_hillshade, azimuth=np.radians(azimuth), altitude=np.radians(altitude))
    return _terrain(dataset, elevation, name, formula, "hillshade")


def _terrain(dataset: xr.Dataset, elevation: str, name: str, formula: Formula, call: str) -> xr.Dataset:
    """Add a function of the rise to the east and to the north."""
    variable = dataset.variables[known(dataset, elevation)[0]]
    check_new(dataset, name, f"{call}({elevation!r}, name={name!r})")
    if is_categorical(elevation, variable.dtype, variable.attrs) or variable.dtype.kind not in "iuf":
        raise StepError(
            f"{call}({elevation!r}): it holds {variable.dtype} of classes; an elevation in metres is needed"
        )
    width, height = _spacing(dataset, call)
    there = measured(dataset, elevation).variable
    heights: Any = xr.apply_ufunc(_told, variable, there, dask="parallelized", output_dtypes=[DOUBLE])
    east, north = (
        over_neighbours(heights, partial(_rise, axis=axis), margin=MARGIN, dtype=DOUBLE) / spacing
        for axis, spacing in ((1, width), (0, height))
    )
    result = formula(east, north).astype(FLOAT)
    result.attrs = {"units": "1" if call == "hillshade" else "degree"}
    return dataset.assign({name: result})


def _told(heights: Array, there: Array) -> Array:
    return np.where(there, heights.astype(DOUBLE), np.nan)


def _rise(heights: Array, *, axis: int) -> Array:
    """Give Horn's difference across each pixel, of (..., y, x): to the north for axis 0, to the east for axis 1.

    Sums are made in one order whatever the array, and NaN spreads from the centre and from all neighbours.
    """
    found = np.full(heights.shape, np.nan)
    if min(heights.shape[-2:]) < 3:
        return found
    up, middle, down = heights[..., :-2, :], heights[..., 1:-1, :], heights[..., 2:, :]
    if axis == 1:
        rows = up + 2 * middle + down
        inner = rows[..., 2:] - rows[..., :-2]
    else:
        columns = up - down
        inner = columns[..., :-2] + 2 * columns[..., 1:-1] + columns[..., 2:]
    holes = np.isnan(up + middle + down)
    holes = holes[..., :-2] | holes[..., 1:-1] | holes[..., 2:]
    found[..., 1:-1, 1:-1] = np.where(holes, np.nan, inner / 8)
    return found


def _slope(east: Any, north: Any) -> Any:
    return np.degrees(np.arctan(np.hypot(east, north)))


def _aspect(east: Any, north: Any) -> Any:
    downhill = np.degrees(np.arctan2(-east, -north)) % 360
    return downhill.where((east != 0) | (north != 0))


def _hillshade(east: Any, north: Any, *, azimuth: float, altitude: float) -> Any:
    toward = east * np.sin(azimuth) + north * np.cos(azimuth)
    light = (np.sin(altitude) - np.cos(altitude) * toward) / np.sqrt(1 + east**2 + north**2)
    return light.clip(min=0)


def _spacing(dataset: xr.Dataset, call: str) -> tuple[Any, Any]:
    """Give the width and height of pixels in metres: of each row where they are in degrees.

    The transform tells it, which is the same for all windows of a grid; coordinates would differ in their last bits.
    """
    attrs = dataset.variables["spatial_ref"].attrs if "spatial_ref" in dataset.variables else {}
    if "GeoTransform" not in attrs or "crs_wkt" not in attrs:
        raise StepError(f"{call} needs the coordinate 'spatial_ref' of a cube or chip, which tells CRS and pixel size")
    _, across, _, _, _, down = (abs(float(number)) for number in attrs["GeoTransform"].split())
    crs = pyproj.CRS.from_wkt(attrs["crs_wkt"])
    if crs.is_geographic:
        radius, flattening = WGS84
        squared = flattening * (2 - flattening)  # the eccentricity
        latitude = np.radians(dataset.variables["y"].astype(DOUBLE))
        bend = 1 - squared * np.sin(latitude) ** 2
        east = np.radians(across) * radius * np.cos(latitude) / np.sqrt(bend)
        return east, np.radians(down) * radius * (1 - squared) / bend**1.5
    method = "" if crs.coordinate_operation is None else crs.coordinate_operation.method_name
    if "Mercator" in method and "Transverse" not in method:
        raise StepError(
            f"{call}: {crs.name} stretches distances with latitude, twofold at 60 degrees; use another grid, as "
            'stack(crs="utm")'
        )
    metres = crs.axis_info[0].unit_conversion_factor
    return across * metres, down * metres
