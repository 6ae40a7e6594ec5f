"""The three jobs, said once: geopipes, its peers and the floors all do these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pystac
from odc.geo.geobox import GeoBox

import geopipes as gp
from benchmarks.world import LABEL_CRS, PIXEL, World
from geopipes import chips, datacubes
from geopipes.chips import Windows

CHIP = 224
BATCH = 32
"""Chips of a batch; both as in TorchGeo's paper."""

SERIES_BATCH = 4
"""Chips of a batch where each has all dates: 24 dates of 4 bands are 39 MB."""

NAMES = ("same-grid", "warped", "series")
TENTH, LEAST, MOST = 10, 64 * 10**6, 10**9
"""The tile cache holds a tenth of the decoded pixels, and 1 GB at most; of a quick world 64 MB, since a tenth would
not hold the four places of tiles that one chip touches."""


@dataclass(frozen=True, eq=False)
class Job:
    """Chips to be read.

    Attributes
    ----------
    name : one of NAMES
    items : of the images; all of one datetime, or a series of one place
    bands : asset keys of the images
    label : the item of the crop label; None for the series
    resampling : of the images; the label is always "nearest"
    grid : further options of ``stack``, which choose the grid
    dates : of a chip; None for all
    """

    name: str
    items: tuple[pystac.Item, ...]
    bands: tuple[str, ...]
    label: pystac.Item | None
    resampling: str
    grid: dict[str, Any]
    dates: int | None

    @cached_property
    def windows(self) -> Windows:
        """The plan, sequential: the same chips as `chain` reads."""
        options = {"resampling": self.resampling, **self.grid}
        cubes = datacubes.stack(list(self.items), list(self.bands), **options)
        if self.label is not None:
            cubes = datacubes.join(cubes, [self.label], name="crop")
        return chips.chip(cubes, CHIP, time=self.dates)

    @cached_property
    def grids(self) -> tuple[GeoBox, ...]:
        """The grid of each cube."""
        return tuple(cube.geobox for cube in self.windows.cubes)

    def place(self, position: int) -> tuple[int, int, int]:
        """Give the cube, the first row and the first column of a chip of the plan."""
        cube, row, col = (self.windows.values(name, position) for name in ("cube", "row", "col"))
        return cube, row, col

    @property
    def batch(self) -> int:
        """Chips of a batch."""
        return BATCH if self.dates is not None else SERIES_BATCH

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all pixels of the images and of the label."""
        return sum(int(np.prod(asset_shape(asset))) * asset_dtype(asset).itemsize for asset in self.assets)

    @property
    def cache(self) -> int:
        """Bytes that the tile cache may hold, and GDAL's in the peers."""
        return min(max(self.decoded_bytes // TENTH, LEAST), MOST)

    @property
    def assets(self) -> list[pystac.Asset]:
        """All files that are read."""
        images = [item.assets[band] for item in self.items for band in self.bands]
        return images + ([] if self.label is None else [self.label.assets["crop"]])

    def chain(
        self, *, order: str, threads: int, cache: int | None = None, seed: int = 0, batch: int | None = None
    ) -> gp.Pipe[Any]:
        """Give the chain that delivers batches, in the order "sequential", "shuffled" or "random"."""
        cubes = gp.items(list(self.items)).stack(list(self.bands), resampling=self.resampling, **self.grid)
        tensors: dict[str, Any] = {"image": list(self.bands)}
        if self.label is not None:
            cubes = cubes.join(gp.items([self.label]), name="crop")
            tensors["label"] = "crop"
        plan = cubes.chip(CHIP, time=self.dates)
        if order != "sequential":
            plan = plan.shuffle(seed=seed, exact=order == "random", lanes=self.batch)
        read = plan.read(threads=threads, cache=self.cache if cache is None else cache)
        return read.tensor(fill=0, **tensors).batch(batch or self.batch)

    def part(self, *, items: int | None = None, bands: int | None = None) -> Job:
        """Give the same job on the first items and bands alone."""
        return replace(self, items=self.items[:items], bands=self.bands[:bands])


def job(name: str, world: World) -> Job:
    """Give one of the jobs on a world."""
    makers: dict[str, Callable[[], Job]] = {
        "same-grid": lambda: Job(
            "same-grid", world.scenes, world.bands, world.label, "nearest", {"crs": "utm"}, dates=1
        ),
        "warped": lambda: Job(
            "warped", world.scenes, world.bands, world.label, "bilinear",
            {"crs": LABEL_CRS, "resolution": PIXEL}, dates=1,
        ),
        "series": lambda: Job("series", world.series, world.series_bands, None, "nearest", {}, dates=None),
    }  # fmt: skip
    return makers[name]()


def asset_grid(item: pystac.Item, asset: pystac.Asset) -> GeoBox:
    """Give a file's grid, as its item states it."""
    from affine import Affine

    return GeoBox(asset_shape(asset), Affine(*asset.extra_fields["proj:transform"]), str(item.properties["proj:code"]))


def asset_shape(asset: pystac.Asset) -> tuple[int, int]:
    """Give a file's (y, x)."""
    height, width = asset.extra_fields["proj:shape"]
    return int(height), int(width)


def asset_dtype(asset: pystac.Asset) -> np.dtype[Any]:
    """Give the dtype of a file's pixels."""
    dtype: np.dtype[Any] = np.dtype(asset.extra_fields["raster:bands"][0]["data_type"])
    return dtype
