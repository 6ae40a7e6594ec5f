"""A pipe in the loops of others: torch and torchdata, Lightning, DistributedDataParallel."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_training import samples as shared_samples
from torch.utils.data import DataLoader
from torchdata import nodes
from torchdata.stateful_dataloader import StatefulDataLoader

import geopipes as gp
from geopipes.testing import Synthetic

ROOT = Path(__file__).resolve().parent.parent


def samples(land: Synthetic) -> gp.Pipe[dict[str, Any]]:
    cubes = gp.items(land.items).stack(["red", "nir"], resolution=10, crs="utm", groupby="solar_day")
    return (
        cubes.chip(32, time=1)
        .take(72)
        .shuffle(seed=0)
        .read(threads=2)
        .tensor(image=["red", "nir"], fill=0, time_axis=False)
    )


def chips(batches: Any) -> list[list[int]]:
    return [batch["chip"].tolist() for batch in batches]


def test_a_plain_loop_learns(land: Synthetic) -> None:
    loader = samples(land).map(_fractions).batch(12).loader()
    torch.manual_seed(0)
    model = torch.nn.Conv2d(2, 1, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    losses = []
    for _ in range(8):
        for batch in loader:
            optimizer.zero_grad()
            loss = (model(batch["image"]) - batch["image"].mean(dim=1, keepdim=True)).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    assert loader.epoch == 8


def _fractions(sample: dict[str, Any]) -> dict[str, Any]:
    return {"image": sample["image"].float() / 10_000, "chip": sample["chip"]}


@pytest.mark.parametrize("workers", [0, 2])
def test_dataloader_shares_batches_among_its_workers(land: Synthetic, workers: int) -> None:
    """Each epoch is a pipe of its own; whole batches go to workers in turn, in order."""
    batches = samples(land).batch(12)
    for epoch in (0, 1):
        loader: DataLoader[Any] = DataLoader(
            batches.epoch(epoch),  # type: ignore[arg-type]
            batch_size=None,
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
        )
        assert chips(loader) == chips(batches.epoch(epoch))
    assert chips(batches.epoch(1)) != chips(batches)


def test_dataloader_on_several_ranks_takes_shards(land: Synthetic) -> None:
    plan = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day").chip(32, time=1).take(72)
    whole = chips(plan.shuffle(seed=0).read().tensor(image=["red"], fill=0).batch(12))
    for rank in (0, 1):
        part = plan.shuffle(seed=0).shard(rank, 2).read().tensor(image=["red"], fill=0).batch(6)
        loader: DataLoader[Any] = DataLoader(part, batch_size=None)  # type: ignore[arg-type]
        assert chips(loader) == [batch[rank::2] for batch in whole]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata 0.11, torch 2.13
@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_dataloader_resumes_exactly_again_and_again(land: Synthetic, workers: int) -> None:
    batches = samples(land).batch(6)
    whole = chips(batches)
    delivered: list[list[int]] = []
    state: dict[str, Any] | None = None
    context = "spawn" if workers else None
    for steps in (3, 2, 4, 1) if workers == 0 else (3, 2, 7):
        loader: StatefulDataLoader[Any] = StatefulDataLoader(
            batches,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=context,
        )
        if state is not None:
            loader.load_state_dict(state)
        steps_of = iter(loader)
        delivered += chips(islice(steps_of, steps))
        state = loader.state_dict()
        del steps_of
    assert delivered == whole[: len(delivered)]


def test_torchdata_nodes_resume_exactly_again_and_again(land: Synthetic) -> None:
    batches = samples(land).batch(6)
    whole = chips(batches) + chips(batches.epoch(1))
    delivered: list[list[int]] = []
    state: dict[str, Any] | None = None
    for steps in (5, 3, 2, 1):
        loader: nodes.Loader[Any] = nodes.Loader(nodes.Mapper(nodes.IterableWrapper(batches.loader()), _same))
        if state is not None:
            loader.load_state_dict(json.loads(json.dumps(state)))
        delivered += chips(islice(iter(loader), steps))
        state = loader.state_dict()
    assert delivered == whole[:11]


def _same(batch: Any) -> Any:
    return batch


# Lightning.


quiet = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec.:FutureWarning",  # lightning 2.6, torch 2.13
    "ignore::lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:Be aware that when using `ckpt_path`:UserWarning",
)


def fitted(land: Synthetic, *callbacks: Any, resume: Path | None = None, **options: Any) -> tuple[list[Any], Any]:
    """Fit, and give the chips of each step; no class of ours is inherited: the loader is given to fit as it is."""
    import lightning as L  # noqa: N812

    class Learner(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(2, 1, 1)
            self.seen: list[list[int]] = []

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            self.seen.append(batch["chip"].tolist())
            return self.layer(batch["image"].float() / 10_000).mean()  # type: ignore[no-any-return]

        def validation_step(self, batch: dict[str, Any], _: int) -> None:
            self.log("loss", self.layer(batch["image"].float() / 10_000).mean(), batch_size=12)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 1e-3)

    learner = Learner()
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=bool(callbacks), callbacks=[*callbacks],
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    batches = samples(land).batch(12)
    trainer.fit(learner, batches.loader(), batches.loader(), ckpt_path=resume, weights_only=False)
    return learner.seen, trainer


def three_epochs(land: Synthetic) -> list[list[int]]:
    return [batch for epoch in range(3) for batch in chips(samples(land).batch(12).epoch(epoch))]


@quiet
def test_lightning_fits_and_goes_on_from_a_checkpoint_in_the_middle(land: Synthetic, tmp_path: Path) -> None:
    whole = three_epochs(land)[:15]
    assert fitted(land, max_steps=15, max_epochs=-1, limit_val_batches=0)[0] == whole
    delivered, path = [], None
    for steps in (4, 8, 9, 15):  # the steps of an epoch are six
        more, trainer = fitted(land, max_steps=steps, max_epochs=-1, limit_val_batches=0, resume=path)
        path = tmp_path / f"after_{steps}.ckpt"
        trainer.save_checkpoint(path)
        delivered += more
    assert delivered == whole


@quiet
@pytest.mark.parametrize("validated", [False, True])
def test_lightning_goes_on_from_any_of_its_checkpoints(land: Synthetic, tmp_path: Path, validated: bool) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    whole = three_epochs(land)
    options: dict[str, Any] = {"max_epochs": 3, "limit_val_batches": 1 if validated else 0, "num_sanity_val_steps": 0}
    of_steps = ModelCheckpoint(tmp_path / "steps", every_n_train_steps=1, save_top_k=-1)
    of_epochs = ModelCheckpoint(tmp_path / "epochs", every_n_epochs=1, save_top_k=-1)
    assert fitted(land, of_steps, of_epochs, **options)[0] == whole
    for path in [*(tmp_path / "epochs").iterdir(), *sorted((tmp_path / "steps").iterdir())[3:14:2]]:
        step = int(path.stem.partition("step=")[2])
        assert fitted(land, resume=path, **options)[0] == whole[step:], path.name


# DistributedDataParallel.


def test_two_ranks_train_side_by_side_and_one_goes_on_alone(land: Synthetic, tmp_path: Path) -> None:
    land.items.save_object(str(tmp_path / "items.json"))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        str(ROOT / "tests" / "distributed_training.py"), str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=_environment())
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0]["state"] == ranks[1]["state"]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    batches = shared_samples(str(tmp_path)).batch(12, drop_last=True)
    whole = [batch for epoch in range(2) for batch in chips(batches.epoch(epoch))]
    count = len(ranks[0]["seen"])
    for rank in (0, 1):
        assert ranks[rank]["seen"] == [batch[rank::2] for batch in whole[:count]]
    alone = batches.loader()
    alone.load_state_dict(ranks[1]["state"])
    assert chips(alone) == whole[count:]


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
