"""Items: their value, documents, searches and files. What keeps them is in test_catalogs_freeze.py."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import geopandas as gpd
import pystac
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Point, box, mapping

from geopipes.catalogs import Scenes, items, search, union, unique
from geopipes.errors import CatalogError
from geopipes.testing import serve

EXTENT = pystac.Extent(
    pystac.SpatialExtent([0.0, 50.0, 9.0, 51.0]), pystac.TemporalExtent([dt.datetime(2024, 5, 1), None])
)


def item(name: str, collection: str | None = "s2", **fields: Any) -> pystac.Item:
    """Make an item one degree wide, at the longitude that its number gives."""
    number = int("".join(letter for letter in name if letter.isdigit()) or 0)
    area = box(number, 50, number + 1, 51)
    made = pystac.Item(
        name,
        mapping(area),
        list(area.bounds),
        dt.datetime(2024, 5, 1 + number, 10, 30, 0, 123456, tzinfo=dt.UTC),
        {"eo:cloud_cover": 10.0 * number, **fields},
        collection=collection,
    )
    made.add_asset("red", pystac.Asset(f"https://example.com/{collection}/{name}/red.tif", roles=["data"]))
    return made


def names(scenes: Scenes | tuple[pystac.Item, ...]) -> list[str]:
    return [each.id for each in scenes]


def sign(each: pystac.Item) -> pystac.Item:
    for asset in each.assets.values():
        asset.href += "?signed"
    return each


def sign_otherwise(each: pystac.Item) -> None:
    for asset in each.assets.values():
        asset.href += "?otherwise"


# The value


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 5))))
def test_unique_keeps_the_first_of_each_and_counts_the_rest(keys: list[tuple[str | None, int]]) -> None:
    made = [item(f"i{number}", collection) for collection, number in keys]
    kept, dropped = unique(made)
    assert [(each.collection_id, each.id) for each in kept] == [
        (collection, f"i{number}") for collection, number in dict.fromkeys(keys)
    ]
    assert len(kept) + dropped == len(made)
    assert all(any(each is one for one in made) for each in kept)


def test_scenes_are_a_sequence_that_travels() -> None:
    scenes = Scenes((item("i1"), item("i2"), item("i3")), box(0, 0, 1, 1), sign, duplicates=2)
    assert len(scenes) == 3
    assert names(scenes[1:]) == ["i2", "i3"]
    assert scenes[1:].region == scenes.region
    copy = pickle.loads(pickle.dumps(scenes))
    assert [each.to_dict() for each in copy] == [each.to_dict() for each in scenes]
    assert (copy.region, copy.modifier, copy.duplicates) == (scenes.region, sign, 2)


def test_union_keeps_each_items_own_signer() -> None:
    first = Scenes((item("i1", "a"), item("i2", "a")), box(0, 0, 1, 1), sign, duplicates=1)
    second = Scenes((item("i2", "a"), item("i1", "b")), box(1, 0, 2, 1), sign_otherwise)
    third = Scenes((item("i1", "c"),), box(2, 0, 3, 1))
    joint = union([first, second, third])
    assert [(each.collection_id, each.id) for each in joint] == [
        ("a", "i1"), ("a", "i2"), ("b", "i1"), ("c", "i1"),
    ]  # fmt: skip
    assert joint.duplicates == 2
    assert joint.region is not None
    assert joint.region.equals(box(0, 0, 3, 1))
    modifier = pickle.loads(pickle.dumps(joint)).modifier
    ends = []
    for each in joint:
        copy = each.clone()
        given = modifier(copy)
        ends.append((given or copy).assets["red"].href.partition("red.tif")[2])
    assert ends == ["?signed", "?signed", "?otherwise", ""]


def test_union_of_an_unlimited_search_is_unlimited() -> None:
    limited = Scenes((item("i1"),), box(0, 0, 1, 1), sign)
    assert union([limited, Scenes((item("i2"),), None, sign)]).region is None
    assert union([limited, limited]).modifier is sign
    with pytest.raises(CatalogError, match="nothing was given"):
        union([])


# Documents


def test_items_opens_one_catalogue_in_every_form(tmp_path: Path) -> None:
    made = [item("i1"), item("i2")]
    catalog = pystac.Catalog("root", "of all")
    collection = pystac.Collection("s2", "scenes", EXTENT)
    catalog.add_child(collection)
    collection.add_items([each.clone() for each in made])
    catalog.normalize_and_save(str(tmp_path / "static"), pystac.CatalogType.SELF_CONTAINED)
    page = pystac.ItemCollection(made)
    page.save_object(str(tmp_path / "page.json"))
    forms: list[Any] = [
        made,
        tuple(each.to_dict() for each in made),
        page,
        page.to_dict(),
        catalog,
        collection,
        tmp_path / "page.json",
        str(tmp_path / "static" / "catalog.json"),
        [tmp_path / "static" / "s2" / each.id / f"{each.id}.json" for each in made],
        Scenes(tuple(made)),
    ]
    for form in forms:
        found = items(form, modifier=sign)
        assert names(found) == ["i1", "i2"]
        assert found.modifier is sign
        assert [each.collection_id for each in found] == ["s2", "s2"]
        assert [each.datetime for each in found] == [each.datetime for each in made]
        assert found[0].assets["red"].href == "https://example.com/s2/i1/red.tif"


def test_relative_hrefs_become_absolute(tmp_path: Path) -> None:
    document = item("i1").to_dict()
    document["assets"]["red"]["href"] = "./pixels/red.tif"
    (tmp_path / "item.json").write_text(json.dumps(document))
    (tmp_path / "page.json").write_text(json.dumps({"type": "FeatureCollection", "features": [document]}))
    for form in ("item.json", "page.json"):
        assert items(tmp_path / form)[0].assets["red"].href == str(tmp_path / "pixels" / "red.tif")
    document["links"].append({"rel": "self", "href": "https://example.com/items/i1.json"})
    assert items(document)[0].assets["red"].href == "https://example.com/items/pixels/red.tif"
    assert document["assets"]["red"]["href"] == "./pixels/red.tif", "the caller's own is left as it is"


def test_the_same_id_in_two_static_collections_is_two_items(tmp_path: Path) -> None:
    catalog = pystac.Catalog("root", "of all")
    for name in ("a", "b"):
        child = pystac.Collection(name, "scenes", EXTENT)
        catalog.add_child(child)
        child.add_item(item("i1", collection=None))
    catalog.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    for path in tmp_path.rglob("i1.json"):
        document = json.loads(path.read_text())
        del document["collection"]
        path.write_text(json.dumps(document))
    assert [each.collection_id for each in items(tmp_path / "catalog.json")] == ["a", "b"]


def test_an_item_without_a_date_keeps_none() -> None:
    document = item("i1").to_dict()
    document["properties"] = {"datetime": None}
    (found,) = items(document)
    assert found.datetime is None
    assert found.properties["start_datetime"] is None


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ((each for each in [item("i1")]), r"generator runs out.*write items\(list\(\.\.\.\)\)"),
        ({"type": "Feature", "geometry": None, "properties": {}}, r"without id.*no STAC item.*vectors\("),
        ({**item("i1").to_dict(), "assets": {"red": {}}}, r"item 'i1': its asset 'red' has no href"),
        ({"type": "Polygon"}, r"found is an object of type 'Polygon'"),
        (7, r"items\(int\): needed is"),
        ("nowhere.json", r"nowhere\.json.*FileNotFoundError"),
        (
            {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "links": [{"rel": "search", "href": "x"}]},
            r"'api' gives its items through an API; write search\(url",
        ),
    ],
)
def test_what_holds_no_items_is_refused_with_the_reason(source: Any, text: str) -> None:
    with pytest.raises(CatalogError, match=f"(?s){text}"):
        items(source)


def test_a_broken_link_names_the_catalogue(tmp_path: Path) -> None:
    catalog = pystac.Catalog("root", "of all")
    catalog.add_item(item("i1"))
    catalog.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    (tmp_path / "i1" / "i1.json").unlink()
    with pytest.raises(CatalogError, match=r"catalog\.json: cannot be walked.*i1\.json"):
        items(tmp_path / "catalog.json")
    (tmp_path / "text.json").write_text("no json")
    with pytest.raises(CatalogError, match=r"text\.json.*JSONDecodeError"):
        items(tmp_path / "text.json")


# Searches

SERVED = [item(f"i{number}", "s2" if number % 2 else "l8") for number in range(7)]


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with serve(SERVED) as running:
        yield running.url


# The advertised class of the sort extension is older than pystac-client's; sorting works.
pytestmark = pytest.mark.filterwarnings("ignore:Server does not conform to SORT")


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_search_takes_all_pages_once(api: str, method: Any) -> None:
    found = search(api, limit=2, sortby="+id", method=method, modifier=sign)
    assert names(found) == [f"i{number}" for number in range(7)]
    assert (found.region, found.duplicates, found.modifier) == (None, 0, sign)
    assert [each.assets["red"].href for each in found] == [each.assets["red"].href for each in SERVED]
    assert [each.datetime for each in found] == [each.datetime for each in SERVED]
    assert names(pickle.loads(pickle.dumps(found))) == names(found)


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({"collections": "l8"}, [0, 2, 4, 6]),
        ({"collections": ["l8", "s2"], "max_items": 3}, [0, 1, 2]),
        ({"ids": ["i5", "i1"]}, [1, 5]),
        ({"datetime": "2024-05-03/2024-05-04"}, [2, 3]),
        ({"datetime": (dt.datetime(2024, 5, 6, tzinfo=dt.UTC), None)}, [5, 6]),
        ({"query": ["eo:cloud_cover<=20", "eo:cloud_cover>5"]}, [1, 2]),
        ({"query": {"eo:cloud_cover": {"gt": 45}}}, [5, 6]),
        ({"filter": {"op": "<", "args": [{"property": "eo:cloud_cover"}, 15]}}, [0, 1]),
        ({"filter": '"eo:cloud_cover" < 15'}, [0, 1]),
        ({"filter": '"eo:cloud_cover" < 15', "method": "GET"}, [0, 1]),
    ],
)
def test_a_search_filters(api: str, filters: dict[str, Any], numbers: list[int]) -> None:
    assert names(search(api, sortby=["+id"], **filters)) == [f"i{number}" for number in numbers]


def test_the_region_is_what_was_searched(api: str) -> None:
    area = box(2.2, 50.2, 3.5, 50.8)
    frame = gpd.GeoDataFrame(geometry=[area], crs=4326).to_crs(32631)
    forms: list[dict[str, Any]] = [
        {"bbox": area.bounds},
        {"bbox": (2.2, 50.2, 0, 3.5, 50.8, 100)},
        {"intersects": area},
        {"intersects": mapping(area)},
        {"intersects": {"type": "Feature", "properties": {}, "geometry": mapping(area)}},
        {"intersects": frame},
    ]
    for form in forms:
        found = search(api, sortby="+id", **form)
        assert names(found) == ["i2", "i3"]
        assert found.region is not None
        assert found.region.symmetric_difference(area).area < 1e-9
    assert len(search(api, intersects=Point(100, 0))) == 0


@given(st.floats(-180, 180), st.floats(-180, 180))
def test_a_bbox_may_cross_the_antimeridian(west: float, east: float) -> None:
    from geopipes.catalogs.api import _region

    region = _region((west, -10, east, 10), None)
    assert region is not None
    assert region.area == pytest.approx(20 * (east - west if west <= east else east - west + 360))


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ({"bbox": (0, 0, 1, 1), "intersects": Point(0, 0)}, "leave one out"),
        ({"bbox": (0, 0, 1)}, "west, south, east, north"),
        ({"bbox": (0, 5, 1, 1)}, "south 5 is above north 1"),
        ({"query": ["cloudy"]}, r"needed is a comparison, as 'eo:cloud_cover<10'"),
        ({"limit": 0}, "Invalid limit of 0"),
    ],
)
def test_a_search_that_cannot_be_sent_is_refused(api: str, filters: dict[str, Any], text: str) -> None:
    with pytest.raises(CatalogError, match=text):
        search(api, **filters)


@dataclass
class Fake:
    """An API that repeats an item on its second page, and wants a key."""

    url: str = ""
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def keyed_api() -> Iterator[Fake]:
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            arguments = parse_qs(parts.query)
            fake.keys.append(self.headers.get("x-key") or arguments.get("key", [None])[0])
            if parts.path == "/text":
                return self.answer(200, "<html>")
            if fake.keys[-1] != "right":
                return self.answer(403, {"code": "forbidden"})
            link = {"rel": "search", "href": f"{fake.url}/search", "type": "application/geo+json"}
            if parts.path != "/search":
                landing = {"type": "Catalog", "id": "fake", "description": "", "stac_version": "1.0.0"}
                conforms = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
                return self.answer(200, {**landing, "conformsTo": conforms, "links": [link]})
            second = "page" in arguments
            page = [item("i2"), item("i3")] if second else [item("i1"), item("i2")]
            following = [] if second else [{**link, "rel": "next", "href": f"{link['href']}?page=2"}]
            features = [each.to_dict() for each in page]
            return self.answer(200, {"type": "FeatureCollection", "features": features, "links": following})

        def answer(self, status: int, body: Any) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


def test_keys_are_sent_with_every_page_and_duplicates_counted() -> None:
    for how in ({"headers": {"x-key": "right"}}, {"parameters": {"key": "right"}}):
        with keyed_api() as fake:
            found = search(fake.url, method="GET", **how)  # type: ignore[arg-type]  # one of two mappings
            assert names(found) == ["i1", "i2", "i3"]
            assert found.duplicates == 1
            assert fake.keys == ["right"] * 3


def test_a_refusal_says_what_was_asked_and_what_to_try() -> None:
    with keyed_api() as fake:
        with pytest.raises(CatalogError, match=rf"{fake.url}.*forbidden.*pass it by headers=") as caught:
            search(fake.url)
        assert caught.value.__cause__ is not None
        with pytest.raises(CatalogError, match=r"/text.*root URL of a STAC API"):
            search(f"{fake.url}/text")
    with pytest.raises(CatalogError, match=rf"{fake.url}.*refused"):
        search(fake.url)


def test_a_static_catalogue_is_no_api(tmp_path: Path) -> None:
    pystac.Catalog("root", "of all").normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    with (
        pytest.warns(UserWarning, match="does not advertise any conformance classes"),
        pytest.raises(CatalogError, match=r"open a static catalogue by items\(url\)"),
    ):
        search(str(tmp_path / "catalog.json"))
