"""Train in Lightning, and go on from a checkpoint, which holds the loader's state: `pip install lightning`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812  # as its own documentation imports it
import torch
from learning import UNKNOWN
from lightning.pytorch.callbacks import ModelCheckpoint
from numpy.random import Generator
from torch.nn.functional import cross_entropy
from unet import UNet

import geopipes as gp
from geopipes.loaders import Loader
from geopipes.testing import Synthetic, synthetic_scenes

BANDS = ["blue", "green", "red", "nir"]


def loader(scenes: Synthetic) -> Loader:
    cubes = gp.items(scenes.items).stack(BANDS, crs="utm", resolution=10, groupby="solar_day")
    cubes = cubes.join(gp.rasters(scenes.label), name="crop", nodata=UNKNOWN)
    chips = cubes.chip(64).shuffle(seed=0).read().scale(BANDS, factor=1e-4)
    samples = chips.tensor(image=BANDS, label="crop", fill=0, time_axis=False).map(turned, rng=True)
    return samples.batch(8, drop_last=True).loader()


def turned(sample: dict[str, Any], rng: Generator) -> dict[str, Any]:
    quarters = int(rng.integers(4))
    return sample | {name: sample[name].rot90(quarters, (-2, -1)) for name in ("image", "label")}


class Learner(L.LightningModule):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.model = UNet(bands=len(BANDS), classes=classes, width=8)
        self.losses: list[float] = []

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        loss = cross_entropy(self.model(batch["image"]), batch["label"].long(), ignore_index=UNKNOWN)
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def fit(scenes: Synthetic, epochs: int, kept: ModelCheckpoint, resume: Path | None = None) -> list[float]:
    """Train; give the loss of each step."""
    torch.manual_seed(0)
    learner = Learner(len(scenes.classes))
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[kept], **quiet)
    trainer.fit(learner, loader(scenes), ckpt_path=resume, weights_only=False)
    return learner.losses


def main(size: int, epochs: int, step: int, out: Path) -> None:
    scenes = synthetic_scenes(out / "scenes", dates=["2024-07-12"], size=size)
    print(f"{len(loader(scenes))} steps an epoch")
    kept = ModelCheckpoint(out, "{step}", every_n_train_steps=step, save_top_k=-1)
    losses = fit(scenes, epochs, kept)
    print(f"loss: {losses[0]:.3f} at the first step, {losses[-1]:.3f} at step {len(losses)}")
    then = fit(scenes, epochs, kept, resume=out / f"step={step}.ckpt")
    print(f"{len(then)} steps from the checkpoint of step {step}; losses as without a break: {then == losses[step:]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="pixels of 10 m on each side of a scene")
    parser.add_argument("--epochs", type=int, default=4, help="of training, in steps of 8 chips")
    parser.add_argument("--step", type=int, default=20, help="whose checkpoint is gone on from")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the scenes and checkpoints")
    main(**vars(parser.parse_args()))
