"""Polygons of files, large and small, to masks of chips: what one chip costs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio.features
import shapely

from benchmarks.world import World
from geopipes import chips

CRS, LEFT, TOP = "EPSG:32633", 500_000.0, 5_000_000.0
SPACING = 100.0
"""[m] between buildings: both files are as dense."""

CHIP = 512
"""Pixels of 1 m along each side of a chip: one block of a mask, so that none was burnt for another chip."""

CHIPS = 8
"""Along each side of the ground that is read: of a file of 2,000 polygons nearly all, of another one its corner."""


def chip(world: World, *, polygons: int, suffix: str) -> dict[str, Any]:
    """Read each of 64 chips once, none of which shares anything with another.

    Parameters
    ----------
    polygons : in the file
    suffix : of the file: "gpkg", "fgb", "parquet"

    Returns
    -------
    opening, chip, whole : seconds to plan, of a chip (median), and of a chip for which the file is read whole
    """
    with tempfile.TemporaryDirectory() as folder:
        path = _written(Path(folder), polygons, suffix)
        started = perf_counter()
        burnt = _cubes().rasterize(path, name="label", column="kind", background=0, overlap="last")
        plan = chips.chip(burnt._value.get(), CHIP)
        length = len(plan)
        opening = perf_counter() - started
        whole = median(_whole(path))
        seconds = []
        for position in np.random.default_rng(0).permutation(length).tolist():
            started = perf_counter()
            chips.load(plan, position)
            seconds.append(perf_counter() - started)
    return {"opening": opening, "chip": median(seconds), "whole": whole}


def _cubes() -> Any:
    """Make an image of zeros, which costs nothing to read."""
    import xarray as xr

    import geopipes as gp

    side = CHIP * CHIPS
    at = np.arange(side) + 0.5
    image = np.broadcast_to(np.uint8(0), (side, side))
    return gp.cubes(xr.Dataset({"image": (("y", "x"), image)}, {"y": TOP - at, "x": LEFT + at}), crs=CRS)


def _written(folder: Path, polygons: int, suffix: str) -> Path:
    """Write buildings of three kinds, in a square whose north-west is that of the ground."""
    rng = np.random.default_rng(0)
    side = SPACING * polygons**0.5
    middle = rng.random((polygons, 2)) * side
    size = rng.uniform(8, 40, (polygons, 2))
    corners = np.hstack([middle - size / 2, middle + size / 2])
    shapes = shapely.box(LEFT + corners[:, 0], TOP - corners[:, 3], LEFT + corners[:, 2], TOP - corners[:, 1])
    frame = gpd.GeoDataFrame({"kind": rng.choice(["home", "shop", "shed"], polygons)}, geometry=shapes, crs=CRS)
    path = folder / f"buildings.{suffix}"
    if suffix == "parquet":
        order = frame.hilbert_distance().argsort()
        frame.iloc[order].to_parquet(path, write_covering_bbox=True, row_group_size=5_000)
    else:
        frame.to_file(path, engine="pyogrio")
    return path


def _whole(path: Path) -> Iterator[float]:
    """Read the file whole for a chip, as is often done: seconds of each of three."""
    for _ in range(3):
        started = perf_counter()
        frame = gpd.read_parquet(path) if path.suffix == ".parquet" else pyogrio.read_dataframe(path)
        near = frame.cx[LEFT : LEFT + CHIP, TOP - CHIP : TOP]
        rasterio.features.rasterize(near.geometry, (CHIP, CHIP), transform=rasterio.Affine(1, 0, LEFT, 0, -1, TOP))
        yield perf_counter() - started
