"""Memory over many chips: resident bytes after imports, after some chips, after many."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.jobs import job
from benchmarks.world import World


def memory(world: World, *, name: str, threads: int, marks: list[int]) -> dict[str, Any]:
    """Read epoch after epoch, and note resident bytes when so many chips have come.

    Returns
    -------
    baseline : bytes after imports, planning and a first batch, by which kernels are loaded; its tiles are given back
    marks : bytes at each mark
    budget : of the tile cache [bytes]
    """
    import torch  # noqa: F401  (what a training loop has imported anyway)

    from geopipes.read.tiles import shared

    asked = job(name, world)
    epochs = [asked.chain(order="shuffled", threads=threads, seed=seed) for seed in range(3)]
    for chain in epochs:
        len(chain)  # planned
    next(iter(asked.chain(order="sequential", threads=threads)))
    shared().clear()
    baseline, done, epoch = resident(), 0, 0
    found: list[int] = []
    while len(found) < len(marks):
        for batch in epochs[epoch % len(epochs)]:
            done += len(batch["image"])
            del batch
            if done >= marks[len(found)]:
                found.append(resident())
                if len(found) == len(marks):
                    break
        epoch += 1
    return {"baseline": baseline, "marks": dict(zip(map(str, marks), found, strict=True)), "budget": asked.cache}


def resident() -> int:
    """Give this process's resident memory [bytes]."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import psutil  # elsewhere than on Linux

    return int(psutil.Process().memory_info().rss)
