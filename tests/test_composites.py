"""Composites and gaps: the law of steps, on numpy and dask; medians are xarray's; all chips have the same periods."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import geopipes as gp
from geopipes import fingerprints
from geopipes.chips import Windows
from geopipes.composites import composite, fill_gaps, interpolate
from geopipes.errors import StepError, UnknownBand
from geopipes.testing import Synthetic, synthetic_scenes

DATES = ("2024-05-03", "2024-05-13", "2024-05-23", "2024-06-07", "2024-07-12")
Step = Callable[[Any], Any]

STEPS: dict[str, Step] = {
    "median": lambda pipe: pipe.composite("month", {"scl": "mode", "*": "median"}),
    "14 days": lambda pipe: pipe.composite("14D", {"scl": "last", "red": "quantile", "nir": "mean"}, q=0.3),
    "best": lambda pipe: pipe.composite("month", "max", by="nir"),
    "first": lambda pipe: pipe.composite("all", "first"),
    "windows": lambda pipe: pipe.composite(
        {"late": ("2024-06", "2024-07-20"), "early": ("2024-05-01", "2024-05-15")}, {"scl": "mode", "*": "min"}
    ),
    "gaps": lambda pipe: pipe.fill_gaps({"scl": "nearest", "*": "linear"}, max_gap="20D"),
    "dates": lambda pipe: pipe.interpolate("10D", {"scl": "forward", "*": "linear"}, max_gap="40D"),
}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    return synthetic_scenes(tmp_path_factory.mktemp("series"), dates=DATES, size=192)


def cubes(series: Synthetic, **options: Any) -> gp.Pipe[xr.Dataset]:
    pipe = gp.items(series.items).filter(lambda item: "14T" in item.id)
    return pipe.stack(["red", "nir", "scl"], resolution=10, **options).mask_values("scl", [3, 8, 9])


@pytest.mark.parametrize("name", STEPS)
def test_a_step_along_time_means_the_same_wherever_it_stands(series: Synthetic, name: str) -> None:
    step, stack = STEPS[name], cubes(series)
    before = list(step(stack).chip(96, coverage="any").read(threads=2))
    planned = list(step(stack.chip(96, coverage="any")).read(threads=2))
    after = list(step(stack.chip(96, coverage="any").read(threads=2)))
    whole = next(iter(step(stack))).load()
    looked = step(stack).chip(96, coverage="any")[1].load()
    assert len(before) == len(after) == 4
    xr.testing.assert_identical(looked, before[1])
    for a, b, c in zip(before, planned, after, strict=True):
        xr.testing.assert_identical(a, b)
        xr.testing.assert_identical(a, c)
        part = whole.sel(y=a["y"].values, x=a["x"].values)
        xr.testing.assert_equal(part, a.drop_vars("chip"))
        assert {v: a[v].dtype for v in a.data_vars} == {v: part[v].dtype for v in part.data_vars}


@pytest.mark.parametrize("name", STEPS)
def test_windows_of_periods_are_cut_after_the_step(series: Synthetic, name: str) -> None:
    stepped = STEPS[name](cubes(series)).scale("red", factor=1e-4)
    whole = next(iter(stepped)).load()
    chips = list(stepped.chip(192, time=1, coverage="any").read())
    assert len(chips) == whole.sizes["time"]
    for chip in chips:
        xr.testing.assert_equal(chip.drop_vars("chip"), whole.sel(time=chip["time"].values))


@pytest.mark.parametrize("engine", ["odc", "stackstac"])
@pytest.mark.parametrize("name", ["median", "14 days", "best", "gaps", "dates"])
def test_a_step_along_time_builds_the_graph_on_dask(series: Synthetic, engine: Any, name: str) -> None:
    cube = next(iter(STEPS[name](cubes(series, engine=engine))))
    assert all(variable.chunks for variable in cube.data_vars.values())
    ours = next(iter(STEPS[name](cubes(series)))).load()
    done = cube.compute()
    for variable in ours.data_vars:
        np.testing.assert_array_equal(done[variable].values, ours[variable].values)
        assert done[variable].dims == ours[variable].dims


def make(values: Any, valid: Any = None, *, dates: Any = None, name: str = "b") -> xr.Dataset:
    """Make a Dataset of (time, y, x)."""
    values = np.asarray(values)
    dates = pd.date_range("2024-05-01T10:00", periods=len(values), freq="5D") if dates is None else dates
    valid = np.ones(values.shape, bool) if valid is None else np.asarray(valid)
    dims = ("time", "y", "x")
    return xr.Dataset({name: (dims, values), "valid": (dims, valid)}, {"time": pd.DatetimeIndex(dates)})


@given(
    st.integers(1, 40), st.sampled_from(["uint16", "int16", "int32", "float32", "float64"]),
    st.sampled_from(["3D", "14D", "all"]), st.floats(0, 1), st.integers(0, 2**31),
)  # fmt: skip
def test_medians_are_those_of_xarray(dates: int, dtype: str, period: str, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 50, (dates, 5, 7)) if dtype[0] != "f" else rng.normal(size=(dates, 5, 7))
    when = np.datetime64("2024-05-01", "ns") + np.sort(rng.choice(1200, dates, replace=False)) * np.timedelta64(1, "h")
    dataset = make(values.astype(dtype), rng.random(values.shape) < share, dates=when)
    span = (str(when[0])[:10], str(when[0] + np.timedelta64(60, "D"))[:10])
    ours = composite(dataset, period, "median", span=span)["b"]
    masked = dataset["b"].where(dataset["valid"])
    if period == "all":
        theirs = masked.median("time").values[None]
    else:
        theirs = masked.resample(time=period, origin="start_day").median().values
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours.values[: len(theirs)], theirs)
    assert np.isnan(ours.values[len(theirs) :]).all()


@given(st.integers(1, 30), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.integers(0, 2**31))
def test_other_methods_are_those_of_numpy(dates: int, q: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 9, (dates, 6, 5)).astype("uint8")
    valid = rng.random(values.shape) < 0.6
    dataset = make(values, valid).assign(score=(("time", "y", "x"), rng.random(values.shape).astype("float32")))
    masked = np.where(valid, values.astype(float), np.nan)
    some = valid.any(axis=0)
    wanted: dict[str, Any] = {
        "mean": np.nanmean(masked[:, some], axis=0), "min": np.nanmin(masked[:, some], axis=0),
        "max": np.nanmax(masked[:, some], axis=0), "quantile": np.nanquantile(masked[:, some], q, axis=0),
        "first": np.take_along_axis(values, valid.argmax(axis=0)[None], 0)[0][some],
        "last": np.take_along_axis(values[::-1], valid[::-1].argmax(axis=0)[None], 0)[0][some],
    }  # fmt: skip
    for method, expected in wanted.items():
        given = {"b": method, "*": "first"}
        found = composite(dataset, "all", given, q=q if method == "quantile" else None)
        np.testing.assert_array_equal(found["valid"].values[0], some)
        np.testing.assert_allclose(found["b"].values[0][some], expected, rtol=1e-6)
    best = np.where(valid, dataset["score"].values, -1).argmax(axis=0)
    found = composite(dataset, "all", "max", by="score")
    np.testing.assert_array_equal(found["b"].values[0][some], np.take_along_axis(values, best[None], 0)[0][some])
    modes = composite(dataset, "all", {"b": "mode", "*": "first"})["b"].values[0]
    for y, x in np.argwhere(some):
        counts = np.bincount(values[valid[:, y, x], y, x])
        assert modes[y, x] == counts.argmax()


def test_the_whole_pixel_is_that_of_the_best_date() -> None:
    dataset = make(np.array([[[1]], [[2]], [[3]]], np.uint16), np.array([[[True]], [[True]], [[False]]]))
    dataset = dataset.assign(cloud=(("time", "y", "x"), np.array([[[9.0]], [[1.0]], [[0.0]]])))
    best = composite(dataset, "all", "min", by="cloud")
    assert best["b"].item() == 2
    assert best["cloud"].item() == 1.0


def test_a_date_without_the_band_is_not_the_best() -> None:
    dataset = make(np.array([[[1, 2]], [[3, 4]]], np.uint16))
    dataset = dataset.assign(ndvi=(("time", "y", "x"), np.array([[[np.nan, np.nan]], [[0.1, np.nan]]])))
    best = composite(dataset, "all", "max", by="ndvi")
    assert best["b"].values.tolist() == [[[3, 0]]]
    assert best["valid"].values.tolist() == [[[True, False]]]


@pytest.mark.parametrize(
    "method", ["median", "mean", "min", "max", "mode", "first", "last", "nearest", "forward", "linear"]
)
def test_truth_stays_truth_or_becomes_a_share(method: str) -> None:
    values = np.array([[[True, True]], [[False, False]], [[True, False]]])
    dataset = make(values, [[[True, False]], [[True, False]], [[True, False]]])
    filled = method in ("nearest", "forward", "linear")
    found = (fill_gaps(dataset, method) if filled else composite(dataset, "all", method))["b"]
    assert found.dtype == (np.float32 if method in ("median", "mean", "linear") else bool)
    seen, missing = found.values[0, 0]
    assert seen == {"min": False, "mean": np.float32(2 / 3)}.get(method, True)
    assert np.isnan(missing) if found.dtype == np.float32 else not missing


def test_integers_hold_nodata_where_nothing_was_measured() -> None:
    dataset = make(np.full((2, 1, 2), 7, np.int16), [[[True, False]], [[True, False]]])
    dataset["b"].attrs = {"nodata": -9, "units": "m"}
    first = composite(dataset, "all", "first")["b"]
    assert first.values.tolist() == [[[7, -9]]]
    assert first.attrs == {"nodata": -9, "units": "m"}
    mean = composite(dataset, "all", "mean")["b"]
    assert mean.attrs == {"units": "m"}
    assert mean.dtype == np.float32


def test_a_band_dimension_and_what_has_no_time_stay() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 3, 5, 6)).astype("float32")
    dataset = make(rng.random((4, 5, 6))).assign(
        many=(("time", "band", "y", "x"), values), dem=(("y", "x"), np.ones((5, 6)), {"joined": True})
    )
    found = composite(dataset, "all", "median")
    np.testing.assert_array_equal(found["many"].values[0], np.median(values, axis=0))
    assert [*found.data_vars] == ["b", "valid", "many", "dem"]
    xr.testing.assert_identical(found["dem"], dataset["dem"])
    filled = fill_gaps(dataset.assign(valid=dataset["b"] > 0.5), "nearest")
    assert filled["many"].dims == ("time", "band", "y", "x")


@pytest.mark.parametrize(
    ("period", "begins"),
    [
        ("month", ["2024-05-01", "2024-06-01", "2024-07-01"]),
        ("ME", ["2024-05-01", "2024-06-01", "2024-07-01"]),
        ("2MS", ["2024-05-01", "2024-07-01"]),
        ("season", ["2024-03-01", "2024-06-01"]),
        ("year", ["2024-01-01"]),
        ("28D", ["2024-05-08", "2024-06-05", "2024-07-03"]),
        (pd.offsets.QuarterBegin(startingMonth=1), ["2024-04-01", "2024-07-01"]),
    ],
)
def test_periods_begin_with_the_calendar_or_the_range(period: Any, begins: list[str]) -> None:
    dataset = make(np.ones((1, 1, 1)), dates=["2024-06-07"])
    span = ("2023-12-30", "2024-12-30") if period == "year" else ("2024-05-08", "2024-07-10")
    found = composite(dataset, period, "first", span=span)
    begins = ["2023-01-01", *begins] if period == "year" else begins
    assert found["time"].values.astype("M8[D]").astype(str).tolist() == begins
    assert found["valid"].values.ravel().sum() == 1


def test_weeks_begin_on_monday() -> None:
    dataset = make(np.ones((1, 1, 1)), dates=["2024-06-09"])  # a Sunday
    week = composite(dataset, "week", "first", span=("2024-06-05", "2024-06-12"))
    assert week["time"].values.astype("M8[D]").astype(str).tolist() == ["2024-06-03", "2024-06-10"]
    assert week["valid"].values.ravel().tolist() == [True, False]


def test_windows_have_names_and_hold_their_last_day() -> None:
    dataset = make(np.arange(4.0)[:, None, None], dates=["2024-05-31T23:00", "2024-06-01", "2024-07-01", "2024-07-20"])
    found = composite(dataset, {"b": ("2024-07-01", "2024-07-20"), "a": ("2024-05", "2024-05")}, "max")
    assert found["period"].values.tolist() == ["a", "b"]
    assert found["b"].values.ravel().tolist() == [0.0, 3.0]


def test_all_chips_have_the_periods_of_the_range_searched(series: Synthetic) -> None:
    """Zones see other dates, and a chip may see none: periods are those of all items."""
    some = [item for item in series.items if "14T" in item.id or "0503" in item.id]
    plan = gp.items(some).stack(["red"], crs="utm", resolution=10, groupby="solar_day").chip(64, coverage="any")
    times = [chip["time"].values for chip in plan.composite("month", "median").read()]
    assert len({chip["spatial_ref"].attrs["crs_wkt"] for chip in plan}) == 2
    months = np.array(["2024-05", "2024-06", "2024-07"], "M8[ns]")
    for time in times:
        np.testing.assert_array_equal(time, months)


def test_the_range_searched_is_kept_when_frozen(series: Synthetic, tmp_path: Any) -> None:
    from geopipes.testing import serve

    with serve(series.items, collections=[series.collection]) as api:
        for _ in range(2):  # found, then replayed
            found = gp.search(api.url, collections=[series.collection.id], datetime="2024-03/2024-08")
            cubes = found.freeze(tmp_path / "found.json").stack(["red"], crs="utm", resolution=10)
            chip = cubes.composite("month", "median").chip(64)[0]
            assert chip["time"].values.astype("M8[M]").astype(str).tolist() == [f"2024-0{m}" for m in range(3, 9)]
    chip = chip.load()
    seen = [bool(valid) for valid in chip["valid"].any(("y", "x"))]
    assert not any(seen[:2])
    assert any(seen[2:5])
    assert np.isnan(chip["red"].values[0]).all()


def test_another_period_or_range_is_another_fingerprint(series: Synthetic) -> None:
    plan = cubes(series).chip(96, coverage="any")
    chains = [
        plan.composite("14D", "first"), plan.composite("month", "first"), plan.composite("month", "last"),
        plan.composite("month", "first", span=("2024-04", "2024-07")), plan.fill_gaps("nearest"),
        plan.interpolate("month", "nearest"),
    ]  # fmt: skip
    windows = [chain._value.get() for chain in chains]
    assert len({fingerprints.fingerprint(one) for one in windows}) == len(chains)
    for one in windows:
        again = pickle.loads(pickle.dumps(one))
        assert fingerprints.fingerprint(again) == fingerprints.fingerprint(one)
        xr.testing.assert_identical(again[0].load(), one[0].load())
    whole = cubes(series)._value.get().cubes[0]
    wider = replace(whole.base, stack=replace(whole.base.stack, span=(np.datetime64("2023"), np.datetime64("2025"))))
    documents = [fingerprints.describe(Windows.of((cube,), (96, 96), row=0, col=0)) for cube in (whole.base, wider)]
    assert documents[0] != documents[1]


def test_gaps_are_filled_between_dates() -> None:
    valid = np.array([True, False, True, False, False])[:, None, None]
    dataset = make(np.array([10, 0, 30, 0, 0], np.uint16)[:, None, None], valid)
    linear = fill_gaps(dataset, "linear")
    np.testing.assert_array_equal(linear["b"].values.ravel(), np.array([10, 20, 30, np.nan, np.nan], "float32"))
    assert linear["valid"].values.ravel().tolist() == [True, True, True, False, False]
    forward = fill_gaps(dataset, "forward", max_gap="5D")
    assert forward["b"].values.ravel().tolist() == [10, 10, 30, 30, 0]
    assert forward["valid"].values.ravel().tolist() == [True, True, True, True, False]
    nearest = fill_gaps(dataset, "nearest")
    assert nearest["b"].values.ravel().tolist() == [10, 10, 30, 30, 30]
    assert not fill_gaps(dataset, "linear", max_gap="9D")["valid"].values.ravel()[1]


@given(st.integers(1, 12), st.integers(0, 2**31))
def test_linear_is_that_of_numpy(dates: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    days = np.sort(rng.choice(300, dates, replace=False))
    when = np.datetime64("2024-01-01", "ns") + days * np.timedelta64(1, "D")
    dataset = make(rng.normal(size=(dates, 2, 3)), rng.random((dates, 2, 3)) < 0.7, dates=when)
    wanted = pd.date_range("2024-01-01", periods=30, freq="10D")
    found = interpolate(dataset, [*wanted], "linear")
    at = (wanted.values - when[0]) / np.timedelta64(1, "D") + days[0]
    for y in range(2):
        for x in range(3):
            there = dataset["valid"].values[:, y, x]
            line = np.full(30, np.nan)
            if there.any():
                line = np.interp(at, days[there], dataset["b"].values[there, y, x], left=np.nan, right=np.nan)
            np.testing.assert_allclose(found["b"].values[:, y, x], line, rtol=1e-9, atol=1e-12)
            np.testing.assert_array_equal(found["valid"].values[:, y, x], ~np.isnan(line))


def test_interpolate_has_the_dates_of_composite(series: Synthetic) -> None:
    stack = cubes(series)
    one, other = (next(iter(step)) for step in (stack.composite("10D", "first"), stack.interpolate("10D", "nearest")))
    np.testing.assert_array_equal(one["time"].values, other["time"].values)


def several(dataset: xr.Dataset) -> Any:
    """Give what a chip of several inputs is."""
    return {"s2": dataset}


EXAMPLE = make(np.ones((4, 2, 2), np.uint16))
ONE_END: Any = {"a": "2024"}
OUTSIDE = {"a": ("2023-01", "2023-02")}
OVER = {"a": ("2024-05-01", "2024-05-07"), "b": ("2024-05-07", "2024-05-09")}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: composite(d, "month", "median"), r"lasts 31 days, longer than the range, 2024-05-01 to 2024-05-16"),
        (lambda d: composite(d, "fortnight", "median"), "'fortnight' is not known: use one of day, week"),
        (lambda d: composite(d.rename(b="scl"), "Months", "median"), "'Months' is not known; did you mean 'month'"),
        (lambda d: composite(d, "0D", "median"), "has no length"),
        (lambda d: composite(d, "1s", "median"), "more than 10,000 periods"),
        (lambda d: composite(d, "7D", "avg"), "the method 'avg' is not known: use one of median"),
        (lambda d: composite(d, "7D", "quantile"), r"needs q= from 0 to 1"),
        (lambda d: composite(d, "7D", "quantile", q=1.5), r"q=1.5: method 'quantile', and no other, needs q="),
        (lambda d: composite(d, "7D", "median", q=0.5), "and no other, needs q="),
        (lambda d: composite(d, "7D", "median", by="b"), "'max' takes the date on which b is greatest"),
        (lambda d: composite(d, "7D", {"b": "median", "c": "mean"}), "no variable .'c'. with dates"),
        (lambda d: composite(d, "7D", {}), r"no method for \['b'\]"),
        (lambda d: composite(d, OUTSIDE, "median"), "window 'a' lies outside the range, 2024-05-01 to 2024-05-16"),
        (lambda d: composite(d, OVER, "median"), "windows 'a' and 'b' overlap"),
        (lambda d: composite(d, {"a": ("2024-06", "2024-05")}, "median"), "'a': it ends before it begins"),
        (lambda d: composite(d, ONE_END, "median"), "'a': give the first and the last date"),
        (lambda d: composite(d, {}, "median"), "there are no windows"),
        (lambda d: composite(d, "7D", "median", span=("2024-05", None)), "give the first and the last date"),
        (lambda d: composite(d.isel(time=0), "7D", "median"), "needs dates and the boolean 'valid'"),
        (lambda d: composite(d.drop_vars("valid"), "7D", "median"), "needs dates and the boolean 'valid'"),
        (lambda d: composite(several(d), "7D", "median"), "let it stand on each before gp.inputs"),
        (lambda d: composite(d.assign_coords(time=[*d.time.values[:3], np.datetime64("NaT")]), "7D", "median"),
         "1 time steps have no date"),
        (lambda d: composite(d.rename(b="SCL"), "7D", "median"),
         r"'SCL' holds classes or flags, of which there is no median: write {'SCL': 'mode', '\*': 'median'}"),
        (lambda d: composite(d.rename(b="qa_pixel"), "7D", "mean"), "'qa_pixel' holds classes or flags"),
        (lambda d: fill_gaps(d.rename(b="scl"), "linear"), r"write {'scl': 'nearest', '\*': 'linear'}"),
        (lambda d: fill_gaps(d, "cubic"), "use one of nearest, forward, linear"),
        (lambda d: fill_gaps(d, "linear", max_gap="-3D"), "a length of time above 0"),
        (lambda d: fill_gaps(d, "linear", max_gap="soon"), "give a length of time, '30D'"),
        (lambda d: fill_gaps(d.isel(time=[0, 0, 1]), "linear"), "each is later than the one before"),
        (lambda d: interpolate(d, ["2024-05-11", "2024-05-01"], "linear"), "each later than the one before"),
        (lambda d: interpolate(d, ["never"], "linear"), "give a period, '10D', or dates"),
    ],
)  # fmt: skip
def test_errors_say_what_to_write(call: Step, message: str) -> None:
    with pytest.raises((StepError, UnknownBand), match=message):
        call(EXAMPLE)


def test_chips_of_some_dates_are_refused(series: Synthetic) -> None:
    plan = cubes(series).chip(96, time=2, coverage="any")
    with pytest.raises(StepError, match=r"must see all 5 dates of a place, and each chip holds 2: write it before"):
        len(plan.composite("month", {"scl": "mode", "*": "median"}))
    with pytest.raises(StepError, match=r"fill_gaps\('nearest'\) must see all 5 dates"):
        next(iter(plan.read().fill_gaps("nearest")))
    assert len(cubes(series).chip(96, time=5, coverage="any").composite("all", "first")) == 4


def test_a_named_band_is_taken_at_its_word() -> None:
    scl = EXAMPLE.rename(b="scl")
    assert composite(scl, "7D", {"scl": "median"})["scl"].dtype == np.float32


@pytest.mark.real
def test_nineteen_dates_become_a_monthly_series_without_a_catalogue(real_data: Any) -> None:
    """Landsat scenes of 2018, each on a grid of its own: dates and bands are in the names of the files."""
    found = gp.rasters(
        str(real_data / "landsat8_newyork_2018" / "*" / "*_B[45].TIF"),
        pattern=r"_\d{6}_(?P<date>\d{8})_(?P<band>B\d)\.TIF",
    )
    assert len({item.datetime for item in found}) == len(found) - 2  # two days have two scenes
    cubes = found.stack(
        {"red": "B4", "nir": "B5"}, resolution=3000, crs="EPSG:32618", groupby="solar_day", resampling="bilinear",
        dtype="float32", nodata=0,
    )  # fmt: skip
    monthly = cubes.normalized_difference("nir", "red", name="NDVI").composite("month", "median")
    whole = next(iter(monthly)).load()
    days = next(iter(cubes))
    seen = {str(day)[:7] for day in days["time"].values}
    months = whole["time"].values.astype("M8[M]").astype(str)
    assert months.tolist() == [f"2018-{month:02}" for month in range(1, 13)]
    valid = whole["valid"].any(("y", "x")).values
    assert {month for month, there in zip(months, valid, strict=True) if there} == seen
    assert seen < {*months}  # no scene in February
    assert np.isnan(whole["NDVI"].values[~valid]).all()
    masked = days.load()
    for month in seen:
        these = masked["red"].where(masked["valid"]).sel(time=month).median("time").values
        np.testing.assert_array_equal(whole["red"].sel(time=f"{month}-01").values, these)
    ndvi = cubes.normalized_difference("nir", "red", name="NDVI")
    halves = {"winter": ("2018-01", "2018-03"), "summer": ("2018-05", "2018-09")}
    winter, summer = next(iter(ndvi.composite(halves, "max", by="NDVI")))["NDVI"].values  # clouds have a low one
    assert np.nanmedian(summer - winter) > 0.1
    filled = next(iter(cubes.interpolate("month", "linear", max_gap="70D"))).load()
    assert filled["valid"].sel(time="2018-02-01").any()
    for chip in monthly.chip(16, edge="pad", coverage="any").read():
        part = whole.reindex(y=chip["y"].values, x=chip["x"].values, fill_value={"valid": False})
        inside = part["valid"].values
        np.testing.assert_array_equal(chip["red"].values[inside], part["red"].values[inside])


@pytest.mark.real
def test_clouds_leave_the_composite(real_data: Any) -> None:
    """Sentinel-2 of 13 August 2023, clear, and of 18 August, cloudy: a mean of both is that of what was seen."""
    documents = sorted((real_data / "sentinel2_33T").glob("S2*_33TWL_*.json"))
    stack = gp.items([str(path) for path in documents]).stack(["red", "scl"], groupby="solar_day")
    seen = next(iter(stack)).load()
    assert seen["time"].values.astype("M8[D]").astype(str).tolist() == ["2023-08-13", "2023-08-18"]
    cloudy = np.isin(seen["scl"].values, [3, 8, 9, 10])
    assert cloudy[1].mean() > cloudy[0].mean() + 0.1
    both, clear = (next(iter(pipe.composite("all", {"red": "mean", "*": "last"}))).load()
                   for pipe in (stack, stack.mask_clouds("scl", keep=True)))  # fmt: skip
    only = cloudy[1] & ~cloudy[0] & seen["valid"].values.all(axis=0)
    np.testing.assert_array_equal(clear["red"].values[0][only], seen["red"].values[0][only])
    assert np.mean(both["red"].values[0][only]) > np.mean(clear["red"].values[0][only]) + 500
    nothing = cloudy.all(axis=0)
    assert not clear["valid"].values[0][nothing].any()
