"""Choosing among windows: shares, probabilities, distances, mixtures, batches of one scene."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import partial
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from test_chips import plain

import geopipes as gp
from geopipes import chips
from geopipes.chips.choosing import away, sample, stratify
from geopipes.chips.groups import Groups
from geopipes.chips.mixing import by_scene, mix
from geopipes.chips.places import ground, plane
from geopipes.chips.windows import Windows
from geopipes.errors import ChipError
from geopipes.steps import Step
from geopipes.testing import Synthetic


def plan(count: int = 400, dates: int = 1, **columns: Any) -> Windows:
    """Make a plan of chips of 4 px in a square."""
    side = 4 * int((count / dates) ** 0.5)
    windows = chips.chip(plain(side, side, dates=dates), 4, time=1)
    assert len(windows) == count
    return windows.with_columns(columns)


def total(windows: Windows, value: npt.NDArray[Any]) -> float:
    """Estimate the sum of a value over all windows from those chosen."""
    return float((value[windows.ids] / windows.columns["probability"]).sum())


@given(st.integers(0, 99), st.floats(0, 300), st.floats(0, 1), st.integers(1, 400), st.booleans())
def test_probabilities_follow_the_weights(seed: int, orders: float, empty: float, n: int, again: bool) -> None:
    rng = np.random.default_rng(seed)
    weight = 10 ** (orders * rng.random(400)) * (rng.random(400) >= empty)
    if n > np.count_nonzero(weight) and (not again or not weight.any()):
        with pytest.raises(ChipError, match="weight"):
            sample(plan(), n, seed=seed, weights=weight, replace=again)
        return
    chosen = sample(plan(), n, seed=seed, weights=weight, replace=again)
    chance = chosen.columns["probability"]
    assert len(chosen) == n
    assert (np.diff(chosen.ids) >= (0 if again else 1)).all()
    assert (weight[chosen.ids] > 0).all()
    if again:
        np.testing.assert_allclose(chance, n * weight[chosen.ids] / weight.sum())
    else:
        assert (chance <= 1).all()
        free = chance < 1  # those that are not chosen for certain keep the proportions of their weights
        ratio = weight[chosen.ids][free] / chance[free]
        assert np.ptp(ratio) <= 1e-6 * ratio.max() if free.any() else n <= np.count_nonzero(weight)


@pytest.mark.parametrize("again", [False, True])
def test_weights_are_met_and_estimates_are_unbiased(again: bool) -> None:
    rng = np.random.default_rng(0)
    weight, value = rng.gamma(1, size=400), rng.random(400)
    whole = plan(weight=weight)
    times = np.zeros(400)
    estimates = []
    for seed in range(1500):
        chosen = sample(whole, 30, seed=seed, weights="weight", replace=again)
        np.add.at(times, chosen.ids, 1)
        estimates.append(total(chosen, value))
    # 5 standard errors, for each of 400 windows: passed by chance once in about 4,000 runs; the seeds are fixed.
    chance = 30 * weight / weight.sum()
    assert (np.abs(times / 1500 - chance) < 5 * np.sqrt(chance / 1500) + 1e-3).all()
    assert abs(np.mean(estimates) - value.sum()) < 5 * np.std(estimates) / 1500**0.5


def test_probabilities_of_choices_in_a_row_multiply() -> None:
    chosen = sample(sample(plan(), 100, seed=0), 25, seed=1, weights=np.arange(1, 101))
    rank = np.searchsorted(sample(plan(), 100, seed=0).ids, chosen.ids)
    np.testing.assert_allclose(chosen.columns["probability"], 0.25 * 25 * (rank + 1) / 5050)
    assert total(sample(plan(), 40, seed=3), np.ones(400)) == pytest.approx(400)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": [-1.0] + [1.0] * 399}, "0 are not finite, 1 negative"),
        ({"weights": [np.nan] + [1.0] * 399}, "1 are not finite, 0 negative"),
        ({"weights": np.zeros(400)}, "all are 0"),
        ({"weights": "cloud"}, r"no column 'cloud'; there are \['name'\]"),
        ({"weights": "name"}, "numbers are needed"),
        ({"weights": [1.0, 2.0]}, "give one for each"),
        ({"n": 401}, "give 1 to 400"),
        ({"n": 6, "weights": np.arange(400) < 5}, "windows with a weight above 0"),
        ({"n": 0}, "give 1 to 400"),
    ],
)
def test_what_cannot_be_sampled(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ChipError, match=text):
        sample(plan(name=["a"] * 400), **{"n": 5, "seed": 0, **options})


# Strata.


def classes() -> Windows:
    """Make a plan in which a tenth is water, and a number rises."""
    names = np.where(np.arange(400) % 10 == 0, "water", np.where(np.arange(400) % 2 == 0, "forest", "crop"))
    return plan(cover=names, share=np.linspace(0, 1, 400))


def test_shares_of_classes_are_met_and_reweighted() -> None:
    chosen = stratify(classes(), 60, by="cover", shares="equal", seed=0)
    names, counts = np.unique(chosen.columns["stratum"], return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"crop": 20, "forest": 20, "water": 20}
    assert total(chosen, np.ones(400)) == pytest.approx(400)
    assert total(chosen, classes().columns["cover"] == "water") == pytest.approx(40)
    assert (chosen.columns["stratum"] == chosen.columns["cover"]).all()
    some = stratify(classes(), 50, by="cover", shares={"water": 0.7, "crop": 0.3}, seed=0)
    assert [(some.columns["cover"] == name).sum() for name in ("water", "crop", "forest")] == [35, 15, 0]
    like = stratify(classes(), 40, by="cover", shares="proportional", seed=0)
    assert [(like.columns["cover"] == name).sum() for name in ("water", "crop", "forest")] == [4, 20, 16]


def test_strata_of_a_number() -> None:
    chosen = stratify(classes(), 90, by="share", edges=[0.1, 0.5], shares=[0.4, 0.3, 0.3], seed=0)
    assert [*np.bincount(chosen.columns["stratum"])] == [36, 27, 27]
    share = chosen.columns["share"]
    np.testing.assert_array_equal(chosen.columns["stratum"], (share >= 0.1).astype(int) + (share >= 0.5))
    assert (np.diff(chosen.ids) > 0).all()


@given(st.integers(1, 12), st.integers(0, 99))
def test_each_window_of_a_stratum_is_as_likely(n: int, seed: int) -> None:
    one, two = (stratify(classes(), n, by=np.arange(400) % 3, shares="equal", seed=seed) for _ in range(2))
    np.testing.assert_array_equal(one.ids, two.ids)
    assert np.ptp(np.bincount(one.ids % 3, minlength=3)) <= 1
    assert len({*one.ids}) == n


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n": 200, "shares": "equal"}, r"than there are \(water: 6[67] of 40\)"),
        ({"shares": {"sea": 1.0}}, r"name \['sea'\], there are \['crop', 'forest', 'water'\]"),
        ({"shares": {"water": 0.5}}, "summing to 1"),
        ({"shares": [1.5, -0.5, 0]}, "summing to 1"),
        ({"shares": [1.0]}, "for 3 strata"),
        ({"shares": "same"}, "'equal', 'proportional'"),
        ({"by": "covers", "shares": "equal"}, "no column 'covers'"),
        ({"by": np.where(np.arange(400) < 7, np.nan, 1.0), "shares": "equal"}, "7 of 400 windows have no value"),
        ({"by": "share", "edges": [2, 1], "shares": "equal"}, "must rise"),
        ({"n": 0, "shares": "equal"}, "at least 1"),
    ],
)
def test_what_cannot_be_stratified(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ChipError, match=text):
        stratify(classes(), **{"n": 9, "by": "cover", "seed": 0, **options})


def test_the_windows_of_a_stratum_are_as_likely_and_so_are_those_of_a_mixture() -> None:
    """Counts over 3,000 seeds, chi-square of 399 degrees: beyond 560 with a chance of 1e-6; the seeds are fixed.

    Draws without replacement vary less than independent ones: the statistic is divided by the share not drawn.
    """
    whole = plan(kind=np.arange(400) % 2)
    chosen, mixed = np.zeros(400), np.zeros(400)
    for seed in range(3000):
        np.add.at(chosen, stratify(whole, 50, by="kind", shares=[0.2, 0.8], seed=seed).ids, 1)
        parts = {"a": whole[:100], "b": whole[100:]}
        np.add.at(mixed, mix(parts, shares={"a": 0.5, "b": 0.5}, n=40, seed=seed).columns["source_id"], 1)
    for counts, chance in (
        (chosen, np.where(np.arange(400) % 2, 40 / 200, 10 / 200)),
        (mixed, np.where(np.arange(400) < 100, 20 / 100, 20 / 300)),
    ):
        mean = 3000 * chance
        assert ((counts - mean) ** 2 / (mean * (1 - chance))).sum() < 560


def test_a_chain_of_choices_keeps_its_estimates_unbiased() -> None:
    """Drawn, chosen by strata, mixed: the sum of value / probability stays that over all places."""
    cubes = plain(48, 60)
    row, col = np.mgrid[:33, :45]
    value = (row**2 + 3.0 * col) * (col > 9)
    estimates = []
    for seed in range(800):
        drawn = chips.draw(cubes, 16, n=80, seed=seed)
        strata = stratify(drawn, 40, by=np.digitize(drawn.col, [20]), shares="proportional", seed=seed)
        mixed = mix({"one": strata}, shares={"one": 1.0}, n=25, seed=seed)
        estimates.append((value[mixed.row, mixed.col] / mixed.columns["probability"]).sum())
    # 5 standard errors: passed by chance in less than one of a million runs; the seeds are fixed.
    error = np.std(estimates) / len(estimates) ** 0.5
    assert abs(np.mean(estimates) - value.sum()) < 5 * error < 0.05 * value.sum()


# Away from places.


def test_negatives_lie_between_two_distances_of_positives() -> None:
    windows = plan(2500)  # of 40 m
    places = shapely.points([300_805, 301_500], [4_998_990, 4_998_400])
    frame = geopandas.GeoDataFrame(geometry=places, crs="EPSG:32633")
    kept = away(windows, frame.to_crs(4326), 100, within=400)
    near = shapely.distance(ground(windows, plane(windows)), _on_plane(windows, frame))
    np.testing.assert_array_equal(kept.ids, np.flatnonzero((near >= 100) & (near < 400)))
    assert 0 < len(kept) < 2500
    with pytest.raises(ChipError, match="within more than distance"):
        away(windows, frame, 100, within=50)
    with pytest.raises(ChipError, match="none of the 2500 windows"):
        away(windows, frame, 1e5)


def _on_plane(windows: Windows, frame: geopandas.GeoDataFrame) -> Any:
    return frame.to_crs(plane(windows)).union_all()


def test_no_negative_overlaps_a_positive_in_another_zone(land: Synthetic) -> None:
    whole = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day")
    windows = whole.chip(16, overlap=8)._value.get()
    west, east = (windows.take(np.flatnonzero(windows.cube == zone)) for zone in (0, 1))
    flat = plane(windows)
    for distance in (0, 200):
        kept = away(west, east, distance)
        assert 0 < len(kept) < len(west)
        united = shapely.union_all(ground(east, flat))
        apart = shapely.distance(ground(kept, flat), united)
        assert apart.min() >= distance - 0.1  # of planes about different degrees
        assert (shapely.area(shapely.intersection(ground(kept, flat), united)) < 1).all()


# Mixtures and scenes.


def test_mixtures_have_the_shares_asked_for() -> None:
    dense, sparse = plan(400, cover=np.arange(400)), sample(plan(900), 300, seed=0)
    mixed = mix({"dense": dense, "sparse": sparse}, shares={"dense": 0.75, "sparse": 0.25}, n=200, seed=0)
    source = mixed.columns["source"]
    assert [(source == name).sum() for name in ("dense", "sparse")] == [150, 50]
    np.testing.assert_array_equal(mixed.ids, np.arange(200))
    assert len(mixed.cubes) == 2
    own = mixed.columns["source_id"][source == "dense"]
    np.testing.assert_array_equal(mixed.columns["cover"][source == "dense"], own)
    assert np.isnan(mixed.columns["cover"][source == "sparse"]).all()
    np.testing.assert_array_equal(mixed.row[source == "dense"], dense.row[own])
    np.testing.assert_allclose(mixed.columns["probability"][source == "sparse"], 300 / 900 * 50 / 300)
    first = chips.load(mixed, 0)
    np.testing.assert_array_equal(first["v"].values, chips.load(dense, int(own[0]))["v"].values)
    same = mix({"a": dense[:100], "b": dense[100:]}, shares={"a": 0.5, "b": 0.5}, seed=0)
    assert len(same.cubes) == 1
    assert len(same) == 200  # all of a, and as many of b


@pytest.mark.parametrize(
    ("other", "options", "text"),
    [
        (plan(400), {"shares": {"a": 1.0}}, "must name each plan"),
        (plan(400), {"shares": {"a": 0.5, "b": 0.4}}, r"shares=\[0.5, 0.4\] for 2 strata; give one"),
        (plan(400), {"n": 900}, r"than there are \(a: 450 of 400, b: 450 of 400\)"),
        (replace(plan(400), size=(8, 8)), {}, r"size of 'b' is \(8, 8\), of the first \(4, 4\)"),
        (plan(400).map(Step("f()", abs)), {}, "steps of 'b'"),
        (Groups.together({"one": plan(400)}), {}, "'b' is a plan of Groups; mix plans before"),
    ],
)
def test_what_cannot_be_mixed(other: Windows, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ChipError, match=text):
        mix({"a": plan(400), "b": other}, **{"shares": {"a": 0.5, "b": 0.5}, "seed": 0, **options})


def test_each_batch_is_of_one_scene_and_nothing_comes_twice() -> None:
    windows = plan(300, dates=3).take(np.arange(0, 290))
    ordered = by_scene(windows, 16, seed=0)
    batches = ordered.time.reshape(-1, 16)
    assert (batches == batches[:, :1]).all()
    assert [*np.bincount(batches[:, 0])] == [6, 6, 5]
    assert len({*ordered.ids}) == len(ordered) == 17 * 16
    assert ordered.left_out == 290 - 17 * 16
    assert (np.diff(batches[:, 0]) != 0).any()
    assert (by_scene(windows, 16, seed=1).ids != ordered.ids).any()
    np.testing.assert_array_equal(by_scene(windows, 16, seed=0).ids, ordered.ids)
    with pytest.raises(ChipError, match="3 scenes have at most 100 windows"):
        by_scene(windows, 101, seed=0)


def test_random_batches_of_one_scene(land: Synthetic) -> None:
    """Windows drawn anywhere, each batch from one scene: what TorchGeo calls a random batch sampler."""
    cubes = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day")
    drawn = cubes.draw(16, n=90, time=1, seed=0)
    seen = []
    for batch in drawn.by_scene(8, seed=0).read().tensor(image=["red"], fill=0, columns="probability").batch(8):
        assert len({*batch["crs"]}) == len({*batch["time"].ravel().tolist()}) == 1
        assert len({*map(tuple, batch["bounds"].tolist())}) > 6
        seen.append((batch["crs"][0], int(batch["time"][0, 0])))
    assert len(seen) == len(drawn.by_scene(8, seed=0)) // 8 >= 8
    assert len({*seen}) == 4  # of two dates in two zones


def test_choosing_among_a_million_takes_little_memory() -> None:
    count = 1_000_000
    rng = np.random.default_rng(0)
    places = np.arange(count)
    cube = plain(8, 8)
    columns: dict[str, npt.NDArray[Any]] = {
        "weight": rng.random(count),
        "kind": rng.integers(0, 9, count).astype(np.uint8),
    }
    windows = Windows.of(cube.cubes, (8, 8), row=places, col=places, time=places % 5, dates=1, columns=columns)
    weighted: Any = partial(sample, windows, 5000, weights="weight")
    strata: Any = partial(stratify, windows, 5000)
    choices: list[partial[Windows]] = [
        partial(sample, windows, 5000),
        weighted,
        partial(weighted, replace=True),
        partial(strata, by="kind", shares="equal"),
        partial(strata, by="weight", edges=[0.1, 0.5], shares=[0.2, 0.3, 0.5]),
        partial(by_scene, windows.take(np.arange(count // 10)), 32),
    ]
    for choose in choices:
        tracemalloc.start()
        choose(seed=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 30e6  # so ten million take 300 MB
