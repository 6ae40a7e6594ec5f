"""Clouds: classes and bits by name, dilated by the margin, whatever the cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_pixels import Step, assert_law, cubes

import geopipes as gp
from geopipes import pixels
from geopipes.errors import MarginTooSmall, StepError, UnknownBand
from geopipes.pixels.neighbours import dilated
from geopipes.pixels.qualities import QUALITIES
from geopipes.testing import Synthetic

DIMS = ("time", "y", "x")


def seen(quality: Any, name: str = "scl", **attrs: Any) -> xr.Dataset:
    """Give a scene whose quality band holds these values."""
    band = np.asarray(quality)[None, None]
    red = np.ones(band.shape, np.float32)
    valid = np.ones(band.shape, bool)
    time = {"time": [np.datetime64("2024-01-01", "ns")]}
    return xr.Dataset({"red": (DIMS, red), name: (DIMS, band, attrs), "valid": (DIMS, valid)}, time)


def masked(quality: Any, name: str = "scl", **options: Any) -> list[Any]:
    """Give the values at which pixels become not valid."""
    done = pixels.mask_clouds(seen(quality, name), name, **options)
    np.testing.assert_array_equal(np.isnan(done["red"].values), ~done["valid"].values)
    return list(np.asarray(quality)[~done["valid"].values[0, 0]].tolist())


def test_classes_of_scl() -> None:
    scl = np.arange(12, dtype=np.uint8)
    assert masked(scl) == [0, 3, 8, 9, 10]
    assert masked(scl, classes=["cloud_high", "cirrus", "cloud_shadow"]) == [0, 3, 9, 10]
    assert masked(scl, classes=["snow"]) == [0, 11]
    assert masked(scl, classes=[]) == [0]
    assert masked(scl, classes="water") == [0, 6]
    assert masked(scl.astype(np.int64)) == [0, 3, 8, 9, 10]
    assert masked(scl, name="clouds", product="scl") == [0, 3, 8, 9, 10]


QA = {  # values of the guide's table 6-3, and what they stand for
    1: "fill",
    21824: "clear",
    21826: "dilated cloud over land",
    21890: "dilated cloud over water",
    22280: "cloud, high confidence",
    23888: "shadow, high confidence",
    30048: "snow, high confidence",
    54596: "cirrus, high confidence",
    21952: "water",
    54790: "cloud, medium confidence, and cirrus",
}


def test_bits_of_qa_pixel() -> None:
    values = np.array(list(QA), np.uint16)
    assert masked(values, "qa_pixel") == [1, 21826, 21890, 22280, 23888, 54596, 54790]
    assert masked(values, "qa_pixel", classes=["cloud_confidence_high"]) == [1, 22280]
    assert masked(values, "qa_pixel", classes=["cloud_shadow_confidence_high"]) == [1, 23888]
    assert masked(values, "qa_pixel", classes=["snow_confidence_high", "snow"]) == [1, 30048]
    assert masked(values, "qa_pixel", classes=["cirrus_confidence_high"]) == [1, 54596, 54790]
    assert masked(values, "qa_pixel", classes=["water"]) == [1, 21890, 21952]
    assert masked(values, "qa_pixel", classes=["cloud_confidence_medium"]) == [1, 54790]


def test_bits_of_fmask() -> None:
    """Fill has all bits, and is neither a class nor grown."""
    fmask = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 192, 255], np.uint8)
    assert masked(fmask, "Fmask") == [1, 2, 4, 8, 255]
    assert masked(fmask, "Fmask", classes=["snow", "water"]) == [16, 32, 255]
    assert masked(fmask, "Fmask", classes=["aerosol_high"]) == [192, 255]
    row = np.array([255, 0, 0, 0, 2, 0], np.uint8)
    done = pixels.mask_clouds(seen(row, "Fmask"), "Fmask", dilate=1)
    np.testing.assert_array_equal(done["valid"].values[0, 0], [False, True, True, False, False, False])


def test_bits_of_landsat_8_collection_1() -> None:
    """Values of the handbook's table: clear, cloud, high shadow, high cirrus, fill, terrain occlusion."""
    bqa = np.array([2720, 2800, 2976, 6816, 1, 2722], np.uint16)
    assert masked(bqa, "bqa") == [2800, 2976, 6816, 1]
    assert masked(bqa, "bqa", classes=["terrain_occlusion"]) == [1, 2722]


def test_a_band_is_known_by_its_asset_too() -> None:
    named = seen(np.arange(12, dtype=np.uint8), "quality_of_mine", band="SCL")
    assert pixels.mask_clouds(named, "quality_of_mine")["valid"].values.sum() == 7


def test_the_band_is_dropped_unless_kept() -> None:
    scene = seen(np.arange(12, dtype=np.uint8))
    assert list(pixels.mask_clouds(scene, "scl").data_vars) == ["red", "valid"]
    assert list(pixels.mask_clouds(scene, "scl", dilate=2).data_vars) == ["red", "valid"]
    kept = pixels.mask_clouds(scene, "scl", keep=True)
    xr.testing.assert_identical(kept["scl"], scene["scl"])


@given(
    hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9)), st.integers(0, 5)
)  # fmt: skip
def test_dilation_is_by_a_disk(marked: Any, radius: int) -> None:
    """A pixel is marked where a marked one's centre is no farther than the radius."""
    dims = ("time", "y", "x")[-marked.ndim :]
    found = dilated(xr.Variable(dims, marked), radius).values
    expected = np.zeros_like(marked)
    height, width = marked.shape[-2:]
    rows, cols = np.mgrid[:height, :width]
    for *before, row, col in np.argwhere(marked):
        expected[(*before,)] |= (rows - row) ** 2 + (cols - col) ** 2 <= radius**2
    np.testing.assert_array_equal(found, expected)


def test_dilation_on_dask_is_the_same() -> None:
    rng = np.random.default_rng(0)
    scene = xr.Dataset(
        {"scl": (DIMS, rng.choice(np.array([4, 9], np.uint8), (2, 40, 50), p=[0.97, 0.03])),
         "red": (DIMS, rng.random((2, 40, 50), np.float32)), "valid": (DIMS, rng.random((2, 40, 50)) > 0.1)}
    )  # fmt: skip
    steps: list[Step] = [
        lambda data: pixels.mask_clouds(data, "scl", dilate=4, keep=True),
        lambda data: pixels.mask(data, lambda chip: chip["red"] > 0.99, dilate=3),
    ]
    for step in steps:
        lazy = step(scene.chunk(time=1, y=16, x=17))
        assert lazy["valid"].chunks
        xr.testing.assert_identical(lazy.compute(), step(scene))


STEPS: dict[str, tuple[int, Step]] = {
    "mask_clouds": (0, lambda pipe: pipe.mask_clouds("scl")),
    "mask_clouds, kept": (0, lambda pipe: pipe.mask_clouds("scl", classes=["cloud_shadow"], keep=True)),
    "mask_clouds, dilated": (5, lambda pipe: pipe.scale("red", factor=1e-4).mask_clouds("scl", dilate=5)),
    "mask, by a function": (0, lambda pipe: pipe.mask(lambda chip: chip["red"] > 2000)),
    "mask, dilated": (3, lambda pipe: pipe.mask(lambda chip: chip["red"] > 2000, dilate=3)),
    "twice": (5, lambda pipe: pipe.mask_clouds("scl", dilate=2, keep=True).mask(_bright, dilate=3)),
}


def _bright(chip: xr.Dataset) -> xr.DataArray:
    return chip["nir"] > 3000


@pytest.mark.parametrize("name", STEPS)
def test_a_mask_means_the_same_wherever_it_stands(land: Synthetic, name: str) -> None:
    assert_law(land, STEPS[name][1], margin=STEPS[name][0])


def test_a_dilated_mask_on_another_engine(land: Synthetic) -> None:
    """On dask the cube is read window by window, with what the step needs around each."""
    step = STEPS["mask_clouds, dilated"][1]
    theirs = cubes(land, engine="odc")
    assert_law(land, step, margin=5, stack=theirs)
    ours, other = (next(iter(step(stack))).load()["valid"].values for stack in (cubes(land), theirs))
    np.testing.assert_array_equal(ours, other)


def test_clouds_straight_into_tensors(land: Synthetic) -> None:
    """What needs no Dataset gives the same as what does."""
    chips = gp.items(land.items).stack(["red", "nir", "scl"], crs="utm", resolution=10).chip(64)
    straight = chips.read().mask_clouds("scl").tensor(image=["red", "nir"], fill=0)
    by_hand = chips.read().map(_without_clouds).tensor(image=["red", "nir"], fill=0)
    for ours, theirs in zip(straight, by_hand, strict=True):
        np.testing.assert_array_equal(ours["image"].numpy(), theirs["image"].numpy())
        np.testing.assert_array_equal(ours["image_valid"].numpy(), theirs["image_valid"].numpy())


def _without_clouds(chip: xr.Dataset) -> xr.Dataset:
    return pixels.mask_clouds(chip, "scl")


def anything(value: Any) -> Any:
    """Let types be: what follows gives values that are none of those asked for."""
    return value


ERRORS: dict[str, tuple[Step, str]] = {
    "a class": (
        lambda data: pixels.mask_clouds(data, "scl", classes=["cloud_hihg"]),
        "no class 'cloud_hihg'; did you mean 'cloud_high'",
    ),
    "a product": (lambda data: pixels.mask_clouds(data, "scl", product="SCL2"), "did you mean 'scl'"),
    "no product": (lambda data: pixels.mask_clouds(data, "red"), "neither its name nor its attributes tell whose"),
    "floats": (lambda data: pixels.mask_clouds(data.astype("f4"), "scl"), "it holds float32, and classes are whole"),
    "pixels": (lambda data: pixels.mask_clouds(data, "scl", dilate=anything(1.5)), "give a whole number of pixels"),
    "nothing": (lambda data: pixels.mask_clouds(data.drop_vars("valid"), "scl"), "needs the boolean 'valid'"),
    "no bool": (lambda data: pixels.mask(data, "red"), "'red' gives float32; a boolean DataArray is needed"),
    "no array": (lambda data: pixels.mask(data, anything(lambda chip: True)), "gives bool; a boolean DataArray is"),
    "dims": (lambda data: pixels.mask(data, lambda chip: chip["valid"].expand_dims(band=2)), "and 'valid'.*reduce it"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_masks(name: str) -> None:
    step, message = ERRORS[name]
    with pytest.raises(StepError, match=message):
        step(seen(np.arange(12, dtype=np.uint8)))


def test_what_is_typed_wrong_or_dropped_is_told(land: Synthetic) -> None:
    stack = gp.items(land.items).stack(["red", "scl"], crs="utm", resolution=10)
    with pytest.raises(StepError, match=r"mask_clouds\(dilate=2.5\): give a whole number"):
        stack.mask_clouds("scl", dilate=anything(2.5))
    with pytest.raises(StepError, match=r"mask\(dilate=2.5\): give a whole number"):
        stack.mask("red", dilate=anything(2.5))
    with pytest.raises(UnknownBand, match=r"no variable \['scl'\].*mask_clouds drops its band, unless keep=True"):
        next(iter(stack.mask_clouds("scl").mask_values("scl", [3])))


def test_a_margin_too_small(land: Synthetic) -> None:
    stack = gp.items(land.items).stack(["red", "scl"], crs="utm", resolution=10)
    with pytest.raises(MarginTooSmall, match=r"mask_clouds\('scl', dilate=8\).*needs? 8 px.*margin=8"):
        len(stack.chip(64, margin=4).mask_clouds("scl", dilate=8))
    with pytest.raises(MarginTooSmall, match="margin=8"):
        len(stack.chip(64, margin=4).read().mask_clouds("scl", dilate=8))
    assert len(stack.mask_clouds("scl", dilate=8).chip(64)) > 0


def test_tables_have_no_class_twice() -> None:
    for quality in QUALITIES.values():
        assert len(set(quality.tests.values())) == len(quality.tests)
        assert set(quality.usual) <= set(quality.tests)


@pytest.mark.real
def test_clouds_of_2023_08_18(real_data: Path) -> None:
    """They leave sentinel2_33T's scene, and what remains looks like five days before."""
    one_tile = (real_data / "sentinel2_33T").glob("S2*33TWL*.json")
    cube = gp.items(sorted(one_tile)).stack(["red", "nir", "scl"], crs="EPSG:32633", resolution=120, rescale="flag")
    before, after = (
        next(iter(step)).load() for step in (cube, cube.mask_clouds("scl", dilate=1, keep=True))
    )  # fmt: skip
    cloudy = before["time"].dt.day.values == 18
    assert before["valid"].values[cloudy].mean() > 0.9
    assert 0.1 < after["valid"].values[cloudy].mean() < 0.4
    assert after["valid"].values[~cloudy].mean() > 0.85
    assert not np.isin(before["scl"].values[after["valid"].values], [0, 3, 8, 9, 10]).any()
    both = after["valid"].values.all(axis=0)
    first, second = after["red"].values[:, both]
    assert np.median(np.abs(first - second)) < 0.02
    assert np.nanquantile(after["red"].values[cloudy], 0.99) < 0.25 < np.nanquantile(before["red"].values[cloudy], 0.75)


@pytest.mark.real
def test_clouds_of_a_landsat_scene(real_data: Path) -> None:
    """BQA of Collection 1: what it calls cloud is bright and cold, and leaves."""
    scene = real_data / "landsat8_newyork_2018" / "LC08_L1TP_013032_20180405_20180417_01_T1"
    stem = "LC08_L1TP_013032_20180405"
    red, thermal, quality = (gp.rasters(scene / f"{stem}_{band}.TIF") for band in ("B4", "B10", "BQA"))
    cube = red.stack(nodata=0).join(thermal, name="tir", nodata=0).join(quality, name="bqa", nodata=1)
    whole = next(iter(cube)).load()
    (name,) = {str(name) for name in whole.data_vars} - {"tir", "bqa", "valid"}
    clear = pixels.mask_clouds(whole, "bqa", keep=True)["valid"].squeeze().values
    clouds = whole["valid"].squeeze().values & ~clear
    assert 0.02 < clouds.mean() < 0.98
    brightness, warmth = whole[name].squeeze().values, whole["tir"].values
    assert np.median(brightness[clouds]) > np.median(brightness[clear])
    assert np.median(warmth[clouds]) < np.median(warmth[clear])
