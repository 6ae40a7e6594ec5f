"""Labels from files, read by window: every format the same, indexes used, content told apart; items; real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import shapely
from label_making import cubes, frame, grid, mask, put_together
from pyproj import Transformer

import geopipes as gp
from geopipes.datacubes.cube import Window
from geopipes.errors import CatalogError, SourceError, UnknownBand
from geopipes.fingerprints import describe, digest, fingerprint
from geopipes.labels.opening import label_asset, opened
from geopipes.labels.rowgroups import RowGroups
from geopipes.labels.sources import IndexedFile, Loaded
from geopipes.steps import Step
from geopipes.tensors import tensor
from geopipes.tensors.rows import FreshRows
from geopipes.tensors.straight import sampler
from geopipes.testing import Synthetic, synthetic_town

FORMATS = ["gpkg", "fgb", "shp", "geojson", "parquet", "groups.parquet"]


def fields(n: int = 300, seed: int = 0) -> gpd.GeoDataFrame:
    """Discs of three kinds on the grid's ground; where they overlap, the smaller weight is hidden."""
    rng = np.random.default_rng(seed)
    discs = shapely.buffer(shapely.points(rng.uniform(0, 60, (n, 2))), rng.uniform(0.5, 3, n))
    return frame(discs, kind=rng.choice(["a", "b", "c"], n), weight=rng.permutation(n))


def written(features: gpd.GeoDataFrame, folder: Path, name: str) -> Path:
    path = folder / f"fields.{name}"
    if name.endswith("parquet"):
        rows = {"row_group_size": 50} if name.startswith("groups") else {}
        features.to_parquet(path, write_covering_bbox=True, **rows)
    elif name == "geojson":
        features.to_crs(4326).to_file(path, engine="pyogrio", COORDINATE_PRECISION=15)
    else:
        features.to_file(path, engine="pyogrio")
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_mask(tmp_path: Path, name: str) -> None:
    features = fields()
    options: dict[str, Any] = {"name": "label", "column": "kind", "background": 0, "priority": "weight"}
    expected = mask(cubes(grid()).rasterize(features, **options))
    path = written(features, tmp_path, name)
    burnt = cubes(grid()).rasterize(path, **options)
    found = mask(burnt)
    assert (found.values != expected.values).mean() < (0.005 if name == "geojson" else 1e-9)  # there and back again
    assert found.attrs == expected.attrs
    np.testing.assert_array_equal(put_together(burnt, 23, edge="shift"), found)


def test_each_format_is_read_as_it_can_be(tmp_path: Path) -> None:
    kinds: dict[str, type] = {"gpkg": IndexedFile, "fgb": IndexedFile, "groups.parquet": RowGroups}
    for name in FORMATS:
        vectors = opened(written(fields(), tmp_path, name), ["kind"])
        assert type(vectors) is kinds.get(name, Loaded), name
        if name != "geojson":
            near = vectors.within((499_990.0, 4_999_900.0, 500_100.0, 5_000_010.0))
            ids, values = vectors.table()
            assert 0 < len(near.ids) < 100
            assert [*near.ids] == sorted(near.ids)
            by_id = dict(zip(ids.tolist(), values["kind"], strict=True))
            assert [by_id[number] for number in near.ids.tolist()] == [*near.values["kind"]]
    fields().to_file(tmp_path / "indexed.shp", engine="pyogrio", SPATIAL_INDEX="YES")
    assert type(opened(tmp_path / "indexed.shp", [])) is IndexedFile
    groups = opened(written(fields(), tmp_path, "groups.parquet"), ["kind"])
    assert isinstance(groups, RowGroups)
    assert len(groups.within((0.0, 0.0, 1.0, 1.0)).ids) == 0


def test_a_chip_reads_what_lies_near_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(fields(2000), tmp_path, "gpkg")
    cube = cubes(grid()).rasterize(path, name="label", background=0)._value.get().cubes[0]
    monkeypatch.setattr("geopipes.labels.masks.SIDE", 8)
    read: list[int] = []
    original = IndexedFile.within

    def counted(self: IndexedFile, bounds: Any) -> Any:
        found = original(self, bounds)
        read.append(len(found.ids))
        return found

    monkeypatch.setattr(IndexedFile, "within", counted)
    window = Window(slice(8, 16), slice(8, 16))
    first = cube.read(window)
    assert len(read) == 1
    assert 0 < read[0] < 400
    assert cube.read(window)["label"].equals(first["label"])
    assert len(read) == 1  # the block is there


def test_fingerprints_know_the_content(tmp_path: Path) -> None:
    def told(source: Any, **options: Any) -> str:
        given = {"name": "label", "column": "kind", "background": 0, "overlap": "last", **options}
        return fingerprint(cubes(grid()).rasterize(source, **given).chip(16)._value.get())

    path = written(fields(), tmp_path, "fgb")
    before = told(path)
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "copy.fgb"
    copy.write_bytes(path.read_bytes())
    assert told(copy) == before
    assert len({before, told(path, overlap="first"), told(path, all_touched=True), told(path, background=9)}) == 4
    assert told(written(fields(seed=1), tmp_path, "fgb")) != before
    assert told(fields()) == told(fields()) != told(fields(seed=1))
    plan = cubes(grid()).rasterize(path, name="label", column="kind", background=0, overlap="last").chip(16)
    assert digest(describe(plan._value.get())) == plan_fingerprint(plan)


def plan_fingerprint(plan: gp.Plan[Any]) -> str:
    return fingerprint(plan._value.get())


def test_measured_shares_are_those_of_the_polygons(tmp_path: Path) -> None:
    path = written(frame([shapely.box(0, 0, 16, 8)], kind=["field"]), tmp_path, "gpkg")
    burnt = cubes(grid((32, 48))).rasterize(path, name="crop", column="kind", background=0)
    plan = burnt.chip(16).measure(tmp_path / "shares.parquet", share="crop")
    table = plan.table()
    assert table.share_1.tolist() == [0.5, 0, 0, 0, 0, 0]
    assert len(plan.query("share_1 > 0.1")) == 1
    again = burnt.chip(16).measure(tmp_path / "shares.parquet", share="crop")
    assert again.table().share_1.tolist() == table.share_1.tolist()


def test_layers_are_chosen_and_broken_files_named(tmp_path: Path) -> None:
    path = tmp_path / "two.gpkg"
    fields(20).to_file(path, layer="fields", engine="pyogrio")
    fields(30).to_file(path, layer="roads", engine="pyogrio")
    with pytest.raises(CatalogError, match=r"there are 'fields', 'roads': choose one, layer="):
        opened(path, [])
    assert len(opened(path, [], layer="roads").table()[0]) == 30
    with pytest.raises(CatalogError, match="layer='road'"):
        opened(path, [], layer="road")
    with pytest.raises(UnknownBand, match=r"no column 'kinds'; did you mean 'kind'\?"):
        opened(path, ["kinds"], layer="roads")
    (tmp_path / "bad.gpkg").write_bytes(b"no such thing")
    (tmp_path / "bad.parquet").write_bytes(b"no such thing")
    fields(5).drop(columns="geometry").to_parquet(tmp_path / "table.parquet")
    for name in ("bad.gpkg", "bad.parquet", "table.parquet", "nowhere.gpkg"):
        with pytest.raises(CatalogError, match=name):
            opened(tmp_path / name, [])
    holes = fields(5)
    holes.loc[2, "geometry"] = None
    holes.to_file(tmp_path / "holes.gpkg", engine="pyogrio")
    with pytest.raises(SourceError, match=r"1 of 5 features have no geometry.*ids \[3\]"):
        opened(tmp_path / "holes.gpkg", [])


def label_item(folder: Path, number: int, features: gpd.GeoDataFrame, **properties: Any) -> pystac.Item:
    path = folder / f"labels_{number}.geojson"
    features.to_crs(4326).to_file(path, engine="pyogrio", COORDINATE_PRECISION=15)
    item = pystac.Item(f"tile-{number}", None, None, None, {"start_datetime": None, "end_datetime": None, **properties})
    item.add_asset("labels", pystac.Asset(str(path), media_type="application/geo+json", roles=["labels"]))
    item.add_asset("image", pystac.Asset("nowhere.tif", media_type="image/tiff"))
    return item


def test_label_items_say_their_column_and_classes(tmp_path: Path) -> None:
    states: dict[str, Any] = {
        "label:properties": ["kind"], "label:classes": [{"name": "kind", "classes": ["c", "b", "a"]}],
    }  # fmt: skip
    west, east = (frame([shapely.box(x, 0, x + 8, 8)], kind=[kind]) for x, kind in ((0, "a"), (20, "c")))
    items = [label_item(tmp_path, 0, west, **states), label_item(tmp_path, 1, east, **states)]
    label = mask(cubes(grid()).rasterize(gp.items(items), name="label", background=0))
    assert [*label.values[4, [4, 15, 24]]] == [3, 0, 1]
    assert label.attrs["class_names"] == ["c", "b", "a"]
    assert label.attrs["class_counts"] == [1, 0, 1]
    instances = mask(cubes(grid()).rasterize(items, name="label", background=0, instances=True))
    assert [*np.unique(instances)] == [0, 1, 2]
    two = label_item(tmp_path, 2, west, **{"label:properties": ["kind", "state"]})
    with pytest.raises(UnknownBand, match=r"its label:properties are \['kind', 'state'\]: choose one"):
        mask(cubes(grid()).rasterize([two], name="label", background=0))
    two.add_asset("more-labels", pystac.Asset("x.fgb", media_type="application/flatgeobuf", roles=["labels"]))
    with pytest.raises(CatalogError, match="needed is one asset of vectors"):
        label_asset(two)


@pytest.mark.real
def test_real_label_items_are_read(real_data: Path) -> None:
    folder = real_data / "stac" / "label_extension" / "examples" / "spacenet-roads"
    items = gp.items(folder / "roads_item.json")
    lines = gp.vectors(next(iter(folder.glob("*.geojson")))).to_crs(32631)
    left, _, _, top = lines.total_bounds
    here = grid((130, 130), 3.0, "EPSG:32631")
    here = here.translate_pix((left - here.boundingbox.left) / 3 // 1, (here.boundingbox.top - top) / 3 // 1)
    burnt = cubes(here).rasterize(
        items, name="road", column="road_type", background=0, all_touched=True, overlap="last"
    )
    road = mask(burnt, "road")
    assert road.attrs["class_names"] == ["1", "2", "3", "4", "5", "6"]
    stated = json.loads((folder / "roads_item.json").read_text())["properties"]["label:overviews"][0]["counts"]
    assert road.attrs["class_counts"] == [one["count"] for one in stated]
    assert {5, 6} <= {*np.unique(road.values)} <= {0, 5, 6}
    with pytest.raises(UnknownBand, match="choose one"):
        mask(cubes(here).rasterize(items, name="road", background=0), "road")
    others = gp.items(real_data / "stac" / "label_extension" / "examples" / "multidataset" / "catalog.json")
    assert [label_asset(item) for item in others] == ["labels"] * 5


@pytest.mark.real
def test_real_vector_and_raster_labels_agree(real_data: Path) -> None:
    folder = real_data / "landsat8_elkton"
    image = gp.rasters(folder / "L8-B4-Elkton-VA.tiff").stack({"red": "data"})
    both = image.join(gp.rasters(folder / "L8-Labels-Elkton-VA.tiff"), name="raster", nodata=255).rasterize(
        folder / "L8-Labels-Elkton-VA.geojson", name="vector", column="id", background=255, nodata=255
    )
    for chip in both.chip(64, edge="shift").read():
        np.testing.assert_array_equal(chip["vector"], chip["raster"])


def test_spawned_workers_read_the_same(tmp_path: Path) -> None:
    town = synthetic_town(tmp_path, size=128)
    cubes_ = gp.items(town.items).stack(["red"], groupby="solar_day")
    burnt = cubes_.rasterize(town.buildings, name="label", background=0)
    batches = burnt.chip(32).shuffle(seed=0).read().tensor(image=["red"], label="label", fill=0).batch(4)
    here = [batch["label"].clone() for batch in batches]
    there = [batch["label"].clone() for batch in batches.loader(processes=1)]
    assert all((a == b).all() for a, b in zip(here, there, strict=True))
    label = cubes_.join(gp.rasters(town.label), name="label", nodata=255)
    expected = label.chip(32).shuffle(seed=0).read().tensor(image=["red"], label="label", fill=0).batch(4)
    assert all((a == b["label"]).all() for a, b in zip(here, expected, strict=True))


def test_masks_are_read_straight_into_batches(tmp_path: Path) -> None:
    town = synthetic_town(tmp_path, size=128)
    plan = (
        gp.items(town.items).stack(["red"], groupby="solar_day")
        .rasterize(town.buildings, name="use", column="use", background=0, nodata=255)
        .remap("use", {0: 0, 1: 1, 2: 1, 3: 2}, other=9)
        .chip(40, edge="pad", coverage="any", overlap=8)
    )  # fmt: skip
    options: dict[str, Any] = {"image": ["red"], "label": "use", "fill": 0}
    steps = [Step("tensor", tensor, (), {"dtype": None, "time_axis": True, "columns": (), **options})]
    assert sampler(plan._value.get(), steps, FreshRows(4, len(plan))) is not None
    through = plan.map(_same).read(threads=2).tensor(**options)
    for one, other in zip(plan.read(threads=2).tensor(**options), through, strict=True):
        assert (one["label"] == other["label"]).all()
        assert one["label"].dtype == other["label"].dtype
        assert {*one["label"].unique().tolist()} <= {0, 1, 2, 255}


def _same(dataset: Any) -> Any:
    return dataset


def test_boxes_travel_between_processes(tmp_path: Path) -> None:
    town = synthetic_town(tmp_path, size=128)
    chips = gp.items(town.items).stack(["red"], groupby="solar_day").chip(32).read()
    batches = chips.boxes(town.buildings).tensor(image=["red"], target="boxes", fill=0).batch(4)
    here = list(batches)
    there = list(batches.loader(processes=1))
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        for a, b in zip(one["target"], other["target"], strict=True):
            assert len(a["boxes"]) == len(b["boxes"])
            assert all((a[key] == b[key]).all() for key in ("boxes", "labels", "ids"))


def test_fields_on_both_sides_of_a_zone_s_border(land: Synthetic, tmp_path: Path) -> None:
    """Two grids, one file in longitude and latitude: each zone's chips have their part, and classes are the same."""
    west, south, east, north = land.bbox
    middle = (west + east) / 2
    halves = [shapely.box(west, south, middle, north), shapely.box(middle, south, east, north)]
    fields_ = gpd.GeoDataFrame({"side": ["west", "east"]}, geometry=halves, crs=4326)
    fields_.to_file(tmp_path / "sides.gpkg")
    cubes_ = gp.items(land.items).stack(["red"], crs="utm", resolution=20, groupby="solar_day")
    burnt = cubes_.rasterize(tmp_path / "sides.gpkg", name="side", column="side", background=0)
    assert len(burnt) == 2
    seen = {}
    for cube in burnt:
        assert cube["side"].attrs["class_names"] == ["east", "west"]
        at = cube["side"].load()
        lon, _ = Transformer.from_crs(cube.odc.crs, 4326, always_xy=True).transform(*np.meshgrid(cube.x, cube.y))
        inside = at.values > 0
        expected = np.where(lon < middle, 2, 1)
        assert (at.values[inside] == expected[inside]).mean() > 0.999
        seen[str(cube.odc.crs)] = inside.any()
    assert all(seen.values())
