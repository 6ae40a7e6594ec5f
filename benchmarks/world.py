"""The workload's files: Landsat-like scenes, a series of dates, a crop label, written once from a seed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import polygon

from benchmarks import texture

VERSION = 1
"""Raise it where the files change for the same parameters."""

PIXEL = 30.0
LABEL_CRS = "EPSG:5070"
LABEL_SHIFT = 12.0
"""Metres that the label's pixels stand off multiples of 30, so that it is warped onto an Albers grid too. The
Cropland Data Layer stands off by 15: there every pixel would be a tie."""

CENTRES = {14: (640_000.0, 4_590_000.0), 15: (360_000.0, 4_590_000.0)}
"""Middle of each zone's scenes (east, north): on either side of the zones' border, apart by 80 km or more."""

STEP = (-0.15, 0.94)
"""(east, south), in scene widths, from a scene to the next of its path: a descending track; rows overlap."""

TILT = 0.16
"""How far the footprint's sides lean in, in scene widths: 9 degrees, as Landsat's track at 41 N."""

START = datetime(2024, 6, 15, 17, 5, tzinfo=UTC)
ZLEVEL = 1
"""Of deflate: noise leaves nothing for higher ones to find, and the files are written in half the time."""

DAYS = 16  # between two dates of the series, as Landsat returns


@dataclass(frozen=True)
class Size:
    """How large the world is.

    Attributes
    ----------
    rows : scenes of a path, one below the other, in each of two UTM zones
    pixels : of 30 m, along each side of a scene
    bands : files of a scene
    dates, series_bands, series_pixels : of the time series
    tile : side of the files' tiles [px]
    """

    rows: int = 4
    pixels: int = 7680
    bands: int = 7
    dates: int = 24
    series_bands: int = 4
    series_pixels: int = 3072
    tile: int = 512


QUICK = Size(rows=2, pixels=1536, dates=8, series_pixels=1024)
TINY = Size(rows=1, pixels=768, bands=3, dates=3, series_bands=2, series_pixels=480, tile=128)
"""For tests."""


@dataclass(frozen=True)
class World:
    """Where the files are.

    Attributes
    ----------
    size : as asked for
    scenes : items of one datetime, assets B1.. of uint16, nodata 0, each a file of its own
    series : items of one place, one for each date
    label : crop classes, uint8, nodata 255, as an item with the asset ``crop``; it covers all scenes
    """

    size: Size
    scenes: tuple[pystac.Item, ...]
    series: tuple[pystac.Item, ...]
    label: pystac.Item

    @property
    def bands(self) -> tuple[str, ...]:
        """The scenes' assets."""
        return tuple(f"B{band + 1}" for band in range(self.size.bands))

    @property
    def series_bands(self) -> tuple[str, ...]:
        """The series' assets."""
        return tuple(f"B{band + 1}" for band in range(self.size.series_bands))


def world(folder: Path, size: Size, *, threads: int) -> World:
    """Open the world of a size, and write it where it is not there yet.

    Parameters
    ----------
    folder : of all worlds; each has a folder of its own in it
    size : of the world
    threads : that write
    """
    stated = {"version": VERSION, **asdict(size)}
    root = folder / f"world-{hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:12]}"
    catalog = root / "world.json"  # written last: a world that was broken off is written anew
    if not catalog.exists():
        root.mkdir(parents=True, exist_ok=True)
        catalog.write_text(json.dumps({"parameters": stated, **_written(root, size, threads)}))
    found = json.loads(catalog.read_text())
    scenes, series, label = (tuple(map(pystac.Item.from_dict, found[name])) for name in ("scenes", "series", "label"))
    return World(size, scenes, series, label[0])


def scene_grids(size: Size) -> Iterator[tuple[str, GeoBox]]:
    """Give the id and the grid of each scene, zone by zone from north to south."""
    for zone, path in ((14, 28), (15, 26)):
        for row in range(size.rows):
            place = _grid(zone, size.pixels, (row - (size.rows - 1) / 2))
            yield f"LC08_{path:03d}{31 + row:03d}_{START:%Y%m%d}", place


def _grid(zone: int, pixels: int, along: float) -> GeoBox:
    """Place a scene: ``along`` scenes from the middle of its path."""
    extent = pixels * PIXEL
    east, north = CENTRES[zone]
    left = round((east + along * STEP[0] * extent - extent / 2) / PIXEL) * PIXEL
    top = round((north - along * STEP[1] * extent + extent / 2) / PIXEL) * PIXEL
    return GeoBox((pixels, pixels), Affine(PIXEL, 0, left, 0, -PIXEL, top), f"EPSG:326{zone}")


def _written(root: Path, size: Size, threads: int) -> dict[str, list[dict[str, Any]]]:
    """Write all files and give their items as documents."""
    scenes = list(scene_grids(size))
    place = _grid(14, size.series_pixels, 0.0)
    days = [START + timedelta(days=DAYS * date) for date in range(size.dates)]
    work = [(identity, grid, START, size.bands) for identity, grid in scenes]
    work += [(f"SERIES_{day:%Y%m%d}", place, day, size.series_bands) for day in days]
    with ThreadPoolExecutor(threads) as pool:
        items = list(pool.map(lambda job: _scene(root, *job, tile=size.tile), work))
    label = _label(root, _label_grid([grid for _, grid in scenes]), tile=size.tile)
    documents = [item.to_dict(include_self_link=False, transform_hrefs=False) for item in (*items, label)]
    count = len(scenes)
    return {"scenes": documents[:count], "series": documents[count:-1], "label": documents[-1:]}


def _scene(root: Path, identity: str, grid: GeoBox, when: datetime, bands: int, *, tile: int) -> pystac.Item:
    """Write the bands of a scene, each a file."""
    item = new_item(identity, grid, when, _footprint(grid))
    top, left = round(grid.affine.f / PIXEL), round(grid.affine.c / PIXEL)
    ground = texture.ground(-top, left, grid.shape.y)
    inside = _seen(grid.shape.y)
    for band in range(bands):
        pixels = texture.band(ground, -top, left, band, when.timetuple().tm_yday)
        pixels[~inside] = 0
        add_asset(item, f"B{band + 1}", root / identity / f"{identity}_B{band + 1}.tif", grid, pixels, tile, nodata=0)
    return item


def _label(root: Path, grid: GeoBox, *, tile: int) -> pystac.Item:
    """Write the label."""
    item = new_item("crop", grid, START, shapely.box(0, 0, 1, 1))
    top, left = round(grid.affine.f / PIXEL), round(grid.affine.c / PIXEL)
    pixels = texture.classes(-top, left, *grid.shape)
    add_asset(item, "crop", root / f"crop_{START:%Y%m%d}.tif", grid, pixels, tile, nodata=255)
    return item


def _label_grid(grids: list[GeoBox]) -> GeoBox:
    """Give the Albers grid that holds all scenes, and a margin of 8 px for kernels and bent edges."""
    boxes = [grid.extent.to_crs(LABEL_CRS, resolution=10 * PIXEL).boundingbox for grid in grids]
    left, top = min(box.left for box in boxes), max(box.top for box in boxes)
    right, bottom = max(box.right for box in boxes), min(box.bottom for box in boxes)
    first = (math.floor(left / PIXEL) - 8, math.ceil(top / PIXEL) + 8)
    width, height = math.ceil(right / PIXEL) + 8 - first[0], first[1] - math.floor(bottom / PIXEL) + 8
    origin = (first[0] * PIXEL + LABEL_SHIFT, first[1] * PIXEL + LABEL_SHIFT)
    return GeoBox((height, width), Affine(PIXEL, 0, origin[0], 0, -PIXEL, origin[1]), LABEL_CRS)


def _seen(pixels: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Give where the instrument looked, (y, x): all but four slanted corners."""
    down, across = ((np.indices((pixels, pixels), np.float32, sparse=True)[axis] + 0.5) / pixels for axis in (0, 1))
    sides = (across > TILT * (1 - down)) & (across < 1 - TILT * down)
    return np.asarray(sides & (down > 0.25 * TILT * across) & (down < 1 - 0.25 * TILT * (1 - across)))


def _footprint(grid: GeoBox) -> shapely.Polygon:
    """Give the outline of what the instrument saw [degrees]."""
    across, down = [TILT, 1.0, 1 - TILT, 0.0], [0.0, 0.25 * TILT, 1.0, 1 - 0.25 * TILT]
    corners = [grid.affine @ (x * grid.shape.x, y * grid.shape.y) for x, y in zip(across, down, strict=True)]
    outline = polygon([*corners, corners[0]], crs=grid.crs).to_crs("EPSG:4326", resolution=100 * PIXEL)
    return shapely.Polygon(outline.exterior.coords)


def new_item(identity: str, grid: GeoBox, when: datetime, outline: shapely.Polygon) -> pystac.Item:
    """Describe a scene, or the label, without files."""
    if identity == "crop":
        outline = shapely.Polygon(grid.extent.to_crs("EPSG:4326", resolution=100 * PIXEL).exterior.coords)
    return pystac.Item(
        id=identity,
        geometry=shapely.geometry.mapping(outline),
        bbox=list(outline.bounds),
        datetime=when,
        collection="benchmark",
        stac_extensions=[
            "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
        properties={"proj:code": str(grid.crs)},
    )


def add_asset(item: pystac.Item, name: str, path: Path, grid: GeoBox, pixels: Any, tile: int, *, nodata: int) -> None:
    """Write (y, x) pixels as a tiled GeoTIFF, and describe it as an asset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff", "height": grid.shape.y, "width": grid.shape.x, "count": 1, "dtype": pixels.dtype.name,
        "crs": str(grid.crs), "transform": grid.affine, "nodata": nodata, "tiled": True, "blockxsize": tile,
        "blockysize": tile, "compress": "deflate", "predictor": 2, "zlevel": ZLEVEL, "bigtiff": "if_safer",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels, 1)
    fields = {
        "proj:shape": list(grid.shape),
        "proj:transform": list(grid.affine)[:6],
        "raster:bands": [{"nodata": nodata, "data_type": pixels.dtype.name, "spatial_resolution": PIXEL}],
    }
    asset = pystac.Asset(str(path), media_type=pystac.MediaType.GEOTIFF, roles=["data"], extra_fields=fields)
    item.add_asset(name, asset)
