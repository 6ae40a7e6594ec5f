"""Story 2, a flood seen by four inputs: radar, optical, elevation and outlines of the water, each with its mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest

import geopipes as gp
from geopipes.testing import Flood, synthetic_flood

CHIP = 48  # pixels of 10 m


@pytest.fixture(scope="module")
def flood(tmp_path_factory: pytest.TempPathFactory) -> Flood:
    return synthetic_flood(tmp_path_factory.mktemp("flood"), size=384)


def planned(flood: Flood, event: str) -> gp.Plan[Any]:
    events = flood.events[flood.events["event"] == np.datetime64(event)]
    s1 = gp.items(flood.radar).stack(["vv", "vh"], resolution=20).to_decibel(["vv", "vh"])
    s2 = gp.items(flood.optical).stack(["red", "nir", "scl"], resolution=10).mask_clouds("scl")
    dem = gp.rasters(flood.elevation).stack({"height": "data"}, resolution=30, crs="EPSG:32614", resampling="bilinear")
    return (
        gp.inputs(s2=s2, s1=s1.rasterize(events, name="water", background=0), dem=dem.slope("height"))
        .chip(CHIP, coverage="any")
        .assign(event=np.datetime64(event))
        .match_dates({"s1": "3D", "s2": "5D"}, to="event", side={"s1": "after", "s2": "nearest"}, optional="s2")
    )


def samples(flood: Flood, event: str) -> gp.Pipe[Any]:
    chips = planned(flood, event).read(threads=2)
    dem = ["height", "slope"]
    return chips.tensor(s1=["vv", "vh"], s2=["red", "nir"], dem=dem, water="s1/water", fill=0, time_axis=False)


def test_chips_without_optical_images_survive_with_a_mask(flood: Flood) -> None:
    first, second = (list(samples(flood, event)) for event in ("2024-05-20", "2024-06-10"))
    for sample in (*first, *second):
        assert sample["s1"].shape == (2, CHIP // 2, CHIP // 2)
        assert sample["s2"].shape == (2, CHIP, CHIP)
        assert sample["dem"].shape == (2, CHIP // 3, CHIP // 3)
        assert sample["water"].shape == (CHIP // 2, CHIP // 2)
        assert {*sample} >= {"s1_valid", "s2_valid", "dem_valid"}
        assert sample["s1_valid"].all()
        assert sample["dem_valid"].all()
    assert sum(bool(sample["s2_valid"].any()) for sample in first) > len(first) / 2  # 18 May is near; clouds are out
    assert not any(sample["s2_valid"].any() for sample in second)  # no scene within five days
    assert all((sample["s2"] == 0).all() for sample in second)


def test_inputs_of_three_resolutions_make_one_batch(flood: Flood) -> None:
    batch = next(iter(samples(flood, "2024-06-10").batch(6)))
    assert batch["s1"].shape == (6, 2, 24, 24)
    assert batch["s2"].shape == (6, 2, 48, 48)
    assert batch["dem"].shape == (6, 2, 16, 16)
    assert batch["s2_valid"].shape == (6, 48, 48)
    seconds = batch["s1_time"].numpy().astype("M8[ns]").astype("M8[D]")
    assert (seconds == np.datetime64("2024-06-12")).all()


@pytest.mark.parametrize("event", ["2024-05-20", "2024-06-10"])
def test_the_area_of_water_is_that_of_the_polygons(flood: Flood, event: str) -> None:
    """Within 1%, over the ground that the chips cover."""
    every = list(samples(flood, event))
    boxes = gpd.GeoSeries.from_wkt([box(sample["bounds"]) for sample in every], crs=flood.events.crs)
    there = flood.events.geometry[flood.events["event"] == np.datetime64(event)]
    truth = there.union_all().intersection(boxes.union_all()).area
    found = sum(int(sample["water"].sum()) for sample in every) * 20.0**2
    assert truth > 100_000
    assert abs(found / truth - 1) < 0.01


def box(bounds: tuple[float, float, float, float]) -> str:
    left, bottom, right, top = bounds
    return f"POLYGON(({left} {bottom}, {right} {bottom}, {right} {top}, {left} {top}, {left} {bottom}))"


def test_water_is_dark_to_the_radar(flood: Flood) -> None:
    """Labels and imagery lie on each other: what is under water is 10 dB darker."""
    batch = next(iter(samples(flood, "2024-06-10").batch(100)))
    wet = batch["water"].bool()
    vv = batch["s1"][:, 0]
    assert wet.sum() > 500
    assert vv[wet].mean() < vv[~wet].mean() - 8


def test_the_elevation_is_read_once(tmp_path: Path) -> None:
    """Each tile of each input is decoded once, though chips share them; of an input that is missing, none."""
    flood = synthetic_flood(tmp_path, size=256)  # files that no other test has read
    plan = planned(flood, "2024-06-10")
    windows = plan._value.get()
    tiles = set()
    for position in range(len(windows)):
        cube, window = windows.window(position)
        tiles |= {*cube.keys(window)}
    dates = [len(cube.dataset[name]["time"]) for name in ("s1", "s2", "dem")]
    assert dates == [1, 1, 1]
    assert 2 <= len(tiles) < 5  # of one pass of the radar, and of the elevation; files of 256 px have few tiles
    chips = plan.read(threads=2)
    with chips.profile() as report:
        assert len(list(chips)) == len(plan) > 10
    assert report.table()["calls"]["decoding tiles"] == sum(len(planes.files) for planes, *_ in tiles)
