"""Fingerprints: equal where the pixels are, different where anything that decides them is, the same in any process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import xarray as xr

import geopipes as gp
from geopipes import fingerprints
from geopipes.chips import Windows
from geopipes.datacubes.cube import Cubes
from geopipes.errors import SourceError, StepError
from geopipes.steps import Step
from geopipes.testing import Synthetic

Cubed = gp.Pipe[xr.Dataset]


def windows(plan: gp.Pipe[Any]) -> Windows:
    value: Windows = plan._value.get()
    return value


def stacked(land: Synthetic, bands: Any = ("red", "scl"), **options: Any) -> Cubed:
    chosen: dict[str, Any] = {"resolution": 10, "crs": "utm"} | options
    return gp.items(land.items).stack(list(bands), **chosen)


def planned(land: Synthetic) -> gp.Plan[xr.Dataset]:
    return stacked(land).scale("red", factor=1e-4).chip(64).mask_values("scl", [3, 8])


def same(dataset: xr.Dataset) -> xr.Dataset:
    """Give it back: a user's own step."""
    return dataset


@dataclass(frozen=True)
class Shift:
    """A user's own step with a number."""

    by: float

    def __call__(self, dataset: xr.Dataset) -> xr.Dataset:
        return dataset.assign(red=dataset["red"] + self.by)

    def apply(self, dataset: xr.Dataset) -> xr.Dataset:
        return self(dataset)


OTHERS: dict[str, tuple[Callable[[Synthetic], gp.Pipe[Any]], str]] = {
    "size": (
        lambda land: stacked(land).scale("red", factor=1e-4).chip(32).mask_values("scl", [3, 8]),
        r"size \[64, 64\] -> \[32, 32\]",
    ),
    "margin": (
        lambda land: stacked(land).scale("red", factor=1e-4).chip(64, margin=2).mask_values("scl", [3, 8]),
        "margin 0 -> 2",
    ),
    "dates": (
        lambda land: stacked(land).scale("red", factor=1e-4).chip(64, time=1).mask_values("scl", [3, 8]),
        "dates null -> 1",
    ),
    "a step of the plan": (
        lambda land: stacked(land).scale("red", factor=1e-4).chip(64).mask_values("scl", [3, 9]),
        r"step 1: mask_values\('scl', \[3, 8\]\) -> mask_values\('scl', \[3, 9\]\)",
    ),
    "a step more": (lambda land: planned(land).map(same), r"step 2: nothing -> map\(same\)"),
    "a step of the cube": (
        lambda land: stacked(land).scale("red", factor=1e-3).chip(64).mask_values("scl", [3, 8]),
        r"cube 1: step scale\('red', factor=0.0001\) -> scale\('red', factor=0.001\)",
    ),
    "the bands": (
        lambda land: stacked(land, ["red", "scl", "nir"]).scale("red", factor=1e-4).chip(64).mask_values("scl", [3, 8]),
        "cube 1: base variable 3: nothing -> .*nir",
    ),
    "resampling": (
        lambda land: (
            stacked(land, resampling={"scl": "mode", "*": "nearest"})
            .scale("red", factor=1e-4)
            .chip(64)
            .mask_values("scl", [3, 8])
        ),
        'variable 2: resampling "nearest" -> "mode"',
    ),
    "the grid": (
        lambda land: stacked(land, resolution=20).scale("red", factor=1e-4).chip(64).mask_values("scl", [3, 8]),
        r"grid affine \[10.0",
    ),
    "the order": (lambda land: planned(land).shuffle(0), "chips sha256"),
    "fewer": (lambda land: planned(land).take(3), "chips count 12 -> 3"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_decides_the_pixels_is_told_apart_and_named(land: Synthetic, name: str) -> None:
    make, words = OTHERS[name]
    one, again, other = (windows(pipe) for pipe in (planned(land), planned(land), make(land)))
    assert fingerprints.fingerprint(one) == fingerprints.fingerprint(again)
    assert fingerprints.fingerprint(one) != fingerprints.fingerprint(other)
    found = fingerprints.differences(fingerprints.describe(one), fingerprints.describe(other))
    assert any(re.search(words, line) for line in found), found
    assert fingerprints.differences(fingerprints.describe(one), fingerprints.describe(again)) == []
    chosen = name in ("the order", "fewer")
    assert (fingerprints.fingerprint(one, chips=False) == fingerprints.fingerprint(other, chips=False)) is chosen


def test_the_same_in_another_process(land: Synthetic) -> None:
    folder = land.label.parent
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import geopipes as gp
from geopipes import fingerprints
from geopipes.testing import synthetic_scenes
from test_fingerprints import stacked
land = synthetic_scenes({str(folder)!r}, dates=("2024-05-03", "2024-06-07"), size=192)
plan = stacked(land).chip(64).map(lambda d: d.where(d["red"].isin([1, 2]) | (d["scl"] in {{"a", "b", "c"}})))
print(fingerprints.fingerprint(plan._value.get()))
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": s},
        )
        for s in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64


def prepared(pipe: Any) -> Any:
    return pipe.mask_values("scl", [3, 8]).scale("red", factor=1e-4)


def chain(pipe: gp.Pipe[Any]) -> fingerprints.Document:
    value = pipe._value.get()
    after = [op.step for op in pipe._ops]  # type: ignore[attr-defined]  # one-to-one steps alone stand here
    return fingerprints.chain(getattr(value, "windows", value), after)


@pytest.mark.parametrize("engine", ["window", "odc"])
def test_a_chain_of_steps_is_the_same_wherever_it_stands(land: Synthetic, engine: Any) -> None:
    stack = stacked(land, engine=engine)
    chains = [
        chain(prepared(stack)),
        chain(prepared(stack).chip(64)),
        chain(prepared(stack.chip(32, margin=4)).shuffle(1).take(5)),
        chain(prepared(stack.chip(64).read())),
        chain(stack.mask_values("scl", [3, 8]).chip(64).read().scale("red", factor=1e-4)),
    ]
    assert all(found == chains[0] for found in chains)
    assert [step["text"] for step in chains[0]["steps"]] == [
        "mask_values('scl', [3, 8])",
        "scale('red', factor=0.0001)",
    ]
    assert chains[0]["variables"] == {"red": "uint16", "scl": "uint8"}


def test_a_chain_knows_joins_inputs_and_unions(land: Synthetic) -> None:
    labels = gp.rasters(land.label)
    joined = chain(stacked(land).scale("red", factor=1.0).join(labels, name="crop"))
    assert joined["variables"] == {"crop": "uint8", "red": "uint16", "scl": "uint8"}
    assert joined["steps"] == chain(stacked(land).scale("red", factor=1.0))["steps"]
    both = chain(gp.inputs(a=stacked(land).scale("red", factor=1.0), b=stacked(land)))
    assert set(both["variables"]) == {"a/red", "a/scl", "b/red", "b/scl"}
    assert [step["text"] for step in both["steps"][0]["inputs"]["a"]] == ["scale('red', factor=1.0)"]
    one, other = stacked(land).scale("red", factor=1.0), stacked(land)
    assert chain(one.union(other)) == chain(other.union(one)) != chain(one)
    assert len(chain(one.union(other))["steps"][0]["either"]) == 2


def step(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    return fingerprints.steps_fingerprint(None, [Step("a step", function, args, kwargs)])


def test_functions_are_told_by_name_or_by_code() -> None:
    def closing(number: float) -> Callable[[Any], Any]:
        return lambda dataset: dataset + number

    assert step(same) == step(same)
    assert step(closing(1)) == step(closing(1)) != step(closing(2))
    assert step(lambda d: d + 1) != step(lambda d: d + 2)
    assert step(lambda d: d.a) != step(lambda d: d.b)
    assert step(partial(np.add, 1)) != step(partial(np.add, 2))
    assert step(Shift(1)) == step(Shift(1)) != step(Shift(2))
    assert step(Shift(1).apply) != step(Shift(2).apply)
    assert step(np.add) != step(np.subtract)
    assert step(len) != step(abs)


VALUES: list[Any] = [
    None, True, 1, 2.5, float("nan"), float("inf"), "a", b"a", ["a"], {"a": 1}, {1: "a"}, {"a", "b"}, slice(1, 2),
    np.float32(0.1), np.datetime64("2024-01-01"), np.arange(3), np.arange(3.0), np.dtype("u1"), Path("a"),
    shapely.Point(1, 2), shapely.Point(1, 2.0000001), Shift(1.0), xr.DataArray([1, 2]), xr.Dataset({"a": 1}), same, int,
]  # fmt: skip


def test_arguments_are_told_apart() -> None:
    prints = [step(same, value) for value in VALUES]
    assert len(set(prints)) == len(VALUES)
    assert prints == [step(same, value) for value in VALUES]
    assert step(same, ["a", "b"]) == step(same, ("a", "b"))
    assert step(same, np.arange(4)[::2]) == step(same, np.array([0, 2], ">i8").astype(">i8").astype("<i8"))
    with pytest.raises(StepError, match="generator cannot be told from another one"):
        step(same, (i for i in range(3)))


def test_signed_hrefs_and_defaults_do_not_count(land: Synthetic) -> None:
    from geopipes.read.hrefs import unsigned

    assert unsigned("https://a/b.tif?st=1&sig=2") == "https://a/b.tif"
    assert unsigned("https://a/b.tif?X-Amz-Signature=2") == "https://a/b.tif"
    assert unsigned("https://a/tile?url=b.tif") == "https://a/tile?url=b.tif"
    typed = stacked(land).scale("red", factor=1.0, offset=0.0).chip(64)
    assert fingerprints.fingerprint(windows(typed)) == fingerprints.fingerprint(
        windows(stacked(land).scale("red", factor=1.0).chip(64))
    )


def test_arrays_from_elsewhere(land: Synthetic, tmp_path: Path) -> None:
    """In memory by their values, from a file by its name, on dask by their graph."""
    loaded = next(iter(stacked(land).take(4))).load().drop_encoding()
    changed = loaded.copy(deep=True)
    changed["red"].values[0, 0, 0] += 1

    def printed(*sources: Any, **options: Any) -> set[str]:
        return {fingerprints.fingerprint(windows(gp.cubes(source, **options).chip(64))) for source in sources}

    assert len(printed(loaded, loaded.copy(deep=True))) == 1
    assert len(printed(loaded, changed)) == 2
    assert len(printed(loaded.chunk(), loaded.chunk(), changed.chunk())) == 2
    for name in ("a", "b"):
        loaded[["red"]].drop_vars("time").isel(time=0).to_netcdf(tmp_path / f"{name}.nc")
    assert len(printed(tmp_path / "a.nc", tmp_path / "a.nc", tmp_path / "b.nc")) == 2
    odc = stacked(land, engine="odc")
    assert len({fingerprints.fingerprint(windows(odc.scale("red", factor=f).chip(64))) for f in (1.0, 1.0, 2.0)}) == 2
    lazy = next(iter(stacked(land)))
    with pytest.raises(SourceError, match="is lazy and names no file"):
        printed(lazy)
    grid = lazy.odc.geobox.zoom_out(2)
    coarse = [gp.cubes(loaded).reproject(grid, resampling=how).chip(32) for how in ("nearest", "bilinear")]
    assert len({fingerprints.fingerprint(windows(plan)) for plan in coarse}) == 2


def test_many_cubes_are_one_value() -> None:
    assert fingerprints.chain(Cubes([])) == fingerprints.chain(None)
