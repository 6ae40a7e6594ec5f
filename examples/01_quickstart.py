"""From a STAC search to a trained model: `make quickstart`, a minute or two of work on two cores.

Synthetic scenes like Sentinel-2's (farmland, four dates, two UTM zones, clouds) are served by a STAC API on loopback.
A U-Net learns the crops of one part of the land and is judged on another.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from learning import UNKNOWN, fit, score
from pictures import save_predictions
from unet import UNet

import geopipes as gp
from geopipes.testing import Synthetic, serve, synthetic_scenes

DATES = ("2024-05-03", "2024-06-07", "2024-07-12", "2024-08-21")
BANDS = ["blue", "green", "red", "nir"]
CLOUDS = (3, 8, 9, 10)  # in Sentinel-2's scene classification: shadow, clouds of medium and high probability, cirrus


def plans(url: str, scenes: Synthetic) -> tuple[gp.Plan[Any], ...]:
    """Plan the chips to learn from, and those of other ground to be judged on; nothing is read."""
    return (
        gp.search(url, collections=[scenes.collection.id], bbox=scenes.bbox, datetime="2024-05/2024-08")
        .stack([*BANDS, "scl"], crs="utm", resolution=10, groupby="solar_day")
        .join(gp.rasters(scenes.label), name="crop", nodata=UNKNOWN)
        .chip(64)
        .split((0.75, 0.25), block=3_200, buffer=320, seed=0)  # metres
    )


def batches(plan: gp.Plan[Any]) -> gp.Pipe[Any]:
    """Read the chips, mask their clouds, scale to reflectance, make batches of tensors."""
    return (
        plan.shuffle(seed=0)
        .read()
        .mask_values("scl", CLOUDS)
        .scale(BANDS, factor=1e-4)
        .tensor(image=BANDS, label="crop", fill=0)
        .map(with_channels)
        .batch(8)
    )


def with_channels(sample: dict[str, Any]) -> dict[str, Any]:
    """Add what the network sees, all dates' bands and where each date is valid, and what it is to answer."""
    valid = sample["image_valid"]  # (date, y, x)
    channels = torch.cat([sample["image"].flatten(0, 1), valid])
    target = torch.where(valid.any(dim=0), sample["label"], UNKNOWN).long()  # unknown where no date is valid
    return sample | {"channels": channels, "target": target}


def main(size: int, steps: int, out: Path) -> None:
    scenes = synthetic_scenes(out / "scenes", dates=DATES, size=size)
    with serve(scenes.items, collections=[scenes.collection]) as api:
        train, test = (batches(plan) for plan in plans(api.url, scenes))
        seen, unseen = list(train), list(test)  # few enough to keep in memory: each iteration reads anew
    print(train)
    print("a batch:", {name: tuple(value.shape) for name, value in seen[0].items() if hasattr(value, "shape")})
    torch.manual_seed(0)
    model = UNet(bands=len(DATES) * (len(BANDS) + 1), classes=len(scenes.classes))
    before, after = fit(model, seen, steps=steps)
    print(f"loss: {before:.3f} before, {after:.3f} after {steps} steps")
    accuracy, majority, answers = score(model, unseen)
    print(f"held-out accuracy: {accuracy:.3f}; answering the most common class: {majority:.3f}")
    print("picture:", save_predictions(out / "quickstart.png", unseen, answers, scenes.classes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="pixels of 10 m on each side of a scene")
    parser.add_argument("--steps", type=int, default=100, help="of training, 8 chips each")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the scenes and the picture")
    main(**vars(parser.parse_args()))
