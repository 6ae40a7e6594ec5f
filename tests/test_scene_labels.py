"""Scene labels: one label for all of an image, from a table or a folder for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from affine import Affine

import geopipes as gp
from geopipes.catalogs import folder_classes
from geopipes.errors import CatalogError, ChipError, EmptySearch
from geopipes.testing import Synthetic

CLASSES = ("Forest", "River", "Highway")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of 32 px in each of three folders, in two zones, on grids of their own."""
    folder = tmp_path_factory.mktemp("images")
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for k in range(4):
            place = Affine(10, 0, 500_003 + 1_000 * k, 0, -10, 5_000_007 - 1_111 * number)
            profile: dict[str, Any] = {
                "driver": "GTiff", "width": 32, "height": 32, "count": 2, "dtype": "uint16", "transform": place,
                "crs": f"EPSG:3263{3 + k % 2}",
            }  # fmt: skip
            with rasterio.open(folder / name / f"{name}_{k}.tif", "w", **profile) as file:
                file.write(np.full((2, 32, 32), 100 * number + k, "uint16"))
    return folder


def test_a_folder_for_each_class_becomes_images_with_labels(images: Path) -> None:
    files = gp.rasters(images / "*" / "*.tif", bands=["red", "nir"])
    table = folder_classes(files)
    assert table["class"].tolist() == sorted([*CLASSES] * 4)
    assert table["label"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    plan = files.stack_each(["red", "nir"]).chip(32).scene_labels(table)
    assert len(plan) == 12
    assert plan.table()["class"].tolist() == table["class"].tolist()
    train, test = plan.split((0.5, 0.5), block=500, seed=0)
    assert len(train) + len(test) == 12
    batches = plan.shuffle(seed=0).read().tensor(image=["red", "nir"], columns=["label", "class"], fill=0).batch(4)
    for batch in batches:
        assert batch["label"].dtype == torch.int64
        first = batch["image"][:, 0, 0, 0, 0].tolist()
        assert [CLASSES[value // 100] for value in first] == batch["class"]
        assert [sorted(CLASSES)[label] for label in batch["label"]] == batch["class"]
    assert folder_classes(files, classes=CLASSES)["label"].tolist() == [0] * 4 + [2] * 4 + [1] * 4
    with pytest.raises(CatalogError, match="folder 'River' is none of the classes"):
        folder_classes(files, classes=["Forest", "Highway"])
    with pytest.raises(EmptySearch, match="stack_each: there are no items"):
        len(files.take(0).stack_each())


def test_labels_of_a_table_reach_every_chip_of_an_item(land: Synthetic, tmp_path: Path) -> None:
    plan = gp.items(land.items).stack(["red"], crs="utm", resolution=20, groupby="id").chip(32, time=1)
    ids = [item.id for item in land.items]
    labels = {name: number for number, name in enumerate(ids)}
    shown = plan.table(items=True)["items"]
    found = plan.scene_labels(labels).table()
    assert found["label"].tolist() == [labels[items[0]] for items in shown]
    table = pd.DataFrame({"item": ids, "label": range(len(ids)), "clear": [True, False] * (len(ids) // 2)})
    table.to_csv(tmp_path / "labels.csv", index=False)
    kept = plan.scene_labels(tmp_path / "labels.csv", columns="clear")
    assert kept.table()["clear"].dtype == bool
    assert len(kept.query("clear")) < len(kept)
    table.rename(columns={"item": "scene"}).to_parquet(tmp_path / "labels.parquet")
    assert "label" in plan.scene_labels(tmp_path / "labels.parquet", on="scene").table()
    assert "label" in plan.scene_labels(table.set_index("item")).table()


def test_what_cannot_label_a_scene_is_refused(land: Synthetic) -> None:
    cubes = gp.items(land.items).stack(["red"], crs="utm", resolution=20, groupby="id")
    plan, series = cubes.chip(32, time=1), cubes.chip(32)
    ids = [item.id for item in land.items]
    labels = {name: number for number, name in enumerate(ids)}
    with pytest.raises(ChipError, match=r"shows items of different 'label'.*chip\(time=1\)"):
        len(series.scene_labels(labels))
    assert {*series.scene_labels(dict.fromkeys(ids, 3)).table()["label"]} == {3}
    few = dict.fromkeys(ids[1:], 0)
    with pytest.raises(ChipError, match=rf"1 of {len(ids)} items are not in the table, '{ids[0]}' first; did you mean"):
        len(plan.scene_labels(few))
    twice = pd.DataFrame({"item": [ids[0], *ids], "label": 1})
    with pytest.raises(ChipError, match="stands in two rows"):
        len(plan.scene_labels(twice))
    with pytest.raises(ChipError, match=r"no column 'labels'; there are \['label'\]"):
        len(plan.scene_labels(labels, columns="labels"))
    with pytest.raises(ChipError, match="says what a plan is"):
        len(plan.scene_labels(pd.DataFrame({"item": ids, "cube": 1})))


def test_images_of_one_place_in_two_zones_both_stay(tmp_path: Path) -> None:
    """A stack gives a place to one zone; images are examples each."""
    for zone, left in ((33, 737_000), (34, 262_900)):  # beside the meridian between them, from both sides
        profile: dict[str, Any] = {
            "driver": "GTiff", "width": 32, "height": 32, "count": 1, "dtype": "uint8", "crs": f"EPSG:326{zone}",
            "transform": Affine(10, 0, left, 0, -10, 5_000_000),
        }  # fmt: skip
        with rasterio.open(tmp_path / f"{zone}.tif", "w", **profile) as file:
            file.write(np.full((1, 32, 32), zone, "uint8"))
    files = gp.rasters(tmp_path / "*.tif", bands=["red"])
    plan = files.stack_each(["red"]).map(_same).chip(32)
    assert len(plan) == 2
    assert plan.scene_labels({"33": 1, "34": 2}).table()["label"].tolist() == [1, 2]


def _same(dataset: Any) -> Any:
    return dataset
