"""Which files may be read by byte ranges: those whose every level is proven pixel-equal, or why one is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from geopipes.read.files import tiffs
from geopipes.read.files.bycog import DECODERS, Tiles, absent
from geopipes.read.files.layouts import Dtype, Layout, Level
from geopipes.read.files.tiffs import Directory, Read, Tiff
from geopipes.read.stores.gdal import open_raster

REDUCED, MASK = 1, 4
"""Bits of a directory's NewSubfileType: a smaller version of another image; a mask of one."""

SIDECARS = (".msk", ".ovr")
"""Files beside a TIFF that hold masks and overviews for it."""

KINDS = {1: "u", 2: "i", 3: "f"}
"""TIFF's sample formats, as numpy calls them."""

WIDTHS = (8, 16, 32, 64)
"""Bits of a pixel that fill whole bytes of a numpy dtype."""

GREY, RGB, PALETTE = 1, 2, 3
"""Photometric interpretations whose samples GDAL hands over as they are stored."""

CODECS = {1: "no compression", 8: "deflate", 32946: "deflate", 50000: "zstd"}
OTHERS = {5: "LZW", 6: "JPEG", 7: "JPEG", 32773: "PackBits", 34887: "LERC", 34925: "LZMA", 50001: "WebP", 50002: "JXL"}


class Unfit(Exception):
    """Why a file is left to GDAL."""


@dataclass(frozen=True)
class Fit:
    """A file that may be read by byte ranges: its levels, where their tiles lie, and what proves it fit."""

    levels: tuple[Level, ...]
    tiles: tuple[Tiles, ...]
    reason: str


def fit_path(raster: rasterio.DatasetReader, path: str, layout: Layout) -> Fit:
    """Say how a local file is read by byte ranges: as `fit`."""
    _check_driver(raster)
    if not Path(path).is_file():
        raise Unfit("the file is not a local one")
    if not hasattr(os, "preadv"):
        raise Unfit("this system cannot read into a buffer at an offset")
    if beside := [Path(name).name for name in raster.files if name.endswith(SIDECARS)]:
        raise Unfit(f"{beside[0]} lies beside the file")
    with _reading(path) as read:
        return fit(raster, read, layout, path)


def fit(raster: rasterio.DatasetReader, read: Read, layout: Layout, name: str) -> Fit:
    """Say how a file is read by byte ranges.

    Parameters
    ----------
    raster : the file as GDAL opened it
    read : gives bytes of its header
    layout : what GDAL says of it; its levels are not looked at
    name : as it was opened

    Raises
    ------
    Unfit
        it is to be read by GDAL; says why
    """
    _check_driver(raster)
    if layout.masked:
        raise Unfit("the file has a mask or an alpha band")
    try:
        tiff = tiffs.read_tiff(read)
        images = _images(raster, tiff)
        tiles = tuple(_tiles(each, tiff, layout) for each in images)
        levels = tuple(_level(each) for each in images)
    except ValueError as error:
        raise Unfit(f"its header is odd: {error}") from error
    if levels[0] != Level(raster.shape, raster.block_shapes[0]):
        raise Unfit("GDAL and the header differ in the size of image or tiles")
    for number, (level, each) in enumerate(zip(levels, tiles, strict=True)):
        if (each.counts == 0).any():
            _check_absent(name, number, level, each, layout)
    return Fit(levels, tiles, _described(tiles[0], layout))


def _check_driver(raster: rasterio.DatasetReader) -> None:
    if raster.driver != "GTiff":
        raise Unfit(f"the file is {raster.driver}, not GeoTIFF")


def _described(tiles: Tiles, layout: Layout) -> str:
    """Say how tiles are stored, for `reason`."""
    planes = f", {'pixel' if tiles.samples > 1 else 'band'}-interleaved" if layout.count > 1 else ""
    swapped = ", the other byte order" if tiles.swapped else ""
    return f"tiled, {CODECS[tiles.compression]}, predictor {tiles.predictor}, {tiles.dtype}{planes}{swapped}"


@contextmanager
def _reading(path: str) -> Iterator[Read]:
    """Open a local file to read its header."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size

        def read(offset: int, count: int) -> bytes:
            if offset + count > size:
                raise ValueError(f"{count} bytes at {offset} are pointed to, the file has {size}")
            return os.pread(file.fileno(), count, offset)

        yield read


def _images(raster: rasterio.DatasetReader, tiff: Tiff) -> tuple[Directory, ...]:
    """Give full resolution and overviews, the same directories that GDAL takes for them."""
    kinds = [each.value(tiffs.SUBFILE) for each in tiff.directories]
    if any(kind & MASK for kind in kinds):
        raise Unfit("the file has a mask")
    overviews = [each for each, kind in zip(tiff.directories[1:], kinds[1:], strict=True) if kind & REDUCED]
    images = (tiff.directories[0], *overviews)
    if len(raster.overviews(1)) != len(overviews):
        raise Unfit("GDAL and the header differ in the number of overviews")
    for number, image in enumerate(images):
        level = {} if number == 0 else {"ovr": number - 1}
        if raster.get_tag_item("IFD_OFFSET", "TIFF", bidx=1, **level) != str(image.offset):
            raise Unfit("GDAL and the header differ in where an image lies")
    if not all(image.values(tiffs.TILE_WIDTH) for image in images):
        raise Unfit("the file is in strips, not in tiles")
    sizes = [max(_level(image).shape) for image in images]
    if any(small >= large for large, small in pairwise(sizes)):
        raise Unfit("its overviews do not go from fine to coarse")
    return images


def _level(image: Directory) -> Level:
    return Level(
        (image.value(tiffs.HEIGHT), image.value(tiffs.WIDTH)),
        (image.value(tiffs.TILE_HEIGHT), image.value(tiffs.TILE_WIDTH)),
    )


def _tiles(image: Directory, tiff: Tiff, layout: Layout) -> Tiles:
    """Give where and how an image's tiles are stored."""
    if not image.tags.keys() >= {tiffs.OFFSETS, tiffs.COUNTS}:
        raise Unfit("the header does not say where its tiles lie")
    compression = image.value(tiffs.COMPRESSION)
    if compression not in DECODERS:
        raise Unfit(f"the compression is {OTHERS.get(compression, compression)}")
    dtype = _dtype(image, layout)
    predictor = image.value(tiffs.PREDICTOR) if compression != 1 else 1
    if predictor not in (1, 2, 3) or (predictor == 3 and dtype.kind != "f"):
        raise Unfit(f"predictor {predictor} for {dtype} is none that TIFF defines")
    if image.value(tiffs.PHOTOMETRIC) not in (GREY, RGB, PALETTE):
        raise Unfit(f"the colours are of TIFF's kind {image.value(tiffs.PHOTOMETRIC)}")
    if any(image.values(tiffs.EXTRA_SAMPLES)):
        raise Unfit("the file has an alpha band")
    if image.value(tiffs.FILL_ORDER) != 1:
        raise Unfit("the bits of its bytes are the other way round")
    if image.value(tiffs.SAMPLES) != layout.count:
        raise Unfit("GDAL and the header differ in the number of bands")
    together = image.value(tiffs.PLANAR) == 1
    offsets, counts = image.tags[tiffs.OFFSETS], image.tags[tiffs.COUNTS]
    down, across = _level(image).tiles
    if not len(offsets) == len(counts) == down * across * (1 if together else layout.count):
        raise Unfit("the header lists another number of tiles than the image has")
    swapped = dtype.itemsize > 1 and np.dtype(tiff.order + "u2") != np.dtype("u2")
    return Tiles(offsets, counts, compression, predictor, dtype, swapped, layout.count if together else 1)


def _dtype(image: Directory, layout: Layout) -> Dtype:
    """Give the dtype of an image's pixels, where it is also the one that GDAL reads them as."""
    bits, kind = image.value(tiffs.BITS), KINDS.get(image.value(tiffs.SAMPLE_FORMAT))
    if kind is None or bits not in WIDTHS or np.dtype(f"{kind}{bits // 8}") != layout.dtypes[0]:
        raise Unfit(f"pixels of {bits} bits are read as {layout.dtypes[0]}")
    return layout.dtypes[0]


def _check_absent(name: str, number: int, level: Level, tiles: Tiles, layout: Layout) -> None:
    """Raise where absent tiles are something else to GDAL, which clamps a nodata that the pixels cannot hold."""
    down, across = level.tiles
    for plane in range(tiles.counts.size // (down * across)):
        missing = np.flatnonzero(tiles.counts[plane * down * across : (plane + 1) * down * across] == 0)
        if missing.size:
            row, col = divmod(int(missing[0]), across)
            bands = [plane + 1] if tiles.samples == 1 else [*range(1, layout.count + 1)]
            with open_raster(name, number) as raster:
                found = raster.read(bands, window=Window(col * level.tile[1], row * level.tile[0], 1, 1)).ravel()
            expected = [absent(layout.nodata[band - 1], tiles.dtype) for band in bands]
            if not np.array_equal(found, np.array(expected, tiles.dtype), equal_nan=tiles.dtype.kind == "f"):
                raise Unfit("tiles are absent, and GDAL fills them with another value than nodata")
