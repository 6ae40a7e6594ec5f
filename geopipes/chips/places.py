"""Where windows lie on the ground: on one equal-area plane over all zones, and beside places of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from odc.geo.crs import CRS
from shapely.geometry.base import BaseGeometry

from geopipes import grids
from geopipes.chips.footprints import DEGREES, Floats, Geometries, centres, members, rectangles
from geopipes.chips.rows import ALL, chunks
from geopipes.chips.windows import Windows
from geopipes.errors import ChipError

if TYPE_CHECKING:
    import geopandas

    from geopipes.datacubes.cube import Cube

TOUCH = 1e-3
"""Metres by which footprints are drawn in before distances are taken: chips that only touch share no pixel."""

OWN = ("id", "cube", "time", "row", "col", "start", "end", "crs", "items", "coverage", "geometry")
"""Columns of a plan's table that say what it is: no other may bear their names."""

ENOUGH = 10_000
"""Windows that tell where a plan's middle is."""

PIECES = 64
"""Pieces along the longer side of a polygon that is put into another CRS."""


def plane(windows: Windows) -> pyproj.CRS:
    """Give a plane in metres on which a plan's places lie side by side, whatever their zones.

    Returns
    -------
    a Lambert azimuthal equal-area projection about the plan's middle (whole degrees). Areas are true; distances are
    within 0.3% up to 1,000 km from the middle (cos(c/2) and its inverse, c the angle from there: Snyder 1987, p. 185)

    Raises
    ------
    ChipError
        if the plan has no windows
    """
    if len(windows) == 0:
        raise ChipError("the plan has no windows, and so no place; choose some")
    some = windows.take(np.arange(0, len(windows), max(len(windows) // ENOUGH, 1)))
    degrees = centres(some, DEGREES).astype(float)
    around = np.exp(1j * np.radians(degrees[0])).mean()  # the middle of places on both sides of the 180th meridian too
    lon, lat = round(float(np.degrees(np.angle(around)))), round(float(degrees[1].mean()))
    return pyproj.CRS.from_proj4(f"+proj=laea +lat_0={lat} +lon_0={lon} +units=m +datum=WGS84")


def ground(windows: Windows, crs: pyproj.CRS | None = None) -> Geometries:
    """Give each chip's rectangle in metres on one equal-area plane; of a group those of all its members.

    Parameters
    ----------
    windows : (n,) a plan
    crs : the plane; None for the plan's own

    Returns
    -------
    (n,) shapely polygons, of groups that lie apart multipolygons
    """
    flat = (plane(windows) if crs is None else crs).to_wkt()
    found = [rectangles(part, ALL, flat) for part in members(windows)]
    return found[0] if len(found) == 1 else np.asarray(shapely.union_all(np.stack(found, axis=1), axis=1))


def near(windows: Windows, others: shapely.STRtree, distance: float, crs: pyproj.CRS) -> npt.NDArray[np.bool_]:
    """Say which chips overlap one of the others, or come nearer than a distance [m]; to touch is not to overlap.

    Parameters
    ----------
    windows : (n,) a plan; of a group any member counts
    others : geometries on the plane
    distance, crs : on the plane
    """
    found = np.zeros(len(windows), bool)
    for part in members(windows):
        for at in chunks(len(part)):
            drawn_in = rectangles(part, at, crs.to_wkt(), drawn_in=TOUCH)
            hits = others.query(drawn_in, predicate="dwithin", distance=max(distance - TOUCH, TOUCH / 4))
            found[at.start + hits[0]] = True
    return found


def moved(places: Geometries, crs: pyproj.CRS | str, to: pyproj.CRS | str) -> Geometries:
    """Put places into another CRS, corner by corner."""
    onto = pyproj.Transformer.from_crs(crs, to, always_xy=True)

    def move(xy: Floats) -> Floats:
        return np.stack(onto.transform(*xy.T), axis=1)

    there: Geometries = shapely.transform(places, move)
    return there


def given(places: BaseGeometry | geopandas.GeoDataFrame | geopandas.GeoSeries, what: str) -> tuple[Geometries, CRS]:
    """Take places as geometries and their CRS.

    Parameters
    ----------
    places : a shapely geometry in longitude and latitude, or a GeoDataFrame or GeoSeries, which states its CRS
    what : the call, for errors

    Raises
    ------
    ChipError
        if there is no place, or no CRS
    """
    if isinstance(places, BaseGeometry):
        shapes, crs = np.array([places], object), CRS(4326)
    else:
        series = getattr(places, "geometry", None)
        if series is None:
            raise ChipError(f"{what}: {type(places).__name__} is no place; give a GeoDataFrame or a shapely geometry")
        if series.crs is None:
            raise ChipError(f"{what}: the places state no CRS; write places.set_crs('EPSG:4326')")
        shapes, crs = np.asarray(series.array, object), CRS(series.crs)
    if len(shapes) == 0 or (shapely.is_missing(shapes) | shapely.is_empty(shapes)).any():
        raise ChipError(f"{what}: there is no place, or one of {len(shapes)} is empty; write places.dropna()")
    return shapes, crs


def onto_cube(shapes: Geometries, crs: CRS, cube: Cube) -> tuple[Geometries, npt.NDArray[np.int64]]:
    """Put polygons into a cube's CRS, cut to its grid.

    Returns
    -------
    (shapes, index) : what is left of those that meet the grid, and which these are
    """
    shapes = shapely.make_valid(shapes)
    local = grids.extent(cube.geobox, crs)
    met = np.flatnonzero(shapely.intersects(shapes, local))
    # Cut before they are moved, and a little wider: a CRS shows what lies far away in no useful way.
    left, bottom, right, top = local.bounds
    wide = shapely.buffer(local, max(right - left, top - bottom) / PIECES)
    cut = shapely.intersection(shapes[met], wide)
    bounds = shapely.bounds(cut)
    sides = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
    cut = moved(shapely.segmentize(cut, np.maximum(sides, 1e-9) / PIECES), crs.proj, cube.crs.proj)
    cut = shapely.intersection(shapely.make_valid(cut), shapely.box(*cube.geobox.boundingbox.bbox))
    kept = shapely.area(cut) > 0
    return cut[kept], met[kept]


def table_columns(table: Any, kind: str) -> dict[str, npt.NDArray[Any]]:
    """Give the columns of a table beside its geometry as arrays; times of a zone become UTC.

    What bears the name of one of the plan's own columns is named for its kind: ``point_id``.
    """
    columns = {}
    for name in getattr(table, "columns", ()):
        column = table[name]
        if name != getattr(table, "_geometry_column_name", None):
            if getattr(column.dtype, "tz", None) is not None:
                column = column.dt.tz_convert("UTC").dt.tz_localize(None)
            columns[f"{kind}_{name}" if name in OWN else str(name)] = column.to_numpy()
    return columns
