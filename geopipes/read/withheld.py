"""Pixels that a raster would have given and could not: kept open, so that the next one does not stand in for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from geopipes.read import warps
from geopipes.read.placing import placement
from geopipes.read.planes import Box

Array = np.ndarray[Any, Any]


class Withheld:
    """The pixels of one time step that are counted as done until all its rasters are drawn, and then as not valid."""

    def __init__(self) -> None:
        self._parts: list[tuple[Array, Array]] = []

    def cover(self, ok: Array, raster: GeoBox, grid: GeoBox, window: Box, resampling: str) -> None:
        """Keep a raster's footprint free.

        Parameters
        ----------
        ok : (channel, y, x) of the window, bool: where something is drawn already, which stays
        raster : that could not be read
        grid, window : the grid, and rows and columns inside it
        resampling : by which the raster would have been drawn
        """
        free = footprint(raster, grid, window, resampling) & ~ok
        ok |= free
        self._parts.append((ok, free))

    def lift(self) -> None:
        """Count as not valid what was kept free."""
        for ok, free in self._parts:
            ok &= ~free


def footprint(raster: GeoBox, grid: GeoBox, window: Box, resampling: str) -> Array:
    """Say which pixels of a window a raster would fill, were all of it valid: (y, x), bool."""
    shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
    filled: Array = np.zeros((1, *shape), bool)
    place = placement(raster, grid)
    if place.offset is not None:
        starts = [offset - axis.start for offset, axis in zip(place.offset, window, strict=True)]
        rows, cols = (
            slice(max(start, 0), max(start + size, 0)) for start, size in zip(starts, raster.shape, strict=True)
        )
        filled[:, rows, cols] = True
        return filled.reshape(shape)
    where = warps.located(raster, grid, *window, resampling, place.scale)
    if where.window is not None:
        sides = [axis.stop - axis.start for axis in where.window]
        origin, image = (where.window[0].start, where.window[1].start), (raster.shape.y, raster.shape.x)
        out = np.empty((1, *shape), np.uint8)
        warps.resample(where, np.zeros((1, *sides), np.uint8), None, (None,), origin, image, out, filled)
    return filled.reshape(shape)
