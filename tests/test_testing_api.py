from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pystac_client
import pytest
import rasterio
import requests
from numpy.typing import NDArray
from pystac_client.exceptions import APIError
from shapely.geometry import box, mapping, shape

from geopipes.errors import CatalogError
from geopipes.testing import LocalAPI, Synthetic, serve, synthetic_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    return synthetic_scenes(tmp_path_factory.mktemp("scenes"), seed=3, size=128)


@pytest.fixture(scope="module")
def api(scenes: Synthetic) -> Iterator[LocalAPI]:
    with serve(scenes.items, collections=[scenes.collection]) as running:
        yield running


@pytest.fixture(scope="module")
def client(api: LocalAPI) -> pystac_client.Client:
    return pystac_client.Client.open(api.url)


def read(item: pystac.Item, asset: str) -> NDArray[Any]:
    with rasterio.open(item.assets[asset].href) as file:
        return np.asarray(file.read(1))


def found(client: pystac_client.Client, **search: Any) -> list[str]:
    return [item.id for item in client.search(**search).items()]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_searches_find_what_python_finds(client: pystac_client.Client, scenes: Synthetic, method: str) -> None:
    items = list(scenes.items)
    west = (scenes.bbox[0], scenes.bbox[1], scenes.bbox[0] + 1e-3, scenes.bbox[3])
    cloudy = "eo:cloud_cover"
    median = float(np.median([item.properties[cloudy] for item in items]))
    below = [item.id for item in items if item.properties[cloudy] < median]
    in_west = [item.id for item in items if item.geometry is not None and shape(item.geometry).intersects(box(*west))]
    assert 0 < len(below) < 6
    assert 0 < len(in_west) < 6
    ask: list[tuple[dict[str, Any], list[str]]] = [
        ({}, [item.id for item in items]),
        ({"bbox": west}, in_west),
        ({"bbox": (*west[:2], -10, *west[2:], 9_000)}, in_west),
        ({"intersects": mapping(box(*west))}, in_west),
        ({"bbox": (0, 0, 1, 1)}, []),
        ({"ids": [items[4].id, items[1].id]}, [items[1].id, items[4].id]),
        ({"collections": [scenes.collection.id]}, [item.id for item in items]),
        ({"collections": ["another"]}, []),
        ({"datetime": "2024-06"}, [item.id for item in items[2:4]]),
        ({"datetime": "2024-06-01/.."}, [item.id for item in items[2:]]),
        ({"datetime": "../2024-05-03T17:21:14Z"}, []),
        ({"datetime": items[0].properties["datetime"]}, [items[0].id]),
        ({"query": [f"{cloudy}<{median}"]}, below),
        ({"query": {cloudy: {"lt": median}, "platform": {"startsWith": "sentinel"}}}, below),
        ({"query": {"no such": {"neq": 1}}}, []),
        ({"filter": f'"{cloudy}" < {median}'}, below),
        ({"filter": {"op": "<", "args": [{"property": cloudy}, median]}}, below),
        ({"filter": "no_such = 1"}, []),
        ({"filter": f"no_such = 1 OR id = '{items[3].id}'"}, [items[3].id]),
        ({"max_items": 3}, [item.id for item in items[:3]]),
    ]
    for search, expected in ask:
        assert found(client, method=method, **search) == expected, search
    by_cloud = sorted(items, key=lambda item: float(item.properties[cloudy]), reverse=True)
    assert found(client, method=method, sortby=f"-properties.{cloudy}") == [item.id for item in by_cloud]
    by_platform = sorted(items, key=lambda item: str(item.id), reverse=True)
    by_platform.sort(key=lambda item: str(item.properties["platform"]))
    assert found(client, method=method, sortby="+platform,-id") == [item.id for item in by_platform]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("limit", [1, 2, 4, 6])
def test_pages_give_every_item_once(
    api: LocalAPI, client: pystac_client.Client, scenes: Synthetic, method: str, limit: int
) -> None:
    before = api.searches
    search = client.search(method=method, limit=limit, sortby="-datetime")
    expected = sorted((item.id for item in scenes.items), key=lambda name: str(name)[11:19], reverse=True)
    assert sorted(item.id for item in search.items()) == sorted(expected)
    assert api.searches - before == -(-6 // limit)
    assert api.requests[-1] == f"{method} /search"
    assert search.matched() == 6


def test_the_catalogue_can_be_walked(client: pystac_client.Client, scenes: Synthetic) -> None:
    assert [collection.id for collection in client.get_collections()] == [scenes.collection.id]
    collection = client.get_collection(scenes.collection.id)
    assert collection is not None
    assert collection.extent.to_dict() == scenes.collection.extent.to_dict()
    assert [item.id for item in collection.get_items()] == [item.id for item in scenes.items]
    item = scenes.items[2]
    served = collection.get_item(item.id)
    assert served is not None
    red = item.assets["red"].to_dict()
    assert served.assets["red"].to_dict() == red | {"href": f"file://{red['href']}"}
    np.testing.assert_array_equal(read(served, "red"), read(item, "red"))
    assert served.geometry == item.geometry
    assert pystac.Item.from_file(str(served.get_self_href())).properties == item.properties
    assert collection.get_item("no such item") is None


def test_json_is_served_word_for_word(tmp_path: Path) -> None:
    old = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "old",
        "geometry": None,
        "properties": {
            "datetime": None,
            "start_datetime": "2020-01-01T00:00:00Z",
            "end_datetime": "2020-12-31T00:00:00Z",
            "proj:epsg": 32633,
            "proj:wkt2": None,
        },
        "links": [{"rel": "self", "href": "https://example.com/items/old.json"}],
        "assets": {"a": {"href": "./a.tif", "eo:bands": [{"name": "a"}]}, "b": {"href": "s3://bucket/b.tif"}},
    }
    with serve([old]) as api:
        (served,) = requests.get(f"{api.url}/search?datetime=2020-06-01T00:00:00Z", timeout=10).json()["features"]
        assert not requests.get(f"{api.url}/search?bbox=-180,-90,180,90", timeout=10).json()["features"]
        assert api.requests == ["GET /search", "GET /search"]
    assert served["properties"] == old["properties"]
    assert served["assets"]["a"] == {"href": "https://example.com/items/a.tif", "eo:bands": [{"name": "a"}]}
    assert served["assets"]["b"]["href"] == "s3://bucket/b.tif"
    with serve([old], root=tmp_path) as api:
        (served,) = requests.get(f"{api.url}/search", timeout=10).json()["features"]
    assert served["assets"]["a"]["href"] == f"file://{tmp_path}/a.tif"


def test_a_relative_href_without_a_base_is_refused() -> None:
    item = {"id": "x", "properties": {}, "links": [], "assets": {"red": {"href": "./red.tif"}}}
    text = r"item 'x', asset 'red': the href './red.tif' is relative .* write serve\(items, root="
    with pytest.raises(CatalogError, match=text), serve([item]):
        pass


@pytest.mark.parametrize(
    ("search", "text"),
    [
        ({"filter": "id ====", "filter_lang": "cql2-text", "method": "GET"}, "filter: "),
        ({"query": {"id": {"like": "a"}}}, "unknown operator 'like'; there are"),
    ],
)
def test_what_the_api_cannot_read_is_answered_with_the_reason(
    client: pystac_client.Client, search: dict[str, Any], text: str
) -> None:
    with pytest.raises(APIError, match=text):
        found(client, **search)


def test_the_server_is_gone_afterwards(scenes: Synthetic) -> None:
    def stop_midway() -> None:
        with serve(scenes.items) as running:
            addresses.append(running.url)
            assert requests.get(running.url, timeout=10).ok
            raise KeyError("midway")

    addresses: list[str] = []
    threads = set(threading.enumerate())
    with pytest.raises(KeyError, match="midway"):
        stop_midway()
    for left in set(threading.enumerate()) - threads:
        assert left.name != "stac-api"
        left.join(timeout=60)  # stac-fastapi's own workers end by themselves once the server has stopped
        assert not left.is_alive()
    port = int(addresses[0].rsplit(":", 1)[1])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with serve([], port=port) as running:  # and its port is free again
        assert running.url.endswith(f":{port}")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs uvicorn: pip install 'geopipes\[demo\]'"), serve([]):
        pass


@pytest.mark.real
def test_real_items_are_served_with_their_files(real_data: Path) -> None:
    folder = real_data / "sentinel2_33T"
    response = json.loads((folder / "search_response.json").read_text())
    with serve(response["features"], root=folder) as api:
        client = pystac_client.Client.open(api.url)
        items = list(client.search(collections=["sentinel-2-l2a"], query=["eo:cloud_cover<10"]).items())
    assert {item.id for item in items} == {"S2B_33TWL_20230813_0_L2A", "S2B_33TWM_20230813_0_L2A"}
    assert [read(item, "scl").shape for item in items] == [(256, 256)] * 2
