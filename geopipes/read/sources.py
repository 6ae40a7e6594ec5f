"""What a reader needs to know of one raster, without opening it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pystac
    from odc.geo.geobox import GeoBox

RESAMPLINGS = ("nearest", "bilinear", "cubic", "average", "mode")
"""The methods of resampling."""

Modifier = Callable[["pystac.Item"], object]
"""Signs the hrefs of an item, in place or as a new item: what pystac-client calls ``modifier``."""


def grid_key(geobox: GeoBox) -> tuple[object, ...]:
    """Give what tells grids apart; hashing a GeoBox writes out its CRS as WKT, which takes half a millisecond."""
    return (*geobox.shape, *geobox.affine[:6], str(geobox.crs))


@dataclass(frozen=True)
class Source:
    """One band of one raster file, or several bands that are one variable.

    Attributes
    ----------
    href : where the file is, unsigned: a path, a URL or anything GDAL opens
    bands : band numbers within the file, from 1; more than one for a variable with a band dimension
    geobox : the file's own grid: CRS, affine transform (perhaps rotated or bottom-up) and shape (y, x)
    dtype : of the pixels as stored
    nodata : the value that stands for no measurement, as the file or else the item states it; None for none
    item, collection, asset : whose file it is, for errors and for signing
    time : acquisition, UTC, datetime64[ns]; NaT for a raster that states none
    modifier : signs the href when it is read, never before
    scale : (scale, offset) that make physical numbers of stored ones as they are read; None for none
    """

    href: str
    bands: tuple[int, ...]
    geobox: GeoBox
    dtype: np.dtype[np.generic]
    nodata: float | None
    item: str
    collection: str | None
    asset: str
    time: np.datetime64
    modifier: Modifier | None = None
    scale: tuple[float, float] | None = None


@dataclass(frozen=True)
class Variable:
    """One variable of a stack.

    Attributes
    ----------
    name : as the Dataset shows it
    dtype, nodata : of the cube's pixels, whatever each source stores
    resampling : "nearest", "bilinear", "cubic", "average" or "mode"
    labels : names along the band dimension, (time, band, y, x); None for a plain (time, y, x)
    sources : for each time step, the rasters that may fill it: the first valid one wins
    attrs : what the items state of it beyond: as `geopipes.read.facts.facts` gives it
    """

    name: str
    dtype: np.dtype[np.generic]
    nodata: float | None
    resampling: str
    labels: tuple[str, ...] | None
    sources: tuple[tuple[Source, ...], ...]
    attrs: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)


@dataclass(frozen=True)
class Stack:
    """What is to be read onto one grid: every engine makes the same cube of it.

    Attributes
    ----------
    geobox : the common grid, axis-aligned, north up
    times : one for each step, ascending, datetime64[ns], shape (time,); None for a stack without time (a label)
    variables : each with as many steps as there are times (one where times is None)
    span : first and last date of the range searched, or of all items, also of those on other grids; None where none
        has a date
    """

    geobox: GeoBox
    times: tuple[np.datetime64, ...] | None
    variables: tuple[Variable, ...]
    span: tuple[np.datetime64, np.datetime64] | None = None
