"""The window reader: no pixel depends on the cut, nearest is exact, what is not measured is never a number."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pystac
import pytest
import rasterio
from affine import Affine
from forgetting import forget
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp
from rasterio.shutil import copy

from geopipes.errors import GridError, NotGeoreferenced, ReadError, SourceError
from geopipes.read.headers import file_header
from geopipes.read.placing import placement
from geopipes.read.sources import Source, Variable
from geopipes.read.windows import read_source, read_variable

Array = np.ndarray[Any, Any]

UTM33 = GeoBox((1200, 1200), Affine(10, 0, 690_000, 0, -10, 5_000_000), "EPSG:32633")
ALBERS = "+proj=aea +lat_1=43 +lat_2=62 +lat_0=30 +lon_0=10 +datum=WGS84 +units=m"
ROTATED = Affine(8, 3, 690_000, 2.5, -9, 4_996_000)

RASTERS = {
    "same grid": UTM33,
    "same CRS, half a pixel off": GeoBox((1200, 1200), Affine(10, 0, 690_005, 0, -10, 5_000_003), "EPSG:32633"),
    "same CRS, 20 m": GeoBox((600, 600), Affine(20, 0, 690_000, 0, -20, 5_000_000), "EPSG:32633"),
    "neighbouring UTM zone": GeoBox((1200, 1200), Affine(10, 0, 214_000, 0, -10, 5_003_000), "EPSG:32634"),
    "Albers": GeoBox((1200, 1200), Affine(10, 0, 578_000, 0, -10, 1_682_000), ALBERS),
    "geographic": GeoBox((1200, 1200), Affine(1.3e-4, 0, 17.39, 0, -0.9e-4, 45.13), "EPSG:4326"),
    "rotated": GeoBox((1200, 1200), ROTATED, "EPSG:32633"),
    "bottom-up": GeoBox((1200, 1200), Affine(10, 0, 690_003, 0, 10, 4_988_004), "EPSG:32633"),
}

GRID = GeoBox((270, 600), Affine(10, 0, 690_900, 0, -10, 4_997_100), "EPSG:32633")
ROWS, COLS = slice(0, 270), slice(0, 600)


def part(geobox: GeoBox, row: float, col: float, shape: tuple[int, int]) -> GeoBox:
    """Give a grid of the same pixels that begins elsewhere."""
    a, b, c, d, e, f, *_ = geobox.affine
    return GeoBox(shape, Affine(a, b, c + a * col + b * row, d, e, f + d * col + e * row), geobox.crs)


def scene(shape: tuple[int, int]) -> Array:
    """Smooth fields with noise, from 1 up, and a hole of zeros."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    noise = np.random.default_rng(0).normal(0, 60, shape)
    pixels: Array = (3000 + 1000 * np.sin(x / 37) + 900 * np.cos(y / 23) + noise).astype(np.uint16)
    pixels[shape[0] // 3 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] = 0
    return pixels


def write(path: Path, pixels: Array, geobox: GeoBox, **profile: Any) -> Path:
    """Write (band, y, x) or (y, x) as a tiled GeoTIFF."""
    bands = pixels if pixels.ndim == 3 else pixels[None]
    count, height, width = bands.shape
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"} | profile
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=bands.dtype,
        crs=str(geobox.crs),
        transform=geobox.affine,
        **layout,
    ) as file:
        file.write(bands)
    return path


def source_of(path: Path | str, *, bands: tuple[int, ...] = (1,), **changes: Any) -> Source:
    header = file_header(str(path))
    source = Source(
        href=str(path),
        bands=bands,
        geobox=header.geobox,
        dtype=header.dtypes[bands[0] - 1],
        nodata=header.nodata[bands[0] - 1],
        item="S2A_33TXL",
        collection="sentinel-2-l2a",
        asset="red",
        time=np.datetime64("2024-05-01", "ns"),
    )
    return replace(source, **changes)


def variable_of(*sources: Source, resampling: str = "nearest", **changes: Any) -> Variable:
    first = sources[0]
    labels = None if len(first.bands) == 1 else tuple(f"b{band}" for band in first.bands)
    variable = Variable("red", first.dtype, first.nodata, resampling, labels, (sources,))
    return replace(variable, **changes)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    forget()


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Source]:
    """Give the raster of a name in RASTERS, written once: reflectances, or classes of 8 bits."""
    folder = tmp_path_factory.mktemp("rasters")

    @cache
    def written(name: str, *, classes: bool = False) -> Source:
        geobox = RASTERS[name]
        pixels = scene((geobox.shape.y, geobox.shape.x))
        pixels = np.ceil(pixels / 200).astype("uint8") if classes else pixels
        return source_of(write(folder / f"{name}, {classes}.tif", pixels, geobox, nodata=0))

    return written


def cut(
    variable: Variable, grid: GeoBox, size: int, stride: int, *, threads: int = 1, seed: int | None = None
) -> tuple[Array, Array]:
    """Read a grid window by window, from freshly opened files, and put it together."""
    forget()
    height, width = grid.shape
    data, valid = np.zeros(grid.shape, variable.dtype), np.zeros(grid.shape, bool)
    corners = [(row, col) for row in range(-13, height, stride) for col in range(-13, width, stride)]
    if seed is not None:
        random.Random(seed).shuffle(corners)

    def place(corner: tuple[int, int]) -> None:
        row, col = corner
        pixels, there = read_variable(variable, 0, grid, slice(row, row + size), slice(col, col + size))
        top, left = max(row, 0), max(col, 0)
        inside = slice(top - row, height - row), slice(left - col, width - col)
        data[top : row + size, left : col + size] = pixels[0][inside]
        valid[top : row + size, left : col + size] = there[0][inside]

    if threads == 1:
        for corner in corners:
            place(corner)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(place, corners))
    return data, valid


def assert_equal(found: tuple[Array, Array], expected: tuple[Array, Array]) -> None:
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])


# ---------------------------------------------------------------------------------------- the cut


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average", "mode"])
@pytest.mark.parametrize("name", RASTERS)
def test_pixels_do_not_depend_on_the_cut(raster: Callable[..., Source], name: str, resampling: str) -> None:
    # Average and mode trace the edges of every pixel, which takes GDAL longer; mode of 16 bits a second a chip.
    grid = part(GRID, 0, 0, (140, 540)) if resampling in ("average", "mode") else GRID
    variable = variable_of(raster(name, classes=resampling == "mode"), resampling=resampling)
    whole = cut(variable, grid, 64, 64)
    assert whole[1].mean() > 0.5
    assert_equal(cut(variable, grid, 100, 64, seed=1), whole)
    assert_equal(cut(variable, grid, 256, 256, threads=4), whole)
    assert_equal(cut(variable, grid, 700, 700), whole)


@pytest.mark.parametrize("resampling", ["bilinear", "cubic"])
def test_a_grid_smaller_than_a_warped_block_does_not_depend_on_the_cut_either(
    raster: Callable[..., Source], resampling: str
) -> None:
    grid = part(GRID, 0, 0, (270, 300))
    variable = variable_of(raster("neighbouring UTM zone"), resampling=resampling)
    forget()
    whole = read_source(variable.sources[0][0], grid, ROWS, slice(0, 300), resampling)
    assert_equal(cut(variable, grid, 64, 64), (whole[0][0], whole[1][0]))


@given(data=st.data())
def test_any_window_is_part_of_the_whole(raster: Callable[..., Source], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*RASTERS]))
    variable = variable_of(raster(name), resampling=data.draw(st.sampled_from(["nearest", "bilinear"])))
    height, width = GRID.shape
    row, col = data.draw(st.integers(-50, height)), data.draw(st.integers(-50, width))
    rows = slice(row, row + data.draw(st.integers(1, 400)))
    cols = slice(col, col + data.draw(st.integers(1, 400)))
    whole, whole_valid = read_variable(variable, 0, GRID, slice(-50, height + 400), slice(-50, width + 400))
    pixels, valid = read_variable(variable, 0, GRID, rows, cols)
    part = (0, slice(row + 50, rows.stop + 50), slice(col + 50, cols.stop + 50))
    assert_equal((pixels[0], valid[0]), (whole[part], whole_valid[part]))


# ---------------------------------------------------------------------------------------- where pixels come from


def exact_nearest(source: Source, grid: GeoBox) -> tuple[Array, Array, Array]:
    """Compute nearest pixel by pixel with PROJ alone: pixels, validity, and which are no ties within 0.001 px."""
    pixels = rasterio.open(source.href).read(source.bands[0])
    rows, cols = np.mgrid[: grid.shape[0], : grid.shape[1]] + 0.5
    a, b, c, d, e, f, *_ = grid.affine
    to_raster = pyproj.Transformer.from_crs(str(grid.crs), str(source.geobox.crs), always_xy=True)
    x, y = to_raster.transform(a * cols + b * rows + c, d * cols + e * rows + f)
    a, b, c, d, e, f, *_ = ~source.geobox.affine
    col, row = a * x + b * y + c, d * x + e * y + f
    clear = (np.abs(col - np.rint(col)) > 1e-3) & (np.abs(row - np.rint(row)) > 1e-3)
    inside = (col >= 0) & (col < pixels.shape[1]) & (row >= 0) & (row < pixels.shape[0])
    found = np.zeros(grid.shape, pixels.dtype)
    found[inside] = pixels[np.floor(row[inside]).astype(int), np.floor(col[inside]).astype(int)]
    return found, inside & (found != 0), clear


@pytest.mark.parametrize("name", [name for name in RASTERS if name != "same CRS, half a pixel off"])
def test_nearest_is_exact(raster: Callable[..., Source], name: str) -> None:
    source = raster(name)
    data, valid = read_source(source, GRID, ROWS, COLS, "nearest")
    expected, expected_valid, clear = exact_nearest(source, GRID)
    assert clear.mean() > 0.9
    assert valid.mean() > 0.5
    np.testing.assert_array_equal(valid[0][clear], expected_valid[clear])
    np.testing.assert_array_equal(data[0][clear & valid[0]], expected[clear & valid[0]])


def test_a_raster_on_the_same_grid_is_copied(raster: Callable[..., Source]) -> None:
    source = raster("same grid")
    assert placement(source.geobox, GRID).offset == (-290, -90)
    for resampling in ("nearest", "cubic", "average"):
        data, valid = read_source(source, GRID, slice(5, 105), COLS, resampling)
        expected = rasterio.open(source.href).read(1)[295:395, 90:690]
        assert_equal((data[0], valid[0]), (expected, expected != 0))


@pytest.mark.parametrize(("shift", "same"), [(0.0, True), (1e-8, True), (1e-4, False), (5.0, False), (-30.0, True)])
def test_same_grid_means_whole_pixels_apart(shift: float, same: bool) -> None:
    moved = part(UTM33, 0, shift / 10, (1200, 1200))
    assert (placement(UTM33, moved).offset is not None) == same


def test_kernels_widen_by_the_fixed_ratio_of_resolutions(tmp_path: Path) -> None:
    pixels = np.maximum(scene((1200, 1200)), 1)
    source = source_of(write(tmp_path / "fine.tif", pixels, UTM33))
    coarse = GeoBox((200, 200), Affine(60, 0, 690_000, 0, -60, 5_000_000), "EPSG:32633")
    assert placement(UTM33, coarse).scale == pytest.approx((1 / 6, 1 / 6))
    data, _ = read_source(source, coarse, slice(0, 200), slice(0, 200), "cubic")
    mean = pixels.reshape(200, 6, 200, 6).mean(axis=(1, 3))
    apart = np.abs(data[0] - mean)[75:195, 105:195].mean()  # away from the hole's sharp edge
    assert apart < 12  # a kernel of 4 x 4 source pixels is off by 30
    data, _ = read_source(source, coarse, slice(0, 200), slice(0, 200), "average")
    assert np.abs(data[0] - mean).max() <= 0.5


def test_the_ratio_is_measured_along_the_raster_s_own_axes() -> None:
    turned = GeoBox((100, 100), Affine(0, 30, 690_000, -10, 0, 5_000_000), "EPSG:32633")  # by a quarter turn
    assert placement(turned, GRID).scale == pytest.approx((3, 1))
    globe = GeoBox((360, 720), Affine(0.5, 0, -180, 0, -0.5, 90), "EPSG:4326")
    scale = placement(globe, GRID).scale
    assert scale == pytest.approx((5556, 5556 * np.cos(np.deg2rad(42))), rel=0.02)  # the middle of the zone
    assert placement(globe, GRID).touches(slice(0, 1), slice(0, 1))


# ---------------------------------------------------------------------------------------- validity

SHIFTED = GeoBox((60, 60), Affine(10, 0, 689_903, 0, -10, 5_000_107), "EPSG:32633")  # beyond the edge, off the grid
ON_GRID = GeoBox((60, 60), Affine(10, 0, 689_900, 0, -10, 5_000_100), "EPSG:32633")
SMALL = GeoBox((80, 80), UTM33.affine, UTM33.crs)
ALL = slice(0, 60)
BOTH = pytest.mark.parametrize("grid", [SHIFTED, ON_GRID], ids=["warped", "copied"])


def holed(dtype: str, value: float, hole: float) -> Array:
    pixels = np.full((80, 80), value, dtype)
    pixels[20:30, 20:40] = hole
    return pixels


@BOTH
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average", "mode"])
@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 0), ("int16", -9999), ("float32", -9999), ("float32", np.nan), ("int8", -128)]
)
def test_nodata_is_never_mixed_in(tmp_path: Path, grid: GeoBox, resampling: str, dtype: str, nodata: float) -> None:
    source = source_of(write(tmp_path / "a.tif", holed(dtype, 100, nodata), SMALL, nodata=nodata))
    data, valid = read_source(source, grid, ALL, ALL, resampling)
    assert set(data[valid]) == {100}
    assert not valid[0, :10].any()
    assert not valid[0, :, :9].any()
    assert not valid[0, 32:38, 32:48].any()
    assert valid[0, 12:28, 12:28].all()


@BOTH
def test_without_nodata_all_of_the_raster_is_valid(tmp_path: Path, grid: GeoBox) -> None:
    source = source_of(write(tmp_path / "a.tif", holed("uint8", 100, 0), SMALL))
    data, valid = read_source(source, grid, ALL, ALL, "nearest")
    assert set(data[valid]) == {0, 100}
    assert valid[0, 11:, 11:].all()
    assert not valid[0, :10].any()
    assert not valid[0, :, :9].any()


@BOTH
@pytest.mark.parametrize("nodata", [-9999, 256, 0.5, np.nan])
def test_nodata_that_the_dtype_cannot_hold_marks_nothing(tmp_path: Path, grid: GeoBox, nodata: float) -> None:
    source = source_of(write(tmp_path / "a.tif", holed("uint8", 255, 0), SMALL), nodata=nodata)
    _, valid = read_source(source, grid, ALL, ALL, "nearest")
    assert valid[0, 11:, 11:].all()


@BOTH
def test_the_stated_nodata_goes_before_the_file_s_and_the_file_s_before_none(tmp_path: Path, grid: GeoBox) -> None:
    path = write(tmp_path / "a.tif", holed("uint8", 100, 7), SMALL, nodata=100)
    for stated, value in ((7, 100), (None, 7)):
        data, valid = read_source(source_of(path, nodata=stated), grid, ALL, ALL, "nearest")
        assert set(data[valid]) == {value}


@BOTH
def test_nan_is_no_measurement_whatever_nodata_is(tmp_path: Path, grid: GeoBox) -> None:
    for stated in (None, -1.0):
        source = source_of(write(tmp_path / "a.tif", holed("float32", 5, np.nan), SMALL), nodata=stated)
        data, valid = read_source(source, grid, ALL, ALL, "bilinear")
        assert set(data[valid]) == {5}


@BOTH
def test_each_band_is_valid_for_itself(tmp_path: Path, grid: GeoBox) -> None:
    bands = np.stack([holed("int16", 100, -1), np.full((80, 80), 200, "int16")])
    source = source_of(write(tmp_path / "a.tif", bands, SMALL, nodata=-1), bands=(2, 1))
    data, valid = read_source(source, grid, ALL, ALL, "bilinear")
    assert set(data[0][valid[0]]) == {200}
    assert set(data[1][valid[1]]) == {100}
    assert valid[0, 11:, 11:].all()
    assert not valid[1, 32:38, 32:48].any()


@BOTH
@pytest.mark.parametrize("nodata", [None, 9])
@pytest.mark.parametrize("kind", ["alpha", "mask"])
def test_the_file_s_own_mask_counts(tmp_path: Path, grid: GeoBox, nodata: float | None, kind: str) -> None:
    shown = np.where(holed("uint8", 255, 0) > 0, 255, 0).astype("uint8")
    pixels = np.full((80, 80), 50, "uint8")
    pixels[40:, 40:] = 9
    path = write(tmp_path / "a.tif", np.stack([pixels, shown]) if kind == "alpha" else pixels, SMALL)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        if kind == "alpha":
            file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
        else:
            file.write_mask(shown)
    data, valid = read_source(source_of(path, nodata=nodata), grid, ALL, ALL, "nearest")
    assert not valid[0, 32:38, 32:48].any()
    assert valid[0, 12:28, 12:28].all()
    assert set(data[valid]) == ({50, 9} if nodata is None else {50})


@BOTH
@pytest.mark.parametrize(("nodata", "measured"), [(7, False), (None, True)])
def test_absent_tiles_are_nodata_or_else_zeros(
    tmp_path: Path, grid: GeoBox, nodata: float | None, measured: bool
) -> None:
    path = tmp_path / "sparse.tif"
    profile = {"count": 1, "height": 80, "width": 80, "dtype": "uint8", "crs": "EPSG:32633", "sparse_ok": True}
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16, "nodata": nodata}
    with rasterio.open(path, "w", driver="GTiff", transform=SMALL.affine, **profile, **tiles) as file:
        file.write(np.ones((1, 32, 80), "uint8"), window=((0, 32), (0, 80)))
    data, valid = read_source(source_of(path), grid, ALL, ALL, "nearest")
    assert (data[0, 11:42, 11:] == 1).all()
    assert valid[0, 11:42, 11:].all()
    assert (valid[0, 43:, 11:] == measured).all()
    assert (data[0, 43:, 11:] == (nodata or 0)).all()


# ---------------------------------------------------------------------------------------- variables


def test_the_first_valid_source_wins_in_each_pixel(tmp_path: Path) -> None:
    first = source_of(write(tmp_path / "1.tif", holed("uint8", 1, 0), SMALL, nodata=0))
    second = source_of(write(tmp_path / "2.tif", np.full((80, 80), 2, "uint8"), SMALL, nodata=0))
    variable = variable_of(first, second, dtype=np.dtype("int16"), nodata=-1)
    data, valid = read_variable(variable, 0, ON_GRID, slice(-5, 60), slice(0, 70))
    assert data.dtype == np.int16
    assert data.shape == valid.shape == (1, 65, 70)
    assert (data[0, 35:45, 30:50] == 2).all()
    assert (data[0, 16:35, 11:60] == 1).all()
    assert not valid[0, :15].any()  # above the grid, then above the rasters
    assert not valid[0, :, 60:].any()
    assert set(data[~valid]) == {-1}


@pytest.mark.parametrize(("dtype", "nodata", "fill"), [("float32", -1, np.nan), ("uint8", None, 0), ("uint8", 9, 9)])
def test_what_is_not_valid_says_so(tmp_path: Path, dtype: str, nodata: float | None, fill: float) -> None:
    source = source_of(write(tmp_path / "1.tif", holed("uint8", 1, 0), SMALL, nodata=0))
    variable = variable_of(source, dtype=np.dtype(dtype), nodata=nodata)
    for rows in (ALL, slice(-40, -20), slice(200, 220)):
        data, valid = read_variable(variable, 0, ON_GRID, rows, ALL)
        np.testing.assert_array_equal(data[~valid], np.full((~valid).sum(), fill, dtype))
        assert (data[valid] == 1).all()


def test_rasters_that_do_not_touch_or_are_not_needed_are_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = []
    for i in range(4):
        place = part(UTM33, 0, 64 * i, (64, 64))
        tiles.append(source_of(write(tmp_path / f"{i}.tif", np.full((64, 64), i + 1, "uint8"), place)))
    names: list[str] = []
    really = rasterio.open

    def counted(name: str) -> Any:
        names.append(Path(name).stem)
        return really(name)

    monkeypatch.setattr(rasterio, "open", counted)
    grid = GeoBox((64, 256), UTM33.affine, UTM33.crs)
    data, valid = read_variable(variable_of(*tiles), 0, grid, slice(0, 64), slice(64, 150))
    assert names == ["1", "2"]
    assert (data == np.where(np.arange(86) < 64, 2, 3)).all()
    assert valid.all()
    names.clear()
    forget()
    read_variable(variable_of(tiles[1], tiles[1], tiles[2]), 0, grid, slice(0, 64), slice(64, 128))
    read_variable(variable_of(tiles[1]), 0, grid, slice(0, 32), slice(64, 128))
    assert names == ["1"]  # the first fills the window, and stays open
    over = GeoBox((64, 64), Affine(10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32634")
    read_variable(variable_of(*tiles), 0, over, slice(0, 64), slice(0, 64))
    assert names == ["1"]


# ---------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("in_place", [True, False])
def test_the_modifier_signs_when_a_file_is_opened(tmp_path: Path, in_place: bool) -> None:
    path = write(tmp_path / "a.tif", np.ones((80, 80), "uint8"), SMALL)
    seen: list[tuple[str, str | None, list[str]]] = []

    def sign(item: pystac.Item) -> pystac.Item | None:
        seen.append((item.id, item.collection_id, [*item.assets]))
        signed = item if in_place else item.clone()
        signed.assets["red"].href = signed.assets["red"].href.removeprefix("signed://")
        return None if in_place else signed

    source = source_of(path, modifier=sign, href=f"signed://{path}")
    for rows in (slice(0, 30), slice(30, 60)):
        _, valid = read_source(source, ON_GRID, rows, ALL, "nearest")
        assert valid.any()
    assert seen == [("S2A_33TXL", "sentinel-2-l2a", ["red"])]
    assert source.href.startswith("signed://")


# ---------------------------------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    "stated",
    [
        GeoBox((80, 81), SMALL.affine, SMALL.crs),
        part(SMALL, 0, 0.5, (80, 80)),
        GeoBox((80, 80), SMALL.affine, "EPSG:32632"),
    ],
    ids=["shape", "transform", "CRS"],
)
def test_an_item_that_misstates_its_file_is_an_error(tmp_path: Path, stated: GeoBox) -> None:
    source = source_of(write(tmp_path / "a.tif", np.ones((80, 80), "uint8"), SMALL), geobox=stated)
    with pytest.raises(SourceError) as error:
        read_source(source, stated, slice(0, 10), slice(0, 10), "nearest")
    text = str(error.value)
    assert "item 'S2A_33TXL', asset 'red'" in text
    assert f"the item states {stated.crs}, transform (10.0, 0.0, {stated.affine.c}" in text
    assert f"shape {tuple(stated.shape)} (y, x); the file has EPSG:32633, transform (10.0, 0.0, 690000.0" in text
    assert 'stack(..., headers="file")' in text


def test_rounded_transforms_are_no_misstatement(tmp_path: Path) -> None:
    sinusoidal = "+proj=sinu +R=6371007.181 +units=m"
    exact = GeoBox((80, 80), Affine(463.3127165279165, 0, -1111950.5196665, 0, -463.3127165279165, 5e6), sinusoidal)
    rounded = GeoBox((80, 80), Affine(463.3127, 0, -1111950.52, 0, -463.3127, 5e6), sinusoidal)
    source = source_of(write(tmp_path / "a.tif", np.ones((80, 80), "uint8"), exact), geobox=rounded)
    _, valid = read_source(source, rounded, slice(0, 80), slice(0, 80), "nearest")
    assert valid.all()


@BOTH
def test_bands_and_dtypes_that_are_not_there_are_errors(tmp_path: Path, grid: GeoBox) -> None:
    source = source_of(write(tmp_path / "a.tif", np.ones((2, 80, 80), "int16"), SMALL))
    for bands in ((3,), (0,), (1, 3)):
        with pytest.raises(SourceError, match=r"bands .* were asked for; the file has 1 to 2"):
            read_source(replace(source, bands=bands), grid, ALL, ALL, "nearest")
    with pytest.raises(SourceError, match=r"the item states uint16 pixels, the file has int16\. Write stack"):
        read_source(replace(source, dtype=np.dtype("uint16")), grid, ALL, ALL, "nearest")
    data, _ = read_source(replace(source, dtype=np.dtype("float32")), grid, ALL, ALL, "nearest")
    assert data.dtype == np.float32


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_file_without_crs_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", count=1, height=80, width=80, dtype="uint8") as file:
        file.write(np.ones((1, 80, 80), "uint8"))
    known = source_of(write(tmp_path / "b.tif", np.ones((80, 80), "uint8"), SMALL))
    with pytest.raises(NotGeoreferenced, match=r"item 'S2A_33TXL', asset 'red' .*: .* the file has no CRS"):
        read_source(replace(known, href=str(path)), SHIFTED, ALL, ALL, "nearest")


@BOTH
def test_a_missing_file_is_an_error(tmp_path: Path, grid: GeoBox) -> None:
    path = write(tmp_path / "a.tif", np.ones((80, 80), "uint8"), SMALL)
    source = source_of(path)
    path.unlink()
    with pytest.raises(ReadError, match=r"'S2A_33TXL', asset 'red' \(.*a\.tif\): .*No such file.* rows 0\.\.60"):
        read_source(source, grid, ALL, ALL, "nearest")


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "cut":
        del content[len(content) // 2 :]
    else:
        middle = len(content) * 3 // 4
        content[middle : middle + 200] = bytes(255 - byte for byte in content[middle : middle + 200])
    path.write_bytes(content)


def failure(source: Source, window: tuple[slice, slice]) -> str:
    """Give the text of the error that reading a window raises, or none."""
    try:
        read_source(source, GRID, *window, "bilinear")
    except ReadError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("layout", ["GTiff", "COG"])
@pytest.mark.parametrize("kind", ["cut", "flipped"])
@pytest.mark.parametrize("name", ["same grid", "same CRS, half a pixel off", "neighbouring UTM zone"])
def test_damaged_files_raise_and_go_on_raising(tmp_path: Path, name: str, kind: str, layout: str) -> None:
    geobox = part(RASTERS[name], 0, 90, (600, 600))
    path = write(tmp_path / "a.tif", scene((600, 600)), geobox, nodata=0)
    if layout == "COG":
        copy(path, tmp_path / "cog.tif", driver="COG", blocksize=256, overviews="NONE")
        path = tmp_path / "cog.tif"
    source = source_of(path, modifier=lambda item: None)
    whole = read_source(source, GRID, ROWS, COLS, "bilinear")
    forget()
    damage(path, kind)
    windows = [
        (slice(row, row + 100), slice(col, col + 100)) for row in range(0, 200, 100) for col in range(0, 600, 100)
    ]
    first, second = ([failure(source, window) for window in windows] for _ in range(2))
    assert [bool(text) for text in first] == [bool(text) for text in second]
    assert any(first)
    for (rows, cols), text in zip(windows, first, strict=True):
        if text:
            assert f"asset 'red' ({path}): tile (" in text
            assert f"(needed for rows {rows.start}..{rows.stop}, columns {cols.start}..{cols.stop} of the grid)" in text
            assert "See previous exception" not in text
        else:
            data, valid = read_source(source, GRID, rows, cols, "bilinear")
            assert_equal((data, valid), (whole[0][:, rows, cols], whole[1][:, rows, cols]))


def test_errors_show_the_href_unsigned(tmp_path: Path) -> None:
    path = write(tmp_path / "secret.tif", scene((600, 600)), GeoBox((600, 600), UTM33.affine, UTM33.crs))
    plain = str(tmp_path / "plain.tif")

    def sign(item: pystac.Item) -> None:
        item.assets["red"].href = item.assets["red"].href.replace("plain", "secret")

    source = replace(source_of(path), href=plain, modifier=sign)
    damage(path, "cut")
    for attempt in (source, source, replace(source, item="gone", modifier=None)):
        try:
            raise ValueError("an error that has nothing to do with it")
        except ValueError:
            with pytest.raises(ReadError, match=r"Read error|No such file") as error:
                read_source(attempt, UTM33, slice(0, 600), slice(0, 600), "nearest")
        assert plain in str(error.value)
        assert "secret" not in str(error.value)


def test_windows_and_methods_that_do_not_exist_are_errors(raster: Callable[..., Source]) -> None:
    with pytest.raises(GridError, match=r"rows 0\.\.271, columns 0\.\.10 of the grid: the grid has 270 x 600 px"):
        read_source(raster("same grid"), GRID, slice(0, 271), slice(0, 10), "nearest")
    with pytest.raises(SourceError, match=r"resampling='gauss': write one of nearest, bilinear"):
        read_source(raster("same grid"), GRID, slice(0, 10), slice(0, 10), "gauss")
