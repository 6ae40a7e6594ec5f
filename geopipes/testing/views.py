"""What an instrument records of world.py's farmland: grids, clouds and their shadows, the swath's edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geopipes.testing import world

LABEL_CRS = "EPSG:5070"
TILES = {14: "14TQL", 15: "15TTF"}  # UTM zones and the real MGRS squares of the place
NODATA, SHADOW, VEGETATION, BARE, WATER, CLOUD, DENSE_CLOUD = 0, 3, 4, 5, 6, 8, 9  # Sentinel-2's SCL

_LATITUDE = 41.4  # of the scenes' middles
_BORDER = -96.0  # the meridian between the zones
_SIDE = {14: -0.3, 15: 0.3}  # middle of the scene, east of the border, in scene widths: two fifths are shared
_RESOLUTION, _SCL_RESOLUTION, _LABEL_RESOLUTION = 10.0, 20.0, 30.0  # [m]
_SNAP = 60.0  # [m]; Sentinel-2's grids of 10, 20 and 60 m share their origin
_CLOUDINESS = (0.05, 0.14, 0.28)  # share of the area; dates take turns by their ordinal number
_TOWARDS_SUN = (0.45, -0.89)  # (east, north), a unit vector: late morning
_SHADOW_DISTANCE = 500.0  # [m] on the ground, from a cloud to its shadow
_EDGE = (0.22, 0.85)  # where a swath's edge meets the top and the left of a scene, in scene widths
_SCL_PRIORITY = np.array([BARE, VEGETATION, WATER, SHADOW, CLOUD, DENSE_CLOUD], dtype="uint8")


@dataclass(frozen=True)
class View:
    """A zone's scene and what lies under it.

    Attributes
    ----------
    zone : UTM, north
    geobox, scl_geobox : the grids of 10 m and of 20 m pixels
    x, y : (y, x), the middles of the 10 m pixels in EPSG:5070
    ground : what lies there
    """

    zone: int
    geobox: GeoBox
    scl_geobox: GeoBox
    x: world.Floats
    y: world.Floats
    ground: world.Land

    @classmethod
    def of(cls, zone: int, *, size: int, seed: int) -> View:
        """Place the scene of a zone, ``size`` pixels of 10 m along each side, and look down."""
        crs = f"EPSG:326{zone}"
        x, y = _project("EPSG:4326", LABEL_CRS, _BORDER, _LATITUDE)
        extent = size * _RESOLUTION
        east, north = _project(LABEL_CRS, crs, x + _SIDE[zone] * extent, y)
        left = math.floor((east - extent / 2) / _SNAP) * _SNAP
        top = math.ceil((north + extent / 2) / _SNAP) * _SNAP
        geobox, coarse = (
            GeoBox((pixels, pixels), Affine(step, 0, left, 0, -step, top), crs)
            for pixels, step in ((size, _RESOLUTION), (size // 2, _SCL_RESOLUTION))
        )
        x, y = pixel_centres(geobox)
        return cls(zone, geobox, coarse, x, y, world.land(x, y, seed=seed))

    def measure(
        self, day: date, *, overcast: float, edge: bool, seed: int
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        """Give what the instrument records.

        Parameters
        ----------
        overcast : the height of the day's cloud field above which there are clouds
        edge : whether the swath ends within the scene

        Returns
        -------
        bands : (band, y, x) at 10 m, reflectance x 10000, 0 for none, in the order of world.BANDS
        scl : (y, x) at 20 m, the scene classification
        """
        leaves = world.leaf_cover(self.ground, day)
        light = world.reflectance(self.ground, leaves)
        cloud = _opacity(world.cloud_field(self.x, self.y, day, seed=seed), overcast)
        # A place is shaded by the cloud that stands between it and the sun.
        x, y = (at + _SHADOW_DISTANCE * step for at, step in zip((self.x, self.y), _TOWARDS_SUN, strict=True))
        shade = _opacity(world.cloud_field(x, y, day, seed=seed), overcast)
        tops = world.smooth_noise(self.x, self.y, seed=seed, layer="cloud tops", scale=300, octaves=3)
        light = light * (1.0 - 0.65 * shade) * (1.0 - cloud) + (6400.0 + 3200.0 * tops) * cloud
        light += np.random.default_rng((seed, self.zone, day.toordinal())).normal(0.0, 35.0, light.shape)
        seen = _swath(self.scl_geobox.shape[0], edge=edge)
        bands = np.clip(np.round(light), 1, 10_000).astype("uint16")  # 0 is kept for what was not seen
        bands[:, ~seen.repeat(2, axis=0).repeat(2, axis=1)] = 0

        scl = np.where(leaves > 0.35, VEGETATION, BARE)
        scl[self.ground.cover == world.WATER] = WATER
        scl[shade > 0] = SHADOW
        scl[cloud > 0] = CLOUD
        scl[cloud > 0.7] = DENSE_CLOUD
        return bands, np.where(seen, _strongest_of_four(scl), NODATA).astype("uint8")

    def footprint(self, *, edge: bool) -> shapely.Polygon:
        """Give the outline of what the instrument saw, in degrees, counter-clockwise."""
        corner = [(_EDGE[0], 0.0), (0.0, _EDGE[1])] if edge else [(0.0, 0.0)]
        east, south = np.transpose([*corner, (0.0, 1.0), (1.0, 1.0), (1.0, 0.0)])
        box = self.geobox.boundingbox
        x, y = box.left + east * (box.right - box.left), box.top + south * (box.bottom - box.top)
        degrees = _project(str(self.geobox.crs), "EPSG:4326", x, y)
        return shapely.Polygon(np.round(np.transpose(degrees), 6))


def label_grid(views: Sequence[View]) -> GeoBox:
    """Give the grid of whole 30 m pixels, in Albers, that holds all scenes."""
    step = _LABEL_RESOLUTION  # and one of it on each side, for the outer half of the outermost pixels
    left = math.floor(min(view.x.min() for view in views) / step) - 1
    right = math.ceil(max(view.x.max() for view in views) / step) + 1
    bottom = math.floor(min(view.y.min() for view in views) / step) - 1
    top = math.ceil(max(view.y.max() for view in views) / step) + 1
    affine = Affine(step, 0, left * step, 0, -step, top * step)
    return GeoBox((top - bottom, right - left), affine, LABEL_CRS)


def cloud_threshold(area: GeoBox, day: date, *, seed: int) -> float:
    """Give the height of the cloud field that leaves the day's share of the area under clouds."""
    x, y = (at[::4, ::4] for at in pixel_centres(area))
    share = _CLOUDINESS[day.toordinal() % len(_CLOUDINESS)]
    return float(np.quantile(world.cloud_field(x, y, day, seed=seed), 1.0 - share))


def pixel_centres(geobox: GeoBox) -> tuple[world.Floats, world.Floats]:
    """Give the middles of all pixels in EPSG:5070: x and y, each (y, x)."""
    x, y = (geobox.coordinates[dim].values for dim in ("x", "y"))
    return _project(str(geobox.crs), LABEL_CRS, *np.meshgrid(x, y))


def _opacity(field: world.Floats, threshold: float) -> world.Floats:
    """Give 0 where the field is below the threshold, 1 well above it."""
    return np.clip((field - threshold) / 0.06, 0.0, 1.0)


def _strongest_of_four(scl: NDArray[Any]) -> NDArray[np.uint8]:
    """Reduce 10 m classes to 20 m: of each two by two, the one that spoils the pixel most."""
    rank = np.zeros(10, dtype="uint8")
    rank[_SCL_PRIORITY] = np.arange(_SCL_PRIORITY.size)
    height, width = scl.shape
    blocks = rank[scl].reshape(height // 2, 2, width // 2, 2)
    return np.asarray(_SCL_PRIORITY[blocks.max(axis=(1, 3))])


def _swath(size: int, *, edge: bool) -> NDArray[np.bool_]:
    """Give where the instrument looked, (y, x) at 20 m: all, or all but the north-western corner."""
    if not edge:
        return np.ones((size, size), dtype=bool)
    row, column = (np.indices((size, size)) + 0.5) / size
    return np.asarray(column > _EDGE[0] * (1.0 - row / _EDGE[1]))


def _project(source: str, target: str, x: Any, y: Any) -> tuple[Any, Any]:
    """Transform coordinates, x first."""
    if source == target:
        return x, y
    projected: tuple[Any, Any] = _transformer(source, target).transform(x, y)
    return projected


@cache
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)
