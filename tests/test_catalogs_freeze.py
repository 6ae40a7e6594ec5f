"""A search kept in a file: the same whole items ever after, and no search in silence."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow.parquet as pq
import pystac
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely.geometry import Point, box, mapping

from geopipes.catalogs import Scenes, freeze, items
from geopipes.errors import EmptySearch, FreezeError

SUFFIXES = [".parquet", ".json", ".geojson"]
KEY = "url: https://example.com\ncollections: s2\nbbox: 8, 49, 9, 50"


def sign(each: pystac.Item) -> pystac.Item:
    return each


def never() -> Scenes:
    raise AssertionError("a frozen search was searched again")


def scene(name: str, collection: str | None = "s2", **properties: Any) -> pystac.Item:
    made = pystac.Item(
        name,
        mapping(box(8, 49, 9, 50)),
        [8, 49, 9, 50],
        dt.datetime(2024, 5, 1, 10, 30, 0, 123456, tzinfo=dt.UTC),
        {"proj:code": "EPSG:32632", **properties},
        collection=collection,
    )
    made.add_asset("red", pystac.Asset(f"https://example.com/{name}/red.tif"))
    return made


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Give items that differ in what they state, as those of real catalogues do."""
    moments = st.datetimes(dt.datetime(1972, 7, 23), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))
    moment = draw(st.none() | moments)
    numbers = st.floats(-1e6, 1e6)
    asset = st.fixed_dictionaries(
        {"href": st.text("abc/", min_size=1).map("https://example.com/".__add__)},
        optional={
            "roles": st.lists(st.sampled_from(["data", "overview"]), max_size=2),
            "proj:shape": st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)).map(list),
            "proj:transform": st.lists(numbers, min_size=6, max_size=6),
            "proj:geometry": st.just({"type": "Point", "coordinates": [500_000.5, 5_000_000.0]}),
            "raster:bands": st.lists(
                st.fixed_dictionaries(
                    {"data_type": st.sampled_from(["uint8", "float32"])},
                    optional={"nodata": st.none() | numbers, "scale": numbers, "histogram": st.just({})},
                ),
                max_size=3,
            ),
        },
    )
    west, south = draw(st.floats(-170, 169)), draw(st.floats(-80, 79))
    area = box(west, south, west + 1, south + 1)
    optional = {"proj:code": st.sampled_from([None, "EPSG:32632"]), "gsd": numbers}
    when = None if moment is None else moment.isoformat()
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": f"i{draw(st.integers(0, 10**6))}",
        "collection": draw(st.sampled_from(["a", "b/c", "b_c"])),
        "geometry": draw(st.sampled_from([mapping(Point(west, south)), mapping(area)])),
        **draw(st.sampled_from([{}, {"bbox": list(area.bounds)}])),
        "properties": {
            "datetime": when,
            **({} if when else {"start_datetime": draw(st.sampled_from([None, "2024-05-01T00:00:00Z"]))}),
            **draw(st.fixed_dictionaries({}, optional=optional)),
        },
        "assets": draw(st.dictionaries(st.sampled_from(["red", "nir", "scl"]), asset, max_size=3)),
        "links": [],
    }  # fmt: skip


def stated(value: Any) -> Any:
    """Give what a document states: without nulls and empty objects, which say nothing."""
    if isinstance(value, dict):
        members = {key: stated(member) for key, member in value.items()}
        return {key: member for key, member in members.items() if member is not None and member != {}}
    return [stated(member) for member in value] if isinstance(value, list | tuple) else value


def essence(found: Sequence[pystac.Item]) -> list[Any]:
    whole = [each.to_dict(transform_hrefs=False) for each in found]
    return [
        (
            each.id,
            each.collection_id,
            each.datetime,
            stated({**document["properties"], "datetime": None}),
            stated(document["geometry"]),
            stated(document["assets"]),
        )
        for each, document in zip(found, whole, strict=True)
    ]


@pytest.mark.parametrize("suffix", SUFFIXES[:2])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(documents(), min_size=1, max_size=6, unique_by=lambda each: each["id"]), st.integers(0, 9))
def test_what_is_frozen_comes_back_whole(
    tmp_path: Path, suffix: str, found: list[dict[str, Any]], duplicates: int
) -> None:
    path = tmp_path / f"scenes{suffix}"
    searched = Scenes(items(found).items, box(-10, -10, 170.1, 10.3), sign, duplicates)
    try:
        fresh = freeze(lambda: searched, path, key=KEY, modifier=sign)
        again = freeze(never, path, key=KEY, modifier=sign)
        assert essence(fresh) == essence(searched)
        assert [each.to_dict() for each in again] == [each.to_dict() for each in fresh]
        for kept in (fresh, again):
            assert (kept.region, kept.duplicates, kept.modifier) == (searched.region, duplicates, sign)
        assert [each.id for each in items(path)] == [each.id for each in searched]
        assert [each.name for each in tmp_path.iterdir()] == [path.name]
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def test_one_collection_is_a_file_and_several_are_a_folder(tmp_path: Path) -> None:
    one = Scenes((scene("i1"), scene("i2")))
    freeze(lambda: one, tmp_path / "one.parquet", key=KEY)
    assert gpd.read_parquet(tmp_path / "one.parquet").id.to_list() == ["i1", "i2"]
    several = Scenes((scene("i1"), scene("i1", "l8"), scene("i2"), scene("i1", None)))
    kept = freeze(lambda: several, tmp_path / "more" / "several.parquet", key=KEY)
    assert [(each.collection_id, each.id) for each in kept] == [
        ("s2", "i1"), ("l8", "i1"), ("s2", "i2"), (None, "i1"),
    ]  # fmt: skip
    files = sorted(each.name for each in (tmp_path / "more" / "several.parquet").iterdir())
    assert files == ["0-s2.parquet", "1-l8.parquet", "2-no-collection.parquet"]


def test_nothing_signed_is_stored(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"x{suffix}"
        kept = freeze(lambda: Scenes((scene("i1"),), modifier=sign), path, key=KEY)
        assert kept.modifier is None, "the caller gives it, so that a replay has it too"
        assert b"sign" not in path.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_another_search_is_refused_and_shown(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    freeze(lambda: Scenes((scene("i1"),)), path, key=KEY)
    before = path.read_bytes()
    with pytest.raises(FreezeError) as caught:
        freeze(never, path, key=KEY.replace("s2", "l8"))
    text = str(caught.value)
    assert "delete it to search again, or choose another path" in text
    assert "- collections: s2\n" in text
    assert "+ collections: l8" in text
    assert "bbox" not in text, "only the lines that differ"
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_leaves_nothing_behind(tmp_path: Path, suffix: str) -> None:
    def fail() -> Scenes:
        raise ConnectionError("no network")

    for load, error in [(fail, ConnectionError), (lambda: Scenes(()), EmptySearch)]:
        with pytest.raises(error):
            freeze(load, tmp_path / f"x{suffix}", key=KEY)
    odd = Scenes((scene("i1", odd=object()), scene("i2", "l8")))
    with pytest.raises(FreezeError, match="these items cannot be written"):
        freeze(lambda: odd, tmp_path / f"x{suffix}", key=KEY)
    assert list(tmp_path.iterdir()) == []


def refused_by_parquet() -> list[tuple[Scenes, str]]:
    nowhere = scene("i1")
    nowhere.geometry = nowhere.bbox = None
    text, number, hidden = scene("i1"), scene("i2"), scene("i1", None)
    text.properties["view:x"] = "text"
    number.properties["view:x"] = 1.5
    hidden.properties["collection"] = "x"
    return [
        (Scenes((nowhere,)), "item 'i1' has no geometry"),
        (Scenes((text, number)), "Could not convert"),
        (Scenes((scene("i1", id="another"),)), "'id' key, which collides"),
        (Scenes((hidden,)), "collection was None and came back as 'x'"),
    ]


@pytest.mark.parametrize(("scenes", "text"), refused_by_parquet())
def test_what_parquet_cannot_keep_whole_goes_to_json(tmp_path: Path, scenes: Scenes, text: str) -> None:
    with pytest.raises(FreezeError, match=rf"(?s){text}.*choose a path that ends in \.json"):
        freeze(lambda: scenes, tmp_path / "x.parquet", key=KEY)
    assert list(tmp_path.iterdir()) == []
    assert essence(freeze(lambda: scenes, tmp_path / "x.json", key=KEY)) == essence(scenes)


def test_items_without_a_bbox_or_with_odd_times_are_kept(tmp_path: Path) -> None:
    plain = scene("i1", created="2024-05-01T00:00:00.1234567+02:00", datetime=None)
    plain.bbox = None
    kept = freeze(lambda: Scenes((plain, scene("i2"))), tmp_path / "x.parquet", key=KEY)
    assert kept[0].bbox == [8, 49, 9, 50]
    assert kept[0].datetime == plain.datetime
    assert kept[0].common_metadata.created == dt.datetime(2024, 4, 30, 22, 0, 0, 123456, tzinfo=dt.UTC)
    assert "created" not in kept[1].properties, "another item's field is no null of this one"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), "geopipes": None}))


def newer(path: Path) -> None:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        header = json.loads(table.schema.metadata[b"geopipes"])
        metadata = {b"geopipes": json.dumps({**header, "version": 2}).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), path)
    else:
        path.write_text(path.read_text().replace('"version": 1', '"version": 2'))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (cut, "cannot be read as a frozen search.*delete it"),
        (empty, "cannot be read as a frozen search.*delete it"),
        (foreign, r"holds no frozen search; choose another path, or open it by items\("),
        (newer, "is of format 2, needed is 1"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(
    tmp_path: Path, suffix: str, harm: Callable[[Path], None], text: str
) -> None:
    path = tmp_path / f"x{suffix}"
    freeze(lambda: Scenes((scene("i1"),)), path, key=KEY)
    harm(path)
    with pytest.raises(FreezeError, match=f"(?s){text}"):
        freeze(never, path, key=KEY)


def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    freeze(lambda: Scenes((scene("i1"), scene("i1", "l8"))), path, key=KEY)
    (path / "1-l8.parquet").unlink()
    with pytest.raises(FreezeError, match="its 1 files are not the ones that were written together"):
        freeze(never, path, key=KEY)


def test_of_two_at_once_the_first_folder_stands(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    ours, theirs = (Scenes((scene(name), scene(name, "l8"))) for name in ("ours", "theirs"))

    def overtaken() -> Scenes:
        freeze(lambda: theirs, path, key=KEY)
        return ours

    assert {each.id for each in freeze(overtaken, path, key=KEY)} == {"theirs"}
    assert [each.name for each in tmp_path.iterdir()] == ["x.parquet"]


def test_other_endings_are_refused_before_the_search(tmp_path: Path) -> None:
    with pytest.raises(FreezeError, match=r"needed is a path that ends in \.parquet, \.json, \.geojson"):
        freeze(never, tmp_path / "scenes.csv", key=KEY)
