"""Training on two ranks, run by torchrun in `test_training_loops.py`: prints what each rank had."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import geopipes as gp


def samples(folder: str) -> gp.Pipe[dict[str, Any]]:
    cubes = gp.items(f"{folder}/items.json").stack(["red", "nir"], resolution=10, crs="utm", groupby="solar_day")
    return cubes.chip(32, time=1).shuffle(seed=0).read(threads=2).tensor(image=["red", "nir"], fill=0, time_axis=False)


def train(folder: str) -> None:
    """Train for an epoch and a half; the state after it goes to a file."""
    dist.init_process_group("gloo")
    loader = samples(folder).batch(12, drop_last=True).loader()  # the batch of both ranks
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Conv2d(2, 1, 1))
    optimizer = torch.optim.SGD(model.parameters(), 1e-9)
    seen: list[list[int]] = []
    for steps in (len(loader), len(loader) // 2):
        for _, batch in zip(range(steps), loader, strict=False):
            seen.append(batch["chip"].tolist())
            optimizer.zero_grad()
            model(batch["image"].float()).mean().backward()
            optimizer.step()
    weights = [parameter.detach().flatten().tolist() for parameter in model.parameters()]
    found = {"seen": seen, "state": loader.state_dict(), "weights": weights}
    Path(folder, f"rank{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    train(sys.argv[1])
