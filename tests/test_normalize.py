"""Normalize: one scale for all pixels, the same on a chip as on the whole, and never by statistics of other steps."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import geopipes as gp
from geopipes import fingerprints
from geopipes.chips import Reading
from geopipes.errors import StatisticsError, StepError, UnknownBand
from geopipes.loaders import Each
from geopipes.normalizing import How, normalize
from geopipes.statistics import Run, Statistics, chain_of, merge, statistics
from geopipes.steps import Step
from geopipes.testing import Synthetic

DIMS = ("time", "y", "x")


def example() -> xr.Dataset:
    rng = np.random.default_rng(0)
    sides = (2, 24, 16)
    ok = rng.random(sides) < 0.7
    ndvi = np.where(ok, rng.normal(0.2, 0.3, sides), np.nan).astype(np.float32)
    variables: dict[str, Any] = {
        "red": (DIMS, rng.gamma(2, 900, sides).astype(np.uint16), {"nodata": 0, "long_name": "red light"}),
        "ndvi": (DIMS, ndvi),
        "flat": (DIMS, np.full(sides, 7, np.int16)),
        "crop": (DIMS[1:], rng.integers(0, 5, sides[1:], np.uint8), {"joined": True, "nodata": 4}),
        "dem": (DIMS[1:], rng.integers(-9, 9, sides[1:], np.int32), {"joined": True, "nodata": -9}),
        "valid": (DIMS, ok),
    }
    return xr.Dataset(variables, {"chip": ((), 3, {"margin": 0})})


WHOLE = example()
STATS = statistics([WHOLE], classes=["crop"])


def test_standard_has_mean_0_and_deviation_1() -> None:
    done = normalize(WHOLE, STATS)
    again = statistics([done], classes=["crop"])
    for name in ("red", "ndvi", "dem"):
        assert done[name].dtype == np.float32
        assert again[name].mean == pytest.approx(0, abs=1e-6)
        assert again[name].std == pytest.approx(1, rel=1e-6)
        assert again[name].count == STATS[name].count
    valid = WHOLE["valid"].values
    np.testing.assert_array_equal(np.isnan(done["red"].values), ~valid)
    np.testing.assert_array_equal(np.isnan(done["dem"].values), WHOLE["dem"].values == -9)
    np.testing.assert_array_equal(done["flat"].values[valid], 0)
    xr.testing.assert_identical(done["crop"], WHOLE["crop"])
    xr.testing.assert_identical(done["valid"], WHOLE["valid"])
    assert done["red"].attrs == {"long_name": "red light", "normalized": True}
    assert done["dem"].attrs == {"joined": True, "normalized": True}
    assert list(done.data_vars) == list(WHOLE.data_vars)
    expected = (WHOLE["red"].values[valid] - STATS["red"].mean) / STATS["red"].std
    np.testing.assert_allclose(done["red"].values[valid], expected, rtol=1e-5, atol=1e-6)


def test_a_narrow_spread_far_from_0_is_kept() -> None:
    values = np.random.default_rng(0).normal(0.99987, 1e-4, (1, 90, 90)).astype(np.float32)
    chip = xr.Dataset({"a": (DIMS, values)})
    again = statistics([normalize(chip, statistics([chip]))])["a"]
    assert again.mean == pytest.approx(0, abs=1e-6)
    assert again.std == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(("how", "percents"), [("minmax", (0, 100)), ("percentiles", (2, 98))])
def test_ends_become_0_and_1(how: How, percents: tuple[float, float]) -> None:
    done = normalize(WHOLE, STATS, how=how, variables=["red", "ndvi"])
    assert done["dem"].dtype == WHOLE["dem"].dtype
    for name in ("red", "ndvi"):
        values = done[name].values[WHOLE["valid"].values]
        np.testing.assert_allclose(np.percentile(values, percents), (0, 1), atol=1e-3)
    assert float(done["red"].max()) >= 1  # nothing is clipped


@pytest.mark.parametrize("how", ["standard", "percentiles", "minmax"])
def test_a_chip_is_a_window_of_the_whole_on_numpy_and_on_dask(how: How) -> None:
    whole = normalize(WHOLE, STATS, how=how)
    part = {"y": slice(3, 11), "x": slice(2, 7), "time": slice(1, 2)}
    xr.testing.assert_identical(normalize(WHOLE.isel(part), STATS, how=how), whole.isel(part))
    lazy = normalize(WHOLE.chunk(y=5), STATS, how=how)
    assert all(lazy[name].chunks for name in ("red", "ndvi", "dem"))
    xr.testing.assert_identical(lazy.compute(), whole)


def test_inputs_and_bands() -> None:
    values = np.arange(48.0).reshape(2, 4, 6)
    bands = xr.Dataset({"e": (("band", "y", "x"), values)}, {"band": ["A00", "A01"]})
    both = {"s2": WHOLE, "emb": bands}
    stats = statistics([both], classes=["s2/crop"])
    done = normalize(both, stats)
    xr.testing.assert_identical(done["s2"], normalize(WHOLE, STATS))
    expected = (values - values.mean((1, 2), keepdims=True)) / values.std((1, 2), keepdims=True)
    np.testing.assert_allclose(done["emb"]["e"].values, expected, rtol=1e-6)
    alone = normalize(both, stats, variables="emb/e")
    xr.testing.assert_identical(alone["s2"], WHOLE)
    xr.testing.assert_identical(alone["emb"], done["emb"])
    with pytest.raises(UnknownBand, match=r"do not know \['emb/e\[A07\]'\]"):
        normalize({"emb": bands.assign_coords(band=["A00", "A07"])}, stats)


# In a chain.


def prepare(pipe: Any) -> Any:
    return (
        pipe.mask_values("scl", [3, 8, 9])
        .scale(["red", "nir"], factor=1e-4)
        .normalized_difference("nir", "red", name="NDVI")
    )


def stacked(land: Synthetic) -> gp.Pipe[xr.Dataset]:
    return gp.items(land.items).stack(["red", "nir", "scl"], resolution=10, crs="utm")


def run(pipe: gp.Pipe[Any]) -> Run:
    return Run(Reading(pipe._value.get(), 4, 1 << 26))


@pytest.fixture(scope="module")
def trained(land: Synthetic) -> Statistics:
    return statistics(run(prepare(stacked(land).chip(64))), classes=["scl"])


SAME: dict[str, Callable[[gp.Pipe[xr.Dataset]], gp.Pipe[xr.Dataset]]] = {
    "on cubes": prepare,
    "before chip": lambda stack: prepare(stack).chip(48),
    "after chip": lambda stack: prepare(stack.chip(32, overlap=4)).take(3),
    "after read": lambda stack: prepare(stack.chip(64).read()),
}


@pytest.mark.parametrize("name", SAME)
def test_statistics_serve_the_same_steps_wherever_they_stand(land: Synthetic, trained: Statistics, name: str) -> None:
    pipe = SAME[name](stacked(land))
    chain = chain_of(pipe._value.get(), pipe._ops)
    assert chain is not None
    trained.check(chain)


def test_statistics_of_another_chain_are_refused(land: Synthetic, trained: Statistics) -> None:
    other = stacked(land).mask_values("scl", [3, 8]).scale("red", factor=1e-4).chip(64)
    chain = chain_of(other._value.get())
    with pytest.raises(StatisticsError) as caught:
        trained.check(chain)
    message = str(caught.value)
    assert "step 1: mask_values('scl', [3, 8, 9]) -> mask_values('scl', [3, 8])" in message
    assert "step 3: normalized_difference('nir', 'red', name='NDVI') -> nothing" in message
    assert "make statistics after the same steps" in message
    with pytest.raises(StatisticsError, match="been through different steps"):
        merge(trained, statistics(run(other), classes=["scl"]))
    labelled = prepare(stacked(land)).join(gp.rasters(land.label), name="crop").chip(64)
    trained.check(chain_of(labelled._value.get()))  # labels do not count
    floats = prepare(gp.items(land.items).stack(["red", "nir", "scl"], resolution=10, crs="utm", dtype="float32"))
    with pytest.raises(StatisticsError, match='variables red "uint16" -> "float32"'):
        trained.check(chain_of(floats._value.get()))
    STATS.check(chain)  # of chips from elsewhere nothing is known
    trained.check(chain_of([WHOLE]))


def test_a_step_of_a_plan_and_of_a_pipe(land: Synthetic, trained: Statistics) -> None:
    step = Step("normalize(stats)", normalize, (trained,), {"how": "standard"}, local_in_time=True)
    planned = prepare(stacked(land).chip(64))._value.get().map(step)
    read = prepare(stacked(land).chip(64).read())
    before = list(Run(Reading(planned, 2, 1 << 26)))
    after = list(Run(read._value.get(), (*read._ops, Each(step))))
    assert len(before) == len(after) > 1
    for one, other in zip(before, after, strict=True):
        xr.testing.assert_identical(one, other)
    lazy = planned[1]
    assert lazy["NDVI"].dtype == np.float32
    xr.testing.assert_identical(lazy.load(), before[1])
    again = statistics(before, classes=["scl"])
    assert again["NDVI"].mean == pytest.approx(0, abs=1e-5)
    assert again["NDVI"].std == pytest.approx(1, rel=1e-5)
    step.check_pickles()
    copied = pickle.loads(pickle.dumps(step))
    assert fingerprints.steps_fingerprint(None, [step]) == fingerprints.steps_fingerprint(None, [copied])


def test_no_index_of_what_is_normalized(land: Synthetic) -> None:
    cubes = gp.items(land.items).stack(["red", "nir"], crs="utm", resolution=10, groupby="solar_day")
    plan = cubes.chip(64)
    done = plan.read().normalize(plan.statistics(sample=2, seed=0))
    message = r"\['nir', 'red'\] were normalized before, .* let it stand before normalize"
    with pytest.raises(StepError, match=message):
        next(iter(done.spectral_index("NDVI")))
    with pytest.raises(StepError, match=message):
        list(done.normalized_difference("nir", "red", name="NDVI").tensor(image=["NDVI"], fill=0).batch(2))


def test_what_are_no_statistics_is_refused_when_typed(land: Synthetic) -> None:
    cubes: Any = gp.items(land.items).stack(["red"], crs="utm", resolution=10)
    for call in (cubes.normalize, lambda given: normalize(WHOLE, given)):
        with pytest.raises(StatisticsError, match=r"normalize\(dict\): Statistics are needed, .* scale\('red'"):
            call({"red": (0, 1)})


def clouded() -> Statistics:
    return statistics([WHOLE.assign(valid=WHOLE["valid"] & False)], classes=["crop"])


@pytest.mark.parametrize(
    ("stats", "options", "error", "words"),
    [
        (STATS, {"how": "robust"}, StatisticsError, "write 'standard', 'percentiles' or 'minmax'"),
        (STATS, {"variables": ["nir"]}, UnknownBand, "no variable 'nir' in the Dataset; there are"),
        (
            STATS,
            {"variables": ["crop"]},
            StatisticsError,
            r"'crop' was counted as classes.* leave it out, or .* quantity .*statistics\(classes=\(\)\)",
        ),
        (statistics([WHOLE]), {"variables": "dem"}, StatisticsError, r"'dem' was .* statistics\(classes=\('crop',\)\)"),
        (statistics([WHOLE], variables=["red"]), {"variables": "ndvi"}, UnknownBand, "'ndvi' in the statistics"),
        (statistics([WHOLE], percentiles=[50]), {"how": "percentiles"}, StatisticsError, r"have percentiles \[50.0\]"),
        (clouded(), {}, StatisticsError, "no pixel of 'red' was valid in the 1 chips measured"),
        (statistics([WHOLE[["crop"]]]), {}, StatisticsError, r"the statistics are of \['crop'\]"),
    ],
)
def test_errors(stats: Statistics, options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        normalize(WHOLE, stats, **options)
