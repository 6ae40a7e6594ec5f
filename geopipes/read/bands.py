"""Which band of which asset a name means, in the words of STAC, item by item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pystac

from geopipes.errors import SourceError, UnknownBand
from geopipes.read.stated import stated_bands
from geopipes.spelling import nearest

Bands = Sequence[str] | Mapping[str, str | Sequence[str]] | None
"""What a user may ask for: names, names of their own for them (with alternatives), or all."""

DISPLAY_KEYS = frozenset({"overview", "preview", "rendered_preview", "thumbnail", "visual", "visual-jp2"})
DISPLAY_ROLES = frozenset({"overview", "thumbnail", "visual"})
"""Assets to look at: never data unless asked for by their key."""

MSI: Mapping[str, str] = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2",
    "B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22",
}  # fmt: skip
"""What Earth Search calls the bands of Sentinel-2, which others offer by their own names."""

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")
"""Of rasters whose asset states no media type."""


@dataclass(frozen=True)
class Place:
    """Where a variable's pixels are within an item.

    Attributes
    ----------
    asset : its key
    number : of the band in the asset, from 1; None for all its bands
    """

    asset: str
    number: int | None = None


def find(item: pystac.Item, name: str) -> Place:
    """Find a band: by asset key, ``"key#2"``, band name, common name or a glob of asset keys, in this order.

    Where several assets hold a band of that name, those to look at (visual, overview, thumbnail) come last,
    an asset of one band before one of many, and JPEG 2000 after other formats.

    Raises
    ------
    UnknownBand
        no asset has it
    SourceError
        several have it, and none comes first
    """
    if name in item.assets:
        return Place(name)
    key, _, number = name.rpartition("#")
    if key and number.isdecimal():
        within = find(item, key)
        if within.number is None and int(number) > 0:
            return Place(within.asset, int(number))
        raise unknown(item, name)
    for field in ("name", "common_name"):
        places = _named(item, field, name)
        if places:
            return _only(item, name, places)
    places = [Place(key) for key, asset in item.assets.items() if _raster(asset) and fnmatchcase(key, name)]
    if places:
        return _only(item, name, places)
    raise unknown(item, name)


def find_any(item: pystac.Item, names: Iterable[str]) -> Place:
    """Find the first of several names that the item has.

    Raises
    ------
    UnknownBand
        the item has none of them
    """
    names = list(names)
    for name in names:
        try:
            return find(item, name)
        except UnknownBand:
            continue
    raise unknown(item, " or ".join(names))


def wanted(item: pystac.Item, bands: Bands) -> dict[str, Place]:
    """Give the place of each variable that was asked for, or of all the item's data."""
    if bands is None:
        return data(item)
    if isinstance(bands, str):
        raise SourceError(f"bands={bands!r}: a list is needed; write bands=[{bands!r}]")
    if isinstance(bands, Mapping):
        choices = {name: [each] if isinstance(each, str) else each for name, each in bands.items()}
        return {name: find_any(item, each) for name, each in choices.items()}
    return {name: find(item, name) for name in bands}


def data(item: pystac.Item) -> dict[str, Place]:
    """Give all raster data of an item: assets by key, those of several named bands by the bands' names.

    Left out are what is there to be looked at (thumbnail, overview, visual), metadata (unless it has the role
    data too), and JPEG 2000 twins of an asset: Earth Search lists ``red`` and ``red-jp2``.
    """
    places: dict[str, Place] = {}
    for key, asset in item.assets.items():
        roles = set(asset.roles or ())
        if not _raster(asset) or _for_display(key, asset) or ("metadata" in roles and "data" not in roles):
            continue
        if key.endswith("-jp2") and key.removesuffix("-jp2") in item.assets:
            continue
        names = [band.get("name") for band in stated_bands(item, asset)]
        if len(names) > 1 and all(names):
            found = {str(name): Place(key, number) for number, name in enumerate(names, 1)}
        else:
            found = {key: Place(key)}
        for name in found.keys() & places.keys():
            raise SourceError(
                f"item {item.id!r}: {name!r} is in asset {places[name].asset!r} and in {key!r}; "
                f"write bands=[{_written(places[name])!r}, ...] to say which"
            )
        places |= found
    return places


def unknown(item: pystac.Item, name: str) -> UnknownBand:
    """Make the error for a band that an item lacks; it lists those there are, and names those that may be meant."""
    there, known = [], []
    for key, asset in item.assets.items():
        if _raster(asset):
            bands = stated_bands(item, asset)
            names = [band[field] for field in ("name", "common_name") for band in bands if band.get(field)]
            known += [key, *map(str, names)]
            others = [str(name) for name in dict.fromkeys(names) if name != key]
            there.append(f"{key} ({', '.join(others)})" if others else key)
    listed = ", ".join(there or item.assets) or "no assets at all"
    return UnknownBand(f"item {item.id!r} has no band {name!r}; there are: {listed}{_meant(item, name, known)}")


def _meant(item: pystac.Item, name: str, known: Sequence[str]) -> str:
    """Propose a band, also for one that the platform calls so."""
    alike = MSI.get(name.upper(), "")
    sentinel2 = str(item.properties.get("platform", "")).lower().startswith("sentinel-2")
    return f"; did you mean {alike!r}?" if sentinel2 and alike in known else nearest(name, dict.fromkeys(known))


def _named(item: pystac.Item, field: str, name: str) -> list[Place]:
    """Give the best places of a band whose ``field`` is ``name``; several where they are equally good."""
    ranked: dict[tuple[bool, bool, bool], list[Place]] = {}
    for key, asset in item.assets.items():
        if not _raster(asset):
            continue
        bands = stated_bands(item, asset)
        rank = (_for_display(key, asset), len(bands) > 1, asset.media_type == pystac.MediaType.JPEG2000)
        for number, band in enumerate(bands, 1):
            if band.get(field) == name:
                ranked.setdefault(rank, []).append(Place(key, number))
    return ranked[min(ranked)] if ranked else []


def _only(item: pystac.Item, name: str, places: list[Place]) -> Place:
    if len(places) > 1:
        choices = ", ".join(repr(_written(place)) for place in places)
        raise SourceError(f"item {item.id!r}: {name!r} may mean {choices}; write one of these")
    return places[0]


def _written(place: Place) -> str:
    return place.asset if place.number is None else f"{place.asset}#{place.number}"


def _raster(asset: pystac.Asset) -> bool:
    if asset.media_type is None:
        return asset.href.lower().partition("?")[0].endswith(SUFFIXES) or "data" in (asset.roles or ())
    media_type = asset.media_type.lower().partition(";")[0]
    return media_type in ("image/tiff", "image/vnd.stac.geotiff", "image/jp2", "application/x-vrt")


def _for_display(key: str, asset: pystac.Asset) -> bool:
    roles = set(asset.roles or ())
    return key in DISPLAY_KEYS or ("data" not in roles and bool(roles & DISPLAY_ROLES))
