"""Statistics: what numpy says of the whole array, however the chips were dealt; kept, compared and drawn."""

from __future__ import annotations

import io
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import geopipes as gp
from geopipes.chips import Reading
from geopipes.errors import StatisticsError, UnknownBand
from geopipes.loaders import Each, Take
from geopipes.statistics import Run, Statistics, histograms, merge, progressing, sampled, statistics
from geopipes.statistics.summaries import ERROR
from geopipes.steps import Step
from geopipes.testing import Synthetic

PERCENTS = (0, 2, 33.3, 50, 98, 100)
DIMS = ("time", "y", "x")


def chip(seed: int, *, valid: float = 0.8, sides: tuple[int, int, int] = (2, 16, 24)) -> xr.Dataset:
    """Make a chip with a band of whole numbers, one of floats, elevation and labels that are sparse."""
    rng = np.random.default_rng(seed)
    ok = rng.random(sides) < valid
    red = rng.gamma(2, 900, sides).astype(np.uint16)
    ndvi = np.where(ok, rng.normal(0.2, 0.3, sides), np.nan).astype(np.float32)
    crop = rng.choice(np.array([0, 1, 7, 255], np.uint8), sides[1:], p=[0.2, 0.3, 0.1, 0.4])
    height = rng.normal(1e4, 1, sides[1:])
    height[0, 0] = np.nan
    dims = DIMS[1:]
    joined = {"joined": True}
    variables: dict[str, Any] = {"red": (DIMS, red, {"nodata": 0}), "ndvi": (DIMS, ndvi), "valid": (DIMS, ok)}
    variables |= {"crop": (dims, crop, joined | {"nodata": 255}), "height": (dims, height, joined)}
    return xr.Dataset(variables)


CHIPS = [chip(seed) for seed in range(7)]


def pixels(chips: list[xr.Dataset], name: str) -> np.ndarray[Any, Any]:
    """Give the measured pixels of a variable of all chips, in float64, by numpy alone."""
    parts = []
    for part in chips:
        values, attrs = part[name].values, part[name].attrs
        ok = values != attrs.get("nodata") if attrs.get("joined") else part["valid"].values
        parts.append(values[ok & (values == values)].astype(float))
    return np.concatenate(parts)


def near(estimate: float, values: np.ndarray[Any, Any], percent: float) -> None:
    """Check a percentile against numpy's two neighbours, each known to the stated share of itself."""
    low, high = np.percentile(values, percent, method="lower"), np.percentile(values, percent, method="higher")
    slack = ERROR * max(abs(low), abs(high))
    assert low - slack <= estimate <= high + slack


def test_equal_to_numpy_on_the_whole() -> None:
    found = statistics(CHIPS, percentiles=PERCENTS)
    assert list(found.variables) == ["red", "ndvi", "crop", "height"]
    for name in ("red", "ndvi", "height"):
        summary, values = found[name], pixels(CHIPS, name)
        assert summary.count == values.size
        assert summary.mean == pytest.approx(values.mean(), rel=1e-12)
        assert summary.std == pytest.approx(values.std(), rel=1e-9)
        assert (summary.minimum, summary.maximum) == (values.min(), values.max())
        assert summary.valid_share == values.size / sum(part[name].size for part in CHIPS)
        for percent in PERCENTS:
            if name == "red":
                assert summary.percentile(percent) == pytest.approx(np.percentile(values, percent), rel=1e-12)
            near(summary.percentile(percent), values, percent)
    labels, counts = np.unique(pixels(CHIPS, "crop"), return_counts=True)
    assert found["crop"].classes == dict(zip(labels.astype(int).tolist(), counts.tolist(), strict=True))
    assert np.isnan(found["crop"].mean)
    assert found.chips == 7


@given(st.lists(st.integers(0, 2), min_size=7, max_size=7), st.permutations(range(7)), st.booleans())
def test_the_same_however_chips_are_dealt_and_merged(owners: list[int], order: list[int], right: bool) -> None:
    whole = statistics(CHIPS)
    shares = [[CHIPS[i] for i in order if owners[i] == owner] for owner in range(3)]
    parts = [statistics(share) for share in shares if share]
    dealt = parts.pop() if right else parts.pop(0)
    while parts:
        dealt = merge(parts.pop(), dealt) if right else merge(dealt, parts.pop(0))
    for name, summary in whole.variables.items():
        other = dealt[name]
        for attribute in ("keys", "counts"):
            one, two = getattr(summary.histogram, attribute), getattr(other.histogram, attribute)
            np.testing.assert_array_equal(one, two)
        assert (summary.count, summary.pixels, summary.classes) == (other.count, other.pixels, other.classes)
        np.testing.assert_equal((summary.minimum, summary.maximum), (other.minimum, other.maximum))
        np.testing.assert_allclose((summary.mean, summary.std), (other.mean, other.std), rtol=1e-12)
        np.testing.assert_equal(summary.percentile(50), other.percentile(50))


NUMBERS = st.one_of(
    *(hnp.arrays(dtype, st.integers(1, 60)) for dtype in ("u1", "i1", "u2", "i2", "i4", "u4", "bool")),
    hnp.arrays("f4", st.integers(1, 60), elements=st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False)),
    hnp.arrays("f8", st.integers(1, 60), elements=st.floats(-1e100, 1e100, allow_subnormal=False)),
)


@given(NUMBERS, st.floats(0, 100), st.integers(1, 5))
def test_percentiles_keep_the_stated_error(values: np.ndarray[Any, Any], percent: float, cuts: int) -> None:
    chips = [xr.Dataset({"a": (("y", "x"), part[None])}) for part in np.array_split(values, cuts) if part.size]
    summary = statistics(chips)["a"]
    near(summary.percentile(percent), values.astype(float), percent)
    if values.dtype.itemsize <= 2:
        expected = np.percentile(values.astype(float), percent)
        assert summary.percentile(percent) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_hard_numbers_keep_their_spread() -> None:
    """A spread far below the mean, and chips of very different sizes: sums of squares would lose all of it."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(1e9, 0.5, (1, size)) + size for size in (1, 3, 1000, 50_000)]
    summary = statistics([xr.Dataset({"a": (("y", "x"), part)}) for part in parts])["a"]
    values = np.concatenate(parts, axis=1)
    assert summary.mean == pytest.approx(values.mean(), rel=1e-12)
    assert summary.std == pytest.approx(values.std(), rel=1e-6)


def test_inputs_bands_and_margins() -> None:
    part = CHIPS[0]
    embedding = xr.DataArray(np.arange(48.0).reshape(2, 4, 6), dims=("band", "y", "x"), coords={"band": ["A00", "A01"]})
    with_margin = part.assign_coords(chip=((), 5, {"margin": 2}))
    found = statistics([{"s2": with_margin, "emb": xr.Dataset({"e": embedding})}], variables=["s2/red", "emb/e"])
    assert list(found.variables) == ["s2/red", "emb/e[A00]", "emb/e[A01]"]
    assert found["emb/e[A01]"].mean == 35.5
    inner = part.isel(y=slice(2, -2), x=slice(2, -2))
    assert found["s2/red"].mean == pytest.approx(pixels([inner], "red").mean())


def test_what_is_asked_for() -> None:
    found = statistics(CHIPS, variables="ndvi", classes=["crop"])
    assert list(found.variables) == ["ndvi", "crop"]
    assert statistics(CHIPS, classes=())["crop"].mean == pytest.approx(pixels(CHIPS, "crop").mean())
    clouds = [chip(0, valid=0.0)]
    nothing = statistics(clouds)["red"]
    assert (nothing.count, nothing.valid_share) == (0, 0.0)
    assert np.isnan([nothing.mean, nothing.std, nothing.minimum, nothing.percentile(50)]).all()
    assert merge(statistics(clouds), statistics(CHIPS))["red"].mean == pytest.approx(statistics(CHIPS)["red"].mean)


def test_whole_numbers_that_were_joined_are_classes_unless_something_says_otherwise() -> None:
    steps = xr.Dataset({"dem": (("y", "x"), np.full((4, 4), 300, np.int16), {"joined": True})})
    assert statistics([steps])["dem"].categorical
    assert not statistics([steps], classes=())["dem"].categorical
    for says in (True, False):
        assert statistics([steps.assign(dem=steps["dem"].assign_attrs(categorical=says))])["dem"].categorical is says


def test_what_is_averaged_onto_the_grid_is_a_quantity(land: Synthetic) -> None:
    cubes = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day")
    heights = gp.rasters([item.assets["nir"].href for item in land.items])
    nearest, averaged = (cubes.join(heights, name="dem", resampling=how).chip(64) for how in ("nearest", "bilinear"))
    with pytest.raises(StatisticsError, match="'dem' is uint16 and joined, or named as classes are: it is taken for"):
        nearest.statistics(sample=2, seed=0)
    found = averaged.statistics(sample=2, seed=0)
    assert (found["dem"].categorical, found["dem"].dtypes) == (False, ("uint16",))
    assert next(iter(averaged.read().normalize(found, variables="dem")))["dem"].dtype == np.float32


def test_kept_in_a_file_to_the_last_bit(tmp_path: Path) -> None:
    found = merge(statistics(CHIPS), statistics([chip(9, valid=0.0)]))
    path = tmp_path / "new" / "stats.json"
    found.save(path)
    again = Statistics.load(path)
    again.save(tmp_path / "again.json")
    assert path.read_text() == (tmp_path / "again.json").read_text()
    assert str(again) == str(found)
    assert again == found != statistics(CHIPS)
    assert len({again, found, statistics(CHIPS)}) == 2
    assert sorted(p.name for p in path.parent.iterdir()) == ["stats.json"]
    document = json.loads(path.read_text())
    assert document["variables"]["crop"]["classes"] == {str(k): n for k, n in found["crop"].classes.items()}
    assert document["variables"]["red"]["percentiles"]["50"] == found["red"].percentile(50)
    merged = merge(again, statistics(CHIPS))
    assert merged["red"].count == 2 * found["red"].count
    for text, words in {"[]": "holds no statistics", "{": "holds no statistics"}.items():
        path.write_text(text)
        with pytest.raises(StatisticsError, match=words):
            Statistics.load(path)
    path.write_text(json.dumps(document | {"geopipes_statistics": 99}))
    with pytest.raises(StatisticsError, match="version 99, this geopipes reads version 1"):
        Statistics.load(path)


def test_printed_as_a_table() -> None:
    text = str(statistics(CHIPS))
    assert re.match(r"Statistics of 7 chips\n  red +valid 7\d\.\d%, mean \d+\.?\d*, std ", text)
    assert re.search(r"crop +valid \d\d\.\d%, 0: 3\d\.\d\d%, 1: ", text)
    assert repr(statistics(CHIPS)) == "<Statistics of 7 chips: red, ndvi, crop, height>"


# Over a pipe.


def run(land: Synthetic, *ops: Any, **options: Any) -> Run:
    plan = (
        gp.items(land.items).stack(["red", "scl"], resolution=10, crs="utm").join(gp.rasters(land.label), name="crop")
    )
    windows = plan.chip(32, **options)._value.get()
    return Run(Reading(windows, 4, 1 << 26), ops)


def test_over_a_plan_on_threads(land: Synthetic) -> None:
    plan = run(land)
    found = statistics(plan, classes=["scl", "crop"])
    assert found.chips == len(plan)
    values = np.concatenate([part["red"].values[part["valid"].values].ravel() for part in plan]).astype(float)
    assert found["red"].mean == pytest.approx(values.mean(), rel=1e-12)
    assert found["red"].percentile(98) == np.percentile(values, 98)
    assert found.chain is not None
    assert found.chain["variables"] == {"red": "uint16", "scl": "uint8", "crop": "uint8"}
    assert len(found.plans[0]) == 64
    margin = statistics(run(land, margin=3), classes=["scl", "crop"])
    assert str(margin) == str(found)


def prepared(land: Synthetic) -> gp.Plan[xr.Dataset]:
    cubes = gp.items(land.items).stack(["red", "nir", "scl"], resolution=10, crs=32614, groupby="solar_day")
    cubes = cubes.join(gp.rasters(land.label), name="crop", nodata=255).mask_values("scl", [3, 8, 9])
    return cubes.normalized_difference("nir", "red", name="NDVI").chip(32, edge="pad", coverage="any")


def test_a_plan_s_statistics_are_numpy_s_of_the_whole_array(land: Synthetic) -> None:
    """Chips cover the cube once: what streams by is what one array holds, to 1e-6 and the stated error."""
    plan = prepared(land)
    found = plan.statistics(percentiles=PERCENTS)
    whole = next(iter(plan._parent)).load()  # type: ignore[arg-type]
    for name in ("red", "nir", "NDVI"):
        values = whole[name].values[whole["valid"].values].astype(float)
        values = values[~np.isnan(values)]
        assert found[name].count == values.size > 10_000
        assert found[name].mean == pytest.approx(values.mean(), rel=1e-6)
        assert found[name].std == pytest.approx(values.std(), rel=1e-6)
        for percent in PERCENTS:
            near(found[name].percentile(percent), values, percent)
    crop = whole["crop"].values[whole["crop"].values != 255]
    assert found["crop"].classes == dict(enumerate(np.bincount(crop).tolist()))
    after = plan.read(threads=2).statistics(percentiles=PERCENTS)
    assert str(after) == str(found)


WORKER = """
import pickle, sys
plan, path = sys.argv[1:]
with open(plan, "rb") as file:
    pickle.load(file).statistics().save(path)
"""


def test_workers_take_a_share_each_and_merge_theirs(land: Synthetic, tmp_path: Path) -> None:
    plan, ranks = prepared(land), 3
    workers = []
    for rank in range(ranks):
        (tmp_path / f"{rank}.pickle").write_bytes(pickle.dumps(plan[rank::ranks]))
        files = [str(tmp_path / f"{rank}.{end}") for end in ("pickle", "json")]
        workers.append(subprocess.Popen([sys.executable, "-c", WORKER, *files]))
    assert [worker.wait() for worker in workers] == [0] * ranks
    merged = merge(*(Statistics.load(tmp_path / f"{rank}.json") for rank in range(ranks)))
    whole = plan.statistics()
    assert str(merged) == str(whole)
    assert (merged.chips, merged.chain, len(merged.plans)) == (len(plan), whole.chain, ranks)
    assert len(list(plan[:4].normalize(merged).read())) == 4  # of the same steps, so it may be used


def test_a_sample_is_of_the_ids_whatever_the_order(land: Synthetic) -> None:
    plan = run(land)
    windows = plan.source.windows
    mixed = windows.take(np.random.default_rng(1).permutation(len(windows)))
    found = [statistics(Run(Reading(w, 2, 0)), sample=9, seed=3) for w in (windows, mixed)]
    assert str(found[0]) == str(found[1])
    assert found[0].chips == 9
    assert found[0]["red"].mean != statistics(plan, sample=9, seed=4)["red"].mean
    assert statistics(plan, sample=10**6, seed=0).chips == len(plan)
    assert statistics(CHIPS, sample=3, seed=0).chips == 3


def test_a_sample_is_uniform() -> None:
    """Each of 20 positions is drawn 5,000 x 5 / 20 times; chi-square of 19 degrees beyond 75 has odds of 1e-8."""
    counts = np.bincount(np.concatenate([sampled(20, 5, seed) for seed in range(5000)]), minlength=20)
    assert np.sum((counts - 1250) ** 2 / 1250) < 75
    assert (np.diff(sampled(1000, 500, 0)) > 0).all()


def test_filters_leave_chips_out(land: Synthetic) -> None:
    keeps = Each(Step("filter(even)", lambda part: int(part["chip"]) % 2 == 0), keeps=True)
    plan = run(land, keeps)
    found = statistics(plan)
    assert 0 < found.chips == sum(1 for _ in plan) < len(plan)
    assert found.chain == statistics(run(land)).chain
    none = Each(Step("filter(none)", lambda part: False), keeps=True)
    with pytest.raises(StatisticsError, match="no chips; every one was filtered"):
        statistics(run(land, none))
    with pytest.raises(StatisticsError, match=r"sample=3\) chooses chips of a plan before they are read"):
        statistics(run(land, Take(4)), sample=3, seed=0)


@pytest.mark.real
def test_class_counts_of_real_labels(real_data: Path) -> None:
    folder = real_data / "landsat8_elkton"
    bands = gp.rasters(folder / "L8-B[45]-Elkton-VA.tiff", pattern=r"L8-(?P<band>B\d)-Elkton")
    stack = bands.stack(["B4", "B5"]).join(gp.rasters(folder / "L8-Labels-Elkton-VA.tiff"), name="label")
    plan = stack.chip(48, edge="pad")._value.get()
    found = statistics(Run(Reading(plan, 2, 1 << 26)), classes=("label",))
    with rasterio.open(folder / "L8-Labels-Elkton-VA.tiff") as file:
        labels = file.read(1)
    values, counts = np.unique(labels[labels != 255], return_counts=True)
    assert found["label"].classes == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert found["label"].pixels == 16 * 48 * 48
    with rasterio.open(folder / "L8-B5-Elkton-VA.tiff") as file:
        near_infrared = file.read(1).astype(float)
    assert found["B5"].mean == pytest.approx(near_infrared.mean(), rel=1e-9)
    assert found["B5"].std == pytest.approx(near_infrared.std(), rel=1e-9)
    assert found["B5"].percentile(2) == np.percentile(near_infrared, 2)


# Pictures and progress.


def test_histograms_of_splits() -> None:
    splits = {"train": statistics(CHIPS[:5]), "test": statistics(CHIPS[5:]), "clouds": statistics([chip(0, valid=0.0)])}
    axes = histograms(splits)
    assert [axis.get_title() for axis in axes] == ["red", "ndvi", "crop", "height"]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["train", "test"]
    stairs = axes[1].patches[0].get_data()
    assert np.sum(stairs.values * np.diff(stairs.edges)) == pytest.approx(0.998, abs=0.002)
    assert len(axes[2].patches) == 3 * 3  # splits and classes
    assert histograms(splits, axes[:1], variables=["red"])[0] is axes[0]
    with pytest.raises(StatisticsError, match=r"1 variables .* for 2 axes"):
        histograms(splits, axes[:2], variables=["red"])
    with pytest.raises(StatisticsError, match="that every split knows are"):
        histograms(splits, variables=["nir"])


def test_histograms_of_the_splits_of_a_plan(land: Synthetic, tmp_path: Path) -> None:
    train, test = prepared(land).split((0.7, 0.3), block=640, seed=0)
    axes = histograms({"train": train.statistics(), "test": test.statistics()}, variables=["red", "NDVI", "crop"])
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["train", "test"]
    axes[0].figure.savefig(tmp_path / "histograms.png")
    assert (tmp_path / "histograms.png").read_bytes().startswith(b"\x89PNG")


def test_progress_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    statistics(CHIPS)
    assert capsys.readouterr().err == ""
    statistics(CHIPS, progress=True)
    assert re.fullmatch(r"statistics \[#{30}\] 100% 7/7 \d+\.\d/s\n", capsys.readouterr().err)
    out = io.StringIO()
    assert list(progressing(iter("abc"), name="letters", stream=out)) == ["a", "b", "c"]
    assert out.getvalue().startswith("letters 3 ")
    assert sys.stderr is not out


# Bad input.


def infinite() -> xr.Dataset:
    return xr.Dataset({"vh": (("y", "x"), np.array([[1.0, np.inf]]))})


def elevation() -> xr.Dataset:
    return xr.Dataset({"dem": (("y", "x"), np.arange(300, dtype=np.int16)[None], {"joined": True})})


@pytest.mark.parametrize(
    ("chips", "options", "error", "words"),
    [
        ([], {}, StatisticsError, "there are no chips"),
        (CHIPS, {"variables": ["nir"]}, UnknownBand, r"no variable \['nir'\] in this chip: there are \['red'"),
        (CHIPS, {"classes": ["scl"]}, UnknownBand, r"no variable \['scl'\]"),
        (CHIPS, {"classes": "ndvi"}, StatisticsError, "'ndvi' is float32; classes are whole numbers"),
        (CHIPS, {"percentiles": [2, 101]}, StatisticsError, "numbers from 0 to 100"),
        (CHIPS, {"sample": 3}, StatisticsError, "above 0, and a seed"),
        (CHIPS, {"sample": 0, "seed": 0}, StatisticsError, "above 0, and a seed"),
        (iter(CHIPS), {"sample": 3, "seed": 0}, StatisticsError, "cannot be taken without all; give a list"),
        ([{"image": 1}], {}, StatisticsError, "an element is dict; needed are loaded chips"),
        ([infinite()], {}, StatisticsError, "'vh' is infinite in a valid pixel"),
        ([elevation()], {}, StatisticsError, r"holds more than 256 values: write classes=\('dem',\), or classes=\(\)"),
        (
            [CHIPS[0], CHIPS[0].assign(red=CHIPS[0]["red"].astype("f4"))],
            {},
            StatisticsError,
            "'red' is float32 in some chips, uint16",
        ),
    ],
)
def test_errors(chips: Any, options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        statistics(chips, **options)


def test_errors_of_merging() -> None:
    with pytest.raises(StatisticsError, match="give statistics to merge"):
        merge()
    with pytest.raises(StatisticsError, match=r"percentiles .* differ"):
        merge(statistics(CHIPS), statistics(CHIPS, percentiles=[50]))
    with pytest.raises(StatisticsError, match="know no 'nir'"):
        statistics(CHIPS)["nir"]
