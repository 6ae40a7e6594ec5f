"""A synthetic flood on world.py's farmland: radar before and after it, optical scenes, elevation, and its outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pystac
import rasterio.features
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geopipes.errors import GridError
from geopipes.testing import world
from geopipes.testing.cogs import write_cog
from geopipes.testing.scenes import synthetic_scenes
from geopipes.testing.views import View, label_grid, pixel_centres

if TYPE_CHECKING:
    import geopandas as gpd

ZONE = 14
LASTS = 12  # days from an event until the water is gone
_LEVEL = 0.25  # share of the ground that is low enough to be flooded
_SMALLEST = 20_000.0  # [m2] of an outline
_LOOKS = 5.0  # of the radar, multi-looked: speckle is gamma distributed
_LAND, _WATER = np.array([[0.09], [0.018]]), np.array([[0.006], [0.0009]])  # vv and vh, linear sigma0


@dataclass(frozen=True)
class Flood:
    """Where the scenes of a flood are, and what was flooded when.

    Attributes
    ----------
    optical : items as of `synthetic_scenes`, on dry ground and under clouds
    radar : items with assets vv and vh (20 m, float32, linear sigma0, nodata 0); every second pass sees the western
        two thirds alone
    elevation : elevation.tif, float32 metres, 30 m, EPSG:5070, nodata -9999
    events : outlines of the water, in UTM, each with its ``event``, a day, and its ``name``
    """

    optical: pystac.ItemCollection
    radar: pystac.ItemCollection
    elevation: Path
    events: gpd.GeoDataFrame


def synthetic_flood(
    folder: str | Path,
    *,
    seed: int = 0,
    events: Sequence[str] = ("2024-05-20", "2024-06-10"),
    radar: Sequence[str] = ("2024-05-10", "2024-05-21", "2024-06-03", "2024-06-12", "2024-06-30"),
    optical: Sequence[str] = ("2024-05-03", "2024-05-18", "2024-07-12"),
    size: int = 256,
) -> Flood:
    """Make two floods of one piece of farmland, and what satellites saw of them, from a seed.

    Low ground is under water from an event on, for 12 days: of the first event in the west, of the second in the east.
    The same arguments give the same pixels, items and outlines.

    Parameters
    ----------
    folder : is made where it is missing; files of the same names are replaced
    seed : of the land, the speckle and the clouds
    events : two ISO days
    radar, optical : ISO days, an acquisition each
    size : pixels of 10 m along each side of a scene, a multiple of 4

    Raises
    ------
    GridError
        for another size, and for other than two events
    """
    import geopandas as gpd

    if size < 64 or size % 4 or len(events) != 2:
        raise GridError(f"size={size}, events={tuple(events)}: write a multiple of 4 from 64 on, and two days")
    root = Path(folder).resolve()
    seen = synthetic_scenes(root, seed=seed, dates=optical, zones=(ZONE,), size=size)
    view = View.of(ZONE, size=size, seed=seed)
    grid = label_grid([view])
    write_cog(root / "elevation.tif", _height(*pixel_centres(grid), seed), grid, nodata=-9999, overviews="average")
    days = [date.fromisoformat(day) for day in events]
    low = _height(view.x, view.y, seed)
    outlines = _outlines(low < np.quantile(low, _LEVEL), view.geobox)
    middle = (view.geobox.boundingbox.left + view.geobox.boundingbox.right) / 2
    when = [days[int(outline.centroid.x > middle)] for outline in outlines]
    frame = gpd.GeoDataFrame(
        {"event": np.array(when, "M8[ns]"), "name": [f"water {k}" for k in range(len(when))]},
        geometry=outlines, crs=str(view.geobox.crs),
    )  # fmt: skip
    items = [_pass(root, view, frame, date.fromisoformat(day), k, seed) for k, day in enumerate(sorted(radar))]
    return Flood(seen.items, pystac.ItemCollection(items, clone_items=False), root / "elevation.tif", frame)


def _height(x: world.Floats, y: world.Floats, seed: int) -> NDArray[np.float32]:
    """Give metres above the sea."""
    hills = world.smooth_noise(x, y, seed=seed, layer="hills", scale=700, octaves=3)
    return (280.0 + 80.0 * hills).astype("float32")


def _outlines(low: NDArray[np.bool_], grid: GeoBox) -> list[Any]:
    """Give smooth outlines of low ground."""
    found = rasterio.features.shapes(low.astype("uint8"), mask=low, transform=grid.affine)
    polygons = [shapely.geometry.shape(shape).buffer(15).buffer(-15).simplify(5) for shape, _ in found]
    return [polygon for polygon in polygons if polygon.area > _SMALLEST]


def _pass(root: Path, view: View, events: gpd.GeoDataFrame, day: date, number: int, seed: int) -> pystac.Item:
    """Write the files of one pass of the radar and describe them."""
    whole = view.scl_geobox
    grid = whole if number % 2 == 0 else whole[:, : whole.shape.x * 2 // 3]
    age = (np.datetime64(day) - events["event"].to_numpy().astype("M8[D]")).astype(int)
    wet = events.geometry[(age >= 0) & (age < LASTS)]
    water = np.zeros(grid.shape, "uint8")
    if len(wet):
        rasterio.features.rasterize(wet, out=water, transform=grid.affine)
    water |= (view.ground.cover == world.WATER)[::2, ::2][:, : grid.shape.x]
    rng = np.random.default_rng((seed, number, day.toordinal()))
    level = np.where(water.ravel(), _WATER, _LAND).reshape(2, *grid.shape)
    bands = (level * rng.gamma(_LOOKS, 1 / _LOOKS, level.shape)).astype("float32")
    outline = grid.extent.to_crs("EPSG:4326").geom
    item = pystac.Item(
        id=f"S1A_IW_GRDH_1SDV_{day:%Y%m%d}",
        geometry=shapely.geometry.mapping(outline),
        bbox=list(outline.bounds),
        datetime=datetime(day.year, day.month, day.day, 0, 12, tzinfo=UTC),
        collection="synthetic-s1-grd",
        stac_extensions=["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
        properties={"platform": "sentinel-1a", "constellation": "sentinel-1", "proj:code": str(grid.crs)},
    )
    for band, pixels in zip(("vv", "vh"), bands, strict=True):
        path = root / item.id / f"{band}.tif"
        write_cog(path, pixels, grid, nodata=0, overviews="average")
        fields = {"proj:shape": list(grid.shape), "proj:transform": list(grid.affine)[:6]}
        item.add_asset(
            band, pystac.Asset(str(path), media_type=pystac.MediaType.COG, roles=["data"], extra_fields=fields)
        )
    return item
