"""Opening vectors, whatever holds them, and refusing what cannot be labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from geopipes.catalogs import Scenes
from geopipes.errors import CatalogError, ReadError, SourceError, UnknownBand
from geopipes.labels.features import check_shapes
from geopipes.labels.rowgroups import footer, row_groups, stated_crs
from geopipes.labels.sources import IndexedFile, Loaded, Several, Vectors
from geopipes.read.failures import SigningError, signed_href

if TYPE_CHECKING:
    import pystac

PARQUET = (".parquet", ".geoparquet")

MEDIA_TYPES = ("geo+json", "geopackage", "flatgeobuf", "parquet", "shapefile", "vnd.shp")
"""Parts of the media types of vectors."""

ONE_LAYER = (".geojson", ".json", ".fgb", ".shp")
"""Of files that have one layer; to ask would read some of them whole."""

TURN = 360.0


def opened(source: Any, columns: Sequence[str], *, layer: str | None = None) -> Vectors:
    """Open vectors, to be read by window.

    Parameters
    ----------
    source : a path or URL, a GeoDataFrame, or items of STAC's label extension
    columns : that will be asked for
    layer : of a file that has several

    Raises
    ------
    CatalogError
        for what cannot be read, and for what has no CRS or no features
    UnknownBand
        for a column that is not there
    SourceError
        for coordinates that cannot be of the CRS, and features without geometry
    """
    if isinstance(source, Vectors):
        return source
    if isinstance(source, gpd.GeoDataFrame):
        return _checked(_of_frame(source, columns))
    if isinstance(source, str | os.PathLike):
        return _checked(_of_file(_located(os.fspath(source)), columns, layer))
    if not isinstance(source, Scenes):
        source = Scenes(tuple(source) if isinstance(source, Iterable) else (source,))
    return _of_items(source, columns, layer)


def _of_frame(frame: gpd.GeoDataFrame, columns: Sequence[str], name: str = "", source: str | None = None) -> Vectors:
    name = name or f"GeoDataFrame of {len(frame)} features"
    check_columns(name, columns, [str(one) for one in frame.columns if one != frame.geometry.name])
    wkt = _wkt(name, frame.crs)
    _not_none(name, len(frame))
    values = {column: frame[column].to_numpy() for column in columns}
    return Loaded.of(name, wkt, np.arange(len(frame)), np.asarray(frame.geometry.array, object), values, source=source)


def _of_file(path: str, columns: Sequence[str], layer: str | None) -> Vectors:
    name = repr(path.partition("?")[0])
    try:
        if os.path.splitext(path.partition("?")[0])[1].lower() in PARQUET:
            return _of_parquet(path, name, columns)
        return _of_layer(path, name, columns, layer)
    except (OSError, ValueError, DataSourceError, DataLayerError) as cause:
        if isinstance(cause, SourceError | CatalogError):
            raise
        raise CatalogError(f"{name}: {cause}") from cause


def _of_parquet(path: str, name: str, columns: Sequence[str]) -> Vectors:
    found = footer(path, name)
    check_columns(name, columns, [one for one in found.names if one != found.column])
    by_group = row_groups(path, name, found, columns, _wkt(name, stated_crs(found.geometry)))
    if by_group is not None:
        return by_group
    frame = gpd.read_parquet(path, columns=[found.column, *columns])
    return _of_frame(frame, columns, name, path)


def _of_layer(path: str, name: str, columns: Sequence[str], layer: str | None) -> Vectors:
    if layer is not None or not path.lower().endswith(ONE_LAYER):
        there = [str(one) for one in pyogrio.list_layers(path)[:, 0]]
        if (layer is None and len(there) > 1) or (layer is not None and layer not in there):
            listed = ", ".join(map(repr, there))
            raise CatalogError(f"{name}: layer={layer!r}; there are {listed}: choose one, layer=...")
    info = pyogrio.read_info(path, layer=layer, force_feature_count=True, force_total_bounds=True)
    check_columns(name, columns, [str(one) for one in info["fields"]])
    wkt = _wkt(name, info["crs"])
    _not_none(name, info["features"])
    if info["geometry_type"] is None or info["total_bounds"] is None:
        raise CatalogError(f"{name}: layer {info['layer_name']!r} has no geometries")
    bounds = tuple(float(one) for one in info["total_bounds"])
    file = IndexedFile(name, wkt, bounds, path, info["layer_name"], tuple(columns))  # type: ignore[arg-type]  # four
    if info["capabilities"]["fast_spatial_filter"]:
        if info["driver"] == "GPKG":
            _check_geopackage(file, info)
        return file
    _, ids, shapes, values = file._read()
    order = np.argsort(ids)
    sorted_values = {column: value[order] for column, value in values.items()}
    return Loaded.of(name, wkt, ids[order], shapely.from_wkb(shapes[order]), sorted_values, source=path)


def _check_geopackage(file: IndexedFile, info: dict[str, Any]) -> None:
    """Raise where a GeoPackage holds features without geometry, which its index never finds."""
    geometry, key = info["geometry_name"], info["fid_column"]
    lacking = f'SELECT "{key}" + 0 AS number FROM "{file.layer}" WHERE "{geometry}" IS NULL OR ST_IsEmpty("{geometry}")'
    _, _, _, (ids,) = pyogrio.raw.read(file.path, sql=lacking, read_geometry=False)
    if len(ids):
        check_shapes(file.name, np.asarray(ids), np.full(len(ids), None, object), of=info["features"])


def _of_items(scenes: Scenes, columns: Sequence[str], layer: str | None) -> Vectors:
    """Open the label assets of items, all in one CRS."""
    if len(scenes) == 0:
        raise CatalogError("rasterize: there are no label items; widen their search")
    parts = []
    for item in scenes:
        key = label_asset(item)
        href = item.assets[key].get_absolute_href() or item.assets[key].href
        try:
            signed = signed_href(href, item=item.id, collection=item.collection_id, asset=key, modifier=scenes.modifier)
        except SigningError as error:
            raise ReadError(f"item {item.id!r}, asset {key!r}: {error}") from error
        parts.append(opened(signed, columns, layer=layer))
    odd = [part for part in parts if part.crs != parts[0].crs]
    if odd:
        raise CatalogError(f"label items: {odd[0].name} and {parts[0].name} are in two CRSs: give one item at a time")
    return parts[0] if len(parts) == 1 else Several.of(f"labels of {len(parts)} items", parts)


def label_asset(item: pystac.Item) -> str:
    """Give the key of the asset that holds an item's labels.

    Raises
    ------
    CatalogError
        if none, or several, may be meant
    """
    vector = [key for key, asset in item.assets.items() if any(one in (asset.media_type or "") for one in MEDIA_TYPES)]
    named = [key for key in vector if any(role.startswith("label") for role in item.assets[key].roles or [])]
    found = named or [key for key in vector if "label" in key] or vector
    if len(found) != 1:
        raise CatalogError(
            f"item {item.id!r}: needed is one asset of vectors with the role 'labels', found are {found} among "
            f"{list(item.assets)}; raster labels are joined, join(gp.items(...))"
        )
    return found[0]


def check_columns(name: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raise where a column is not there; names those that sound like it."""
    for column in wanted:
        if column not in there:
            near = get_close_matches(column, there, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {[*there]}"
            raise UnknownBand(f"{name}: there is no column {column!r}; {hint}")


def _checked(vectors: Vectors) -> Vectors:
    """Refuse coordinates that cannot be of the CRS that is stated."""
    left, bottom, right, top = vectors.bounds
    far = max(abs(left), abs(right)) > TURN or max(abs(bottom), abs(top)) > TURN / 4 + 1e-6
    if vectors.crs.is_geographic and far:
        raise SourceError(
            f"{vectors.name} states {_named(vectors.crs)}, degrees, but its bounds are {_written(vectors.bounds)}: it "
            "is in another CRS; gp.vectors(path).set_crs('EPSG:...', allow_override=True) says in which"
        )
    return vectors


def _wkt(name: str, crs: Any) -> str:
    if crs is None:
        raise CatalogError(f"{name}: has no CRS; write geopandas.read_file(...).set_crs('EPSG:...')")
    return str(pyproj.CRS.from_user_input(crs).to_wkt())


def _not_none(name: str, features: int) -> None:
    if features == 0:
        raise CatalogError(f"{name}: has no features")


def _named(crs: pyproj.CRS) -> str:
    return ":".join(crs.to_authority() or (crs.name,))


def _written(bounds: Sequence[float]) -> str:
    return "(" + ", ".join(f"{edge:g}" for edge in bounds) + ")"


def _located(path: str) -> str:
    """Give the path from the root: worker processes may stand elsewhere."""
    remote = "://" in path or path.startswith("/vsi")
    return path if remote else os.path.abspath(os.path.expanduser(path))
