"""Polygons to files, by suffix."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import geopandas as gpd

from geopipes.errors import SourceError
from geopipes.maps.placing import put

DRIVERS = {".parquet": "", ".geoparquet": "", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}
"""GDAL's driver for each suffix; none for GeoParquet, which geopandas writes."""


def driver_of(path: str | os.PathLike[str]) -> str:
    """Give what writes a file.

    Raises
    ------
    SourceError
        for a suffix that says nothing
    """
    suffix = Path(path).suffix.lower()
    if suffix not in DRIVERS:
        raise SourceError(f"{os.fspath(path)!r}: needed is a name that ends in {', '.join(DRIVERS)}")
    return DRIVERS[suffix]


def write_vectors(frame: gpd.GeoDataFrame, path: str | os.PathLike[str]) -> Path:
    """Write polygons: GeoParquet, GeoJSON (RFC 7946) or FlatGeobuf. The file appears whole or not at all.

    Raises
    ------
    SourceError
        for a suffix that says nothing, and a place that cannot be written to
    """
    driver = driver_of(path)
    if not driver:
        return put(path, frame.to_parquet)
    # GDAL brings GeoJSON to longitude and latitude, and cuts it at the antimeridian, as RFC 7946 asks.
    options = {"RFC7946": "YES"} if driver == "GeoJSON" else {}

    def write(draft: Path) -> None:
        # In memory first: where a disk is full when a file is closed, GDAL's drivers do not say so.
        buffer = BytesIO()
        frame.to_file(buffer, driver=driver, engine="pyogrio", **options)
        draft.write_bytes(buffer.getbuffer())

    return put(path, write)
