"""What the chain costs beyond reading: chips of eight bands from decoded tiles, by CPU time, interleaved."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

import geopipes as gp
from benchmarks import texture
from benchmarks.jobs import BATCH, CHIP
from benchmarks.world import PIXEL, START, World, add_asset, new_item
from geopipes.datacubes.stackcube import StackCube
from geopipes.read.draws import current
from geopipes.read.reader import Block
from geopipes.read.tiles import shared

BANDS = tuple(f"B{band + 1}" for band in range(8))
SIDE, TILE = 1024, 512
"""Of the scene [px]: a chip touches one tile of each band, two or four."""

CACHE = 64 * 2**20
"""Bytes, that hold all tiles of the scene (17 MB), decoded once."""


def overhead(world: World, *, repeats: int, chips: int) -> dict[str, Any]:
    """Measure CPU milliseconds for a chip of 8 uint16 bands, 224 x 224, on its own grid, by one thread.

    Parameters
    ----------
    world : not looked at; the scene is written anew
    repeats : epochs of each, interleaved
    chips : in an epoch, at random places

    Returns
    -------
    reading : a loop written by hand, in which the same reader writes the same windows to a batch that is there
    straight, scaled, dataset : a chain of batches beyond that: ``tensor`` alone, after ``scale``, and after a step
        that takes a Dataset. The median of the differences of epochs that followed each other
    """
    with tempfile.TemporaryDirectory() as folder:
        plan = gp.items([_scene(Path(folder))]).stack(list(BANDS)).draw(CHIP, n=chips, seed=0, time=1)
        works: dict[str, Callable[[], Any]] = {"reading": _reading(plan)}
        for name, chain in _chains(plan).items():
            works[name] = partial(deque, chain.batch(BATCH), maxlen=0)
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(repeats + 1):
            for name, work in works.items():
                began = time.process_time()
                work()
                times[name].append(1e3 * (time.process_time() - began) / chips)
    # The first epoch fills the cache, and loads kernels.
    beyond = {name: [a - b for a, b in zip(each, times["reading"], strict=True)][1:] for name, each in times.items()}
    return {name: median(each) for name, each in beyond.items()} | {"reading": median(times["reading"][1:])}


def _chains(plan: gp.Plan[Any]) -> dict[str, gp.Pipe[Any]]:
    read = plan.read(threads=1, cache=CACHE)
    return {
        "straight": read.tensor(image=list(BANDS), fill=0),
        "scaled": read.scale(list(BANDS), factor=1e-4).tensor(image=list(BANDS), fill=0),
        "dataset": read.map(as_it_is).tensor(image=list(BANDS), fill=0),
    }


def as_it_is(chip: Any) -> Any:
    """Give what is given: a step that needs a Dataset."""
    return chip


def _reading(plan: gp.Plan[Any]) -> Callable[[], None]:
    """Give what reads all chips, batch after batch into one array."""
    windows = plan._value.get()
    cube = windows.cubes[0]
    if not isinstance(cube, StackCube):
        raise TypeError(f"overhead: the cube is {type(cube).__name__}; needed a stack alone")
    dtype, sides = np.dtype("uint16"), (1, CHIP, CHIP)
    batch, ok = np.empty((BATCH, 1, len(BANDS), CHIP, CHIP), dtype), np.empty((1, len(BANDS), CHIP, CHIP), bool)
    blocks = [Block({dtype: row}, {dtype: ok}, np.empty(sides, bool)) for row in batch]

    def read() -> None:
        with _running():
            for position in range(len(windows)):
                _, window = windows.window(position)
                cube.reader.read(window.rows, window.cols, [0], into=blocks[position % BATCH])

    return read


@contextmanager
def _running() -> Iterator[None]:
    """Begin a run, so that files are looked after once and not at each chip."""
    with shared(CACHE).expecting() as uses:
        token = current.set(uses)
        yield
        current.reset(token)


def _scene(folder: Path) -> Any:
    """Write eight bands, valid everywhere."""
    grid = GeoBox((SIDE, SIDE), Affine(PIXEL, 0, 600_000, 0, -PIXEL, 4_600_000), "EPSG:32614")
    scene = new_item("HOT", grid, START, shapely.box(-98, 41, -97, 42))
    ground = texture.ground(0, 0, SIDE)
    for number, band in enumerate(BANDS):
        pixels = texture.band(ground, 0, 0, number, 166)
        add_asset(scene, band, folder / f"{band}.tif", grid, pixels, TILE, nodata=0)
    return scene
