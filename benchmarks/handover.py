"""What it costs to hand a batch over from a worker process, of samples that are ready: ours beside DataLoader's."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.world import World
from geopipes.loaders import Batch, Run, Share
from geopipes.loaders.processes import Processes

BATCH, SHAPE = 32, (7, 224, 224)

FIRST = 4
"""Batches of an epoch that are not counted: those that were made ahead, before anybody waited for them."""


class Ready(Dataset[dict[str, Any]]):
    """Samples that cost nothing: the same few tensors again and again, made in the process that gives them."""

    def __init__(self, dtype: torch.dtype, length: int) -> None:
        self._dtype, self._length = dtype, length
        self._images: list[torch.Tensor] = []

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= self._length:
            raise IndexError(index)
        self._images = self._images or [torch.randint(0, 10_000, SHAPE).to(self._dtype) for _ in range(8)]
        return {"image": self._images[index % len(self._images)], "chip": index}


def handed_over(world: World, *, dtype: str, batches: int, rounds: int) -> dict[str, Any]:
    """Take batches from one worker, in epochs of each kind by turns; the workers stay.

    Parameters
    ----------
    dtype : of the image
    batches : that are timed in an epoch
    rounds : epochs of each

    Returns
    -------
    milliseconds for a batch, the median over epochs: ``geopipes``, and of DataLoader, whose workers collate each
    batch, ``spawn`` and ``fork``
    """
    ready = Ready(getattr(torch, dtype), BATCH * (batches + FIRST))
    processes = Processes(ready, (Batch(BATCH),), share=Share(), processes=1, ahead=2)
    ways: dict[str, Callable[[], Iterable[Any]]] = {
        "geopipes": lambda: Run(ready, (Batch(BATCH),), feed=processes.feed(0))
    }
    for context in ("spawn", "fork"):
        loader = DataLoader(
            ready, BATCH, num_workers=1, prefetch_factor=2, multiprocessing_context=context, persistent_workers=True
        )
        ways[context] = partial(iter, loader)
    found = defaultdict(list)
    for _ in range(rounds):
        for name, begin in ways.items():
            found[name].append(_milliseconds(begin(), batches))
    processes.close()
    return {name: median(times) for name, times in found.items()}


def _milliseconds(taken: Iterable[Any], batches: int) -> float:
    started = 0.0
    for number, batch in enumerate(taken, start=1):
        assert batch["image"].shape == (BATCH, *SHAPE)
        if number == FIRST:
            started = time.perf_counter()
    return 1e3 * (time.perf_counter() - started) / batches
