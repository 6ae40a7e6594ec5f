"""Training and judging in plain PyTorch, for the examples: batches are dicts that hold ``channels`` and ``target``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Batch = Mapping[str, Any]
UNKNOWN = 255
"""Target of pixels that do not count: also the nodata of the quickstart's label."""


def fit(model: nn.Module, batches: Sequence[Batch], *, steps: int, rate: float = 0.02) -> tuple[float, float]:
    """Train for some steps, a batch each, and give the mean loss over all batches before and after.

    Parameters
    ----------
    batches : ``channels`` (N, C, y, x), float32, and ``target`` (N, y, x), int64
    steps : one for each batch, again and again
    rate : of learning, at its highest
    """
    # On a CPU, convolutions then take about half the time; torch's types leave the option out.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = mean_loss(model, batches)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    model.train()
    for batch in islice(cycle(batches), steps):
        optimizer.zero_grad()
        loss(model, batch).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        schedule.step()
    return before, mean_loss(model, batches)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return cross_entropy(model(batch["channels"]), batch["target"], ignore_index=UNKNOWN)


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Sequence[Batch]) -> float:
    model.eval()
    return sum(float(loss(model, batch)) for batch in batches) / len(batches)


@torch.no_grad()
def score(model: nn.Module, batches: Sequence[Batch]) -> tuple[float, float, Tensor]:
    """Give the share of pixels answered rightly, that of their most common class, and the answers, (N, y, x)."""
    model.eval()
    answers = torch.cat([model(batch["channels"]).argmax(dim=1) for batch in batches])
    target = torch.cat([batch["target"] for batch in batches])
    known = target != UNKNOWN
    right = (answers == target)[known].float().mean()
    most = target[known].bincount().max() / known.sum()
    return float(right), float(most), answers
