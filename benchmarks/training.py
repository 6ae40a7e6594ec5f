"""A network trained from compressed files: the share of time in which it waits for batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice, pairwise
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benchmarks.epochs import warm
from benchmarks.jobs import BATCH, job
from benchmarks.resnet import EVERY, ResNet
from benchmarks.world import World
from geopipes.loaders import Loader

UNKNOWN = 255
CLASSES = 256
"""One for each value that a label may have."""

FIRST = 5
"""Steps that are not counted: cuDNN chooses its kernels, batches that were made ahead are used up."""

SCALE = 1e-4

CACHE = 2**30
"""Bytes of decoded tiles, of all processes together: what `read` keeps if nobody says."""


def trained(
    world: World, *, device: str, layers: int, steps: int, threads: int, processes: int, repeats: int = 3,
    batch: int = BATCH,
) -> dict[str, Any]:  # fmt: skip
    """Train on the shuffled job ``same-grid``: the network alone, batches alone, and both.

    Parameters
    ----------
    world : of the job
    device : "cuda" (bfloat16, channels last) or "cpu"
    layers : of the ResNet
    steps : that are timed
    threads : that read; shared out among processes
    processes : that load beside this one; 0 for none
    repeats : of all three by turns; the median of each
    batch : chips of a batch

    Returns
    -------
    seconds for a step: ``alone``, on one batch that stays on the device; ``batches``, taken and thrown away; and
    ``both``. ``waits``: share of the time of both in which the device has nothing to do
    """
    asked = job("same-grid", world)
    chain = asked.chain(order="shuffled", threads=threads, cache=CACHE, batch=batch)
    warm(chain, CACHE)
    step = Step(ResNet(len(asked.bands), CLASSES, layers=layers), torch.device(device))
    found: dict[str, list[float]] = {"alone": [], "batches": [], "both": [], "waits": []}
    with closing(chain.loader(prefetch=4, processes=processes, device=device)) as loader:
        one = next(iter(loader))
        for _ in range(repeats):
            found["alone"].append(step.timed(iter([one] * (steps + FIRST)))[0])
            found["batches"].append(_batches(loader, steps))
            seconds, waits = step.timed(_endless(loader, steps + FIRST))
            found["both"].append(seconds)
            found["waits"].append(waits)
    return {name: sorted(values)[len(values) // 2] for name, values in found.items()} | {"batch": batch}


class Step:
    """Trains a network, batch by batch, and watches the device."""

    def __init__(self, model: ResNet, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=1e-3, momentum=0.9)
        self._device = device

    def timed(self, batches: Iterator[dict[str, Any]]) -> tuple[float, float]:
        """Train on batches; give the seconds for a step, and the share of them in which the device waits.

        Of CUDA, what lies between the end of a step and the begin of the next one on its stream; of a CPU, the time
        until the next batch is there.
        """
        marks: list[tuple[Any, Any]] = []
        for batch in batches:
            began = self._mark()
            self._train(batch)
            marks.append((began, self._mark()))
        if self._cuda:
            torch.cuda.synchronize()
        marks = marks[FIRST - 1 :]
        whole = self._between(marks[0][1], marks[-1][1])
        idle = sum(self._between(before[1], after[0]) for before, after in pairwise(marks))
        return whole / (len(marks) - 1), idle / whole

    def _train(self, batch: dict[str, Any]) -> None:
        image = batch["image"].float().squeeze(1).mul_(SCALE).contiguous(memory_format=torch.channels_last)
        label = batch["label"].long().squeeze(1)[:, EVERY // 2 :: EVERY, EVERY // 2 :: EVERY]
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._cuda):
            loss = cross_entropy(self._model(image), label, ignore_index=UNKNOWN)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._optimizer.step()

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _between(self, one: Any, other: Any) -> float:
        return float(one.elapsed_time(other) / 1e3 if self._cuda else other - one)


def _endless(loader: Loader, steps: int) -> Iterator[dict[str, Any]]:
    """Give batches of one epoch after the other, all of one size."""
    left = steps
    while left:
        with closing(iter(loader)) as epoch:
            for batch in islice(epoch, min(left, max(len(loader) - 1, 1))):  # the last is smaller
                yield batch
                left -= 1


def _batches(loader: Loader, steps: int) -> float:
    """Take batches, and do nothing with them; give the seconds for one."""
    started = 0.0
    for number, _ in enumerate(_endless(loader, steps + FIRST), start=1):
        if number == FIRST:
            started = time.perf_counter()
    return (time.perf_counter() - started) / steps
