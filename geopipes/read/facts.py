"""What items state of a band beyond its pixels: what it sees, from where, and whether it holds classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pystac

from geopipes.kinds import CATEGORICAL
from geopipes.read.bands import Place
from geopipes.read.stated import stated_bands

CLASSIFIED = ("classification:classes", "classification:bitfields", "file:values")
"""Fields of the extensions for classification and files by which an asset, or a band of it, names classes or bits."""


def facts(name: str, items: Sequence[pystac.Item], places: Sequence[Place]) -> dict[str, Any]:
    """Give what the items agree on of a band, as attributes of its variable.

    Parameters
    ----------
    name : of the variable
    items, places : and where the band is in each

    Returns
    -------
    where stated: ``common_name`` and ``band``, its name in ``eo:bands`` or else the asset's key, if it is another than
    the variable's; ``platform``, several with commas between them; ``categorical``, True
    """
    bands = [_band(item, place) for item, place in zip(items, places, strict=True)]
    attrs: dict[str, Any] = {}
    if common := _one(band.get("common_name") for band in bands):
        attrs["common_name"] = common
    own = _one(band.get("name") or place.asset for band, place in zip(bands, places, strict=True))
    if own and own != name:
        attrs["band"] = own
    platforms = {platform(item) for item in items} - {""}
    if platforms and all(band.get("common_name") or band.get("name") for band in bands):
        attrs["platform"] = ", ".join(sorted(platforms))
    if all(classified(item, place.asset, band) for item, place, band in zip(items, places, bands, strict=True)):
        attrs[CATEGORICAL] = True
    return attrs


def classified(item: pystac.Item, asset: str, band: Mapping[str, Any]) -> bool:
    """Say whether an item names the classes of a band."""
    return any(field in holder for holder in (band, item.assets[asset].extra_fields) for field in CLASSIFIED)


def platform(item: pystac.Item) -> str:
    """Give an item's platform as most catalogues write it: ``"sentinel-2a"``, ``"landsat-8"``; empty for none."""
    stated = item.properties.get("platform") or ""
    return str(stated).lower().replace("_", "-").replace(" ", "-")


def _band(item: pystac.Item, place: Place) -> dict[str, Any]:
    """Give what is stated of the one band that a place is; of several nothing."""
    bands = stated_bands(item, item.assets[place.asset])
    if place.number is not None:
        return bands[place.number - 1] if place.number <= len(bands) else {}
    return bands[0] if len(bands) == 1 else {}


def _one(stated: Iterable[Any]) -> str | None:
    """Give what all state alike; None where they do not."""
    found = set(stated)
    one = found.pop() if len(found) == 1 else None
    return None if one is None else str(one)
