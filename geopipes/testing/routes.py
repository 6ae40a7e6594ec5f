"""The STAC API itself: stac-fastapi's routes over items in memory. Needs the extra ``demo``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, cast
from urllib.parse import urljoin

import attr
import shapely
from fastapi import Request
from shapely.geometry import shape
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.models import ItemCollectionUri, create_get_request_model, create_post_request_model
from stac_fastapi.extensions.filter import SearchFilterExtension
from stac_fastapi.extensions.pagination import TokenPaginationExtension
from stac_fastapi.extensions.pagination.request import GETTokenPagination
from stac_fastapi.extensions.query import QueryExtension
from stac_fastapi.extensions.sort import SearchSortExtension, SortConformanceClasses
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.errors import NotFoundError
from stac_fastapi.types.requests import get_base_url
from stac_fastapi.types.stac import Collection, Collections, Item, ItemCollection

from geopipes.testing.matching import Search, expression

Json = dict[str, Any]
ASGI = Callable[[Any, Any, Any], Awaitable[None]]

# pystac-client looks for version 1.0 of the extension; stac-fastapi advertises 1.1 alone.
_SORT_1_0 = "https://api.stacspec.org/v1.0.0/item-search#sort"


@attr.s
class _ItemsRequest(ItemCollectionUri, GETTokenPagination):
    """What GET /collections/{collection_id}/items accepts."""


def application(items: Sequence[Json], collections: Iterable[Json], *, log: list[str]) -> ASGI:
    """Give the API over items and collections as an ASGI application that notes each request in ``log``."""
    known = {collection["id"]: collection for collection in collections}
    for item in items:
        if item.get("collection") is not None:
            known.setdefault(item["collection"], _open_collection(item["collection"]))
    extensions = [
        QueryExtension(),
        SearchSortExtension(conformance_classes=[_SORT_1_0, SortConformanceClasses.ITEM_SEARCH_SORT.value]),
        SearchFilterExtension(),
        TokenPaginationExtension(),
    ]
    app = StacApi(
        # model_construct reads neither the environment nor a .env file of whoever runs the tests
        settings=ApiSettings.model_construct(
            stac_fastapi_title="geopipes",
            stac_fastapi_description="Items in memory, for tests and examples",
        ),
        client=MemoryClient(cast(Sequence[Item], items), cast(dict[str, Collection], known)),
        extensions=extensions,
        search_get_request_model=create_get_request_model(extensions),
        search_post_request_model=create_post_request_model(extensions),
        items_get_request_model=_ItemsRequest,
    ).app

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            log.append(f"{scope['method']} {scope['path']}")
        await app(scope, receive, send)

    return noted


class MemoryClient(BaseCoreClient):
    """Answers stac-fastapi's routes from items in memory."""

    def __init__(self, items: Sequence[Item], collections: dict[str, Collection]) -> None:
        super().__init__(landing_page_id="geopipes")
        self.items = items
        self.collections = collections

    def post_search(self, search_request: Any, **more: Any) -> ItemCollection:
        """Answer POST /search."""
        asked = search_request
        search = Search(
            ids=asked.ids,
            collections=asked.collections,
            area=_box(asked.bbox) if asked.intersects is None else shape(asked.intersects.model_dump()),
            interval=asked.datetime,
            query=asked.query or {},
            where=None if asked.filter_expr is None else expression(json.dumps(asked.filter_expr)),
            order=[(by.field, by.direction == "desc") for by in asked.sortby or ()],
        )
        return self._page(search, more["request"], asked.limit, asked.token)

    def get_search(
        self,
        collections: list[str] | None = None,
        ids: list[str] | None = None,
        bbox: Any = None,
        intersects: Any = None,
        datetime: str | None = None,
        limit: int | None = 10,
        **more: Any,
    ) -> ItemCollection:
        """Answer GET /search, whose values are text."""
        search = Search(
            ids=ids,
            collections=collections,
            area=_box(bbox) if intersects is None else shape(json.loads(intersects)),
            interval=datetime,
            query=json.loads(more["query"] or "{}"),
            where=None if more["filter_expr"] is None else expression(more["filter_expr"]),
            order=[(by.lstrip("+-"), by.startswith("-")) for by in more["sortby"] or ()],
        )
        return self._page(search, more["request"], limit, more["token"])

    def item_collection(
        self,
        collection_id: str,
        bbox: Any = None,
        datetime: str | None = None,
        limit: int | None = 10,
        token: str | None = None,
        **more: Any,
    ) -> ItemCollection:
        """Answer GET /collections/{collection_id}/items."""
        self.get_collection(collection_id, **more)
        search = Search(collections=[collection_id], area=_box(bbox), interval=datetime)
        return self._page(search, more["request"], limit, token)

    def get_item(self, item_id: str, collection_id: str, **more: Any) -> Item:
        """Answer GET /collections/{collection_id}/items/{item_id}."""
        found = Search(ids=[item_id], collections=[collection_id]).among(self.items)
        if not found:
            raise NotFoundError(f"no item {item_id!r} in collection {collection_id!r}")
        return _linked(found[0], get_base_url(more["request"]))

    def all_collections(self, **more: Any) -> Collections:
        """Answer GET /collections."""
        root = get_base_url(more["request"])
        return Collections(
            collections=[self.get_collection(name, **more) for name in self.collections],
            links=[_link("root", root), _link("self", urljoin(root, "collections"))],
        )

    def get_collection(self, collection_id: str, **more: Any) -> Collection:
        """Answer GET /collections/{collection_id}."""
        if collection_id not in self.collections:
            raise NotFoundError(f"no collection {collection_id!r}; there are {sorted(self.collections)}")
        root = get_base_url(more["request"])
        here = urljoin(root, f"collections/{collection_id}")
        links = [
            _link("root", root),
            _link("parent", root),
            _link("self", here),
            _link("items", f"{here}/items"),
        ]
        return self.collections[collection_id] | {"links": links}

    def _page(self, search: Search, request: Request, limit: int | None, token: str | None) -> ItemCollection:
        """Give one page of the matching items; the token is the position of its first."""
        found = search.among(self.items)
        first = int(token or 0)
        last = first + (limit or 10)
        links = []
        if last < len(found):
            following = _link("next", str(request.url)) | {"method": request.method}
            if request.method == "POST":
                following |= {"body": {"token": str(last)}, "merge": True}
            else:
                following |= {"href": str(request.url.include_query_params(token=last))}
            links.append(following)
        return ItemCollection(
            type="FeatureCollection",
            features=[_linked(item, get_base_url(request)) for item in found[first:last]],
            links=links,
            numberMatched=len(found),
            numberReturned=len(found[first:last]),
        )


def _open_collection(name: str) -> Json:
    """Give a collection of which only the name is known."""
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
    about = {"description": name, "license": "other", "extent": extent}
    return {"type": "Collection", "stac_version": "1.1.0", "id": name, **about}


def _linked(item: Item, root: str) -> Item:
    """Give an item with the API's links; without a collection it has no address of its own."""
    links = [_link("root", root)]
    if item.get("collection") is not None:
        home = urljoin(root, f"collections/{item['collection']}")
        links += [
            _link("collection", home),
            _link("parent", home),
            _link("self", f"{home}/items/{item['id']}"),
        ]
    return item | {"links": links}


def _link(rel: str, href: str) -> Json:
    return {"rel": rel, "type": "application/json", "href": href}


def _box(bbox: Sequence[float] | None) -> shapely.Polygon | None:
    """Give a bbox, with or without heights, as an area."""
    if bbox is None:
        return None
    half = len(bbox) // 2
    return shapely.box(bbox[0], bbox[1], bbox[half], bbox[half + 1])
