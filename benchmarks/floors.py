"""What the hardware allows: every needed tile decoded once, every output pixel written once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from benchmarks import needs
from benchmarks.jobs import CHIP, Job, asset_dtype, asset_grid, job
from benchmarks.world import World
from geopipes.read import copies, warps
from geopipes.read.files import opened
from geopipes.read.headers import sources
from geopipes.read.placing import placement

Array = np.ndarray[Any, Any]
Work = Callable[[Any], None]


def floors(world: World, *, name: str, threads: int) -> dict[str, Any]:
    """Measure both floors of a job.

    Returns
    -------
    decode, write : seconds; the floor of pixels is their sum
    tiles, chips : how many of each
    """
    asked = job(name, world)
    decoding, tiles = _decoding(asked, world.size.tile)
    writing = _writing(asked)
    positions = range(len(asked.windows))
    return {
        "decode": _timed(decoding, tiles, threads), "write": _timed(writing, positions, threads),
        "tiles": len(tiles), "chips": len(positions),
    }  # fmt: skip


def _timed(make: Callable[[], Work], jobs: Iterable[Any], threads: int) -> float:
    """Time jobs on threads, which take the next as they are done, each with buffers of its own."""
    jobs = list(jobs)
    ready = [make() for _ in range(threads)]
    for one in (jobs[0], jobs[len(jobs) // 2], jobs[-1]):
        ready[0](one)  # kernels are loaded
    left, lock = iter(jobs), Lock()

    def work(do: Work) -> None:
        while True:
            with lock:
                one = next(left, None)
            if one is None:
                return
            do(one)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(time.sleep, [0.01] * threads))  # threads are started
        started = time.perf_counter()
        list(pool.map(work, ready))
        return time.perf_counter() - started


def _decoding(asked: Job, tile: int) -> tuple[Callable[[], Work], list[Any]]:
    """Give what decodes a tile into a reused buffer, and all tiles, place by place as a sequential plan does."""
    tiles: list[Any] = []
    for item, needed in needs.tiles(asked, tile):
        bands = ("crop",) if item is asked.label else asked.bands
        files = [opened(band.sources[0]) for band in sources([item], list(bands))]
        tiles += [(file, row, col) for row, col in np.argwhere(needed).tolist() for file in files]

    def make() -> Work:
        buffers: dict[Any, Array] = {}

        def decode(one: Any) -> None:
            file, row, col = one
            layout = file.layout
            key = (layout.dtypes[0], layout.levels[0].tile)
            if key not in buffers:
                buffers[key] = np.empty((1, *key[1]), key[0])
            file.read(0, row, col, (1,), buffers[key])

        return decode

    return make, tiles


def _writing(asked: Job) -> Callable[[], Work]:
    """Give what writes all pixels of a chip from input that is in the processor's cache."""
    rasters = _rasters(asked)
    dates = len(asked.items) if asked.dates is None else 1
    layers = [(grids, len(asked.bands) * dates, np.dtype("uint16"), asked.resampling) for grids in (rasters[0],)]
    if asked.label is not None:
        layers.append((rasters[1], 1, asset_dtype(asked.label.assets["crop"]), "nearest"))

    def make() -> Work:
        # Twice a chip: as much as any warp of these jobs needs.
        hot = [np.random.default_rng(0).integers(1, 99, (n, 2 * CHIP, 2 * CHIP)).astype(dtype)
               for _, n, dtype, _ in layers]  # fmt: skip
        outs = [(np.empty((n, CHIP, CHIP), dtype), np.empty((n, CHIP, CHIP), bool)) for _, n, dtype, _ in layers]

        def write(position: int) -> None:
            cube, row, col = asked.place(position)
            for (grids, *_, resampling), pixels, (out, ok) in zip(layers, hot, outs, strict=True):
                ok[:] = False
                _draw(grids[cube], asked.grids[cube], row, col, resampling, pixels, out, ok)

        return write

    return make


def _rasters(asked: Job) -> tuple[list[list[GeoBox]], list[list[GeoBox]]]:
    """Give for each cube the grids of its images, and of its label."""
    images = []
    for grid in asked.grids:
        own = [asset_grid(item, item.assets[asked.bands[0]]) for item in asked.items[: None if asked.dates else 1]]
        images.append([raster for raster in own if len(asked.grids) == 1 or raster.crs == grid.crs])
    label = [] if asked.label is None else [asset_grid(asked.label, asked.label.assets["crop"])]
    return images, [label for _ in asked.grids]


def _draw(
    rasters: list[GeoBox], grid: GeoBox, row: int, col: int, resampling: str, pixels: Array, out: Array, ok: Array
) -> None:  # fmt: skip
    """Write a chip from the first raster that holds its middle."""
    window = slice(row, row + CHIP), slice(col, col + CHIP)
    middle = slice(row + CHIP // 2, row + CHIP // 2 + 1), slice(col + CHIP // 2, col + CHIP // 2 + 1)
    for raster in rasters:
        place = placement(raster, grid)
        if place.offset is not None:
            if place.touches(*middle):
                every = np.arange(len(out))
                marks = np.zeros(len(out), out.dtype), np.ones(len(out), bool)
                nothing = np.empty((0, 0), np.uint8)
                copies.copy_valid(pixels, every, nothing, *marks, (7, 7), out, ok, every, (0, 0), (CHIP, CHIP))
                return
        elif warps.touched(raster, grid, *middle, resampling, place.scale) is not None:
            where = warps.located(raster, grid, *window, resampling, place.scale)
            if where.window is not None:
                rows, cols = where.window
                crop = pixels[:, : rows.stop - rows.start, : cols.stop - cols.start]
                origin, image = (rows.start, cols.start), (raster.shape.y, raster.shape.x)
                warps.resample(where, crop, None, (0,) * len(out), origin, image, out, ok)
                return
