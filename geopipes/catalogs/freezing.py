"""A search kept in a file: found once, the same ever after."""

from __future__ import annotations

import difflib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pystac.utils import str_to_datetime
from shapely.geometry import mapping, shape

from geopipes.catalogs import geoparquet
from geopipes.catalogs.documents import item_document, read_item
from geopipes.catalogs.scenes import Scenes
from geopipes.errors import EmptySearch, FreezeError

if TYPE_CHECKING:
    from geopipes.read.sources import Modifier

_VERSION = 1  # of what stands in the header; another number is another meaning
_SUFFIXES = (".parquet", ".json", ".geojson")


def freeze(
    load: Callable[[], Scenes], path: str | os.PathLike[str], *, key: str, modifier: Modifier | None = None
) -> Scenes:
    """Replay what ``path`` holds, or else search and write it there.

    What is given is always read from the file, so that the first run and every later one see the same.
    The file appears whole or not at all: it is written beside its place, read back, compared and moved.
    ``gp.items(path)`` opens it without the search.

    Parameters
    ----------
    load : the search; not called where ``path`` holds this key
    path : ends in ``.parquet`` (stac-geoparquet; a folder of that name for several collections), or in
        ``.json`` or ``.geojson`` (a FeatureCollection, which also takes items without a geometry)
    key : what was searched for, as text that a person can compare; kept in the file
    modifier : signs hrefs when pixels are read; never stored

    Returns
    -------
    Scenes : in the order found, with the region searched and the count of duplicates

    Raises
    ------
    FreezeError : where ``path`` holds another search or none, cannot be read, or items were not kept whole
    EmptySearch : where the search finds nothing; nothing is written
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise FreezeError(f"freeze({str(path)!r}): needed is a path that ends in {', '.join(_SUFFIXES)}")
    if path.exists():
        return _replay(path, key, modifier)
    return replace(_store(load(), path, key), modifier=modifier)


def _store(scenes: Scenes, path: Path, key: str) -> Scenes:
    """Write what was found, and give what was written."""
    if not scenes:
        raise EmptySearch(f"freeze({str(path)!r}): the search found nothing, so there is nothing to keep:\n{key}")
    header = {
        "version": _VERSION,
        "key": key,
        "region": None if scenes.region is None else mapping(scenes.region),
        "duplicates": scenes.duplicates,
        "searched": scenes.searched,
    }
    documents = [item_document(item) for item in scenes]
    path.parent.mkdir(parents=True, exist_ok=True)
    # On the same disk, for a move between disks is no single act.
    workplace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        draft = workplace / path.name
        _write(documents, draft, header)
        kept = _replay(draft, key)
        _compare(documents, [item_document(item) for item in kept], path)
        try:
            os.replace(draft, path)
        except OSError:
            # Another process may have put its folder there meanwhile: the first one stands.
            if not path.exists():
                raise
            return _replay(path, key)
        return kept
    finally:
        shutil.rmtree(workplace)


def _write(documents: Sequence[Mapping[str, Any]], path: Path, header: Mapping[str, Any]) -> None:
    try:
        if path.suffix.lower() == ".parquet":
            geoparquet.write(documents, path, header=header)
        else:
            collection = {
                "type": "FeatureCollection",
                "geopipes": {**header, "total": len(documents)},
                "features": documents,
            }
            path.write_text(json.dumps(collection, indent=1), encoding="utf-8")
    except (ValueError, TypeError, NotImplementedError) as cause:
        advice = "; choose a path that ends in .json" if path.suffix.lower() == ".parquet" else ""
        raise FreezeError(f"freeze({path.name!r}): these items cannot be written: {cause}{advice}") from cause


def _read(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    if path.suffix.lower() == ".parquet":
        return geoparquet.read(os.fspath(path))
    collection = json.loads(path.read_text(encoding="utf-8"))
    return collection["features"], collection.get("geopipes")


def _replay(path: Path, key: str, modifier: Modifier | None = None) -> Scenes:
    mend = "delete it to search again, or choose another path"
    try:
        documents, header = _read(path)
        if header is None:
            raise FreezeError(f"{path} holds no frozen search; choose another path, or open it by items(...)")
        if header["version"] != _VERSION:
            raise FreezeError(f"{path} is of format {header['version']}, needed is {_VERSION}; {mend}")
        if header["key"] != key:
            changes = _changes(header["key"], key)
            raise FreezeError(f"{path} holds another search (-) than the one asked for (+); {mend}:\n{changes}")
        if header["total"] != len(documents):
            raise FreezeError(f"{path} holds {len(documents)} items of {header['total']}; {mend}")
        return Scenes(
            tuple(read_item(document, where=str(path)) for document in documents),
            region=None if header["region"] is None else shape(header["region"]),
            modifier=modifier,
            duplicates=header["duplicates"],
            searched=header.get("searched"),
        )
    except FreezeError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise FreezeError(f"{path} cannot be read as a frozen search: {cause}; {mend}") from cause


def _changes(held: str, asked: str) -> str:
    """Show the lines in which two keys differ."""
    lines = difflib.ndiff(held.splitlines(), asked.splitlines())
    return "\n".join(line for line in lines if line.startswith(("-", "+")))


def _compare(written: Sequence[Mapping[str, Any]], kept: Sequence[Mapping[str, Any]], path: Path) -> None:
    for was, now in zip(written, kept, strict=True):
        if place := _difference(_essence(was), _essence(now)):
            raise FreezeError(
                f"freeze({str(path)!r}): item {was.get('id')!r} was not kept whole: {place}; "
                "choose a path that ends in .json, or mend the item"
            )


def _essence(document: Mapping[str, Any]) -> dict[str, Any]:
    """Give what must survive: all but links, versions, and what stands at the top level without being STAC."""
    properties = geoparquet.plain(document["properties"])
    times = {name: _time(properties[name]) for name in geoparquet.TIMES if name in properties}
    geometry = document.get("geometry")
    return {
        "id": document["id"],
        "collection": document.get("collection"),
        "geometry": geometry and mapping(shape(geometry)),
        "properties": {**properties, **times},
        "assets": geoparquet.plain(document["assets"]),
    }


def _time(text: str) -> Any:
    """Read a time, for the same one is written in several ways; what is none stays as it is."""
    try:
        return str_to_datetime(text)
    except ValueError:
        return text


def _difference(was: Any, now: Any, place: str = "") -> str | None:
    """Say where two documents differ first, None where they do not; keys that came in addition are no loss."""
    parts: Iterable[tuple[str, Any, Any]]
    if was == now:
        return None
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        parts = ((f"{place}.{name}".lstrip("."), was[name], now.get(name)) for name in was)
    elif isinstance(was, list | tuple) and isinstance(now, list | tuple) and len(was) == len(now):
        parts = ((f"{place}[{index}]", *pair) for index, pair in enumerate(zip(was, now, strict=True)))
    elif isinstance(was, float) and isinstance(now, float) and math.isnan(was) and math.isnan(now):
        return None
    else:
        return f"{place} was {was!r} and came back as {now!r}"
    return next(filter(None, (_difference(old, new, at) for at, old, new in parts)), None)
