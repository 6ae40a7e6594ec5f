"""Story 10, the colleague: from the frozen search, the network's weights and this program to the same file.

The program is this file. It searches, maps ground that the network has not seen, and judges the map by a sample.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from torch import Tensor, nn

import geopipes as gp
from geopipes.scores import AreaEstimates, area_estimates, estimates
from geopipes.testing import serve, synthetic_scenes

DATES = ("2024-06-07", "2024-07-12", "2024-08-21")
BANDS = ["red", "nir"]
CLASSES = {0: "other", 1: "summer crop"}


class Network(nn.Module):
    """Two layers of one pixel each, over all dates: (N, date, band, y, x) to (N, class, y, x)."""

    def __init__(self) -> None:
        super().__init__()
        seen, wide = len(DATES) * len(BANDS), 16
        self.layers = nn.Sequential(
            nn.BatchNorm2d(seen), nn.Conv2d(seen, wide, 1), nn.ReLU(), nn.Conv2d(wide, len(CLASSES), 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        return torch.as_tensor(self.layers(image.flatten(1, 2)))


def summer(batch: dict[str, Any]) -> dict[str, Any]:
    """Tell summer crops, corn and soybeans, from all else."""
    return batch | {"summer": ((batch["crop"] == 1) | (batch["crop"] == 2)).long()}


def plans(url: str, frozen: Path, label: Path) -> tuple[gp.Plan[Any], ...]:
    """Plan chips to learn from, and those of ground that is held out; a frozen search asks no one."""
    return (
        gp.search(url, collections=["synthetic-s2-l2a"], datetime="2024-06/2024-08")
        .freeze(frozen)
        .stack([*BANDS, "scl"], resolution=10, groupby="solar_day")
        .mask_values("scl", [3, 8, 9, 10])
        .scale(BANDS, factor=1e-4)
        .join(gp.rasters(label), name="crop", nodata=255)
        .chip(32, overlap=8)
        .split((0.5, 0.5), block=800, buffer=50, seed=0)
    )


def batches(plan: gp.Plan[Any], threads: int) -> gp.Pipe[Any]:
    return plan.read(threads=threads).tensor(image=BANDS, crop="crop", fill=0).batch(8).map(summer)


def learned(plan: gp.Plan[Any], weights: Path) -> None:
    """Train for a few seconds, and keep the weights."""
    torch.manual_seed(0)
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    every = list(batches(plan, 2))
    for _ in range(25):
        for batch in every:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch["image"]), batch["summer"]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    torch.save(model.state_dict(), weights)


def mapped(plan: gp.Plan[Any], weights: Path, chart: Path, threads: int) -> gp.Pipe[Any]:
    model = Network()
    model.load_state_dict(torch.load(weights, weights_only=True))
    drawn = batches(plan, threads).predict(model).stitch(activation="softmax", classes=True)
    return drawn.write(chart, classes=CLASSES)


def judged(chart: gp.Pipe[Any], label: Path) -> AreaEstimates:
    """Look up the label at places drawn at random, as somebody would on high-resolution imagery."""
    places = chart.stratified_sample(200, seed=0, classes=CLASSES)
    seen = gp.rasters(label).stack({"crop": "data"}).around(places.to_crs(5070), 1).read()
    crop = np.array([chip["crop"].values.item() for chip in seen])
    return area_estimates(places.assign(reference=((crop == 1) | (crop == 2)).astype(int)), classes=CLASSES)


def program(url: str, folder: Path, label: Path, threads: int) -> None:
    """Learn where there are no weights yet; map, and print the file's hash and the report."""
    train, held_out = plans(url, folder / "scenes.parquet", label)
    gp.audit(train, held_out, insist=True)
    if not (folder / "weights.pt").exists():
        learned(train, folder / "weights.pt")
    chart = mapped(held_out, folder / "weights.pt", folder / "crops.tif", threads)
    print(hashlib.sha256((folder / "crops.tif").read_bytes()).hexdigest(), judged(chart, label), sep="\n")


def printed(*arguments: object) -> str:
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_colleague_comes_to_the_same_file(tmp_path: Path) -> None:
    land = synthetic_scenes(tmp_path / "land", dates=DATES, zones=(14,), size=320)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    with serve(land.items, collections=[land.collection]) as api:
        report = printed(api.url, ours, land.label, 2)
        assert api.searches == 1
    for name in ("scenes.parquet", "weights.pt"):
        shutil.copy(ours / name, theirs / name)
    # Nobody answers the search any more, and other threads read.
    assert printed(api.url, theirs, land.label, 1) == report
    with rasterio.open(ours / "crops.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert set(np.unique(file.read(1))) == {0, 1, file.nodata}
    accuracy, give_or_take = map(float, re.findall(r"200 places; overall accuracy ([\d.]+) ± ([\d.]+);", report)[0])
    assert accuracy - give_or_take > 0.75
    areas = re.findall(r"(other|summer crop) +([\d,]+) ± ([\d,]+) ha \(mapped", report)
    assert [name for name, _, _ in areas] == ["other", "summer crop"]


def test_the_published_example_is_matched() -> None:
    """Olofsson et al. (2014), table 8 and section 5.2: 21,158 ha of deforestation, give or take 6,158."""
    counts = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
    pixels = np.array([200_000, 150_000, 3_200_000, 6_450_000])  # of 30 m
    report = estimates(counts, pixels * 900.0, classes={1: "deforestation", 2: "gain", 3: "forest", 4: "other"})
    line = report.table("ha").loc[1]
    assert (round(line.area_ha), round(line.area_interval_ha)) == (21_158, 6_158)
    assert (round(report.accuracy, 2), round(report.z * report.accuracy_error, 2)) == (0.95, 0.02)


if __name__ == "__main__":
    program(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
