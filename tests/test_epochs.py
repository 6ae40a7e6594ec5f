"""Epochs and shards: arithmetic on the one order of a plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import geopipes as gp
from geopipes import chips, orders
from geopipes.errors import ChipError
from geopipes.testing import Synthetic


@pytest.fixture(scope="module")
def plan(land: Synthetic) -> gp.Plan[xr.Dataset]:
    return gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day").chip(32, time=1)


def windows(plan: gp.Plan[Any]) -> chips.Windows:
    value: chips.Windows = plan._value.get()
    return value


@given(st.integers(0, 9), st.integers(0, 9), st.booleans(), st.integers(0, 3))
def test_an_epoch_is_a_function_of_chips_seed_and_number(first: int, second: int, exact: bool, seed: int) -> None:
    plan = PLANS["plan"]
    shuffled = orders.shuffle(plan, seed, exact=exact)
    there = orders.epoch(shuffled, first)
    np.testing.assert_array_equal(there.ids, orders.shuffle(plan, seed, exact=exact, epoch=first).ids)
    np.testing.assert_array_equal(orders.epoch(orders.epoch(there, second), first).ids, there.ids)
    assert sorted(there.ids) == sorted(plan.ids)
    assert (first == second) == (there.ids.tolist() == orders.epoch(shuffled, second).ids.tolist())
    chosen = shuffled[5:25]  # of chips chosen afterwards: those, whatever order they stood in
    assert sorted(orders.epoch(chosen, first).ids) == sorted(chosen.ids)
    np.testing.assert_array_equal(
        orders.epoch(chosen, first).ids, orders.epoch(chosen.take(np.arange(20)[::-1]), first).ids
    )


PLANS: dict[str, chips.Windows] = {}


@pytest.fixture(scope="module", autouse=True)
def _made(plan: gp.Plan[xr.Dataset]) -> None:
    PLANS["plan"] = windows(plan)  # hypothesis takes no fixtures of this scope


def test_a_plan_without_a_random_order_has_one_for_all_epochs(plan: gp.Plan[xr.Dataset]) -> None:
    np.testing.assert_array_equal(windows(plan.epoch(3)).ids, windows(plan).ids)
    assert windows(plan.epoch(3)).order.epoch == 3


def test_batches_of_one_scene_have_epochs_too(plan: gp.Plan[xr.Dataset]) -> None:
    first = windows(plan.by_scene(8, seed=1))
    second = orders.epoch(first, 1)
    assert sorted(second.ids) == sorted(first.ids)
    assert second.ids.tolist() != first.ids.tolist()
    for batch in np.split(np.arange(len(second)), len(second) // 8):
        assert len({*zip(second.cube[batch].tolist(), second.time[batch].tolist(), strict=True)}) == 1


@given(st.integers(1, 7), st.sampled_from(["drop", "pad"]))
def test_shards_are_the_order_dealt_in_turn(ranks: int, tail: Any) -> None:
    plan = orders.shuffle(PLANS["plan"], 0)
    shards = [orders.shard(plan, rank, ranks, tail=tail) for rank in range(ranks)]
    assert len({len(shard) for shard in shards}) == 1
    dealt = np.stack([shard.ids for shard in shards], axis=1).ravel()
    whole = len(plan) // ranks * ranks if tail == "drop" else len(dealt)
    np.testing.assert_array_equal(dealt, plan.ids[np.arange(whole) % len(plan)])
    assert 0 <= abs(len(dealt) - len(plan)) < ranks


def test_shards_of_other_epochs(plan: gp.Plan[xr.Dataset]) -> None:
    shuffled = plan.shuffle(0)
    shard = shuffled.epoch(2).shard(1, 3)
    np.testing.assert_array_equal(windows(shard).ids, windows(shuffled.epoch(2)).ids[1::3])
    assert windows(shard.epoch(2)).ids.tolist() == windows(shard).ids.tolist()
    with pytest.raises(ChipError, match=r"write .epoch\(1\).shard\(1, 3\), or leave shard out and write loader\("):
        len(shard.epoch(1))
    assert str(shard).splitlines()[-2:][0].split("  #")[0].strip() == ".epoch(2)"


def test_bad_input(plan: gp.Plan[xr.Dataset]) -> None:
    with pytest.raises(ChipError, match=r"epoch\(-1\): epochs are counted from 0"):
        len(plan.epoch(-1))
    with pytest.raises(ChipError, match=r"shard\(3, 3\): ranks are counted from 0, 3 of them"):
        len(plan.shard(3, 3))
    with pytest.raises(ChipError, match="write 'drop' or 'pad'"):
        len(plan.shard(0, 3, tail="keep"))  # type: ignore[arg-type]
    over = len(plan) % 7
    with pytest.raises(ChipError, match=rf"leave {over}; write tail='drop', .* last {over} out, or tail='pad'"):
        len(plan.shard(0, 7))
    with pytest.raises(ChipError, match="2 chips, fewer than ranks; write tail='pad'"):
        len(plan.take(2).shard(0, 3, tail="drop"))
