"""Stored numbers to physical ones as they are read: item by item, by a stated rule, never twice."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

import geopipes as gp
from geopipes import pixels
from geopipes.errors import MixedScales, SourceError, StepError
from geopipes.read.scales import scale_of
from geopipes.read.sources import Source
from geopipes.testing import Synthetic

Change = Callable[[pystac.Item], None]

BANDS = ["red", "nir", "scl"]


def told(land: Synthetic, change: Change, bands: tuple[str, ...] = ("red", "nir")) -> gp.Pipe[pystac.Item]:
    """Give the items with another word on their bands."""
    items = [copy.deepcopy(item) for item in land.items]
    for item in items:
        change(item)
    return gp.items(items)


def stating(scale: float, offset: float, **properties: Any) -> Change:
    def change(item: pystac.Item) -> None:
        item.properties |= properties
        for key in ("red", "nir"):
            item.assets[key].extra_fields["raster:bands"][0] |= {"scale": scale, "offset": offset}

    return change


def by_zone(item: pystac.Item) -> None:
    """State offsets that differ between the two scenes of a date."""
    stating(1e-4, -0.1 if "14T" in item.id else 0.0)(item)


def whole(pipe: gp.Pipe[xr.Dataset]) -> xr.Dataset:
    return next(iter(pipe)).load()


def test_items_that_tell_different_offsets_are_not_mixed_in_silence(land: Synthetic) -> None:
    options: dict[str, Any] = {"crs": "EPSG:32614", "resolution": 10}
    with pytest.warns(MixedScales, match=r"'red' \('.*' 0\.0001 and -0\.1, '.*' 0\.0001 and 0\).*rescale=True"):
        len(told(land, by_zone).stack(BANDS, **options).chip(32))
    len(told(land, by_zone).stack(BANDS, rescale=True, **options).chip(32))
    len(told(land, stating(1e-4, -0.1)).stack(BANDS, **options).chip(32))


def test_numbers_are_those_of_scale(land: Synthetic) -> None:
    items = told(land, stating(1e-4, -0.1))
    options: dict[str, Any] = {
        "crs": "EPSG:32614",
        "resolution": 10,
        "groupby": "solar_day",
        "resampling": {"scl": "nearest", "*": "bilinear"},
    }
    read = whole(items.stack(BANDS, rescale=True, **options))
    floats = {"scl": "uint8", "*": "float32"}  # integers would be rounded before they are scaled
    scaled = whole(items.stack(BANDS, dtype=floats, **options).scale(["red", "nir"], factor=1e-4, offset=-0.1))
    xr.testing.assert_allclose(read, scaled, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(read["valid"].values, scaled["valid"].values)
    assert read["red"].dtype == np.float32
    assert read["red"].attrs["scaled"] is True
    assert "nodata" not in read["red"].attrs
    assert read["scl"].dtype == np.uint8
    assert "scaled" not in read["scl"].attrs


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average"])
def test_scenes_are_scaled_before_they_are_mixed(land: Synthetic, resampling: str) -> None:
    """Where scenes of one date overlap, each pixel has the offset of the scene that it is taken from."""
    method = {"scl": "nearest", "*": resampling}
    options: dict[str, Any] = {"crs": "EPSG:32614", "resolution": 10, "groupby": "solar_day", "resampling": method}
    mixed = whole(told(land, by_zone).stack(["red"], rescale=True, **options))
    plain = {
        offset: whole(told(land, stating(1e-4, offset)).stack(["red"], rescale=True, **options))
        for offset in (-0.1, 0.0)
    }
    alone = told(land, by_zone).filter(lambda item: "14T" in item.id)
    bounds = mixed.odc.geobox.boundingbox.bbox
    first = whole(
        alone.stack(["red"], rescale=True, crs="EPSG:32614", resolution=10, groupby="solar_day", bounds=bounds)
    )
    taken = first["valid"].values
    expected = np.where(taken, plain[-0.1]["red"].values, plain[0.0]["red"].values)
    assert 0.1 < taken.mean() < 0.9
    both = mixed["valid"].values
    np.testing.assert_array_equal(mixed["red"].values[both], expected[both])


def test_the_same_wherever_it_is_read(land: Synthetic) -> None:
    """Chips, the cube and straight into tensors: bit for bit."""
    cubes = told(land, by_zone).stack(BANDS, crs="EPSG:32614", resolution=10, groupby="solar_day", rescale=True)
    cube = whole(cubes)
    chips = cubes.chip(96, edge="pad", coverage="any").read(threads=2)
    for chip in chips:
        inside = cube.reindex(y=chip["y"], x=chip["x"])["red"]
        np.testing.assert_array_equal(chip["red"].values, inside.values)
    tensors = list(chips.tensor(image=["red", "nir"], fill=0))
    assert len(tensors) > 4
    for sample, chip in zip(tensors, chips, strict=True):
        expected = np.stack([chip[name].fillna(0).values for name in ("red", "nir")], axis=1)
        np.testing.assert_array_equal(sample["image"].numpy(), expected)
    for dtype in ("torch.float64", "torch.float32"):
        import torch

        again = list(chips.tensor(image=["red", "nir"], fill=0, dtype=getattr(torch, dtype.removeprefix("torch."))))
        for sample, other in zip(again, tensors, strict=True):
            np.testing.assert_array_equal(sample["image"].float().numpy(), other["image"].numpy())


@pytest.mark.parametrize("engine", ["odc", "stackstac"])
def test_other_engines_give_the_same(land: Synthetic, engine: Any) -> None:
    """On the sources' own grid, bit for bit; two scenes of one date have different offsets."""
    items = told(land, by_zone)
    options: dict[str, Any] = {"crs": "EPSG:32614", "resolution": 10, "groupby": "solar_day", "rescale": True}
    ours = whole(items.stack(["red", "nir"], **options))
    theirs = whole(items.stack(["red", "nir"], engine=engine, **options))
    first = whole(
        items.filter(lambda item: "14T" in item.id).stack(["red"], **options, bounds=ours.odc.geobox.boundingbox.bbox)
    )["valid"]
    on_grid = first.values & theirs["valid"].values
    assert on_grid.mean() > 0.1
    np.testing.assert_array_equal(theirs["red"].values[on_grid], ours["red"].values[on_grid])
    both = ours["valid"].values & theirs["valid"].values
    assert np.abs(theirs["red"].values - ours["red"].values)[both].mean() < 1e-4
    assert theirs["red"].attrs == ours["red"].attrs


def sentinel2(baseline: str | None, *, flag: bool | None = None, bands: float | None = None) -> Change:
    def change(item: pystac.Item) -> None:
        item.collection_id = "sentinel-2-l2a"
        if baseline is not None:
            item.properties["s2:processing_baseline"] = baseline
        if flag is not None:
            item.properties["earthsearch:boa_offset_applied"] = flag
        if bands is not None:
            stating(1e-4, bands)(item)

    return change


def scale_alone(item: pystac.Item) -> None:
    sentinel2("05.09", bands=0.0)(item)
    for key in ("red", "nir"):
        del item.assets[key].extra_fields["raster:bands"][0]["offset"]


RULE: dict[str, tuple[Change, Any, float]] = {
    "old baseline": (sentinel2("02.14"), True, 0.0),
    "new baseline": (sentinel2("05.09"), True, -0.1),
    "applied": (sentinel2("05.09", flag=True), True, 0.0),
    "not applied": (sentinel2("05.09", flag=False), True, -0.1),
    "all agree": (sentinel2("05.09", flag=True, bands=0.0), True, 0.0),
    "bands and baseline agree": (sentinel2("04.00", bands=-0.1), True, -0.1),
    "bands that state no offset": (scale_alone, True, -0.1),
    "bands alone": (sentinel2(None, bands=-0.1), True, -0.1),
    "the flag is believed": (sentinel2("05.09", flag=True, bands=-0.1), "flag", 0.0),
    "the bands are believed": (sentinel2("05.09", flag=True, bands=-0.1), "bands", -0.1),
    "the baseline is believed": (sentinel2("05.09", flag=True, bands=0.0), "baseline", -0.1),
    "what is believed is not there": (sentinel2("05.09"), "flag", -0.1),
    "a function": (sentinel2("05.09"), lambda item, asset: (1e-4, 0.25) if asset != "scl" else None, 0.25),
}  # fmt: skip


@pytest.mark.parametrize("name", RULE)
def test_the_offset_of_sentinel_2(land: Synthetic, name: str) -> None:
    change, rescale, offset = RULE[name]
    items = told(land, change).filter(lambda item: "14T" in item.id)
    cube = whole(items.stack(BANDS, resolution=10, rescale=rescale))
    stored = whole(items.stack(BANDS, resolution=10))
    valid = stored["valid"].values
    expected = (stored["red"].values.astype(float) * 1e-4 + offset).astype(np.float32)
    np.testing.assert_array_equal(cube["red"].values[valid], expected[valid])
    assert cube["scl"].dtype == np.uint8


CONTRADICTIONS: dict[str, tuple[Change, Any, str]] = {
    "flag against bands": (
        sentinel2("05.09", flag=True, bands=-0.1), True,
        r"contradicts itself: its boa_offset_applied is True \(offset 0\) and its raster:bands state the offset -0.1.*"
        "rescale='flag' or rescale='bands'",
    ),
    "baseline against bands": (
        sentinel2("05.09", bands=0.0), True, r"baseline is 05.09 \(offset -0.1\) and its raster:bands.*0 \(offset 0\)",
    ),
    "nothing": (sentinel2(None), True, "names neither the offset of Sentinel-2 reflectance nor its processing"),
    "no such word": (sentinel2("05.09"), "offset", "write True, 'flag', 'bands', 'baseline', or a function"),
    "no scale at all": (lambda item: None, True, "no item tells a scale of"),
    "no numbers": (sentinel2("05.09"), lambda item, asset: (0, 1), r"\(0, 1\) is no scale and offset"),
    "some items": (
        lambda item: stating(1e-4, 0.0)(item) if "20240503" in item.id else None,
        True,
        "2 of 4 items tell no scale of 'red'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_errors(land: Synthetic, name: str) -> None:
    change, rescale, message = CONTRADICTIONS[name]
    with pytest.raises(SourceError, match=message):
        len(told(land, change).stack(BANDS, crs="utm", resolution=10, rescale=rescale)._value.get())


def test_numbers_are_scaled_once(land: Synthetic) -> None:
    cubes = told(land, stating(1e-4, -0.1)).stack(BANDS, crs="utm", resolution=10, rescale=True)
    with pytest.raises(StepError, match=r"scale\('red'\): it was scaled before.*again=True"):
        next(iter(cubes.scale("red", factor=1e-4)))
    celsius = next(iter(cubes.scale("red", factor=1, offset=-273.15, again=True)))
    assert celsius["red"].attrs["scaled"] is True
    with pytest.raises(StepError, match="it holds classes"):
        next(iter(cubes.scale("scl", factor=1e-4)))
    with pytest.raises(SourceError, match="gives 'red' fractions"):
        next(iter(told(land, stating(1e-4, -0.1)).stack(BANDS, crs="utm", dtype="uint16", rescale=True)))


def test_landsat_and_stac_1_1(land: Synthetic) -> None:
    def landsat(item: pystac.Item) -> None:
        item.collection_id = "landsat-c2-l2"

    def modern(item: pystac.Item) -> None:
        for key in ("red", "nir"):
            fields = item.assets[key].extra_fields
            band = fields.pop("raster:bands")[0]
            fields |= {"raster:scale": 0.5, "raster:offset": 1.5, "data_type": "uint16", "nodata": band["nodata"]}
            fields["bands"] = [{"name": key, "eo:common_name": key}]

    def thermal(item: pystac.Item) -> None:
        landsat(item)
        item.assets["ST_B10"] = item.assets.pop("red")
        item.assets["ST_B10"].extra_fields["eo:bands"] = [{"name": "ST_B10", "common_name": "lwir11"}]

    cases = {"red": (landsat, (2.75e-5, -0.2)), "nir": (modern, (0.5, 1.5)), "ST_B10": (thermal, (0.00341802, 149.0))}
    for asset, (change, (scale, offset)) in cases.items():
        items = told(land, change).filter(lambda item: "14T" in item.id)
        cube, stored = (whole(items.stack({"red": asset}, resolution=10, rescale=say)) for say in (True, False))
        expected = (stored["red"].values.astype(float) * scale + offset).astype(np.float32)
        valid = stored["valid"].values
        np.testing.assert_array_equal(cube["red"].values[valid], expected[valid])


def test_plans_of_other_scales_are_others(land: Synthetic) -> None:
    from geopipes.fingerprints import fingerprint

    prints = {
        fingerprint(told(land, stating(1e-4, offset)).stack(BANDS, crs="utm", rescale=True).chip(64)._value.get())
        for offset in (0.0, -0.1)
    }
    assert len(prints) == 2


def test_decibels() -> None:
    power = np.array([[[1.0, 0.1, 0.0, -1.0, np.nan, 5.0]]], np.float32)
    valid = np.array([[[True, True, True, True, False, False]]])
    dims = ("time", "y", "x")
    radar = xr.Dataset(
        {"vv": (dims, power, {"nodata": 0}), "valid": (dims, valid)}, {"time": [np.datetime64("2024-01-01", "ns")]}
    )
    done = pixels.to_decibel(radar, "vv")
    np.testing.assert_allclose(done["vv"].values, [[[0, -10, np.nan, np.nan, np.nan, np.nan]]], atol=1e-6)
    assert done["vv"].attrs == {"scaled": True, "units": "dB"}
    with pytest.raises(StepError, match="its units are dB already"):
        pixels.to_decibel(done, "vv")


@pytest.mark.parametrize("method", ["bilinear", "cubic", "average"])
def test_classes_are_never_averaged(land: Synthetic, method: str) -> None:
    items = gp.items(land.items)
    with pytest.raises(
        SourceError, match=rf"resampling='{method}' would average the classes of 'scl': write resampling="
    ):
        next(iter(items.stack(BANDS, crs="utm", resolution=10, resampling=method)))
    named = told(land, lambda item: item.assets["red"].extra_fields.update({"classification:classes": []}))
    with pytest.raises(SourceError, match="would average the classes of 'red'"):
        next(iter(named.stack(["red"], crs="utm", resolution=10, resampling=method)))


@pytest.mark.real
def test_the_flag_of_sentinel2_33t_is_right(real_data: Path) -> None:
    """Its items contradict themselves; water and shadows tell that the offset has been applied."""
    items = gp.items(
        sorted((real_data / "sentinel2_33T").glob("S2*33TWL*.json"))
    )  # one tile: the other's grid is shifted
    with pytest.raises(SourceError, match="boa_offset_applied is True"):
        next(iter(items.stack(BANDS, crs="EPSG:32633", resolution=120, rescale=True)))
    options: dict[str, Any] = {"crs": "EPSG:32633", "resolution": 120, "groupby": "solar_day"}
    flag, bands = (whole(items.stack(BANDS, rescale=word, **options)) for word in ("flag", "bands"))
    water = flag["valid"].values & (flag["scl"].values == 6)
    assert water.sum() > 100
    assert 0 < np.nanpercentile(flag["red"].values[water], 1) < 0.05
    assert np.median(bands["red"].values[water]) < 0  # which reflectance is not


@pytest.mark.real
def test_items_of_real_catalogues(real_data: Path) -> None:
    """What items of today's catalogues tell of their pixels, by asset."""
    stac = real_data / "stac"
    expected: dict[str, dict[str, Any]] = {
        "api_responses/pc_sentinel-2-l2a_search_15of33.json": {"B04": (1e-4, 0.0), "B8A": (1e-4, 0.0), "SCL": None},
        "api_responses/earthsearch_v0_s2_cogs.json": {"B04": (1e-4, 0.0), "B05": (1e-4, 0.0), "SCL": None},
        "api_responses/pc_landsat-8-c2-l2_search_10of250.json": {
            "SR_B4": (2.75e-5, -0.2), "QA_PIXEL": None, "SR_QA_AEROSOL": None,
        },
        "odc_items/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json": {"nir08": (2.75e-5, -0.2)},
        "api_responses/earthsearch_mixed_s1_s2_filter.json": {"hh": None},
        "item_oddities/stac_raster_v1.json": {"red": (1.0, 0.0)},
    }  # fmt: skip
    for name, scales in expected.items():
        item = _first(stac / name, scales)
        found = {asset: scale_of(item, _source(item, asset), True) for asset in scales}
        assert found == scales, name
    item = _first(stac / "api_responses/earthsearch_mixed_s2_filter.json", ["wvp", "red"])
    assert scale_of(item, _source(item, "wvp"), True) == (0.001, 0.0)
    with pytest.raises(SourceError, match="contradicts itself"):
        scale_of(item, _source(item, "red"), True)
    assert scale_of(item, _source(item, "red"), "flag") == (1e-4, 0.0)


def _first(path: Path, assets: Iterable[str]) -> pystac.Item:
    """Give the first item that has these assets, with those alone."""
    document = json.loads(path.read_text())
    for feature in document.get("features", [document]):
        there = {key: asset for key, asset in feature["assets"].items() if key in assets}
        if len(there) == len([*assets]):
            return pystac.Item.from_dict(feature | {"assets": there})
    raise AssertionError(f"{path}: no item with {assets}")


def _source(item: pystac.Item, asset: str) -> Source:
    grid = GeoBox((1, 1), Affine(10, 0, 0, 0, -10, 0), "EPSG:32633")
    dtype = np.dtype("uint8" if asset == "SCL" else "uint16")
    time = np.datetime64("2024-01-01", "ns")
    return Source(item.assets[asset].href, (1,), grid, dtype, 0, item.id, item.collection_id, asset, time)
