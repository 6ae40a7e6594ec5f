"""Chips read straight into tensors are those that go through a Dataset, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

import geopipes as gp
from geopipes.loaders import Each
from geopipes.steps import Step
from geopipes.tensors.rows import FreshRows
from geopipes.tensors.straight import sampler
from geopipes.testing import Synthetic

OPTIONS: dict[str, dict[str, Any]] = {
    "all bands in order": {"image": ["red", "nir", "scl"], "fill": 0},
    "another order": {"image": ["scl", "red"], "fill": 7},
    "as floats": {"image": ["red", "nir"], "fill": -1.5, "dtype": torch.float32},
    "all as floats": {"image": ["red", "nir", "scl"], "fill": 0, "dtype": {"image": torch.float32}},
    "in half precision": {"image": ["red", "nir", "scl"], "fill": 0, "dtype": torch.bfloat16},
    "nothing filled": {"image": ["red", "nir", "scl"], "fill": None},
    "a label": {"image": ["red", "nir", "scl"], "label": "crop", "fill": 0},
    "a label among bands": {"image": ["red", "crop"], "again": ["red", "nir", "scl"], "fill": 3},
    "one variable": {"red": "red", "label": ["crop"], "fill": 0},
    "columns of the plan": {"image": ["red", "nir", "scl"], "fill": 0, "columns": ["chance", "kind", "day"]},
    "what is joined, beside the stack": {"image": ["red", "crop"], "other": ["red", "nir", "crop"], "fill": 7},
    "of one length": {"image": ["red", "nir", "scl"], "label": "crop", "fill": 0, "length": 4, "doy": True},
    "of one length, as floats": {"image": ["nir", "crop"], "fill": 2, "length": 3, "dtype": torch.bfloat16},
    "one date": {"image": ["red", "nir", "scl"], "label": "crop", "fill": 0, "time_axis": False},
}


def plan(land: Synthetic, dtype: str | None = None, **options: Any) -> gp.Plan[Any]:
    zone = gp.items(land.items).filter(lambda item: "14T" in item.id)
    stack = zone.stack(
        ["red", "nir", "scl"], resolution=10, resampling={"scl": "nearest", "*": "bilinear"}, dtype=dtype
    )
    crop = zone.take(1)
    cut = stack.join(crop, name="crop", bands=["scl"]).chip(80, coverage="any", **options)
    row = np.arange(len(cut))
    return cut.assign(chance=row / 7, kind=row.astype(str), day=np.datetime64("2024-01-01") + row)


def as_it_is(chip: Any) -> Any:
    return chip


def assert_same(found: Any, expected: Any) -> None:
    assert [*found] == [*expected]
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[key].dtype == value.dtype
            torch.testing.assert_close(found[key], value, rtol=0, atol=0, equal_nan=True)
        else:
            assert found[key] == value


CUTS: list[dict[str, Any]] = [{"edge": "pad"}, {"margin": 8}, {"time": 1}]
CASES = [(name, cut) for name in OPTIONS for cut in CUTS if "time" in cut or name != "one date"]


@pytest.mark.parametrize(("name", "cut"), CASES, ids=str)
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_samples_are_those_of_a_dataset(land: Synthetic, name: str, cut: dict[str, Any], dtype: str | None) -> None:
    options, chips = OPTIONS[name], plan(land, dtype, **cut)
    straight = chips.read(threads=2).tensor(**options)
    through = chips.map(as_it_is).read(threads=2).tensor(**options)
    samples, expected = list(straight), list(through)
    assert len(samples) == len(expected) > 1
    for a, b in zip(samples, expected, strict=True):
        assert_same(a, b)
    for a, b in zip(straight.batch(3), through.batch(3), strict=True):
        assert_same(a, b)


def test_rows_of_a_batch_are_written_in_place(land: Synthetic) -> None:
    chips = plan(land, time=1)
    batches = list(chips.read().tensor(image=["red", "nir", "scl"], fill=0).batch(4))
    assert all(batch["image"].shape[0] == batch["image_valid"].shape[0] for batch in batches)
    # A batch of rows is the tensor that they were written to: no second copy of its size.
    assert batches[0]["image"].untyped_storage().nbytes() == batches[0]["image"].nbytes
    kept = [chip["image"] for chip in chips.read().tensor(image=["red", "nir", "scl"], fill=0).filter(odd).batch(1)]
    every = list(chips.read().tensor(image=["red", "nir", "scl"], fill=0))
    np.testing.assert_array_equal(torch.cat(kept), torch.stack([s["image"] for s in every if odd(s)]))


def test_each_join_is_asked_whether_it_covers_the_chip(tmp_path: Path) -> None:
    def raster(name: str, width: int, **profile: Any) -> gp.Pipe[Any]:
        place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}
        shape = {"height": 64, "width": width, "count": 1, "dtype": "uint8"}
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", **shape, **place, **profile) as file:
            file.write(np.ones((1, 64, width), "uint8"))
        return gp.rasters(tmp_path / f"{name}.tif")

    cubes = raster("image", 64).stack(None)
    narrow, whole = raster("narrow", 40), raster("whole", 64)
    for labels in ({"a": narrow, "b": whole}, {"a": whole, "b": narrow}):
        joined = cubes
        for name, label in labels.items():
            joined = joined.join(label, name=name)
        image = next(iter(cubes._value.get().cubes[0].dataset.data_vars))
        batches = joined.chip(64, coverage="any").read().tensor(image=[image], a="a", b="b", fill=0).batch(1)
        with pytest.raises(gp.errors.SourceError, match="states no nodata and does not cover"):
            list(batches)


def test_memory_of_a_batch_is_another_ones_only_when_nobody_holds_it(land: Synthetic) -> None:
    chips = gp.items(land.items).stack(["red", "nir"], resolution=20, crs="EPSG:32614").chip(16, time=1, coverage="any")
    batches = chips.read(threads=1).tensor(image=["red", "nir"], fill=0).batch(4)
    every = [batch["image"].clone() for batch in batches]
    assert len(every) > 20
    views: list[Any] = []
    addresses = []
    for k, batch in enumerate(batches):
        addresses.append(batch["image"].data_ptr())
        torch.testing.assert_close(batch["image"], every[k], rtol=0, atol=0)
        if k == 0:
            views.append(batch["image"][0, :, 1:])
        if k == 1:
            views.append(batch["image"].numpy()[0])
        if k == 2:
            views.append(batch["image"].detach().transpose(-1, -2))
    assert len({*addresses}) < len(addresses)
    for view, expected in zip(views, [every[0][0, :, 1:], every[1][0], every[2].mT], strict=True):
        np.testing.assert_array_equal(np.asarray(view), expected.numpy())


def odd(sample: Any) -> bool:
    return bool(sample["chip"] % 2)


def test_a_refused_sample_leaves_a_smaller_batch(land: Synthetic) -> None:
    chips = plan(land, time=1)
    batches = list(chips.read().tensor(image=["red", "nir", "scl"], fill=0).filter(odd).batch(4))
    assert batches[0]["image"].shape[0] == 2
    assert (batches[0]["chip"] % 2 == 1).all()


def test_what_asks_for_datasets_gets_them(land: Synthetic) -> None:
    chips = plan(land)
    given: dict[str, Any] = {"fill": 0, "dtype": None, "time_axis": True, "columns": ()}
    step = Each(Step("tensor", as_it_is, (), {"image": ["red"], **given})).step
    rows = FreshRows(1, 9)
    assert sampler(chips._value.get(), [step], rows) is not None
    assert sampler(chips.map(as_it_is)._value.get(), [step], rows) is None
    assert sampler(gp.inputs(a=chips._parent._parent).chip(64)._value.get(), [step], rows) is None  # type: ignore[union-attr,arg-type]
    unknown = Step("tensor", as_it_is, (), {"image": ["blue"], **given})
    assert sampler(chips._value.get(), [unknown], rows) is None


def test_errors_are_those_of_the_step(land: Synthetic) -> None:
    wrong = {"odds": r"no column 'odds'; there are \['chance'", "image": "that of a tensor, or kept"}
    for columns, words in wrong.items():
        with pytest.raises(gp.errors.TensorError, match=words):
            list(plan(land, time=1).read().tensor(image=["red", "nir", "scl"], fill=0, columns=columns))
    with pytest.raises(gp.errors.TensorError, match=r"fill=70000") as error:
        list(plan(land, time=1).read().tensor(image=["red", "nir", "scl"], fill=70_000))
    assert any("in step tensor" in note for note in error.value.__notes__)
