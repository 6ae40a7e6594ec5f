"""The same jobs by other libraries, each as one who knows it well would write it.

A module gives ``batches(job, positions, threads)``: an iterator over dicts of the tensors ``image``,
(chip, date, band, y, x), and ``label``, (chip, y, x), for chips of the job's plan.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

PEERS = ("rasterio_threads", "odc_each", "odc_xbatcher", "stackstac_xbatcher", "torchgeo_random")

Sample = dict[str, np.ndarray[Any, Any]]
Batch = dict[str, torch.Tensor]


def on_threads(read: Callable[[int], Sample], positions: Sequence[int], threads: int, *, batch: int) -> Iterator[Batch]:
    """Read chips on threads, a few ahead of the one that is taken."""
    pending: deque[Future[Sample]] = deque()
    ready: list[Sample] = []
    with ThreadPoolExecutor(threads) as pool:
        for position in positions:
            pending.append(pool.submit(read, position))
            if len(pending) > 2 * threads:
                ready.append(pending.popleft().result())
            if len(ready) == batch:
                yield collated(ready)
                ready = []
        ready += [future.result() for future in pending]
    for start in range(0, len(ready), batch):
        yield collated(ready[start : start + batch])


def collated(samples: list[Sample]) -> Batch:
    """Make a batch of samples."""
    return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}
