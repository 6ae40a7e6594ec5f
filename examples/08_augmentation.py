"""Kornia's augmentations of chips: a whole series, its masks and the label, transformed alike and anew in each epoch.

What a chip goes through is decided by the chain's seed, the epoch and the chip alone: whoever loads it, in whatever
order, on however many threads and processes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia.augmentation import AugmentationSequential, RandomAffine, RandomBrightness, RandomHorizontalFlip
from learning import UNKNOWN
from series_pictures import save_views

import geopipes as gp
from geopipes.testing import Synthetic, synthetic_scenes

BANDS = ["blue", "green", "red", "nir"]
CLOUDS = (3, 8, 9, 10)  # in Sentinel-2's scene classification: shadow, clouds of medium and high probability, cirrus


def chips(scenes: Synthetic) -> gp.Pipe[Any]:
    """Plan chips of monthly composites with their label, read them and make samples."""
    return (
        gp.items(scenes.items)
        .stack([*BANDS, "scl"], crs="utm", resolution=10, groupby="solar_day")
        .join(gp.rasters(scenes.label), name="crop", nodata=UNKNOWN)
        .mask_values("scl", CLOUDS)
        .scale(BANDS, factor=1e-4)
        .composite("month", {"scl": "mode", "*": "median"})
        .chip(64)
        .shuffle(seed=0)
        .read()
        .tensor(image=BANDS, label="crop", fill=0)
    )


def augmented(sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Flip, turn, scale and brighten a sample.

    Kornia draws from torch's generator, which all threads share. Here ``rng``, the chip's own, draws: ranges of one
    number and chances of 0 and 1 leave nothing to be drawn.
    """
    angle, size = rng.uniform(-180, 180), rng.uniform(0.8, 1.25)
    light = rng.uniform(0.95, 1.05)
    transform = AugmentationSequential(
        RandomHorizontalFlip(p=float(rng.random() < 0.5)),
        RandomAffine((angle, angle), scale=(size, size), p=1.0),
        RandomBrightness((light, light), p=1.0),
        data_keys=["input", "mask", "mask"],  # masks are turned by nearest neighbour, and keep their values
    )
    image, valid, label = sample["image"], sample["image_valid"], sample["label"]
    known = (label + 1.0).where(label != UNKNOWN, 0.0).expand(len(image), 1, -1, -1)  # what comes in from outside is 0
    image, valid, known = transform(image, valid[:, None].float(), known)  # dates are its batch: each is treated alike
    label = torch.where(known[0, 0] > 0, known[0, 0] - 1, UNKNOWN).to(sample["label"].dtype)
    valid = valid[:, 0].bool()
    return sample | {"image": image * valid[:, None], "image_valid": valid, "label": label}


def main(size: int, out: Path) -> None:
    scenes = synthetic_scenes(out / "scenes", dates=("2024-05-03", "2024-06-07", "2024-07-12"), size=size)
    plain = chips(scenes)
    views = plain.map(augmented, rng=True)
    again = [torch.equal(a["image"], b["image"]) for a, b in zip(views.take(4), views.take(4), strict=True)]
    print(views, f"the same when read again: {all(again)}", sep="\n")
    of_chip = [{s["chip"]: s for s in pipe} for pipe in (plain, views, views.epoch(1))]
    print("picture:", save_views(out / "augmentation.png", of_chip, [*of_chip[0]][:2], scenes.classes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="pixels of 10 m on each side of a scene")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the scenes and the picture")
    main(**vars(parser.parse_args()))
