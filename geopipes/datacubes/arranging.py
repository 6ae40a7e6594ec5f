"""Arranging the rasters of a stack: by time step, in order of precedence, with what the user says of each band."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import pystac

from geopipes import grids
from geopipes.errors import GridError, SourceError
from geopipes.kinds import SCALED, is_categorical
from geopipes.read.headers import Band
from geopipes.read.sources import Source, Stack, Variable

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

PerBand = Mapping[str, Any]
RESAMPLINGS = ("nearest", "bilinear", "cubic", "average", "mode")
KEPT = ("time", "band", "y", "x", "valid", "chip", "spatial_ref")
"""Names of dims and of what every chip carries: no variable's."""

AVERAGING = ("bilinear", "cubic", "average")
"""Methods that give means, which classes have not."""

DEGREES_PER_HOUR = 15  # the sun's way over the sky


def stacked(
    found: Sequence[Band], keys: Sequence[Any], grid: GeoBox, members: set[int],
    resampling: str | PerBand, dtype: str | PerBand | None,
) -> Stack:  # fmt: skip
    """Arrange the rasters of one grid by time step and precedence."""
    times = [source.time for source in found[0].sources]
    mine = [i for i in range(len(keys)) if any(k * len(keys) + i in members for k in range(len(found)))]
    kept = touching(found, grid, mine)
    if not kept:
        raise GridError(
            f"stack: none of the {len(keys)} items touches the grid, {tuple(grid.boundingbox.bbox)} in {grid.crs}; "
            "check bounds and the region searched"
        )
    groups: dict[Any, list[int]] = {}
    for i in kept:  # by (datetime, id), so that groups and what is in them are in a total order
        groups.setdefault(keys[i], []).append(i)
    steps = list(groups.values())
    variables = tuple(variable(band, band.name, steps, resampling, dtype, grid) for band in found)
    return Stack(grid, tuple(times[step[0]] for step in steps), variables)


def searched(stated: str | None, times: Sequence[np.datetime64]) -> tuple[np.datetime64, np.datetime64] | None:
    """Give the range of a series: that searched, an end left open being the first or last date; None without dates.

    Parameters
    ----------
    stated : as STAC writes it, ``"2024-05-01T00:00:00Z/.."``; None for no limit
    times : of all items
    """
    dated = [time for time in times if not np.isnat(time)]
    if not dated:
        return None
    begin, _, end = (stated or "../..").partition("/")
    given = [np.datetime64(text.removesuffix("Z"), "ns") if text not in ("", "..") else None for text in (begin, end)]
    # An instant, and items that begin before the range and reach into it, leave nothing out.
    first, last = min(dated), max(dated)
    return min(first, given[0] or first), max(last, given[1] or last)


def touching(found: Sequence[Band], grid: GeoBox, among: Sequence[int]) -> list[int]:
    """Give the items with a raster that touches the grid, by (datetime, id)."""
    crs = grids.crs_of(grid)
    box = grids.extent(grid, crs)
    touches: dict[Any, bool] = {}
    for band in found:
        for raster in (band.sources[i].geobox for i in among):
            if grids.key(raster) not in touches:
                touches[grids.key(raster)] = bool(grids.extent(raster, crs).intersects(box))
    kept = [i for i in among if any(touches[grids.key(band.sources[i].geobox)] for band in found)]
    return sorted(kept, key=lambda i: (found[0].sources[i].time, found[0].sources[i].item))


def variable(
    band: Band, name: str, steps: Sequence[Sequence[int]], resampling: str | PerBand, dtype: str | PerBand | None,
    grid: GeoBox,
) -> Variable:  # fmt: skip
    """Make one variable of the rasters of a band."""
    check_name(name)
    rasters = tuple(tuple(band.sources[i] for i in step) for step in steps)
    every = [source for step in rasters for source in step] or list(band.sources)
    method = _of_band(resampling, band.name)
    if method not in RESAMPLINGS:
        raise SourceError(f"resampling={method!r} for {band.name!r}: use one of {', '.join(RESAMPLINGS)}")
    given = _of_band(dtype, band.name)
    kind = np.dtype(given) if given is not None else np.result_type(*(source.dtype for source in every))
    if method in AVERAGING and is_categorical(name, kind, band.attrs):
        raise SourceError(
            f"resampling={method!r} would average the classes of {band.name!r}: write resampling={{{band.name!r}: "
            f"'nearest', '*': {method!r}}}, or 'mode' for the class of the largest area"
        )
    attrs = dict(band.attrs)
    if any(source.scale is not None for source in every):
        kind = np.dtype(np.float32) if given is None else kind
        if kind.kind != "f":
            raise SourceError(f"stack(rescale=...) gives {band.name!r} fractions: dtype={given!r} is none of floats")
        attrs[SCALED] = True
    holds = [s.nodata for s in every if s.nodata is not None and kind.kind != "f" and _holds(kind, s.nodata)]
    return Variable(name, kind, holds[0] if holds else None, str(method), band.labels, rasters, attrs)


def check_name(name: str) -> None:
    """Refuse a variable of a name that a chip keeps for itself.

    Raises
    ------
    SourceError
        says how to give another one
    """
    if name in KEPT:
        raise SourceError(
            f"a variable cannot be named {name!r}, as {', '.join(KEPT)} are what every chip has: give it another name, "
            f"stack({{'{name}_1': ...}}), or name= of join and rasterize"
        )


def stated(band: Band, nodata: float | PerBand | None) -> Band:
    """Let the user's word on nodata stand above the files'."""
    given = _of_band(nodata, band.name)
    if given is None:
        return band
    return replace(band, sources=tuple(replace(source, nodata=float(given)) for source in band.sources))


def _of_band(given: Any, name: str) -> Any:
    """Give one band's value of an argument that is one for all, or by band with ``"*"`` for the rest."""
    return given.get(name, given.get("*")) if isinstance(given, Mapping) else given


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Say whether an integer dtype can hold a value."""
    info = np.iinfo(dtype) if dtype.kind in "iu" else None
    return info is not None and float(value).is_integer() and info.min <= value <= info.max


def step_key(item: pystac.Item, source: Source, groupby: str | Callable[[pystac.Item], Any]) -> Any:
    """Give what is equal for the items of one time step; undated items are one."""
    time = source.time
    if callable(groupby):
        return groupby(item)
    if groupby == "time":
        return None if np.isnat(time) else time
    if groupby == "solar_day":
        return None if np.isnat(time) else (time + _solar(source)).astype("datetime64[D]")
    if groupby == "id":
        return item.collection_id, item.id
    if groupby in item.properties:
        return item.properties[groupby]
    raise SourceError(
        f"stack(groupby={groupby!r}): item {item.id!r} has no such property; use 'time', 'solar_day', 'id', one of "
        f"{sorted(item.properties)}, or a function of the item"
    )


def _solar(source: Source) -> np.timedelta64:
    """Give how far solar time at a raster's middle is ahead of UTC."""
    height, width = source.geobox.shape
    longitude, _ = _to_degrees(str(source.geobox.crs)).transform(*(source.geobox.affine @ (width / 2, height / 2)))
    west = (longitude + 180) % 360 - 180  # some rasters count longitudes from 0 to 360
    return np.timedelta64(round(west / DEGREES_PER_HOUR * 3600), "s")


@lru_cache(maxsize=256)
def _to_degrees(crs: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
