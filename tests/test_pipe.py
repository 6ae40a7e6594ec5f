"""The chain: immutable, lazy, picklable, iterable again and again, printed as typed; and what runs it."""

from __future__ import annotations

import itertools
import pickle
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import torch
import xarray as xr
from torch.utils.data import DataLoader

import geopipes as gp
from geopipes.errors import EmptyBatch, FreezeError, StepError
from geopipes.testing import Synthetic, serve

warns_of_no_maintainer = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


def samples(land: Synthetic, size: int = 48) -> gp.Pipe[dict[str, Any]]:
    stack = gp.items(land.items).stack(["red", "nir"], resolution=10, crs="utm", groupby="solar_day")
    read = stack.join(gp.rasters(land.label), name="crop", nodata=255).chip(size).shuffle(seed=0).read(threads=2)
    return read.tensor(image=["red", "nir"], label="crop", fill=0)


def double(value: int) -> int:
    return 2 * value


def is_even(value: int) -> bool:
    return value % 2 == 0


def mostly_clear(sample: dict[str, Any]) -> bool:
    return bool(sample["chip"] % 3)


# A chain of anything.


def test_a_chain_is_immutable_and_runs_again_and_again() -> None:
    numbers = gp.Pipe([1, 2, 3])
    doubled = numbers.map(double)
    assert list(numbers) == [1, 2, 3]
    assert list(doubled) == list(doubled) == [2, 4, 6]
    first, second = iter(doubled), iter(doubled)
    assert [next(first), next(second), next(first)] == [2, 2, 4]


def test_map_filter_take_batch_and_pipe() -> None:
    numbers = gp.Pipe(list(range(10)))
    assert list(numbers.take(3)) == [0, 1, 2]
    assert list(numbers.batch(4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(numbers.batch(4, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert list(numbers.filter(is_even).take(2)) == [0, 2]
    assert numbers.pipe(lambda pipe, n: list(pipe.take(n)), 2) == [0, 1]
    assert [len(p) for p in (numbers, numbers.take(3), numbers.batch(4), numbers.batch(4, drop_last=True))] == [
        10,
        3,
        3,
        2,
    ]


def test_what_a_filter_refuses_leaves_a_hole_and_shifts_no_batch() -> None:
    numbers = gp.Pipe(list(range(10)))
    with pytest.warns(EmptyBatch, match="all elements of a batch were refused"):
        assert list(numbers.filter(is_even).batch(3)) == [[0, 2], [4], [6, 8]]
    with pytest.warns(EmptyBatch, match="all elements of a batch were refused, by filter .*; it is left out"):
        assert list(numbers.filter(lambda n: n > 5).batch(3)) == [[6, 7, 8], [9]]
    assert len(numbers.filter(is_even)) == 10  # the planned length
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        assert list(numbers.filter(lambda n: n > 8).batch(2)) == [[9]]
    assert len(seen) == 1  # of four batches


def test_none_is_an_element() -> None:
    assert list(gp.Pipe([None, 1, None]).map(lambda x: x).batch(2)) == [[None, 1], [None]]


def test_a_generator_is_refused_with_the_reason() -> None:
    with pytest.raises(StepError, match="runs once, and a pipe starts again at every epoch; give a list"):
        gp.Pipe(n for n in range(3))
    with pytest.raises(StepError, match="something to iterate over"):
        gp.Pipe(3)  # type: ignore[arg-type]


@warns_of_no_maintainer
def test_a_torch_iterdatapipe_is_a_source() -> None:
    from torch.utils.data.datapipes.iter import IterableWrapper

    pipe = gp.Pipe(IterableWrapper([1, 2, 3]).map(double)).map(double)
    assert list(pipe) == list(pipe) == [4, 8, 12]


class Endless:
    """Has no length and starts again."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


def test_a_source_without_a_length() -> None:
    pipe = gp.Pipe(Endless()).map(double).batch(2)
    assert list(pipe.take(2)) == [[0, 2], [4, 6]]
    assert str(pipe).splitlines() == ["Pipe(Endless)", "    .map(double)", "    .batch(2)"]


def test_an_error_names_the_step_and_the_element(land: Synthetic) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(gp.Pipe([1, 0]).map(lambda n: 1 // n))
    assert caught.value.__notes__ == ["in step map(<lambda>)", "at element 1"]

    def fail_at_3(sample: dict[str, Any]) -> None:
        if sample["chip"] == 3:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no") as error:
        list(samples(land).map(fail_at_3))
    assert error.value.__notes__[0] == "in step map(fail_at_3)"
    assert "(chip 3)" in error.value.__notes__[1]


def test_methods_at_the_wrong_place_say_where_they_belong(land: Synthetic) -> None:
    items = gp.items(land.items)
    stack = items.stack(["red"], resolution=10, crs="utm")
    with pytest.raises(StepError, match=r"chip\(8\) works on cubes .*; before it stands items"):
        items.chip(8)
    with pytest.raises(StepError, match=r"filter\(.*looks at pixels.*write .read\(\).filter"):
        stack.chip(8).filter(bool)
    with pytest.raises(StepError, match=r"tensor\(.*\) works on elements that are read"):
        stack.chip(8).tensor(image=["red"], fill=0)
    with pytest.raises(StepError, match=r"write .read\(\).tensor"):
        stack.chip(8).tensor(image=["red"], fill=0)
    with pytest.raises(AttributeError, match=r"shuffle\(\) works on a plan, .* here it stands after read"):
        stack.chip(8).read().shuffle(seed=0)  # type: ignore[attr-defined]
    with pytest.raises(StepError, match=r"write .join\(gp.rasters\('crop.tif'\)"):
        stack.join("crop.tif")  # type: ignore[arg-type]
    with pytest.raises(StepError, match=r"before gp.inputs"):
        next(iter(gp.inputs(a=stack).scale("red", factor=1)))  # type: ignore[misc]
    with pytest.raises(StepError, match=r"collates what is read: write .read\(\).batch\(2\)"):
        stack.chip(8).batch(2)
    with pytest.raises(StepError, match=r"stack.* works on items"):
        stack.stack(["red"])  # type: ignore[misc]
    with pytest.raises(StepError, match="takes pipes of items, or pipes of cubes"):
        items.union(stack)  # type: ignore[arg-type]


def test_a_function_that_draws_is_asked_for_as_such() -> None:
    def jittered(number: int, *, rng: np.random.Generator) -> float:
        return number + float(rng.random())

    pipe = gp.Pipe([1, 2])
    with pytest.raises(StepError, match=r"map\(jittered\): the function takes rng, .*; write map\(..., rng=True\)"):
        pipe.map(jittered)  # type: ignore[arg-type]  # which a type checker says too
    assert [int(number) for number in pipe.map(jittered, rng=True)] == [1, 2]
    assert list(pipe.map(partial(jittered, rng=np.random.default_rng(0))).map(int)) == [1, 2]


# Lazy: no network and no pixels before they are needed.


def test_building_and_printing_touch_no_network() -> None:
    pipe = gp.search("http://127.0.0.1:9/nowhere", collections=["a"], headers={"key": "secret"}).stack(["red"])
    text = str(pipe.chip(64).shuffle(seed=0).read().batch(4))
    assert text.splitlines() == [
        "geopipes.search('http://127.0.0.1:9/nowhere', collections=['a'], headers=...)",
        "    .stack(['red'])",
        "    .chip(64)",
        "    .shuffle(0)",
        "    .read()",
        "    .batch(4)",
    ]


def test_a_search_runs_once_and_is_remembered(land: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(land.items) as api:
        scenes = gp.search(api.url, bbox=land.bbox)
        plan = scenes.stack(["red"], resolution=10, crs="utm").chip(48)
        assert not api.requests
        length = len(plan)
        searched = api.searches
        assert searched > 0
        assert len(list(scenes)) == len(land.items)
        travelled = pickle.loads(pickle.dumps(plan.shuffle(seed=1)))
        assert len(travelled) == length
        assert api.searches == searched
    ids = [int(chip["chip"]) for chip in travelled]
    assert sorted(ids) == list(range(length))
    assert [int(chip["chip"]) for chip in travelled.read()] == ids  # without the API


def test_printing_shows_dims_crs_dtype_and_length(land: Synthetic) -> None:
    pipe = samples(land).batch(4)
    len(pipe)
    text = str(pipe)
    assert "geopipes.items(" in text
    assert f"# {len(land.items)} items" in text
    assert "time 2, y " in text
    assert "EPSG:32614 at 10; red nir uint16, valid bool" in text
    assert "chips of 48 x 48 px" in text
    assert "48 x 48 px" in text
    assert (
        f"{len(pipe)} batches; image (2, 2, 48, 48) uint16, image_valid (2, 48, 48) bool, label (48, 48) uint8" in text
    )
    assert all(line.startswith(("geopipes.items(", "    .")) for line in text.splitlines())


def test_an_index_is_printed_as_it_is_typed(land: Synthetic) -> None:
    plan = gp.items(land.items).stack(["red"], resolution=10, crs="utm").chip(48)[3:9:2].shuffle(seed=0)
    assert [line.split("  #")[0].strip() for line in str(plan).splitlines()[-2:]] == ["[3:9:2]", ".shuffle(0)"]


def test_what_cannot_travel_says_so(land: Synthetic) -> None:
    pipe = samples(land).map(lambda sample: sample)
    with pytest.raises(StepError, match=r"map\(<lambda>\) cannot travel to another process.*top level of a module"):
        pickle.dumps(pipe)


def test_items_are_mapped_filtered_taken_and_united(land: Synthetic) -> None:
    items = gp.items(land.items)
    east = items.filter(lambda item: "15T" in item.id)
    west = items.filter(lambda item: "14T" in item.id)
    assert len(east) == len(west) == 2
    assert {item.id for item in east.union(west)} == {item.id for item in items}
    assert len(items.union(items)) == 4
    assert "4 duplicates dropped" in str(_resolved(items.union(items)))
    assert [item.id for item in items.take(2)] == [item.id for item in items][:2]
    renamed = items.map(_without_scl)
    assert all("scl" not in item.assets for item in renamed)
    assert all("scl" in item.assets for item in items)


def _without_scl(item: pystac.Item) -> pystac.Item:
    copy = item.clone()
    del copy.assets["scl"]
    return copy


def _resolved(pipe: gp.Pipe[Any]) -> gp.Pipe[Any]:
    len(pipe)
    return pipe


def test_a_frozen_search_replays_without_a_network(land: Synthetic, tmp_path: Path) -> None:
    def chain(url: str, path: Path) -> gp.Pipe[pystac.Item]:
        return gp.search(url, bbox=land.bbox).freeze(path)

    with serve(land.items) as api:
        fresh = chain(api.url, tmp_path / "scenes.parquet")
        assert not (tmp_path / "scenes.parquet").exists()
        found = [item.to_dict() for item in fresh]
    replayed = chain(api.url, tmp_path / "scenes.parquet")
    assert [item.to_dict() for item in replayed] == found
    assert len(replayed.stack(["red"], resolution=10, crs="utm").chip(48)) > 0
    other = gp.search(api.url, bbox=land.bbox, max_items=1).freeze(tmp_path / "scenes.parquet")
    with pytest.raises(FreezeError, match="max_items"):
        len(other)


def test_modifiers_act_when_reading_and_survive_a_frozen_search(land: Synthetic, tmp_path: Path) -> None:
    def chain() -> gp.Pipe[pystac.Item]:
        unsigned = [_moved(item) for item in land.items]
        return gp.items(unsigned, modifier=_signed).freeze(tmp_path / "scenes.json")

    for _ in range(2):
        pipe = chain()
        assert all(item.assets["red"].href.endswith(".unsigned") for item in pipe)
        chip = next(iter(pipe.stack(["red"], resolution=10, crs="utm").chip(48).read()))
        assert chip["valid"].values.any()


def _moved(item: pystac.Item) -> pystac.Item:
    copy = item.clone()
    for asset in copy.assets.values():
        asset.href += ".unsigned"
    return copy


def _signed(item: pystac.Item) -> None:
    for asset in item.assets.values():
        asset.href = asset.href.removesuffix(".unsigned")


# Reading.


def test_a_planned_chip_is_what_is_read(land: Synthetic) -> None:
    plan = gp.items(land.items).stack(["red", "scl"], resolution=10, crs="utm").chip(48, overlap=8, margin=2)
    plan = plan.shuffle(seed=5).map(_with_sum)
    for i, chip in enumerate(plan.read(threads=3)):
        xr.testing.assert_identical(plan[i].load(), chip)
    assert int(plan[-1]["chip"]) == int(chip["chip"])


def _with_sum(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.assign(total=dataset["red"].sum("time"))


def test_threads_change_neither_pixels_nor_order(land: Synthetic) -> None:
    plan = gp.items(land.items).stack(["red"], resolution=10, crs="utm").chip(48).shuffle(seed=2)
    one, four = list(plan.read(threads=1)), list(plan.read(threads=4))
    for a, b in zip(one, four, strict=True):
        xr.testing.assert_identical(a, b)


def test_leaving_a_run_leaves_no_thread_behind(land: Synthetic) -> None:
    import threading

    run = iter(samples(land))
    next(run)
    assert any(thread.name.startswith("geopipes-read") for thread in threading.enumerate())
    run.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("geopipes-read") for thread in threading.enumerate())


# Loaders.


def ids(batches: Any) -> list[list[int]]:
    return [batch["chip"].tolist() for batch in batches]


def test_batches_of_samples(land: Synthetic) -> None:
    pipe = samples(land)
    batch = next(iter(pipe.batch(4)))
    assert batch["image"].shape == (4, 2, 2, 48, 48)
    assert batch["image"].dtype == torch.uint16
    assert batch["image_valid"].shape == (4, 2, 48, 48)
    assert batch["label"].shape == (4, 48, 48)
    assert batch["bounds"].shape == (4, 4)
    assert len(list(pipe.batch(4))) == len(pipe.batch(4))


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "spawn"), (2, "forkserver")])
def test_dataloader_gives_every_batch_once(land: Synthetic, workers: int, context: str | None) -> None:
    pipe = samples(land).filter(mostly_clear).batch(3)
    delivered, expected = ids(loader(pipe, workers, context)), ids(pipe)
    assert sorted(delivered) == sorted(expected)
    if workers == 0:
        assert delivered == expected


def test_dataloader_takes_the_first_samples_once(land: Synthetic) -> None:
    pipe = samples(land).take(5)
    taken = [sample["chip"] for sample in loader(pipe, 2, "forkserver")]
    assert taken == [sample["chip"] for sample in pipe]


def loader(pipe: gp.Pipe[Any], workers: int, context: str | None) -> DataLoader[Any]:
    return DataLoader(pipe, batch_size=None, num_workers=workers, multiprocessing_context=context)  # type: ignore[arg-type]


def test_torchdata_nodes(land: Synthetic) -> None:
    from torchdata.nodes import IterableWrapper, Loader, ParallelMapper

    pipe = samples(land).batch(4)
    node = ParallelMapper(
        IterableWrapper(pipe), map_fn=lambda batch: batch["chip"].tolist(), num_workers=2, method="thread"
    )
    loader: Iterator[list[int]] = Loader(node)
    assert list(loader) == ids(pipe)


def test_inputs_side_by_side(land: Synthetic) -> None:
    items = gp.items(land.items).filter(lambda item: "14T" in item.id)
    both = gp.inputs(
        ten=items.stack(["red", "nir"], resolution=10, groupby="solar_day"),
        twenty=items.take(1).stack(["scl"], resolution=20),
    )
    cube = next(iter(both))
    assert {name: dict(ds.sizes) for name, ds in cube.items()} == {
        "ten": {"time": 2, "y": cube["ten"].sizes["y"], "x": cube["ten"].sizes["x"]},
        "twenty": {"time": 1, "y": cube["ten"].sizes["y"] // 2, "x": cube["ten"].sizes["x"] // 2},
    }
    plan = both.chip(32, margin=2)
    for i, chip in enumerate(plan.read()):
        assert float(chip["ten"].x[0]) + 5 == float(chip["twenty"].x[0])
        assert chip["twenty"].sizes["y"] == 18
        for name in chip:
            xr.testing.assert_identical(plan[i][name].load(), chip[name])
    sample = next(iter(plan.read().tensor(ten=["red", "nir"], twenty="scl", fill=0)))
    assert sample["ten"].shape == (2, 2, 32, 32)
    assert sample["twenty"].shape == (1, 16, 16)
    mapped = both.map(_clear)
    np.testing.assert_array_equal(
        next(iter(mapped))["twenty"]["clear"].values[:, 3:9, 5:7],
        next(iter(mapped))["twenty"]["clear"].isel(y=slice(3, 9), x=slice(5, 7)).values,
    )


def _clear(element: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    scl = element["twenty"]
    return element | {"twenty": scl.assign(clear=scl["scl"] < 8)}
