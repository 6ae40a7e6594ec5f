"""Orders: permutations and splits that share no ground."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
import xarray as xr

import geopipes as gp
from geopipes import chips, orders
from geopipes.errors import ChipError
from geopipes.testing import Synthetic


@pytest.fixture(scope="module")
def plan(land: Synthetic) -> gp.Plan[xr.Dataset]:
    return gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day").chip(16, overlap=4)


def windows(plan: gp.Plan[Any]) -> chips.Windows:
    value: chips.Windows = plan._value.get()
    return value


def test_shuffle_is_a_permutation_that_the_seed_decides(plan: gp.Plan[xr.Dataset]) -> None:
    once, again, other = (windows(plan.shuffle(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(once.ids, again.ids)
    assert sorted(once.ids) == list(range(len(plan)))
    assert (once.ids != other.ids).any()
    assert (once.ids != np.arange(len(plan))).any()


@pytest.mark.parametrize("buffer", [0, 150])
def test_splits_share_no_ground_over_zones_and_overlaps(plan: gp.Plan[xr.Dataset], buffer: float) -> None:
    parts = [windows(part) for part in plan.split((0.6, 0.2, 0.2), block=400, buffer=buffer, seed=1)]
    places = [shapely.union_all(orders.ground(part)) for part in parts]
    assert len({int(i) for part in parts for i in part.ids}) == sum(map(len, parts)) <= len(plan)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert shapely.intersection(places[i], places[j]).area < 1
        assert shapely.distance(places[i], places[j]) >= buffer - 0.1
    zones = {int(k) for part in parts for k in part.cube}
    assert zones == {0, 1}


def test_the_last_split_keeps_its_share_and_the_seed_decides(plan: gp.Plan[xr.Dataset]) -> None:
    train, test = plan.split((0.7, 0.3), block=300, seed=0)
    assert abs(len(test) / len(plan) - 0.3) < 0.1
    np.testing.assert_array_equal(windows(test).ids, windows(plan.split((0.7, 0.3), block=300, seed=0)[1]).ids)
    assert len(train) > 0


def test_distances_are_metres(plan: gp.Plan[xr.Dataset]) -> None:
    areas = shapely.area(orders.ground(windows(plan)))
    np.testing.assert_allclose(areas, 160.0**2, rtol=2e-3)  # the UTM scale factor, squared


@pytest.mark.parametrize(
    ("fractions", "options", "text"),
    [
        ((0.8, 0.3), {"block": 100}, "sum to 1"),
        ((1.0,), {"block": 100}, "two or more"),
        ((0.5, 0.5), {"block": 0}, "block above 0"),
        ((0.2,) * 5, {"block": 1e6}, "2 blocks give splits of"),
        ((0.5, 0.5), {"block": 300, "buffer": 1e5}, "smaller buffer"),
    ],
)
def test_splits_that_cannot_be(plan: gp.Plan[xr.Dataset], fractions: Any, options: Any, text: str) -> None:
    with pytest.raises(ChipError, match=text):
        len(plan.split(fractions, seed=0, **options)[0])
