"""Choosing the grid that the rasters of a stack are read onto."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  (gives xarray objects their .odc)
import shapely
import xarray as xr
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from geopipes.errors import GridError, ShiftedGrids
from geopipes.grids.extents import LONLAT, extent, projected
from geopipes.grids.lattices import (
    ON_EDGE,
    Bounds,
    Lattice,
    crs_name,
    crs_of,
    pixel_shift,
    pixel_size,
    same_resolution,
)
from geopipes.read.sources import Source, grid_key

SHIFTED = 1e-3
"""Pixels by which grids may differ before it is said."""


def choose(
    sources: Sequence[Source],
    *,
    resolution: float | tuple[float, float] | None = None,
    crs: Any = None,
    bounds: Bounds | None = None,
    geobox: GeoBox | None = None,
    like: GeoBox | xr.Dataset | xr.DataArray | None = None,
    region: BaseGeometry | None = None,
) -> list[tuple[GeoBox, tuple[int, ...]]]:
    """Choose the grid that sources are read onto, whatever order they stand in.

    The pixels of the first source by (time, item id) that has the grid's CRS and resolution are kept; where
    none has the resolution, the corner of the first that has the CRS is a pixel's corner; else the grid's
    edges are multiples of the resolution. (An origin that is such a multiple counts as none.)

    Parameters
    ----------
    resolution : of the grid [units of the CRS], or (y, x); None for the finest among the sources in its CRS
    crs : of the grid; None for the one CRS of all sources; "utm" for a grid for each UTM zone
    bounds : (left, bottom, right, top) in the grid's CRS, snapped outward; None for the region searched, or
        else all that the sources cover
    geobox, like : the grid itself, or an object that lies on it; taken as it is
    region : what was searched, in longitude and latitude

    Returns
    -------
    the grid and the indices of the sources that lie on it; with crs="utm" one pair for each zone, by CRS: a
    source in a UTM CRS belongs to its own zone, any other to each zone whose grid it touches

    Raises
    ------
    GridError
        the options say too little, too much, or describe no grid

    Warns
    -----
    ShiftedGrids
        sources of the grid's CRS and resolution do not share its pixels
    """
    if geobox is not None or like is not None:
        others = {
            "resolution": resolution,
            "crs": crs,
            "bounds": bounds,
            "like": None if geobox is None else like,
        }
        return [(_given(geobox, like, others), tuple(range(len(sources))))]
    if not sources:
        raise GridError("there are no sources to choose a grid from; pass geobox= or like=")
    if isinstance(crs, str) and crs.lower() == "utm":
        if bounds is not None:
            raise GridError("bounds= are in the grid's CRS, and crs='utm' gives several; name one CRS")
        return _for_each_zone(sources, resolution, region)
    target = _common_crs(sources) if crs is None else _crs(crs)
    if bounds is None:
        searched = None if region is None else _searched(region, target)
        bounds = (_union(sources, target) if searched is None else searched).bounds
    return [(_lattice(sources, target, resolution).enclosing(bounds), tuple(range(len(sources))))]


def _lattice(sources: Sequence[Source], crs: CRS, resolution: float | tuple[float, float] | None) -> Lattice:
    """Give the pixels that a grid has in a CRS: those of the first source that fits, where one does."""
    own = sorted((source for source in sources if crs_of(source.geobox) == crs), key=_order)
    if resolution is not None:
        wanted = _pair(resolution)
    elif own:
        sizes = [pixel_size(source.geobox) for source in own]
        wanted = min(sizes, key=lambda size: (size[0] * size[1], size))
    else:
        raise GridError(f"no source is in {crs_name(crs)}, so that none gives a resolution; write resolution=...")
    aligned = [source for source in own if source.geobox.axis_aligned]
    fitting = [source for source in aligned if same_resolution(pixel_size(source.geobox), wanted)]
    if not aligned:
        return Lattice(crs, wanted, (0.0, 0.0))
    anchor = (fitting or aligned)[0].geobox
    if fitting:
        wanted = pixel_size(anchor)
        _warn_of_shifts(fitting)
    y, x = (
        0.0 if abs(start / step - round(start / step)) <= ON_EDGE else start
        for start, step in zip((anchor.affine.f, anchor.affine.c), wanted, strict=True)
    )
    return Lattice(crs, wanted, (y, x))


def _warn_of_shifts(sources: Sequence[Source]) -> None:
    """Say where sources of one resolution do not share the pixels of the first."""
    first = sources[0]
    boxes = {grid_key(source.geobox): source.geobox for source in sources}
    shifts = {at: pixel_shift(first.geobox, box) for at, box in boxes.items()}
    shifted = sum(shifts[grid_key(source.geobox)] > SHIFTED for source in sources)
    if shifted:
        warnings.warn(
            ShiftedGrids(
                f"{shifted} of {len(sources)} sources lie up to {max(shifts.values()):.3g} px off the pixels of item "
                f"{first.item!r}, which the grid keeps; they are resampled. geobox= chooses other pixels"
            ),
            stacklevel=4,
        )


def _for_each_zone(
    sources: Sequence[Source], resolution: float | tuple[float, float] | None, region: BaseGeometry | None
) -> list[tuple[GeoBox, tuple[int, ...]]]:
    """Give a grid for each UTM CRS among the sources, or else for each zone that the area touches."""
    zones = [crs for crs, _ in _crs_counts(sources) if crs.proj.utm_zone]
    areas: list[tuple[CRS, BaseGeometry]] = []
    for zone in zones:
        own = [source for source in sources if crs_of(source.geobox) == zone]
        areas.append((zone, _within(_union(own, zone), region, zone)))
    if not zones:
        area = _union(sources, LONLAT) if region is None else region
        for zone, strip in _strips():
            part = area.intersection(strip)
            if part.area > 0:
                areas.append((zone, _within(_union(sources, zone), part, zone)))
    grids = []
    for zone, area in sorted(areas, key=lambda each: str(each[0])):
        if area.area > 0:
            grid = _lattice(sources, zone, resolution).enclosing(area.bounds)
            grids.append((grid, _members(sources, grid)))
    if not grids:
        raise GridError("no source touches the region searched in any UTM zone; widen the search")
    return grids


def _members(sources: Sequence[Source], grid: GeoBox) -> tuple[int, ...]:
    """Give the sources of a zone's grid: those in its CRS, and those in no UTM CRS that touch it."""
    crs, inside = crs_of(grid), shapely.box(*grid.boundingbox)
    return tuple(
        index
        for index, source in enumerate(sources)
        if crs_of(source.geobox) == crs
        or (not crs_of(source.geobox).proj.utm_zone and extent(source.geobox, crs).intersects(inside))
    )


def _strips() -> list[tuple[CRS, BaseGeometry]]:
    """Give the UTM zones of WGS 84 in longitude and latitude, 6 degrees wide each.

    Norway's and Svalbard's exceptions are left out: a place there still has a zone, if another than on a map.
    """
    return [
        (CRS(f"EPSG:{base + zone}"), shapely.box(6 * zone - 186, south, 6 * zone - 180, north))
        for base, south, north in ((32600, 0, 84), (32700, -80, 0))
        for zone in range(1, 61)
    ]


def _within(covered: BaseGeometry, region: BaseGeometry | None, crs: CRS) -> BaseGeometry:
    """Give the part of an area that lies in a region given in longitude and latitude."""
    searched = None if region is None else _searched(region, crs)
    return covered if searched is None else covered.intersection(searched)


def _searched(region: BaseGeometry, crs: CRS) -> BaseGeometry | None:
    """Give a region in another CRS; None where that CRS cannot show it whole (a search of the globe)."""
    if region.area == 0:
        raise GridError(
            f"the region searched is a {region.geom_type} without area and spans no grid; write "
            "bounds=(left, bottom, right, top) in the grid's CRS"
        )
    return projected(region, LONLAT, crs)


def _union(sources: Sequence[Source], crs: CRS) -> BaseGeometry:
    """Give what the sources cover, by their raster extents."""
    boxes = {grid_key(source.geobox): source.geobox for source in sources}
    return shapely.union_all([extent(box, crs) for box in boxes.values()])


def _order(source: Source) -> tuple[Any, ...]:
    """Sort by (time, item id), rasters without a time last; the rest makes the order total."""
    time = source.time.astype("datetime64[ns]")
    rest = (source.collection or "", source.asset, source.href, source.bands)
    return (bool(np.isnat(time)), int(time.astype(np.int64)), source.item, *rest, source.geobox.affine[:6])


def _given(geobox: GeoBox | None, like: object, others: dict[str, object]) -> GeoBox:
    """Check a grid that the user chose."""
    name = "like" if geobox is None else "geobox"
    clash = [key for key, value in others.items() if value is not None]
    if clash:
        raise GridError(f"{name}= is a whole grid and leaves nothing for {', '.join(clash)}=; drop one or the other")
    box = like if geobox is None else geobox
    if isinstance(box, xr.Dataset | xr.DataArray):
        box = box.odc.geobox
    if not isinstance(box, GeoBox):
        raise GridError(f"{name}= has no grid: a GeoBox, or xarray with y, x and a CRS, is needed")
    crs_of(box)
    if not box.axis_aligned or box.affine.a <= 0 or box.affine.e >= 0:
        raise GridError(
            f"{name}= is rotated or not north up (its affine is {box.affine[:6]}); write geobox=GeoBox.from_bbox(...)"
        )
    return box


def _common_crs(sources: Sequence[Source]) -> CRS:
    """Give the one CRS of all sources."""
    counts = _crs_counts(sources)
    if len(counts) > 1:
        listed = ", ".join(f"{crs_name(crs)} ({count})" for crs, count in counts)
        raise GridError(
            f"the sources are in {len(counts)} CRSs: {listed}. Choose one, as "
            f"crs={crs_name(counts[0][0])!r}, or a grid for each UTM zone, crs='utm'"
        )
    return counts[0][0]


def _crs_counts(sources: Sequence[Source]) -> list[tuple[CRS, int]]:
    """Count the sources in each CRS, most first. Equal ones may be written in different ways."""
    named = {str(source.geobox.crs): crs_of(source.geobox) for source in sources}
    distinct: list[CRS] = []
    for crs in named.values():
        if crs not in distinct:
            distinct.append(crs)
    counts = Counter(str(source.geobox.crs) for source in sources)
    totals = [(crs, sum(counts[name] for name, other in named.items() if crs == other)) for crs in distinct]
    return sorted(totals, key=lambda each: (-each[1], str(each[0])))


def _crs(crs: object) -> CRS:
    try:
        return CRS(crs)
    except CRSError as error:
        raise GridError(f"crs={crs!r} is no CRS that PROJ knows; write 'EPSG:32633', say, or 'utm'") from error


def _pair(resolution: float | tuple[float, float]) -> tuple[float, float]:
    y, x = resolution if isinstance(resolution, Sequence) else (resolution, resolution)
    if not (isfinite(y) and isfinite(x) and y > 0 and x > 0):
        raise GridError(f"resolution={resolution!r}: one positive number is needed, or a pair (y, x) of them")
    return float(y), float(x)
