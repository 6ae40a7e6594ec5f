"""A piece of farmland as a function of position: what grows where, how bright it is, where clouds stand.

Everything is computed from coordinates in EPSG:5070 [m] and a seed, through a hash of lattice points: no
state, no window, no order. A place is therefore the same in every scene, on every grid and in the label.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class LandCover:
    """One class of the label.

    Attributes
    ----------
    value : as the label's pixels say it
    name : in words
    colour : red, green, blue, 0 to 255, as in the label's colour table
    """

    value: int
    name: str
    colour: tuple[int, int, int]


CLASSES = (
    LandCover(0, "other", (130, 130, 130)),
    LandCover(1, "corn", (255, 211, 0)),
    LandCover(2, "soybeans", (38, 112, 0)),
    LandCover(3, "winter wheat", (165, 112, 0)),
    LandCover(4, "alfalfa", (255, 165, 226)),
    LandCover(5, "grass", (180, 220, 120)),
    LandCover(6, "forest", (60, 95, 60)),
    LandCover(7, "water", (75, 112, 163)),
    LandCover(8, "bare", (205, 190, 165)),
)
"""The label's classes, in the order of their values; the colours follow the Cropland Data Layer."""

OTHER, FOREST, WATER = 0, 6, 7
_PARCEL_CLASSES = np.array([1, 2, 3, 4, 5, 6, 8], dtype="uint8")
_PARCEL_SHARES = np.array([0.32, 0.28, 0.10, 0.09, 0.12, 0.04, 0.05])

BANDS = ("blue", "green", "red", "nir")
# Reflectance x 10000 of the ground and of a closed canopy, for each class, in the order of BANDS.
_SOIL = (900, 1200, 1550, 2250)
_GROUND = np.array(
    [
        (1300, 1500, 1700, 2300),
        *[_SOIL] * 5,
        (500, 700, 800, 1500),
        (550, 600, 420, 230),
        (1150, 1500, 1950, 2700),
    ]
)
_CANOPY = np.array(
    [
        (600, 800, 700, 2600),
        (280, 620, 340, 4000),
        (330, 800, 330, 4900),
        (350, 620, 480, 3500),
        (300, 740, 360, 4500),
        (430, 780, 680, 3100),
        (200, 400, 240, 3200),
        (0, 0, 0, 0),
        (430, 780, 680, 3100),
    ]
)
# Share of the ground that green leaves cover, by day of the year: each class has a season of its own,
# so dates together tell apart what no single date does.
_SEASON_DAYS = (60, 105, 124, 144, 160, 178, 194, 225, 255, 285)
_SEASONS = (
    (0.05, 0.10, 0.12, 0.12, 0.12, 0.12, 0.12, 0.12, 0.10, 0.05),
    (0.00, 0.00, 0.04, 0.12, 0.40, 0.78, 0.95, 0.92, 0.50, 0.05),
    (0.00, 0.00, 0.02, 0.05, 0.16, 0.42, 0.76, 0.98, 0.55, 0.03),
    (0.35, 0.70, 0.90, 0.92, 0.55, 0.15, 0.05, 0.04, 0.05, 0.20),
    (0.20, 0.60, 0.85, 0.95, 0.30, 0.85, 0.35, 0.90, 0.70, 0.50),
    (0.15, 0.40, 0.60, 0.75, 0.78, 0.72, 0.68, 0.60, 0.50, 0.35),
    (0.20, 0.35, 0.65, 0.92, 0.97, 0.97, 0.96, 0.95, 0.88, 0.50),
    (0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00),
    (0.02, 0.03, 0.04, 0.05, 0.06, 0.06, 0.06, 0.06, 0.05, 0.03),
)

_SECTION = 1600.0  # [m] between roads: the public land survey's mile, rounded
_ROAD_WIDTH = 22.0  # [m] with its verges
_RIVER_WIDTH = 110.0  # [m]
_FLOOD_PLAIN = 420.0  # [m] across, wooded in part
_AT_ONCE = 2**15  # positions whose intermediate arrays stay in a core's cache; they change no result


@dataclass(frozen=True)
class Land:
    """The ground at some positions; every array has the positions' shape.

    Attributes
    ----------
    cover : uint8, values of CLASSES
    leaf_lag : days by which the parcel's season is late
    brightness, vigour : factors about 1 on the reflectance of ground and canopy, with the field's texture
    """

    cover: NDArray[np.uint8]
    leaf_lag: Floats
    brightness: Floats
    vigour: Floats


def land(x: Floats, y: Floats, *, seed: int) -> Land:
    """Give the ground at positions x, y (EPSG:5070, metres east and north; any one shape)."""
    parcel, road = _parcels(x, y, seed)
    cover = _PARCEL_CLASSES[np.searchsorted(np.cumsum(_PARCEL_SHARES)[:-1], _uniform(_hashed(parcel, "crop")))]
    wooded = smooth_noise(x, y, seed=seed, layer="woods", scale=700, octaves=3)
    from_river = _distance_from_river(x, y, seed)
    lakes = smooth_noise(x, y, seed=seed, layer="lakes", scale=1500, octaves=2)
    # What comes later lies on top: roads bridge the river and go through woods, and end at lakes.
    cover[wooded > 0.72] = FOREST
    cover[(from_river < _FLOOD_PLAIN / 2) & (wooded > 0.38)] = FOREST
    cover[from_river < _RIVER_WIDTH / 2] = WATER
    cover[road] = OTHER
    cover[lakes > 0.80] = WATER
    texture = smooth_noise(x, y, seed=seed, layer="texture", scale=90, octaves=3) - 0.5
    return Land(
        cover=cover,
        leaf_lag=12.0 * (_uniform(_hashed(parcel, "lag")) - 0.5),
        brightness=1.0 + 0.3 * (_uniform(_hashed(parcel, "soil")) - 0.5) + 0.25 * texture,
        vigour=1.0 + 0.2 * (_uniform(_hashed(parcel, "vigour")) - 0.5) - 0.20 * texture,
    )


def leaf_cover(ground: Land, day: date) -> Floats:
    """Give the share of the ground under green leaves on a day, 0 to 1, with the shape of ``ground``."""
    share = np.zeros(ground.cover.shape)
    for value, season in enumerate(_SEASONS):
        here = ground.cover == value
        share[here] = np.interp(day.timetuple().tm_yday - ground.leaf_lag[here], _SEASON_DAYS, season)
    return share


def reflectance(ground: Land, leaves: Floats) -> Floats:
    """Give (band, *shape) reflectance x 10000 under a clear sky, in the order of BANDS."""
    soil = np.moveaxis(_GROUND[ground.cover], -1, 0) * ground.brightness * (1.0 - leaves)
    canopy = np.moveaxis(_CANOPY[ground.cover], -1, 0) * ground.vigour * leaves
    return soil + canopy


def cloud_field(x: Floats, y: Floats, day: date, *, seed: int) -> Floats:
    """Give a smooth field, 0 to 1, whose high places are the day's clouds."""
    return smooth_noise(x, y, seed=seed, layer=f"clouds {day.isoformat()}", scale=2200, octaves=5)


def smooth_noise(x: Floats, y: Floats, *, seed: int, layer: str, scale: float, octaves: int = 1) -> Floats:
    """Give value noise, 0 to 1: hashed numbers on a lattice, smoothly interpolated between.

    Parameters
    ----------
    x, y : positions [m], of one shape, within one region: what lies between them is computed too
    seed, layer : name the field; fields of different names are independent
    scale : [m] between the lattice points of the coarsest octave; each further one halves it, and its weight

    Returns
    -------
    float64, the positions' shape
    """
    total = np.empty(x.shape)
    flat = total.reshape(-1)
    for first in range(0, x.size, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        flat[part] = _octaves(x.reshape(-1)[part], y.reshape(-1)[part], seed, layer, scale, octaves)
    return total


def white_noise(columns: NDArray[np.int64], rows: NDArray[np.int64], *, seed: int, layer: str) -> Floats:
    """Give a number of [0, 1) for each place of a lattice, independent of those around it; shapes that broadcast."""
    return _uniform(_hashed(np.uint64(seed), layer, columns, rows))


def _octaves(x: Floats, y: Floats, seed: int, layer: str, scale: float, octaves: int) -> Floats:
    """Give value noise at a few positions, (n,)."""
    total = np.zeros(x.shape)
    for octave in range(octaves):
        column, row = x * (2**octave / scale), y * (2**octave / scale)
        west, south = np.floor(column).astype("int64"), np.floor(row).astype("int64")
        right, up = _ease(column - west), _ease(row - south)
        # The lattice under the positions is hashed as a whole: its points are far fewer than the positions.
        columns = np.arange(west.min(), west.max() + 2)
        rows = np.arange(south.min(), south.max() + 2)
        key = _hashed(np.uint64(seed), layer, np.int64(octave))
        lattice = _uniform(_hashed(key, columns, rows[:, np.newaxis])).ravel()
        corner = (south - rows[0]) * columns.size + (west - columns[0])
        lower = lattice[corner] * (1 - right) + lattice[corner + 1] * right
        corner += columns.size
        upper = lattice[corner] * (1 - right) + lattice[corner + 1] * right
        total += (lower * (1 - up) + upper * up) * 0.5**octave
    return total / (2.0 - 0.5 ** (octaves - 1))


def _parcels(x: Floats, y: Floats, seed: int) -> tuple[Hashes, NDArray[np.bool_]]:
    """Give each position's parcel, as a hash, and whether a road runs there.

    Sections between roads are cut again and again across their longer side, at uneven places, until the
    parcels are 200 to 800 m long. The whole is turned a little and bent, as surveys and contours do.
    """
    base = _hashed(np.uint64(seed), "parcels")
    angle = np.deg2rad(10.0) * (float(_uniform(_hashed(base, "angle"))) - 0.5)
    bend_x = 80.0 * (smooth_noise(x, y, seed=seed, layer="bend x", scale=900, octaves=2) - 0.5)
    bend_y = 80.0 * (smooth_noise(x, y, seed=seed, layer="bend y", scale=900, octaves=2) - 0.5)
    across = (x * np.cos(angle) + y * np.sin(angle) + bend_x) / _SECTION
    along = (y * np.cos(angle) - x * np.sin(angle) + bend_y) / _SECTION
    parcel = _hashed(base, np.floor(across).astype("int64"), np.floor(along).astype("int64"))
    place = np.stack([across - np.floor(across), along - np.floor(along)]) * _SECTION
    road = (np.minimum(place, _SECTION - place) < _ROAD_WIDTH / 2).any(axis=0)
    low, high = np.zeros_like(place), np.full_like(place, _SECTION)
    for _ in range(5):
        length = high - low
        side = (length[1] > length[0]).astype("int64")[np.newaxis]
        longest = np.take_along_axis(length, side, 0)[0]
        is_cut = (longest > 800.0) | ((longest > 500.0) & (_uniform(_hashed(parcel, "cut")) < 0.5))
        share = 0.38 + 0.24 * _uniform(_hashed(parcel, "where"))
        cut = np.take_along_axis(low, side, 0)[0] + share * longest
        beyond = np.take_along_axis(place, side, 0)[0] > cut
        for bound, moved in ((low, is_cut & beyond), (high, is_cut & ~beyond)):
            kept = np.take_along_axis(bound, side, 0)[0]
            np.put_along_axis(bound, side, np.where(moved, cut, kept)[np.newaxis], 0)
        parcel = np.where(is_cut, _hashed(parcel, beyond.astype("int64")), parcel)
    return parcel, np.asarray(road)


def _distance_from_river(x: Floats, y: Floats, seed: int) -> Floats:
    """Give metres from the middle of a river that winds from north to south near x = 0, roughly."""

    def middle(y: Floats) -> Floats:
        noise = smooth_noise(np.zeros_like(y), y, seed=seed, layer="river", scale=2600, octaves=3)
        return 3000.0 * (noise - 0.5)

    slant = middle(y + 1.0) - middle(y)  # [m/m]: where the river runs askew it is no narrower
    return np.abs(x - middle(y)) / np.sqrt(1.0 + slant**2)


def _ease(t: Floats) -> Floats:
    """Smoothstep: from 0 to 1 with level ends, so that lattice lines do not show."""
    return t * t * (3.0 - 2.0 * t)


def _hashed(key: Hashes | np.uint64, *more: NDArray[np.int64] | np.int64 | str) -> Hashes:
    """Mix further numbers or names into hashes, element by element (the finalizer of splitmix64)."""
    mixed = np.asarray(key, dtype="uint64")
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        for part in more:
            number = np.asarray(zlib.crc32(part.encode()) if isinstance(part, str) else part)
            mixed = (mixed ^ number.astype("uint64")) + np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    return np.asarray(mixed)


def _uniform(hashes: Hashes) -> Floats:
    """Give numbers in [0, 1) from the hashes' upper 53 bits."""
    return np.asarray((hashes >> np.uint64(11)) * 2.0**-53)
