"""Warps: where pixels lie, whatever the window, and kernels against GDAL's exact warp."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from geopipes.errors import GridError
from geopipes.grids import crs_of
from geopipes.read.warps import Located, located, operation, resample, touched
from geopipes.read.warps.lattices import ONE, positions
from geopipes.read.warps.pairs import paired

Array = NDArray[Any]

PLAIN = (1.0, 1.0)
SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"


def box(shape: tuple[int, int], resolution: float, left: float, top: float, crs: str) -> GeoBox:
    return GeoBox(shape, Affine(resolution, 0, left, 0, -resolution, top), crs)


GRID = box((400, 400), 10, 500_000, 5_000_000, "EPSG:32633")
POLE = box((300, 300), 5_000, -750_000, 750_000, "EPSG:3413")
FIJI = box((300, 300), 30, 175_500, 8_180_010, "EPSG:32701")

PAIRS = {
    "utm to utm": (box((900, 900), 10, 970_000, 5_018_500, "EPSG:32632"), GRID),
    "utm to laea": (
        box((900, 900), 10, 500_003, 5_003_000, "EPSG:32633"),
        box((300, 300), 10, 4_717_600, 2_462_550, "EPSG:3035"),
    ),
    "albers to utm": (
        box((500, 500), 30, -15_000, 2_105_000, "EPSG:5070"),
        box((300, 300), 30, 737_010, 4_645_020, "EPSG:32614"),
    ),
    "degrees to utm": (box((900, 900), 1e-4, 14.98, 45.17, "EPSG:4326"), GRID),
    "sinusoidal to utm": (box((600, 600), 463.3127165, 1_050_000, 5_150_000, SINUSOIDAL), GRID),
    "utm to sinusoidal": (GRID, box((40, 40), 463.3127165, 1_170_000, 5_027_000, SINUSOIDAL)),
    "degrees to the pole": (box((100, 3600), 0.1, -180, 90, "EPSG:4326"), POLE),
    "pole to degrees": (POLE, box((200, 300), 0.02, -20, 90, "EPSG:4326")),
    "over the antimeridian": (box((500, 500), 30, 812_000, 8_182_000, "EPSG:32760"), FIJI),
    "degrees east of 180": (box((500, 500), 5e-4, 179.95, -16.3, "EPSG:4326"), FIJI),
    "degrees west of -180": (box((500, 500), 5e-4, -180.05, -16.3, "EPSG:4326"), FIJI),
    "rotated": (GeoBox((900, 900), Affine(8, 5, 498_000, 5, -8, 5_000_500), "EPSG:32633"), GRID),
    "rotated across zones": (GeoBox((900, 900), Affine(8, 5, 970_000, 5, -8, 5_017_500), "EPSG:32632"), GRID),
    "bottom-up": (GeoBox((500, 500), Affine(10, 0, 499_995, 0, 10, 4_995_500), "EPSG:32633"), GRID),
    "the globe": (
        box((1800, 3600), 0.1, -180, 90, "EPSG:4326"),
        box((60, 90), 2_000, 400_000, 5_100_000, "EPSG:32633"),
    ),
    "the globe from 0": (box((1800, 3600), 0.1, 0, 90, "EPSG:4326"), FIJI),
    "coarse grid": (
        box((900, 900), 10, 970_000, 5_018_500, "EPSG:32632"),
        box((20, 20), 1_000, 495_000, 5_005_000, "EPSG:32633"),
    ),
}


def places(raster: GeoBox, grid: GeoBox, rows: slice, cols: slice) -> Array:
    """Row and col coordinates as `located` has them, [px]; NaN where there are none."""
    pair, (row, col) = paired(raster, grid)
    fixed = positions(pair, (row + rows.start, row + rows.stop), (col + cols.start, col + cols.stop), 0.5)
    return np.where(fixed < -(1 << 59), np.nan, fixed / ONE)


def projected(raster: GeoBox, grid: GeoBox, rows: slice, cols: slice) -> Array:
    """The same by pyproj, pixel by pixel."""
    y, x = np.meshgrid(np.arange(rows.start, rows.stop) + 0.5, np.arange(cols.start, cols.stop) + 0.5, indexing="ij")
    a, _, left, _, e, top, *_ = grid.affine
    back = pyproj.Transformer.from_crs(crs_of(grid).proj, crs_of(raster).proj, always_xy=True)
    x, y = back.transform(left + a * x, top + e * y)
    x0, y0 = raster.affine.c, raster.affine.f
    if crs_of(raster).geographic:
        middle = x0 + raster.affine.a * raster.shape.x / 2
        x = middle + (x - middle + 180) % 360 - 180
    inverse = np.linalg.inv([[raster.affine.a, raster.affine.b], [raster.affine.d, raster.affine.e]])
    col, row = np.tensordot(inverse, np.stack([x - x0, y - y0]), 1)
    return np.stack([row, col])


@pytest.mark.parametrize("name", PAIRS)
def test_pixels_lie_within_a_hundredth_of_a_pixel_of_pyproj(name: str) -> None:
    raster, grid = PAIRS[name]
    rows, cols = slice(0, min(grid.shape.y, 150)), slice(30 % grid.shape.x, min(grid.shape.x, 190))
    if name == "degrees to the pole":
        rows, cols = slice(100, 200), slice(110, 190)
    found, expected = places(raster, grid, rows, cols), projected(raster, grid, rows, cols)
    off = np.abs(found - expected)
    if crs_of(raster).geographic and abs(raster.affine.a * raster.shape.x) == 360:
        off[1] = np.minimum(off[1], raster.shape.x - off[1])  # left of the seam is right of it
    inside = (expected > -1000).all(axis=0) & (expected < 1e5).all(axis=0)
    assert inside.any()
    assert off[:, inside].max() < 0.01


@st.composite
def windows(draw: st.DrawFn, height: int, width: int) -> tuple[slice, slice]:
    top, left = draw(st.integers(-20, height - 2)), draw(st.integers(-20, width - 2))
    tall, wide = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    return slice(top, top + tall), slice(left, left + wide)


CUT = (
    "utm to utm",
    "degrees to the pole",
    "rotated",
    "bottom-up",
    "degrees east of 180",
    "coarse grid",
    "the globe from 0",
)
WHOLE = slice(-20, 150)


@pytest.mark.parametrize("name", CUT)
@settings(max_examples=8)
@given(data=st.data())
def test_a_place_does_not_depend_on_the_window(name: str, data: st.DataObject) -> None:
    raster, grid = PAIRS[name]
    whole = places(raster, grid, WHOLE, WHOLE)
    rows, cols = data.draw(windows(80, 80))
    inside = (slice(None), slice(rows.start + 20, rows.stop + 20), slice(cols.start + 20, cols.stop + 20))
    np.testing.assert_array_equal(places(raster, grid, rows, cols), whole[inside])


@pytest.mark.parametrize("phase", [0, 0.5, 1 / 3])
def test_grids_with_other_bounds_have_the_same_places(phase: float) -> None:
    raster, _ = PAIRS["utm to utm"]
    x, y = 500_000 + 10 * phase, 5_000_000 - 10 * phase
    one = box((400, 400), 10, x, y, "EPSG:32633")
    other = box((90, 70), 10, x + 370, y - 530, "EPSG:32633")
    rows, cols = slice(0, 90), slice(0, 70)
    there = slice(53, 143), slice(37, 107)
    np.testing.assert_array_equal(places(raster, one, *there), places(raster, other, rows, cols))


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average", "mode"])
@settings(max_examples=12)
@given(data=st.data())
def test_touched_holds_the_window(resampling: str, data: st.DataObject) -> None:
    raster, grid = PAIRS[data.draw(st.sampled_from(CUT))]
    rows, cols = data.draw(windows(*grid.shape))
    scale = data.draw(st.sampled_from([PLAIN, (0.4, 0.25)]))
    need = located(raster, grid, rows, cols, resampling, scale).window
    have = touched(raster, grid, rows, cols, resampling, scale)
    if need is not None:
        assert have is not None
        for inner, outer in zip(need, have, strict=True):
            assert outer.start <= inner.start < inner.stop <= outer.stop


def test_touched_is_none_where_nothing_is() -> None:
    raster, grid = PAIRS["utm to utm"]
    far = slice(9_000, 9_100), slice(0, 100)
    assert touched(raster, grid, *far, "nearest", PLAIN) is None
    assert located(raster, grid, *far, "nearest", PLAIN).window is None


# Kernels.


def image(shape: Sequence[int], dtype: str, bands: int = 1) -> Array:
    """A smooth image with some texture, positive."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    smooth = 60 + 40 * np.sin(x / 9) * np.cos(y / 7)
    texture = np.random.default_rng(0).normal(0, 4, shape)
    scale = {"uint8": 1, "int16": 100, "uint16": 300, "int32": 1e6, "int64": 1e12}.get(dtype, 1.5)
    return np.stack([((smooth + texture) * scale + band).astype(dtype) for band in range(bands)])


def warp(
    raster: GeoBox,
    grid: GeoBox,
    pixels: Array,
    resampling: str,
    scale: tuple[float, float] = PLAIN,
    *,
    nodata: float | None = None,
    mask: Array | None = None,
    window: tuple[slice, slice] | None = None,
    crop: tuple[slice, slice] | None = None,
    dtype: str | None = None,
) -> tuple[Array, Array]:
    """All of it: locate, crop, resample."""
    rows, cols = window or (slice(0, grid.shape.y), slice(0, grid.shape.x))
    where = located(raster, grid, rows, cols, resampling, scale)
    shape = (len(pixels), rows.stop - rows.start, cols.stop - cols.start)
    out, ok = np.zeros(shape, dtype or pixels.dtype), np.zeros(shape, bool)
    if where.window is not None:
        part = crop or where.window
        cut = np.ascontiguousarray(pixels[(slice(None), *part)])
        mask = None if mask is None else np.ascontiguousarray(mask[part])
        origin = part[0].start, part[1].start
        resample(where, cut, mask, [nodata] * len(pixels), origin, raster.shape, out, ok)
    return out, ok


def gdal(
    raster: GeoBox, grid: GeoBox, pixels: Array, resampling: str, scale: tuple[float, float] = PLAIN, nodata: Any = None
) -> tuple[Array, Array]:
    """GDAL's exact warp of all of it, and where it is valid."""
    bands, (height, width) = len(pixels), pixels.shape[1:]
    profile = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": pixels.dtype}
    with MemoryFile() as memory:
        with memory.open(**profile, crs=str(raster.crs), transform=raster.affine) as file:
            file.write(pixels)
        with rasterio.Env(GDAL_VRT_WARP_USE_DATASET_RASTERIO="NO"), memory.open() as file:
            options = {
                "resampling": rasterio.enums.Resampling[resampling],
                "tolerance": 1e-6,
                "UNIFIED_SRC_NODATA": "NO",
                "XSCALE": scale[1],
                "YSCALE": scale[0],
            }
            place = {"crs": str(grid.crs), "transform": grid.affine, "height": grid.shape.y, "width": grid.shape.x}
            with WarpedVRT(file, src_nodata=nodata, nodata=nodata, add_alpha=nodata is None, **options, **place) as vrt:
                data = vrt.read()
    if nodata is None:
        return data[:bands], np.broadcast_to(data[bands:] > 0, data[:bands].shape)
    return data, data != nodata if nodata == nodata else ~np.isnan(data)


ZONES = (box((130, 140), 10, 971_480, 5_017_800, "EPSG:32632"), box((100, 110), 10, 500_000, 5_000_000, "EPSG:32633"))
OVER_EDGES = box((160, 170), 10, 499_700, 5_000_300, "EPSG:32633")
FIVEFOLD = box((26, 28), 50, 499_900, 5_000_100, "EPSG:32633")
FIFTH = (0.2, 0.2)


def holed(pixels: Array, nodata: float) -> Array:
    """An image with a hole and scattered gaps."""
    pixels = pixels.copy()
    pixels[:, 30:50, 40:60] = nodata
    pixels[:, np.random.default_rng(1).random(pixels.shape[1:]) < 0.02] = nodata
    return pixels


def allowed(raster: GeoBox, grid: GeoBox, pixels: Array) -> Array:
    """1 DN of rounding, and 1/256 px along each axis of the steepest gradient nearby: parts are told by 1/256 px."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(pixels[0], 2, "reflect"), (5, 5))
    steepest = (around.max(axis=(2, 3)).astype(np.float32) - around.min(axis=(2, 3)))[None]
    near: Array = gdal(raster, grid, steepest, "nearest")[0][0]
    return 1 + 2 / 256 * near


@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize("grid", [ZONES[1], OVER_EDGES])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_interpolation_is_gdals(resampling: str, grid: GeoBox, nodata: int | None) -> None:
    raster = ZONES[0]
    pixels = holed(image(raster.shape, "uint16"), 0) if nodata == 0 else image(raster.shape, "uint16")
    out, ok = warp(raster, grid, pixels, resampling, nodata=nodata)
    expected, valid = gdal(raster, grid, pixels, resampling, nodata=nodata)
    np.testing.assert_array_equal(ok, valid)
    off = np.abs(out.astype(float) - expected)[0]
    if resampling == "nearest":
        assert not off[ok[0]].any()
    else:
        assert (off <= allowed(raster, grid, pixels))[ok[0]].all()


@pytest.mark.parametrize("resampling", ["bilinear", "cubic"])
def test_kernels_widen_as_gdals(resampling: str) -> None:
    # Inside alone: where pixels are missing GDAL weighs the others by a widened cubic, we by a widened bilinear.
    raster, grid = ZONES[0], FIVEFOLD
    pixels, inside = image(raster.shape, "uint16"), (0, slice(5, -7), slice(5, -7))
    out, ok = warp(raster, grid, pixels, resampling, FIFTH)
    expected, valid = gdal(raster, grid, pixels, resampling, FIFTH)
    np.testing.assert_array_equal(ok, valid)
    assert (np.abs(out.astype(float) - expected)[inside] <= allowed(raster, grid, pixels)[inside[1:]]).all()


def test_averages_are_of_areas() -> None:
    # Edges on 1/256 px: exact sums, halves up.
    raster = box((40, 60), 16, 500_000, 5_000_000, "EPSG:32633")
    grid = box((12, 20), 40, 500_008, 4_999_992, "EPSG:32633")
    pixels = image(raster.shape, "uint16")
    fine = np.kron(pixels[0].astype(np.int64), np.ones((2, 2), np.int64))  # 8 m: whole pixels of both
    blocks = fine[1:61, 1:101].reshape(12, 5, 20, 5).sum(axis=(1, 3))
    out, ok = warp(raster, grid, pixels, "average", (0.4, 0.4))
    assert ok.all()
    np.testing.assert_array_equal(out[0], (2 * blocks + 25) // 50)
    expected, _ = gdal(raster, grid, pixels, "average", (0.4, 0.4))
    assert np.abs(out.astype(int) - expected).max() <= 1  # halves


def test_turned_averages_are_near_gdals() -> None:
    # GDAL averages the upright box around two corners of a pixel, we the turned pixel: 4 degrees here.
    raster, grid = ZONES[0], FIVEFOLD
    pixels, inside = image(raster.shape, "uint16"), (0, slice(5, -7), slice(5, -7))
    out, ok = warp(raster, grid, pixels, "average", FIFTH)
    expected, _ = gdal(raster, grid, pixels, "average", FIFTH)
    off = np.abs(out.astype(float) - expected)[inside]
    assert ok[inside].all()
    assert off.mean() < 0.05 * pixels.std()


def test_averages_leave_out_what_is_missing() -> None:
    raster = box((40, 60), 10, 500_000, 5_000_000, "EPSG:32633")
    grid = box((10, 15), 40, 500_000, 5_000_000, "EPSG:32633")
    pixels = image(raster.shape, "uint16")
    pixels[0, :4, :4] = 0
    pixels[0, 0, 4:7] = 0
    out, ok = warp(raster, grid, pixels, "average", (0.25, 0.25), nodata=0)
    assert not ok[0, 0, 0]
    assert ok[0].sum() == ok[0].size - 1
    some = pixels[0, :4, 4:8]
    assert out[0, 0, 1] == np.floor(some[some > 0].mean() + 0.5)


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_modes_are_the_largest_class_and_the_smallest_of_equals(dtype: str) -> None:
    raster = box((40, 60), 10, 500_000, 5_000_000, "EPSG:32633")
    grid = box((10, 15), 40, 500_000, 5_000_000, "EPSG:32633")
    large = 0 if dtype == "uint8" else 2**60  # float64 cannot tell these classes apart
    classes = (np.random.default_rng(2).integers(1, 6, (1, 40, 60)) + large).astype(dtype)
    out, ok = warp(raster, grid, classes, "mode", (0.25, 0.25), nodata=1 + large)
    blocks = classes[0].reshape(10, 4, 15, 4).swapaxes(1, 2).reshape(10, 15, 16)
    counts = np.stack([(blocks == one + large).sum(axis=2) for one in range(2, 6)])
    assert ok.all()
    np.testing.assert_array_equal(out[0], counts.argmax(axis=0) + 2 + large)


def test_turned_modes_agree_with_gdals() -> None:
    # Of patches: along their borders GDAL counts whole pixels in an upright box.
    raster, grid = ZONES[0], FIVEFOLD
    classes = (image(raster.shape, "uint8") // 60).astype(np.uint8)
    out, ok = warp(raster, grid, classes, "mode", FIFTH)
    expected, valid = gdal(raster, grid, classes, "mode", FIFTH)
    both = ok & valid
    assert (ok == valid).mean() > 0.98
    assert (out == expected)[both].mean() > 0.95


KERNELS = [
    ("nearest", "uint16", PLAIN),
    ("bilinear", "uint16", PLAIN),
    ("bilinear", "float32", PLAIN),
    ("cubic", "uint16", PLAIN),
    ("cubic", "float32", FIFTH),
    ("average", "uint16", FIFTH),
    ("mode", "uint8", FIFTH),
]


@pytest.mark.parametrize(("resampling", "dtype", "scale"), KERNELS)
@settings(max_examples=6)
@given(data=st.data())
def test_pixels_do_not_depend_on_the_cut(
    resampling: str, dtype: str, scale: tuple[float, float], data: st.DataObject
) -> None:
    raster, grid = ZONES[0], FIVEFOLD if scale == FIFTH else OVER_EDGES
    pixels = holed(image(raster.shape, dtype, bands=2), 0)
    whole, whole_ok = warp(raster, grid, pixels, resampling, scale, nodata=0)
    rows, cols = (
        slice(start, data.draw(st.integers(start + 1, size)))
        for size, start in ((size, data.draw(st.integers(0, size - 1))) for size in grid.shape)
    )
    need = located(raster, grid, rows, cols, resampling, scale).window
    crop = None
    if need is not None and data.draw(st.booleans()):  # a larger crop, as of whole tiles
        crop = slice(need[0].start // 16 * 16, need[0].stop), slice(need[1].start // 16 * 16, raster.shape.x)
    out, ok = warp(raster, grid, pixels, resampling, scale, nodata=0, window=(rows, cols), crop=crop)
    np.testing.assert_array_equal(ok, whole_ok[:, rows, cols])
    np.testing.assert_array_equal(out[ok], whole[:, rows, cols][ok])
    assert not out[~ok].any()  # untouched


def test_pixels_do_not_depend_on_threads() -> None:
    raster, grid = ZONES
    pixels = image(raster.shape, "uint16")
    expected, _ = warp(raster, grid, pixels, "bilinear")
    found: list[Array] = []
    # Another origin, the same root: nothing is remembered of it.
    other = box((100, 80), 10, 500_300, 5_000_000, "EPSG:32633")
    work = [threading.Thread(target=lambda: found.append(warp(raster, other, pixels, "bilinear")[0])) for _ in range(4)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(found) == 4
    for out in found:
        np.testing.assert_array_equal(out, expected[:, :, 30:])


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
def test_a_constant_stays_constant(resampling: str) -> None:
    raster, grid = ZONES[0], OVER_EDGES
    for value in (1, 65_535):
        out, ok = warp(raster, grid, np.full((1, *raster.shape), value, np.uint16), resampling)
        assert (out[ok] == value).all()


def test_nan_is_never_a_measurement() -> None:
    raster, grid = ZONES
    pixels = image(raster.shape, "float32")
    holes = holed(pixels, np.nan)
    out, ok = warp(raster, grid, holes, "bilinear", nodata=np.nan)
    expected, valid = gdal(raster, grid, holes, "bilinear", nodata=np.nan)
    np.testing.assert_array_equal(ok, valid)
    assert np.isfinite(out).all()
    assert (np.abs(out - expected)[0] <= allowed(raster, grid, pixels))[ok[0]].all()


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
def test_a_mask_is_as_nodata(resampling: str) -> None:
    raster, grid = ZONES
    pixels = holed(image(raster.shape, "uint16"), 0)
    mask = (pixels[0] != 0).astype(np.uint8)
    by_nodata, by_mask = (
        warp(raster, grid, pixels, resampling, nodata=0),
        warp(raster, grid, pixels, resampling, mask=mask),
    )
    np.testing.assert_array_equal(by_mask, by_nodata)


def test_the_first_valid_raster_wins() -> None:
    raster, grid = ZONES
    first, second = holed(image(raster.shape, "uint16"), 0), image(raster.shape, "uint16") + 7
    where = located(raster, grid, slice(0, 100), slice(0, 110), "nearest", PLAIN)
    out, ok = np.zeros((1, 100, 110), np.uint16), np.zeros((1, 100, 110), bool)
    for pixels in (first, second):
        resample(where, pixels, None, [0], (0, 0), raster.shape, out, ok)
    one, one_ok = warp(raster, grid, first, "nearest", nodata=0)
    other, _ = warp(raster, grid, second, "nearest", nodata=0)
    assert not one_ok.all()
    np.testing.assert_array_equal(out, np.where(one_ok, one, other))


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average"])
def test_a_globe_has_no_seam(resampling: str) -> None:
    # The same globe, cut at 180 degrees and at 0.
    cut, whole = (box((1800, 3600), 0.1, left, 90, "EPSG:4326") for left in (-180, 0))
    pixels = image((1800, 3600), "uint16")
    window = slice(0, 60), slice(30, 130)
    grid = box((60, 200), 20_000, -2_000_000, 2_000_000, "EPSG:3832")  # Pacific, centred on 150 degrees east
    grid = grid.translate_pix(120, 0)
    out, ok = warp(cut, grid, pixels, resampling, window=window)
    other, other_ok = warp(whole, grid, np.roll(pixels, 1800, axis=2), resampling, window=window)
    assert ok.all()
    assert other_ok.all()
    assert (np.abs(out.astype(int) - other) <= 1).mean() > 0.999  # but where longitudes round otherwise


def test_bottom_up_is_upside_down() -> None:
    up, grid = PAIRS["bottom-up"]
    down = box((500, 500), 10, 499_995, 5_000_500, "EPSG:32633")
    pixels = image(up.shape, "uint16")
    for resampling in ("bilinear", "average"):
        out, _ = warp(up, grid, pixels, resampling)
        flipped, _ = warp(down, grid, pixels[:, ::-1], resampling)
        np.testing.assert_array_equal(out, flipped)


def test_a_wider_dtype_may_hold_the_result() -> None:
    raster, grid = ZONES
    pixels = holed(image(raster.shape, "uint16"), 0)
    narrow, ok = warp(raster, grid, pixels, "bilinear", nodata=0)
    wide, wide_ok = warp(raster, grid, pixels, "bilinear", nodata=0, dtype="float32")
    np.testing.assert_array_equal(wide, narrow.astype(np.float32))
    np.testing.assert_array_equal(wide_ok, ok)


# Operations and errors.


def test_an_operation_is_one_pipeline() -> None:
    raster, grid = PAIRS["albers to utm"]
    text = operation(raster, grid)
    assert "proj=aea" in text
    assert "proj=utm zone=14" in text
    assert text == operation(raster, grid)
    assert operation(grid, grid) == "proj=noop"


def located_utm(**change: Any) -> Located:
    asked: dict[str, Any] = {"rows": slice(0, 9), "cols": slice(0, 9), "resampling": "nearest", "scale": PLAIN}
    return located(*ZONES[:1], **({"grid": ZONES[1]} | asked | change))


def test_errors_of_places_say_what_to_write() -> None:
    with pytest.raises(GridError, match=r"resampling='lanczos': write one of nearest, bilinear"):
        located_utm(resampling="lanczos")
    with pytest.raises(GridError, match=r"rows 5\.\.5, columns 0\.\.9 hold no pixel"):
        located_utm(rows=slice(5, 5))
    with pytest.raises(GridError, match=r"scale=\(0, 1\): grid pixels for one of the raster's"):
        located_utm(scale=(0, 1))
    with pytest.raises(GridError, match="north up and axis-aligned is needed"):
        located_utm(grid=PAIRS["rotated"][0])


def test_errors_of_crops_say_what_is_needed() -> None:
    raster, where = ZONES[0], located_utm()
    pixels, out, ok = image(raster.shape, "uint16"), np.zeros((1, 9, 9), np.uint16), np.zeros((1, 9, 9), bool)
    with pytest.raises(GridError, match=r"give all of where\.window"):
        resample(where, pixels[:, :9], None, [0], (0, 0), raster.shape, out, ok)
    with pytest.raises(
        GridError, match=r"both are needed as \(1, 9, 9\) \(band, y, x\), and a dtype that holds uint16"
    ):
        resample(where, pixels, None, [0], (0, 0), raster.shape, out.astype(np.uint8), ok)
    with pytest.raises(GridError, match=r"an image of \(9, 9\) \(y, x\) and nodata for 1 bands"):
        resample(where, pixels, None, [0], (0, 0), (9, 9), out, ok)


@pytest.mark.real
@pytest.mark.parametrize(
    ("expected", "resampling", "resolution", "most"),
    [
        ("utmsmall_near.tiff", "nearest", 10, 0),
        ("utmsmall_average.tiff", "average", 120, 1),  # halves, which GDAL rounds by float32
        ("utmsmall_mode.tiff", "mode", 120, None),  # ties
        ("utmsmall_bilinear_2.tif", "bilinear", 120, 1),
        ("utmsmall_cubic_2.tif", "cubic", 120, 1),
    ],
)
def test_gdals_expected_results(
    real_data: Path, expected: str, resampling: str, resolution: int, most: int | None
) -> None:
    folder = real_data / "gdal_resample_expected"
    with rasterio.open(folder / "utmsmall.tif") as file:
        pixels, raster = file.read(), GeoBox(file.shape, file.transform, str(file.crs))
    with rasterio.open(folder / expected) as file:
        wanted, grid = file.read(), GeoBox(file.shape, file.transform, str(raster.crs))
    out, ok = warp(raster, grid, pixels, resampling, (60 / resolution, 60 / resolution))
    assert ok.all()
    if most is not None:
        assert np.abs(out.astype(int) - wanted)[:, 2:-2, 2:-2].max() <= most
        return
    blocks = pixels[0].reshape(50, 2, 50, 2).swapaxes(1, 2).reshape(50, 50, 4)
    unequal = np.array([[len(np.unique(b)) in (1, 3) for b in row] for row in blocks])  # one class is most
    assert (out == wanted)[0][unequal].all()
