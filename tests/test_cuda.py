"""Batches on a GPU: the same as without one, ahead of the step. Where there is none, all of this is left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import geopipes as gp
from geopipes.testing import Synthetic

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")


def batches(land: Synthetic) -> gp.Pipe[Any]:
    cubes = gp.items(land.items).stack(["red", "nir"], resolution=10, crs="utm", groupby="solar_day")
    chips = cubes.chip(32, time=1).shuffle(seed=0).read(threads=2).scale(["red", "nir"], factor=1e-4)
    return chips.tensor(image=["red", "nir"], fill=0, time_axis=False).batch(12)


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize("prefetch", [0, 3])
def test_batches_on_the_device_are_the_same(land: Synthetic, prefetch: int, processes: int) -> None:
    pipe = batches(land)
    with pipe.loader(prefetch=prefetch, processes=processes, device="cuda") as loader:
        for epoch in (0, 1):
            there = [{name: moved(value) for name, value in batch.items()} for batch in loader]
            here = list(pipe.epoch(epoch))
            assert len(there) == len(here)
            for found, expected in zip(there, here, strict=True):
                for name, value in expected.items():
                    assert not isinstance(value, torch.Tensor) or torch.equal(found[name], value), name


def moved(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        assert value.is_cuda
        return value.cpu()
    return value


def test_a_slow_step_sees_each_batch_whole(land: Synthetic) -> None:
    """Memory of a batch that the device still reads is not given to the next one."""
    pipe = batches(land)
    work = torch.randn(2048, 2048, device="cuda")
    sums = []
    with pipe.loader(prefetch=4, device="cuda") as loader:
        for batch in loader:
            for _ in range(20):
                work = work @ work / 2048
            sums.append(batch["image"].double().sum())
            del batch
    expected = [batch["image"].double().sum() for batch in pipe]
    torch.testing.assert_close(torch.stack(sums).cpu(), torch.stack(expected))


def test_all_of_a_training_loop_runs_on_the_device(land: Synthetic) -> None:
    torch.manual_seed(0)
    model = torch.nn.Conv2d(2, 1, 1).cuda()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    losses = []
    with batches(land).loader(device="cuda") as loader:
        for _ in range(8):
            for batch in loader:
                optimizer.zero_grad()
                loss = (model(batch["image"]) - batch["image"].mean(dim=1, keepdim=True)).square().mean()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
    assert torch.isfinite(torch.stack(losses)).all()
    assert losses[-1] < losses[0] / 4
