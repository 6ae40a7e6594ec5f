"""stac-geoparquet to item documents and back.

stac-geoparquet writes; reading is done here, because its ``stac_table_to_items`` fails where one item has a
``proj:geometry`` and another has none, and because a null that only says "another item has this" must go.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import stac_geoparquet.arrow
from pystac.utils import datetime_to_str, str_to_datetime
from shapely.geometry import mapping, shape

# The columns that are not properties: https://github.com/radiantearth/stac-geoparquet-spec
_TOP_LEVEL = (
    "type",
    "stac_version",
    "stac_extensions",
    "id",
    "bbox",
    "geometry",
    "collection",
    "links",
    "assets",
)
_BBOX = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")
# What stac-geoparquet stores as times: Arrow's have microseconds, texts may have more digits.
TIMES = (
    "datetime",
    "start_datetime",
    "end_datetime",
    "created",
    "updated",
    "expires",
    "published",
    "unpublished",
)
_HEADER = b"geopipes"


def write(documents: Sequence[Mapping[str, Any]], path: Path, *, header: Mapping[str, Any]) -> None:
    """Write items of one collection to a file, of several to a folder with a file for each.

    Parameters
    ----------
    documents : item documents, at least one, each with a geometry; a missing bbox is computed
    header : JSON that is kept in the metadata of each file

    Raises
    ------
    ValueError, NotImplementedError : for what Arrow cannot hold, as a field of mixed types
    """
    collections: dict[str | None, list[int]] = {}
    for position, document in enumerate(documents):
        collections.setdefault(document.get("collection"), []).append(position)
    files = [path]
    if len(collections) > 1:
        path.mkdir()
        names = [re.sub(r"[^\w.-]+", "_", name or "no-collection") for name in collections]
        files = [path / f"{number}-{name}.parquet" for number, name in enumerate(names)]
    for file, positions in zip(files, collections.values(), strict=True):
        reader = stac_geoparquet.arrow.parse_stac_items_to_arrow(
            [_writable(documents[position]) for position in positions], drop_invalid_properties=False
        )
        stac_geoparquet.arrow.to_parquet(reader, file)
        table = pq.read_table(file)  # again, because to_parquet lets nobody add to the metadata
        own = {**header, "positions": positions, "total": len(documents)}
        metadata = {**table.schema.metadata, _HEADER: json.dumps(own).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), file)


def read(href: str) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Read the items of a stac-geoparquet file, or of all in a folder.

    Parameters
    ----------
    href : a path, or a URL that Arrow or HTTP reads

    Returns
    -------
    (documents, header) : item documents without nulls, in the order before they were written; what `write`
        kept in the metadata, None for files of other origin (whose order is that of their names)

    Raises
    ------
    OSError, ValueError : for what cannot be read, is no stac-geoparquet, or lacks a part
    """
    files = sorted(map(str, Path(href).glob("*.parquet"))) if os.path.isdir(href) else [href]
    if not files:
        raise ValueError("the folder holds no .parquet file; name the file in it, as catalog.json")
    parts: list[tuple[list[dict[str, Any]], dict[str, Any]]] = []
    foreign: list[dict[str, Any]] = []
    for file in files:
        documents, header = _read_file(file)
        if header is None:
            foreign += documents
        else:
            parts.append((documents, header))
    if not parts:
        return foreign, None
    placed = {
        position: document
        for documents, header in parts
        for position, document in zip(header.pop("positions"), documents, strict=True)
    }
    header = parts[0][1]
    if foreign or any(other != header for _, other in parts) or sorted(placed) != list(range(header["total"])):
        raise ValueError(f"its {len(files)} files are not the ones that were written together")
    return [placed[position] for position in range(header["total"])], header


def _read_file(href: str) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    source: Any = href
    if href.startswith(("http://", "https://")):  # the one protocol that Arrow does not speak
        with urllib.request.urlopen(href) as response:
            source = pa.BufferReader(response.read())
    table = pq.read_table(source)
    if missing := {"id", "geometry"} - set(table.column_names):
        raise ValueError(f"{href} is no stac-geoparquet: it has no column {' and no '.join(sorted(missing))}")
    header = (table.schema.metadata or {}).get(_HEADER)
    return [_document(row) for row in table.to_pylist()], None if header is None else json.loads(header)


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    """Make an item document of a row: properties are columns of their own, the bbox is a struct."""
    properties = plain(row)
    item = {name: properties.pop(name) for name in _TOP_LEVEL if name in properties}
    if isinstance(item.get("bbox"), dict):
        item["bbox"] = [item["bbox"][name] for name in _BBOX if name in item["bbox"]]
    return {"type": "Feature", "geometry": None, "assets": {}, "links": [], **item, "properties": properties}


def _writable(document: Mapping[str, Any]) -> dict[str, Any]:
    """Make an item document that stac-geoparquet can write."""
    document = {"assets": {}, "links": [], "stac_extensions": [], "properties": {}, **plain(document)}
    if "geometry" not in document:
        raise ValueError(f"item {document.get('id')!r} has no geometry, and GeoParquet needs one")
    if not document.get("bbox"):  # pystac writes [] for none
        document["bbox"] = list(shape(document["geometry"]).bounds)
    properties = document["properties"]
    for name in TIMES:
        if name in properties:
            properties[name] = datetime_to_str(str_to_datetime(properties[name]))
    # A column must be there for the one time that every item has, be it null.
    properties.setdefault("datetime", None)
    return document


def plain(value: Any) -> Any:
    """Make JSON of what Arrow gives, without nulls and empty objects: they say as much as a missing key.

    Times become texts, bytes (WKB) become GeoJSON. Nulls in lists stay, for there a place counts.
    """
    if isinstance(value, Mapping):
        members = {key: plain(member) for key, member in value.items()}
        return {key: member for key, member in members.items() if member is not None and member != {}}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    if isinstance(value, datetime):
        return datetime_to_str(value)
    if isinstance(value, bytes):
        return plain(mapping(shapely.from_wkb(value)))
    return value
