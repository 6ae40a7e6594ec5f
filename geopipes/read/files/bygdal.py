"""Tiles by GDAL, through rasterio: all that GDAL reads, in whole blocks at an explicit overview level."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
import rasterio
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from geopipes.meters import BY_GDAL, FROM_AFAR
from geopipes.read.files.layouts import Array, File, Layout, Level
from geopipes.read.gdal import GDAL_ERRORS
from geopipes.read.sources import Source
from geopipes.read.stated import DTYPES, named_crs
from geopipes.read.stores.gdal import far, forget, network, open_raster

KEPT_OPEN = 48
"""Rasters a thread keeps open: with 16 threads 768, of the 1,024 files that Linux lets a process open."""

SMALLEST = 256 * 256
"""Pixels of a block below which several make one tile: a read costs about 0.1 ms whatever it reads."""

GROUPED = 512
"""Pixels a side that grouped blocks come to, or as many pixels in strips."""

LARGEST = 2048 * 2048
"""Pixels of a block above which it is cut into tiles; GDAL's own cache holds the block meanwhile."""

DIVIDED = 1024
"""Pixels a side of the tiles that such a block is cut into."""


class _Kept(threading.local):
    """The rasters that one thread has open, the one used last at the end: GDAL's are not to be shared."""

    def __init__(self) -> None:
        self.rasters: OrderedDict[tuple[GdalFile, int, str], rasterio.DatasetReader] = OrderedDict()


_kept = _Kept()


class GdalFile(File):
    """A file read by GDAL; each thread opens the levels that it reads.

    Parameters
    ----------
    alpha : the band that is 0 where there is no measurement; None for none
    """

    kind = "gdal"
    failures = (OSError, *GDAL_ERRORS)

    def __init__(self, source: Source, signed: str, layout: Layout, reason: str, alpha: int | None) -> None:
        super().__init__(source, signed, layout, reason)
        self.part = FROM_AFAR if far(signed) else BY_GDAL
        self._alpha = alpha

    def opened(self, raster: rasterio.DatasetReader) -> GdalFile:
        """Keep its full resolution, which is open already, for this thread to read; give the file."""
        self._keep((self, 0, self._signed), raster)
        return self

    def close(self) -> None:
        """Close what this thread has open of it; other threads close theirs when they need the place."""
        for key in [key for key in _kept.rasters if key[0] is self]:
            _kept.rasters.pop(key).close()

    def _read(self, level: int, row: int, col: int, bands: tuple[int, ...], out: Array) -> None:
        window = self._window(level, row, col)
        inside = out[:, : window.height, : window.width]
        with network(self._signed):
            self._read_window(self._raster(level), window, bands, inside)

    def _read_window(
        self, raster: rasterio.DatasetReader, window: Window, bands: tuple[int, ...], inside: Array
    ) -> None:
        if len({self.layout.dtypes[band - 1] for band in bands}) == 1:
            raster.read(bands, window=window, out=inside)
            return
        for band, plane in zip(bands, inside, strict=True):  # rasterio takes several only where they are of one dtype
            raster.read(band, window=window, out=plane)

    def _read_mask(self, level: int, row: int, col: int, out: Array) -> None:
        window = self._window(level, row, col)
        with network(self._signed):
            raster = self._raster(level)
            alpha = self._alpha
            shown = raster.read_masks(1, window=window) if alpha is None else raster.read(alpha, window=window)
        out[: window.height, : window.width] = shown > 0

    def _mend(self, href: str) -> None:
        super()._mend(href)
        forget(href)

    def _window(self, level: int, row: int, col: int) -> Window:
        (height, width), (rows, cols) = self.layout.levels[level].shape, self.layout.levels[level].tile
        top, left = row * rows, col * cols
        return Window(left, top, min(cols, width - left), min(rows, height - top))

    def _raster(self, level: int) -> rasterio.DatasetReader:
        key = self, level, self._signed
        raster = _kept.rasters.get(key)
        if raster is None:
            raster = open_raster(key[2], level)
            self._keep(key, raster)
        _kept.rasters.move_to_end(key)
        return raster

    @staticmethod
    def _keep(key: tuple[GdalFile, int, str], raster: rasterio.DatasetReader) -> None:
        """Keep a raster open, and close the one that was not used for longest where there are too many."""
        _kept.rasters[key] = raster
        while len(_kept.rasters) > KEPT_OPEN:
            _kept.rasters.popitem(last=False)[1].close()


def close_rasters() -> None:
    """Close every raster that the current thread keeps open."""
    while _kept.rasters:
        _kept.rasters.popitem()[1].close()


def alpha_band(raster: rasterio.DatasetReader) -> int | None:
    """Give the band that is 0 where there is no measurement."""
    return next((band for band in raster.indexes if raster.colorinterp[band - 1] == ColorInterp.alpha), None)


def masked(raster: rasterio.DatasetReader) -> bool:
    """Say whether an alpha band, or a mask for all bands, tells what is valid."""
    flags = [flag for band in raster.mask_flag_enums for flag in band]
    return alpha_band(raster) is not None or MaskFlags.per_dataset in flags


def layout_of(raster: rasterio.DatasetReader, levels: tuple[Level, ...]) -> Layout:
    """Give what GDAL says of a raster."""
    crs = None if raster.crs is None else named_crs(CRS(raster.crs))
    return Layout(
        geobox=GeoBox(raster.shape, raster.transform, crs),
        levels=levels,
        count=raster.count,
        dtypes=tuple(np.dtype(DTYPES.get(dtype, dtype)) for dtype in raster.dtypes),
        nodata=raster.nodatavals,
        masked=masked(raster),
        interleaved=raster.count > 1 and raster.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL",
    )


def levels_of(raster: rasterio.DatasetReader, signed: str) -> tuple[Level, ...]:
    """Give full resolution and overviews of a raster, in tiles of whole blocks or parts of one.

    Overviews are opened to learn their sizes; from the first that is not smaller than the one before, none counts.
    """
    levels = [_level(raster)]
    for number in range(1, len(raster.overviews(1)) + 1):
        with open_raster(signed, number) as overview:
            level = _level(overview)
        if max(level.shape) >= max(levels[-1].shape):
            break
        levels.append(level)
    return tuple(levels)


def _level(raster: rasterio.DatasetReader) -> Level:
    return Level(raster.shape, tile_of(raster.block_shapes[0], raster.shape))


def tile_of(block: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Give the tile (y, x) that blocks (y, x) of a raster of a shape (y, x) are read in."""
    (rows, cols), (height, width) = block, shape
    if rows * cols > LARGEST:
        return min(rows, DIVIDED), min(cols, DIVIDED)
    if rows * cols < SMALLEST:
        most = GROUPED * GROUPED // (rows * cols)
        cols *= min(max(1, GROUPED // cols), most, -(-width // cols))
        rows *= min(GROUPED * GROUPED // (rows * cols), -(-height // rows))
    return rows, cols
