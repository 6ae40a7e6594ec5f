"""The package as a whole: light at the door, honest about its names, methods equal to their functions."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import geopipes
from geopipes import (
    catalogs,
    chips,
    composites,
    datacubes,
    labels,
    maps,
    normalizing,
    orders,
    pixels,
    scores,
    statistics,
    tensors,
)
from geopipes.pipe.maps import Map
from geopipes.read import stores

ROOT = Path(geopipes.__file__).parent


def test_import_is_light() -> None:
    code = "import sys, geopipes; print(*sorted({'torch', 'rasterio', 'dask', 'geopandas'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == ""


def test_building_a_chain_loads_no_torch_before_tensor() -> None:
    code = (
        "import sys, geopipes as gp\n"
        "pipe = gp.search('http://127.0.0.1:9', collections=['a']).stack(['red']).chip(8).shuffle(seed=0).read()\n"
        "print(pipe, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("False")


def test_public_names_are_there_and_documented() -> None:
    for name in geopipes.__all__:
        assert inspect.getdoc(getattr(geopipes, name)), name
    assert sorted(geopipes.__all__, key=lambda n: (n.islower(), n)) == list(geopipes.__all__)


PAIRS: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
    (geopipes.search, catalogs.search),
    (geopipes.items, catalogs.items),
    (geopipes.rasters, catalogs.rasters),
    (geopipes.vectors, catalogs.vectors),
    (geopipes.cubes, datacubes.from_xarray),
    (geopipes.Pipe.stack, datacubes.stack),
    (geopipes.Pipe.stack_each, datacubes.stack_each),
    (geopipes.Pipe.join, datacubes.join),
    *((getattr(geopipes.Pipe, name), getattr(labels, name)) for name in ("boxes", "rasterize", "remap")),
    (geopipes.Pipe.reproject, datacubes.reproject),
    (geopipes.Pipe.chip, chips.chip),
    *(
        (getattr(geopipes.Pipe, name), getattr(pixels, name))
        for name in (
            "aspect",
            "hillshade",
            "mask",
            "mask_clouds",
            "mask_values",
            "normalized_difference",
            "scale",
            "slope",
            "spectral_index",
            "to_decibel",
        )
    ),
    *((getattr(geopipes.Pipe, name), getattr(composites, name)) for name in ("composite", "fill_gaps", "interpolate")),
    (geopipes.Pipe.tensor, tensors.tensor),
    (geopipes.Pipe.normalize, normalizing.normalize),
    (geopipes.Pipe.statistics, statistics.statistics),
    *((getattr(geopipes.Pipe, name), getattr(chips, name)) for name in ("draw", "inside", "around", "at")),
    *(
        (getattr(geopipes.Plan, name), getattr(chips, name))
        for name in (
            "assign",
            "away",
            "by_scene",
            "explore",
            "match_dates",
            "measure",
            "pairs",
            "plot",
            "query",
            "sample",
            "scene_labels",
            "sequences",
            "settle",
            "stratify",
            "table",
            "triplets",
        )
    ),
    *(
        (getattr(geopipes.Plan, name), getattr(orders, name))
        for name in ("kfold", "split_by_column", "split_by_polygon", "split_by_time")
    ),
    (geopipes.audit, orders.audit),
    (geopipes.storage, stores.storage),
    (geopipes.mix, chips.mix),
    (geopipes.seek, chips.seek),
    (geopipes.Plan.split, orders.split),
    (geopipes.Plan.shuffle, orders.shuffle),
    (geopipes.Pipe.scores, scores.scores),
    (geopipes.Pipe.stratified_sample, scores.stratified_sample),
    (geopipes.Pipe.polygonize, maps.polygonize),
    (geopipes.Pipe.stac_item, maps.stac_item),
    (Map.load, maps.load),
    (Map.write, maps.write),
]


@pytest.mark.parametrize(("method", "function"), PAIRS, ids=lambda f: f.__qualname__)
def test_a_method_equals_its_function(method: Callable[..., Any], function: Callable[..., Any]) -> None:
    ours, theirs = (list(inspect.signature(f).parameters.values()) for f in (method, function))
    if "." in method.__qualname__:  # self stands where the function has its element
        several = theirs[0].kind is inspect.Parameter.VAR_POSITIONAL  # of which self is one
        ours, theirs = ours[1:], theirs if several else theirs[1:]
    assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs]


@pytest.mark.parametrize(("name", "before"), [("predict", 0), ("stitch", 2)])
def test_verbs_of_maps_equal_their_functions(name: str, before: int) -> None:
    """What they take of the chain stands before their options: nothing, or a source and what happens to it."""
    ours = [*inspect.signature(getattr(geopipes.Pipe, name)).parameters.values()][1:]
    theirs = [*inspect.signature(getattr(maps, name)).parameters.values()][before:]
    assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs]


def test_imports_point_one_way() -> None:
    """A module knows those before it on the way of the data, never those after; `pipe` alone knows them all."""
    way = [
        "errors",
        "spelling",
        "kinds",
        "steps",
        "threads",
        "progress",
        "read",
        "grids",
        "catalogs",
        "datacubes",
        "labels",
        "fingerprints",
        "chips",
        "orders",
        "pixels",
        "composites",
        "normalizing",
        "tensors",
        "loaders",
        "forecasts",
        "statistics",
        "maps",
        "scores",
        "pipe",
    ]
    typing = {"errors": {"read"}, "fingerprints": {"chips"}, "normalizing": {"statistics"}}  # for annotations alone
    allowed = {"catalogs": {"read"}, "loaders": {"tensors"}, **typing}
    for path in ROOT.rglob("*.py"):
        module = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if module not in way:
            continue
        text = path.read_text()
        for other in way[way.index(module) + 1 :]:
            if other not in allowed.get(module, set()):
                assert f"geopipes.{other}" not in _imports(text), f"{path} imports geopipes.{other}"


def _imports(text: str) -> str:
    return "\n".join(
        line for line in text.splitlines() if line.lstrip().startswith(("from geopipes", "import geopipes"))
    )


def test_typed() -> None:
    assert (ROOT / "py.typed").exists()
