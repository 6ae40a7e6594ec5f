"""What it costs to make a map of a model's answers: time beside the model and the reader alone, and memory."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine

import geopipes as gp
from benchmarks.jobs import CHIP, job
from benchmarks.world import World

OVERLAP = 32
"""Pixels that neighbouring chips share."""

BATCH = 16
CLASSES = 4

WIDE, HIGH = 2048, 4096
"""Pixels of the smaller map whose memory is measured."""

TIMES = 16
"""How many times as high the larger one is."""

SETTLED = 6
"""Times that the smaller map is written: by then threads have the memory that they keep."""

CACHE = 4 * 10**6
"""Bytes of decoded tiles: the smaller map fills it, too."""


def model(bands: int) -> torch.nn.Module:
    """Make a small network: the heavier a model, the less all else counts."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(bands, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3, padding=1)]
    return torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Conv2d(32, CLASSES, 1))


def throughput(world: World, *, threads: int, chips: int) -> dict[str, Any]:
    """Time a model over chips that overlap, as it is and as a map; in turns, the reader's tiles in memory for both.

    Returns
    -------
    chips; seconds of ``alone``, the chain to its predictions; ``stitched``, its strips; ``written``, a COG
    """
    asked = job("same-grid", world)
    scenes = [item for item in asked.items if item.properties["proj:code"] == asked.items[0].properties["proj:code"]]
    cubes = gp.items(scenes).stack(list(asked.bands))
    plan = cubes.chip(CHIP, overlap=OVERLAP, edge="pad", coverage="any", time=1).take(chips)
    tensors = plan.read(threads=threads, cache=asked.cache).tensor(
        image=list(asked.bands), fill=0, time_axis=False, dtype=torch.float32
    )
    predicted = tensors.predict(model(len(asked.bands)), batch=BATCH)
    stitched = predicted.stitch(activation="softmax", classes=True)
    for _ in tensors:  # kernels are loaded, files opened
        pass
    next(iter(stitched))
    with tempfile.TemporaryDirectory() as folder:
        seconds = {
            "alone": _timed(lambda: sum(1 for _ in predicted)),
            "stitched": _timed(lambda: sum(1 for _ in stitched)),
            "written": _timed(lambda: stitched.write(Path(folder) / "map.tif")),
        }
    return {"chips": len(plan), **seconds}


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def memory(world: World, *, threads: int, fewer: int = 1) -> dict[str, Any]:
    """Write a map, then one of an area 16 times as large, as wide and 16 times as high.

    Returns
    -------
    peak resident bytes: ``baseline``, before; ``small`` and ``large``, afterwards
    """
    width, height = WIDE // fewer, HIGH // fewer
    network = torch.nn.Conv2d(1, CLASSES, 1)  # whose own memory is little beside the map's
    with tempfile.TemporaryDirectory() as folder:
        peaks = {"baseline": _peak()}
        for name, high in (*[("small", height)] * SETTLED, ("large", TIMES * height)):
            path = Path(folder) / f"{name}.tif"
            _raster(path, high, width)
            chips = gp.rasters(str(path)).stack(["b1"]).chip(256, overlap=OVERLAP, edge="pad")
            read = chips.read(threads=threads, cache=CACHE // fewer)
            tensors = read.tensor(image=["b1"], fill=0, time_axis=False, dtype=torch.float32)
            map = tensors.predict(network, batch=BATCH).stitch(activation="softmax")
            map.write(Path(folder) / "map.tif", overwrite=True)
            peaks[name] = _peak()
    return peaks


def _raster(path: Path, high: int, width: int) -> None:
    """Write noise, tile row by tile row."""
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32633", "tiled": True}
    profile |= {"compress": "deflate", "transform": Affine(10.0, 0.0, 300_000.0, 0.0, -10.0, 5_000_000.0)}
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", width=width, height=high, **profile) as file:
        for top in range(0, high, 256):
            rows = min(256, high - top)
            window = rasterio.windows.Window(0, top, width, rows)
            file.write(rng.integers(0, 250, (rows, width), np.uint8), 1, window=window)


def _peak() -> int:
    """Give the most memory that this process has had [bytes]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
