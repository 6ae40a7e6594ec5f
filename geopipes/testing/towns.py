"""A synthetic town from the air: houses, streets, shadows and trees, with the houses as polygons and as pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.features import rasterize
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from geopipes.errors import GridError
from geopipes.testing.bodies import Colour, Painted
from geopipes.testing.cogs import write_cog
from geopipes.testing.streets import GRASS, Block, Streets
from geopipes.testing.world import smooth_noise, white_noise

CRS = "EPSG:32614"
MIDDLE = (750_000.0, 4_586_000.0)  # [m] of the town, in CRS; beside the farmland of the scenes
BANDS = ("red", "green", "blue", "nir")
COLLECTION = "synthetic-aerial"
WHEN = datetime(2024, 7, 15, 16, 40, tzinfo=UTC)

_FINER = 2  # pixels are the mean of so many by so many painted ones
_NOISE = 10.0  # of the camera, from the lowest to the highest
_SHADE = 0.5  # of the light that is left in a shadow


@dataclass(frozen=True)
class Town:
    """Where the town's files are.

    Attributes
    ----------
    items : one for each tile of imagery, by row and column; asset image: red, green, blue and nir, uint8, nodata 0
    collection : the items' collection
    buildings : buildings.parquet, the footprints within the imagery, in its CRS, with their use and area [m2]
    label : buildings.tif, uint8, on the imagery's grid: 1 where a footprint holds the pixel's centre, else 0
    bbox : of all items: west, south, east, north [degrees]
    geobox : the grid of all tiles together
    """

    items: pystac.ItemCollection
    collection: pystac.Collection
    buildings: Path
    label: Path
    bbox: tuple[float, float, float, float]
    geobox: GeoBox


def synthetic_town(
    folder: str | Path, *, seed: int = 0, size: int = 1024, resolution: float = 1.0, tiles: int = 2
) -> Town:
    """Make aerial imagery of a town, and its buildings as polygons and as a raster, from a seed.

    Homes with hipped roofs and flat-roofed shops stand along bent streets, among parks, woods and fields; they throw
    shadows, trees hang over some, and roofs share their colours with asphalt, concrete and soil: what is a building is
    told by form. The same arguments give the same files, and a seed's houses stand where they stand whatever the size.

    Parameters
    ----------
    folder : is made where it is missing; files of the same names are replaced
    seed : of the town and of the noise; not negative
    size : pixels along each side of the whole
    resolution : [m] of the pixels
    tiles : along each side, that share the imagery out evenly

    Raises
    ------
    GridError
        for a size that the tiles do not share evenly, or tiles of less than 32 px
    """
    if tiles < 1 or size % tiles or size // tiles < 32:
        raise GridError(
            f"size={size}, tiles={tiles}: tiles have 32 px or more and share the size evenly; write size=1024, tiles=2"
        )
    root = Path(folder).resolve()
    half = size * resolution / 2
    affine = Affine(resolution, 0, MIDDLE[0] - half, 0, -resolution, MIDDLE[1] + half)
    geobox = GeoBox((size, size), affine, CRS)
    streets = Streets(seed)
    blocks = {number: streets.block(*number) for number in streets.near(_local(geobox))}
    items = []
    for name, part in _tiles(geobox, size // tiles):
        near = [blocks[number] for number in streets.near(_local(part))]
        write_cog(
            root / f"{name}.tif", photograph(near, part, seed=seed), part, nodata=0, overviews="average", names=BANDS
        )
        items.append(_item(root / f"{name}.tif", part))
    footprints = _footprints(blocks.values(), geobox)
    footprints.to_parquet(root / "buildings.parquet")
    burnt = _burnt(footprints.geometry, geobox)
    write_cog(root / "buildings.tif", burnt, geobox, nodata=255, overviews="nearest")
    west, south, east, north = zip(*(item.bbox for item in items if item.bbox is not None), strict=True)
    return Town(
        items=pystac.ItemCollection(items, clone_items=False),
        collection=_collection(items),
        buildings=root / "buildings.parquet",
        label=root / "buildings.tif",
        bbox=(min(west), min(south), max(east), max(north)),
        geobox=geobox,
    )


def photograph(blocks: Sequence[Block], geobox: GeoBox, *, seed: int) -> NDArray[np.uint8]:
    """Give (band, y, x) pixels of a piece of the town, in the order of BANDS, 1 to 255."""
    affine = Affine.translation(-MIDDLE[0], -MIDDLE[1]) @ geobox.affine @ Affine.scale(1 / _FINER)
    canvas = GeoBox((_FINER * geobox.shape[0], _FINER * geobox.shape[1]), affine, None)
    x, y = np.meshgrid(canvas.coordinates["x"].values, canvas.coordinates["y"].values)
    trees = sorted((tree for block in blocks for tree in block.trees), key=lambda tree: tree.height)
    buildings = [building for block in blocks for building in block.buildings]
    light = _painted([painted for block in blocks for painted in block.ground], canvas, background=GRASS)
    growing = light[3] > 1.2 * light[0]  # rougher than soil and what is paved
    soft = smooth_noise(x, y, seed=seed, layer="ground", scale=45, octaves=2) - 0.5
    rough = smooth_noise(x, y, seed=seed, layer="tufts", scale=5, octaves=3) - 0.5
    light *= 1.0 + np.where(growing, 0.30, 0.12) * soft + np.where(growing, 0.35, 0.08) * rough
    shadows = [building.shadow() for building in buildings] + [tree.shadow() for tree in trees]
    light *= np.where(_burnt(shadows, canvas), _SHADE, 1.0)
    roofs = [painted for building in buildings for painted in building.roof]
    crowns = [painted for tree in trees for painted in tree.crown()]
    for above, texture in ((roofs, 0.06), (crowns, 0.5)):
        seen = _painted(above, canvas) * (1.0 + texture * rough)
        light = np.where(np.isnan(seen), light, seen)
    return _exposed(light, geobox, seed=seed)


def _exposed(light: NDArray[Any], geobox: GeoBox, *, seed: int) -> NDArray[np.uint8]:
    """Give pixels of what was painted finer, with the camera's noise."""
    height, width = geobox.shape
    pixels = light.reshape(len(light), height, _FINER, width, _FINER).mean(axis=(2, 4))
    left, top = (
        round(side / geobox.resolution.x) for side in (geobox.affine.c - MIDDLE[0], geobox.affine.f - MIDDLE[1])
    )
    columns, rows = np.arange(left, left + width), np.arange(top, top - height, -1)[:, np.newaxis]
    for band, name in zip(pixels, BANDS, strict=True):
        band += _NOISE * (white_noise(columns, rows, seed=seed, layer=name) - 0.5)
    return np.asarray(np.clip(np.round(pixels), 1, 255), "uint8")  # 0 is kept for what was not seen


def _burnt(shapes: Iterable[BaseGeometry], grid: GeoBox) -> NDArray[np.uint8]:
    """Give 1 where a pixel's centre lies in any of the shapes, else 0."""
    return _numbered([(shape, 1) for shape in shapes], grid).astype("uint8")


def _painted(shapes: Sequence[Painted], grid: GeoBox, *, background: Colour = (np.nan,) * 4) -> NDArray[Any]:
    """Paint shapes one over the other: (band, y, x), NaN where there is none and no background."""
    colours = np.array([background, *(colour for _, colour in shapes)], "float32")
    which = _numbered([(polygon, number) for number, (polygon, _) in enumerate(shapes, 1)], grid)
    return np.moveaxis(colours[which], -1, 0)


def _numbered(shapes: Sequence[tuple[BaseGeometry, int]], grid: GeoBox) -> NDArray[np.int32]:
    """Give the number of the last shape that holds a pixel's centre, 0 where there is none."""
    if not shapes:
        return np.zeros(grid.shape, "int32")
    return np.asarray(rasterize(shapes, grid.shape, transform=grid.affine, dtype="int32"))


def _local(geobox: GeoBox) -> tuple[float, float, float, float]:
    """Give the bounds of a grid from the middle of the town."""
    left, bottom, right, top = geobox.boundingbox
    return left - MIDDLE[0], bottom - MIDDLE[1], right - MIDDLE[0], top - MIDDLE[1]


def _tiles(geobox: GeoBox, side: int) -> Iterator[tuple[str, GeoBox]]:
    """Give the name and the grid of each tile, of ``side`` pixels, by row and column."""
    for row in range(0, geobox.shape[0], side):
        for column in range(0, geobox.shape[1], side):
            yield f"town_{row // side}_{column // side}", geobox[row : row + side, column : column + side]


def _footprints(blocks: Iterable[Block], geobox: GeoBox) -> gpd.GeoDataFrame:
    """Give the footprints on a grid, cut at its edge, from north to south."""
    buildings = [building for block in blocks for building in block.buildings]
    table = gpd.GeoDataFrame(
        {"use": [building.use for building in buildings], "height": [building.height for building in buildings]},
        geometry=[translate(building.footprint, *MIDDLE) for building in buildings],
        crs=CRS,
    )
    table = table.clip(geobox.boundingbox.bbox, keep_geom_type=True)
    north = -table.bounds.maxy
    return table.loc[north.sort_values(kind="stable").index].reset_index(drop=True).assign(area=lambda rows: rows.area)


def _item(path: Path, geobox: GeoBox) -> pystac.Item:
    """Describe a tile."""
    left, bottom, right, top = geobox.boundingbox
    corners = np.array([(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)])
    degrees = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(*corners.T)
    outline = shapely.Polygon(np.round(np.transpose(degrees), 8))
    item = pystac.Item(
        id=path.stem,
        geometry=shapely.geometry.mapping(outline),
        bbox=list(outline.bounds),
        datetime=WHEN,
        collection=COLLECTION,
        stac_extensions=[
            "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
            "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
        properties={"gsd": geobox.resolution.x, "proj:code": CRS},
    )
    fields: dict[str, Any] = {
        "proj:shape": list(geobox.shape),
        "proj:transform": list(geobox.affine)[:6],
        "raster:bands": [{"nodata": 0, "data_type": "uint8", "spatial_resolution": geobox.resolution.x}] * len(BANDS),
        "eo:bands": [{"name": band, "common_name": band} for band in BANDS],
    }
    item.add_asset(
        "image", pystac.Asset(str(path), media_type=pystac.MediaType.COG, roles=["data"], extra_fields=fields)
    )
    return item


def _collection(items: Sequence[pystac.Item]) -> pystac.Collection:
    return pystac.Collection(
        id=COLLECTION,
        title="Synthetic aerial imagery",
        description="A town made from a seed, seen from the air.",
        extent=pystac.Extent.from_items(items),
        license="MIT",
    )
