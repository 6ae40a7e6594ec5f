"""The reader as a whole: no pixel depends on how it is asked for, nor on what reads the file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from forgetting import forget
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from geopipes.read.files import opened, opening, reason
from geopipes.read.files.fitting import Unfit
from geopipes.read.headers import file_header
from geopipes.read.placing import placement
from geopipes.read.reader import Block, Reader
from geopipes.read.sources import RESAMPLINGS, Source, Stack, Variable
from geopipes.read.tiles import shared
from geopipes.read.tiles.cache import BUDGET

Array = np.ndarray[Any, Any]
UINT16 = np.dtype(np.uint16)
Box = tuple[slice, slice]
Stacks = Callable[..., Stack]

UTM33, UTM34 = "EPSG:32633", "EPSG:32634"
GRID = GeoBox((230, 260), Affine(10, 0, 690_000, 0, -10, 5_000_000), UTM33)
APART = GeoBox((190, 240), Affine(10, 0, 690_370, 0, -10, 5_000_210), UTM33)

RASTERS = {
    "same grid": GeoBox((240, 250), Affine(10, 0, 689_800, 0, -10, 4_999_800), UTM33),
    "half a pixel off": GeoBox((240, 250), Affine(10, 0, 690_105, 0, -10, 5_000_105), UTM33),
    "20 m": GeoBox((130, 130), Affine(20, 0, 690_010, 0, -20, 5_000_000), UTM33),
    "4 m": GeoBox((500, 520), Affine(4, 0, 690_300, 0, -4, 4_999_900), UTM33),
    "4 m with overviews": GeoBox((500, 520), Affine(4, 0, 690_200, 0, -4, 4_999_800), UTM33),
    "the next zone": GeoBox((260, 270), Affine(10, 0, 218_100, 0, -10, 5_003_300), UTM34),
    "rotated": GeoBox((250, 250), Affine(8, 3, 689_900, 2.5, -9, 4_999_800), UTM33),
}

FILES: dict[str, dict[str, Any]] = {
    "cog": {"compress": "deflate", "predictor": 2},
    "cog, bands apart": {"compress": "deflate", "interleave": "band"},
    "gdal": {"compress": "lzw", "blockxsize": 256, "blockysize": 256},
    "gdal, in strips": {"tiled": False, "interleave": "band"},
    "gdal, masked": {"compress": "deflate"},
}
"""How files are stored, named by what is to read them."""

METHODS = pytest.mark.parametrize("method", RESAMPLINGS)
PAD = 40
"""Pixels that windows reach beyond the grid."""


def scene(shape: tuple[int, int], seed: int) -> Array:
    """Smooth fields with noise, (band, y, x) from 1 up, and a hole of zeros in each band."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    noise = np.random.default_rng(seed).normal(0, 60, (3, *shape))
    pixels: Array = (3000 + 1000 * np.sin(x / 37) + 900 * np.cos(y / 23) + noise).astype(np.uint16)
    for band in range(3):
        top, left = shape[0] // 3 + 7 * band, shape[1] // 3 + 5 * band
        pixels[band, top : top + shape[0] // 5, left : left + shape[1] // 5] = 0
    return pixels


def write(path: Path, pixels: Array, geobox: GeoBox, *, mask: Array | None = None, **profile: Any) -> Path:
    """Write (band, y, x) as a GeoTIFF, in tiles of 64 px unless told otherwise."""
    count, height, width = pixels.shape
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "nodata": 0} | profile
    if not layout["tiled"]:
        layout = {name: value for name, value in layout.items() if not name.startswith("block")}
    place = {"crs": str(geobox.crs), "transform": geobox.affine, "height": height, "width": width}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", count=count, dtype=pixels.dtype, **place, **layout) as file,
    ):
        file.write(pixels)
        if mask is not None:
            file.write_mask(mask)
    return path


def source_of(path: Path, *bands: int, **changes: Any) -> Source:
    header = file_header(str(path))
    time = np.datetime64("2024-05-01", "ns")
    dtype, nodata = header.dtypes[bands[0] - 1], header.nodata[bands[0] - 1]
    source = Source(str(path), bands, header.geobox, dtype, nodata, "S2A_33TXL", "s2", "data", time)
    return replace(source, **changes)


def variable_of(name: str, resampling: str, *sources: Source) -> Variable:
    return Variable(name, sources[0].dtype, sources[0].nodata, resampling, None, (sources,))


def stack_of(path: Path, grid: GeoBox, *resamplings: str) -> Stack:
    """Make a stack of a file's bands, each by its method."""
    variables = (variable_of(f"b{i}", each, source_of(path, i)) for i, each in enumerate(resamplings, 1))
    return Stack(grid, None, tuple(variables))


def by_gdal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let GDAL read all files that are opened from now on."""

    def refuse(*_: Any) -> None:
        raise Unfit("the test says so")

    monkeypatch.setattr(opening, "fit", refuse)
    monkeypatch.setattr(opening, "fit_path", refuse)
    forget()


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    shared(BUDGET)
    forget()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stacks:
    """Give a stack of some of RASTERS, one over the other: three bands of one file, and classes of 8 bits."""
    folder = tmp_path_factory.mktemp("rasters")

    @cache
    def written(name: str, files: str) -> tuple[Path, Path]:
        geobox = RASTERS[name]
        pixels = scene((geobox.shape.y, geobox.shape.x), seed=[*RASTERS].index(name))
        classes = np.ceil(pixels[:1] / 500).astype(np.uint8)
        mask = None
        if "masked" in files:
            mask = np.full(pixels.shape[1:], 255, np.uint8)
            mask[50:90, 120:170] = 0
        paths = folder / f"{name}, {files}.tif", folder / f"{name}, {files}, classes.tif"
        for path, bands in zip(paths, (pixels, classes), strict=True):
            write(path, bands, geobox, mask=mask, **FILES[files])
            if "overviews" in name:
                with rasterio.open(path, "r+") as file:
                    file.build_overviews([2, 4], Resampling.average)
        return paths

    @cache
    def made(method: str, rasters: tuple[str, ...], files: str = "cog", grid: GeoBox = GRID) -> Stack:
        bands, classes = zip(*(written(name, files) for name in rasters), strict=True)
        # Methods take turns, so that the bands of one method do not follow each other.
        variables = [
            variable_of(name, resampling, *(source_of(path, band) for path in bands))
            for band, (name, resampling) in enumerate((("red", method), ("green", "nearest"), ("nir", method)), 1)
        ]
        counted = method if method in ("nearest", "mode") else "nearest"
        scl = variable_of("scl", counted, *(source_of(path, 1) for path in classes))
        return Stack(grid, None, (*variables, scl))

    return made


def window(grid: GeoBox, around: int = 0) -> Box:
    """Give all of a grid, and some pixels around it."""
    return slice(-around, grid.shape.y + around), slice(-around, grid.shape.x + around)


def read(stack: Stack, box: Box | None = None) -> Block:
    """Read a window of a stack, or all of it."""
    return Reader(stack).read(*(box or window(stack.geobox)), [0])


def part_of(whole: Block, rows: slice, cols: slice) -> Block:
    """Cut a window from a block."""
    inside = (..., rows, cols)
    pixels = {dtype: each[inside] for dtype, each in whole.pixels.items()}
    return Block(pixels, {dtype: whole.shown(dtype)[inside] for dtype in pixels}, whole.valid[inside])


def assert_equal(found: Block, expected: Block) -> None:
    np.testing.assert_array_equal(found.valid, expected.valid)
    for dtype in expected.pixels:
        np.testing.assert_array_equal(found.shown(dtype), expected.shown(dtype))
        np.testing.assert_array_equal(found.pixels[dtype], expected.pixels[dtype])


# ---------------------------------------------------------------------------------------- how it is asked for


@st.composite
def cuts(draw: st.DrawFn) -> list[Box]:
    """Windows of one size at one stride, which may leave gaps, overlap and reach outside, in any order."""
    size, stride, first = (draw(st.tuples(*[st.integers(*ends)] * 2)) for ends in ((1, 250), (80, 200), (-PAD, 0)))
    axes = [
        [slice(k, min(k + size[axis], length + PAD)) for k in range(first[axis], length + PAD, stride[axis])]
        for axis, length in enumerate(GRID.shape)
    ]
    windows = [(rows, cols) for rows in axes[0] for cols in axes[1]]
    random.Random(draw(st.integers(0, 99))).shuffle(windows)
    return windows


@METHODS
@settings(max_examples=6)
@given(
    rasters=st.lists(st.sampled_from([*RASTERS]), min_size=1, max_size=3, unique=True).map(tuple),
    files=st.sampled_from([*FILES]),
    windows=cuts(),
    threads=st.integers(1, 4),
    budget=st.sampled_from([20_000, BUDGET]),
)
def test_no_pixel_depends_on_window_order_threads_or_cache(
    stack: Stacks, method: str, rasters: tuple[str, ...], files: str, windows: list[Box], threads: int, budget: int
) -> None:
    asked = stack(method, rasters, files)
    whole = read(asked, window(GRID, PAD))
    forget()
    shared(budget)
    reader = Reader(asked)
    with ThreadPoolExecutor(threads) as pool:
        blocks = list(pool.map(lambda box: reader.read(box[0], box[1], [0]), windows))
    for (rows, cols), block in zip(windows, blocks, strict=True):
        cut = slice(rows.start + PAD, rows.stop + PAD), slice(cols.start + PAD, cols.stop + PAD)
        assert_equal(block, part_of(whole, *cut))


@METHODS
@pytest.mark.parametrize("name", RASTERS)
def test_cubes_built_apart_agree_where_they_share_pixels(stack: Stacks, name: str, method: str) -> None:
    one, other = (read(stack(method, (name,), grid=grid)) for grid in (GRID, APART))
    down, right = 21, 37  # of APART's first pixel within GRID, upwards and to the right
    shared_rows, shared_cols = GRID.shape.y, GRID.shape.x - right
    rows, cols = min(shared_rows, APART.shape.y - down), min(shared_cols, APART.shape.x)
    common = part_of(one, slice(0, rows), slice(right, right + cols))
    assert common.valid.mean() > 0.3
    assert_equal(common, part_of(other, slice(down, down + rows), slice(0, cols)))


@pytest.mark.parametrize("method", ["bilinear", "cubic"])
def test_cubes_of_an_uneven_ratio_agree_too(tmp_path: Path, method: str) -> None:
    raster = GeoBox((300, 300), Affine(1e-4, 0, 17.42, 0, -1e-4, 45.12), "EPSG:4326")
    path = write(tmp_path / "a.tif", scene((300, 300), 0), raster, compress="deflate")
    step, (row, col) = 1.7e-4, (45.12 // 1.7e-4, 17.42 // 1.7e-4)

    def cube(up: int, left: int) -> Stack:
        affine = Affine(step, 0, (col - left) * step, 0, -step, (row + up) * step)
        return stack_of(path, GeoBox((180 + up, 180 + left), affine, "EPSG:4326"), method)

    near = read(cube(1, 1))
    for up, left in ((700, 90), (60, 7000), (1, 100_000)):
        assert placement(raster, cube(up, left).geobox).scale == placement(raster, cube(1, 1).geobox).scale
        box = slice(up - 1, up + 180), slice(left - 1, left + 180)
        assert_equal(read(cube(up, left), box), near)


def test_large_windows_are_those_of_small_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", scene((150, 150), 0), GeoBox((150, 150), Affine(20, 0, 0, 0, -20, 3000), UTM33))
    grid = GeoBox((2300, 2200), Affine(1, 0, 300, 0, -1, 2700), UTM33)
    asked = stack_of(path, grid, "bilinear", "nearest")
    whole = read(asked, window(grid, 30))
    assert whole.valid.mean() > 0.8
    for row, col in ((-30, -30), (2000, 1990), (2040, 400), (1100, 2170)):
        box = slice(row, row + 60), slice(col, col + 60)
        inside = (slice(edge.start + 30, edge.stop + 30) for edge in box)
        assert_equal(read(asked, box), part_of(whole, *inside))


# ---------------------------------------------------------------------------------------- what is read


@METHODS
def test_a_mosaic_is_its_rasters_one_over_the_other(stack: Stacks, method: str) -> None:
    names = ("half a pixel off", "the next zone", "same grid", "20 m")
    found, layers = read(stack(method, names)), [read(stack(method, (name,))) for name in names]
    for dtype in found.pixels:
        ok, valid = found.shown(dtype), np.stack([layer.shown(dtype) for layer in layers])
        stacked = np.stack([layer.pixels[dtype] for layer in layers])
        np.testing.assert_array_equal(ok, valid.any(axis=0))
        first = np.take_along_axis(stacked, valid.argmax(axis=0)[None], axis=0)[0]
        np.testing.assert_array_equal(found.pixels[dtype], np.where(ok, first, 0))
        assert len({*valid.argmax(axis=0)[ok]}) > 2


@METHODS
@pytest.mark.parametrize("name", RASTERS)
def test_what_reads_a_file_changes_no_pixel(
    stack: Stacks, name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read(stack(method, (name,), "cog"))
    for files in FILES:
        asked = stack(method, (name,), files)
        assert reason(asked.variables[0].sources[0][0]).startswith(files[:3])
        if "masked" not in files:
            assert_equal(read(asked), expected)

    by_gdal(monkeypatch)
    asked = stack(method, (name,), "cog")
    assert opened(asked.variables[0].sources[0][0]).kind == "gdal"
    assert_equal(read(asked), expected)


@METHODS
def test_a_mask_hides_pixels_and_changes_no_other(stack: Stacks, method: str) -> None:
    hidden, shown = (read(stack(method, ("same grid",), files)) for files in ("gdal, masked", "gdal"))
    unmasked = np.ones((240, 250), bool)
    unmasked[50:90, 120:170] = False
    raster, grid = (slice(0, 210), slice(20, 250)), (slice(20, 230), slice(0, 230))
    for dtype in hidden.pixels:
        ok = hidden.shown(dtype)
        np.testing.assert_array_equal(ok[..., *grid], shown.shown(dtype)[..., *grid] & unmasked[raster])
        np.testing.assert_array_equal(hidden.pixels[dtype][ok], shown.pixels[dtype][ok])


def test_bands_of_one_file_take_each_its_method(stack: Stacks) -> None:
    for name in RASTERS:
        together = stack("bilinear", (name,))
        found, reader = read(together), Reader(together)
        for variable in together.variables:
            alone = read(replace(together, variables=(variable,)))
            channel = reader.channels[variable.name]
            np.testing.assert_array_equal(found.pixels[variable.dtype][:, channel], alone.pixels[variable.dtype])
            np.testing.assert_array_equal(found.shown(variable.dtype)[:, channel], alone.shown(variable.dtype))
            named = reader.read(*window(GRID), [0], names=(variable.name,))
            np.testing.assert_array_equal(named.pixels[variable.dtype][:, channel], alone.pixels[variable.dtype])


@pytest.mark.parametrize("method", ["nearest", "mode"])
@pytest.mark.parametrize("name", RASTERS)
def test_classes_are_never_mixed(tmp_path: Path, name: str, method: str) -> None:
    shape = RASTERS[name].shape
    classes = np.random.default_rng(0).choice([3, 90, 201], (1, shape.y, shape.x)).astype(np.uint8)
    found = read(stack_of(write(tmp_path / "a.tif", classes, RASTERS[name]), GRID, method))
    assert {*np.unique(found.pixels[np.dtype(np.uint8)])} == {0, 3, 90, 201}
    assert found.valid.mean() > 0.3


@METHODS
@pytest.mark.parametrize("name", RASTERS)
def test_whole_numbers_that_become_floats_are_those_of_a_raster_of_floats(
    tmp_path: Path, name: str, method: str
) -> None:
    floats, shape = np.dtype(np.float32), RASTERS[name].shape
    pixels = scene((shape.y, shape.x), 3)
    expected = read(stack_of(write(tmp_path / "floats.tif", pixels.astype(floats), RASTERS[name]), GRID, method))
    for dtype in ("uint16", "int32"):
        whole = stack_of(write(tmp_path / f"{dtype}.tif", pixels.astype(dtype), RASTERS[name]), GRID, method)
        asked = replace(whole, variables=tuple(replace(each, dtype=floats) for each in whole.variables))
        assert_equal(read(asked), expected)


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file of which each level says which one it is: 100, and its overviews 50 and 25."""
    path = tmp_path_factory.mktemp("telling") / "levels.tif"
    geobox = GeoBox((300, 300), Affine(10, 0, 690_000, 0, -10, 5_000_000), UTM33)
    write(path, np.full((2, 300, 300), 25, np.uint16), geobox, compress="deflate")
    for factors, value in (([2, 4], 50), ([2], 100)):
        with rasterio.open(path, "r+") as file:
            file.build_overviews(factors, Resampling.nearest)
        with rasterio.open(path, "r+") as file:
            file.write(np.full((2, 300, 300), value, np.uint16))
    return path


@pytest.mark.parametrize("forced", [False, True], ids=["cog", "gdal"])
@pytest.mark.parametrize(
    ("resolution", "value"), [(9, 100), (15, 100), (20, 50), (30, 50), (39, 50), (40, 25), (41, 25), (170, 25)]
)
def test_the_overview_just_finer_is_read_and_none_for_classes(
    telling: Path, resolution: float, value: int, forced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if forced:
        by_gdal(monkeypatch)
    side = int(2900 / resolution)
    grid = GeoBox((side, side), Affine(resolution, 0, 690_050, 0, -resolution, 4_999_950), UTM33)
    for method in RESAMPLINGS:
        found = read(stack_of(telling, grid, method))
        level = 100 if method in ("nearest", "mode") else value
        assert {*found.pixels[UINT16][found.shown(UINT16)]} == {level}
        assert found.valid.all()
