"""A raster as one layer of pixels, taken by strips: a file, an item, or an array."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import odc.geo.xr  # noqa: F401 - gives arrays their ``odc``
import pystac
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geopipes.errors import GridMismatch, ReadError, SourceError
from geopipes.read.headers import file_header
from geopipes.read.nodata import usable_nodata

Raster = str | os.PathLike[str] | pystac.Item | xr.DataArray | Iterable[pystac.Item]
"""A path, a URL, an item, what `geopipes.rasters` gives, or an array with coordinates and a CRS."""

PIXELS = 1 << 21
"""Of a strip, about, in whole blocks: its labels, areas and values are some 50 MB."""

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Layer(ABC):
    """One layer of a raster, open.

    Attributes
    ----------
    name : for errors
    geobox : its grid
    dtype : of its pixels
    height : rows that are good to read at once
    """

    name: str
    geobox: GeoBox
    dtype: np.dtype[Any]
    height: int

    @abstractmethod
    def read(self, rows: slice) -> tuple[Array, Mask]:
        """Read whole rows: (pixels, valid), both (rows, x)."""


def single(raster: Raster, what: str) -> str | xr.DataArray:
    """Give the one file, or the array, that a raster is.

    Raises
    ------
    SourceError
        for several items or assets, for none, and for what is no raster
    """
    if isinstance(raster, xr.DataArray):
        return raster
    if isinstance(raster, str | os.PathLike):
        return os.fspath(raster)
    if isinstance(raster, xr.Dataset) or not isinstance(raster, pystac.Item | Iterable):
        raise SourceError(
            f"{what}: found is {type(raster).__name__}; needed is a path, an item, gp.rasters(...) or an xr.DataArray, "
            "as dataset['classes']"
        )
    items = [raster] if isinstance(raster, pystac.Item) else list(raster)
    hrefs = [asset.get_absolute_href() or asset.href for item in items for asset in item.assets.values()]
    if len(hrefs) != 1:
        raise SourceError(
            f"{what}: needed is one raster, found are {len(hrefs)} in {len(items)} items; take them one by one"
        )
    return hrefs[0]


@contextmanager
def opened(raster: Raster, *, band: int = 1, what: str = "raster") -> Iterator[Layer]:
    """Open a layer of a raster.

    Parameters
    ----------
    raster : see `Raster`
    band : which one, from 1
    what : the call and its argument, for errors

    Raises
    ------
    SourceError
        for what is no single raster, has no such band, or no CRS
    ReadError
        for a file that cannot be opened
    """
    found = single(raster, what)
    if isinstance(found, xr.DataArray):
        yield _InMemory.of(found, band, what)
        return
    header = file_header(found)
    if not 1 <= band <= header.count:
        raise SourceError(f"{what}: {found} has {header.count} bands, counted from 1; there is no band {band}")
    with rasterio.open(found) as file:
        yield _InFile(found, header.geobox, header.dtypes[band - 1], _height(file, band), file, band)


def strips(layer: Layer, rows: int | None = None) -> Iterator[slice]:
    """Give the strips of a layer, from the top: of so many rows, or as many as are good to read at once."""
    step = layer.height if rows is None else rows
    if step < 1:
        raise SourceError(f"strip={rows}: give a number of rows, at least 1")
    height = layer.geobox.shape[0]
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def check_same_grid(layer: Layer, other: Layer, what: str) -> None:
    """Raise where two layers are not on one grid."""
    if layer.geobox != other.geobox:
        raise GridMismatch(
            f"{what}: {other.name} is {other.geobox.shape[0]} x {other.geobox.shape[1]} px (y, x) in "
            f"{other.geobox.crs} at {tuple(other.geobox.transform)[:6]}; {layer.name} is {layer.geobox.shape[0]} x "
            f"{layer.geobox.shape[1]} px in {layer.geobox.crs} at {tuple(layer.geobox.transform)[:6]}; write both on "
            "one grid"
        )


@dataclass(frozen=True)
class _InFile(Layer):
    file: rasterio.DatasetReader
    band: int

    def read(self, rows: slice) -> tuple[Array, Mask]:
        window = Window(0, rows.start, self.geobox.shape[1], rows.stop - rows.start)
        try:
            pixels = self.file.read(self.band, window=window)
            valid = self.file.read_masks(self.band, window=window) != 0
        except RasterioError as error:
            raise ReadError(f"{self.name}: rows {rows.start} to {rows.stop} could not be read: {error}") from error
        return pixels, _numbers(pixels, valid)


@dataclass(frozen=True)
class _InMemory(Layer):
    array: xr.DataArray
    nodata: float | None

    @classmethod
    def of(cls, array: xr.DataArray, band: int, what: str) -> _InMemory:
        """Take the layer of an array with dims (..., y, x)."""
        geobox = array.odc.geobox
        if not isinstance(geobox, GeoBox) or geobox.crs is None:
            raise SourceError(f"{what}: the array has no grid; needed are evenly spaced y and x, and a CRS: write "
                              "array.odc.assign_crs('EPSG:...')")  # fmt: skip
        rest = array.dims[:-2]
        if array.ndim < 2 or int(np.prod([array.sizes[dim] for dim in rest])) < band or band < 1:
            raise SourceError(f"{what}: the array has dims {dict(array.sizes)}; there is no layer {band} in it")
        place = np.unravel_index(band - 1, [array.sizes[dim] for dim in rest]) if rest else ()
        layer = array.isel(dict(zip(rest, map(int, place), strict=True)))
        stated = layer.attrs.get("_FillValue", layer.attrs.get("nodata"))
        nodata = layer.encoding.get("_FillValue") if stated is None else stated
        name = "the array" if array.name is None else repr(str(array.name))
        height = max(1, PIXELS // geobox.shape[1])
        return cls(name, geobox, layer.dtype, height, layer, usable_nodata(nodata, layer.dtype))

    def read(self, rows: slice) -> tuple[Array, Mask]:
        pixels = self.array[rows].values
        valid = np.ones(pixels.shape, bool) if self.nodata is None else pixels != self.nodata
        return pixels, _numbers(pixels, valid)


def _numbers(pixels: Array, valid: Mask) -> Mask:
    """Take NaN for no measurement, whatever the nodata."""
    return valid & ~np.isnan(pixels) if pixels.dtype.kind == "f" else valid


def _height(file: rasterio.DatasetReader, band: int) -> int:
    """Give rows of about `PIXELS` pixels, whole blocks."""
    block = int(file.block_shapes[band - 1][0])
    return max(1, PIXELS // (int(file.width) * block)) * block
