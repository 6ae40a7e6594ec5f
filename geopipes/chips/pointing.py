"""Windows where they are wanted: around points, and those of a table made before."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from geopipes import grids
from geopipes.chips.cutting import Coverage, _distance, _pair, fits
from geopipes.chips.fields import Field, fields
from geopipes.chips.footprints import DEGREES, Geometries, times
from geopipes.chips.places import OWN, given, moved, table_columns
from geopipes.chips.windows import Indices, Windows
from geopipes.datacubes.cube import Cubes
from geopipes.errors import ChipError

if TYPE_CHECKING:
    import geopandas
    import pandas as pd
    from odc.geo.crs import CRS

Outside = Literal["refuse", "leave out"]

PLACE = ("cube", "time", "row", "col")
"""Columns of a table that say where windows are, as in `Windows`."""

SAME_SIZE = 0.1
"""Share by which a footprint's area may miss that of its window: what a slanted CRS and rounded corners make."""


def around(
    cubes: Cubes,
    points: geopandas.GeoDataFrame | geopandas.GeoSeries,
    size: int | tuple[int, int],
    *,
    margin: int = 0,
    time: int | None = None,
    when: str | None = None,
    coverage: Coverage = "full",
    outside: Outside = "refuse",
) -> Windows:
    """Put a window around each point; nothing is read.

    The point lies in the middle of its window, within half a pixel. Where several cubes have a window for it, that of
    the UTM zone whose central meridian is nearest counts, or the first.

    Parameters
    ----------
    cubes : one for each grid
    points : in any CRS, which they state
    size : of a window [px of the (first) cube], one number or (y, x)
    margin : pixels read beyond the window on every side
    time : dates in a window, one after the other; None for all. A point has a window for each ``time`` dates, or
    when : the column that names its own date: then those dates about the nearest one
    coverage : ``"full"``: every source covers the window; ``"any"``: the point lies on the grid, and the window may
        reach beyond it
    outside : ``"refuse"`` points without a window, or ``"leave out"``: `Windows.left_out` counts them

    Returns
    -------
    windows in the order of the points, with their attributes as columns, and ``point``, their label in the table's
    index

    Raises
    ------
    ChipError
        for other shapes than points, points without a window, and ``when`` without a date
    ChipTooLarge, GridMismatch
        as in `geopipes.chips.chip`
    """
    call = f"around(size={size})"
    shape = _pair(size, "size", "around")
    shapes, crs = given(points, call)
    if (shapely.get_type_id(shapes) != shapely.GeometryType.POINT).any():
        raise ChipError(f"{call}: other shapes than points; write points.representative_point(), or inside(...)")
    if outside not in ("refuse", "leave out"):
        raise ChipError(f"{call}: outside={outside!r}: use 'refuse' or 'leave out'")
    if when is not None and (time is None or when not in getattr(points, "columns", ())):
        raise ChipError(f"{call}: when={when!r} names a column of dates, and needs time=, the dates in a window")
    ranges, _ = fields(cubes, shape, call, margin=margin, time=time)
    windows, has = _centred(ranges, cubes, shapes, crs, (shape, margin, time, coverage, call))
    if outside == "refuse" or not has.any():
        _check_all(has, shapes, crs, f"{call}: points", "leave them out with outside='leave out'")
    columns = {"point": np.asarray(points.index), **table_columns(points, "point")}
    windows = windows.with_columns(columns).take(np.flatnonzero(has))
    if time is not None:
        dates = None if when is None else table_columns(points[[when]].rename(columns={when: "when"}), "")["when"]
        windows = _timed(windows, ranges, time, None if dates is None else dates[has])
    return replace(windows.numbered(), left_out=int((~has).sum()))


def _centred(
    ranges: list[Field],
    cubes: Cubes,
    shapes: Geometries,
    crs: CRS,
    options: tuple[tuple[int, int], int, int | None, Coverage, str],
) -> tuple[Windows, npt.NDArray[np.bool_]]:
    """Give the window around each point, and whether it has one."""
    size, margin, time, coverage, call = options
    x, y = shapely.get_x(shapes), shapely.get_y(shapes)
    lon, lat = pyproj.Transformer.from_crs(crs.proj, DEGREES, always_xy=True).transform(x, y)
    best = np.full(len(shapes), np.inf)
    cube, row, col = (np.zeros(len(shapes), np.int64) for _ in range(3))
    for field in ranges:
        geobox, zone = field.cube.geobox, field.cube.crs.proj.utm_zone
        there = pyproj.Transformer.from_crs(crs.proj, field.cube.crs.proj, always_xy=True).transform(x, y)
        at = ((there[1] - geobox.affine.f) / geobox.affine.e, (there[0] - geobox.affine.c) / geobox.affine.a)
        seen = (at[0] >= 0) & (at[0] < geobox.shape.y) & (at[1] >= 0) & (at[1] < geobox.shape.x)
        away = _distance(zone, lon, lat) if zone else np.zeros(len(shapes))
        mine = np.flatnonzero(seen & (away < best))
        starts = [np.round((at[k][mine] - size[k] / 2) / field.stride[k]).astype(np.int64) for k in (0, 1)]
        places = [start * stride for start, stride in zip(starts, field.stride, strict=True)]
        index = np.full(len(mine), field.index)
        some = Windows.of(cubes.cubes, size, row=places[0], col=places[1], cube=index)
        kept = np.flatnonzero(fits(some, coverage, call, owned=False) & ((coverage == "any") | _on_grid(some, field)))
        mine = mine[kept]
        cube[mine], row[mine], col[mine], best[mine] = field.index, places[0][kept], places[1][kept], away[mine]
    windows = Windows.of(cubes.cubes, size, row=row, col=col, cube=cube, margin=margin, dates=time)
    return windows, np.isfinite(best)


def _check_all(has: npt.NDArray[np.bool_], shapes: Geometries, crs: CRS, what: str, mend: str) -> None:
    """Raise where some of the places have no window."""
    if not has.all():
        lost = np.flatnonzero(~has)
        raise ChipError(
            f"{what} without a window within the data: {len(lost)} of {len(has)}, the first {shapes[lost[0]]} in "
            f"{grids.crs_name(crs)}; check their CRS, {mend}, or use coverage='any'"
        )


def _on_grid(windows: Windows, field: Field) -> npt.NDArray[np.bool_]:
    """Say which windows their cube's grid holds whole."""
    height, width = field.cube.geobox.shape
    row, col = windows.row, windows.col
    bottom, right = row + windows.size[0], col + windows.size[1]
    inside: npt.NDArray[np.bool_] = (row >= 0) & (col >= 0) & (bottom <= height) & (right <= width)
    return inside


def _timed(windows: Windows, ranges: list[Field], time: int, when: Any) -> Windows:
    """Give windows their first dates: every ``time`` dates, or those about a date of their own."""
    fields_of = {field.index: field for field in ranges}
    if when is None:
        counts = np.zeros(len(windows.cubes), np.int64)
        counts[[*fields_of]] = [-(-len(field.dates) // time) for field in ranges]
        often = counts[windows.cube]
        start = (np.arange(often.sum()) - np.repeat(np.cumsum(often) - often, often)) * time
        return windows.take(np.repeat(np.arange(len(windows)), often)).placed(time=start)
    dates = np.asarray(when, "datetime64[ns]")
    if np.isnat(dates).any():
        raise ChipError(f"around(when=...): {int(np.isnat(dates).sum())} points have no date; write points.dropna()")
    start, cube = np.zeros(len(windows), np.int64), windows.cube
    for index, field in fields_of.items():
        mine = np.flatnonzero(cube == index)
        nearest = _nearest(times(field.cube), dates[mine])
        start[mine] = np.clip(nearest - (time - 1) // 2, 0, field.dates[-1])
    return windows.placed(time=start)


def _nearest(there: npt.NDArray[np.datetime64], wanted: npt.NDArray[np.datetime64]) -> Indices:
    """Give the place of the nearest date, of two the earlier."""
    order = np.argsort(there, kind="stable")
    after = np.minimum(np.searchsorted(there[order], wanted), len(there) - 1)
    before = np.maximum(after - 1, 0)
    nearest: Indices = order[np.where(wanted - there[order[before]] <= there[order[after]] - wanted, before, after)]
    return nearest


def at(
    cubes: Cubes,
    table: pd.DataFrame,
    size: int | tuple[int, int],
    *,
    margin: int = 0,
    time: int | None = None,
    coverage: Coverage = "full",
) -> Windows:
    """Take the windows of a table made before; nothing is read.

    Parameters
    ----------
    cubes : one for each grid
    table : with the columns ``row`` and ``col`` [px], and ``cube`` and ``time`` (the first date's place) where there
        are several: taken as they are. Else a GeoDataFrame of footprints, in any CRS: the window about the middle of
        each, as in `around`
    size : of the windows [px of the (first) cube], one number or (y, x)
    margin : pixels read beyond the window on every side
    time : dates in a window; None for all
    coverage : as in `around`, for footprints

    Returns
    -------
    windows in the order of the table, with its other columns; the column ``id``, where there is one, gives the ids

    Raises
    ------
    ChipError
        for windows that lie off the cubes, footprints of another size, and ids that are not unique
    """
    call = f"at(size={size})"
    shape = _pair(size, "size", "at")
    ranges, _ = fields(cubes, shape, call, margin=margin, time=time)
    if {"row", "col"} <= set(table.columns):
        cube, date, row, col = (_whole(table, name, call) for name in PLACE)
        windows = Windows.of(
            cubes.cubes, shape, row=row, col=col, cube=cube, time=date, margin=margin, dates=time,
            columns=table_columns(table.drop(columns=list(OWN), errors="ignore"), "table"),
        )  # fmt: skip
        _check_there(windows, ranges, call)
    else:
        shapes, crs = given(table, call)
        middles = shapely.centroid(shapes)
        windows, has = _centred(ranges, cubes, middles, crs, (shape, margin, time, coverage, call))
        _check_all(has, middles, crs, f"{call}: footprints", "leave them out of the table")
        windows = windows.with_columns({"line": windows.ids})
        windows = windows if time is None else _timed(windows, ranges, time, None)
        line = windows.columns["line"]
        _check_size(windows, shapes[line], crs, call)
        table = table.iloc[line]
        others = table.drop(columns=[name for name in OWN if name != table.geometry.name], errors="ignore")
        places = {name: windows.values(name) for name in PLACE}
        windows = Windows.of(
            cubes.cubes, shape, **places, margin=margin, dates=time, columns=table_columns(others, "table")
        )
    if "id" in table.columns:
        ids = _whole(table, "id", call)
        if len(np.unique(ids)) != len(ids):
            raise ChipError(f"{call}: the column 'id' names windows more than once; drop it, or make it unique")
        windows = windows.placed(ids=ids)
    return windows


def _whole(table: pd.DataFrame, name: str, call: str) -> Indices:
    """Give a column of whole numbers; 0 where there is none."""
    values = table[name].to_numpy() if name in table.columns else np.zeros(len(table), np.int64)
    if values.dtype.kind not in "iu":
        raise ChipError(f"{call}: the column {name!r} is {values.dtype}, whole numbers are needed")
    return values.astype(np.int64)


def _check_there(windows: Windows, ranges: list[Field], call: str) -> None:
    """Raise where windows name cubes or dates that are not there, or lie off the grid."""
    there = np.zeros(len(windows), bool)
    cube, time, row, col = (windows.values(name) for name in PLACE)
    for field in ranges:
        height, width = field.cube.geobox.shape
        here = (cube == field.index) & np.isin(time, field.dates)
        here &= (row < height) & (row + windows.size[0] > 0)
        there |= here & (col < width) & (col + windows.size[1] > 0)
    if not there.all():
        i = int(np.argmin(there))
        names = ", ".join(f"{name} {windows.values(name, i)}" for name in PLACE)
        raise ChipError(
            f"{call}: {int((~there).sum())} of {len(there)} windows lie off the {len(windows.cubes)} cubes, the first "
            f"in line {i}, {names}; was the table made of other cubes, or for another time=?"
        )


def _check_size(windows: Windows, shapes: Geometries, crs: CRS, call: str) -> None:
    """Raise where footprints have another size than windows."""
    numbers = windows.cube
    for index, cube in enumerate(windows.cubes):
        mine = np.flatnonzero(numbers == index)
        whole = windows.size[0] * windows.size[1] * abs(cube.geobox.affine.a * cube.geobox.affine.e)
        share = shapely.area(moved(shapes[mine], crs.proj, cube.crs.proj)) / whole
        if (np.abs(share - 1) > SAME_SIZE).any():
            worst = float(share[np.argmax(np.abs(share - 1))])
            raise ChipError(
                f"{call}: a footprint has {worst:.3g} of the area of a window of {windows.size[0]} x "
                f"{windows.size[1]} px; give the size that the footprints have, or around(footprints.centroid, ...)"
            )
