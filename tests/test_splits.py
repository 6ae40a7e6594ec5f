"""Splits: no place in two of them, whatever deals the chips; room between them; every chip in one fold."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import geopipes as gp
from geopipes import chips, datacubes
from geopipes.chips import places, tables
from geopipes.chips.groups import Groups
from geopipes.errors import ChipError
from geopipes.orders import folds, grounds, splitting
from geopipes.testing import Synthetic


@pytest.fixture(scope="module")
def windows(land: Synthetic) -> chips.Windows:
    """Give overlapping chips of one date each: two dates, two zones over one place."""
    stack = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day")
    parts = [stack.chip(16, overlap=4, time=1)._value.get()]
    cubes = parts[0].cubes
    # Both zones see the middle: cut alone, no zone leaves it to the other.
    alone = [chips.chip(datacubes.Cubes([cube]), 16, overlap=4, time=1) for cube in cubes]
    cube = np.repeat([0, 1], [len(part) for part in alone])
    time, row, col = (np.concatenate([getattr(part, name) for part in alone]) for name in ("time", "row", "col"))
    return chips.Windows.of(cubes, (16, 16), row=row, col=col, cube=cube, time=time, dates=1)


def polygons(windows: chips.Windows, *, south: str = "train", north: str = "test") -> gpd.GeoDataFrame:
    """Cut the plan's ground in two, in longitude and latitude."""
    west, low, east, high = tables.table(windows).total_bounds
    middle = (low + high) / 2
    shapes = [shapely.box(west, low, east, middle), shapely.box(west, middle, east, high)]
    return gpd.GeoDataFrame({"set": [south, north]}, geometry=shapes, crs=4326)


def check_apart(plan: chips.Windows, parts: list[chips.Windows], buffer: float) -> None:
    """Compare with shapely on all footprints at once."""
    plane = places.plane(plan)
    united = [shapely.union_all(places.ground(part, plane)) for part in parts]
    for one, other in combinations(united, 2):
        assert shapely.intersection(one, other).area < 1  # m2: chips of two zones that touch, rounded
        assert shapely.distance(one, other) >= buffer - 0.1
    every = np.concatenate([part.ids for part in parts])
    assert len(np.unique(every)) == len(every) <= len(plan)


@pytest.mark.parametrize("buffer", [0, 130])
@pytest.mark.parametrize("way", ["blocks", "polygon", "column", "folds", "zones"])
def test_no_place_is_in_two_splits(windows: chips.Windows, way: str, buffer: float) -> None:
    if way == "blocks":
        sets = [list(splitting.split(windows, (0.6, 0.2, 0.2), block=400, buffer=buffer, seed=1))]
    elif way == "polygon":
        sets = [[*folds.split_by_polygon(windows, polygons(windows), column="set", buffer=buffer).values()]]
    elif way == "column":
        east = tables.table(windows).geometry.bounds["minx"] > -96
        valued = tables.assign(windows, half=np.where(east, "east", "west"))
        sets = [[*folds.split_by_column(valued, "half", buffer=buffer).values()]]
    elif way == "zones":
        sets = [[*folds.split_by_column(windows, "grid_crs", buffer=buffer).values()]]
    else:
        sets = [list(pair) for pair in folds.kfold(windows, 3, block=500, buffer=buffer, seed=0)]
    for parts in sets:
        check_apart(windows, parts, buffer)
        assert all(len({*part.columns["split"].tolist()}) == 1 for part in parts)
        if way not in ("zones", "folds"):
            assert {int(k) for part in parts for k in part.cube} == {0, 1}


def test_chips_are_left_out_only_where_they_are_near(windows: chips.Windows) -> None:
    train, test = splitting.split(windows, (0.5, 0.5), block=400, buffer=130, seed=3)
    lost = np.setdiff1d(windows.ids, np.concatenate([train.ids, test.ids]))
    plane = places.plane(windows)
    others = shapely.union_all(places.ground(test, plane))
    assert len(lost) > 0
    assert (shapely.distance(places.ground(windows.take(lost), plane), others) < 130.1).all()


@given(st.integers(0, 50), st.floats(0, 400), st.integers(1, 900))
def test_near_is_what_shapely_says(seed: int, distance: float, reach: int) -> None:
    """Chips anywhere, sparse and dense, on one cube."""
    rng = np.random.default_rng(seed)
    values = xr.Dataset(
        {"v": (("y", "x"), np.zeros((1000, 1000), np.uint8))},
        {"y": 5e6 - 10 * np.arange(1000), "x": 6e5 + 10 * np.arange(1000)},
    )
    plan = chips.chip(datacubes.from_xarray(values, crs="EPSG:32632"), 20)
    n = 600
    row, col = rng.integers(0, reach, (2, n))
    plan = chips.Windows.of(plan.cubes, (20, 20), row=row, col=col)
    ground = grounds.Ground.of(plan)
    one = rng.random(n) < 0.5
    found = grounds.near(ground.only(one), ground.only(~one), distance)
    rectangles = places.ground(plan)
    gaps = shapely.distance(rectangles[:, None], rectangles[None, ~one]).min(axis=1)
    assert found[one & (gaps < distance - 0.01)].all()
    assert not found[one & (gaps > distance * 1.001 + 0.01)].any()
    assert not found[~one].any()


def test_blocks_are_dealt_as_asked() -> None:
    counts = np.random.default_rng(0).integers(1, 30, 20_000)
    shares = np.array([0.7, 0.2, 0.1])
    owner = splitting.deal(counts, shares, 5)
    held = np.bincount(owner, weights=counts) / counts.sum()
    np.testing.assert_allclose(held, shares, atol=30 / counts.sum())  # as nearly as whole blocks allow
    np.testing.assert_array_equal(owner, splitting.deal(counts, shares, 5))
    assert (owner != splitting.deal(counts, shares, 6)).any()
    # Chance alone decides: the first half of the blocks holds as many of the last split as the second. The variance is
    # that of draws without replacement; |z| > 5.2 has a chance of 2e-7, and the seed is fixed.
    blocks = owner == 2
    half, n = np.count_nonzero(blocks[:10_000]), np.count_nonzero(blocks)
    assert abs(half - n / 2) < 5.2 * (n * 0.25 * (1 - n / 20_000)) ** 0.5


def test_dates_and_zones_of_a_place_share_its_block(windows: chips.Windows) -> None:
    train, test = splitting.split(windows, (0.5, 0.5), block=600, seed=2)
    rows = [set(zip(part.cube, part.row, part.col, strict=True)) for part in (train, test)]
    assert not rows[0] & rows[1]
    for part in (train, test):
        assert set(part.time) == {0, 1}
    np.testing.assert_array_equal(test.columns["split"], 1)


def test_every_chip_is_in_one_test_fold(windows: chips.Windows) -> None:
    pairs = folds.kfold(windows, 4, block=400, buffer=0, seed=7)
    np.testing.assert_array_equal(np.sort(np.concatenate([test.ids for _, test in pairs])), windows.ids)
    for number, (train, test) in enumerate(pairs):
        assert set(test.columns["fold"]) == {number}
        assert number not in set(train.columns["fold"])
        assert (set(train.columns["split"]), set(test.columns["split"])) == ({"train"}, {"test"})


def test_polygons_hold_centres_in_any_crs(windows: chips.Windows) -> None:
    frame = polygons(windows)
    by = folds.split_by_polygon(windows, frame.to_crs(32615), column="set", names=["test", "train"])
    assert [*by] == ["test", "train"]
    middles = tables.outlines(by["train"])  # the last gives no room
    inside = shapely.contains(frame.geometry.iloc[0], shapely.centroid(middles))
    assert inside.all()
    south = shapely.contains(frame.geometry.iloc[0], shapely.centroid(tables.outlines(windows))).sum()
    largest = next(iter(folds.split_by_polygon(windows, frame, column="set")))
    assert largest == ("train" if south >= len(windows) / 2 else "test")


def test_ground_on_both_sides_of_the_180th_meridian_is_one(windows: chips.Windows) -> None:
    values = xr.Dataset(
        {"v": (("y", "x"), np.zeros((64, 512), np.uint8))},
        {"y": 1e6 - 100 * np.arange(64), "x": 804_000 + 100 * np.arange(512)},
    )
    plan = chips.chip(datacubes.from_xarray(values, crs="EPSG:32660"), 8)
    parts = splitting.split(plan, (0.7, 0.3), block=5000, buffer=1000, seed=0)
    check_apart(plan, list(parts), 1000)
    assert sum(map(len, parts)) > 0.5 * len(plan)


def test_time_splits_keep_whole_dates(windows: chips.Windows, land: Synthetic) -> None:
    early, late = folds.split_by_time(windows, "2024-06-01")
    assert (tables.column(early, "end") < np.datetime64("2024-06-01")).all()
    assert (tables.column(late, "start") >= np.datetime64("2024-06-01")).all()
    assert len(early) + len(late) == len(windows)
    early, late = folds.split_by_time(windows, ["2024-06-01"], gap="28D")
    assert len(early) + len(late) == len(windows)  # 3 May is 28 days before 31 May
    with pytest.raises(ChipError, match="2024-05-03 to 2024-06-07; cut within"):
        folds.split_by_time(windows, "2024-06-01", gap=30)
    whole = chips.chip(datacubes.Cubes(windows.cubes), 16)
    with pytest.raises(ChipError, match="time=1"):
        folds.split_by_time(whole, "2024-06-01")


def test_groups_keep_every_member_out_of_the_others(windows: chips.Windows) -> None:
    rng = np.random.default_rng(0)
    near = windows.take(rng.permutation(len(windows))[:60])
    far = windows.take(rng.permutation(len(windows))[:60])
    train, test = splitting.split(Groups.together({"near": near, "far": far}), (0.8, 0.2), block=300, seed=0)
    plane = places.plane(windows)
    united = [shapely.union_all(places.ground(part, plane)) for part in (train, test)]
    assert shapely.intersection(united[0], united[1]).area < 1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda w: splitting.split(w, (0.5, 0.5), block=100, buffer=200, seed=0), "wider than a block"),
        (lambda w: splitting.split(w, (0.5, 0.6), block=100, seed=0), "sum to 1"),
        (lambda w: splitting.split(w[:0], (0.5, 0.5), block=100, seed=0), "no chips"),
        (lambda w: folds.kfold(w, 1, block=100, seed=0), "2 folds or more"),
        (lambda w: folds.kfold(w, 5, block=1e6, seed=0), "use fewer folds or smaller blocks"),
        (lambda w: folds.kfold(w, 2, block=1500, buffer=1500, seed=0), "give splits of"),
        (lambda w: folds.split_by_polygon(w, polygons(w), column="name"), "no such column"),
        (lambda w: folds.split_by_polygon(w, polygons(w), column="set", names=["test", "val"]), "needed are two"),
        (lambda w: folds.split_by_polygon(w, polygons(w), column="set", buffer=1e4), "smaller buffer"),
        (lambda w: folds.split_by_column(w, "season"), "there is no column"),
        (lambda w: folds.split_by_column(w, "id", buffer=-1), "buffer is metres"),
        (lambda w: folds.split_by_time(w, ["2024-07-01", "2024-06-01"]), "ascending"),
    ],
)
def test_splits_that_cannot_be(windows: chips.Windows, call: Any, text: str) -> None:
    with pytest.raises(ChipError, match=text):
        call(windows)


def test_polygons_that_miss_or_overlap(windows: chips.Windows) -> None:
    frame = polygons(windows)
    with pytest.raises(ChipError, match="hold none of the"):
        folds.split_by_polygon(windows, frame.set_geometry(frame.translate(5)), column="set")
    with pytest.raises(ChipError, match="hold one chip's centre"):
        folds.split_by_polygon(windows, frame.set_geometry(frame.scale(yfact=1.5)), column="set")
    with pytest.raises(ChipError, match="state no CRS"):
        folds.split_by_polygon(
            windows, gpd.GeoDataFrame(frame.drop(columns="geometry"), geometry=[*frame.geometry]), column="set"
        )
