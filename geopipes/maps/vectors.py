"""Polygons to files: whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import geopandas as gpd
from pyogrio.errors import DataSourceError

from geopipes.errors import SourceError

DRIVERS = {".parquet": "", ".geoparquet": "", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}
"""What writes a file, by its suffix."""


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Give a path to which polygons can be written, as far as its name tells.

    Raises
    ------
    SourceError
        for a suffix of another kind, and where no folder can be
    """
    place = Path(path)
    if place.suffix.lower() not in DRIVERS:
        raise SourceError(f"{os.fspath(path)!r}: needed is a name that ends in {', '.join(DRIVERS)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(f"{os.fspath(path)!r}: there can be no folder {place.parent}: {error}") from error
    return place


def write_vectors(frame: gpd.GeoDataFrame, path: str | os.PathLike[str]) -> Path:
    """Write polygons by the suffix of the path: GeoParquet, GeoJSON (RFC 7946) or FlatGeobuf.

    The file appears whole or not at all, and takes the place of one that was there.

    Raises
    ------
    SourceError
        for a suffix of another kind, and a place that cannot be written to
    """
    place = check_writable(path)
    driver = DRIVERS[place.suffix.lower()]
    try:
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as workplace:
            draft = Path(workplace) / place.name
            if not driver:
                frame.to_parquet(draft)
            else:
                # GDAL brings GeoJSON to longitude and latitude, and cuts it at the antimeridian, as RFC 7946 asks.
                options = {"RFC7946": "YES"} if driver == "GeoJSON" else {}
                frame.to_file(draft, driver=driver, engine="pyogrio", **options)
            os.replace(draft, place)
    except (OSError, DataSourceError) as error:
        raise SourceError(f"{os.fspath(path)!r} could not be written: {error}") from error
    return place
