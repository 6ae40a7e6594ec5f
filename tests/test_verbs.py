"""The verbs that choose chips, as methods: each is its function, prints as it is typed, and goes on to tensors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from odc.geo.geobox import GeoBox

import geopipes as gp
from geopipes import chips, datacubes, orders
from geopipes.chips import Windows
from geopipes.chips.groups import Groups, Sequences
from geopipes.errors import ChipError, GeopipesError
from geopipes.testing import Synthetic, serve

Names = dict[str, Any]


@pytest.fixture(scope="module")
def names(land: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> Names:
    """Give what the calls below speak of: cubes and plans, and places inside, between and far away."""
    items = gp.items(land.items)
    options: dict[str, Any] = {"crs": "utm", "groupby": "solar_day"}
    cubes = items.stack(["red", "scl"], resolution=10, **options).join(gp.rasters(land.label), name="crop", nodata=255)
    plan = cubes.chip(16, time=1)
    middles = [shapely.Point(x, 41.4) for x in (-96.004, -95.996)]
    spots = gpd.GeoDataFrame({"kind": ["a", "b"]}, geometry=middles, crs=4326)
    return {
        "cubes": cubes,
        "pair": gp.inputs(
            fine=items.stack(["red"], resolution=10, crs=32614), coarse=items.stack(["scl"], resolution=20, crs=32614)
        ),
        "plan": plan.assign(score=np.arange(len(plan)) / len(plan), kind=np.arange(len(plan)) % 3),
        "empty": plan[:0],
        "labels": gp.rasters(land.label).stack({"crop": "data"}, resolution=20, crs=32614),
        "spots": spots,
        "fields": spots.set_geometry(spots.to_crs(32614).buffer(300).to_crs(4326)),
        "far": gpd.GeoDataFrame({"set": ["x"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326),
        "unplaced": gpd.GeoSeries([shapely.Point(-96, 41.4)]),
        "windows": pd.DataFrame({"cube": [0, 1], "row": [8, 16], "col": [24, 0]}),
        "folder": tmp_path_factory.mktemp("verbs"),
        "np": np,
        "pd": pd,
    }


# Each is its function.

CALLS = [
    ("cubes", "chip", "16, overlap=4, margin=2, time=1"),
    ("cubes", "draw", "16, seed=1, n=30, margin=2, time=1"),
    ("cubes", "inside", "fields, 16, seed=1, n=30, time=1"),
    ("cubes", "around", "spots, 16, time=1"),
    ("cubes", "at", "windows, 16"),
    ("plan", "sample", "20, seed=1, weights='score'"),
    ("plan", "stratify", "21, by='kind', shares='equal', seed=1"),
    ("plan", "away", "spots, 300, within=900"),
    ("plan", "by_scene", "8, seed=1"),
    ("plan", "triplets", "near=200, far=600, seed=1"),
    ("plan", "pairs", "seed=1, gap=(20, 50)"),
    ("plan", "sequences", "2, kind='random', seed=1"),
    ("plan", "settle", ""),
    ("plan", "query", "'score > 0.5 and kind == 1'"),
    ("plan", "assign", "run=7"),
    ("plan", "measure", "folder / 'm.parquet', valid=True, share='crop'"),
    ("plan", "shuffle", "1, lanes=4"),
]


def same(one: Windows, other: Windows) -> None:
    assert type(one) is type(other)
    for name in ("size", "margin", "dates", "left_out"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("ids", "cube", "time", "row", "col"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert [*one.columns] == [*other.columns]
    for name, column in one.columns.items():
        np.testing.assert_array_equal(column, other.columns[name])
    if isinstance(one, Sequences) and isinstance(other, Sequences):
        np.testing.assert_array_equal(one.when, other.when)
    if isinstance(one, Groups) and isinstance(other, Groups):
        for name in one.members:
            same(one.members[name], other.members[name])


@pytest.mark.parametrize(("source", "verb", "arguments"), CALLS, ids=[verb for _, verb, _ in CALLS])
def test_a_verb_is_its_function_and_goes_on_to_batches(names: Names, source: str, verb: str, arguments: str) -> None:
    value = names[source]._value.get()
    before = str(names[source])
    plan = eval(f"{source}.{verb}({arguments})", names)
    module = orders if verb == "shuffle" else chips
    windows = eval(f"function(value, {arguments})", names | {"function": getattr(module, verb), "value": value})
    assert type(plan) is gp.Plan
    assert str(names[source]) == before
    printed = str(plan).splitlines()[-1].strip()
    assert printed.startswith(f".{verb}(")
    if not {"fields", "spots", "windows", "folder"} & {*arguments.replace(",", " ").split()}:
        assert printed == f".{verb}({arguments})"
    same(plan._value.get(), windows)
    assert len(plan) == len(windows) > 0
    assert f".{verb}({arguments})"[:20] in str(plan) or printed != f".{verb}({arguments})"
    same(pickle.loads(pickle.dumps(plan))._value.get(), windows)
    tensors = {"anchor": ["red"]} if isinstance(windows, chips.Groups) else {"image": ["red"], "label": "crop"}
    batch = next(iter(plan[:4].read(threads=2).tensor(fill=0, columns=[*windows.columns], **tensors).batch(4)))
    np.testing.assert_array_equal(batch["chip"], windows.ids[:4])
    for name, column in windows.columns.items():
        assert [*batch[name]] == [*column[:4].tolist()]


def test_splits_are_their_functions(names: Names) -> None:
    plan = names["plan"]
    halves = names["fields"].assign(set=["west", "east"])
    windows = plan._value.get()
    calls: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
        ("split", {"block": 300, "buffer": 30, "seed": 1}, ((0.6, 0.4),)),
        ("split_by_time", {"gap": "5D"}, ("2024-06-01",)),
        ("split_by_polygon", {"column": "set"}, (halves,)),
        ("split_by_column", {"buffer": 20}, ("grid_crs",)),
    ]
    for verb, options, arguments in calls:
        parts = getattr(plan, verb)(*arguments, **options)
        wanted = getattr(orders, verb)(windows, *arguments, **options)
        assert type(parts) is type(wanted)
        named = isinstance(parts, dict)
        assert [*parts] == [*wanted] or not named
        for key in parts if named else range(len(parts)):
            same(parts[key]._value.get(), wanted[key])
            assert str(parts[key]).splitlines()[-1].split("  #")[0].strip().endswith(f"[{key!r}]")
            assert f".{verb}(" in str(parts[key])
    pairs = plan.kfold(3, block=300, buffer=30, seed=1)
    for number, (pair, wanted) in enumerate(
        zip(pairs, orders.kfold(windows, 3, block=300, buffer=30, seed=1), strict=True)
    ):
        for which in (0, 1):
            same(pair[which]._value.get(), wanted[which])
            printed = str(pair[which]).splitlines()[-1]
            assert f".kfold(3, block=300, buffer=30, seed=1)[{number}][{which}]" in printed
    assert gp.audit(*parts.values()).equals(orders.audit(*(part._value.get() for part in parts.values())))


def test_mixtures_and_negatives_take_plans(names: Names) -> None:
    plan = names["plan"]
    positive = plan.query("score > 0.9")
    negative = plan.away(positive, 200, within=800)
    same(negative._value.get(), chips.away(plan._value.get(), positive._value.get(), 200, within=800))
    parts, options = {"positive": positive, "negative": negative}, {"shares": {"positive": 0.5, "negative": 0.5}}
    mixed = gp.mix(parts, **options, seed=3, n=20)
    same(mixed._value.get(), chips.mix({k: p._value.get() for k, p in parts.items()}, **options, seed=3, n=20))
    head = f"geopipes.mix({{'positive': {positive._lineage()}, 'negative': {plan._lineage()}.away("
    assert str(mixed).startswith(head)
    assert ".away(geopipes.items(" in str(negative)
    batch = next(iter(mixed.read(threads=2).tensor(image="red", fill=0, columns="source").batch(20)))
    assert batch["source"] == ["positive"] * 10 + ["negative"] * 10


def test_the_table_and_the_picture_of_a_plan(names: Names) -> None:
    plan = names["plan"]
    rows = plan.table(items=True, coverage=True)
    assert rows.equals(chips.table(plan._value.get(), items=True, coverage=True))
    same(plan.query(rows.score > 0.3)._value.get(), plan.query("score > 0.3")._value.get())
    east = gpd.GeoDataFrame({"region": ["east"]}, geometry=[shapely.box(-96, 41, -95, 42)], crs=4326)
    joined = rows.sjoin(east)  # a user's own table
    kept = plan.query(joined.drop(columns="index_right"))
    assert {*kept.table().region} == {"east"}
    assert (kept.table().geometry.bounds.maxx > -96).all()
    ax = plan.query("score > 0.5").plot(plan.query("score < 0.2"), by="kind")
    legend = ax.get_legend()
    assert legend is not None
    assert sum(int(text.get_text().split("(")[1][:-1].replace(",", "")) for text in legend.get_texts()[1:]) == sum(
        (rows.score > 0.5) | (rows.score < 0.2)
    )


def test_labels_alone_are_measured_for_a_plan_of_images(names: Names, tmp_path: Path) -> None:
    zone = names["plan"].query("grid_crs == 'EPSG:32614'")
    measured = zone.measure(tmp_path / "m.parquet", share="crop", on=names["labels"])
    shares = measured.table().filter(like="share_").sum(axis=1)
    assert (shares > 0.99).all()
    assert "on=geopipes.rasters(" in str(measured)


# Points anywhere.


def search(url: str) -> Any:
    return lambda bounds, datetime: gp.search(url, bbox=bounds, datetime=datetime)


def reds(items: Any, geobox: GeoBox) -> Any:
    return items.stack(["red"], geobox=geobox, groupby="solar_day")


def test_each_point_of_the_world_is_searched_for(land: Synthetic) -> None:
    places = [shapely.Point(-96.004, 41.4), shapely.Point(151.2, -33.9), shapely.Point(-95.996, 41.4)]
    points = gpd.GeoDataFrame({"site": ["west", "sydney", "east"]}, geometry=places, crs=4326)
    with serve(land.items) as api:
        sought = gp.seek(points, 16, search(api.url), reds, resolution=10, datetime="2024-05/2024-07")
        assert len(sought) == 3
        assert api.searches == 0
        found = sought.settle()
        assert [*found.table().site] == ["west", "east"]
        assert api.searches == 3
        batch = next(iter(found.read().tensor(image=["red"], fill=0, columns="site").batch(2)))
        assert api.searches == 3
    assert batch["image"].shape == (2, 2, 1, 16, 16)
    assert batch["site"] == ["west", "east"]
    assert batch["crs"] == ["EPSG:32614", "EPSG:32615"]
    assert batch["image_valid"].float().mean() > 0.9


# Errors name the verb.

WRONG: dict[str, list[str]] = {
    "chip": [
        "0",
        "8.5",
        "8, overlap=8",
        "8, overlap=1.5",
        "8, margin=-1",
        "8, edge='x'",
        "8, coverage='x'",
        "8, time=9",
        "9999",
    ],
    "draw": [
        "0, seed=0, n=1",
        "8.5, seed=0, n=1",
        "8, seed=0",
        "8, seed=0, n=0",
        "8, seed=0, n=1, margin=-1",
        "8, seed=0, n=1, coverage='x'",
        "8, seed=0, n=1, time=9",
        "8, seed=0, n=1, units='m'",
        "9999, seed=0, n=1",
        "8, seed=0, n=1, units='crs'",
        "8, seed=0, n=1, region=far",
        "8, seed=0, n=1, region=unplaced",
        "8, seed=0, n=1, period=('2020', '2020')",
        "8, seed=0, n=1, period=('x', 'y')",
        "8, seed=0, density=1e-9",
    ],
    "inside": [
        "far, 8, seed=0, n=1",
        "unplaced, 8, seed=0, n=1",
        "fields, 8.5, seed=0, n=1",
        "3, 8, seed=0, n=1",
        "fields, 0, seed=0, n=1",
        "fields, 8, seed=0",
        "fields, 8, seed=0, n=1, time=9",
        "fields, 9999, seed=0, n=1",
    ],
    "around": [
        "far.assign(geometry=far.representative_point()), 8",
        "far, 8",
        "spots, 8.5",
        "spots, 0",
        "unplaced, 8",
        "spots, 8, margin=-1",
        "spots, 8, time=9",
        "spots, 8, coverage='x'",
        "spots, 8, when='day'",
        "spots, 9999",
        "spots, 8, outside='x'",
    ],
    "at": [
        "far, 8",
        "pd.DataFrame({'a': [1]}), 8",
        "windows.assign(row=0.5), 8",
        "windows.assign(row=9999), 8",
        "windows, 8.5",
        "windows, 0",
        "windows, 8, time=9",
        "fields, 8",
        "fields, 8, coverage='x'",
        "windows.assign(id=1), 8",
    ],
    "sample": [
        "0, seed=0",
        "9999, seed=0",
        "5, seed=0, weights='x'",
        "5, seed=0, weights=-np.ones(len(plan))",
        "5, seed=0, weights=np.zeros(len(plan))",
    ],
    "stratify": [
        "5, by='x', shares='equal', seed=0",
        "0, by='kind', shares='equal', seed=0",
        "5, by='kind', shares=[1, 1], seed=0",
        "9999, by='kind', shares='equal', seed=0",
    ],
    "away": ["far, -1", "far, 5, within=3", "unplaced, 5", "3, 5", "spots, 1e6"],
    "by_scene": ["0, seed=0", "9999, seed=0"],
    "triplets": ["near=5, far=1, seed=0", "near=1, far=2, seed=0", "near=50, far=90, seed=0, n=9999"],
    "pairs": ["seed=0", "seed=0, months=7", "seed=0, gap=(3, 1)", "seed=0, gap=(999, 9999)"],
    "sequences": ["9", "0", "2, kind='x'", "2, kind='random'"],
    "settle": ["threads=0"],
    "query": ["'x > 1'", "np.ones(3, bool)", "'row < 0'"],
    "assign": ["row=1", "a=[1, 2]", "pd.DataFrame({'id': [0], 'a': [1]})"],
    "measure": [
        "'x.csv', valid=True",
        "folder / 'x.parquet'",
        "folder / 'y.parquet', share='nope'",
        "folder / 'z.parquet', distance=unplaced",
    ],
    "split": [
        "(0.5, 0.6), block=100, seed=0",
        "(0.5, 0.5), block=100, buffer=200, seed=0",
        "(0.5, 0.5), block=0, seed=0",
        "(0.2,) * 5, block=1e7, seed=0",
    ],
    "kfold": ["1, block=100, seed=0", "2, block=100, buffer=200, seed=0", "5, block=1e7, seed=0"],
    "split_by_polygon": ["far, column='set'", "far, column='name'", "unplaced, column='set'"],
    "split_by_column": ["'x'", "'kind', buffer=-1", "'kind', names=[0]", "'kind', buffer=1e6"],
    "split_by_time": ["'2030-01-01'", "['2024-06-01', '2024-05-01']", "'2024-06-01', gap=-1"],
    "shuffle": ["0, lanes=0", "0, epoch=-1"],
    "plot": ["by='x'"],
    "explore": ["by='x'"],
}
TOO_FINE = {
    "chip": "9", "draw": "9, seed=0, n=1", "inside": "fields, 9, seed=0, n=1", "around": "spots, 9", "at": "windows, 9",
}  # fmt: skip
"""Windows that would cut a pixel of the coarser of two inputs."""
NOTHING = {
    "sample": "5, seed=0", "stratify": "5, by=[], shares='equal', seed=0", "away": "spots, 5",
    "by_scene": "4, seed=0", "triplets": "near=5, far=9, seed=0", "pairs": "seed=0, months=2", "sequences": "2",
    "query": "'row > 1'", "measure": "folder / 'e.parquet', valid=True", "split": "(0.5, 0.5), block=100, seed=0",
    "kfold": "2, block=100, seed=0", "split_by_polygon": "far, column='set'", "split_by_column": "'kind'",
    "split_by_time": "'2024-06-01'", "plot": "", "explore": "", "statistics": "",
}  # fmt: skip
"""What cannot be asked of a plan without chips."""
ERRORS = [
    *(("cubes" if verb in TOO_FINE else "plan", verb, one) for verb, every in WRONG.items() for one in every),
    *(("pair", verb, one) for verb, one in TOO_FINE.items()),
    *(("empty", verb, one) for verb, one in NOTHING.items()),
]


def forced(found: Any) -> None:
    """Work out what a verb gave, of several plans the first."""
    while isinstance(found, dict | tuple):
        found = next(iter(found.values() if isinstance(found, dict) else found))
    len(found)


@pytest.mark.parametrize(("source", "verb", "arguments"), ERRORS)
def test_an_error_names_the_verb_that_was_typed(names: Names, source: str, verb: str, arguments: str) -> None:
    with pytest.raises(GeopipesError) as error:
        forced(eval(f"{source}.{verb}({arguments})", names))
    assert str(error.value).startswith((f"{verb}(", f"{verb}:")), error.value


BAD: list[tuple[str, str, str]] = [
    ("split((0.9, 0.1), block=2000, buffer=2000, seed=0)", r"give splits of \[\d+, \d+\] chips", "use smaller blocks"),
    ("split((0.5, 0.5), block=100, buffer=200, seed=0)", "the buffer is wider than a block", "use a smaller buffer"),
    ("kfold(3, block=100, buffer=200, seed=0)", "the buffer is wider than a block", "or larger blocks"),
    ("kfold(40, block=1500, seed=0)", r"\d+ blocks give folds of \[", "use fewer folds or smaller blocks"),
    ("split_by_time('2025-01-01')", r"splits of \[\d+, 0\] chips, of 2024-05-03 to 2024-06-07", "cut within"),
    ("split_by_column('kind', buffer=1e5)", r"give splits of \[0, 0, \d+\] chips", "use a smaller buffer"),
    (
        "split_by_polygon(far, column='set')",
        r"in 0, 0, 1, 1, hold none of the \d+ chips' centres",
        "CRS and place right",
    ),
    ("sample(5, seed=0, weights=-np.ones(len(plan)))", r"of \d+ weights 0 are not finite, \d+ neg", "of 0 and up"),
    ("sample(5, seed=0, weights=np.zeros(len(plan)))", r"of \d+ weights all are 0", "some of them above 0"),
    ("stratify(6, by='kind', shares=[2, -1, 0], seed=0)", r"shares=\[.*2.*-1.*\] for 3 strata", "summing to 1"),
    ("_parent._parent.draw(8, n=5, seed=0, region=far)", "no place for a window: the region misses", "other bounds"),
    ("_parent._parent.inside(far, 8, n=5, seed=0)", "no polygon meets the data", "check their CRS"),
    ("_parent._parent.around(far.representative_point(), 8)", "without a window within the data: 1 of 1", "check"),
]


@pytest.mark.parametrize(("call", "found", "instead"), BAD)
@pytest.mark.filterwarnings("ignore:Geometry is in a geographic CRS")
def test_bad_input_is_told_with_what_to_write_instead(names: Names, call: str, found: str, instead: str) -> None:
    with pytest.raises(ChipError, match=f"(?s){found}.*{instead}"):
        forced(eval(f"plan.{call}", names))


def test_a_region_and_a_time_of_interest(names: Names, land: Synthetic) -> None:
    corner = gpd.GeoSeries([shapely.box(-96.01, 41.395, -95.99, 41.405)], crs=4326)
    drawn = names["cubes"].draw(16, n=50, seed=0, region=corner, period=("2024-06", "2024-06"), time=1)
    rows = drawn.table()
    assert corner.iloc[0].buffer(1e-6).covers(shapely.union_all(rows.geometry.to_numpy()))
    assert {*rows.start.dt.strftime("%Y-%m")} == {"2024-06"}
    grid = names["plan"].query(names["plan"].table().within(corner.iloc[0])).query("start >= '2024-06'")
    assert 0 < len(grid) < len(names["plan"]) / 2
    assert grid.table().within(corner.iloc[0]).all()


def test_seek_and_mix_name_themselves_too(names: Names) -> None:
    plan, spots = names["plan"], names["spots"]
    sizes: list[tuple[Any, Any]] = [(spots, 8.5), (names["far"], 8)]
    for points, size in sizes:
        with pytest.raises(ChipError, match=r"^seek\("):
            len(gp.seek(points, size, search(""), reds, resolution=10))
    for shares in ({"a": 1.0}, {"a": 0.5, "b": 0.6}):
        with pytest.raises(ChipError, match=r"^mix\("):
            len(gp.mix({"a": plan, "b": plan}, shares=shares, seed=0))
    with pytest.raises(ChipError, match=r"^audit: "):
        gp.audit(plan)


def test_a_stack_for_each_point_must_lie_on_its_grid(land: Synthetic) -> None:
    """One that is not a cube on the grid that was given."""
    point = gpd.GeoSeries([shapely.Point(-96.004, 41.4)], crs=4326)
    elsewhere = datacubes.stack([*land.items], ["red"], resolution=10, crs=32615)
    plan = gp.seek(point, 8, lambda bounds, datetime: [*land.items], lambda items, geobox: elsewhere, resolution=10)
    with pytest.raises(ChipError, match=r"^seek\(stack=...\): one cube on the grid given"):
        next(iter(plan.read()))
