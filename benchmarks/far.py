"""A store far away: the same chips from a server that takes 40 ms before each answer, and from the disk."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pystac
import rasterio
from rasterio.windows import Window

import geopipes as gp
from benchmarks.epochs import random_order, warm
from benchmarks.jobs import CHIP, Job, asset_grid, job
from benchmarks.measures import LATENCY
from benchmarks.memory import resident
from benchmarks.world import World
from geopipes.testing import ObjectServer, object_server

JOB = "same-grid"
COLD_THREADS = 32
"""Threads of rasterio, and of geopipes, that read scenes never seen before: all of them wait most of the time."""


def geopipes(
    world: World, *, order: str, threads: int, chips: int | None = None, latency: float | None = LATENCY
) -> dict[str, Any]:
    """Time geopipes over the first chips of an order, tiles forgotten before it.

    Parameters
    ----------
    world : served
    order : "shuffled" or "random"
    threads : that decode
    chips : None for all
    latency : None for the files on the disk

    Returns
    -------
    seconds, chips; requests and sent (bytes), of the server
    """
    from geopipes.read.tiles import shared

    with _job(world, latency) as (asked, server):
        batches = asked.chain(order=order, threads=threads)
        warm(batches, asked.cache)
        shared().forget()
        before = (0, 0) if server is None else (len(server.requests), server.sent)
        done, started = 0, time.perf_counter()
        for batch in batches:
            done += len(batch["image"])
            if chips is not None and done >= chips:
                break
        seconds = time.perf_counter() - started
        after = (0, 0) if server is None else (len(server.requests), server.sent)
    return {"seconds": seconds, "chips": done, "requests": after[0] - before[0], "sent": after[1] - before[1]}


def peer(world: World, *, engine: str, threads: int, chips: int) -> dict[str, Any]:
    """Time a peer over chips in random order, after the first batches."""
    os.environ["GDAL_DISABLE_READDIR_ON_OPEN"] = "EMPTY_DIR"  # else each file asks for its folder first
    with _job(world, LATENCY) as (asked, server):
        module = import_module(f"benchmarks.peers.{engine}")
        batches = module.batches(asked, random_order(asked, chips + asked.batch, seed=0), threads)
        next(batches)
        before = (0, 0) if server is None else (len(server.requests), server.sent)
        started = time.perf_counter()
        done = sum(len(batch["image"]) for batch in batches)
        seconds = time.perf_counter() - started
        after = (0, 0) if server is None else (len(server.requests), server.sent)
    return {"seconds": seconds, "chips": done, "requests": after[0] - before[0], "sent": after[1] - before[1]}


def cold(world: World, *, engine: str, scenes: int) -> dict[str, Any]:
    """Time scenes that this process has never opened: one chip of each.

    Parameters
    ----------
    world : whose first scene lies there under so many names
    engine : "rasterio"; "geopipes"; or "stored": geopipes once another process has read the same and kept the headers
    scenes : to be read
    """
    with tempfile.TemporaryDirectory() as kept, _copies(world, scenes) as (items, server):
        os.environ["GEOPIPES_CACHE"] = kept if engine == "stored" else ""
        if engine == "stored":
            first = get_context("spawn").Process(target=_cold, args=(items,))
            first.start()
            first.join()
        if engine != "rasterio":
            _cold(world.scenes[:1])  # from the disk: imports and kernels are loaded, as in all rows
        before = len(server.requests)
        result = _cold_rasterio(items) if engine == "rasterio" else _cold(items)
        return result | {"requests": len(server.requests) - before}


def _cold(items: Sequence[pystac.Item]) -> dict[str, Any]:
    """Read one chip of each item."""
    window = asset_grid(items[0], items[0].assets["B1"])[1024 : 1024 + CHIP, 1024 : 1024 + CHIP]
    cubes = gp.items(items).stack(["B1"], geobox=window)
    samples = cubes.chip(CHIP, time=1).read(threads=COLD_THREADS, cache=10**8).tensor(image=["B1"], fill=0)
    len(samples)  # planned
    started = time.perf_counter()
    done = sum(1 for _ in samples)
    return {"seconds": time.perf_counter() - started, "chips": done}


def _cold_rasterio(items: list[pystac.Item]) -> dict[str, Any]:
    os.environ["GDAL_DISABLE_READDIR_ON_OPEN"] = "EMPTY_DIR"

    def read(item: pystac.Item) -> None:
        with rasterio.open(item.assets["B1"].href) as file:
            file.read(1, window=Window(1024, 1024, CHIP, CHIP))

    started = time.perf_counter()
    with ThreadPoolExecutor(COLD_THREADS) as pool:
        done = sum(1 for _ in pool.map(read, items))
    return {"seconds": time.perf_counter() - started, "chips": done}


def steady(world: World, *, threads: int, marks: list[int]) -> dict[str, Any]:
    """Read epoch after epoch, and note memory, threads and handles when so many chips have come.

    Returns
    -------
    marks : for each, bytes, threads and handles of this process
    """
    found: dict[str, list[int]] = {}
    left = list(marks)
    with _job(world, LATENCY) as (asked, _):
        done = epoch = 0
        while left:
            for batch in asked.chain(order="shuffled", threads=threads, seed=epoch % 3):
                done += len(batch["image"])
                del batch
                if done >= left[0]:
                    found[str(left.pop(0))] = [resident(), threading.active_count(), _handles()]
                    if not left:
                        break
            epoch += 1
    return {"marks": found}


def _handles() -> int:
    descriptors = Path("/proc/self/fd")
    return len(list(descriptors.iterdir())) if descriptors.exists() else 0


@contextmanager
def _job(world: World, latency: float | None) -> Iterator[tuple[Job, ObjectServer | None]]:
    """Give the job on files of a server, or on those of the disk."""
    asked = job(JOB, world)
    if latency is None:
        yield asked, None
        return
    root = _root(world)
    with object_server(root, latency=latency, process=True) as server:
        items = tuple(server.served(asked.items))
        label = None if asked.label is None else server.served([asked.label])[0]
        yield replace(asked, items=items, label=label), server


@contextmanager
def _copies(world: World, count: int) -> Iterator[tuple[list[pystac.Item], ObjectServer]]:
    """Give items of as many scenes, each of a day of its own: the first band of the first, by other names."""
    first = world.scenes[0]
    root = _root(world) / "cold"
    root.mkdir(exist_ok=True)
    items = []
    for number in range(count):
        item = first.clone()
        item.id = f"{first.id}_{number}"
        item.datetime = first.datetime and first.datetime + timedelta(days=number)
        item.assets = {"B1": item.assets["B1"]}
        path = root / f"{number}.tif"
        if not path.exists():
            os.link(first.assets["B1"].href, path)
        item.assets["B1"].href = str(path)
        items.append(item)
    with object_server(root, latency=LATENCY, process=True) as server:
        yield server.served(items), server


def _root(world: World) -> Path:
    return Path(world.label.assets["crop"].href).parent
