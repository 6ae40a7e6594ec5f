"""What mypy must know of a chain: which element stands after each step. Checked by mypy, and run for its names."""

from __future__ import annotations

from typing import Any, assert_type

import pystac
import pytest
import xarray as xr

import geopipes as gp


def mean(dataset: xr.Dataset) -> float:
    return float(dataset["red"].mean())


def test_elements_along_the_chain() -> None:
    items = gp.search("http://127.0.0.1:9", collections=["a"])
    assert_type(items, gp.Pipe[pystac.Item])
    assert_type(items.filter(bool).take(3), gp.Pipe[pystac.Item])
    cubes = items.stack(["red"])
    assert_type(cubes, gp.Pipe[xr.Dataset])
    assert_type(cubes.scale("red", factor=1e-4), gp.Pipe[xr.Dataset])
    plan = cubes.chip(64)
    assert_type(plan, gp.Plan[xr.Dataset])
    assert_type(plan.scale("red", factor=1e-4), gp.Plan[xr.Dataset])
    assert_type(cubes.mask_clouds("scl", dilate=2).spectral_index("NDVI"), gp.Pipe[xr.Dataset])
    assert_type(plan.mask(lambda chip: chip["red"] > 1).slope("dem"), gp.Plan[xr.Dataset])
    assert_type(cubes.composite("month", "median").fill_gaps("linear"), gp.Pipe[xr.Dataset])
    assert_type(plan.composite("14D", "max", by="NDVI").interpolate("10D", "linear"), gp.Plan[xr.Dataset])
    assert_type(plan.shuffle(seed=0).split((0.5, 0.5), block=100, seed=0), tuple[gp.Plan[xr.Dataset], ...])
    assert_type(plan.read(), gp.Pipe[xr.Dataset])
    assert_type(plan.read().map(mean), gp.Pipe[float])
    assert_type(plan.read().tensor(image=["red"], fill=0), gp.Pipe[dict[str, Any]])
    both = gp.inputs(a=cubes, b=cubes)
    assert_type(both, gp.Pipe[dict[str, xr.Dataset]])
    assert_type(both.chip(64), gp.Plan[dict[str, xr.Dataset]])
    assert_type(both.chip(64).match_dates({"s1": "3D"}, to="s2"), gp.Plan[dict[str, xr.Dataset]])


def test_what_mypy_refuses() -> None:
    """An ignore that mypy would not need is an error to it: these lines are refused."""
    cubes = gp.search("http://127.0.0.1:9", collections=["a"]).stack(["red"])
    with pytest.raises(gp.GeopipesError, match="works on items"):
        cubes.chip(64).read().stack(["red"])  # type: ignore[misc]
    with pytest.raises(AttributeError):
        cubes.shuffle(seed=0)  # type: ignore[attr-defined]
