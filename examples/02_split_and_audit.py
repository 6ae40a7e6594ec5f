"""Splits that do not leak, and the audit that proves it, in half a minute on synthetic scenes, without the internet.

Chips that overlap are split twice: by chance alone, where pixels of the test split are in the training split too, and
by blocks of ground with a buffer between. The audit measures both, the map shows them, and statistics are taken of the
training split alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import geopipes as gp
from geopipes.testing import synthetic_scenes

BLOCK, BUFFER = 1_600, 160  # metres
METRES = "+proj=laea +lat_0=41.4 +lon_0=-96"  # of the map: from the middle of the scenes, on the border of two zones
PARTS = ("train", "test", "left out")


def plan(folder: Path, size: int) -> gp.Plan[Any]:
    """Plan chips of 320 m that overlap by half, of scenes in two UTM zones; nothing is read."""
    scenes = synthetic_scenes(folder, dates=["2024-06-07", "2024-07-12"], size=size)
    return (
        gp.items(scenes.items)
        .stack(["blue", "green", "red", "nir", "scl"], crs="utm", resolution=10, groupby="solar_day")
        .join(gp.rasters(scenes.label), name="crop", nodata=255)
        .chip(32, overlap=16)
    )


def by_chance(chips: gp.Plan[Any]) -> list[gp.Plan[Any]]:
    """Deal chip by chip, as is often done: here it leaks."""
    test = chips.sample(len(chips) // 4, seed=0)
    train = chips.query(~chips.table().id.isin(test.table().id))
    return [train.assign(split="train"), test.assign(split="test")]


def by_blocks(chips: gp.Plan[Any]) -> list[gp.Plan[Any]]:
    """Deal blocks of ground; chips of the training split that come near the test split are left out."""
    train, test = chips.split((0.75, 0.25), block=BLOCK, buffer=BUFFER, seed=3)
    used = [*train.table().id, *test.table().id]
    rest = chips.query(~chips.table().id.isin(used))
    return [part.assign(split=name) for part, name in zip((train, test, rest), PARTS, strict=True)]


def main(size: int, out: Path) -> None:
    chips = plan(out / "scenes", size)
    chance, blocks = by_chance(chips), by_blocks(chips)
    found = {"chip by chip": gp.audit(*chance), "by blocks": gp.audit(*blocks[:2], insist=True)}
    for name, audit in found.items():
        print(f"{name}:\n{audit.to_string(index=False)}")
    stats = blocks[0].statistics(variables=["red", "nir", "crop"], sample=100, seed=0)
    print(stats)
    figure = Figure(figsize=(12, 4.7), layout="constrained")
    for axis, name, parts in zip(figure.subplots(1, 2, sharex=True, sharey=True), found, (chance, blocks), strict=True):
        parts[0].plot(*parts[1:], crs=METRES, ax=axis)
        for rest in axis.collections[2:]:
            rest.set_facecolor("0.75")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, frameon=False)
        area, apart = found[name][["overlap", "distance"]].iloc[0]
        both = f"{area / 1e6:.1f} km²" if area else "nothing"
        axis.set_title(f"{name}: {both} in both splits, {apart:.0f} m apart")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "split_and_audit.png", dpi=110)
    print("picture:", out / "split_and_audit.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="pixels of 10 m on each side of a scene")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the scenes and the picture")
    main(**vars(parser.parse_args()))
