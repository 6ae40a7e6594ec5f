"""Windows drawn at random, at any pixel, uniformly over the ground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import shapely

from geopipes import grids
from geopipes.chips.cutting import Coverage, _pair
from geopipes.chips.fields import fields
from geopipes.chips.places import given, onto_cube, table_columns
from geopipes.chips.rejection import Area, Ask, drawn
from geopipes.chips.windows import Windows
from geopipes.errors import ChipError

if TYPE_CHECKING:
    import geopandas
    from shapely.geometry.base import BaseGeometry

    from geopipes.datacubes.cube import Cubes

Units = Literal["px", "crs"]

WHOLE_PIXELS = 1e-6
"""Share of a pixel by which a size in CRS units may miss whole pixels."""


def draw(
    cubes: Cubes,
    size: float | tuple[float, float],
    *,
    seed: int,
    n: int | None = None,
    density: float | None = None,
    region: BaseGeometry | geopandas.GeoDataFrame | geopandas.GeoSeries | None = None,
    period: tuple[str, str] | None = None,
    units: Units = "px",
    margin: int = 0,
    time: int | None = None,
    coverage: Coverage = "full",
) -> Windows:
    """Draw random windows at any pixel position, uniformly over the ground; nothing is read.

    Every place of the windows' corner that leaves the window inside is as likely as any other of the same area on
    the ground, whatever the CRS (areas are those of EPSG:6933). A place that several UTM zones see counts once.
    Draws are independent: the same window may come twice.

    Parameters
    ----------
    cubes : one for each grid
    size : of a window, one number or (y, x), in ``units``
    seed : of numpy's PCG64
    n : windows, or
    density : windows for each km² of places that a corner may take; then their number is random
    region : that holds the windows whole: a shapely geometry in longitude and latitude, or a GeoDataFrame or
        GeoSeries, which states its CRS; None for all that the cubes cover
    period : first and last day that the dates of a window may have, ``("2024-05", "2024-09")``; both whole
    units : ``"px"``, pixels of the (first) cube, or ``"crs"``, units of its CRS: whole pixels, as many in all cubes
    margin : pixels read beyond the window on every side
    time : dates in a window, one after the other, its first date as likely as any other; None for all dates
    coverage : ``"full"``: every source covers the window (the union of its raster extents over all dates);
        ``"any"``: the window lies on the grid

    Returns
    -------
    windows in the order drawn. The column ``probability`` is the expected number of times that this very window
    (place and first date) is drawn, so that the sum of value / probability over the windows is an unbiased estimate
    of the sum of the value over all windows that could have been drawn. It is exact for ``density``. For ``n`` the
    number of fitting places is itself estimated without bias, from how many candidates were tried until window
    n + 1 fitted (inverse sampling: Haldane 1945), which spreads by 1 / sqrt(n) at most.

    Raises
    ------
    ChipError
        if not one of n and density is given, the region misses the data, no date lies in the period, or windows
        of this size hardly fit anywhere
    GridMismatch
        if windows would cut pixels of an input in two
    """
    call = f"draw(size={size})"
    ask = Ask(call, n, density, seed, coverage)
    shape = _pixels(cubes, size, units, call)
    ranges, dates = fields(cubes, shape, call, margin=margin, time=time, period=period)
    shapes, crs = (None, None) if region is None else given(region, call)
    together = None if shapes is None else np.array([shapely.union_all(shapely.make_valid(shapes))], object)
    areas = []
    for field in ranges:
        covered = field.cube.footprint if coverage == "full" else shapely.box(*field.cube.geobox.boundingbox.bbox)
        parts = np.array([covered], object)
        if together is not None and crs is not None:
            parts = shapely.intersection(onto_cube(together, crs, field.cube)[0], covered)
        areas.append(Area.of(field, shapely.get_parts(parts), whole=True, on_grid=True))
    _check_met(areas, call, "data" if region is None else "region")
    return drawn(_blank(cubes, shape, margin, dates), areas, ask)[0]


def inside(
    cubes: Cubes,
    polygons: geopandas.GeoDataFrame | geopandas.GeoSeries | BaseGeometry,
    size: float | tuple[float, float],
    *,
    seed: int,
    n: int | None = None,
    density: float | None = None,
    period: tuple[str, str] | None = None,
    units: Units = "px",
    margin: int = 0,
    time: int | None = None,
    coverage: Coverage = "full",
) -> Windows:
    """Draw random windows whose centre lies inside polygons, uniformly over their area; nothing is read.

    Parameters
    ----------
    cubes : one for each grid
    polygons : a GeoDataFrame or GeoSeries in any CRS, or a shapely geometry in longitude and latitude
    size, seed, n, density, period, units, margin, time, coverage : as in `draw`; with coverage="any" the window may
        reach beyond the grid

    Returns
    -------
    windows in the order drawn, with the attributes of their polygon as columns, ``polygon`` (its label in the
    table's index) and ``probability`` as in `draw`; what several polygons share counts once for each

    Raises
    ------
    ChipError
        as in `draw`, and if no polygon meets the data
    """
    call = f"inside(size={size})"
    ask = Ask(call, n, density, seed, coverage)
    shape = _pixels(cubes, size, units, call)
    shapes, crs = given(polygons, call)
    ranges, dates = fields(cubes, shape, call, margin=margin, time=time, period=period)
    areas = []
    for field in ranges:
        there, index = onto_cube(shapes, crs, field.cube)
        pieces, piece_of = shapely.get_parts(there, return_index=True)
        areas.append(Area.of(field, pieces, whole=False, on_grid=coverage == "full", label=index[piece_of]))
    _check_met(areas, call, "polygons")
    windows, label = drawn(_blank(cubes, shape, margin, dates), areas, ask)
    labels = np.asarray(polygons.index) if hasattr(polygons, "index") else np.arange(len(shapes))
    columns = {
        name: values[label] for name, values in ({"polygon": labels} | table_columns(polygons, "polygon")).items()
    }
    return windows.with_columns({**columns, **windows.columns})


def _check_met(areas: list[Area], call: str, what: str) -> None:
    """Raise where there is no position at all."""
    if not any(len(area.shapes) for area in areas):
        bounds = [[round(v, 1) for v in area.field.cube.geobox.boundingbox.bbox] for area in areas]
        where = "; ".join(
            f"{b} in {grids.crs_name(area.field.cube.crs)}" for b, area in zip(bounds[:3], areas, strict=False)
        )
        hint = {
            "data": "use a smaller size, or coverage='any'",
            "region": "the region misses the data, or is smaller than a window; use other bounds, or a smaller size",
            "polygons": "no polygon meets the data; check their CRS, or use a smaller size",
        }[what]
        raise ChipError(f"{call}: there is no place for a window: {hint}. The cubes span {where}")


def _blank(cubes: Cubes, shape: tuple[int, int], margin: int, dates: int | None) -> Windows:
    """Give a plan without windows."""
    return Windows.of(cubes.cubes, shape, row=[], col=[], margin=margin, dates=dates)


def _pixels(cubes: Cubes, size: float | tuple[float, float], units: Units, call: str) -> tuple[int, int]:
    """Give a size in pixels."""
    if units == "px":
        return _pair(size, "size", call.partition("(")[0])  # type: ignore[arg-type]  # which refuses what is not whole
    if units != "crs":
        raise ChipError(f"{call}: units={units!r}: use 'px' or 'crs'")
    y, x = size if isinstance(size, tuple) else (size, size)
    found = set()
    for cube in cubes.cubes:
        steps = (abs(cube.geobox.affine.e), abs(cube.geobox.affine.a))
        exact = (y / steps[0], x / steps[1])
        whole = (round(exact[0]), round(exact[1]))
        if min(whole) < 1 or max(abs(exact[0] - whole[0]), abs(exact[1] - whole[1])) > WHOLE_PIXELS:
            raise ChipError(
                f"{call}: units='crs': {exact[0]:g} x {exact[1]:g} px of {steps[0]:g} x {steps[1]:g} (y, x); "
                "give a multiple of the pixel size"
            )
        found.add(whole)
    if len(found) != 1:
        raise ChipError(f"{call}: units='crs': the cubes' pixels differ, windows would be {sorted(found)} px")
    return found.pop()
