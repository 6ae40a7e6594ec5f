"""Triplets: near and far, and random partners."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from test_chips import plain

import geopipes as gp
from geopipes import chips, orders
from geopipes.chips.groups import Groups
from geopipes.chips.partners import partners
from geopipes.chips.places import ground, plane
from geopipes.chips.triples import triplets
from geopipes.chips.windows import Windows
from geopipes.errors import ChipError
from geopipes.testing import Synthetic


def apart(one: Windows, other: Windows) -> npt.NDArray[np.float64]:
    """Give the distance of centres on one cube [m]."""
    metres: npt.NDArray[np.float64] = 10.0 * np.hypot(one.row - other.row, one.col - other.col)
    return metres


# Partners.


@given(st.integers(0, 999), st.integers(1, 30), st.integers(1, 40))
def test_a_partner_fits_and_is_found_where_there_is_one(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.random((n, m)) < 0.03
    cuts = np.sort(rng.integers(0, m + 1, (n, 4)), axis=1)
    low, high = cuts[:, ::2], cuts[:, 1::2]
    chosen = partners(low, high, lambda i, number: table[i, number], rng)
    for i in range(n):
        fitting = [k for a, b in zip(low[i], high[i], strict=True) for k in range(a, b) if table[i, k]]
        assert chosen[i] in fitting if fitting else chosen[i] == -1


def test_partners_are_as_likely() -> None:
    low, high = np.tile([[0, 50]], (20_000, 1)), np.tile([[10, 90]], (20_000, 1))
    few = np.array([3, 8, 50, 89])  # often found by looking at all only
    rng = np.random.default_rng(0)
    chosen = partners(low, high, lambda i, number: np.isin(number, few), rng)
    counts = np.array([(chosen == number).sum() for number in few])
    # Chi-square with 3 degrees of freedom: above 30.7 once in a million.
    assert ((counts - 5000) ** 2 / 5000).sum() < 30.7


# Triplets.


@pytest.mark.parametrize("n", [None, 150])
def test_neighbours_are_near_and_distants_far(n: int | None) -> None:
    windows = chips.chip(plain(240, 240, dates=2), 16, overlap=8, time=1)
    groups = triplets(windows, near=200, far=900, seed=0, n=n)
    anchor, neighbour, distant = groups.members.values()
    assert [*groups.members] == ["anchor", "neighbour", "distant"]
    assert len(groups) == (n or len(windows))
    assert len({*anchor.ids}) == len(groups)
    # To a decimetre, and by how much the plane differs from UTM, 0.1%.
    assert (apart(anchor, neighbour) <= 200.4).all()
    assert (apart(anchor, neighbour) > 0).all()
    assert (apart(anchor, distant) >= 899).all()
    np.testing.assert_array_equal(anchor.time, neighbour.time)
    assert {*distant.time} == {0, 1}
    again = triplets(windows, near=200, far=900, seed=0, n=n)
    for name, member in groups.members.items():
        np.testing.assert_array_equal(member.ids, again.members[name].ids)
        np.testing.assert_array_equal(groups.columns[f"{name}_id"], member.ids)
    assert (triplets(windows, near=200, far=900, seed=1, n=n).columns["distant_id"] != distant.ids).any()


def test_triplets_over_two_zones(land: Synthetic) -> None:
    plan = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day").chip(16, time=1)
    groups = triplets(plan._value.get(), near=300, far=1500, seed=0)
    assert {*groups.cube} == {0, 1}
    flat = {name: shapely.centroid(ground(member)) for name, member in groups.members.items()}
    assert (shapely.distance(flat["anchor"], flat["neighbour"]) <= 302).all()
    assert (shapely.distance(flat["anchor"], flat["distant"]) >= 1498).all()
    assert (groups.members["anchor"].cube != groups.members["distant"].cube).any()


def test_triplets_that_cannot_be() -> None:
    windows = chips.chip(plain(64, 64), 8, time=1)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"near": 900, "far": 100}, "0 < near < far"),
        ({"near": 100, "far": 5000}, "0 of 64 windows have both"),
        ({"near": 10, "far": 100}, "0 of 64 windows have both"),
        ({"near": 100, "far": 200, "n": 65}, "n=65 anchors that differ, of 64 windows"),
        ({"near": 100, "far": 800, "n": 60}, r"1?\d+ of 64 windows have both .* 60 needed"),
    ]
    for options, text in cases:
        with pytest.raises(ChipError, match=text):
            triplets(windows, seed=0, **options)


def test_a_split_keeps_every_member_out_of_the_others() -> None:
    groups = triplets(chips.chip(plain(400, 40), 8, time=1), near=90, far=100, seed=0)
    close = groups.take(np.flatnonzero(apart(groups.members["anchor"], groups.members["distant"]) < 400))
    train, test = orders.split(close, (0.5, 0.5), block=1000, seed=0)
    assert isinstance(train, Groups)
    own, others = (shapely.union_all(ground(part, plane(groups))) for part in (train, test))
    assert shapely.intersection(own, others).area < 1
