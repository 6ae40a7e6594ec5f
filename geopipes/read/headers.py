"""Items to sources: which rasters hold a band, and on which grid, as the items or else the files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import Any, Literal

import numpy as np
import pystac
import rasterio
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning

from geopipes.errors import EmptySearch, NotGeoreferenced, ReadError, SourceError
from geopipes.read.bands import Bands, Place, unknown, wanted
from geopipes.read.facts import facts
from geopipes.read.failures import Signature, persist
from geopipes.read.gdal import GDAL_ERRORS, cause
from geopipes.read.hrefs import unsigned
from geopipes.read.sources import Modifier, Source
from geopipes.read.stated import DTYPES, Header, named_crs, stated_bands, stated_header
from geopipes.read.stores.gdal import forget, open_header
from geopipes.threads import mapped

OPENED_AT_ONCE = 16
"""Threads that open headers: they wait on the network, for about 3 round trips each."""

NOTHING = "no affine transform, no ground control points (GCPs) and no RPCs"


@dataclass(frozen=True)
class Band:
    """One variable, and the raster that holds it in each item.

    Attributes
    ----------
    name : of the variable
    labels : names along its band dimension; None for a variable without one
    sources : one for each item, in the items' order
    attrs : what the items state of it beyond: as `geopipes.read.facts.facts` gives it
    """

    name: str
    labels: tuple[str, ...] | None
    sources: tuple[Source, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


def sources(
    items: Sequence[pystac.Item],
    bands: Bands,
    *,
    modifier: Modifier | None = None,
    headers: Literal["item", "file"] = "item",
) -> list[Band]:
    """Find the rasters that hold the bands asked for.

    Where an item states CRS, transform, shape, dtype and nodata (an explicit null is a statement), no file is
    opened; where one of them is missing the file's header is read, and holds for all of them, save that
    nodata stays as the item states it where the file has none.

    Parameters
    ----------
    items : at least one
    bands : names as `geopipes.read.bands.find` takes them; a mapping gives variables names of one's own, and
        may list alternatives to be tried item by item: ``{"red": ["B04", "red", "SR_B4"]}``; None for all
        raster data. An asset asked for by its key that has several bands becomes one variable with a band
        dimension, labelled by band names, else the file's descriptions, else b1, b2, ...
    modifier : signs an item's hrefs when a file is opened; the sources keep them unsigned
    headers : "file" opens every header, and takes from the items no more than what band names mean

    Raises
    ------
    UnknownBand
        an item lacks a band; names the bands it has
    SourceError
        a name is ambiguous, or a variable's bands differ from item to item
    NotGeoreferenced
        a file has no CRS or no affine transform
    ReadError
        a header could not be read
    """
    if not items:
        raise EmptySearch("there are no items to find rasters in; widen the search")
    if headers not in ("item", "file"):
        raise SourceError(f"headers={headers!r}: write 'item' or 'file'")
    places = [wanted(item, bands) for item in items]
    names = dict.fromkeys(name for each in places for name in each)
    for item, each in zip(items, places, strict=True):
        for name in names.keys() - each.keys():
            raise unknown(item, name)
    if not names:
        raise SourceError(f"item {items[0].id!r} has no raster data; write bands=[...] with keys of its assets")
    known = _headers(items, places, modifier, opened=headers == "file")
    return [
        _band(name, items, [each[name] for each in places], [each[name] for each in known], modifier) for name in names
    ]


@dataclass(frozen=True)
class Asset:
    """A file whose header is read: what tells it in errors and signs its href."""

    href: str
    item: str = ""
    collection: str | None = None
    asset: str = ""
    modifier: Modifier | None = None


def file_header(href: str | Asset) -> Header:
    """Read the header of one file; a read that failed for a passing reason is tried again.

    Parameters
    ----------
    href : a path, a URL or anything GDAL opens; or an asset, which is signed

    Raises
    ------
    NotGeoreferenced
        the file has no CRS or no affine transform: says what it has instead
    ReadError
        it could not be read; says why
    SourceError
        it holds no bands (subdatasets, a vector file)
    """
    asset = Asset(href) if isinstance(href, str) else href
    name = unsigned(asset.href)
    signature, what = Signature(asset), f"{name}: the header could not be read"

    def work() -> Header:
        return _file_header(signature.href, name)

    try:
        return persist(work, signature, what=what, errors=(OSError, *GDAL_ERRORS), text=cause, mend=forget)
    except NotGeoreferencedWarning as error:  # rasterio's, where warnings are errors
        raise _not_georeferenced(name, NOTHING) from error


def _file_header(href: str, name: str) -> Header:
    with open_header(href) as file:
        _check_georeferenced(file, name)
        if file.count == 0:
            found = ", ".join(file.subdatasets) or "nothing"
            raise SourceError(f"{name}: no bands; it holds {found}. Name one of these as href")
        return Header(
            geobox=GeoBox(file.shape, file.transform, named_crs(CRS(file.crs))),
            count=file.count,
            dtypes=tuple(np.dtype(DTYPES.get(dtype, dtype)) for dtype in file.dtypes),
            nodata=file.nodatavals,
            descriptions=file.descriptions,
        )


def _headers(
    items: Sequence[pystac.Item],
    places: Sequence[dict[str, Place]],
    modifier: Modifier | None,
    *,
    opened: bool,
) -> list[dict[str, Header]]:
    """Give the header of each place: stated by its item, or read from its file, each file once."""

    def read(at: tuple[int, str]) -> Header:
        item, key = items[at[0]], at[1]
        header = _read(item, key, modifier)
        return header if opened else _completed(item, key, header)

    known: dict[tuple[int, str], Header] = {}
    missing: dict[tuple[int, str], None] = {}
    for index, each in enumerate(places):
        for key in {place.asset: None for place in each.values()}:
            stated = None if opened else stated_header(items[index], items[index].assets[key])
            if stated is None:
                missing[index, key] = None
            else:
                known[index, key] = stated
    known |= zip(missing, mapped(read, [*missing], OPENED_AT_ONCE), strict=True)
    return [{name: known[index, place.asset] for name, place in each.items()} for index, each in enumerate(places)]


def _read(item: pystac.Item, key: str, modifier: Modifier | None) -> Header:
    """Read a header from an item's file."""
    try:
        return file_header(Asset(_href(item, key), item.id, item.collection_id, key, modifier))
    except (SourceError, ReadError) as error:
        raise type(error)(f"item {item.id!r}, asset {key!r}: {error}") from error


def _completed(item: pystac.Item, key: str, header: Header) -> Header:
    """Fill what a file leaves open, nodata and names of bands, from its item."""
    bands = stated_bands(item, item.assets[key])
    if len(bands) != header.count:
        return header
    pairs = list(zip(bands, header.nodata, header.descriptions, strict=True))
    return replace(
        header,
        nodata=tuple(band.get("nodata") if own is None else own for band, own, _ in pairs),
        descriptions=tuple(band.get("name") or own for band, _, own in pairs),
    )


def _href(item: pystac.Item, key: str) -> str:
    """Give an asset's href, absolute where the item knows its own."""
    asset = item.assets[key]
    return asset.get_absolute_href() or asset.href


def _band(
    name: str,
    items: Sequence[pystac.Item],
    places: Sequence[Place],
    headers: Sequence[Header],
    modifier: Modifier | None,
) -> Band:
    labels = [_labels(place, header) for place, header in zip(places, headers, strict=True)]
    for item, each in zip(items, labels, strict=True):
        if each != labels[0]:
            raise SourceError(
                f"variable {name!r}: item {items[0].id!r} has the bands {labels[0] or 'of one raster'}, item "
                f"{item.id!r} has {each or 'one'}; ask for them one by one, as '{places[0].asset}#1'"
            )
    found = zip(items, places, headers, strict=True)
    return Band(name, labels[0], tuple(_source(*each, modifier) for each in found), facts(name, items, places))


def _labels(place: Place, header: Header) -> tuple[str, ...] | None:
    if place.number is not None or header.count == 1:
        return None
    names = [name for name in header.descriptions if name]
    if len(set(names)) == header.count:
        return tuple(names)
    return tuple(f"b{number}" for number in range(1, header.count + 1))


def _source(item: pystac.Item, place: Place, header: Header, modifier: Modifier | None) -> Source:
    if place.number is not None and place.number > header.count:
        raise unknown(item, f"{place.asset}#{place.number}")
    numbers = range(1, header.count + 1) if place.number is None else (place.number,)
    kinds = {(header.dtypes[number - 1], str(header.nodata[number - 1])) for number in numbers}
    if len(kinds) > 1:
        listed = ", ".join(sorted(f"{dtype} with nodata {nodata}" for dtype, nodata in kinds))
        raise SourceError(
            f"item {item.id!r}, asset {place.asset!r}: its bands are of several kinds ({listed}) and make no "
            f"single variable; ask for them one by one, as '{place.asset}#1'"
        )
    return Source(
        href=_href(item, place.asset),
        bands=tuple(numbers),
        geobox=header.geobox,
        dtype=header.dtypes[numbers[0] - 1],
        nodata=header.nodata[numbers[0] - 1],
        item=item.id,
        collection=item.collection_id,
        asset=place.asset,
        time=_time(item),
        modifier=modifier,
    )


def _time(item: pystac.Item) -> np.datetime64:
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        return np.datetime64("NaT", "ns")
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return np.datetime64(moment.replace(tzinfo=None), "ns")


def _check_georeferenced(file: rasterio.DatasetReader, name: str) -> None:
    if file.crs is not None and file.transform != Affine.identity():
        return
    points, _ = file.gcps
    if points:
        found = f"{len(points)} ground control points (GCPs) only"
        raise _not_georeferenced(name, found, "gdalwarp -tps -t_srs EPSG:...")
    if file.rpcs is not None:
        found = "rational polynomial coefficients (RPCs) only"
        raise _not_georeferenced(name, found, "gdalwarp -rpc -t_srs EPSG:...")
    raise _not_georeferenced(name, NOTHING if file.transform == Affine.identity() else "no CRS")


def _not_georeferenced(
    name: str, found: str, mend: str = "gdal_translate -a_srs EPSG:... -a_ullr LEFT TOP RIGHT BOTTOM"
) -> NotGeoreferenced:
    return NotGeoreferenced(
        f"{name}: has {found}; a CRS and an affine transform are needed. Georeference it first: {mend} IN OUT"
    )
