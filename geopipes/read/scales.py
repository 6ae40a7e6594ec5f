"""Scale and offset of stored numbers: what an item states, in several places, and what its product is known for."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pystac

from geopipes.errors import MixedScales, SourceError
from geopipes.kinds import is_categorical
from geopipes.read.facts import classified
from geopipes.read.headers import Band
from geopipes.read.sources import Source
from geopipes.read.stated import stated_bands

Scale = tuple[float, float]
"""(scale, offset): a physical number is ``scale * stored + offset``."""

Believed = Literal["flag", "bands", "baseline"]
"""What is believed of a Sentinel-2 offset: the flag that it was applied, ``raster:bands``, or the baseline alone."""

Rescale = bool | Believed | Callable[[pystac.Item, str], Scale | None]

FLAGS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied", "s2:boa_offset_applied")
"""Properties that say whether an offset was added to the pixels when they were written anew."""

BASELINES = ("s2:processing_baseline", "processing:version", "sentinel:processing_baseline")
PRODUCTS = ("s2:product_uri", "sentinel:product_id", "s2:datatake_id")
"""Properties that name the baseline of a Sentinel-2 product, and those that hold it, as ``_N0509_`` or ``_N05.09``."""

SENTINEL2 = re.compile(r"sentinel-?s?2-(pre-)?(c1-)?l(1c|2a)")
SENTINEL2_BAND = re.compile(r"b(0?[1-9]|1[0-2]|8a)")
SENTINEL2_SCALE = 1e-4
SENTINEL2_OFFSET = -0.1
"""Of reflectance since processing baseline 04.00, of 25 January 2022: BOA_ADD_OFFSET and RADIO_ADD_OFFSET are -1000.

https://sentinels.copernicus.eu/web/sentinel/-/copernicus-sentinel-2-major-products-upgrade-upcoming
"""
FIRST_WITH_OFFSET = (4, 0)

LANDSAT = re.compile(r"landsat-(\d-)?c2-?l2")
LANDSAT_REFLECTANCE: Scale = (2.75e-5, -0.2)
LANDSAT_TEMPERATURE: Scale = (0.00341802, 149.0)
"""Of Landsat Collection 2 Level 2: surface reflectance, and surface temperature [K].

https://www.usgs.gov/faqs/how-do-i-use-a-scale-factor-landsat-level-2-science-products
"""
REFLECTIVE = ("coastal", "blue", "green", "red", "nir", "nir08", "nir09", "swir16", "swir22")
THERMAL = ("lwir", "lwir11")


def rescaled(bands: Sequence[Band], items: Sequence[pystac.Item], rescale: Rescale) -> list[Band]:
    """Give sources the scale and offset of their pixels, item by item.

    Parameters
    ----------
    bands : each with a source for each item
    items : those
    rescale : as ``stack`` takes it

    Raises
    ------
    SourceError
        where an item contradicts itself, or only some items tell the scale of a band, or none of any

    Warns
    -----
    MixedScales
        where nothing is to be rescaled, and items tell different scales
    """
    if rescale is False:
        _warn_of_mixed(bands, items)
        return list(bands)
    if not callable(rescale) and rescale not in (True, "flag", "bands", "baseline"):
        raise SourceError(
            f"stack(rescale={rescale!r}): write True, 'flag', 'bands', 'baseline', or a function of an item and its "
            "asset's key"
        )
    done = []
    for band in bands:
        found = [scale_of(item, source, rescale) for item, source in zip(items, band.sources, strict=True)]
        open_ = [item.id for item, scale in zip(items, found, strict=True) if scale is None]
        if 0 < len(open_) < len(items):
            raise SourceError(
                f"stack(rescale={rescale!r}): {len(open_)} of {len(items)} items tell no scale of {band.name!r}, item "
                f"{open_[0]!r} first; let a function say it, rescale=lambda item, asset: (1e-4, 0.0)"
            )
        pairs = zip(band.sources, found, strict=True)
        done.append(replace(band, sources=tuple(replace(source, scale=scale) for source, scale in pairs)))
    if all(source.scale is None for band in done for source in band.sources):
        raise SourceError(
            f"stack(rescale={rescale!r}): no item tells a scale of {[band.name for band in bands]}; leave it out and "
            "write .scale([...], factor=..., offset=...) as the product's documentation states them"
        )
    return done


def _warn_of_mixed(bands: Sequence[Band], items: Sequence[pystac.Item]) -> None:
    """Say where items are mixed that tell different scales; those that contradict themselves tell none."""
    for band in bands:
        told: dict[Scale, str] = {}
        for item, source in zip(items, band.sources, strict=True):
            with suppress(SourceError):
                if (scale := scale_of(item, source, True)) is not None:
                    told.setdefault(scale, item.id)
        if len(told) > 1:
            words = ", ".join(f"{item!r} {scale:g} and {offset:g}" for (scale, offset), item in [*told.items()][:3])
            warnings.warn(
                f"stack: items tell different scales and offsets of {band.name!r} ({words}), and their pixels mixed "
                "as they are stored; write stack(rescale=True) for physical numbers",
                MixedScales,
                stacklevel=2,
            )
            return


def scale_of(item: pystac.Item, source: Source, rescale: Rescale) -> Scale | None:
    """Tell the scale and offset of a source; None where nothing is known of them, and for classes."""
    if callable(rescale):
        given = rescale(item, source.asset)
        return None if given is None else _checked(given, source)
    asset = item.assets[source.asset]
    listed = stated_bands(item, asset)
    number = source.bands[0] - 1
    band = listed[number] if number < len(listed) else {}
    names = [str(name).lower() for name in (source.asset, band.get("name"), band.get("common_name")) if name]
    if classified(item, source.asset, band) or any(is_categorical(name, source.dtype) for name in names):
        return None
    scale, offset = _stated(source, listed, asset)
    whole = _checked((1.0 if scale is None else scale, 0.0 if offset is None else offset), source)
    stated = None if scale is None and offset is None else whole
    collection = (source.collection or "").lower().replace("_", "-")
    sentinel2 = SENTINEL2.match(collection) or "s2:processing_baseline" in item.properties
    if sentinel2 and source.dtype == np.uint16 and _reflectance(names):
        own = None if offset is None else whole[1]
        return SENTINEL2_SCALE if scale is None else whole[0], _sentinel2(item, source, own, rescale)
    if stated is None and LANDSAT.match(collection) and source.dtype == np.uint16:
        if any(name in THERMAL or name in ("st_b6", "st_b10") for name in names):
            return LANDSAT_TEMPERATURE
        if any(name in REFLECTIVE or name.startswith("sr_b") for name in names):
            return LANDSAT_REFLECTANCE
    return stated


def _stated(source: Source, listed: Sequence[dict[str, Any]], asset: pystac.Asset) -> list[float | None]:
    """Give scale and offset as the raster extension states them: in ``raster:bands``, or STAC 1.1's bands and asset."""
    found = []
    for number in source.bands:
        band = listed[number - 1] if number <= len(listed) else {}
        said = {**asset.extra_fields, **band}  # STAC 1.1 states for the asset what holds for all its bands
        found.append([said.get(f"raster:{word}", band.get(word)) for word in ("scale", "offset")])
    if any(pair != found[0] for pair in found):
        raise SourceError(
            f"item {source.item!r}, asset {source.asset!r}: its bands have several scales and offsets; ask for them "
            f"one by one, as '{source.asset}#1'"
        )
    return found[0]


def _checked(given: Any, source: Source) -> Scale:
    """Refuse what is no scale and offset."""
    try:
        scale, offset = (float(number) for number in given)
    except (TypeError, ValueError):
        scale = offset = float("nan")
    if not (np.isfinite([scale, offset]).all() and scale != 0):
        raise SourceError(
            f"item {source.item!r}, asset {source.asset!r}: {given!r} is no scale and offset; two finite numbers are "
            "needed, the first not 0"
        )
    return scale, offset


def _reflectance(names: Sequence[str]) -> bool:
    """Say whether a band of Sentinel-2 holds reflectance: aerosol and water vapour do not, whatever their roles."""
    return any(SENTINEL2_BAND.fullmatch(name) or name in REFLECTIVE or name.startswith("rededge") for name in names)


def _sentinel2(item: pystac.Item, source: Source, stated: float | None, rescale: Any) -> float:
    """Tell the offset of Sentinel-2 reflectance: all that the item says must agree, unless one is to be believed."""
    said = _said(item, stated)
    if rescale in said:
        return said[rescale][0]
    # The flag speaks of what was done to the product: it stands above the baseline, and beside raster:bands.
    counts = {key: said[key] for key in ("flag" if "flag" in said else "baseline", "bands") if key in said}
    offsets = {offset for offset, _ in counts.values()}
    if len(offsets) == 1:
        return offsets.pop()
    named = f"stack(rescale={rescale!r}): item {item.id!r}, asset {source.asset!r},"
    if offsets:
        told = " and ".join(f"{words} (offset {offset:g})" for offset, words in counts.values())
        raise SourceError(
            f"{named} contradicts itself: {told}. Say which to believe, "
            f"{' or '.join(f'rescale={key!r}' for key in counts)}: water and shadows hold some hundred DN where the "
            "offset has been applied, and more than 1000 where it has not"
        )
    raise SourceError(
        f"{named} names neither the offset of Sentinel-2 reflectance nor its processing baseline: since 04.00 it is "
        "-0.1. Say it, rescale=lambda item, asset: (1e-4, -0.1)"
    )


def _said(item: pystac.Item, stated: float | None) -> dict[str, tuple[float, str]]:
    """Give the offset by each of a Sentinel-2 item's statements that is there, and the statement in words.

    Since baseline 04.00 products hold 10000 times the reflectance plus 1000. Whoever writes them anew may have taken
    the 1000 away, which a flag tells, and may state an offset in ``raster:bands``.
    """
    said = {}
    flag = next((item.properties[key] for key in FLAGS if key in item.properties), None)
    if (baseline := _baseline(item)) is not None:
        offset = SENTINEL2_OFFSET if baseline >= FIRST_WITH_OFFSET else 0.0
        said["baseline"] = (offset, f"its baseline is {baseline[0]:02}.{baseline[1]:02}")
    if flag or (flag is False and baseline is not None):
        said["flag"] = (0.0 if flag else said["baseline"][0], f"its boa_offset_applied is {flag}")
    if stated is not None:
        said["bands"] = (stated, f"its raster:bands state the offset {stated:g}")
    return said


def _baseline(item: pystac.Item) -> tuple[int, int] | None:
    """Give the processing baseline of a Sentinel-2 item, (5, 9) for 05.09."""
    for key in BASELINES:
        if found := re.fullmatch(r"(\d+)\.(\d+)", str(item.properties.get(key, ""))):
            return int(found[1]), int(found[2])
    for text in (*(str(item.properties.get(key, "")) for key in PRODUCTS), item.id):
        if found := re.search(r"_N(\d\d)\.?(\d\d)(_|$)", text):
            return int(found[1]), int(found[2])
    return None
