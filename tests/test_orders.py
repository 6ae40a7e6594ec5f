"""Orders: permutations and splits that share no ground."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

import geopipes as gp
from geopipes import chips, orders
from geopipes.datacubes.stackcube import StackCube
from geopipes.errors import ChipError
from geopipes.read.sources import Source, Stack, Variable
from geopipes.read.tiles import Tiles, Wanted
from geopipes.testing import Synthetic


@pytest.fixture(scope="module")
def plan(land: Synthetic) -> gp.Plan[xr.Dataset]:
    return gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day").chip(16, overlap=4)


def windows(plan: gp.Plan[Any]) -> chips.Windows:
    value: chips.Windows = plan._value.get()
    return value


UINT16 = np.dtype("uint16")


def made_up(
    dates: int, side: int, size: int, *, resolution: float = 10, begin: tuple[int, int] = (0, 0), source: float = 10
) -> chips.Windows:
    """Make a plan over one cube, one raster for each date that begins at a row and column of the grid; no files."""
    grid = GeoBox((side, side), Affine(resolution, 0, 5e5, 0, -resolution, 5e6), "EPSG:32632")
    raster = GeoBox(
        (side, side), grid.affine @ Affine.translation(begin[1], begin[0]) @ Affine.scale(source / resolution), grid.crs
    )
    times = [np.datetime64("2024-05-01", "ns") + np.timedelta64(day, "D") for day in range(dates)]
    rasters = tuple((Source(f"{t}.tif", (1,), raster, UINT16, None, str(t), None, "red", t),) for t in times)
    stack = Stack(grid, tuple(times), (Variable("red", UINT16, None, "nearest", None, rasters),))
    corners = np.arange(side // size) * size
    time, row, col = (axis.ravel() for axis in np.meshgrid(np.arange(dates), corners, corners, indexing="ij"))
    return chips.Windows.of((StackCube(stack),), (size, size), row=row, col=col, time=time, dates=1)


def decodes(plan: chips.Windows, share: float, tile: int = 512) -> float:
    """Count decodes for each tile, with a cache of a share of all of them that knows the order."""
    size = plan.size[0]

    def tiles(i: int) -> list[tuple[int, int, int]]:
        time, row, col = int(plan.time[i]), int(plan.row[i]), int(plan.col[i])
        rows, cols = (range(start // tile, (start + size - 1) // tile + 1) for start in (row, col))
        return [(time, y, x) for y in rows for x in cols]

    keys = [tiles(i) for i in range(len(plan))]
    every = {key for chip in keys for key in chip}
    cache = Tiles(int(len(every) * share))
    with cache.expecting() as uses:
        uses.add(key for chip in keys for key in chip)
        for chip in keys:
            with cache.hold([Wanted(key, (1, 1, 1), np.dtype("uint8"), (0,), lambda *_: None) for key in chip], uses):
                pass
    return cache.counts.decoded / len(every)


def spread_of_means(plan: chips.Windows, fields: list[np.ndarray[Any, Any]], batch: int) -> float:
    """Give the variance of batch means against that of independent draws, the mean over some fields."""
    whole = len(plan) // batch * batch
    means = [field[plan.ids[:whole]].reshape(-1, batch).mean(axis=1) for field in fields]
    return float(np.mean([mean.var() / (field.var() / batch) for mean, field in zip(means, fields, strict=True)]))


def smooth_fields(plan: chips.Windows, count: int) -> list[np.ndarray[Any, Any]]:
    """Make a value for each chip: smooth waves over each scene, and an offset of the scene."""
    rng = np.random.default_rng(0)
    fields = []
    for _ in range(count):
        waves = np.zeros(len(plan))
        for _ in range(10):
            fy, fx = rng.normal(size=(2, plan.time.max() + 1)) / 2000  # waves of some thousand pixels
            phase = rng.uniform(0, 2 * np.pi, plan.time.max() + 1)
            waves += np.sin(2 * np.pi * (fy[plan.time] * plan.row + fx[plan.time] * plan.col) + phase[plan.time])
        fields.append(waves / waves.std() + rng.normal(size=plan.time.max() + 1)[plan.time])
    return fields


def test_the_order_for_speed_reads_tiles_about_once_and_mixes_batches() -> None:
    plan = made_up(8, 7680, 224)
    near, plain = orders.shuffle(plan, 0), orders.shuffle(plan, 0, exact=True)
    assert decodes(near, 0.1) <= 1.5
    assert decodes(plain, 0.1) >= 4
    fields = smooth_fields(plan, 20)
    assert abs(spread_of_means(plain, fields, 32) - 1) < 0.15
    for batch in (8, 24, 32, 64):
        mixed = np.mean([spread_of_means(orders.shuffle(plan, seed), fields, batch) for seed in range(4)])
        assert mixed <= 1.1, batch


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 5),
    st.integers(1, 400),
    st.fixed_dictionaries(
        {
            "lanes": st.integers(1, 40),
            "epoch": st.integers(0, 3),
            "strip": st.one_of(st.none(), st.integers(1, 999)),
            "exact": st.booleans(),
        }
    ),
)
def test_every_chip_comes_once(seed: int, n: int, options: dict[str, Any]) -> None:
    plan = made_up(3, 768, 64).take(np.random.default_rng(seed).permutation(432)[:n])
    once, again = (orders.shuffle(plan, seed, **options) for _ in range(2))
    np.testing.assert_array_equal(once.ids, again.ids)
    np.testing.assert_array_equal(np.sort(once.ids), np.sort(plan.ids))
    if not options["exact"]:  # the order before does not count
        before = orders.shuffle(plan.take(np.arange(n)[::-1]), seed, **options)
        np.testing.assert_array_equal(once.ids, before.ids)


def test_seeds_and_epochs_are_other_orders(plan: gp.Plan[xr.Dataset]) -> None:
    for exact in (False, True):
        found = [
            orders.shuffle(windows(plan), seed, epoch=epoch, exact=exact, lanes=4).ids
            for seed, epoch in ((3, 0), (4, 0), (3, 1), (3, 2))
        ]
        assert len({tuple(ids) for ids in found}) == 4
        assert all(tuple(ids) != tuple(range(len(plan))) for ids in found)
    np.testing.assert_array_equal(
        orders.shuffle(windows(plan), 3, exact=True).ids, np.random.default_rng(3).permutation(len(plan))
    )


def changes(strips: npt.NDArray[Any]) -> int:
    """Count where a round of chips goes from one strip to another."""
    return sum(a != b for a, b in pairwise([*strips, strips[0]]))


@pytest.mark.parametrize(
    ("options", "height", "top"),
    [
        ({"begin": (-300, 77)}, 1024, -300),
        ({"source": 30, "begin": (900, 0)}, 3072, 900),
        ({"source": 20}, 2048, 0),
        ({"resolution": 20}, 1024, 0),  # the overview of 20 m is read
        ({"resolution": 60}, 1024 * 40 / 60, 0),  # that of 40 m
    ],
)
def test_strips_are_two_tiles_high_and_begin_where_tiles_do(options: Any, height: float, top: int) -> None:
    plan = made_up(1, 4096, 64, **options)
    one_lane = orders.shuffle(plan, 1, lanes=1)
    strips = (one_lane.row - top) // height
    assert changes(strips) == len(np.unique(strips))
    given_height = orders.shuffle(plan, 1, lanes=1, strip=640)
    assert changes((given_height.row - top) // 640) == len(np.unique((given_height.row - top) // 640))


def test_a_lane_has_few_tiles_at_a_time() -> None:
    plan = made_up(2, 4096, 64)
    order = orders.shuffle(plan, 0, lanes=4)
    for lane in range(4):
        own = order.take(np.arange(lane, len(order), 4))
        runs = np.stack([own.time, own.row // 1024])
        breaks = np.flatnonzero((np.diff(runs) != 0).any(axis=0))
        assert len(breaks) <= 4  # of 8 strips in all, 2 for each lane, where it begins and ends within one
        steps = np.abs(np.delete(np.diff(own.col), breaks))
        assert np.sort(steps)[:-1].max() < 512  # but for the one place where the lane's round closes


@pytest.mark.parametrize("kind", ["joined", "inputs", "mapped", "arrays"])
def test_any_cube_can_be_shuffled(land: Synthetic, kind: str) -> None:
    stack = gp.items(land.items).stack(["red"], resolution=10, crs="utm")
    cubes: Any = stack
    if kind == "joined":
        cubes = stack.join(gp.rasters(land.label), name="crop", nodata=255)
    elif kind == "inputs":
        one = gp.items(land.items).stack(["red"], resolution=10, crs=32614)
        cubes = gp.inputs(a=one, b=gp.items(land.items).stack(["scl"], resolution=20, crs=32614))
    elif kind == "mapped":
        cubes = stack.scale(["red"], factor=1e-4)
    else:
        cubes = gp.cubes(next(iter(stack)).load())
    cut = windows(cubes.chip(16))
    assert sorted(orders.shuffle(cut, 0).ids) == list(range(len(cut)))


@pytest.mark.parametrize(
    ("options", "text"),
    [({"lanes": 0}, "lanes=0"), ({"epoch": -1}, "epoch 0 and up"), ({"strip": 0}, "1 and up")],
)
def test_orders_that_cannot_be(plan: gp.Plan[xr.Dataset], options: Any, text: str) -> None:
    with pytest.raises(ChipError, match=text):
        orders.shuffle(windows(plan), 0, **options)


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
