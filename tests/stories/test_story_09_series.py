"""Story 9, series for a foundation model: twelve monthly mosaics of radar and optical images at points, padded."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import torch

import geopipes as gp
from geopipes.testing import Flood, synthetic_flood

MONTHS = 12
YEAR = ("2024-01", "2024-12")
RADAR = [f"2024-{month:02}-{day:02}" for month in (1, 2, 3, 5, 6, 8, 9, 10, 11, 12) for day in (4, 20)]
OPTICAL = ["2024-03-01", "2024-05-03", "2024-05-18", "2024-07-12", "2024-07-17", "2024-09-20"]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Flood:
    return synthetic_flood(tmp_path_factory.mktemp("year"), radar=RADAR, optical=OPTICAL, size=128)


def points(year: Flood) -> gpd.GeoDataFrame:
    west, south, east, north = year.events.to_crs(4326).total_bounds
    x, y = np.random.default_rng(0).uniform((west, south), (east, north), (9, 2)).T
    return gpd.GeoDataFrame({"yield": np.arange(9.0)}, geometry=gpd.points_from_xy(x, y), crs=4326)


def samples(year: Flood) -> gp.Pipe[Any]:
    s1 = gp.items(year.radar).stack(["vv", "vh"], resolution=20).to_decibel(["vv", "vh"])
    s2 = gp.items(year.optical).stack(["red", "nir", "scl"], resolution=10).mask_clouds("scl")
    monthly = {"s2": s2.composite("month", "median", span=YEAR), "s1": s1.composite("month", "mean", span=YEAR)}
    plan = gp.inputs(**monthly).around(points(year), 16, coverage="any").shuffle(seed=0)
    chips = plan.read(threads=2)
    return chips.tensor(s2=["red", "nir"], s1=["vv", "vh"], fill=0, length=MONTHS, doy=True, columns="yield")


def test_twelve_months_of_both_with_the_day_of_the_year(year: Flood) -> None:
    batch = next(iter(samples(year).batch(9)))
    assert batch["s2"].shape == (9, MONTHS, 2, 16, 16)
    assert batch["s1"].shape == (9, MONTHS, 2, 8, 8)
    begins = [1, 32, 61, 92, 122, 153, 183, 214, 245, 275, 306, 336]  # 2024 has a 29th of February
    for name in ("s1", "s2"):
        assert batch[f"{name}_doy"].tolist() == [begins] * 9
    assert sorted(batch["yield"].tolist()) == [*range(9)]


def test_missing_months_are_there_and_masked(year: Flood) -> None:
    for sample in samples(year):
        seen = {name: {k + 1 for k, there in enumerate(sample[f"{name}_time_mask"]) if there} for name in ("s1", "s2")}
        assert seen["s1"] <= {1, 2, 3, 5, 6, 8, 9, 10, 11, 12}
        assert seen["s2"] <= {3, 5, 7, 9}
        assert len(seen["s1"]) >= 5  # every second pass sees a part alone
        for name in ("s1", "s2"):
            assert torch.equal(sample[f"{name}_valid"].flatten(1).any(1), sample[f"{name}_time_mask"])
            assert (sample[name].movedim(1, 0)[:, ~sample[f"{name}_valid"]] == 0).all()


def test_a_mosaic_is_the_mean_of_its_month(year: Flood) -> None:
    stack = next(iter(gp.items(year.radar).stack(["vv"], resolution=20))).load()
    power: Any = 10 * np.log10(stack["vv"].where(stack["valid"]))
    for sample in samples(year).take(3):
        left, _, _, top = sample["bounds"]
        at = 20 * (np.arange(8) + 0.5)
        here = power.reindex(y=top - at, x=left + at, method="nearest", tolerance=1)
        for month in (1, 5, 12):
            mean = here.sel(time=f"2024-{month:02}").mean("time", skipna=True).values
            known = sample["s1_valid"][month - 1].numpy()
            np.testing.assert_allclose(sample["s1"][month - 1, 0].numpy()[known], mean[known], rtol=1e-4)
            assert known.sum() == np.isfinite(mean).sum()


def test_shorter_series_are_padded(year: Flood) -> None:
    """Half a year of images for a model of twelve steps."""
    s2 = (
        gp.items(year.optical)
        .stack(["red", "nir"], resolution=10)
        .composite("month", "first", span=("2024-03", "2024-08"))
    )
    chips = s2.around(points(year), 16, coverage="any").read()
    batch = next(iter(chips.tensor(image=["red", "nir"], fill=0, length=MONTHS, doy=True).batch(4)))
    assert batch["image"].shape == (4, MONTHS, 2, 16, 16)
    assert not batch["time_mask"][:, 6:].any()
    assert (batch["doy"][:, 6:] == 0).all()
    assert batch["doy"][0, :6].tolist() == [61, 92, 122, 153, 183, 214]
    assert not batch["image_valid"][:, 6:].any()
