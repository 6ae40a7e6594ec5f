"""From aerial imagery to a map of buildings, in a minute or two on two cores: a synthetic town, and no internet.

A U-Net with a ResNet encoder learns the buildings of one part of the town; kept in a file and loaded again, it maps
another. The map is cleaned, its buildings become polygons with areas, and all is held against the truth.
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
from geopipes.maps import polygonize
from geopipes.statistics import Statistics
from geopipes.testing import synthetic_town

BANDS, CLASSES = ["red", "green", "blue", "nir"], {0: "other", 1: "building"}
COLORS = {0: "#f0efe9", 1: "#b5453c"}


def batches(plan: gp.Plan[Any], stats: Statistics) -> gp.Pipe[Any]:
    """Read, normalize, make batches: the same to learn and to map."""
    dtype = {"channels": torch.float32, "target": torch.int64}
    samples = plan.read().normalize(stats).tensor(
        channels=BANDS, target="building", fill=0, time_axis=False, dtype=dtype
    )  # fmt: skip
    return samples.batch(8)


def main(size: int, steps: int, width: int, encoder: Path | None, out: Path) -> None:
    town = synthetic_town(out / "town", size=size)
    imagery = gp.items(town.items)
    cubes = imagery.stack(BANDS, groupby="solar_day").rasterize(town.buildings, name="building", background=0)
    chips = cubes.chip(128, overlap=32, edge="shift")
    train, held_out = chips.split((0.75, 0.25), block=size / 2, buffer=20, seed=2)  # metres
    stats = train.statistics(variables=BANDS)
    torch.manual_seed(0)
    model = ResNetUNet(len(BANDS), len(CLASSES), width=width)
    if encoder is not None:
        model.encoder.load_weights(encoder)
    before, after = fit(model, list(batches(train.shuffle(seed=0), stats)), steps=steps, rate=0.003)
    print(f"loss: {before:.3f} before, {after:.3f} after {steps} steps")
    torch.save(model.state_dict(), out / "buildings.pt")

    model = ResNetUNet(len(BANDS), len(CLASSES), width=width)
    model.load_state_dict(torch.load(out / "buildings.pt", weights_only=True))
    answers = batches(held_out, stats).predict(model, on="channels", name="kind")
    stitched = answers.stitch(of="kind", activation="softmax", classes=True, probability=True, blend="hann")
    kind, sure = stitched.write(out / "map_{name}.tif", classes=CLASSES, colors=COLORS, overwrite=True)
    options: dict[str, Any] = {"classes": [1], "smallest": 12, "holes": 12, "simplify": 1}  # square metres, metres
    found = polygonize(kind, out / "buildings.parquet", probability=sure, **options)

    truth = gp.vectors(town.buildings).clip(held_out.table(crs=found.crs).union_all())
    for name, table in (("found", found), ("true", truth)):
        print(f"{name}: {len(table)} buildings of {table.area.sum():,.0f} m²")
    (mapped,) = gp.items([kind]).stack({"kind": "data"})
    held = imagery.stack(BANDS, groupby="solar_day", geobox=mapped.odc.geobox)
    held = held.join(gp.items([kind]), name="kind")
    held = held.rasterize(town.buildings, name="truth", background=0, nodata=UNKNOWN)
    print(held.chip(128, edge="pad").read().scores("kind", "truth", classes=CLASSES))
    (image,) = held
    print("picture:", save_map(out / "buildings.png", image.isel(time=0), truth, found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="pixels of 1 m on each side of the town")
    parser.add_argument("--steps", type=int, default=100, help="of training, 8 chips each")
    parser.add_argument("--width", type=int, default=24, help="of the network; 64 is that of ResNet-18")
    parser.add_argument("--encoder", type=Path, help="weights to begin with, by torchvision's names")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for all that is made")
    main(**vars(parser.parse_args()))
