"""Which source tiles a job needs at least: counted without reading anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyproj
import pystac
from odc.geo.geobox import GeoBox

from benchmarks.jobs import CHIP, Job, asset_grid, asset_shape

Array = np.ndarray[Any, Any]

CENTRES = np.linspace(0.5, CHIP - 0.5, 5)
"""Pixel centres along each side of a chip that are projected: between them it bends by far less than a pixel."""

REACH = {"nearest": 0.0, "bilinear": 0.5}
"""Source pixels around a place that a kernel looks at."""


def tiles(job: Job, tile: int) -> Iterator[tuple[pystac.Item, Array]]:
    """Give for each item, images and label, which of its tiles some chip needs: bool (row, column)."""
    images = [(item, job.bands[0], job.resampling) for item in job.items]
    for item, band, resampling in [*images, *([] if job.label is None else [(job.label, "crop", "nearest")])]:
        own = asset_grid(item, item.assets[band])
        height, width = asset_shape(item.assets[band])
        needed = np.zeros((-(-height // tile), -(-width // tile)), bool)
        for cube, grid in enumerate(job.grids):
            if band != "crop" and len(job.grids) > 1 and own.crs != grid.crs:
                continue
            mine = job.windows.cube == cube
            boxes = _boxes(job.windows.row[mine], job.windows.col[mine], grid, own, REACH[resampling])
            for top, bottom, left, right in boxes:
                if top < height and left < width and bottom > 0 and right > 0:
                    rows = slice(max(top, 0) // tile, (min(bottom, height) - 1) // tile + 1)
                    needed[rows, max(left, 0) // tile : (min(right, width) - 1) // tile + 1] = True
        yield item, needed


def unique(job: Job, tile: int) -> int:
    """Count the tiles of all files that are needed."""
    return sum(int(needed.sum()) * (1 if item is job.label else len(job.bands)) for item, needed in tiles(job, tile))


def _boxes(rows: Array, cols: Array, grid: GeoBox, raster: GeoBox, reach: float) -> Array:
    """Give the pixels of a raster under chips of a grid: (chip, 4), top, bottom, left, right, the ends excluded."""
    down, across = (axis.ravel() for axis in np.meshgrid(CENTRES, CENTRES, indexing="ij"))
    x, y = cols[:, None] + across, rows[:, None] + down
    to, back = grid.affine, ~raster.affine
    x, y = to.a * x + to.c, to.e * y + to.f
    if raster.crs != grid.crs:
        x, y = pyproj.Transformer.from_crs(str(grid.crs), str(raster.crs), always_xy=True).transform(x, y)
    columns, lines = back.a * x + back.c, back.e * y + back.f
    edges = (lines.min(1) - reach, lines.max(1) + reach + 1, columns.min(1) - reach, columns.max(1) + reach + 1)
    return np.asarray(np.floor(np.stack(edges, axis=1)), int)
