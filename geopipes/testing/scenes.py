"""Synthetic Sentinel-2-like scenes: the farmland of world.py as Cloud-optimized GeoTIFFs with STAC items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geopipes.errors import GridError
from geopipes.testing import world
from geopipes.testing.cogs import write_cog
from geopipes.testing.views import CLOUD, NODATA, TILES, View, cloud_threshold, label_grid, pixel_centres

COLLECTION = "synthetic-s2-l2a"
_EXTENSIONS = [
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/grid/v1.1.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
]


@dataclass(frozen=True)
class Synthetic:
    """Where the scenes are and what is in them.

    Attributes
    ----------
    items : one for each date and zone, in that order; assets blue, green, red and nir (10 m, uint16,
        reflectance x 10000, nodata 0) and scl (20 m, uint8, nodata 0); hrefs are absolute paths
    collection : the items' collection
    label : crop.tif, uint8, 30 m, EPSG:5070, nodata 255; it covers all scenes
    bbox : of all items: west, south, east, north [degrees]
    classes : of the label, in the order of their values
    """

    items: pystac.ItemCollection
    collection: pystac.Collection
    label: Path
    bbox: tuple[float, float, float, float]
    classes: tuple[world.LandCover, ...] = world.CLASSES


def synthetic_scenes(
    folder: str | Path,
    *,
    seed: int = 0,
    dates: Sequence[str] = ("2024-05-03", "2024-06-07", "2024-07-12"),
    zones: Sequence[int] = (14, 15),
    size: int = 512,
) -> Synthetic:
    """Make scenes of one piece of farmland, and a crop label of it, from a seed.

    The place lies on the border of UTM zones 14 and 15, at 41.4 N, 96 W. Each date is seen in each zone; the
    zones' scenes overlap by two fifths. Fields, a river, lakes, woods and roads are the same truth in every
    scene and in the label. Each date has clouds with shadows, named by its SCL, and a third of the scenes end
    at a slanted swath edge. The same arguments give the same pixels and items.

    Parameters
    ----------
    folder : is made where it is missing; files of the same names are replaced
    seed : of the land, the clouds and the noise; not negative
    dates : ISO days, one acquisition each
    zones : 14 (EPSG:32614), 15 (EPSG:32615) or both
    size : pixels of 10 m along each side of a scene, even

    Raises
    ------
    GridError
        for an odd or too small size, for no date and for another zone
    """
    if size < 32 or size % 2:
        raise GridError(f"size={size}: scenes have pixels of 20 m too; write an even size of 32 or more")
    if not dates:
        raise GridError("dates=(): there is no scene without a date; write one, as '2024-05-03'")
    if not zones or not set(zones) <= set(TILES):
        raise GridError(f"zones={tuple(zones)}: the land lies in zones 14 and 15; write (14, 15), (14,) or (15,)")
    root = Path(folder).resolve()
    days = sorted({date.fromisoformat(day) for day in dates})
    views = [View.of(zone, size=size, seed=seed) for zone in sorted(set(zones))]
    grid = label_grid(views)
    _write_label(root / "crop.tif", grid, seed=seed)
    overcast = {day: cloud_threshold(grid, day, seed=seed) for day in days}
    items = [_scene(root, view, day, overcast=overcast[day], seed=seed) for day in days for view in views]
    west, south, east, north = zip(*(item.bbox for item in items if item.bbox is not None), strict=True)
    return Synthetic(
        items=pystac.ItemCollection(items, clone_items=False),
        collection=_collection(items),
        label=root / "crop.tif",
        bbox=(min(west), min(south), max(east), max(north)),
    )


def _scene(root: Path, view: View, day: date, *, overcast: float, seed: int) -> pystac.Item:
    """Write the files of one acquisition and describe them."""
    edge = (view.zone + day.toordinal()) % 3 == 0
    bands, scl = view.measure(day, overcast=overcast, edge=edge, seed=seed)
    item = _item(view, day, scl, edge=edge)
    folder = root / item.id
    for band, pixels in zip(world.BANDS, bands, strict=True):
        write_cog(folder / f"{band}.tif", pixels, view.geobox, nodata=0, overviews="average")
        item.add_asset(band, _asset(folder / f"{band}.tif", view.geobox, "uint16", common_name=band))
    write_cog(folder / "scl.tif", scl, view.scl_geobox, nodata=NODATA, overviews="nearest")
    item.add_asset("scl", _asset(folder / "scl.tif", view.scl_geobox, "uint8"))
    return item


def _item(view: View, day: date, scl: NDArray[np.uint8], *, edge: bool) -> pystac.Item:
    """Describe one acquisition, as yet without assets."""
    satellite = "ab"[day.toordinal() // 5 % 2]  # the two take turns every five days
    outline = view.footprint(edge=edge)
    seen = scl != NODATA
    return pystac.Item(
        id=f"S2{satellite.upper()}_{TILES[view.zone]}_{day:%Y%m%d}_0_L2A",
        geometry={"type": "Polygon", "coordinates": [[list(at) for at in outline.exterior.coords]]},
        bbox=list(outline.bounds),
        # The zones are seen a second apart, as neighbouring tiles are.
        datetime=datetime(day.year, day.month, day.day, 17, 21, view.zone, 24_000, tzinfo=UTC),
        collection=COLLECTION,
        stac_extensions=_EXTENSIONS.copy(),
        properties={
            "platform": f"sentinel-2{satellite}",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "eo:cloud_cover": round(100.0 * float(np.mean(scl[seen] >= CLOUD)), 3),
            "s2:nodata_pixel_percentage": round(100.0 * float(np.mean(~seen)), 3),
            "grid:code": f"MGRS-{TILES[view.zone]}",
            "proj:code": str(view.geobox.crs),
        },
    )


def _asset(path: Path, geobox: GeoBox, dtype: str, *, common_name: str | None = None) -> pystac.Asset:
    resolution = geobox.resolution.x
    fields: dict[str, Any] = {
        "gsd": resolution,
        "proj:shape": list(geobox.shape),
        "proj:transform": list(geobox.affine)[:6],
        "raster:bands": [{"nodata": 0, "data_type": dtype, "spatial_resolution": resolution}],
    }
    roles = ["data"]
    if common_name is not None:
        fields["eo:bands"] = [{"name": common_name, "common_name": common_name}]
        roles.append("reflectance")
    return pystac.Asset(str(path), media_type=pystac.MediaType.COG, roles=roles, extra_fields=fields)


def _collection(items: Sequence[pystac.Item]) -> pystac.Collection:
    return pystac.Collection(
        id=COLLECTION,
        title="Synthetic Sentinel-2 L2A",
        description="Farmland made from a seed, seen as Sentinel-2 would see it.",
        extent=pystac.Extent.from_items(items),
        license="MIT",
    )


def _write_label(path: Path, grid: GeoBox, *, seed: int) -> None:
    cover = world.land(*pixel_centres(grid), seed=seed).cover
    colours = {entry.value: entry.colour for entry in world.CLASSES}
    write_cog(path, cover, grid, nodata=255, overviews="nearest", colours=colours)
