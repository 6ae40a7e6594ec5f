"""From aerial imagery to a map of buildings, in a minute or two on two cores, on a synthetic town, without the internet.

A U-Net with a ResNet encoder learns the buildings of a part of the town; kept in a file and loaded again, it maps a
part that it has not seen. The map is cleaned, its buildings become polygons with areas, and all is held against truth.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from learning import UNKNOWN, fit
from map_pictures import save_map
from resnet_unet import ResNetUNet

import geopipes as gp
from geopipes.maps import area_statistics, polygonize
from geopipes.scores import scores
from geopipes.statistics import Statistics
from geopipes.testing import Town, synthetic_town

BANDS = ["red", "green", "blue", "nir"]
CLASSES = {0: "other", 1: "building"}
BLOCK, BUFFER = 500, 20  # metres


def plans(town: Town) -> tuple[gp.Plan[Any], ...]:
    """Plan overlapping chips of 128 m to learn from, and those of a held-out area; nothing is read."""
    return (
        gp.items(town.items)
        .stack(BANDS, groupby="solar_day")
        .join(gp.rasters(town.label), name="building", nodata=UNKNOWN)
        .chip(128, overlap=32, edge="shift")
        .split((0.75, 0.25), block=BLOCK, buffer=BUFFER, seed=5)
    )


def batches(plan: gp.Plan[Any], stats: Statistics) -> gp.Pipe[Any]:
    """Read, normalize, make batches: the same to learn and to map."""
    tensors = {"channels": BANDS, "target": "building"}
    chips = plan.read().normalize(stats)
    return chips.tensor(**tensors, fill=0, time_axis=False, dtype={"target": torch.int64}).batch(8)


def network(width: int, weights: Path) -> ResNetUNet:
    """Give the network with the weights of a file."""
    model = ResNetUNet(len(BANDS), len(CLASSES), width=width)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model


def main(size: int, steps: int, width: int, encoder: Path | None, out: Path) -> None:
    town = synthetic_town(out / "town", size=size)
    train, held_out = plans(town)
    stats = train.statistics(variables=BANDS)
    torch.manual_seed(0)
    model = ResNetUNet(len(BANDS), len(CLASSES), width=width)
    if encoder is not None:
        model.encoder.load_weights(encoder)
    before, after = fit(model, list(batches(train.shuffle(seed=0), stats)), steps=steps, rate=0.003)
    print(f"loss: {before:.3f} before, {after:.3f} after {steps} steps")
    torch.save(model.state_dict(), out / "buildings.pt")

    mapped = (
        batches(held_out, stats)
        .predict(network(width, out / "buildings.pt"), on="channels", name="building")
        .stitch(of="building", activation="softmax", classes=True, probability=True, blend="hann")
        .write(out / "buildings")
    )
    print(mapped)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="pixels of 1 m on each side of the town")
    parser.add_argument("--steps", type=int, default=80, help="of training, 8 chips each")
    parser.add_argument("--width", type=int, default=24, help="of the network; 64 is that of ResNet-18")
    parser.add_argument("--encoder", type=Path, help="file of weights to begin with, of torchvision's names")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for everything that is made")
    main(**vars(parser.parse_args()))
