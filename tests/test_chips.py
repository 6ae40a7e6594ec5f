"""Windows: what each edge rule covers, xbatcher's arithmetic, zones, and pixels that do not depend on the cut."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

import geopipes as gp
from geopipes import chips, datacubes, orders
from geopipes.chips import Windows
from geopipes.datacubes import arraycube
from geopipes.errors import ChipError, ChipTooLarge, GridMismatch, MarginTooSmall, StepError
from geopipes.testing import Synthetic


@cache
def plain(height: int, width: int, *, dates: int = 1) -> datacubes.Cubes:
    """Make a cube whose pixels are all different, on a grid of 10 m."""
    values = np.arange(dates * height * width, dtype=np.int32).reshape(dates, height, width)
    y = 5_000_000 - 10 * (np.arange(height) + 0.5)
    x = 300_000 + 10 * (np.arange(width) + 0.5)
    time = np.datetime64("2024-01-01", "ns") + np.arange(dates) * np.timedelta64(1, "D")
    dataset = xr.Dataset({"v": (("time", "y", "x"), values)}, {"time": time, "y": y, "x": x})
    return datacubes.from_xarray(dataset, crs="EPSG:32633")


def hits(windows: Windows, height: int, width: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Count how many windows hold each pixel of the grid."""
    count = np.zeros((height, width), np.int64)
    for row, col in zip(windows.row, windows.col, strict=True):
        count[row : row + windows.size[0], col : col + windows.size[1]] += 1
    return count


sides = st.integers(8, 90)


@given(
    height=sides,
    width=sides,
    size=st.integers(2, 40),
    lap=st.integers(0, 20),
    edge=st.sampled_from(["drop", "pad", "shift"]),
)
def test_each_edge_rule_covers_what_it_promises(height: int, width: int, size: int, lap: int, edge: chips.Edge) -> None:
    lap = min(lap, size - 1)
    if edge != "pad" and size > min(height, width):
        with pytest.raises(ChipTooLarge, match=f"{height} x {width} px"):
            chips.chip(plain(height, width), size, overlap=lap, edge=edge)
        return
    windows = chips.chip(plain(height, width), size, overlap=lap, edge=edge)
    count = hits(windows, height, width)
    if edge == "drop":
        stride = size - lap
        bottom, right = ((n - size) // stride * stride + size for n in (height, width))
        assert (count[:bottom, :right] > 0).all()
        assert count[bottom:].sum() == count[:, right:].sum() == 0
    else:
        assert (count > 0).all()
    if edge == "pad":  # every padded window is needed: without the last row or column a pixel is uncovered
        assert windows.row.max() - (size - lap) + size < height or windows.row.max() == 0
    else:
        assert windows.row.max() + size <= height
        assert windows.col.max() + size <= width
    assert len({*zip(windows.row, windows.col, strict=True)}) == len(windows)
    np.testing.assert_array_equal(windows.ids, np.arange(len(windows)))


@given(height=sides, width=sides, size=st.integers(2, 40), lap=st.integers(0, 20))
def test_windows_are_those_of_xbatcher(height: int, width: int, size: int, lap: int) -> None:
    size, lap = min(size, height, width), min(lap, size - 1, min(size, height, width) - 1)
    cubes = plain(height, width)
    windows = chips.chip(cubes, size, overlap=lap)
    generator = chips.slices(cubes[0], size, overlap=lap)
    assert len(generator) == len(windows)
    for i in range(0, len(windows), max(1, len(windows) // 5)):
        theirs, ours = generator[i], chips.load(windows, i)
        np.testing.assert_array_equal(theirs["v"].values, ours["v"].values)
        np.testing.assert_array_equal(theirs["x"].values, ours["x"].values)


def test_padding_goes_on_beyond_the_edge_and_is_not_valid() -> None:
    windows = chips.chip(plain(10, 10), 8, edge="pad")
    last = chips.load(windows, len(windows) - 1)
    assert last["valid"].values[0, :2, :2].all()
    assert last["valid"].values.sum() == 4
    np.testing.assert_allclose(np.diff(last["x"].values), 10)
    np.testing.assert_allclose(np.diff(last["y"].values), -10)


def test_time_windows() -> None:
    cubes = plain(16, 16, dates=5)
    assert len(chips.chip(cubes, 16)) == 1
    two = chips.chip(cubes, 16, time=2)
    assert [*two.time] == [0, 2]
    assert [*chips.chip(cubes, 16, time=2, edge="shift").time] == [0, 2, 3]
    assert chips.load(two, 1)["v"].sizes["time"] == 2
    np.testing.assert_array_equal(chips.load(two, 1)["time"].values, cubes[0]["time"].values[2:4])
    with pytest.raises(ChipTooLarge, match="the cube has 5 dates"):
        chips.chip(cubes, 16, time=6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 0}, "at least 1 px"),
        ({"size": 8, "overlap": 8}, "less than size"),
        ({"size": 8, "margin": -1}, "margin at least 0"),
        ({"size": (8, 8, 8)}, "one number or \\(y, x\\)"),
        ({"size": 6, "edge": "reflect"}, "use 'drop', 'pad' or 'shift'"),
        ({"size": 8, "coverage": "half"}, "use 'full' or 'any'"),
    ],
)
def test_numbers_that_make_no_grid(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ChipError, match=text):
        chips.chip(plain(20, 20), **options)


def test_margin_is_read_around_the_chip_and_said() -> None:
    cubes = plain(40, 40)
    chip = chips.load(chips.chip(cubes, 10, margin=3), 5)
    assert chip.sizes["y"] == 16
    assert chip["chip"].attrs == {"margin": 3}
    np.testing.assert_array_equal(chip["v"].values[:, 3:-3, 3:-3], cubes[0]["v"].values[:, 10:20, 10:20])
    assert not chips.load(chips.chip(cubes, 10, margin=3), 0)["valid"].values[:, :3].any()


def test_ids_stay_with_their_chips() -> None:
    windows = chips.chip(plain(40, 40), 10)
    picked = windows.take([7, 3, 11])
    assert [int(chips.load(picked, i)["chip"]) for i in range(3)] == [7, 3, 11]
    assert [*windows[3:5].ids] == [3, 4]
    with pytest.raises(IndexError):
        windows[16]


def test_a_lazy_chip_is_what_load_gives_and_reads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = chips.chip(plain(40, 40, dates=2), 10, margin=2, edge="pad", overlap=3)
    reads = []
    read = arraycube.ArrayCube.read

    def counted(*args: Any) -> xr.Dataset:
        reads.append(args)
        return read(*args)

    monkeypatch.setattr(arraycube.ArrayCube, "read", counted)
    for i in (0, len(windows) - 1):
        lazy = windows[i]
        reads.clear()
        assert lazy["v"].dtype == np.int32
        assert lazy["y"].size == 14
        assert not reads  # looking at shapes and coordinates reads nothing
        loaded = lazy.load()
        assert len(reads) == 1
        xr.testing.assert_identical(loaded, chips.load(windows, i))


# Across zones, and cut-independence, on synthetic scenes.


def cube_of(land: Synthetic, **options: Any) -> gp.Pipe[xr.Dataset]:
    return gp.items(land.items).stack(["red", "scl"], resolution=10, groupby="solar_day", **options)


def test_a_place_in_two_zones_counts_once(land: Synthetic) -> None:
    every = cube_of(land, crs="utm").chip(16, coverage="any")
    windows = every._value.get()
    places = orders.ground(windows)
    areas = [shapely.union_all(places[windows.cube == zone]) for zone in (0, 1)]
    west, _, east, _ = areas[0].intersection(areas[1]).bounds
    assert max(-west, east) <= 1.1 * 80  # a chip reaches over the border, at x = 0, by half of itself
    hull = shapely.union_all(areas).convex_hull  # nothing between the zones is left out but slivers at the border
    assert hull.area - shapely.union_all(areas).area <= 0.05 * hull.area


def test_a_zone_keeps_its_side_of_the_border(land: Synthetic) -> None:
    for chip in cube_of(land, crs="utm").chip(64)[::3]:
        zone = int(chip["spatial_ref"].attrs["crs_wkt"].split("UTM zone ")[1][:2])
        to = pyproj.Transformer.from_crs(32600 + zone, 4326, always_xy=True)
        longitude, _ = to.transform(float(chip["x"].mean()), float(chip["y"].mean()))
        assert (longitude < -96) == (zone == 14)


def test_by_default_every_source_covers_a_chip(land: Synthetic, tmp_path: Path) -> None:
    whole = cube_of(land, crs="EPSG:32615", resampling="nearest")
    covered, every = whole.chip(16), whole.chip(16, coverage="any")
    assert 0 < len(covered) < len(every)
    assert covered._value.get().left_out == len(every) - len(covered)
    assert "windows left out" in str(covered)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("crs", ["EPSG:32614", "EPSG:5070"])
def test_pixels_do_not_depend_on_the_cut(land: Synthetic, crs: str, resampling: str) -> None:
    pipe = cube_of(land, crs=crs, resampling={"scl": "nearest", "*": resampling})
    cube = next(iter(pipe))
    whole = {name: cube[name].values for name in ("red", "scl", "valid")}
    for size, overlap in ((64, 0), (64, 13), (100, 0), (100, 50), (256, 0), (700, 0)):
        seen = np.zeros(whole["valid"].shape[1:], bool)
        for chip in pipe.chip(size, overlap=overlap, edge="pad", coverage="any").read(threads=3):
            rows = slice(round((cube.y.values[0] - chip.y.values[0]) / 10), None)
            cols = slice(round((chip.x.values[0] - cube.x.values[0]) / 10), None)
            for name, pixels in whole.items():
                part = pixels[:, rows, cols][:, :size, :size]
                np.testing.assert_array_equal(chip[name].values[:, : part.shape[1], : part.shape[2]], part)
            seen[rows, cols][:size, :size] = True
        assert seen.all()


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_large_cubes_cut_differently_are_the_same(tmp_path: Path, resampling: str) -> None:
    """Put together, chips of 64, 100, 256 and 700 px from a raster of the next zone are one and the same cube."""
    y, x = np.mgrid[:880, :880]
    pixels = (1000 + 500 * np.sin(y / 9) * np.cos(x / 7)).astype("uint16") + np.random.default_rng(0).integers(
        0, 99, y.shape
    )
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": 880,
        "width": 880,
        "dtype": "uint16",
        "nodata": 0,
        "tiled": True,
    }
    transform = rasterio.Affine(10, 0, 746_000, 0, -10, 4_590_000)
    with rasterio.open(tmp_path / "a.tif", "w", crs="EPSG:32614", transform=transform, **profile) as file:
        file.write(pixels.astype("uint16"), 1)
    pipe = gp.rasters(tmp_path / "a.tif").stack(crs="EPSG:32615", resolution=10, resampling=resampling)
    height, width = (next(iter(pipe)).sizes[dim] for dim in ("y", "x"))
    assert min(height, width) > 700
    cuts = [(64, 0), (64, 16), (100, 0), (100, 31), (256, 0), (256, 100), (700, 0), (700, 500)]
    whole = [_together(pipe, size, overlap, height, width) for size, overlap in cuts]
    for other in whole[1:]:
        np.testing.assert_array_equal(other, whole[0])
    assert (whole[0] > 0).mean() > 0.8  # the corners of a turned raster are empty


def _together(pipe: gp.Pipe[xr.Dataset], size: int, overlap: int, height: int, width: int) -> Any:
    """Put chips together; where they overlap they must agree."""
    plan = pipe.chip(size, overlap=overlap, edge="shift", coverage="any")
    windows, whole = plan._value.get(), np.full((height, width), 65_535, "uint16")
    for i, chip in enumerate(plan.read(threads=2)):
        part = whole[windows.row[i] : windows.row[i] + size, windows.col[i] : windows.col[i] + size]
        values = next(iter(chip.data_vars.values())).values[0]
        np.testing.assert_array_equal(part[part != 65_535], values[part != 65_535])
        part[:] = values
    assert (whole != 65_535).all()
    return whole


@given(data=st.data())
def test_random_windows_hold_the_cubes_pixels(land: Synthetic, data: st.DataObject) -> None:
    cube = next(iter(cube_of(land, crs="EPSG:32614", resampling={"scl": "nearest", "*": "bilinear"})))
    height, width = cube.sizes["y"], cube.sizes["x"]
    top, left = data.draw(st.integers(0, height - 2)), data.draw(st.integers(0, width - 2))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    whole = cube["red"].isel(time=0).values
    part = cube["red"].isel(time=0, y=slice(top, bottom), x=slice(left, right)).values
    np.testing.assert_array_equal(part, whole[top:bottom, left:right])


# Steps that need neighbours.


def smooth(dataset: xr.Dataset) -> xr.Dataset:
    """Average 3 x 3 pixels: needs a margin of 1."""
    wide = dataset["v"].astype("float64")
    total = sum(wide.shift(y=dy, x=dx, fill_value=0) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    return dataset.assign(v=total)


def test_a_step_with_a_margin_does_not_depend_on_the_cut() -> None:
    pipe = gp.cubes(plain(30, 30)[0])
    before = [chip["v"].values for chip in pipe.map(smooth, margin=1).chip(10).read()]
    after = [chip["v"].values[:, 1:-1, 1:-1] for chip in pipe.chip(10, margin=1).map(smooth, margin=1).read()]
    np.testing.assert_array_equal(before, after)
    whole = next(iter(pipe.map(smooth, margin=1)))["v"].values
    np.testing.assert_array_equal(before[4], whole[:, 10:20, 10:20])


def test_a_margin_before_chip_leaves_a_chip_that_knows_its_place() -> None:
    pipe = gp.cubes(plain(30, 30)[0])
    with_margin, without = (list(p.chip(10).read()) for p in (pipe.map(smooth, margin=1), pipe))
    for a, b in zip(with_margin, without, strict=True):
        xr.testing.assert_identical(a["spatial_ref"], b["spatial_ref"])
    sample = next(iter(pipe.map(smooth, margin=1).chip(10).read().tensor(v="v", fill=0)))
    assert sample["v"].shape == (1, 10, 10)


def test_margins_after_read_are_reckoned_with() -> None:
    plan = gp.cubes(plain(30, 30)[0]).chip(10, margin=2).map(smooth, margin=1)
    assert len(list(plan.read().map(smooth, margin=1))) == 9
    with pytest.raises(MarginTooSmall, match="need 3 px"):
        list(plan.read().map(smooth, margin=1).map(smooth, margin=1))


def test_a_resolution_in_the_wrong_units_is_told_before_memory_runs_out() -> None:
    grid = GeoBox.from_bbox((0, 0, 30_000, 30_000), "EPSG:32633", resolution=0.001)
    vast = datacubes.Cubes([arraycube.ArrayCube(plain(8, 8)[0], grid)])
    with pytest.raises(ChipError, match=r"is stack\(resolution=...\) in the units of EPSG:32633"):
        chips.chip(vast, 64)


def test_metres_on_a_grid_of_degrees_are_asked_about(land: Synthetic) -> None:
    cubes = gp.items(land.items).stack(["red"], resolution=10, crs="EPSG:4326")
    with pytest.raises(ChipTooLarge, match=r"'pad'; is stack\(resolution=...\) in the units of EPSG:4326, degrees"):
        len(cubes.chip(64))


def test_too_small_a_margin_says_the_number() -> None:
    plan = gp.cubes(plain(30, 30)[0]).chip(10, margin=1).map(smooth, margin=1).map(smooth, margin=1)
    with pytest.raises(MarginTooSmall, match=r"need 2 px .* carries 1: write chip\(..., margin=2\)"):
        len(plan)


def test_a_step_before_read_keeps_the_window() -> None:
    plan = gp.cubes(plain(30, 30)[0]).chip(10).map(lambda ds: ds.isel(y=slice(5)))
    with pytest.raises(StepError, match="changed y from 10 to 5 px"):
        next(iter(plan.read()))


def test_inputs_need_windows_of_whole_pixels() -> None:
    def at(step: int, n: int) -> gp.Pipe[xr.Dataset]:
        box = GeoBox.from_bbox(
            (300_000, 4_990_000, 300_000 + n * step, 4_990_000 + n * step), "EPSG:32633", resolution=step
        )
        y, x = box.coordinates["y"].values, box.coordinates["x"].values
        return gp.cubes(
            xr.Dataset({"v": (("y", "x"), np.zeros((n, n), np.float32))}, {"y": y, "x": x}), crs="EPSG:32633"
        )

    both = gp.inputs(fine=at(10, 60), coarse=at(20, 30))
    assert len(both.chip(20)) == 9
    with pytest.raises(GridMismatch, match=r"size of 15 px is 7\.5 px of input 'coarse': use multiples of 2"):
        len(both.chip(15))
