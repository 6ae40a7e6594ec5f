"""The law of pixel steps: before chip, after it or after read, on numpy and on dask, a step gives the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import geopipes as gp
from geopipes import pixels
from geopipes.errors import StepError, UnknownBand
from geopipes.kinds import is_categorical
from geopipes.testing import Synthetic

Step = Callable[[Any], Any]


def doubled(dataset: xr.Dataset) -> xr.Dataset:
    """Double a band: a user's own step."""
    return dataset.assign(red=dataset["red"].astype("float32") * 2)


def since_first(dataset: xr.Dataset) -> xr.Dataset:
    """Take the change since the first date: a step that looks at all dates."""
    return dataset.assign(change=dataset["red"].astype("float32") - dataset["red"].isel(time=0, drop=True))


def brightest(dataset: xr.Dataset) -> xr.Dataset:
    """Take the maximum over the dates: a step that leaves one."""
    latest = dataset["time"].values[-1:]
    one = dataset[["red"]].max("time").expand_dims(time=latest)
    return one.assign(valid=dataset["valid"].any("time").expand_dims(time=latest))


STEPS: dict[str, Step] = {
    "scale": lambda pipe: pipe.scale(["red", "nir"], factor=1e-4, offset=-0.1),
    "normalized_difference": lambda pipe: pipe.normalized_difference("nir", "red", name="NDVI"),
    "mask_values": lambda pipe: pipe.mask_values("scl", [3, 8, 9]),
    "to_decibel": lambda pipe: pipe.to_decibel(["red", "nir"]),
    "all three": lambda pipe: (
        pipe.mask_values("scl", [3, 8, 9])
        .scale(["red", "nir"], factor=1e-4)
        .normalized_difference("nir", "red", name="N")
    ),
    "a function": lambda pipe: pipe.map(doubled),
    "over dates": lambda pipe: pipe.map(since_first),
    "to one date": lambda pipe: pipe.map(brightest),
}


def cubes(land: Synthetic, **options: Any) -> gp.Pipe[xr.Dataset]:
    pipe = gp.items(land.items).filter(lambda item: "14T" in item.id)
    return pipe.stack(["red", "nir", "scl"], resolution=10, **options)


def inner(chip: xr.Dataset, margin: int) -> xr.Dataset:
    """Cut a chip's margin off, and what says where and how wide it is."""
    side = slice(margin, -margin or None)
    return chip.isel(y=side, x=side).drop_vars(["spatial_ref", "chip"] if margin else [])


def assert_law(land: Synthetic, step: Step, *, margin: int = 0, stack: Any = None) -> None:
    """A step gives the same before chip, after it, after read, and on the whole cube."""
    stack = cubes(land) if stack is None else stack
    before = [inner(chip, 0) for chip in step(stack).chip(96).read(threads=2)]
    planned = [inner(chip, margin) for chip in step(stack.chip(96, margin=margin)).read(threads=2)]
    after = [inner(chip, margin) for chip in step(stack.chip(96, margin=margin).read(threads=2))]
    whole = next(iter(step(stack))).load()
    assert len(before) == len(planned) == len(after) > 1
    for a, b, c in zip(before, planned, after, strict=True):
        a = a.drop_vars(["spatial_ref", "chip"] if margin else [])
        xr.testing.assert_identical(a, b)
        xr.testing.assert_identical(a, c)
        part = whole.sel(y=a["y"], x=a["x"])
        for variable in a.data_vars:
            np.testing.assert_array_equal(a[variable].values, part[variable].values)
            assert a[variable].dtype == part[variable].dtype


@pytest.mark.parametrize("name", STEPS)
def test_a_step_means_the_same_wherever_it_stands(land: Synthetic, name: str) -> None:
    assert_law(land, STEPS[name])


@pytest.mark.parametrize("name", ["scale", "normalized_difference", "mask_values", "over dates", "to one date"])
def test_a_step_over_dates_and_windows_of_dates(land: Synthetic, name: str) -> None:
    """Windows of dates are cut after a step that stands before chip."""
    step, stack = STEPS[name], cubes(land)
    whole = next(iter(step(stack))).load()
    for chip in step(stack).chip(192, time=1, coverage="any").read():
        xr.testing.assert_equal(chip.drop_vars("chip"), whole.sel(time=chip["time"].values))


@pytest.mark.parametrize("engine", ["odc", "stackstac"])
def test_a_step_builds_the_graph_on_dask(land: Synthetic, engine: Any) -> None:
    stepped = STEPS["all three"](cubes(land, engine=engine))
    cube = next(iter(stepped))
    assert cube["N"].chunks
    ours = next(iter(STEPS["all three"](cubes(land)))).load()
    xr.testing.assert_allclose(cube.compute().drop_attrs(), ours.drop_attrs(), rtol=0, atol=0)
    chip = next(iter(stepped.chip(96).read()))
    np.testing.assert_array_equal(chip["N"].values, ours["N"].sel(y=chip["y"], x=chip["x"]).values)


def example(**more: Any) -> xr.Dataset:
    valid = np.array([[[True, True, False]]])
    variables = {"red": np.array([[[100, 0, 300]]], np.uint16), "nir": np.array([[[300, 0, 100]]], np.uint16)}
    dims = ("time", "y", "x")
    data = {name: (dims, values, {"nodata": 0}) for name, values in variables.items()}
    return xr.Dataset(data | {"valid": (dims, valid)} | more, {"time": [np.datetime64("2024-01-01", "ns")]})


def test_scale_gives_physical_numbers() -> None:
    scaled = pixels.scale(example(), "red", factor=1e-4, offset=-0.1)
    np.testing.assert_allclose(scaled["red"].values, [[[-0.09, -0.1, np.nan]]], rtol=1e-6)
    assert scaled["red"].dtype == np.float32
    assert scaled["red"].attrs == {"scaled": True}
    assert scaled["nir"].attrs == {"nodata": 0}


def test_normalized_difference_does_not_wrap_around() -> None:
    ndvi = pixels.normalized_difference(example(), "red", "nir", name="nd")["nd"]
    np.testing.assert_allclose(ndvi.values, [[[-0.5, np.nan, np.nan]]])


def test_mask_values_shrinks_valid_and_keeps_integers() -> None:
    scl = (("time", "y", "x"), np.array([[[4, 9, 4]]], np.uint8))
    dataset = example(scl=scl, ndvi=(("time", "y", "x"), np.ones((1, 1, 3), np.float32)))
    masked = pixels.mask_values(dataset, "scl", [8, 9])
    np.testing.assert_array_equal(masked["valid"].values, [[[True, False, False]]])
    np.testing.assert_array_equal(np.isnan(masked["ndvi"].values), [[[False, True, True]]])
    xr.testing.assert_identical(masked["red"], dataset["red"])


def test_errors_of_steps() -> None:
    with pytest.raises(
        UnknownBand, match=r"no variable \['swir'\] in this Dataset: there are \['red', 'nir', 'valid'\]"
    ):
        pixels.scale(example(), ["red", "swir"], factor=1)
    with pytest.raises(StepError, match="needs the boolean 'valid'"):
        pixels.mask_values(example().drop_vars("valid"), "red", [1])


def test_validity_goes_through_every_step(land: Synthetic) -> None:
    chips = cubes(land).chip(96).read()
    whole = next(iter(chips.map(lambda chip: chip[["red"]])))
    xr.testing.assert_identical(whole["valid"], next(iter(chips))["valid"])
    with pytest.raises(StepError, match=r"made 'valid' float64.*by .mask\(lambda chip"):
        next(iter(chips.map(lambda chip: chip * 1.0)))
    with pytest.raises(StepError, match=r"made 'valid' bool \('band', 'time', 'y', 'x'\)"):
        next(iter(chips.map(lambda chip: chip.expand_dims(band=2))))
    with pytest.raises(StepError, match="dropped 'valid' and changed its dims"):
        next(iter(chips.map(lambda chip: chip[["red"]].isel(time=[0]))))


def test_attributes_of_stored_pixels_go_with_them(land: Synthetic) -> None:
    """A step of one's own that makes fractions loses nodata; a joined label keeps its own, whatever becomes of it."""
    labelled = cubes(land).join(gp.rasters(land.label), name="crop")
    chips = labelled.chip(96).read()
    kept, made = next(iter(chips)), next(iter(chips.map(_halved)))
    assert kept["red"].attrs["nodata"] == 0
    assert "nodata" not in made["red"].attrs
    assert made["red"].attrs["common_name"] == "red"
    assert made["crop"].attrs["nodata"] == kept["crop"].attrs["nodata"] == 255


def _halved(chip: xr.Dataset) -> xr.Dataset:
    halves = {name: chip[name].astype("float32") / 2 for name in ("red", "crop")}
    return chip.assign({name: half.assign_attrs(chip[name].attrs) for name, half in halves.items()})


@pytest.mark.parametrize(
    ("name", "dtype", "attrs", "classes"),
    [
        ("scl", "uint8", {}, True),
        ("QA_PIXEL", "uint16", {}, True),
        ("scl", "float32", {}, False),
        ("red", "uint16", {}, False),
        ("red", "uint16", {"flag_values": [1, 2]}, True),
        ("mine", "uint8", {"categorical": True}, True),
        ("scl", "uint8", {"categorical": False}, False),
        ("clouds", "bool", {}, False),
    ],
)  # fmt: skip
def test_what_holds_classes(name: str, dtype: str, attrs: dict[str, Any], classes: bool) -> None:
    assert is_categorical(name, np.dtype(dtype), attrs) is classes


def test_statistics_count_classes(land: Synthetic) -> None:
    """Of a scene classification they make no mean, unasked, and normalize leaves it alone."""
    chips = cubes(land).chip(96)
    found = chips.statistics()
    assert found["scl"].categorical
    assert not found["red"].categorical
    normalized = next(iter(chips.read().normalize(found)))
    assert (str(normalized["scl"].dtype), str(normalized["red"].dtype)) == ("uint8", "float32")
