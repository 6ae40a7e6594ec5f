"""Boxes around objects: on the map, in pixels, in ragged batches, and back on the map; classes remapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
import xarray as xr
from label_making import cubes, frame, grid

import geopipes as gp
from geopipes.errors import SourceError, StepError, UnknownBand
from geopipes.fingerprints import steps_fingerprint
from geopipes.labels import boxes_to_frame, remap
from geopipes.testing import Town, synthetic_town


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return synthetic_town(tmp_path_factory.mktemp("town"), size=256)


def chips(town: Town, size: int = 64, **options: Any) -> gp.Pipe[xr.Dataset]:
    return gp.items(town.items).stack(["red"], groupby="solar_day").chip(size, **options).read(threads=2)


def test_boxes_hold_what_a_chip_shows(town: Town) -> None:
    buildings = gpd.read_parquet(town.buildings)
    for chip in chips(town, margin=8, coverage="any", edge="shift").boxes(town.buildings, column="use"):
        left, bottom, right, top = (
            f(chip[d].values[8:-8]) for f, d in ((min, "x"), (min, "y"), (max, "x"), (max, "y"))
        )
        window = shapely.box(left - 0.5, bottom - 0.5, right + 0.5, top + 0.5)
        seen = buildings.geometry.intersection(window)
        seen = seen[seen.area > 0]
        np.testing.assert_array_equal(chip["boxes_id"], seen.index + 1)
        np.testing.assert_allclose(chip["boxes"], seen.bounds, atol=1e-6)
        np.testing.assert_allclose(chip["boxes_visible"], seen.area / buildings.area[seen.index])
        kinds = {name: number for number, name in enumerate(sorted({*buildings["use"]}), 1)}
        assert [*chip["boxes_label"].values] == [kinds[use] for use in buildings["use"][seen.index]]
        assert chip["boxes"].dims == ("boxes_object", "edge")


def test_batches_are_as_detectors_take_them_and_lead_back_to_the_map(town: Town) -> None:
    samples = chips(town).boxes(town.buildings, min_visible=0.5).tensor(image=["red"], target="boxes", fill=0)
    batches = list(samples.batch(4))
    numbers = {len(target["boxes"]) for batch in batches for target in batch["target"]}
    assert 0 in numbers
    assert max(numbers) > 3
    for batch in batches:
        assert isinstance(batch["target"], list)
        for target in batch["target"]:
            assert (target["boxes"].dtype, target["labels"].dtype) == (torch.float32, torch.int64)
            assert target["boxes"].shape == (len(target["labels"]), 4)
            assert (target["boxes"] >= 0).all()
            assert (target["boxes"] <= 64).all()
            assert (target["boxes"][:, :2] < target["boxes"][:, 2:]).all()
            assert (target["labels"] == 1).all()
    found = gpd.GeoDataFrame(
        gpd.pd.concat([boxes_to_frame(batch["target"], batch) for batch in batches]), crs=town.geobox.crs
    )
    assert found.crs == town.geobox.crs
    buildings = gpd.read_parquet(town.buildings)
    once = found.ids.value_counts()
    whole = found[found.ids.isin(once[once == 1].index)].set_index("ids")
    expected = gpd.GeoSeries(buildings.envelope).iloc[whole.index - 1]
    assert len(whole) > 10
    share = whole.geometry.intersection(expected.set_axis(whole.index)).area / expected.set_axis(whole.index).area
    assert (share > 0.49).all()
    assert (share > 0.999).mean() > 0.5


def test_boxes_and_instances_have_the_same_numbers(town: Town) -> None:
    plan = gp.items(town.items).stack(["red"], groupby="solar_day").rasterize(
        town.buildings, name="objects", background=0, instances=True
    )  # fmt: skip
    for chip in plan.chip(64).read().boxes(town.buildings):
        assert {*np.unique(chip["objects"].values)} - {0} <= {*chip["boxes_id"].values}


def test_predictions_in_several_zones_need_a_crs() -> None:
    target = {"boxes": np.array([[0.0, 0, 2, 1]]), "scores": np.array([0.9])}
    batch = {
        "chip": [3, 5], "crs": ["EPSG:32633", "EPSG:32634"],
        "transform": [(10.0, 0, 500_000, 0, -10, 5_000_000)] * 2,
    }  # fmt: skip
    with pytest.raises(SourceError, match="chips are in EPSG:32633, EPSG:32634; choose one"):
        boxes_to_frame([target, target], batch)
    found = boxes_to_frame([target, target], batch, crs="EPSG:4326")
    assert found.chip.tolist() == [3, 5]
    assert found.scores.tolist() == [0.9, 0.9]
    assert found.geometry.iloc[0].bounds == pytest.approx((15, 45.1534, 15.00025, 45.1535), abs=1e-3)
    with pytest.raises(SourceError, match="1 targets of 2 chips"):
        boxes_to_frame([target], batch)


def test_what_cannot_be_boxes_is_refused(town: Town) -> None:
    with pytest.raises(StepError, match=r"write it after read\(\)"):
        gp.items(town.items).stack(["red"]).boxes(town.buildings)
    points = gpd.read_parquet(town.buildings)
    points.geometry = points.centroid
    with pytest.raises(SourceError, match="points, which have no extent"):
        list(chips(town).boxes(points))
    with pytest.raises(SourceError, match="needed is a share"):
        list(chips(town).boxes(town.buildings, min_visible=2))


def test_fingerprints_know_boxes_by_their_content(town: Town, tmp_path: Path) -> None:
    def told(source: Any, **options: Any) -> str:
        pipe = chips(town).boxes(source, **options)
        return steps_fingerprint(pipe._value.get().windows, [op.step for op in pipe._ops])  # type: ignore[attr-defined]

    copy = tmp_path / town.buildings.name
    copy.write_bytes(town.buildings.read_bytes())
    whole = gpd.read_parquet(town.buildings)
    assert len({told(whole), told(whole[:5]), told(whole, column="use"), told(whole, min_visible=0.5)}) == 4
    assert told(town.buildings).count("") == told(copy).count("")


def test_remapped_classes_stand_before_and_after_read() -> None:
    features = frame([shapely.box(x, 0, x + 14, 40) for x in (0, 14, 28)], kind=[1, 5, 9])
    labels = cubes(grid()).rasterize(features, name="label", column="kind", background=255, nodata=255)
    table = {1: 0, 5: 1, 9: 1}
    before = next(iter(labels.remap("label", table).chip(40).read()))["label"]
    after = next(iter(labels.chip(40).remap("label", table).read()))["label"]
    last = next(iter(labels.chip(40).read().remap("label", table)))["label"]
    for label in (before, after, last):
        np.testing.assert_array_equal(label.values[0, [0, 20, 35]], [0, 1, 1])
        assert label.attrs["nodata"] == 255
        assert "class_names" not in label.attrs
        assert label.dtype == np.uint8
    few = labels.remap("label", {1: 0})
    with pytest.raises(StepError, match=r"\[5, 9\] are not named"):
        next(iter(few.chip(40).read()))
    kept = next(iter(labels.remap("label", {1: 1000}, other="keep").chip(40).read()))["label"]
    assert (kept.dtype, *kept.values[0, [0, 20]]) == (np.uint16, 1000, 5)
    rest = next(iter(labels.remap("label", {1: 0}, other=7, nodata=99).chip(40).read()))["label"]
    assert ([*rest.values[0, [0, 20, 39]]], rest.attrs["nodata"]) == ([0, 7, 7], 99)
    samples = labels.remap("label", table).chip(16).read().tensor(image=["image"], label="label", fill=0)
    through = labels.map(_same).remap("label", table).chip(16).read().tensor(image=["image"], label="label", fill=0)
    for one, other in zip(samples, through, strict=True):
        assert (one["label"] == other["label"]).all()


def _same(dataset: xr.Dataset) -> xr.Dataset:
    return dataset


def test_remapping_on_dask_and_what_it_refuses() -> None:
    dataset = xr.Dataset({"label": (("y", "x"), np.arange(4, dtype="uint8").reshape(2, 2))})
    lazy = remap(dataset.chunk(), "label", {0: 3, 1: 2, 2: 1, 3: 0})
    assert lazy["label"].chunks is not None
    np.testing.assert_array_equal(lazy["label"], [[3, 2], [1, 0]])
    with pytest.raises(UnknownBand, match="no such variable"):
        remap(dataset, "labels", {})
    with pytest.raises(StepError, match="classes are whole numbers"):
        remap(dataset.astype("float32"), "label", {})
    with pytest.raises(SourceError, match="too many classes"):
        remap(dataset, "label", {0: 300}, dtype="uint8", other=0)
