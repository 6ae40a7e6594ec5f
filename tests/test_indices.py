"""Spectral indices equal spyndex, whatever bands are called and wherever the step stands."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pystac
import pytest
import spyndex
import xarray as xr
from test_pixels import Step, assert_law, cubes

import geopipes as gp
from geopipes import pixels
from geopipes.errors import StepError, UnknownBand
from geopipes.testing import Synthetic

DIMS = ("time", "y", "x")

BANDS = {
    "A": "coastal", "B": "blue", "G": "green", "R": "red", "RE1": "rededge1", "RE2": "rededge2", "RE3": "rededge3",
    "N": "nir", "N2": "nir08", "WV": "nir09", "S1": "swir16", "S2": "swir22", "T1": "lwir11", "VV": "vv", "VH": "vh",
}  # fmt: skip


def scene(*names: str, dtype: str = "float32", **attrs: dict[str, Any]) -> xr.Dataset:
    """Give reflectance in these variables; ``attrs`` by name."""
    rng = np.random.default_rng(0)
    size = (2, 24, 30)
    factor = 1e4 if dtype.startswith("uint") else 1
    data = {name: (DIMS, (rng.uniform(0.01, 0.6, size) * factor).astype(dtype), attrs.get(name, {})) for name in names}
    valid = (DIMS, rng.random(size) > 0.1)
    return xr.Dataset(data | {"valid": valid}, {"time": np.array(["2024-01-01", "2024-02-01"], "datetime64[ns]")})


def by_spyndex(name: str, data: xr.Dataset, variables: dict[str, str], **constants: float) -> Any:
    """Compute an index of whole arrays by spyndex alone, as its documentation shows."""

    def band(letter: str) -> Any:
        known = spyndex.constants
        return data[variables[letter]].values if letter in variables else constants.get(letter, known[letter].default)

    params = {}
    for word in spyndex.indices[name].bands:
        if word in variables or word in spyndex.constants:
            params[word] = band(word)
        else:
            a, b = band(word[1]), band(word[2])
            same = word[1] == word[2]
            params[word] = 1.0 if same else spyndex.computeKernel("RBF", a=a, b=b, sigma=0.5 * (a + b))
    with np.errstate(all="ignore"):
        whole = spyndex.computeIndex(name, params)
    return np.where(data["valid"].values & np.isfinite(whole), whole, np.nan).astype(np.float32)


def computable() -> list[str]:
    """Give the indices whose bands are among these, and whose constants have defaults."""
    known = spyndex.constants
    fine = {*BANDS} | {name for name in known if known[name].default is not None}
    return [name for name, index in spyndex.indices.items() if all(b in fine or b[0] == "k" for b in index.bands)]


def test_all_indices_equal_spyndex() -> None:
    data = scene(*BANDS.values())
    names = computable()
    assert len(names) > 230
    found = pixels.spectral_index(data, names)
    for name in names:
        np.testing.assert_array_equal(found[name].values, by_spyndex(name, data, BANDS), err_msg=name)
        assert found[name].dtype == np.float32


@pytest.mark.parametrize("name", ["NDVI", "NDWI", "EVI", "SAVI", "NBR", "kNDVI", "MNDWI", "NIRv"])
def test_on_dask_they_are_lazy_and_the_same(name: str) -> None:
    data = scene(*BANDS.values())
    lazy = pixels.spectral_index(data.chunk(y=10, x=10), name)
    assert lazy[name].chunks
    xr.testing.assert_identical(lazy.compute(), pixels.spectral_index(data, name))


def test_kndvi_is_tanh_of_ndvi_squared() -> None:
    data = pixels.spectral_index(scene("red", "nir"), ["NDVI", "kNDVI"])
    np.testing.assert_allclose(data["kNDVI"], np.tanh(data["NDVI"].values ** 2), atol=1e-6)
    wide = pixels.spectral_index(scene("red", "nir"), "kNDVI", sigma=2.0)
    assert np.nanmax(wide["kNDVI"].values) < np.nanmax(data["kNDVI"].values)


def test_constants() -> None:
    data = scene("red", "nir", "blue")
    for soil in (0.5, 0.25):
        found = pixels.spectral_index(data, "SAVI", L=soil)["SAVI"].values
        np.testing.assert_array_equal(found, by_spyndex("SAVI", data, BANDS, L=soil))
    evi = pixels.spectral_index(data, "EVI", C1=5.0, g=2.0)["EVI"].values
    np.testing.assert_array_equal(evi, by_spyndex("EVI", data, BANDS, C1=5.0, g=2.0))


SENTINEL2 = {"platform": "sentinel-2a, sentinel-2b"}
NAMES: dict[str, tuple[xr.Dataset, str, dict[str, Any], dict[str, str]]] = {
    "common names of attributes": (
        scene("r", "n", r={"common_name": "red"}, n={"common_name": "nir"}), "NDVI", {}, {"R": "r", "N": "n"},
    ),
    "Sentinel-2": (
        scene("B04", "B05", "B08", "B8A", B04=SENTINEL2, B05=SENTINEL2, B08=SENTINEL2, B8A=SENTINEL2), "NDREI", {},
        {"N": "B08", "RE1": "B05"},
    ),
    "Sentinel-2, as said": (scene("B04", "B08"), "NDVI", {"platform": "Sentinel 2C"}, {"R": "B04", "N": "B08"}),
    "Landsat 8": (scene("SR_B4", "SR_B5"), "NDVI", {"platform": "landsat-8"}, {"R": "SR_B4", "N": "SR_B5"}),
    "Landsat 7": (scene("SR_B3", "SR_B4"), "NDVI", {"platform": "LANDSAT_7"}, {"R": "SR_B3", "N": "SR_B4"}),
    "nir08 of Landsat": (
        scene("red", "nir08", nir08={"platform": "landsat-9"}), "NDVI", {}, {"R": "red", "N": "nir08"},
    ),
    "the asset's name": (
        scene("one", "two", one={"band": "B05", **SENTINEL2}, two={"band": "B06", **SENTINEL2}), "RENDVI",
        {}, {"RE1": "one", "RE2": "two"},
    ),
    "the catalogue's letters": (scene("R", "N"), "NDVI", {}, {"R": "R", "N": "N"}),
    "as said": (scene("a", "b"), "NDVI", {"bands": {"N": "a", "R": "b"}}, {"R": "b", "N": "a"}),
    "nir before nir08": (scene("red", "nir", "nir08"), "NDVI", {}, {"R": "red", "N": "nir"}),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
def test_bands_are_found_by_name(case: str) -> None:
    data, name, options, variables = NAMES[case]
    found = pixels.spectral_index(data, name, **options)[name].values
    np.testing.assert_array_equal(found, by_spyndex(name, data, variables))


def test_names_of_items_come_with_the_cube(land: Synthetic) -> None:
    """Bands with names of one's own are known by what the items state of them."""
    named = gp.items(land.items).stack({"first": "red", "second": "nir"}, crs="utm", resolution=10)
    plain = gp.items(land.items).stack(["red", "nir"], crs="utm", resolution=10)
    ours, theirs = (next(iter(pipe.spectral_index("NDVI").chip(64).read())) for pipe in (named, plain))
    np.testing.assert_array_equal(ours["NDVI"].values, theirs["NDVI"].values)
    assert ours["first"].attrs["platform"].startswith("sentinel-2")


def test_ratios_of_stored_numbers_do_not_wrap_around() -> None:
    data = scene("red", "nir", dtype="uint16")
    found = pixels.spectral_index(data, "NDVI")["NDVI"].values
    np.testing.assert_array_equal(found, pixels.normalized_difference(data, "nir", "red", name="n")["n"].values)


STEPS: dict[str, Step] = {
    "NDVI": lambda pipe: pipe.spectral_index("NDVI"),
    "several": lambda pipe: pipe.scale(["red", "nir"], factor=1e-4).spectral_index(["SAVI", "kNDVI"], L=0.5),
    "after clouds": lambda pipe: pipe.mask_clouds("scl").spectral_index("NDVI"),
}


@pytest.mark.parametrize("name", STEPS)
def test_an_index_means_the_same_wherever_it_stands(land: Synthetic, name: str) -> None:
    assert_law(land, STEPS[name])


@pytest.mark.parametrize("name", STEPS)
def test_indices_straight_into_tensors(land: Synthetic, name: str) -> None:
    """Read without a Dataset they are bit for bit what they are through one."""
    chips = cubes(land).chip(96).read()
    index = "SAVI" if name == "several" else "NDVI"
    straight = list(STEPS[name](chips).tensor(image=["red", index], fill=0))
    by_dataset = list(STEPS[name](chips).map(lambda chip: chip).tensor(image=["red", index], fill=0))
    for ours, theirs in zip(straight, by_dataset, strict=True):
        for key in ("image", "image_valid"):
            np.testing.assert_array_equal(ours[key].numpy(), theirs[key].numpy())


ERRORS: dict[str, tuple[Step, type[Exception], str]] = {
    "a name": (lambda data: pixels.spectral_index(data, "NVDI"), StepError, "no index 'NVDI'; did you mean.*'NDVI'"),
    "a band": (
        lambda data: pixels.spectral_index(data, "NBR"), UnknownBand,
        r"'NBR'\) needs S2 \(Short-wave Infrared \(SWIR\) 2\); the variables are \['red', 'nir'\].*bands=\{'S2': ...\}",
    ),
    "Sentinel-2 has a wider one": (
        lambda data: pixels.spectral_index(data.rename(nir="nir08"), "NDVI", platform="sentinel-2a"), UnknownBand,
        r"needs N \(Near-Infrared",
    ),
    "a constant": (
        lambda data: pixels.spectral_index(data, "SAVI", l=1.0), StepError,
        r"l=1.0\): no formula has that constant; they have \['L'\]; did you mean 'L'\?",
    ),
    "no constant": (lambda data: pixels.spectral_index(data, "NDVI", L=0.5), StepError, "they have none"),
    "no kernel": (lambda data: pixels.spectral_index(data, "NDVI", sigma=0.5), StepError, "they have none"),
    "a band of the catalogue": (
        lambda data: pixels.spectral_index(data, "NDVI", bands={"nir": "nir"}), StepError,
        r"'nir' is no band of the catalogue; the formulas have N \(Near-Infrared.*did you mean 'N'\?",
    ),
    "what is there": (
        lambda data: pixels.spectral_index(pixels.spectral_index(data, "NDVI"), "NDVI"), StepError,
        "spectral_index\\('NDVI'\\): the chip has a 'NDVI' already",
    ),
    "a difference of that name": (
        lambda data: pixels.normalized_difference(data, "nir", "red", name="red"), StepError,
        r"name='red'\): the chip has a 'red' already; rename that one before",
    ),
    "validity": (
        lambda data: pixels.normalized_difference(data, "nir", "red", name="valid"), StepError, "a 'valid' already",
    ),
    "no default": (lambda data: pixels.spectral_index(data, "NIRvP"), StepError, r"say its \['PAR'\].*PAR=..."),
    "a platform": (
        lambda data: pixels.spectral_index(data, "NDVI", platform="sentinel-3a"), StepError,
        r"platform='sentinel-3a'\): its bands are not known; did you mean 'sentinel2a'",
    ),
    "a variable": (
        lambda data: pixels.spectral_index(data, "NDVI", bands={"N": "nri"}), UnknownBand, "did you mean 'nir'",
    ),
    "stored numbers": (
        lambda data: pixels.spectral_index(scene("red", "nir", dtype="uint16"), "SAVI"), StepError,
        r"needs reflectance, and \['nir', 'red'\] hold whole numbers as stored; write stack\(rescale=True\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_indices(name: str) -> None:
    step, kind, message = ERRORS[name]
    with pytest.raises(kind, match=message):
        step(scene("red", "nir"))


def test_a_platform_that_items_do_not_agree_on(land: Synthetic) -> None:
    """B05 of Sentinel-2 and of Landsat are different bands: no guess."""
    items = [copy.deepcopy(item) for item in land.items]
    for number, item in enumerate(items):
        _renamed(item, "landsat-8" if number % 2 else "sentinel-2a")
    pipe = gp.items(items).stack({"own": "B05", "red": "red"}, crs="utm", resolution=10)
    with pytest.raises(UnknownBand, match="needs N"):
        next(iter(pipe.spectral_index("NDVI")))
    next(iter(pipe.spectral_index("NDVI", bands={"N": "own"})))


def _renamed(item: pystac.Item, platform: str) -> None:
    item.properties["platform"] = platform
    item.assets["nir"].extra_fields["eo:bands"] = [{"name": "B05"}]
    item.assets["B05"] = item.assets.pop("nir")
