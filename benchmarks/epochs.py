"""Time to read chips: geopipes and its peers."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.jobs import Job, job
from benchmarks.needs import unique
from benchmarks.world import World

FULL = 0.98
"""Of its budget that a cache holds when it is full: tiles are not of one size."""


def geopipes(
    world: World, *, name: str, order: str, threads: int, chips: int | None = None, cache: int | None = None
) -> dict[str, Any]:
    """Time geopipes over its plan, or the first chips of its order.

    Returns
    -------
    seconds, cpu (seconds of all threads), chips, decoded (files' tiles), needed (each once, for the whole plan)
    """
    from geopipes.read.tiles import shared

    asked = job(name, world)
    batches = asked.chain(order=order, threads=threads, cache=cache)
    warm(batches, asked.cache if cache is None else cache)
    shared().forget()
    before = shared().counts
    started, cpu = time.perf_counter(), time.process_time()
    done = 0
    for batch in batches:
        done += len(batch["image"])
        if chips is not None and done >= chips:
            break
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    decoded = shared().counts.decoded - before.decoded
    return {
        "seconds": seconds, "cpu": cpu, "chips": done, "decoded": decoded,
        "needed": unique(asked, world.size.tile), "planned": len(asked.windows), "cache": asked.cache,
    }  # fmt: skip


def warm(batches: Any, cache: int) -> None:
    """Take batches until the cache is full, or all are taken: kernels are loaded, files opened, memory is in use."""
    from geopipes.read.tiles import shared

    running = iter(batches)
    for _ in running:
        if shared().counts.held > FULL * cache:
            break
    running.close()


def peer(world: World, *, name: str, engine: str, threads: int, chips: int, seed: int = 0) -> dict[str, Any]:
    """Time a peer over chips in random order, after the first batches."""
    asked = job(name, world)
    module = import_module(f"benchmarks.peers.{engine}")
    # Every worker process has then delivered once, and begun again; of a tiny plan nothing is left out.
    first = min(threads, (len(asked.windows) - 1) // asked.batch)
    batches = module.batches(asked, random_order(asked, chips + first * asked.batch, seed=seed), threads)
    for _ in range(first):
        next(batches)
    started, cpu = time.perf_counter(), time.process_time()
    done = sum(len(batch["image"]) for batch in batches)
    return {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu, "chips": done}


def random_order(asked: Job, chips: int, *, seed: int) -> list[int]:
    """Give positions of a plan, drawn without replacement."""
    order = np.random.default_rng(seed).permutation(len(asked.windows))
    return [int(position) for position in order[:chips]]
