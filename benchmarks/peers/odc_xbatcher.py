"""odc-stac's dask cube, cut into chips by xbatcher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import dask
import numpy as np
import odc.stac
import xarray as xr
from xbatcher import BatchGenerator

from benchmarks.jobs import CHIP, Job
from benchmarks.peers import Batch, Sample, collated


def batches(job: Job, positions: Sequence[int], threads: int) -> Iterator[Batch]:
    """Read chips of a job; chunks are the chips, so that none is read for its neighbour's sake."""
    yield from by_xbatcher(job, [_cube(job, number) for number in range(len(job.grids))], positions, threads)


def by_xbatcher(job: Job, cubes: Sequence[xr.Dataset], positions: Sequence[int], threads: int) -> Iterator[Batch]:
    """Cut cubes with ``image`` (time, band, y, x), and perhaps ``label`` (y, x), into chips, and load them."""
    windows = {"time": cubes[0].sizes["time"], "band": len(job.bands), "y": CHIP, "x": CHIP}
    generators = [BatchGenerator(cube, windows, preload_batch=False) for cube in cubes]

    def load(position: int) -> Sample:
        cube, row, col = job.place(position)
        across = cubes[cube].sizes["x"] // CHIP
        chip = generators[cube][row // CHIP * across + col // CHIP].load()
        return {name: np.asarray(chip[name].values) for name in chip.data_vars}

    with ThreadPoolExecutor(threads) as pool, dask.config.set(pool=pool):
        for start in range(0, len(positions), job.batch):
            yield collated([load(position) for position in positions[start : start + job.batch]])


def _cube(job: Job, number: int) -> xr.Dataset:
    """Make the cube of one grid."""
    grid = job.grids[number]
    chunks: dict[str, int | Literal["auto"]] = {"y": CHIP, "x": CHIP}
    own = [item for item in job.items if len(job.grids) == 1 or item.properties["proj:code"] == str(grid.crs)]
    images = odc.stac.load(own, job.bands, geobox=grid, groupby="time", chunks=chunks, resampling=job.resampling)
    cube = {"image": images.to_dataarray("band").transpose("time", "band", "y", "x")}
    if job.label is not None:
        label = odc.stac.load([job.label], ["crop"], geobox=grid, chunks=chunks, resampling="nearest")
        cube["label"] = label["crop"].isel(time=0, drop=True)
    return xr.Dataset(cube)
