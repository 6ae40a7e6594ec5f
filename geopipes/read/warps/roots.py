"""Root grids: all pixels of a CRS, numbered from one origin whatever the bounds of a cube."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from geopipes.errors import GridError

Array = np.ndarray[Any, Any]

PHASES = 60
"""Parts of a pixel that an origin is rounded to: holds halves, thirds, quarters, fifths and sixths."""

ON_PHASE = 1e-6
"""Pixels within which an origin is rounded: far below the 2^-12 px that coordinates are rounded to."""


@dataclass(frozen=True)
class Root:
    """All pixels of a CRS: pixel edges lie at ``origin + index * step`` for whole numbers.

    Attributes
    ----------
    crs : as text
    origin : (y, x) [units of the CRS] of the edge numbered 0, less than a pixel where bounds allow it
    step : (y, x) [units of the CRS per pixel]; y is negative, as rows go south
    """

    crs: str
    origin: tuple[float, float]
    step: tuple[float, float]

    def world(self, y: Array, x: Array) -> tuple[Array, Array]:
        """Take pixel coordinates to x and y of the CRS, element by element: no shape changes a bit of them."""
        return self.origin[1] + x * self.step[1], self.origin[0] + y * self.step[0]


def rooted(grid: GeoBox) -> tuple[Root, tuple[int, int]]:
    """Find the root of a grid and the root's index (row, col) of the grid's first pixel.

    Grids of one resolution whose origins differ by whole pixels have one root, and their pixels are equal bit for
    bit, wherever their origins are multiples of a 60th of a pixel; other origins are roots of their own.

    Raises
    ------
    GridError
        the grid is not north up and axis-aligned
    """
    dx, skew_x, left, skew_y, dy, top, *_ = grid.affine
    if skew_x or skew_y or dx <= 0 or dy >= 0:
        raise GridError(
            f"a grid with transform {tuple(grid.affine[:6])}; north up and axis-aligned is needed: "
            "(dx, 0, left, 0, -dy, top)"
        )
    (row, y), (col, x) = _numbered(top, dy), _numbered(left, dx)
    return Root(str(grid.crs), (y, x), (dy, dx)), (row, col)


def _numbered(origin: float, step: float) -> tuple[int, float]:
    parts = origin / step * PHASES
    if abs(parts - round(parts)) > ON_PHASE * PHASES:
        return 0, origin
    index = floor(round(parts) / PHASES)
    return index, (round(parts) - index * PHASES) / PHASES * step
