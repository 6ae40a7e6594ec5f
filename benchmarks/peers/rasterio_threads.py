"""rasterio by hand: threads, each with open files of its own; a WarpedVRT for each file that is warped."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pystac
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from benchmarks.jobs import CHIP, Job, asset_grid
from benchmarks.peers import Batch, Sample, on_threads


@dataclass(frozen=True)
class Raster:
    """The files of a scene on a grid.

    Attributes
    ----------
    hrefs : one for each band
    box : (top, left, bottom, right), the pixels of the grid that they may touch
    origin : the grid's (row, column) of the first pixel that is read by
    warp : what a WarpedVRT is told; None where the files' pixels are the grid's
    """

    hrefs: tuple[str, ...]
    box: tuple[int, int, int, int]
    origin: tuple[int, int]
    warp: dict[str, Any] | None

    @classmethod
    def of(cls, item: pystac.Item, bands: Sequence[str], grid: GeoBox, resampling: str) -> Raster:
        """Place a scene on a grid."""
        hrefs = tuple(item.assets[band].href for band in bands)
        own = asset_grid(item, item.assets[bands[0]])
        if own.crs == grid.crs:
            col, row = ~grid.affine @ (own.affine.c, own.affine.f)
            if abs(row - round(row)) + abs(col - round(col)) < 1e-6:
                top, left = round(row), round(col)
                return cls(hrefs, (top, left, top + own.shape.y, left + own.shape.x), (top, left), None)
        around = own.extent.to_crs(str(grid.crs), resolution=100 * own.resolution.x).boundingbox
        left, top = ~grid.affine @ (around.left, around.top)
        right, bottom = ~grid.affine @ (around.right, around.bottom)
        warp = {
            "crs": str(grid.crs), "transform": grid.affine, "height": grid.shape.y, "width": grid.shape.x,
            "resampling": Resampling[resampling],
        }  # fmt: skip
        return cls(hrefs, (int(top) - 1, int(left) - 1, int(bottom) + 2, int(right) + 2), (0, 0), warp)

    def fill(self, out: Any, row: int, col: int, nodata: int, files: _Files) -> None:
        """Write into (band, y, x) of a chip where nothing stands yet."""
        height, width = out.shape[1:]
        top, bottom = max(row, self.box[0]), min(row + height, self.box[2])
        left, right = max(col, self.box[1]), min(col + width, self.box[3])
        if top >= bottom or left >= right:
            return
        window = Window(left - self.origin[1], top - self.origin[0], right - left, bottom - top)
        for target, href in zip(out[:, top - row : bottom - row, left - col : right - col], self.hrefs, strict=True):
            empty = target == nodata
            if empty.all():
                target[:] = files.get(href, self.warp).read(1, window=window)
            elif empty.any():
                np.copyto(target, files.get(href, self.warp).read(1, window=window), where=empty)


class _Files(threading.local):
    """What one thread has open: GDAL's handles are not to be shared."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, Any], Any] = {}

    def get(self, href: str, warp: dict[str, Any] | None) -> Any:
        """Give a file, or its warp onto a grid."""
        key = (href, warp and warp["transform"])
        if key not in self.open:
            file = rasterio.open(href)
            self.open[key] = file if warp is None else WarpedVRT(file, **warp)
        return self.open[key]


def batches(job: Job, positions: Sequence[int], threads: int) -> Iterator[Batch]:
    """Read chips of a job."""
    files = _Files()
    days = [tuple(scenes) for _, scenes in groupby(job.items, key=lambda item: item.datetime)]
    images = [
        [[Raster.of(scene, job.bands, grid, job.resampling) for scene in scenes if _same_area(job, scene, grid)]
         for scenes in days]
        for grid in job.grids
    ]  # fmt: skip
    labels = [Raster.of(job.label, ["crop"], grid, "nearest") for grid in job.grids] if job.label else []

    def read(position: int) -> Sample:
        cube, row, col = job.place(position)
        image = np.zeros((len(days), len(job.bands), CHIP, CHIP), np.uint16)
        for pixels, scenes in zip(image, images[cube], strict=True):
            for scene in scenes:
                scene.fill(pixels, row, col, 0, files)
        if not labels:
            return {"image": image}
        label = np.full((1, CHIP, CHIP), 255, np.uint8)
        labels[cube].fill(label, row, col, 255, files)
        return {"image": image, "label": label[0]}

    yield from on_threads(read, positions, threads, batch=job.batch)


def _same_area(job: Job, scene: pystac.Item, grid: GeoBox) -> bool:
    """Say whether a scene goes onto a grid: with one for each zone, only onto its own."""
    return len(job.grids) == 1 or str(scene.properties["proj:code"]) == str(grid.crs)
