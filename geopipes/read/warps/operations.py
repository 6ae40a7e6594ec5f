"""The one PROJ operation between a raster and a grid."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from math import ceil, floor

import numpy as np
import pyproj
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.network import is_network_enabled, set_network_enabled  # type: ignore[attr-defined]  # not said to be public
from pyproj.transformer import AreaOfInterest

from geopipes.errors import GridError
from geopipes.read.warps.roots import Array

SAME = "proj=noop"
"""The operation between a CRS and itself."""

PLACES = 5
"""Points a side of a raster, of which the first that can be projected settles the operation."""

_choosing = threading.Lock()


def operation(raster: GeoBox, grid: GeoBox) -> str:
    """Give the PROJ operation that takes a raster's CRS to a grid's.

    Of all that PROJ knows it is the best for the raster's footprint (in whole degrees) among those whose datum
    grids are installed; the network is never used. PROJ lists them by area, then accuracy; the first that can
    project the raster's centre is taken, and used for all its pixels.

    Returns
    -------
    the pipeline, as PROJ writes it: it belongs into fingerprints, as installing datum grids changes it

    Raises
    ------
    GridError
        no part of the raster can be projected
    """
    if same_crs(str(raster.crs), str(grid.crs)):
        return SAME
    area = _footprint(str(raster.crs), *(round(bound, 9) for bound in raster.boundingbox.bbox))
    height, width = raster.shape
    ratios = (np.arange(PLACES) + 0.5) / PLACES
    ratios = ratios[np.argsort(np.abs(ratios - 0.5), kind="stable")]  # the centre first
    y, x = (axis.ravel() for axis in np.meshgrid(ratios * height, ratios * width, indexing="ij"))
    a, b, c, d, e, f, *_ = raster.affine
    places = tuple(zip((a * x + b * y + c).tolist(), (d * x + e * y + f).tolist(), strict=True))
    return _chosen(str(raster.crs), str(grid.crs), area, places)


def unprojected(definition: str, x: Array, y: Array) -> tuple[Array, Array]:
    """Take x and y of a grid's CRS back to the raster's, point by point; infinite where there is no such place."""
    if definition == SAME:
        return x, y
    there = _transformer(definition).transform(x, y, direction="INVERSE")
    return np.asarray(there[0]), np.asarray(there[1])


@lru_cache(maxsize=1024)
def same_crs(a: str, b: str) -> bool:
    """Tell whether two CRS, as text, are one."""
    return a == b or bool(CRS(a) == CRS(b))


@lru_cache(maxsize=4096)
def _footprint(crs: str, left: float, bottom: float, right: float, top: float) -> tuple[int, int, int, int] | None:
    """Give (west, south, east, north) in whole degrees around bounds; None where they have no place on Earth."""
    to_degrees = pyproj.Transformer.from_crs(CRS(crs).proj, "OGC:CRS84", always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(left, bottom, right, top)
    if not np.isfinite([west, south, east, north]).all():
        return None
    west, south, east, north = floor(west), max(floor(south), -90), ceil(east), min(ceil(north), 90)
    if east - west >= 360:
        return -180, south, 180, north
    return (west + 180) % 360 - 180, south, (east + 180) % 360 - 180 or 180, north


@lru_cache(maxsize=4096)
def _chosen(crs: str, to: str, area: tuple[int, int, int, int] | None, places: tuple[tuple[float, float], ...]) -> str:
    with _choosing, _offline():
        transformer = pyproj.Transformer.from_crs(
            CRS(crs).proj, CRS(to).proj, always_xy=True, area_of_interest=AreaOfInterest(*area) if area else None
        )
        for x, y in places:
            if np.isfinite(transformer.transform(x, y)).all():
                return str(transformer.get_last_used_operation().definition)
    raise GridError(
        f"a raster in {crs} around ({places[0][0]:g}, {places[0][1]:g}) (x, y) has no place in {to}: "
        "check its transform, or choose a grid in a CRS that is used there"
    )


@contextmanager
def _offline() -> Iterator[None]:
    """Keep PROJ off the network, for the few milliseconds of a choice where it is on: it counts for all threads."""
    enabled = is_network_enabled()
    if enabled:
        set_network_enabled(active=False)
    try:
        yield
    finally:
        if enabled:
            set_network_enabled(active=True)


@lru_cache(maxsize=256)
def _transformer(definition: str) -> pyproj.Transformer:
    # Since pyproj 3.1 one that is made by from_pipeline (not one of a TransformerGroup) clones itself per thread.
    return pyproj.Transformer.from_pipeline(definition)
