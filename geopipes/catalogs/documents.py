"""Items from what already holds them: pystac objects, JSON documents, static catalogues, GeoParquet."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pystac
from pystac.utils import is_absolute_href, make_absolute_href

from geopipes.catalogs import geoparquet
from geopipes.catalogs.scenes import Scenes, unique
from geopipes.errors import CatalogError

if TYPE_CHECKING:
    from geopipes.read.sources import Modifier

ItemsLike = (
    str
    | os.PathLike[str]
    | pystac.Item
    | pystac.ItemCollection
    | pystac.Catalog
    | Mapping[str, Any]
    | Iterable["ItemsLike"]
)
"""What `items` opens."""


def items(source: ItemsLike, *, modifier: Modifier | None = None) -> Scenes:
    """Open items that are already there, without a search.

    Parameters
    ----------
    source : one of

        - a ``pystac.Item``, ``ItemCollection``, ``Catalog`` or ``Collection`` (walked to its leaves), or the
          ``dict`` of a document of these kinds
        - a path or URL: of such a JSON document (of an API's response, that page alone), of a
          stac-geoparquet file, or of a folder of them, as `freeze` writes
        - a list of any of these

    modifier : signs hrefs when pixels are read, as pystac-client's ``modifier``

    Returns
    -------
    Scenes : the items migrated to the STAC version of pystac, asset hrefs absolute where the document's or
        the item's own location is known; without a region. What the caller passed in is left as it is.

    Raises
    ------
    CatalogError : for what cannot be read or is no item (named), and for generators
    """
    if isinstance(source, Scenes):
        return source if modifier is None else replace(source, modifier=modifier)
    found, dropped = unique(_open(source))
    return Scenes(found, modifier=modifier, duplicates=dropped)


def read_item(document: Mapping[str, Any], *, where: str, base: str | None = None) -> pystac.Item:
    """Make an item of its JSON document, whatever its STAC version.

    Parameters
    ----------
    document : left as it is
    where : what it was found in, for errors
    base : what relative hrefs are relative to; they stay relative for None

    Raises
    ------
    CatalogError : names the item and what it lacks
    """
    name = f"{where}: item {document.get('id', '(without id)')!r}"
    if document.get("type") != "Feature" or not document.get("id") or "stac_version" not in document:
        held = ", ".join(sorted(document)) or "nothing"
        raise CatalogError(
            f"{name} is no STAC item: needed are type 'Feature', id and stac_version, found are {held}; "
            "open plain GeoJSON by vectors(...), and let `fields` of a search include them"
        )
    properties = dict(document.get("properties") or {})
    assets = {key: dict(asset) for key, asset in (document.get("assets") or {}).items()}
    # Without its root: item.to_dict() would go and fetch it, and found items need no network any more.
    links = [dict(link) for link in document.get("links") or [] if link.get("rel") != "root"]
    for key, asset in assets.items():
        if not asset.get("href"):
            raise CatalogError(f"{name}: its asset {key!r} has no href, so it cannot be read; drop the asset")
    if base is not None:
        for holder in [*assets.values(), *links]:
            if holder.get("href"):
                holder["href"] = make_absolute_href(holder["href"], base)
    if properties.get("datetime") is None:
        # pystac wants these keys; a raster without a date (a label, elevation) has nothing to put there.
        properties.setdefault("start_datetime", None)
        properties.setdefault("end_datetime", None)
    try:
        with warnings.catch_warnings():
            # Of the storage extension, which says where a file lies in a cloud: nothing here uses it.
            warnings.filterwarnings("ignore", "Could not parse bucket/account from href")
            whole = {**document, "properties": properties, "assets": assets, "links": links}
            return pystac.Item.from_dict(whole, preserve_dict=False)  # the migration copies in any case
    except Exception as cause:  # the migrations of the extensions raise KeyError, TypeError, ...
        raise CatalogError(f"{name} is no valid STAC item: {type(cause).__name__}: {cause}") from cause


def item_document(item: pystac.Item) -> dict[str, Any]:
    """Give the item as JSON, its links unresolved (nothing is fetched)."""
    return item.to_dict(include_self_link=True, transform_hrefs=False)


def _open(source: ItemsLike) -> Iterator[pystac.Item]:
    """Give the items of anything `items` takes."""
    if isinstance(source, pystac.Catalog):
        yield from _walk(source)
    elif isinstance(source, pystac.Item):
        yield from _open_document(item_document(source), where="items(...)", href=None)
    elif isinstance(source, Mapping):
        yield from _open_document(source, where="items(...)", href=None)
    elif isinstance(source, str | os.PathLike):
        yield from _open_href(os.fspath(source))
    elif isinstance(source, Iterator):
        raise CatalogError(
            f"items({type(source).__name__}): a generator runs out, and a pipe must be able to start again; "
            "write items(list(...))"
        )
    elif isinstance(source, Iterable):
        for part in source:
            yield from _open(part)
    else:
        raise CatalogError(
            f"items({type(source).__name__}): needed is an item, an item collection, a catalogue, "
            "a path or URL, or a list of these"
        )


def _open_href(href: str) -> Iterator[pystac.Item]:
    if not is_absolute_href(href):
        href = os.path.abspath(href)
    try:
        if os.path.isdir(href) or href.lower().endswith((".parquet", ".geoparquet")):
            documents: Any = {"type": "FeatureCollection", "features": geoparquet.read(href)[0]}
        else:
            documents = json.loads(pystac.StacIO.default().read_text(href))
    except Exception as cause:  # pystac raises a bare Exception for a URL that cannot be read
        raise CatalogError(
            f"items({href!r}): is no STAC JSON or stac-geoparquet: {type(cause).__name__}: {cause}"
        ) from cause
    if not isinstance(documents, Mapping):
        raise CatalogError(f"items({href!r}): needed is one JSON object, found is {type(documents).__name__}")
    yield from _open_document(documents, where=href, href=href)


def _open_document(document: Mapping[str, Any], *, where: str, href: str | None) -> Iterator[pystac.Item]:
    kind = document.get("type")
    if kind == "Feature":
        yield read_item(document, where=where, base=href or _self_href(document))
    elif kind == "FeatureCollection":
        for number, feature in enumerate(document.get("features", [])):
            yield read_item(feature, where=f"{where}, feature {number}", base=_self_href(feature) or href)
    elif "stac_version" in document and "links" in document:  # a catalogue; before 1.0 they had no type
        _refuse_api(document, where)
        try:
            catalog = pystac.read_dict(deepcopy(dict(document)), href=href)
        except Exception as cause:
            raise CatalogError(f"{where}: no STAC catalogue: {type(cause).__name__}: {cause}") from cause
        yield from _walk(catalog)
    else:
        raise CatalogError(
            f"{where}: needed is a STAC item, catalogue, collection or FeatureCollection, found is an object "
            f"of type {kind!r} with {', '.join(map(str, document)) or 'nothing in it'}"
        )


def _walk(catalog: pystac.STACObject) -> Iterator[pystac.Item]:
    """Give the items of a static catalogue and of those below it."""
    where = catalog.get_self_href() or f"catalogue {catalog.id!r}"
    try:
        found = list(catalog.get_items(recursive=True)) if isinstance(catalog, pystac.Catalog) else []
    except Exception as cause:  # a broken link is whatever the reader of its href raises
        raise CatalogError(f"{where}: cannot be walked: {type(cause).__name__}: {cause}") from cause
    for item in found:
        document = item_document(item)
        parent = item.get_parent()
        if isinstance(parent, pystac.Collection):
            # Else the same id in two collections would pass for a duplicate.
            document.setdefault("collection", parent.id)
        yield read_item(document, where=where, base=item.get_self_href())


def _refuse_api(document: Mapping[str, Any], where: str) -> None:
    """Refuse what lists its items through an API: walked, it would seem empty."""
    relations = {link.get("rel") for link in document["links"]}
    if "search" in relations or ("items" in relations and not relations & {"item", "child"}):
        raise CatalogError(
            f"{where}: {document.get('id')!r} gives its items through an API; "
            "write search(url, collections=[...]) with the API's root URL"
        )


def _self_href(document: Mapping[str, Any]) -> str | None:
    hrefs = (link.get("href") for link in document.get("links") or [] if link.get("rel") == "self")
    return next((href for href in hrefs if href and is_absolute_href(href)), None)
