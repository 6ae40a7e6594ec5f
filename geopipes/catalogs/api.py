"""A search of a STAC API, through pystac-client."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pystac
import pystac_client
import shapely
from pystac_client.item_search import OP_MAP
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import DoesNotConformTo
from shapely.geometry import box, mapping, shape

from geopipes.catalogs.documents import read_item
from geopipes.catalogs.pages import Asker, PageError, paged
from geopipes.catalogs.scenes import Scenes, unique
from geopipes.errors import CatalogError
from geopipes.read.failures import RETRIES

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from geopipes.read.sources import Modifier


class HasGeoInterface(Protocol):
    """What can say its geometry: shapely, geopandas, pystac, ..."""

    @property
    def __geo_interface__(self) -> dict[str, Any]: ...


LONGEST = 500
"""Characters of an API's answer that an error shows: it may be a page of HTML."""

Instant = str | dt.datetime | None


def search(
    url: str,
    *,
    collections: str | Sequence[str] | None = None,
    bbox: Sequence[float] | None = None,
    intersects: Mapping[str, Any] | HasGeoInterface | None = None,
    datetime: Instant | Sequence[Instant] = None,
    query: Mapping[str, Any] | Sequence[str] | None = None,
    filter: Mapping[str, Any] | str | None = None,
    filter_lang: Literal["cql2-json", "cql2-text"] | None = None,
    ids: str | Sequence[str] | None = None,
    sortby: str | Sequence[str] | Sequence[Mapping[str, str]] | None = None,
    fields: str | Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    max_items: int | None = None,
    limit: int | None = None,
    headers: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    modifier: Modifier | None = None,
    method: Literal["POST", "GET"] = "POST",
    timeout: float | None = 60.0,
    retries: int = RETRIES,
) -> Scenes:
    """Search a STAC API and take all pages of what it finds.

    A page that does not come is asked for again, after the time that the API says (Retry-After), else after waits that
    double; pages before it are not. Where it does not come at all, an error says so, and the same search goes on at
    that page, in the same process, if the cause may have passed by then.

    Parameters
    ----------
    url : of the API's landing page
    collections, ids : names, one or several
    bbox : west, south, east, north [degrees] (or six numbers, with heights); west > east crosses 180
    intersects : a geometry in longitude and latitude: GeoJSON, shapely, or a GeoDataFrame in any CRS;
        instead of ``bbox``
    datetime : an instant or a range, ``"2024-05/2024-09"``, ``(start, None)``
    query : ``{"eo:cloud_cover": {"lt": 10}}`` or ``["eo:cloud_cover<10"]``
    filter, filter_lang : CQL2, a dict for JSON or a str for text; most APIs take text by GET alone, and without
        ``filter_lang`` pystac-client translates it for POST by the package cql2
    sortby : ``"-properties.datetime"``, or several
    fields : what the API may leave out, ``["-assets.thumbnail"]``; reading needs ids and assets
    max_items : at most so many items in all
    limit : items on each page
    headers, parameters : sent with every request, as for an API key
    modifier : signs hrefs when pixels are read, as ``planetary_computer.sign_inplace``; kept for then
    method : how the search is sent
    timeout : of each request [s]; None waits for ever
    retries : how often each request is tried again that failed for a passing reason

    Returns
    -------
    Scenes : in the API's order; duplicates over pages are dropped and counted

    Raises
    ------
    CatalogError : where the API cannot be reached, refuses, or is none; names the URL, the page and the cause
    """
    region = _region(bbox, intersects)
    if retries < 0:
        raise CatalogError(f"search(retries={retries}): give a number of tries after the first, 0 or more")
    io = StacApiIO(dict(headers or {}), parameters=dict(parameters or {}), timeout=timeout, max_retries=None)
    asker = Asker(io, retries)
    try:
        client = asker.ask(lambda: pystac_client.Client.open(url, stac_io=io, timeout=timeout))
        if client.get_search_link() is not None:
            # Older APIs have the search and do not say so.
            client.add_conforms_to("ITEM_SEARCH")
        found = client.search(
            method=method,
            max_items=max_items,
            limit=limit,
            ids=_listed(ids),
            collections=_listed(collections),
            bbox=_listed(bbox),
            intersects=None if intersects is None or region is None else mapping(region),
            datetime=_listed(datetime),
            query=_query(query),
            filter=dict(filter) if isinstance(filter, Mapping) else filter,
            filter_lang=filter_lang,
            sortby=_listed(sortby),
            fields={kind: list(names) for kind, names in fields.items()}
            if isinstance(fields, Mapping)
            else _listed(fields),
        )
        documents = paged(asker, io, found.url, found.method or method, found.get_parameters(), most=max_items)
    except Exception as error:  # pystac-client raises bare Exception for a wrong limit or query
        cause = error.__cause__ if isinstance(error, PageError) and isinstance(error.__cause__, Exception) else error
        raise CatalogError(f"search({url!r}): {_told(error, cause)}{_advice(cause)}") from cause
    finally:
        io.session.close()
    items, dropped = unique(read_item(document, where=url) for document in documents)
    return Scenes(
        items, region=region, modifier=modifier, duplicates=dropped, searched=found.get_parameters().get("datetime")
    )


def _told(error: Exception, cause: Exception) -> str:
    """Say which page failed, and why, and how often it was tried."""
    text, page = str(cause), "" if error is cause else f"{error}: "
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    notes = "".join(f" ({note})" for note in getattr(cause, "__notes__", ()))
    return f"{page}{type(cause).__name__}: {text}{notes}"


def _advice(cause: Exception) -> str:
    status = getattr(cause, "status_code", None)  # of an APIError that has a response
    if status in (401, 403):
        return "; the API wants a key: pass it by headers={...} or parameters={...}"
    if status == 404 or isinstance(cause, pystac.STACError | json.JSONDecodeError | DoesNotConformTo):
        return "; needed is the root URL of a STAC API; open a static catalogue by items(url)"
    return ""


def _listed(value: Any) -> Any:
    """Give a list of several, for pystac-client takes lists alone."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _query(query: Mapping[str, Any] | Sequence[str] | None) -> dict[str, Any] | None:
    """Make the JSON of ``["eo:cloud_cover<10"]``, whose numbers pystac-client would send as texts.

    A text that is compared by order with a number finds nothing in most APIs, and no error either. What is
    compared by equality stays a text: it may be a tile's name.
    """
    if query is None or isinstance(query, Mapping):
        return query if query is None else dict(query)
    tests: dict[str, dict[str, Any]] = {}
    for text in [query] if isinstance(query, str) else query:
        match = re.fullmatch(r"\s*(.+?)\s*(>=|<=|<>|=|>|<)\s*(.*?)\s*", text)
        if match is None:
            raise CatalogError(f"search(query=[{text!r}]): needed is a comparison, as 'eo:cloud_cover<10'")
        name, operator, value = match.groups()
        number = _number(value) if operator in (">=", "<=", ">", "<") else None
        tests.setdefault(name, {})[OP_MAP[operator]] = value if number is None else number
    return tests


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _region(
    bbox: Sequence[float] | None, intersects: Mapping[str, Any] | HasGeoInterface | None
) -> BaseGeometry | None:
    """Give what is searched as a geometry in longitude and latitude."""
    if intersects is not None:
        if bbox is not None:
            raise CatalogError("search(bbox=..., intersects=...): an API takes one of them; leave one out")
        return _geometry(intersects)
    if bbox is None:
        return None
    if len(bbox) not in (4, 6):
        raise CatalogError(f"search(bbox={bbox!r}): needed are (west, south, east, north) in degrees")
    half = len(bbox) // 2  # six numbers: with the lowest and highest height
    (west, south), (east, north) = bbox[:2], bbox[half : half + 2]
    if south > north:
        raise CatalogError(f"search(bbox={bbox!r}): south {south} is above north {north}; swap them")
    if west > east:  # across the antimeridian, as GeoJSON says (RFC 7946, 5.2)
        return box(west, south, 180, north) | box(-180, south, east, north)
    return box(west, south, east, north)


def _geometry(intersects: Mapping[str, Any] | HasGeoInterface) -> BaseGeometry:
    if hasattr(intersects, "to_crs"):  # of geopandas: its own CRS, which the interface does not tell
        intersects = intersects.to_crs(4326)
    document = intersects if isinstance(intersects, Mapping) else intersects.__geo_interface__
    features = document.get("features", [document])
    geometries = [shape(feature.get("geometry") or feature) for feature in features]
    return geometries[0] if len(geometries) == 1 else shapely.union_all(geometries)
