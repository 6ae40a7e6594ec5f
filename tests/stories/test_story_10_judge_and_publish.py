"""Story 10: a held-out region is mapped, judged by labels and by a sample, and published; story 3's way to polygons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from torch import Tensor, nn

import geopipes as gp
from geopipes.maps import Model, area_statistics, model_item, polygonize
from geopipes.scores import Confusion, area_estimates
from geopipes.testing import Synthetic, synthetic_scenes

BANDS = ["red", "green", "nir"]


class NearestMean(nn.Module):
    """Each pixel is of the class whose mean is nearest: scores (N, classes, y, x)."""

    def __init__(self, means: Tensor) -> None:
        super().__init__()
        self.means = nn.Parameter(means, requires_grad=False)  # (class, band)

    def forward(self, image: Tensor) -> Tensor:
        return -(image[:, None] - self.means[None, :, :, None, None]).square().sum(dim=2)


@pytest.fixture(scope="module")
def farmland(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    return synthetic_scenes(tmp_path_factory.mktemp("farmland"), dates=["2024-06-07"], zones=(14,), size=256)


def labelled(farmland: Synthetic) -> gp.Pipe[Any]:
    cubes = gp.items(farmland.items).stack(BANDS, resolution=10, groupby="solar_day")
    return cubes.join(gp.rasters(str(farmland.label)), name="crop")


def batches(plan: gp.Plan[Any]) -> gp.Pipe[Any]:
    samples = plan.read(threads=2).scale(BANDS, factor=1e-4)
    return samples.tensor(image=BANDS, label="crop", fill=0, time_axis=False, columns="split").batch(16)


def fitted(train: gp.Plan[Any], classes: int) -> NearestMean:
    """Take the mean of each class, of valid pixels."""
    sums, counts = torch.zeros(classes, len(BANDS)), torch.zeros(classes)
    for batch in batches(train):
        image, label = batch["image"].movedim(1, -1), batch["label"].long()
        for value in range(classes):
            at = (label == value) & batch["image_valid"]
            sums[value] += image[at].sum(dim=0)
            counts[value] += at.sum()
    return NearestMean(sums / counts.clamp(min=1)[:, None])


def test_a_held_out_region_is_judged_and_published(farmland: Synthetic, tmp_path: Path) -> None:
    names = {value: str(cover.name) for value, cover in enumerate(farmland.classes)}
    train, test = labelled(farmland).chip(32).split((0.5, 0.5), block=640, seed=0)
    model = fitted(train, len(names))
    predicted = batches(test).predict(model)

    scores = predicted.scores(classes=names, by="split", ignore=[255])
    assert isinstance(scores.whole, Confusion)
    assert scores.whole.accuracy > 0.4  # the commonest class has 38 % of the land, and a pixel tells little
    assert scores["1"].summary() == scores.whole.summary()  # all of it is the second split

    drawn = predicted.stitch(classes=True)
    chart = drawn.write(tmp_path / "crops.tif", classes=names)
    with rasterio.open(tmp_path / "crops.tif") as file, rasterio.open(farmland.label) as truth:
        mapped = file.read(1, masked=True)
        places = chart.stratified_sample(400, seed=0, least=30, classes=[*np.unique(mapped.compressed()).tolist()])
        there = places.to_crs(truth.crs)
        found = np.array([value[0] for value in truth.sample(zip(there.geometry.x, there.geometry.y, strict=True))])
    assert (found != 255).all()
    estimated = area_estimates(places.assign(reference=found), classes=names)
    assert abs(estimated.accuracy - scores.whole.accuracy) <= 2 * estimated.z * estimated.accuracy_error
    true = dict(zip(names, scores.whole.counts.sum(axis=1) * 100.0, strict=True))  # 10 m pixels, planar
    for value, area, error in zip(estimated.classes, estimated.area_m2, estimated.area_error_m2, strict=True):
        assert abs(area - true[value]) <= 4 * error + 0.002 * true[value]
    assert "overall accuracy" in str(estimated)

    (tmp_path / "means.pt").write_bytes(b"")
    torch.save(model.state_dict(), tmp_path / "means.pt")
    facts = Model(
        "crops of synthetic farmland", "nearest mean", ("semantic-segmentation",), BANDS, (-1, 3, -1, -1),
        (-1, len(names), -1, -1), framework_version=torch.__version__, item=str(tmp_path / "model.json"),
    )  # fmt: skip
    model_item(facts, tmp_path / "means.pt", tmp_path / "model.json", classes=names)
    item = chart.stac_item(
        tmp_path / "crops.json", classes=names, model=facts, lineage=str(drawn), derived_from=farmland.items
    )
    assert item.datetime == farmland.items[0].datetime
    assert ".split((0.5, 0.5)" in item.properties["processing:lineage"]
    assert json.loads((tmp_path / "crops.json").read_text())["assets"]["data"]["href"] == "./crops.tif"


def test_fields_over_many_chips_are_one_polygon_each(farmland: Synthetic, tmp_path: Path) -> None:
    """The label itself is the model's answer: what comes back through chips is what was there."""
    classes = len(farmland.classes)
    chips = labelled(farmland).chip(32, overlap=8, edge="shift")

    def known(label: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(label.long().clamp(max=classes - 1), classes).movedim(-1, 1).float()

    samples = chips.read(threads=2).tensor(image=BANDS, label="crop", fill=0, time_axis=False)
    chart = samples.predict(known, on="label").stitch(classes=True).write(tmp_path / "fields.tif")
    whole = next(iter(labelled(farmland).chip(256).read()))["crop"].clip(max=classes - 1)
    expected = polygonize(whole)
    found = chart.polygonize(tmp_path / "fields.parquet", strip=7)
    assert len(found) > 10
    assert found.geometry.geom_equals(expected.geometry).all()
    assert found["class"].tolist() == expected["class"].tolist()
    table = area_statistics(found)
    assert table.share.sum() == pytest.approx(1)
    assert table["count"].sum() == len(found)
