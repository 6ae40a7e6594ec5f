"""Drawing planes onto channels: tiles are held, and copied where they lie on the grid, else warped."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from geopipes.read import warps
from geopipes.read.copies import copy_all, copy_first, copy_scaled, copy_valid, rescale
from geopipes.read.layers import Layer
from geopipes.read.nodata import marks
from geopipes.read.planes import Box, Planes
from geopipes.read.scratch import scratch
from geopipes.read.tiles import Uses, shared

Array = np.ndarray[Any, Any]
Place = tuple[int, int]

current: ContextVar[Uses | None] = ContextVar("current", default=None)
"""The run whose expected uses come true as this thread reads."""

KEPT_BOXES = 4096
"""Windows whose place in a raster is kept, for each raster: more than the chips ahead that the cache is told of."""

NO_MASK = np.empty((0, 0), np.uint8)
NO_SCALES = np.empty((0, 2))


@dataclass(frozen=True, eq=False)
class Draw:
    """Planes to be drawn onto some channels by one method.

    Attributes
    ----------
    planes : of files on one tile lattice
    parts : which of the files are needed
    picked, channels : (n,) int64, the planes, and the channels they go to
    nodata : (n,) what is no measurement, as it is stated
    scales : (n, 2) float64, what makes physical numbers of stored ones; None for none
    dtype : of the variables: numbers that are scaled are rounded to it
    resampling, level : how, and from which resolution
    grid : onto which
    offset : the grid's (row, column) of the first pixel, where the raster lies on the grid; else None
    scale : the grid's pixels for one of the level's (y, x)
    """

    planes: Planes
    parts: tuple[int, ...]
    picked: Array
    channels: Array
    nodata: tuple[float | None, ...]
    scales: Array | None
    dtype: np.dtype[Any]
    resampling: str
    level: int
    grid: GeoBox
    offset: Place | None
    scale: tuple[float, float]

    @cached_property
    def _boxes(self) -> dict[tuple[int, ...], Box | None]:
        return {}

    @cached_property
    def raster(self) -> GeoBox:
        """The grid of the level."""
        return self.planes.geobox(self.level)

    def box(self, window: Box) -> Box | None:
        """Give the raster's pixels that a window inside the grid is made of, or somewhat more; None for none."""
        if self.offset is None:
            key = (window[0].start, window[0].stop, window[1].start, window[1].stop)
            if key not in self._boxes:  # asked for twice: when the cache is told of a chip, and when it is read
                if len(self._boxes) >= KEPT_BOXES:
                    self._boxes.clear()
                self._boxes[key] = warps.touched(self.raster, self.grid, *window, self.resampling, self.scale)
            return self._boxes[key]
        (rows, cols), (down, across) = window, self.offset
        height, width = self.planes.levels[self.level].shape
        top, bottom = max(rows.start - down, 0), min(rows.stop - down, height)
        left, right = max(cols.start - across, 0), min(cols.stop - across, width)
        return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None

    def keys(self, window: Box) -> list[Any]:
        """Name the tiles that `onto` uses."""
        box = self.box(window)
        return [] if box is None else self.planes.keys(self.level, self.planes.tiles(self.level, box))

    def onto(self, window: Box, layer: Layer, place: Place) -> None:
        """Draw a window inside the grid.

        Parameters
        ----------
        window : rows and columns of the grid
        layer : what is valid is written where nothing in it is valid yet
        place : where the window begins in it
        """
        box = self.box(window)
        if box is None:
            return
        if self.offset is not None:
            self._copy(box, self.offset, window, layer, place)
            return
        where = warps.located(self.raster, self.grid, *window, self.resampling, self.scale)
        expected = self.planes.tiles(self.level, box)
        needed = [] if where.window is None else self.planes.tiles(self.level, where.window)
        passed_over([*self.planes.keys(self.level, [place for place in expected if place not in needed])])
        if where.window is None:
            return
        height, width = where.shape
        inside = (self._target, slice(place[0], place[0] + height), slice(place[1], place[1] + width))
        out, ok = layer.pixels, layer.told(self.channels)
        # Copies where the channels do not follow each other, or the place is narrower than the whole.
        target, done = np.ascontiguousarray(out[inside]), np.ascontiguousarray(ok[inside])
        if self.scales is not None:
            was = scratch("was", done.shape, bool)
            np.copyto(was, done)
        crop, mask = self._crop(needed, where.window)
        image = (self.raster.shape.y, self.raster.shape.x)
        origin = (where.window[0].start, where.window[1].start)
        warps.resample(where, crop, mask, self.nodata, origin, image, target, done)
        if self.scales is not None:
            rescale(target, done, was, self.scales, self._kind)
        if not np.may_share_memory(target, out):
            out[inside], ok[inside] = target, done

    @cached_property
    def _kind(self) -> Array:
        """The dtype of the variables as kernels take it."""
        return np.empty(0, self.dtype)

    @cached_property
    def _weighed(self) -> np.dtype[Any]:
        """The dtype that pixels are resampled in: integers that become floats are not rounded before."""
        floats = self.dtype.kind == "f" and self.resampling not in ("nearest", "mode")
        return np.result_type(self.planes.dtype, self.dtype) if floats else self.planes.dtype

    @cached_property
    def _target(self) -> Any:
        """The channels as an index, a slice where they follow each other."""
        first, last = int(self.channels[0]), int(self.channels[-1])
        return slice(first, last + 1) if last - first + 1 == len(self.channels) else self.channels

    def _copy(self, box: Box, offset: Place, window: Box, layer: Layer, place: Place) -> None:
        places = self.planes.tiles(self.level, box)
        shift = [offset[axis] - window[axis].start + place[axis] for axis in (0, 1)]
        marked = marks(self.nodata, self.planes.dtype)
        with self.planes.held(self.level, places, self.parts, shared(), current.get()) as held:
            first = layer.begin(self.channels, (box[0].stop - box[0].start, box[1].stop - box[1].start))
            for k, (corner, row, col, shape) in enumerate(self._shares(places, box)):
                mask = NO_MASK if held.masks is None else held.masks[k][0]
                source = (held.pixels[k], self.picked, mask, *marked, corner)
                target = (self.channels, (row + shift[0], col + shift[1]), shape)
                if first:
                    scales = NO_SCALES if self.scales is None else self.scales
                    copy_first(*source, layer.pixels, layer.ok, layer.states, *target, scales, self._kind)
                elif self.scales is None:
                    copy_valid(*source, layer.pixels, layer.ok, *target)
                else:
                    copy_scaled(*source, layer.pixels, layer.ok, *target, self.scales, self._kind)

    def _crop(self, places: list[Place], box: Box) -> tuple[Array, Array | None]:
        """Put a box of the raster together from its tiles: pixels (n, y, x), mask (y, x)."""
        shape = (box[0].stop - box[0].start, box[1].stop - box[1].start)
        crop = scratch("crop", (len(self.picked), *shape), self._weighed)
        mask = scratch("mask", (1, *shape), np.uint8) if self.planes.masked else None
        with self.planes.held(self.level, places, self.parts, shared(), current.get()) as held:
            for k, (corner, row, col, share) in enumerate(self._shares(places, box)):
                to = (row - box[0].start, col - box[1].start)
                copy_all(held.pixels[k], self.picked, corner, crop, to, share)
                if held.masks is not None and mask is not None:
                    copy_all(held.masks[k], ONLY, corner, mask, to, share)
        return crop, None if mask is None else mask[0]

    def _shares(self, places: list[Place], box: Box) -> Iterator[tuple[Place, int, int, Place]]:
        """Give the part of a box that each tile holds: corner in the tile, row and column of the raster, shape."""
        height, width = self.planes.levels[self.level].tile
        for row, col in places:
            top, left = max(row * height, box[0].start), max(col * width, box[1].start)
            bottom, right = min((row + 1) * height, box[0].stop), min((col + 1) * width, box[1].stop)
            yield (top - row * height, left - col * width), top, left, (bottom - top, right - left)


def passed_over(keys: list[Any]) -> None:
    """Take back uses that were expected and will not come."""
    uses = current.get()
    if uses is not None and keys:
        uses.drop(keys)


ONLY = np.zeros(1, np.int64)
"""Picks the one plane of a mask."""
