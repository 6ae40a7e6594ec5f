"""Groups of windows: rules of distance and time, what is read, and that the rest of the chain goes on working."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from test_chips import plain

import geopipes as gp
from geopipes import chips, datacubes, fingerprints
from geopipes.chips.grouping import Every, pairs, sequences
from geopipes.chips.groups import Sequences
from geopipes.chips.triples import triplets
from geopipes.chips.windows import Windows
from geopipes.datacubes import Cubes
from geopipes.errors import ChipError, StepError
from geopipes.pipe.lazy import Lazy
from geopipes.steps import Step
from geopipes.testing import Synthetic


def dated(days: list[str], side: int = 24) -> Cubes:
    """Make a cube of the pixels of `plain` at dates of one's own."""
    whole = plain(side, side, dates=len(days))[0]
    return datacubes.from_xarray(whole.assign_coords(time=np.array(days, "M8[ns]")), crs="EPSG:32633")


def a_year() -> Windows:
    """Make a plan of nine places, each on the first of every month of two years."""
    days = [f"{year}-{month:02d}-01" for year in (2023, 2024) for month in range(1, 13)]
    return chips.chip(dated(days), 8, time=1)


def as_plan(windows: Windows) -> gp.Plan[Any]:
    """Make a plan of windows."""
    return gp.Plan._new("windows()", None, Lazy[Any].known(windows), "plan")


# Pairs.


@given(st.integers(0, 99), st.sampled_from([1.0, 2.5, 3, 6]))
def test_pairs_are_of_one_place_and_another_season(seed: int, months: float) -> None:
    windows = a_year()
    groups = pairs(windows, seed=seed, months=months)
    anchor, other = groups.members.values()
    np.testing.assert_array_equal(anchor.row, other.row)
    np.testing.assert_array_equal(anchor.col, other.col)
    away = np.abs(anchor.time % 12 - other.time % 12)
    assert (np.minimum(away, 12 - away) >= months).all()
    np.testing.assert_array_equal(np.sort(anchor.ids), np.arange(len(windows)))  # each once
    np.testing.assert_array_equal(pairs(windows, seed=seed, months=months).columns["other_id"], other.ids)


def test_a_gap_between_dates_and_places_without_a_partner() -> None:
    windows = a_year()
    kept = windows.take(np.flatnonzero((windows.row > 0) | (windows.time == 0)))  # the first row of places: one date
    groups = pairs(kept, seed=0, gap=(20, 40))
    between = np.abs(groups.members["anchor"].time - groups.members["other"].time)
    assert {*between} == {1}
    assert groups.left_out == 3
    both = pairs(windows, seed=0, gap=(300, 800), months=5)
    assert {*np.abs(both.members["anchor"].time - both.members["other"].time)} <= {17, 18, 19}
    every = pairs(chips.chip(dated(["2024-01-01", "2024-07-01"]), 8), seed=0, months=6)  # chips of all dates
    assert len(every) == 18
    assert every.dates == 1
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "give months= or gap="),
        ({"months": 7}, "at most 6"),
        ({"gap": (9, 1)}, "least, most"),
        ({"gap": (10_000, 20_000)}, "9 places, each with at most 24 dates of 2023-01-01 to 2024-12-01"),
    ]
    for options, text in cases:
        with pytest.raises(ChipError, match=text):
            pairs(windows, seed=0, **options)


# Sequences.


def test_sliding_sequences_follow_the_dates_there_are() -> None:
    windows = a_year()
    cloudy = windows.take(np.flatnonzero(windows.time % 3 != 1))
    found = sequences(cloudy, 4, stride=2)
    clear = [time for time in range(24) if time % 3 != 1]
    wanted = [clear[begin : begin + 4] for begin in range(0, 13, 2)]
    assert [*map(list, found.when[:7])] == wanted
    assert len(found) == 9 * 7
    assert found.dates == 4
    np.testing.assert_array_equal(found.time, found.when[:, 0])
    assert len(sequences(chips.chip(dated(["2024-01-01"] * 5), 8), 2)) == 9 * 4  # of chips of all dates
    assert found.left_out == 0
    assert sequences(cloudy, 15, stride=9).left_out == 9


def test_random_sequences_use_each_date_once() -> None:
    found = sequences(a_year(), 5, kind="random", seed=0)
    assert len(found) == 9 * 4
    assert (np.diff(found.when, axis=1) > 0).all()
    for place in np.split(found.when, 9):
        assert len(np.unique(place)) == 20
    np.testing.assert_array_equal(found.when, sequences(a_year(), 5, kind="random", seed=0).when)
    assert (found.when != sequences(a_year(), 5, kind="random", seed=1).when).any()
    assert (np.diff(found.when, axis=1) > 1).any()


@pytest.mark.parametrize(
    ("every", "length", "periods"),
    [
        ("day", 2, [[(3,), (4,)], [(6,), (7,)]]),
        ("week", 2, [[(2, 3), (4,)]]),  # Monday 1 January to Sunday 7 January 2024
        ("month", 3, [[(0,), (1,), (2, 3, 4)]]),  # and none of February and March
        ("quarter", 3, [[(0, 1), (2, 3, 4), (5, 6, 7)]]),
        ("year", 2, [[(0, 1), (2, 3, 4, 5, 6, 7)]]),
    ],
)
def test_one_date_of_each_period(every: Every, length: int, periods: list[list[tuple[int, ...]]]) -> None:
    days = ["2023-11-05", "2023-12-03", "2024-01-01", "2024-01-07", "2024-01-08"]
    windows = chips.chip(dated([*days, "2024-04-07", "2024-05-08", "2024-05-09"]), 24, time=1)
    seen = set()
    for seed in range(300):  # one of 18 is never met in 300 with a chance of 6e-7
        found = sequences(windows, length, kind="period", every=every, seed=seed)
        assert len(found) == len(periods)
        seen |= {*map(tuple, found.when.tolist())}
    assert seen == {some for dates in periods for some in product(*dates)}


def test_sequences_that_cannot_be() -> None:
    windows = a_year()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"length": 25}, "at most 24, of 2023-01-01 to 2024-12-01"),
        ({"length": 2, "kind": "random"}, "'random' needs seed="),
        ({"length": 2, "kind": "period", "seed": 0}, "every="),
        ({"length": 2, "every": "month"}, "every="),
        ({"length": 0}, "at least 1"),
        ({"length": 2, "kind": "next"}, "'sliding', 'random' or 'period'"),
    ]
    for options, text in cases:
        with pytest.raises(ChipError, match=text):
            sequences(windows, **options)
    with pytest.raises(ChipError, match="of 2 dates; cut"):
        sequences(chips.chip(dated(["2024-01-01"] * 4), 8, time=2), 2)
    with pytest.raises(StepError, match=r"composite\(\) would see all dates"):
        sequences(windows.map(Step("composite()", abs)), 2)


# Reading, and the rest of the chain.


def doubled(chip: xr.Dataset) -> xr.Dataset:
    return chip.assign(v=2 * chip["v"])


def only_anchor(chip: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    return {"anchor": chip["anchor"]}


def test_a_group_is_the_chips_of_its_members() -> None:
    windows = chips.chip(plain(80, 80, dates=2), 16, time=1, margin=2).map(Step("doubled", doubled))
    groups = triplets(windows, near=200, far=300, seed=0)
    group = chips.load(groups, 3)
    for name, member in groups.members.items():
        own = chips.load(member, 3)
        np.testing.assert_array_equal(group[name]["v"].values, own["v"].values)
        assert int(group[name]["chip"]) == 3  # the group's own
        assert int(own["chip"]) == groups.columns[f"{name}_id"][3]
    for name, part in chips.look(groups, 3).items():
        xr.testing.assert_identical(part.load(), group[name])
    taken = groups.take([7, 3])
    xr.testing.assert_identical(chips.load(taken, 1)["distant"], group["distant"])
    assert [*chips.load(groups.map(Step("only_anchor", only_anchor)), 0)] == ["anchor"]
    with pytest.raises(IndexError):
        groups.window(len(groups))


def test_a_sequence_is_one_dataset_of_its_dates() -> None:
    cubes = dated([f"2024-01-{day:02d}" for day in range(1, 10)])
    found = sequences(chips.chip(cubes, 8, time=1, margin=1).map(Step("d", doubled, local_in_time=True)), 4,
                      kind="random", seed=0)  # fmt: skip
    for i in (0, 5, 17):
        chip = chips.load(found, i)
        np.testing.assert_array_equal(chip["time"].values, cubes[0]["time"].values[found.when[i]])
        inside = chip.isel(y=slice(1, -1), x=slice(1, -1))
        row, col = int(found.row[i]), int(found.col[i])
        whole = cubes[0]["v"].values[found.when[i], row : row + 8, col : col + 8]
        np.testing.assert_array_equal(inside["v"].values, 2 * whole)
        assert inside["valid"].values.all()
        xr.testing.assert_identical(chips.look(found, i).load(), chip)


def test_groups_go_through_the_whole_chain(land: Synthetic) -> None:
    cubes = gp.items(land.items).stack(["red", "nir"], resolution=10, crs="utm", groupby="solar_day")
    windows = cubes.chip(16, time=1, margin=2)._value.get()
    groups = pairs(windows, seed=0, gap=(1, 99))
    plan = as_plan(groups)
    shuffled = plan.shuffle(seed=0)
    ids = [int(chip["anchor"]["chip"]) for chip in shuffled[:4].read(threads=2)]
    assert ids == [*shuffled._value.get().ids[:4]]
    tensors = shuffled[:4].read(threads=2).tensor(anchor=["red", "nir"], other=["red", "nir"], fill=0)
    (batch,) = tensors.batch(4)
    assert batch["anchor"].shape == batch["other"].shape == (4, 1, 2, 16, 16)
    for i, position in enumerate(ids):
        for name, member in groups.members.items():
            alone = chips.load(member, position)["nir"].values[0, 2:-2, 2:-2]
            np.testing.assert_array_equal(batch[name][i, 0, 1].numpy(), alone)
    again = pickle.loads(pickle.dumps(groups))
    xr.testing.assert_identical(chips.load(again, 1)["other"], chips.load(groups, 1)["other"])
    series = as_plan(sequences(windows, 2))
    (sample,) = series[:1].read(threads=1).tensor(image=["red", "nir"], fill=0)
    assert sample["image"].shape == (2, 2, 16, 16)
    assert isinstance(sample["time"], torch.Tensor)
    assert len(sample["time"]) == 2


def test_partners_and_steps_before_them_are_told(land: Synthetic) -> None:
    cubes = gp.items(land.items).stack(["red", "nir"], resolution=10, crs="utm", groupby="solar_day")
    windows = cubes.chip(16, time=1)._value.get()
    one, same, other = (triplets(windows, near=200, far=300, seed=0) for _ in range(3))
    other = replace(other, members={**other.members, "distant": other.members["distant"].take(range(len(other))[::-1])})
    assert fingerprints.fingerprint(one) == fingerprints.fingerprint(same) != fingerprints.fingerprint(other)
    changed = fingerprints.differences(*map(fingerprints.describe, (one, other)))
    assert [line.split()[:3] for line in changed] == [["members", "distant", "chips"]]
    scaled = triplets(windows.map(Step("doubled()", doubled)), near=200, far=300, seed=0)
    assert fingerprints.fingerprint(scaled, chips=False) != fingerprints.fingerprint(one, chips=False)
    assert len(fingerprints.chain(scaled)["steps"]) == 1
    assert fingerprints.chain(one)["steps"] == []


def test_several_inputs_are_named_by_both() -> None:
    both = datacubes.inputs({"a": dated(["2024-01-01", "2024-07-01"]), "b": plain(24, 24)})
    windows = chips.chip(both, 8, time=1)
    assert [*chips.load(pairs(windows, seed=0, months=6), 0)] == ["anchor_a", "anchor_b", "other_a", "other_b"]
    found = chips.load(sequences(windows, 2), 0)
    assert {name: part.sizes["time"] for name, part in found.items()} == {"a": 2, "b": 1}


def test_groups_and_sequences_stay_what_they_are_when_some_are_taken() -> None:
    found = sequences(a_year(), 3)
    some = found[5:9]
    assert isinstance(some, Sequences)
    np.testing.assert_array_equal(some.when, found.when[5:9])
    doubles = pairs(found.with_columns({"x": np.arange(len(found))}), seed=0, gap=(200, 400))
    assert chips.load(doubles[:1], 0)["other"].sizes["time"] == 3
