"""Tensors hold the chip's own values, in the shapes promised; batches hold all samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import odc.geo.xr  # noqa: F401  # the .odc accessor: the place of a chip, computed by another library
import pyproj
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from geopipes.errors import TensorError
from geopipes.tensors import collate, tensor
from geopipes.tensors.rows import FreshRows

UTM = "EPSG:32633"
TORCH_INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]


to_wkt = lru_cache(lambda crs: pyproj.CRS(crs).to_wkt())


def make_chip(
    dates: int | None = 2,
    size: tuple[int, int] = (6, 5),
    margin: int = 0,
    dtype: npt.DTypeLike = "uint16",
    number: int = 7,
    crs: str = UTM,
) -> xr.Dataset:
    """Make a chip with red, nir, three bands of an embedding, and a crop label joined to it."""
    height, width = (n + 2 * margin for n in size)
    time: tuple[str, ...] = () if dates is None else ("time",)
    lead = () if dates is None else (dates,)
    rng = np.random.default_rng(number)

    def pixels(*shape: int) -> npt.NDArray[Any]:
        return rng.integers(1, 100, shape).astype(dtype)

    wkt = to_wkt(crs)
    x0, y0, step = 300_000.0 + number * 50.0, 5_000_000.0, 10.0
    chip = xr.Dataset(
        {
            "red": ((*time, "y", "x"), pixels(*lead, height, width)),
            "nir": ((*time, "y", "x"), pixels(*lead, height, width)),
            "embedding": ((*time, "band", "y", "x"), pixels(*lead, 3, height, width)),
            "crop": (("y", "x"), rng.integers(0, 4, (height, width)).astype("uint8"), {"joined": True}),
            "valid": ((*time, "y", "x"), rng.random((*lead, height, width)) < 0.7),
        },
        coords={
            "y": y0 - step * (np.arange(height) + 0.5),
            "x": x0 + step * (np.arange(width) + 0.5),
            "spatial_ref": ((), 0, {"crs_wkt": wkt, "GeoTransform": f"{x0} {step} 0 {y0} 0 {-step}"}),
            "chip": ((), np.int64(number), {"margin": margin}),
        },
    )
    if dates is None:
        return chip
    days = np.datetime64("2024-05-01", "ns") + np.arange(dates) * np.timedelta64(14, "D")
    return chip.assign_coords(time=("time", days))


sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))


@given(dates=st.integers(1, 3), size=sizes, margin=st.integers(0, 3))
def test_shapes_are_those_promised(dates: int, size: tuple[int, int], margin: int) -> None:
    sample = tensor(
        make_chip(dates, size, margin),
        fill=0,
        image=["red", "embedding", "nir"],
        mixed=["red", "crop"],
        red="red",
        emb="embedding",
        label="crop",
        labels=["crop"],
    )
    assert sample["image"].shape == (dates, 5, *size)
    assert sample["mixed"].shape == (dates, 2, *size)
    assert sample["red"].shape == (dates, *size)
    assert sample["emb"].shape == (dates, 3, *size)
    assert sample["label"].shape == size
    assert sample["labels"].shape == (1, *size)
    assert sample["time"].shape == (dates,)
    for name in ("image", "mixed", "red", "emb"):
        assert sample[f"{name}_valid"].shape == (dates, *size)
        assert sample[f"{name}_valid"].dtype == torch.bool
    assert "label_valid" not in sample
    assert "labels_valid" not in sample


@given(size=sizes, margin=st.integers(0, 3))
def test_one_date_without_its_axis_is_the_first_of_the_axis(size: tuple[int, int], margin: int) -> None:
    chip = make_chip(1, size, margin)
    flat, full = (
        tensor(chip, fill=0, time_axis=axis, image=["red", "nir"], red="red", label="crop") for axis in (False, True)
    )
    for name in ("image", "image_valid", "red", "red_valid"):
        assert torch.equal(flat[name], full[name][0])
    assert torch.equal(flat["label"], full["label"])


@given(size=sizes, margin=st.integers(0, 3), dtype=st.sampled_from(["uint8", "uint16", "float32"]))
def test_values_are_the_chips_own_without_the_margin(size: tuple[int, int], margin: int, dtype: str) -> None:
    chip = make_chip(2, size, margin, dtype)
    untouched = chip.copy(deep=True)
    sample = tensor(chip, fill=0, image=["nir", "crop", "embedding"], label="crop")

    inside = chip.isel(y=slice(margin, margin + size[0]), x=slice(margin, margin + size[1]))
    valid = inside["valid"].values
    assert sample["image"].numpy().dtype == np.dtype(dtype)
    np.testing.assert_array_equal(sample["image_valid"], valid)
    np.testing.assert_array_equal(sample["image"][:, 0], np.where(valid, inside["nir"], 0))
    np.testing.assert_array_equal(sample["image"][:, 1], np.broadcast_to(inside["crop"], valid.shape))
    np.testing.assert_array_equal(sample["image"][:, 2:], np.where(valid[:, None], inside["embedding"].values, 0))
    np.testing.assert_array_equal(sample["label"], inside["crop"])
    xr.testing.assert_identical(chip, untouched)


# odc-geo 0.5 multiplies with affine 3's old operator.
@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
@given(size=sizes, margin=st.integers(0, 3), number=st.integers(0, 99))
def test_the_place_is_that_of_the_cropped_grid(size: tuple[int, int], margin: int, number: int) -> None:
    chip = make_chip(1, size, margin, number=number)
    inside = chip.isel(y=slice(margin, margin + size[0]), x=slice(margin, margin + size[1]))
    sample = tensor(chip, fill=0, image="red")
    assert sample["chip"] == number
    assert type(sample["chip"]) is int
    assert sample["crs"] == UTM
    a, b, c, d, e, f = sample["transform"]
    assert (b, d) == (0, 0)
    columns, rows = np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5
    np.testing.assert_allclose(a * columns + c, inside["x"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(e * rows + f, inside["y"], rtol=0, atol=1e-6)
    left, bottom, right, top = sample["bounds"]
    assert (left, top) == (c, f)
    assert (right, bottom) == pytest.approx((a * size[1] + c, e * size[0] + f))
    if min(size) > 1:  # odc-geo finds the resolution from the coordinates
        geobox = inside.odc.geobox
        assert sample["bounds"] == pytest.approx(geobox.boundingbox.bbox)
        assert sample["transform"] == pytest.approx(tuple(geobox.affine)[:6])


def test_a_crs_without_authority_is_given_as_wkt() -> None:
    chip = make_chip(crs="+proj=sinu +R=6371007.181 +units=m")
    assert tensor(chip, fill=0, image="red")["crs"] == chip["spatial_ref"].attrs["crs_wkt"]


def test_time_is_nanoseconds_whatever_its_unit_and_absent_without_time() -> None:
    chip = make_chip(2)
    sample = tensor(chip, fill=0, image="red")
    assert sample["time"].dtype == torch.int64
    np.testing.assert_array_equal(sample["time"], chip["time"].values.astype(np.int64))
    seconds = chip.assign_coords(time=chip["time"].astype("datetime64[s]"))
    assert torch.equal(tensor(seconds, fill=0, image="red")["time"], sample["time"])
    assert "time" not in tensor(make_chip(None), fill=0, image="red")


def test_without_time_the_stack_is_filled_and_the_joined_label_is_not() -> None:
    chip = make_chip(None)
    sample = tensor(chip, fill=0, image=["red", "nir"], label="crop")
    assert sample["image"].shape == (2, 6, 5)
    np.testing.assert_array_equal(sample["image_valid"], chip["valid"])
    np.testing.assert_array_equal(sample["image"][0], np.where(chip["valid"], chip["red"], 0))
    np.testing.assert_array_equal(sample["label"], chip["crop"])
    assert "label_valid" not in sample


def test_dims_in_another_order_give_the_same_tensor() -> None:
    chip = make_chip(2)
    turned = chip.transpose("x", "y", "band", "time")
    wanted = tensor(chip, fill=0, image=["red", "embedding"], label="crop")
    found = tensor(turned, fill=0, image=["red", "embedding"], label="crop")
    for name in ("image", "image_valid", "label"):
        assert torch.equal(found[name], wanted[name])


# Memory


def test_one_contiguous_variable_shares_memory_with_the_chip() -> None:
    chip = make_chip(2)
    assert np.shares_memory(tensor(chip, fill=None, image="red")["image"].numpy(), chip["red"].values)
    assert np.shares_memory(tensor(chip, fill=0, label="crop")["label"].numpy(), chip["crop"].values)
    all_valid = chip.assign(valid=xr.ones_like(chip["valid"]))
    sample = tensor(all_valid, fill=0, image=["embedding"], dtype=torch.uint16)
    assert np.shares_memory(sample["image"].numpy(), chip["embedding"].values)


def test_filling_and_read_only_arrays_make_a_copy() -> None:
    chip = make_chip(2)
    filled = tensor(chip, fill=0, image="red")["image"]
    assert not np.shares_memory(filled.numpy(), chip["red"].values)
    chip["red"].values.setflags(write=False)
    assert torch.equal(tensor(chip, fill=0, image="red")["image"], filled)


# Fill and dtype


def test_what_is_no_measurement_is_filled_and_marked() -> None:
    chip = make_chip(1, (1, 3), dtype="float32")
    chip["valid"].values[...] = [[[True, False, True]]]
    chip["red"].values[...] = [[[1, np.nan, np.nan]]]
    chip["nir"].values[...] = [[[4, 5, 6]]]
    sample = tensor(chip, fill=-1, image=["red", "nir"])
    np.testing.assert_array_equal(sample["image"][0, :, 0], [[1, -1, -1], [4, -1, 6]])
    np.testing.assert_array_equal(sample["image_valid"], [[[True, False, False]]])
    left = tensor(chip, fill=None, image=["red", "nir"])
    np.testing.assert_array_equal(left["image"][0, :, 0], [[1, np.nan, np.nan], [4, 5, 6]])
    np.testing.assert_array_equal(left["image_valid"], sample["image_valid"])


@pytest.mark.parametrize("lost", [np.float32("nan"), np.int16(-32768)])
def test_what_is_joined_is_filled_beside_the_stack_and_left_alone_by_itself(lost: np.generic) -> None:
    chip = make_chip(1, (1, 3))
    chip["valid"].values[...] = [[[True, False, True]]]
    chip["height"] = (("y", "x"), np.array([[lost, 8, 9]]), {"joined": True, "nodata": float(lost)})
    sample = tensor(chip, fill=0, image=["red", "height"], height="height", dtype=torch.float32)
    first, _, third = chip["red"].values[0, 0]
    np.testing.assert_array_equal(sample["image"][0, :, 0], [[first, 0, third], [0, 8, 9]])
    np.testing.assert_array_equal(sample["image_valid"], [[[False, False, True]]])
    np.testing.assert_array_equal(sample["height"], [[lost, 8, 9]])
    assert "height_valid" not in sample


@pytest.mark.parametrize("dtype", [*TORCH_INTEGERS, "bool", "float16", "float32", "float64", "complex64"])
def test_every_dtype_of_torch_comes_through_in_either_byte_order(dtype: str) -> None:
    chip = make_chip(2, dtype=np.dtype(dtype).newbyteorder(">"))
    sample = tensor(chip, fill=None, one="red", two=["red", "nir"])
    for name, found in (("red", sample["one"]), ("nir", sample["two"][:, 1])):
        assert found.numpy().dtype == np.dtype(dtype)
        np.testing.assert_array_equal(found, chip[name])


@pytest.mark.parametrize("wanted", [torch.float32, torch.float64, torch.int32, torch.bfloat16])
def test_dtype_converts_integers_exactly(wanted: torch.dtype) -> None:
    chip = make_chip(2, dtype="uint16")
    for variables in ("red", ["red", "nir"]):
        found = tensor(chip, fill=0, dtype=wanted, image=variables)["image"]
        assert found.dtype == wanted
        assert torch.equal(found, tensor(chip, fill=0, image=variables)["image"].to(wanted))
    chip["red"].values[...] = 65_535
    assert tensor(chip, fill=None, dtype=torch.float32, image="red")["image"].unique().tolist() == [65_535]


def test_dtypes_may_be_given_by_name_and_else_are_promoted() -> None:
    chip = make_chip(2).assign(ndvi=make_chip(2, dtype="float32")["red"])
    sample = tensor(chip, fill=0, dtype={"label": torch.int64}, image=["red", "ndvi"], raw="red", label="crop")
    assert sample["image"].dtype == torch.float32
    assert sample["raw"].dtype == torch.uint16
    assert sample["label"].dtype == torch.int64


@given(st.sampled_from([*TORCH_INTEGERS, "bool"]), st.integers(-(2**70), 2**70))
def test_a_fill_is_written_exactly_or_refused(dtype: str, fill: int) -> None:
    chip = make_chip(1, dtype=dtype)
    chip["valid"].values[...] = False
    limits = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if limits[0] <= fill <= limits[1]:
        assert (tensor(chip, fill=fill, image="red")["image"].numpy() == fill).all()
    else:
        with pytest.raises(TensorError, match="choose a fill that fits"):
            tensor(chip, fill=fill, image="red")


# Several inputs


def test_inputs_side_by_side() -> None:
    s2 = make_chip(2, (6, 5), margin=2)
    s1 = make_chip(3, (3, 2), margin=1, dtype="float32")
    sample = tensor({"s2": s2, "s1": s1}, fill=0, s2=["red", "nir"], radar=["s1/red"], label="s2/crop")
    alone = tensor(s2, fill=0, image=["red", "nir"], label="crop")
    assert torch.equal(sample["s2"], alone["image"])
    assert torch.equal(sample["s2_valid"], alone["image_valid"])
    assert torch.equal(sample["label"], alone["label"])
    assert torch.equal(sample["radar"], tensor(s1, fill=0, image=["red"])["image"])
    assert torch.equal(sample["s2_time"], alone["time"])
    assert sample["radar_time"].shape == (3,)
    assert {"time", "label_time"}.isdisjoint(sample)
    for key in ("chip", "bounds", "crs", "transform"):
        assert sample[key] == alone[key]


# Batches


@pytest.mark.parametrize(
    ("dtype", "seen"),
    [
        ("uint16", lambda row: row.view(torch.int16)),
        ("float32", lambda row: row.view(torch.int32)),
        ("complex64", torch.conj),
        ("complex64", lambda row: torch.conj(row).imag),
    ],
)
def test_rows_seen_as_something_else_are_stacked_as_such(dtype: str, seen: Callable[[torch.Tensor], Any]) -> None:
    rows = FreshRows(3, 3)
    samples = []
    for position in range(3):
        row, pixels = rows.row(position, "image", (2, 4), np.dtype(dtype))
        pixels[:] = position + (1j if dtype == "complex64" else 0)
        samples.append({"image": seen(row)})
    batch = collate(samples)["image"]
    assert batch.dtype == samples[0]["image"].dtype
    assert torch.equal(batch, torch.stack([sample["image"] for sample in samples]))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_a_batch_holds_every_sample_in_order(numbers: list[int]) -> None:
    samples = [tensor(make_chip(2, number=n), fill=0, image=["red", "nir"], label="crop") for n in numbers]
    batch = collate(samples)
    assert batch.keys() == samples[0].keys()
    assert batch["image"].dtype == torch.uint16
    assert batch["chip"].tolist() == numbers
    assert batch["chip"].dtype == torch.int64
    assert batch["bounds"].shape == (len(numbers), 4)
    assert batch["transform"].shape == (len(numbers), 6)
    assert batch["transform"].dtype == torch.float64
    assert batch["crs"] == [UTM] * len(numbers)
    for position, sample in enumerate(samples):
        for name in ("image", "image_valid", "label", "time"):
            assert torch.equal(batch[name][position], sample[name])
        assert tuple(batch["bounds"][position].tolist()) == sample["bounds"]


def test_ragged_samples_stay_a_list() -> None:
    samples = [tensor(make_chip(1), fill=0, label="crop") | {"boxes": torch.zeros(n, 4)} for n in (1, 3)]
    batch = collate(samples)
    assert [boxes.shape[0] for boxes in batch["boxes"]] == [1, 3]
    assert batch["boxes"][1] is samples[1]["boxes"]
    assert batch["label"].shape == (2, 6, 5)


def test_series_of_different_lengths_say_how_to_make_them_one() -> None:
    samples = [tensor(make_chip(dates), fill=0, image=["red"]) for dates in (1, 3)]
    with pytest.raises(TensorError, match=r"'time' has 1 dates in sample 0, and 3 in sample 1: write tensor.*length=3"):
        collate(samples)
    several = [tensor({"s2": make_chip(dates)}, fill=0, s2=["red"]) for dates in (2, 1)]
    with pytest.raises(TensorError, match=r"'s2_time' has 2 dates in sample 0, and 1 in sample 1"):
        collate(several)


@given(dates=st.integers(1, 4), length=st.integers(4, 6), margin=st.integers(0, 1))
def test_a_series_is_padded_and_says_so(dates: int, length: int, margin: int) -> None:
    chip = make_chip(dates, margin=margin)
    chip["valid"][0] = False
    own = tensor(chip, fill=7, image=["red", "crop"], label="crop")
    padded = tensor(chip, fill=7, image=["red", "crop"], label="crop", length=length)
    for name in ("image", "image_valid", "time"):
        assert len(padded[name]) == length
        assert torch.equal(padded[name][:dates], own[name])
    assert (padded["image"][dates:].int() == 7).all()
    assert not padded["image_valid"][dates:].any()
    assert torch.equal(padded["label"], own["label"])
    assert (padded["time"][dates:].numpy() == np.datetime64("NaT").astype(int)).all()
    expected = [bool(valid.any()) for valid in padded["image_valid"]]
    assert padded["time_mask"].tolist() == expected
    assert not expected[0]


def test_the_day_of_the_year_counts_from_one() -> None:
    chip = make_chip(3)
    chip = chip.assign_coords(time=np.array(["2024-01-01T23:59", "2024-12-31", "NaT"], "M8[ns]"))
    sample = tensor(chip, fill=0, image=["red"], doy=True, length=4)
    assert sample["doy"].tolist() == [1, 366, 0, 0]
    assert sample["doy"].dtype == torch.int64
    several = tensor({"a": chip, "b": make_chip(1)}, fill=0, a=["red"], b=["nir"], doy=True, length={"b": 2})
    assert several["a_doy"].tolist() == [1, 366, 0]
    assert several["b_doy"].tolist() == [122, 0]
    assert "a_time_mask" not in several
    assert several["b_time_mask"].shape == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1, "fill": 0}, r"length=1\): the chip has 2 dates; use length=2, or make fewer of them"),
        ({"length": 3, "fill": None}, "say what to pad with, fill=0"),
        ({"length": 0, "fill": 0}, "give a number of dates, at least 1"),
        ({"length": {"image": 3}, "fill": 0}, "share its dates; give one number"),
    ],
)
def test_lengths_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TensorError, match=message):
        tensor(make_chip(2), image=["red"], **options)
    with pytest.raises(TensorError, match=r"there is no tensor 's3'; the tensors are s2"):
        tensor({"s2": make_chip(2)}, s2=["red"], fill=0, length={"s3": 2})


def test_other_values_are_collated_by_kind() -> None:
    batch = collate(
        [
            {"n": 1, "share": 0.5, "name": "a", "more": {"z": np.int64(4)}, "size": (1, 2), "mixed": (1,)},
            {"n": 2, "share": 1, "name": "b", "more": {"z": np.int64(5)}, "size": (3, 4), "mixed": 2.0},
        ]
    )
    assert batch["n"].tolist() == [1, 2]
    assert batch["share"].dtype == torch.float64
    assert batch["name"] == ["a", "b"]
    assert batch["more"]["z"].tolist() == [4, 5]
    assert batch["size"].tolist() == [[1, 2], [3, 4]]
    assert batch["mixed"] == [(1,), 2.0]


def test_torchs_own_loader_takes_samples_and_agrees() -> None:
    samples = [tensor(make_chip(2, number=n), fill=0, image=["red", "nir"], label="crop") for n in range(4)]
    loader: DataLoader[Any] = DataLoader(samples, batch_size=4)  # type: ignore[arg-type]  # a list is enough
    (theirs,) = loader
    ours = collate(samples)
    for name in ("image", "image_valid", "label", "time", "chip"):
        assert torch.equal(theirs[name], ours[name])
    assert torch.equal(torch.stack(theirs["bounds"], dim=1), ours["bounds"])
    assert theirs["crs"] == ours["crs"]


# Errors


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({}, r"no tensor is named; write for example image=\["),
        ({"image": []}, r"tensor\(image=\[\]\): no variable is named"),
        ({"image": ["nirr"]}, "no variable 'nirr'; there are red, nir, embedding, crop, valid"),
        ({"image": "y"}, "no variable 'y'; there are red"),
        ({"image": "odd"}, r"'odd' is \(time\); needed y, x and at most time and bands"),
        ({"time": "red"}, "keeps the key 'time' for itself; choose another name"),
        ({"chip": "red"}, "keeps the key 'chip' for itself"),
        ({"image": "red", "image_valid": "valid"}, "keeps the key 'image_valid' for itself"),
        (
            {"image": "red", "time_axis": False},
            r"has 2 dates, needed one; .* chip\(time=1\), .*time_axis=True",
        ),
        (
            {"image": "red", "fill": -1},
            "image is uint16, which holds whole numbers from 0 to 65535; choose a fill",
        ),
        ({"image": "red", "fill": 0.5}, "fill=0.5"),
        ({"image": "red", "fill": float("nan")}, "fill=nan"),
        ({"image": "ndvi", "fill": 1e39}, r"holds numbers up to 3.4\d*e\+38"),
        ({"image": "ndvi", "dtype": torch.int64}, "'ndvi' is float32, and torch.int64 does not hold all"),
        ({"image": "red", "dtype": torch.int16}, "choose a wider dtype, or round and convert in a step"),
        ({"image": "red", "dtype": {"img": torch.int32}}, "there is no tensor 'img'; the tensors are image"),
        ({"image": "red", "dtype": "float32"}, r"dtype='float32'\): a dtype of torch is needed; write torch.float32"),
        ({"image": "red", "dtype": np.uint16}, r"a dtype of torch is needed; write torch.uint16"),
        (
            {"image": "red", "dtype": {"image": "half"}},
            r"'half'\): a dtype of torch is needed; write torch.float16",
        ),
        ({"image": "date"}, r"torch holds no tensor of datetime64\[ns\]; convert in a step before"),
        ({"image": ["date", "red"]}, r"torch holds no tensor of datetime64\[ns\], uint16"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_way_out(wanted: dict[str, Any], text: str) -> None:
    chip = make_chip(2).assign(
        ndvi=make_chip(2, dtype="float32")["red"],
        odd=("time", [1, 2]),
        date=(("y", "x"), np.full((6, 5), np.datetime64("2024-05-01", "ns"))),
    )
    with pytest.raises(TensorError, match=text):
        tensor(chip, **{"fill": 0, **wanted})


@pytest.mark.parametrize("name", ["valid", "spatial_ref", "chip"])
def test_a_dataset_that_is_no_chip_is_refused(name: str) -> None:
    with pytest.raises(TensorError, match=rf"lacks {name}, which every chip has; keep it in the steps"):
        tensor(make_chip().drop_vars(name), fill=0, image="red")


def test_a_lost_margin_or_changed_grid_is_refused() -> None:
    chip = make_chip(2)
    lost = chip.copy()
    lost["chip"] = lost["chip"].drop_attrs()
    with pytest.raises(TensorError, match=r"lacks chip\.attrs\['margin'\]"):
        tensor(lost, fill=0, image="red")
    for other in (chip.isel(x=slice(1, None)), chip.isel(y=slice(None, None, 2))):
        with pytest.raises(TensorError, match="but spatial_ref states"):
            tensor(other, fill=0, image="red")
    with pytest.raises(TensorError, match=r"'valid' is float64 \(time, y, x\); needed bool"):
        tensor(chip.assign(valid=chip["valid"] * 1.0), fill=0, image="red")


def test_inputs_that_are_not_there_or_mixed_are_refused() -> None:
    inputs = {"s2": make_chip(2), "s1": make_chip(2)}
    with pytest.raises(TensorError, match=r"'red' is in none of the inputs s2, s1; .* image=\"s2/red\""):
        tensor(inputs, fill=0, image=["red"])
    with pytest.raises(TensorError, match=r"variables of several inputs \(s2, s1\)"):
        tensor(inputs, fill=0, image=["s2/red", "s1/red"])
    with pytest.raises(TensorError, match="no variable 'vv'; there are red"):
        tensor(inputs, fill=0, s1="vv")


def test_samples_that_differ_are_refused() -> None:
    with pytest.raises(TensorError, match="samples 0 and 1 differ in 'label'"):
        collate([{"image": torch.zeros(1), "label": 1}, {"image": torch.zeros(1)}])
    with pytest.raises(TensorError, match="there are no samples"):
        collate([])
