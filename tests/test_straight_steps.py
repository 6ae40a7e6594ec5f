"""Chains of pixel steps read straight into tensors give what they give through Datasets, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from test_straight import as_it_is, assert_same

import geopipes as gp
from geopipes.errors import GeopipesError
from geopipes.statistics import Statistics, statistics
from geopipes.tensors.rows import FreshRows
from geopipes.tensors.straight import sampler
from geopipes.testing import Synthetic

READ = ("red", "nir", "scl", "crop")
NAMES = (*READ, "NDVI")

Call = tuple[str, tuple[Any, ...], dict[str, Any]]
"""A step as it is typed: method, arguments, options."""


def stacked(land: Synthetic, **options: Any) -> gp.Pipe[Any]:
    zone = gp.items(land.items).filter(lambda item: "14T" in item.id)
    return zone.stack(["red", "nir", "scl"], resolution=10, **options)


def labelled(pipe: gp.Pipe[Any], land: Synthetic, dtype: str | None) -> gp.Pipe[Any]:
    crop = gp.items(land.items).filter(lambda item: "14T" in item.id).take(1)
    return pipe.join(crop, name="crop", bands=["scl"], dtype=dtype)


@pytest.fixture(scope="module")
def stats(land: Synthetic) -> Statistics:
    """Give statistics that do not know which steps they were made after: they fit every chain."""
    chip = next(iter(labelled(stacked(land), land, None).chip(192, coverage="any").read()))
    return statistics([chip.assign(NDVI=chip["red"] / np.float32(1e4))], classes=["scl"])


def calls(names: tuple[str, ...]) -> st.SearchStrategy[Call]:
    """Draw one step on variables that may be there."""
    some = st.lists(st.sampled_from(names), min_size=1, max_size=3)
    numbers = st.floats(-1e3, 1e3, width=32)
    name = st.sampled_from(names)
    made = st.sampled_from(["NDVI", "NDVI", "red", "crop"])
    values = st.lists(st.sampled_from([0, 3, 4, 8, 9, 1000, 0.5]), max_size=3)
    how = st.sampled_from(["standard", "percentiles", "minmax"])
    chosen = st.none() | st.lists(st.sampled_from([*{*names} - {"scl"}]), min_size=1, max_size=2)
    return st.one_of(
        st.tuples(
            st.just("scale"),
            st.tuples(some),
            st.fixed_dictionaries({"factor": numbers}, optional={"offset": numbers, "again": st.just(True)}),
        ),
        st.tuples(st.just("normalized_difference"), st.tuples(name, name), st.fixed_dictionaries({"name": made})),
        st.tuples(st.just("mask_values"), st.tuples(name, values), st.just({})),
        st.tuples(
            st.just("mask_clouds"), st.just(("scl",)), st.fixed_dictionaries({}, optional={"keep": st.booleans()})
        ),
        st.tuples(st.just("to_decibel"), st.tuples(some), st.just({})),
        st.tuples(
            st.just("spectral_index"),
            st.sampled_from([("NDVI",), (["NDVI", "SAVI"],), ("kNDVI",)]),
            st.fixed_dictionaries({}, optional={"bands": st.fixed_dictionaries({"R": name})}),
        ),
        st.tuples(st.just("normalize"), st.just(()), st.fixed_dictionaries({"how": how, "variables": chosen})),
    )


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what ``tensor`` is asked for."""
    dtypes = st.sampled_from([None, None, torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int32])
    asked: dict[str, Any] = {
        "image": draw(st.lists(st.sampled_from([*READ, "valid"]), min_size=1, max_size=4) | st.just(["red", "nir"])),
        "fill": draw(st.sampled_from([None, 0, 7, -1.5, float("nan")])),
        "dtype": draw(dtypes | st.fixed_dictionaries({"image": dtypes})),
        "time_axis": draw(st.booleans()),
    }
    for name in draw(st.sets(st.sampled_from(["again", "label"]))):
        asked[name] = draw(st.sampled_from(["crop", "red", ["nir", "red"], "NDVI", "NDVI"]))
    return {key: value for key, value in asked.items() if key != "dtype" or value != {"image": None}}


@st.composite
def chains(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a chain: dtypes, steps before the join, before chip, after chip and after read, and tensors."""
    early = st.lists(calls(READ[:3]), max_size=1)
    late = st.lists(calls(READ), max_size=2) | st.lists(calls(NAMES), max_size=2)
    return {
        "dtype": draw(st.sampled_from([None, "float32", {"red": "float64", "nir": "int32"}, {"scl": "uint16"}])),
        "crop": draw(st.sampled_from([None, "float32", "int32"])),
        "steps": draw(st.tuples(early, late, late, late)),
        "cut": draw(st.sampled_from([{"time": 1}, {"time": 1, "margin": 8}, {}])),
        "tensor": draw(options()),
    }


def stepped(pipe: Any, steps: list[Call], stats: Statistics) -> Any:
    for method, args, kwargs in steps:
        pipe = getattr(pipe, method)(*([stats] if method == "normalize" else args), **kwargs)
    return pipe


def read(chain: dict[str, Any], land: Synthetic, stats: Statistics) -> Any:
    """Give the chips of a chain, taken through all steps."""
    before, joined, planned, after = chain["steps"]
    pipe = labelled(stepped(stacked(land, dtype=chain["dtype"]), before, stats), land, chain["crop"])
    plan = stepped(stepped(pipe, joined, stats).chip(80, edge="pad", coverage="any", **chain["cut"]), planned, stats)
    return stepped(plan.take(5).read(threads=1), after, stats)


def outcome(pipe: Any) -> tuple[Any, ...]:
    """Give all samples and batches; where something is refused, how."""
    try:
        return ("samples", list(pipe), list(pipe.batch(2)))
    except GeopipesError as error:
        return (type(error), str(error), getattr(error, "__notes__", None))


def read_straight(pipe: Any) -> bool:
    """Say whether no Dataset is made."""
    windows = pipe._value.get().windows
    return sampler(windows, [op.step for op in pipe._ops], FreshRows(1, len(windows))) is not None


@given(chain=chains())
def test_a_chain_gives_what_it_gives_through_datasets(
    chain: dict[str, Any], land: Synthetic, stats: Statistics
) -> None:
    try:
        chips = read(chain, land, stats)
        straight, through = chips.tensor(**chain["tensor"]), chips.map(as_it_is).tensor(**chain["tensor"])
    except GeopipesError:
        return  # refused as it is typed
    found, expected = outcome(straight), outcome(through)
    assert found[0] == expected[0]
    if found[0] != "samples":
        assert found == expected
        return
    for a, b in zip(found[1] + found[2], expected[1] + expected[2], strict=True):
        assert_same(a, b)
    assert read_straight(straight)


BANDS = "abc"


def test_steps_on_a_variable_with_bands(tmp_path: Path) -> None:
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000), "nodata": 3}
    shape = {"height": 64, "width": 64, "count": 3, "dtype": "int16"}
    with rasterio.open(tmp_path / "emb.tif", "w", driver="GTiff", **shape, **place) as file:
        file.write(np.random.default_rng(0).integers(-9, 9, (3, 64, 64)).astype("int16"))
        file.descriptions = BANDS
    chips = gp.rasters(tmp_path / "emb.tif").stack({"emb": "data"}).chip(32, coverage="any")
    stats = statistics(list(chips.read()))
    pipe = chips.normalize(stats, how="minmax").read().scale("emb", factor=2, offset=1)
    every: list[dict[str, Any]] = [{"image": ["emb"]}, {"image": "emb"}, {"image": ["emb"], "dtype": torch.float64}]
    for asked in every:
        a, b = (list(each.tensor(fill=-1, **asked).batch(2)) for each in (pipe, pipe.map(as_it_is)))
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
            assert one["image"].shape == (2, 1, 3, 32, 32)
        assert read_straight(pipe.tensor(fill=-1, **{"dtype": None, "time_axis": True, **asked}))


@pytest.mark.parametrize("dtype", [None, torch.float32])
@pytest.mark.parametrize("straight", [True, False])
def test_the_last_step_writes_to_the_batch(land: Synthetic, dtype: torch.dtype | None, straight: bool) -> None:
    chips = stacked(land).chip(80, time=1, coverage="any").read().mask_values("scl", [3, 8])
    pipe = (
        (chips if straight else chips.map(as_it_is))
        .scale(["red", "nir"], factor=1e-4)
        .normalized_difference("nir", "red", name="NDVI")
    )
    batch = next(iter(pipe.tensor(image=["red", "nir", "NDVI"], fill=0, dtype=dtype).batch(2)))
    # A batch of rows is the tensor that they were written to: no second copy of its size.
    assert batch["image"].untyped_storage().nbytes() == batch["image"].nbytes == 2 * 3 * 80 * 80 * 4


def test_batches_that_lack_a_sample_are_not_kept() -> None:
    rows = FreshRows(2, 1000)
    for position in range(0, 1000, 2):  # of every batch one sample never comes
        rows.row(position, "image", (3,), np.dtype("uint8"))
    assert len(rows._begun) < 40
