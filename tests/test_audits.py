"""The audit finds each way of leaking, and none where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

import geopipes as gp
from geopipes import chips, datacubes
from geopipes.chips import places, tables
from geopipes.errors import ChipError
from geopipes.orders import audits, folds, splitting
from geopipes.testing import Synthetic


@pytest.fixture(scope="module")
def stack(land: Synthetic) -> datacubes.Cubes:
    value: datacubes.Cubes = (
        gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day")._value.get()
    )
    return value


@pytest.fixture(scope="module")
def windows(stack: datacubes.Cubes) -> chips.Windows:
    return chips.chip(stack, 16, overlap=4, time=1)


def found(*plans: chips.Windows, **options: Any) -> dict[str, Any]:
    rows = audits.audit(*plans, **options).to_dict("records")
    assert len(rows) == 1
    return {str(key): value for key, value in rows[0].items()}


def test_overlapping_chips_are_a_leak(windows: chips.Windows) -> None:
    at_random = np.random.default_rng(0).random(len(windows)) < 0.8
    train, test = windows.take(np.flatnonzero(at_random)), windows.take(np.flatnonzero(~at_random))
    row = found(train, test)
    plane = places.plane(train)
    united = [shapely.union_all(places.ground(part, plane)) for part in (train, test)]
    assert row["overlap"] == pytest.approx(shapely.intersection(united[0], united[1]).area, rel=1e-6)
    assert (row["leak"], row["distance"], row["dates"], row["scenes"]) == (True, 0, 2, 4)
    with pytest.raises(ChipError, match=r"0 and 1: [\d,]+ m2 of ground in both, 0 m apart, 4 scenes and 2 dates"):
        audits.audit(train, test, insist=True)


def test_one_place_at_two_dates_is_a_leak(windows: chips.Windows) -> None:
    parts = folds.split_by_time(windows, "2024-06-01")
    row = found(*parts)
    assert row["leak"]
    assert (row["scenes"], row["dates"]) == (0, 0)
    assert row["overlap"] == pytest.approx(shapely.union_all(places.ground(parts[0])).area, rel=0.05)
    with pytest.raises(ChipError, match="apart='time'"):
        audits.audit(*parts, insist=True)
    meant = found(*parts, apart="time", insist=True)
    assert not meant["leak"]
    assert meant["overlap"] == row["overlap"]


def test_two_zones_over_one_place_are_a_leak(stack: datacubes.Cubes) -> None:
    zones = [chips.chip(datacubes.Cubes([cube]), 16, time=1) for cube in stack.cubes]
    row = found(*zones)
    assert row["leak"]
    assert row["scenes"] == 0
    assert row["overlap"] > 1e5  # m2: the scenes overlap by two fifths


@pytest.mark.parametrize("buffer", [0, 200])
def test_ours_are_clean(stack: datacubes.Cubes, windows: chips.Windows, buffer: float) -> None:
    alone = [chips.chip(datacubes.Cubes([cube]), 16, overlap=8, time=1) for cube in stack.cubes]
    cube = np.repeat([0, 1], [len(part) for part in alone])
    time, row, col = (np.concatenate([getattr(part, name) for part in alone]) for name in ("time", "row", "col"))
    both = chips.Windows.of(stack.cubes, (16, 16), row=row, col=col, cube=cube, time=time, dates=1)
    for plan in (windows, both):
        rows = audits.audit(*splitting.split(plan, (0.6, 0.2, 0.2), block=400, buffer=buffer, seed=1), insist=True)
        assert rows[["first", "second"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 2]]
        assert (rows["distance"] >= buffer - 0.1).all()
        assert not rows["leak"].any()
        for pair in folds.kfold(plan, 3, block=500, buffer=buffer, seed=0):
            assert found(*pair, insist=True)["first"] == "train"


def leaks(*plans: gp.Plan[Any], **options: Any) -> bool:
    return bool(gp.audit(*plans, **options)["leak"].any())


def halves(plan: gp.Plan[Any]) -> tuple[gp.Plan[Any], gp.Plan[Any]]:
    """Deal chips by chance, as one should not."""
    at_random = np.random.default_rng(0).random(len(plan)) < 0.5
    return plan.query(at_random), plan.query(~at_random)


def test_groups_and_sequences_leak_by_any_member(land: Synthetic) -> None:
    cubes = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day")
    dated = cubes.chip(16, time=1)
    one_zone = cubes.chip(16).query("cube == 0")
    assert not leaks(*halves(one_zone))  # neighbours that touch share no pixel
    assert leaks(*halves(dated))  # the same place at two dates
    assert leaks(*halves(cubes.chip(16, overlap=8)))
    random: gp.Plan[Any] = dated.sequences(1, kind="random", seed=0)
    pairs: gp.Plan[Any] = dated.pairs(gap=(1, 99), seed=0)
    for plan in (random, pairs, dated.triplets(near=200, far=600, seed=0)):
        assert leaks(*halves(plan))
    # Ours: what keeps to one place is split itself; triplets are made of each part of a split.
    for plan in (random, pairs, dated.sequences(2)):
        parts = plan.split((0.6, 0.4), block=600, buffer=50, seed=0)
        assert gp.audit(*parts, insist=True)["distance"].iloc[0] >= 49.9
        for pair in plan.kfold(3, block=600, seed=1):
            assert not leaks(*pair)
    apart = [part.triplets(near=200, far=600, seed=0) for part in dated.split((0.6, 0.4), block=600, buffer=50, seed=0)]
    assert gp.audit(*apart, insist=True)["distance"].iloc[0] >= 49.9
    early, late = dated.split_by_time("2024-06-01")
    assert leaks(early, late)
    assert not leaks(early, late, apart="time", insist=True)
    assert leaks(*halves(dated), apart="time")


@given(st.integers(0, 30), st.integers(0, 60), st.integers(1, 5))
def test_distances_are_those_between_footprints(stack: datacubes.Cubes, gap: int, row: int, n: int) -> None:
    def at(rows: Any, cols: Any) -> chips.Windows:
        return chips.Windows.of(stack.cubes, (16, 16), row=np.atleast_1d(rows), col=np.atleast_1d(cols))

    one = at(row + np.arange(n), np.arange(n))
    other = at([row + 10, 170], [15 + n + gap, 170])
    distance = found(one, other)["distance"]
    assert distance == pytest.approx(10 * gap, rel=1e-3, abs=1e-2)  # UTM's scale at the zone's edge is 1.0004


def test_far_apart_plans_have_their_distance(land: Synthetic, stack: datacubes.Cubes) -> None:
    windows = chips.chip(stack, 16)
    first, last = windows[:1], windows[len(windows) - 1 :]
    ends = [tables.outlines(part)[0] for part in (first, last)]
    gap = shapely.distance(*(places.ground(part, places.plane(windows))[0] for part in (first, last)))
    assert found(first, last)["distance"] == pytest.approx(gap, rel=1e-3)
    assert not ends[0].intersects(ends[1])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda w: audits.audit(w), "needed are two or more"),
        (lambda w: audits.audit(w, w[:0]), "none empty"),
        (lambda w: found(w, w, apart="scenes"), "'ground' or 'time'"),
        (lambda w: audits.audit(w, w, apart="time", insist=True), "write split_by_time"),
    ],
)
def test_audits_that_cannot_be(windows: chips.Windows, call: Any, text: str) -> None:
    with pytest.raises(ChipError, match=text):
        call(windows)
