"""Chips and back: what an identity gives is the raster, what a constant gives is constant, whatever the cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import geopipes as gp
from geopipes.errors import MapError
from geopipes.maps.blending import BLENDS, Canvas, weights
from geopipes.testing import Synthetic
from tests.mapping import CLASSES, Smooth, identity, raster, samples

shapes = st.tuples(st.integers(2, 40), st.integers(2, 40))
sizes = st.tuples(st.integers(1, 17), st.integers(1, 17))


def back(found: xr.Dataset, bands: int) -> np.ndarray[Any, Any]:
    """Give the (bands, y, x) of a map."""
    values: np.ndarray[Any, Any] = found["prediction"].values
    return values[None] if bands == 1 else values


@given(
    data=st.data(), shape=shapes, size=sizes, blend=st.sampled_from(BLENDS), edge=st.sampled_from(["pad", "shift"]),
    bands=st.integers(1, 3), dtype=st.sampled_from(["float32", "float64", "int16", "uint8"]),
    crs=st.sampled_from(["EPSG:32633", "EPSG:4326", "EPSG:3035"]), batch=st.integers(1, 9), margin=st.integers(0, 3),
)  # fmt: skip
def test_an_identity_gives_the_raster_back_bit_for_bit(
    data: st.DataObject, shape: tuple[int, int], size: tuple[int, int], blend: Any, edge: str, bands: int, dtype: str,
    crs: str, batch: int, margin: int,
) -> None:  # fmt: skip
    overlap = tuple(data.draw(st.integers(0, side - 1)) for side in size)
    if edge == "shift":
        size = (min(size[0], shape[0]), min(size[1], shape[1]))
        overlap = (min(overlap[0], size[0] - 1), min(overlap[1], size[1] - 1))
    whole = dtype.startswith(("int", "uint"))
    if whole and blend != "crop" and (overlap != (0, 0) or edge == "shift"):
        blend = "crop"  # numbers that have no mean
    origin = (10.0, 50.0) if crs == "EPSG:4326" else (300_000.0, 5_000_000.0)
    source = raster(shape, dtype=dtype, crs=crs, bands=bands, origin=origin)
    if whole:  # a value is kept free for nodata
        free = np.iinfo(dtype).max if dtype == "uint8" else np.iinfo(dtype).min
        source = source.map(lambda v: v if v.dtype == bool else v.where(v != free, 1).astype(dtype), keep_attrs=True)
    found = samples(source, size, overlap=overlap, edge=edge, margin=margin).predict(identity, batch=batch)
    dataset = found.stitch(blend=blend).load()
    valid = source["valid"].values
    np.testing.assert_array_equal(dataset["valid"], valid)
    for band, values in enumerate(back(dataset, bands)):
        expected = source[f"b{band}"].values
        assert values.dtype == dtype
        np.testing.assert_array_equal(values[valid], expected[valid])
        if not whole:
            assert np.isnan(values[~valid]).all()
    np.testing.assert_allclose(dataset["y"], source["y"], rtol=0, atol=1e-9 if crs == "EPSG:4326" else 1e-6)
    np.testing.assert_allclose(dataset["x"], source["x"], rtol=0, atol=1e-9 if crs == "EPSG:4326" else 1e-6)


@given(
    shape=st.tuples(st.integers(16, 50), st.integers(16, 50)), size=st.integers(4, 16), blend=st.sampled_from(BLENDS),
    edge=st.sampled_from(["pad", "shift"]), value=st.floats(-1e6, 1e6, width=32), overlap=st.floats(0, 0.99),
)  # fmt: skip
def test_a_constant_gives_a_constant_without_a_seam(
    shape: tuple[int, int], size: int, blend: Any, edge: str, value: float, overlap: float
) -> None:
    def constant(image: torch.Tensor) -> torch.Tensor:
        return torch.full_like(image, value)

    chips = samples(raster(shape, holes=0), size, overlap=int(overlap * size), edge=edge)
    found = chips.predict(constant).stitch(blend=blend).load()
    assert (found["prediction"].values == np.float32(value)).all()


@pytest.mark.parametrize("blend", ["hann", "gaussian", "linear", "mean"])
def test_overlapping_chips_are_their_weighted_mean(blend: Any) -> None:
    def by_chip(image: torch.Tensor) -> torch.Tensor:
        return image + 1000 * torch.arange(len(image))[:, None, None, None]

    source = raster((48, 40), holes=0.2)
    chips = samples(source, 16, overlap=9, edge="pad")
    found = chips.predict(by_chip, batch=1000).stitch(blend=blend).load()["prediction"].values
    window = weights(blend, (16, 16)).astype(float)
    sums, total = np.zeros((2, 80, 80))
    for sample in chips.predict(by_chip, batch=1000):
        number = sample["chip"]
        plan = gp.cubes(source).chip(16, overlap=9, edge="pad", coverage="any")._value.get()
        at = np.s_[plan.row[number] : plan.row[number] + 16, plan.col[number] : plan.col[number] + 16]
        weight = window * sample["image_valid"].numpy()
        sums[at] += weight * sample["prediction"][0].numpy()
        total[at] += weight
    with np.errstate(invalid="ignore"):
        expected = (sums / total)[:48, :40]
    np.testing.assert_allclose(found, np.where(source["valid"], expected, np.nan), rtol=2e-6)


def test_a_crop_is_of_the_chip_in_which_a_pixel_lies_deepest() -> None:
    def by_chip(image: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(image))[:, None, None].expand(-1, 8, 8)

    found = samples(raster((8, 20), holes=0), 8, overlap=2).predict(by_chip).stitch(blend="crop").load()
    assert found["prediction"].values[4].tolist() == [0] * 7 + [1] * 6 + [2] * 7


@pytest.mark.parametrize("blend", BLENDS)
@given(size=st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_weights_are_positive_and_even(blend: Any, size: tuple[int, int]) -> None:
    found = weights(blend, size)
    assert found.shape == size
    assert (found > 0).all()
    np.testing.assert_allclose(found, found[::-1, ::-1], rtol=1e-4)


def test_classes_are_of_blended_probabilities() -> None:
    chips = samples(raster((60, 70)), 16, overlap=8, edge="pad").predict(Smooth())
    both = chips.stitch(activation="softmax", classes=True, probability=True).load()
    shares = chips.stitch(activation="softmax").load()["prediction"]
    valid = both["valid"].values
    assert both["prediction"].dtype == np.uint8
    assert both["prediction"].attrs["nodata"] == 255
    assert (both["prediction"].values[~valid] == 255).all()
    np.testing.assert_array_equal(both["prediction"].values[valid], shares.values.argmax(0)[valid])
    np.testing.assert_array_equal(both["prediction_probability"], shares.max("band"))
    np.testing.assert_allclose(shares.sum("band").values[valid], 1, rtol=1e-5)
    assert set(np.unique(both["prediction"].values[valid])) <= set(range(CLASSES))


def test_one_band_is_the_probability_of_class_1() -> None:
    chips = samples(raster((40, 40)), 16, overlap=4, edge="pad").predict(Smooth(classes=1))
    both = chips.stitch(activation="sigmoid", classes=True, probability=True).load()
    share = chips.stitch(activation="sigmoid").load()["prediction"].values
    valid = both["valid"].values
    np.testing.assert_array_equal(both["prediction"].values[valid], (share >= 0.5)[valid])
    np.testing.assert_allclose(both["prediction_probability"].values[valid], np.maximum(share, 1 - share)[valid])
    with pytest.raises(MapError, match=r"needed are probabilities; write activation='sigmoid', 0 to 1"):
        chips.stitch(classes=True).load()
    with pytest.raises(MapError, match="over one band softmax is 1 everywhere; write activation='sigmoid'"):
        chips.stitch(activation="softmax").load()


def test_class_numbers_are_kept_as_they_are() -> None:
    def numbers(image: torch.Tensor) -> torch.Tensor:
        return (image[:, 0] > 0).long() * 3

    chips = samples(raster((40, 40)), 16).predict(numbers)
    found = chips.stitch(classes=True).load()
    assert found["prediction"].dtype == np.uint8
    assert set(np.unique(found["prediction"])) == {0, 3, 255}
    overlapping = samples(raster((40, 40)), 16, overlap=4, edge="pad").predict(numbers)
    with pytest.raises(
        MapError, match=r"int64 of overlapping chips have no mean; let the model give prob.*blend='crop'"
    ):
        overlapping.stitch(classes=True).load()
    overlapping.stitch(classes=True, blend="crop").load()


def test_heads_each_have_their_rule() -> None:
    def heads(image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"cover": torch.cat([image, -image], 1), "height": image[:, 0], "sure": image.sigmoid()}

    source = raster((40, 30))
    chips = samples(source, 16, overlap=4, edge="pad").predict(heads)
    found = chips.stitch(of=["cover", "height"], classes="cover", nodata={"cover": 9}).load()
    valid = source["valid"].values
    np.testing.assert_array_equal(found["height"], source["b0"])
    np.testing.assert_array_equal(found["cover"].values[valid], (source["b0"].values < 0)[valid])
    assert (found["cover"].values[~valid] == 9).all()
    with pytest.raises(MapError, match=r"\['depth'\] are none of the predictions height"):
        chips.stitch(of="height", classes="depth")


@pytest.mark.parametrize(("size", "edge"), [(16, "pad"), (8, "pad")])
def test_embeddings_lie_on_a_grid_of_their_own(size: int, edge: str) -> None:
    def patches(image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.nn.functional.avg_pool2d(image, 4), torch.nn.functional.max_pool2d(image, 4)], 1)

    source = raster((40, 56), holes=0)
    found = samples(source, size, overlap=size // 2, edge=edge).predict(patches).stitch().load()
    assert found["prediction"].dims == ("band", "y", "x")
    assert found["prediction"].shape == (2, 10, 14)
    blocks = source["b0"].coarsen(y=4, x=4)
    np.testing.assert_allclose(found["prediction"][0], blocks.mean(), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["prediction"][1], blocks.max())
    np.testing.assert_allclose(found["x"], blocks.mean()["x"])
    np.testing.assert_allclose(found["y"], blocks.mean()["y"])


def test_finer_answers_lie_on_a_finer_grid() -> None:
    source = raster((24, 40))

    def finer(image: torch.Tensor) -> torch.Tensor:
        return image.repeat_interleave(2, -1).repeat_interleave(2, -2)

    found = samples(source, 16, overlap=5, edge="pad").predict(finer).stitch().load()
    np.testing.assert_array_equal(found["prediction"], np.kron(source["b0"], np.ones((2, 2), np.float32)))
    assert float(found["x"][1] - found["x"][0]) == 5.0


@pytest.mark.parametrize("overlap", [0, 8])
def test_one_value_for_a_chip(overlap: int) -> None:
    def mean(image: torch.Tensor) -> torch.Tensor:
        return image.mean((1, 2, 3))

    source = raster((48, 32), holes=0)
    found = samples(source, 16, overlap=overlap, edge="pad").predict(mean).stitch(blend="mean").load()["prediction"]
    by_chip = [float(sample["prediction"]) for sample in samples(source, 16, overlap=overlap, edge="pad").predict(mean)]
    if overlap == 0:
        np.testing.assert_array_equal(found.values.ravel(), np.array(by_chip, np.float32))
        assert float(found["x"][1] - found["x"][0]) == 160.0
    else:
        assert found.shape == (6, 4)
        assert float(found[0, 0]) == np.float32(by_chip[0])
        np.testing.assert_allclose(float(found[0, 1]), np.mean(by_chip[:2]), rtol=1e-5)


def test_answers_that_would_fall_between_pixels_are_refused() -> None:
    def pooled(image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image, 8)

    with pytest.raises(
        MapError, match=r"along y one pixel of 8 px of the chip, but chips lie multiples of 12 px apart"
    ):
        samples(raster((40, 40)), 16, overlap=4, edge="pad").predict(pooled).stitch().load()

    def dated(image: torch.Tensor) -> torch.Tensor:
        return image[:, None]

    with pytest.raises(
        MapError, match=r"is \(1, 1, 16, 16\); needed is \(band, y, x\), \(y, x\), \(band,\) or one value"
    ):
        samples(raster((40, 40)), 16).predict(dated).stitch().load()


def test_answers_have_one_form() -> None:
    asked: list[int] = []

    def changing(image: torch.Tensor) -> torch.Tensor:
        asked.append(1)
        return image.repeat(1, len(asked), 1, 1)

    with pytest.raises(MapError, match=r"an answer is \(2, 16, 16\), and the first was 1 bands of 16 x 16 px"):
        samples(raster((40, 40)), 16).predict(changing, batch=2).stitch().load()


def test_nan_is_nothing_known() -> None:
    source = raster((32, 32), holes=0)

    def positive(image: torch.Tensor) -> torch.Tensor:
        return torch.where(image > 0, image, torch.nan)

    found = samples(source, 16, overlap=8, edge="pad").predict(positive).stitch().load()
    np.testing.assert_array_equal(found["prediction"], source["b0"].where(source["b0"] > 0))
    np.testing.assert_array_equal(found["valid"], source["b0"] > 0)


def test_nodata_is_a_value_that_is_free() -> None:
    source = raster((32, 32), dtype="int16")
    chips = samples(source, 16).predict(identity)
    with pytest.raises(MapError, match="is int16, which does not hold it"):
        chips.stitch(nodata=1e6).load()
    held = int(source["b0"].values[source["valid"].values][0])
    with pytest.raises(MapError, match=f"a valid pixel is {held}, which stands for nodata"):
        chips.stitch(nodata=held).load()


def test_strips_together_are_the_map() -> None:
    chips = samples(raster((70, 50)), 16, overlap=4, edge="pad").predict(Smooth())
    strips = list(chips.stitch())
    assert max(strip.sizes["y"] for strip in strips) <= 16
    joined = xr.concat(strips, "y", data_vars="minimal", coords="minimal", compat="override", join="outer")
    xr.testing.assert_equal(joined.sortby("y", ascending=False).drop_vars("spatial_ref"),
                            chips.stitch().load().drop_vars("spatial_ref"))  # fmt: skip


def test_batches_and_threads_do_not_matter() -> None:
    source = raster((50, 60))
    chips = gp.cubes(source).chip(16, overlap=8, edge="pad", coverage="any")
    maps = []
    for threads, batch in ((1, 3), (4, 11)):
        tensors = chips.read(threads=threads).tensor(image=["b0"], fill=0, time_axis=False)
        maps.append(tensors.batch(batch).predict(identity).stitch().load())
        maps.append(tensors.predict(identity, batch=batch).batch(4).stitch().load())
    for other in maps[1:]:
        xr.testing.assert_identical(maps[0], other)


def test_a_held_out_part_and_chips_that_were_refused() -> None:
    source = raster((64, 64), holes=0)
    plan = gp.cubes(source).chip(16).split((0.5, 0.5), block=320, seed=1)[1]
    chips = plan.read().tensor(image=["b0"], fill=0, time_axis=False)
    kept = chips.filter(lambda sample: sample["chip"] != 5).predict(identity)
    found = kept.stitch().load()
    expected = np.full((64, 64), np.nan, np.float32)
    windows = plan._value.get()
    for row, col, chip in zip(windows.row, windows.col, windows.ids, strict=True):
        if chip != 5:
            expected[row : row + 16, col : col + 16] = source["b0"].values[row : row + 16, col : col + 16]
    top, left = windows.row.min(), windows.col.min()
    shape = found["prediction"].shape
    np.testing.assert_array_equal(found["prediction"], expected[top : top + shape[0], left : left + shape[1]])
    with pytest.raises(MapError, match="no chip is left to make a map of"):
        chips.filter(lambda _: False).predict(identity).stitch().load()


@pytest.mark.parametrize("blend", BLENDS)
def test_several_zones_are_a_map_each(land: Synthetic, blend: Any) -> None:
    cubes = gp.items(land.items).stack(["red"], crs="utm", resolution=10, groupby="solar_day")
    plan = cubes.chip(48, overlap=16, edge="shift", coverage="any", time=1)
    chips = plan.read().tensor(image=["red"], fill=0, time_axis=False, dtype=torch.float32)
    found: dict[str, dict[Any, Any]] = {}
    for strip in chips.predict(identity).stitch(blend=blend):
        found.setdefault(strip.odc.crs.to_epsg(), {}).setdefault(strip["time"].values.item(), []).append(strip)
    assert set(found) == {32614, 32615}
    windows = plan._value.get()
    for number, cube in enumerate(cubes._value.get().cubes):
        whole = cube.dataset.load()
        assert len(found[cube.crs.epsg]) == 2
        for time, strips in enumerate(found[cube.crs.epsg].values()):
            joined = xr.concat(strips, "y", data_vars="minimal", coords="minimal", compat="override", join="outer")
            joined = joined.sortby("y", ascending=False)
            covered = np.zeros(cube.geobox.shape, bool)
            for at in np.flatnonzero((windows.cube == number) & (windows.time == time)):
                covered[windows.row[at] : windows.row[at] + 48, windows.col[at] : windows.col[at] + 48] = True
            expected = whole["red"][time].where(whole["valid"][time] & covered)
            np.testing.assert_array_equal(joined["prediction"], expected.sel(y=joined["y"], x=joined["x"]))
    with pytest.raises(MapError, match=r"lies on 2 grids \(EPSG:32614, EPSG:32615\).*write\('map_{crs}.tif'\)"):
        chips.predict(identity).stitch().load()


def test_several_dates_are_behind_each_other() -> None:
    source = raster((40, 30), dates=3)
    chips = samples(source, 16, overlap=4, edge="pad", time=1).predict(identity)
    found = chips.stitch().load()
    assert found["prediction"].dims == ("time", "y", "x")
    np.testing.assert_array_equal(found["time"], source["time"])
    np.testing.assert_array_equal(found["prediction"], source["b0"])
    np.testing.assert_array_equal(found["valid"], source["valid"])
    chip = gp.cubes(found).chip(16)[0]["prediction"].load()
    xr.testing.assert_equal(chip.drop_vars("chip"), found["prediction"][:, :16, :16])


def test_other_orders_are_refused() -> None:
    cubes = gp.cubes(raster((64, 64)))
    shuffled = cubes.chip(16).shuffle(seed=0).read().tensor(image=["b0"], fill=0).predict(identity).stitch()
    with pytest.raises(
        MapError, match=r"made from top to bottom, and chip \d+ at position \d+ lies above.*leave shuffle"
    ):
        shuffled.load()
    grouped = gp.cubes(raster((64, 64), dates=4)).chip(16, time=1).pairs(seed=0, months=2).read()
    with pytest.raises(MapError, match="groups of chips lie at several places"):
        grouped.map(lambda chip: {"chip": 0}).stitch().load()  # type: ignore[arg-type]


def test_what_is_no_prediction_is_refused() -> None:
    chips = samples(raster((32, 32)), 16)
    with pytest.raises(
        MapError, match=r"no 'prediction' among image.*write predict\(model, name='prediction'\) before"
    ):
        chips.stitch().load()
    with pytest.raises(MapError, match="elements from elsewhere have no place"):
        gp.Pipe([{"chip": 0, "prediction": torch.zeros(4, 4)}]).stitch()
    with pytest.raises(MapError, match=r"take chips of the plan, .take\(n\).read\(\)"):
        chips.take(2).predict(identity).stitch()
    with pytest.raises(MapError, match="chip 99 is none of the plan"):
        chips.predict(identity).map(lambda sample: sample | {"chip": 99}).stitch().load()
    with pytest.raises(MapError, match="blend='cosine'; use one of 'hann'"):
        chips.predict(identity).stitch(blend="cosine")  # type: ignore[arg-type]
    with pytest.raises(MapError, match="activation='relu'"):
        chips.predict(identity).stitch(activation="relu")  # type: ignore[arg-type]
    with pytest.raises(MapError, match="write classes=True with it"):
        chips.predict(identity).stitch(probability=True)


def test_memory_holds_the_rows_of_a_chip() -> None:
    canvas = Canvas((4, 10**6, 100), (32, 32), np.dtype("float32"), "hann")
    assert canvas._values.shape == (4, 32, 100)
    for row in range(0, 10**6, 50_000):
        while canvas.top < row:
            values, covered = canvas.close(row)
            assert values.shape[1] == len(covered) <= 32
        canvas.add(np.ones((4, 32, 32), np.float32), np.ones((32, 32), bool), row, 0)


def test_a_map_prints_as_it_was_typed() -> None:
    text = str(samples(raster((32, 32)), 16).predict(identity).stitch(blend="crop", classes=True))
    assert text.splitlines()[-1].strip() == ".stitch(blend='crop', classes=True)"
