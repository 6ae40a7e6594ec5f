"""What a STAC item states of its rasters: bands, grid, dtype and nodata, without opening a file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pystac
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError

from geopipes.errors import SourceError

DTYPES = {
    "cint16": "complex64",
    "cint32": "complex64",
    "complex_int16": "complex64",
    "cfloat32": "complex64",
    "cfloat64": "complex128",
}
"""Names of STAC and GDAL for dtypes that numpy calls otherwise, or that rasterio reads as another."""


@dataclass(frozen=True)
class Header:
    """What is known of a raster file without its pixels.

    Attributes
    ----------
    geobox : CRS, affine transform and shape (y, x)
    count : number of bands
    dtypes, nodata, descriptions : one for each band; nodata and descriptions None where there is none
    """

    geobox: GeoBox
    count: int
    dtypes: tuple[np.dtype[np.generic], ...]
    nodata: tuple[float | None, ...]
    descriptions: tuple[str | None, ...]


def stated_bands(item: pystac.Item, asset: pystac.Asset) -> list[dict[str, Any]]:
    """Give what the item states about each band of an asset.

    ``raster:bands``, ``bands`` (STAC 1.1) and ``eo:bands`` are put together; where they differ in number, the
    first of these that is there counts. ``data_type`` and ``nodata`` of the asset, or else of the item, hold
    for all its bands (STAC 1.1's common metadata).

    Returns
    -------
    a dict for each band, with ``name``, ``common_name``, ``data_type`` and ``nodata`` where they are stated;
    empty where nothing tells how many bands there are
    """
    fields = asset.extra_fields
    lists = [fields.get(key) or [] for key in ("raster:bands", "bands", "eo:bands")]
    common: dict[str, Any] = {}
    for holder in (item.properties, fields):
        common.update({key: holder[key] for key in ("data_type", "nodata") if key in holder})
    count = next((len(each) for each in lists if each), int("data_type" in common))
    bands = [dict(common) for _ in range(count)]
    for each in reversed(lists):
        # zip, not strict: lists may differ in number. Old items refer to their bands by index: nothing is
        # stated by a number alone.
        for band, stated in zip(bands, each, strict=False):
            if isinstance(stated, Mapping):
                band.update(stated)
    for band in bands:
        if "eo:common_name" in band:
            band["common_name"] = band["eo:common_name"]
        nodata = band.pop("nodata", "none stated")
        with suppress(TypeError, ValueError):  # what is no number states nothing
            band["nodata"] = None if nodata is None else float(nodata)  # "nan", "inf" and "-inf" are text
    return bands


def stated_geobox(item: pystac.Item, asset: pystac.Asset) -> GeoBox | None:
    """Give the grid that an item states for an asset, None where something is missing.

    From ``proj:code``, ``proj:epsg``, ``proj:wkt2`` or ``proj:projjson``, with ``proj:transform`` and
    ``proj:shape``, of the asset or else of the item. Transform and shape are taken from one of the two: an
    asset of another resolution may override only one of them.

    Raises
    ------
    SourceError
        PROJ does not know the CRS stated
    """
    holders = (asset.extra_fields, item.properties)
    crs = next((crs for holder in holders if (crs := _stated_crs(item, holder)) is not None), None)
    grid = next((each for each in holders if each.get("proj:transform") or each.get("proj:shape")), {})
    transform, shape = grid.get("proj:transform"), grid.get("proj:shape")
    if crs is None or not transform or len(transform) not in (6, 9) or not shape or len(shape) != 2:
        return None
    affine = Affine(*transform[:6])
    # The identity stands where a file has no transform of its own: its header tells why.
    return None if affine == Affine.identity() else GeoBox((int(shape[0]), int(shape[1])), affine, crs)


def stated_header(item: pystac.Item, asset: pystac.Asset) -> Header | None:
    """Give the header as far as the item states all of it, else None."""
    geobox = stated_geobox(item, asset)
    bands = stated_bands(item, asset)
    if geobox is None or not bands or not all("nodata" in band for band in bands):
        return None
    if len(bands) > 1 and not all(band.get("name") for band in bands):
        return None  # the file may have descriptions
    stated = [_dtype(band.get("data_type")) for band in bands]
    dtypes = tuple(dtype for dtype in stated if dtype is not None)  # by `is`: numpy holds float64 equal to None
    if len(dtypes) < len(bands):
        return None
    return Header(
        geobox=geobox,
        count=len(bands),
        dtypes=dtypes,
        nodata=tuple(band["nodata"] for band in bands),
        descriptions=tuple(band.get("name") for band in bands),
    )


def named_crs(crs: CRS) -> CRS:
    """Name a CRS by its EPSG code where it has one: equal CRSs are then equal as text and as keys."""
    return crs if crs.to_epsg() is None else CRS(f"EPSG:{crs.to_epsg()}")


def _dtype(stated: object) -> np.dtype[np.generic] | None:
    """Give numpy's dtype, None where none is stated or numpy knows none ("other")."""
    if not isinstance(stated, str):
        return None
    try:
        return np.dtype(DTYPES.get(stated, stated))
    except TypeError:
        return None


def _stated_crs(item: pystac.Item, holder: dict[str, Any]) -> CRS | None:
    code, epsg = holder.get("proj:code"), holder.get("proj:epsg")
    stated = code or (f"EPSG:{epsg}" if epsg else None) or holder.get("proj:wkt2") or holder.get("proj:projjson")
    if stated is None:
        return None
    try:
        return named_crs(CRS(stated))
    except CRSError as error:
        raise SourceError(
            f"item {item.id!r} states a CRS that PROJ does not know: {stated!r}; "
            "write headers='file' to take it from the files"
        ) from error
