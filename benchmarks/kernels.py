"""Our kernels beside WarpedVRT's default: from one UTM zone to the next, in memory, hot."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from benchmarks import texture
from benchmarks.jobs import CHIP
from benchmarks.world import PIXEL, World
from geopipes.read import warps

Array = np.ndarray[Any, Any]

BANDS = 7
ACROSS = 5
"""Windows along each side; read once each and side by side, which is what a WarpedVRT's own cache likes best."""

GRID = GeoBox((ACROSS * CHIP, ACROSS * CHIP), Affine(PIXEL, 0, 240_000, 0, -PIXEL, 4_620_000), "EPSG:32615")


def kernels(world: World, *, resampling: str, repeats: int) -> dict[str, Any]:
    """Measure CPU milliseconds for a band of 224 x 224 px.

    Returns
    -------
    kernel : ours, seven bands in a call, where the pixels lie being known
    place : finding where they lie, once for all bands and dates
    vrt : a WarpedVRT for each band with GDAL's defaults, of a file in memory
    """
    raster = _under(GRID)
    pixels = np.stack([texture.band(texture.ground(0, 0, raster.shape.y), 0, 0, band, 160) for band in range(BANDS)])
    windows = [(row, col) for row in range(0, ACROSS * CHIP, CHIP) for col in range(0, ACROSS * CHIP, CHIP)]
    _ours(raster, pixels, resampling, windows[:1])
    ours = [_ours(raster, pixels, resampling, windows) for _ in range(repeats)]
    vrt = [_by_vrt(raster, pixels, resampling, windows) for _ in range(repeats)]
    return {"kernel": median(k for _, k in ours), "place": median(p for p, _ in ours), "vrt": median(vrt)}


def _under(grid: GeoBox) -> GeoBox:
    """Give a raster of the neighbouring zone that holds a grid and some margin."""
    around = grid.extent.to_crs("EPSG:32614", resolution=10 * PIXEL).boundingbox
    left, top = np.floor(around.left / PIXEL) - 8, np.ceil(around.top / PIXEL) + 8
    side = int(max(around.span_x, around.span_y) / PIXEL) + 17
    return GeoBox((side, side), Affine(PIXEL, 0, left * PIXEL, 0, -PIXEL, top * PIXEL), "EPSG:32614")


def _ours(raster: GeoBox, pixels: Array, resampling: str, windows: list[tuple[int, int]]) -> tuple[float, float]:
    """Give ms for a place, and for a band."""
    out, ok = np.empty((BANDS, CHIP, CHIP), pixels.dtype), np.empty((BANDS, CHIP, CHIP), bool)
    placing = drawing = 0.0
    for number, (row, col) in enumerate(windows):
        # A grid that begins elsewhere is another key: nothing is found in the cache of places.
        moved = GRID.pad(number + 1)
        rows, cols = (slice(at + number + 1, at + number + 1 + CHIP) for at in (row, col))
        began = time.process_time()
        where = warps.located(raster, moved, rows, cols, resampling, (1.0, 1.0))
        placed = time.process_time()
        if where.window is None:
            raise ValueError(f"kernels: rows {rows}, columns {cols} lie outside the raster {raster}")
        crop = np.ascontiguousarray(pixels[(slice(None), *where.window)])
        ok[:] = False
        ready = time.process_time()
        origin = where.window[0].start, where.window[1].start
        warps.resample(where, crop, None, (0,) * BANDS, origin, (raster.shape.y, raster.shape.x), out, ok)
        drawing += time.process_time() - ready
        placing += placed - began
    return 1e3 * placing / len(windows), 1e3 * drawing / len(windows) / BANDS


def _by_vrt(raster: GeoBox, pixels: Array, resampling: str, windows: list[tuple[int, int]]) -> float:
    """Give ms for a band."""
    profile = {
        "driver": "GTiff", "count": 1, "height": raster.shape.y, "width": raster.shape.x, "dtype": "uint16",
        "crs": str(raster.crs), "transform": raster.affine, "nodata": 0, "tiled": True,
    }  # fmt: skip
    place = {"crs": str(GRID.crs), "transform": GRID.affine, "height": GRID.shape.y, "width": GRID.shape.x}
    seconds = 0.0
    for band in pixels:
        with MemoryFile() as memory:
            with memory.open(**profile) as file:
                file.write(band, 1)
            with rasterio.open(memory.name) as file:
                file.read(1)  # hot
                with WarpedVRT(file, resampling=Resampling[resampling], **place) as vrt:
                    began = time.process_time()
                    for row, col in windows:
                        vrt.read(1, window=Window(col, row, CHIP, CHIP))
                    seconds += time.process_time() - began
    return 1e3 * seconds / len(windows) / len(pixels)
