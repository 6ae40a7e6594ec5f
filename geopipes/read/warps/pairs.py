"""A raster and a root grid: all that is settled once for the two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from math import pi
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from geopipes.read.sources import grid_key
from geopipes.read.warps.compiling import compiled
from geopipes.read.warps.operations import SAME, operation, unprojected
from geopipes.read.warps.roots import Array, Root, rooted

SPANS = 0.01
"""Pixels by which a raster's width may miss the globe and still close upon itself."""

FAR = 2.0**40
"""Pixels from a raster beyond which a place is nowhere: fixed-point coordinates stay within 64 bits."""


@dataclass(frozen=True, eq=False)  # one for each raster and root: told apart by identity, cheaply
class Pair:
    """How pixel coordinates of a root grid become those of a raster.

    Attributes
    ----------
    root : the root grid
    definition : the PROJ operation from the raster's CRS to the root's
    origin : (x, y) of the raster's first corner
    inverse : (2, 2) matrix in four numbers: takes x and y from there to col and row
    shape : (height, width) of the raster
    separable : whether a raster's row depends on the grid's row alone, and its column on the column
    turn : a full turn of longitude, in units of a geographic raster's CRS; 0 for others
    west : where longitudes begin: those of all places are taken from here to a turn further east
    period : columns of a raster that closes upon itself around the globe; 0 for others
    """

    root: Root
    definition: str
    origin: tuple[float, float]
    inverse: tuple[float, float, float, float]
    shape: tuple[int, int]
    separable: bool
    turn: float
    west: float
    period: int

    def exact(self, y: Array, x: Array) -> tuple[Array, Array]:
        """Take pixel coordinates of the root to (row, col) coordinates of the raster, by PROJ itself."""
        return self.on_raster(*unprojected(self.definition, *self.root.world(y, x)))

    def on_raster(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Take x and y of the raster's CRS to its (row, col) coordinates; NaN where there is no such place."""
        row, col = np.empty(x.shape), np.empty(x.shape)
        _onto(x.ravel(), y.ravel(), self.origin, self.inverse, self.turn, self.west, row.reshape(-1), col.reshape(-1))
        return row, col


def paired(raster: GeoBox, grid: GeoBox) -> tuple[Pair, tuple[int, int]]:
    """Settle a raster and a grid: their pair, and the root's index (row, col) of the grid's first pixel."""
    return _paired(grid_key(raster), grid_key(grid))


@lru_cache(maxsize=16384)
def _paired(*keys: tuple[Any, ...]) -> tuple[Pair, tuple[int, int]]:
    raster, grid = (GeoBox(k[:2], Affine(*k[2:8]), k[8]) for k in keys)
    root, first = rooted(grid)
    definition = operation(raster, grid)
    a, b, c, d, e, f, *_ = raster.affine
    height, width = raster.shape
    straight = b == d == 0
    turn = _turn(str(raster.crs))
    period = width if turn and straight and abs(turn / abs(a) - width) < SPANS else 0
    # Half a turn from the raster's centre, and half a rounding step: a globe's left edge itself lies on it.
    west = a * width / 2 + b * height / 2 + c - turn / 2 - abs(a) / 2**13
    inverse = ~Affine(a, b, 0, d, e, 0)
    pair = Pair(
        root,
        definition,
        (c, f),
        (inverse.a, inverse.b, inverse.d, inverse.e),
        (height, width),
        definition == SAME and straight,
        turn,
        west,
        period,
    )
    return pair, first


def _turn(crs: str) -> float:
    """Give a full turn in the unit of a geographic CRS (360 degrees, 400 gon); 0 for a projected one."""
    proj = CRS(crs).proj
    return round(2 * pi / proj.axis_info[0].unit_conversion_factor, 9) if proj.is_geographic else 0.0


@compiled
def _onto(
    x: Array,
    y: Array,
    origin: tuple[float, float],
    inverse: tuple[float, float, float, float],
    turn: float,
    west: float,
    row: Array,
    col: Array,
) -> None:
    for k in range(len(x)):
        east = x[k] if turn == 0 else x[k] - turn * math.floor((x[k] - west) / turn)
        # Shifted before they are scaled: large coordinates cancel exactly.
        right, up = east - origin[0], y[k] - origin[1]
        at_col, at_row = inverse[0] * right + inverse[1] * up, inverse[2] * right + inverse[3] * up
        there = abs(at_row) < FAR and abs(at_col) < FAR
        row[k] = at_row if there else np.nan
        col[k] = at_col if there else np.nan
