"""Items from files that no catalogue knows, by their headers; and vectors."""

from __future__ import annotations

import datetime as dt
import glob
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pystac
import shapely
from odc.geo.crs import norm_crs_or_error
from pyogrio.errors import DataSourceError
from pystac.utils import str_to_datetime
from rasterio.warp import transform_geom
from shapely.geometry import mapping, shape

from geopipes.catalogs.scenes import Scenes, unique
from geopipes.errors import CatalogError, EmptySearch
from geopipes.read.headers import OPENED_AT_ONCE, Asset, file_header
from geopipes.threads import mapped

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from shapely.geometry.base import BaseGeometry

    from geopipes.read.sources import Modifier
    from geopipes.read.stated import Header

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
Dated = dt.datetime | dt.date | str | None

_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
]
_DTYPES = {"complex64": "cfloat32", "complex128": "cfloat64"}  # STAC's names, where they are not numpy's
_EDGE_PARTS = 10  # of each edge of a footprint: straight in the file, bent in degrees, by 6 m over 180 km


@dataclass(frozen=True)
class _File:
    """What a file's name says.

    Attributes
    ----------
    href : absolute path or URL
    item : the href without its band: files that share it are one item
    band : None where the name has none
    time : UTC; None where nothing tells
    """

    href: str
    item: str
    band: str | None
    time: dt.datetime | None


def rasters(
    paths: Paths,
    *,
    pattern: str | None = None,
    date_format: str = "%Y%m%d",
    datetime: Callable[[str], Dated] | None = None,
    bands: Sequence[str] | None = None,
    collection: str | None = None,
    modifier: Modifier | None = None,
) -> Scenes:
    r"""Make items of raster files: GeoTIFF, COG, or whatever else GDAL opens.

    Parameters
    ----------
    paths : a path, a URL or a glob (``**`` for folders at any depth), or a list of these
    pattern : a regular expression searched in the file name, with named groups ``date`` and ``band``, of
        which either may be missing; files alike but for ``band`` are one item with an asset for each:
        ``r"_(?P<date>\d{8})_(?P<band>B\d+)\.TIF"``
    date_format : of the group ``date``, as ``datetime.strptime`` takes it
    datetime : gives the time of each file from its path or URL, instead of ``date``; what has no zone is UTC
    bands : names of the bands in each file; by default their descriptions if all have one, else b1, b2, ...
    collection : of the items
    modifier : signs hrefs when pixels are read, and here when headers are

    Returns
    -------
    Scenes : ordered as the paths (globs: sorted); asset keys are the bands of the pattern, else ``"data"``;
        CRS, transform, shape, dtype and nodata are those of the headers; datetime is null without a date

    Raises
    ------
    EmptySearch : for a glob or a list that holds nothing
    CatalogError : for a file name that does not fit the pattern, or bands in another number
    NotGeoreferenced : for a file without a CRS or an affine transform
    ReadError : for a header that cannot be read
    """
    hrefs = list(_expand(paths))
    named = [_named(href, pattern, date_format, datetime) for href in dict.fromkeys(hrefs)]
    if not named:
        raise EmptySearch("rasters(): the list of paths is empty")
    headers = mapped(lambda file: _header(file, collection, modifier), named, OPENED_AT_ONCE)
    members: dict[str, list[tuple[_File, Header]]] = {}
    for file, header in zip(named, headers, strict=True):
        members.setdefault(file.item, []).append((file, header))
    names = _item_ids(list(members))
    found, dropped = unique(
        _item(name, files, bands, collection) for name, files in zip(names, members.values(), strict=True)
    )
    return Scenes(found, modifier=modifier, duplicates=dropped + len(hrefs) - len(named))


def vectors(source: str | os.PathLike[str] | gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Open vectors whole: whatever geopandas reads, GeoParquet and Feather among it.

    Labels need not be opened: `geopipes.labels.rasterize` takes the path, and reads what lies near a chip.

    Raises
    ------
    CatalogError : for what cannot be read, and for vectors without a CRS
    """
    frame, name = source, f"vectors({type(source).__name__})"
    if not isinstance(source, gpd.GeoDataFrame):
        href = os.fspath(source)
        name = f"vectors({href!r})"
        readers = {
            ".parquet": gpd.read_parquet,
            ".geoparquet": gpd.read_parquet,
            ".feather": gpd.read_feather,
        }
        try:
            frame = readers.get(os.path.splitext(href)[1].lower(), gpd.read_file)(href)
        except (OSError, ValueError, DataSourceError) as cause:
            raise CatalogError(f"{name}: {cause}") from cause
    if not isinstance(frame, gpd.GeoDataFrame):
        raise CatalogError(f"{name}: needed is a layer with geometries, found is {type(frame).__name__}")
    if frame.crs is None:
        raise CatalogError(f"{name}: has no CRS; write vectors(geopandas.read_file(...).set_crs('EPSG:...'))")
    return frame


def _expand(paths: Paths) -> Iterator[str]:
    """Give the files of paths, URLs and globs."""
    if isinstance(paths, str | os.PathLike):
        href = os.fspath(paths)
        if "://" in href or href.startswith("/vsi"):
            yield href
            return
        path = os.path.abspath(os.path.expanduser(href))
        if os.path.isdir(path):
            raise CatalogError(f"rasters({href!r}): is a folder; write rasters({os.path.join(href, '**/*.tif')!r})")
        if os.path.exists(path) or not glob.has_magic(path):
            yield path
            return
        found = sorted(glob.glob(path, recursive=True))
        if not found:
            raise EmptySearch(f"rasters({href!r}): no file fits; it was looked for at {path}")
        yield from found
    elif isinstance(paths, pystac.Item) or not isinstance(paths, Iterable):
        mend = "items([item])" if isinstance(paths, pystac.Item) else "a path, a URL, or several"
        raise CatalogError(f"rasters({type(paths).__name__}): a path is needed; write {mend}")
    elif isinstance(paths, Iterator):
        raise CatalogError(
            f"rasters({type(paths).__name__}): a generator runs out, and a pipe must be able to start again; "
            "write rasters(list(...))"
        )
    else:
        for each in paths:
            yield from _expand(each)


def _named(href: str, pattern: str | None, date_format: str, datetime: Callable[[str], Dated] | None) -> _File:
    """Take apart a file's name."""
    folder, name = os.path.split(href.partition("?")[0])
    item, band, when = href, None, None
    if pattern is not None:
        match = re.search(pattern, name)
        groups = {} if match is None else match.groupdict()
        if match is None or not groups.keys() & {"date", "band"}:
            lacks = "it does not fit" if match is None else "needed is a group (?P<date>...) or (?P<band>...)"
            raise CatalogError(f"rasters(pattern={pattern!r}): file {name!r}: {lacks}")
        band, when = groups.get("band"), groups.get("date")
        if band is not None:
            item = f"{folder}/{name[: match.start('band')]}{name[match.end('band') :]}"
    try:
        given = datetime(href) if datetime else when and dt.datetime.strptime(when, date_format)
        return _File(href, item, band, _utc(given))
    except ValueError as cause:
        raise CatalogError(f"rasters(): the date of {name!r} cannot be read: {cause}") from cause


def _utc(given: Dated) -> dt.datetime | None:
    if given is None:
        return None
    if isinstance(given, str):
        given = str_to_datetime(given)
    elif not isinstance(given, dt.datetime):
        given = dt.datetime(given.year, given.month, given.day)
    return given.replace(tzinfo=dt.UTC) if given.tzinfo is None else given.astimezone(dt.UTC)


def _header(file: _File, collection: str | None, modifier: Modifier | None) -> Header:
    return file_header(Asset(file.href, file.item, collection, _key(file), modifier))


def _key(file: _File) -> str:
    return file.band or "data"


def _item_ids(files: list[str]) -> list[str]:
    """Name items by their files: the name without suffix, with as many folders as it takes to differ."""
    stems = [PurePosixPath(os.path.splitext(file.partition("?")[0])[0].rstrip("_-. ")).parts for file in files]
    for depth in range(1, max(map(len, stems)) + 1):
        names = ["/".join(parts[-depth:]) for parts in stems]
        if len(set(names)) == len(names):
            return names
    return files  # alike but for suffix or query


def _item(
    name: str,
    files: Sequence[tuple[_File, Header]],
    bands: Sequence[str] | None,
    collection: str | None,
) -> pystac.Item:
    times = list(dict.fromkeys(file.time for file, _ in files))
    if len(times) > 1:
        raise CatalogError(f"rasters(): the files of item {name!r} have several dates: {', '.join(map(str, times))}")
    geoboxes = dict.fromkeys(header.geobox for _, header in files)
    area = shapely.union_all([_footprint(geobox) for geobox in geoboxes])
    item = pystac.Item(
        name,
        geometry=json.loads(shapely.to_geojson(area)),
        bbox=list(area.bounds),
        datetime=times[0],
        # pystac wants the keys of a range where there is no instant.
        properties={} if times[0] else {"start_datetime": None, "end_datetime": None},
        stac_extensions=list(_EXTENSIONS),
        collection=collection,
    )
    for file, header in files:
        item.add_asset(_key(file), _asset(file, header, bands))
    return item


def _asset(file: _File, header: Header, bands: Sequence[str] | None) -> pystac.Asset:
    if bands is not None and len(bands) != header.count:
        raise CatalogError(f"rasters(bands={list(bands)!r}): {file.href} has {header.count} bands, not {len(bands)}")
    names = bands or header.descriptions
    if not all(names):
        names = [f"b{number}" for number in range(1, header.count + 1)]
    return pystac.Asset(
        file.href,
        media_type=pystac.MediaType.GEOTIFF if file.href.lower().endswith((".tif", ".tiff")) else None,
        roles=["data"],
        extra_fields={
            **_projection(header.geobox),
            "raster:bands": [
                {
                    "name": name,
                    "data_type": _DTYPES.get(str(dtype), str(dtype)),
                    "nodata": _json_number(nodata),
                }
                for name, dtype, nodata in zip(names, header.dtypes, header.nodata, strict=True)
            ],
        },
    )


def _projection(geobox: GeoBox) -> dict[str, Any]:
    """State a grid as the projection extension does."""
    crs = norm_crs_or_error(geobox.crs)
    name = {"proj:wkt2": crs.to_wkt()} if crs.epsg is None else {"proj:code": f"EPSG:{crs.epsg}"}
    return {**name, "proj:shape": list(geobox.shape), "proj:transform": list(geobox.transform)[:6]}


def _json_number(value: float | None) -> float | str | None:
    """Write a number as the raster extension does: "nan", "inf" and "-inf" are texts in JSON."""
    return value if value is None or math.isfinite(value) else str(float(value))


def _footprint(geobox: GeoBox) -> BaseGeometry:
    """Give the outline in longitude and latitude, cut at the antimeridian."""
    outline = geobox.extent.geom
    spacing = outline.length / (4 * _EDGE_PARTS)
    dense = mapping(shapely.segmentize(outline, spacing))
    return shape(transform_geom(norm_crs_or_error(geobox.crs).to_wkt(), "EPSG:4326", dense))
