"""Outlines of rasters and regions in another CRS."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyproj
import shapely
import shapely.affinity
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from geopipes.errors import GridError
from geopipes.grids.lattices import crs_name, crs_of, written

SEGMENTS = 256
"""Pieces along the longer side of an outline that is projected: 0.4 km of a Sentinel-2 tile's."""

LONLAT = CRS("EPSG:4326")


def extent(geobox: GeoBox, crs: CRS) -> BaseGeometry:
    """Give the outline of a raster in another CRS.

    Each side is projected as up to 256 pieces; where it curves, the outline is off by 1/65536 of its sagitta:
    0.3 mm for a Sentinel-2 tile in the next UTM zone, 1 cm for 600 km of Europe, 0.7 m for 3,000 km. A raster
    larger than the CRS can show (the globe, in UTM) is cut to 3 degrees of longitude around where it is in use.

    Returns
    -------
    a polygon in ``crs``, in one or more parts; empty where the raster lies outside what the CRS can show

    Raises
    ------
    GridError
        the outline is torn in that CRS: it crosses the 180th meridian or holds a pole, in longitude and
        latitude
    """
    return _extent((*geobox.shape, *geobox.affine[:6]), str(crs_of(geobox)), str(crs))


@lru_cache(maxsize=4096)
def _extent(grid: tuple[float, ...], crs: str, to: str) -> BaseGeometry:
    """Give an outline, remembered by values that are cheap to compare (see `lattices.key`)."""
    height, width, a, b, c, d, e, f = grid
    corners = (0, 0), (width, 0), (width, height), (0, height)
    outline = shapely.Polygon([(a * x + b * y + c, d * x + e * y + f) for x, y in corners])
    own, other = CRS(crs), CRS(to)
    if own == other:
        return outline
    whole = projected(outline, own, other)
    if whole is None:
        cut = _shown(outline, own, other)
        whole = None if cut is None else projected(cut, own, other)
    if whole is None:
        raise GridError(
            f"a raster in {crs_name(own)} with bounds {written(outline.bounds)} has no outline in {crs_name(other)}: "
            "it crosses the 180th meridian, holds a pole, or is too large; choose a projected CRS that suits it"
        )
    return whole


def projected(area: BaseGeometry, crs: CRS, to: CRS) -> BaseGeometry | None:
    """Project an area, its edges in pieces; None where the other CRS cannot show it whole."""
    if area.is_empty:
        return area
    left, bottom, right, top = area.bounds
    dense = shapely.segmentize(area, max(right - left, top - bottom) / SEGMENTS)
    project = _transformer(str(crs), str(to)).transform
    moved = shapely.transform(dense, lambda xy: np.stack(project(xy[:, 0], xy[:, 1]), axis=1))
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        return None
    if to.geographic:
        for part in shapely.get_parts(moved):
            longitudes = shapely.get_coordinates(part)[:, 0]
            if np.abs(np.diff(longitudes)).max(initial=0) > 180:  # a piece that leaps over the 180th meridian
                return None
    if area.is_valid:  # it stays so, and what is inside stays inside, unless the area wraps around
        inside = area.representative_point()
        if not moved.is_valid or not moved.intersects(shapely.Point(project(inside.x, inside.y))):
            return None
    return moved


def _shown(outline: BaseGeometry, crs: CRS, to: CRS) -> BaseGeometry | None:
    """Cut an outline to where another CRS is in use, and 3 degrees around; None if that fails too."""
    use = to.proj.area_of_use
    if use is None:
        return None
    turn = 360 if use.east < use.west else 0  # in use on both sides of the 180th meridian
    # The poles are points in most CRSs, and lines in longitude and latitude: they are left out.
    strip = shapely.box(use.west - 3, -85, use.east + turn + 3, 85)
    if crs.geographic:  # longitudes may run from -180 or from 0
        turns = [shapely.affinity.translate(outline, turn) for turn in (-360, 0, 360)]
        return shapely.union_all(turns).intersection(strip)
    there = projected(strip, LONLAT, crs)
    return None if there is None or not there.is_valid else outline.intersection(there)


@lru_cache(maxsize=256)
def _transformer(crs: str, to: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(crs, to, always_xy=True)
