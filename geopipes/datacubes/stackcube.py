"""A cube of rasters, read by our own window reader."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import xarray as xr

from geopipes import grids
from geopipes.datacubes.cube import SPATIAL, Cube, Window, widened
from geopipes.datacubes.lazies import Array, LazyVariable
from geopipes.datacubes.places import Places, assembled, like
from geopipes.errors import SourceError
from geopipes.read.engines import dataset as laid_out
from geopipes.read.reader import Block, Reader
from geopipes.read.scratch import scratch
from geopipes.read.sources import Stack

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from shapely import Geometry


@dataclass(frozen=True, eq=False)
class StackCube(Cube):
    """Rasters read onto one grid by our own window reader."""

    stack: Stack

    @property
    def geobox(self) -> GeoBox:
        """The stack's grid."""
        return self.stack.geobox

    @cached_property
    def dataset(self) -> xr.Dataset:
        """All of the stack, lazy."""
        height, width = self.geobox.shape
        time = {} if self.stack.times is None else {"time": len(self.stack.times)}
        kinds = [(v.name, v.dtype, {} if v.labels is None else {"band": len(v.labels)}) for v in self.stack.variables]
        arrays = {}
        for name, dtype, band in [*kinds, ("valid", np.dtype(bool), {})]:
            sizes = time | band | {"y": height, "x": width}

            read = partial(self._read, name)
            arrays[name] = LazyVariable(tuple(sizes), tuple(sizes.values()), dtype, read).lazy
        return laid_out(self.stack, arrays)

    def _read(self, name: str, bounds: dict[str, slice]) -> Array:
        """Read a block of one variable."""
        window = Window(bounds["y"], bounds["x"], bounds.get("time"))
        values: Array = self.read(window, (name,))[name].values
        return values

    @cached_property
    def footprint(self) -> Geometry:
        """Where every variable has a raster, over all dates, in the grid's CRS."""
        covers = []
        for variable in self.stack.variables:
            rasters = {grids.key(source.geobox): source.geobox for step in variable.sources for source in step}
            covers.append(shapely.union_all([grids.extent(raster, self.crs) for raster in rasters.values()]))
        return widened(shapely.intersection_all(covers), self.geobox)

    def outlines(self) -> list[Geometry]:
        """Give for each date where every variable has a raster."""
        made: dict[Any, Geometry] = {}
        found = []
        for date in range(len(self.stack.times or ())):
            rasters = [{grids.key(s.geobox): s.geobox for s in v.sources[date]} for v in self.stack.variables]
            key = tuple(frozenset(one) for one in rasters)
            if key not in made:
                covers = [shapely.union_all([grids.extent(g, self.crs) for g in one.values()]) for one in rasters]
                made[key] = widened(shapely.intersection_all(covers), self.geobox)
            found.append(made[key])
        return found

    @cached_property
    def places(self) -> Places:
        """Coordinates of windows."""
        return Places(self.dataset, self.geobox)

    @cached_property
    def reader(self) -> Reader:
        """Reads windows of the stack: this process's own."""
        return Reader(self.stack)

    def read(
        self, window: Window, names: tuple[str, ...] | None = None, *, chip: xr.Variable | None = None
    ) -> xr.Dataset:
        """Read a window: every variable, or those named where no other decides which of their pixels are valid.

        Parameters
        ----------
        window, names : as for every cube
        chip : a coordinate of that name; to add it later would cost as much as the Dataset
        """
        block = self.pixels(window, names, into=self._block(window))
        return self._laid_out(window, block, names, {} if chip is None else {"chip": chip})

    def pixels(self, window: Window, names: tuple[str, ...] | None = None, into: Block | None = None) -> Block:
        """Read a window as arrays: all variables of one dtype are one array (time, channel, y, x), NaN where not valid.

        Parameters
        ----------
        window : where
        names : the variables wanted, None for all
        into : a block to write to, as `geopipes.read.reader.Reader.read` takes it
        """
        names = None if names is None or self._decide(names) else names
        block = self.reader.read(window.rows, window.cols, self._steps(window), names=names, into=into)
        if names is None:
            for dtype, pixels in block.pixels.items():
                if dtype.kind == "f" and not block.complete:
                    np.copyto(pixels, np.nan, where=~block.valid[:, None])
        return block

    def _block(self, window: Window) -> Block:
        """Make a block for a window, to be kept but for ``ok``: memory that has just been used is near."""
        sides = (window.rows.stop - window.rows.start, window.cols.stop - window.cols.start)
        steps = len(self._steps(window))
        pixels, ok = {}, {}
        for dtype, bands in self.reader.bands.items():
            shape = (steps, bands, *sides)
            pixels[dtype], ok[dtype] = np.empty(shape, dtype), scratch(f"{dtype} ok", shape, bool)
        return Block(pixels, ok, np.empty((steps, *sides), bool))

    def keys(self, window: Window) -> list[Any]:
        """Name the tiles of a window."""
        return self.reader.keys(window.rows, window.cols, self._steps(window))

    def _steps(self, window: Window) -> range:
        return range(1 if self.stack.times is None else len(self.stack.times))[window.time or slice(None)]

    def _decide(self, names: tuple[str, ...]) -> bool:
        """Say whether other variables decide which pixels of these are valid."""
        asked = [variable for variable in self.stack.variables if variable.name in names]
        if not asked and "valid" not in names:
            raise SourceError(f"no variable {names}: there are {[v.name for v in self.stack.variables]}")
        return "valid" in names or any(variable.dtype.kind == "f" for variable in asked)

    def _laid_out(
        self, window: Window, block: Block, names: tuple[str, ...] | None, more: dict[str, xr.Variable]
    ) -> xr.Dataset:
        """Make a Dataset of a window's arrays, and of coordinates more."""
        arrays: dict[str, xr.Variable] = {}
        for name, dtype, channels, whole in self._parts:
            if names is None or name in names:
                arrays[name] = like(whole, block.pixels[dtype][channels])
        valid = block.valid[0] if self.stack.times is None else block.valid
        arrays["valid"] = like(self.dataset.variables["valid"], valid)
        coords, indexes = self.places.of(window)
        return assembled(arrays, coords | more, indexes)

    @cached_property
    def _parts(self) -> list[tuple[str, np.dtype[Any], tuple[int | slice, ...], xr.Variable]]:
        """Say of each variable where it lies in a block, and what it is like."""
        date = 0 if self.stack.times is None else slice(None)
        found: list[tuple[str, np.dtype[Any], tuple[int | slice, ...], xr.Variable]] = []
        for variable in self.stack.variables:
            channels = self.reader.channels[variable.name]
            place: tuple[int | slice, ...] = (date, channels.start if variable.labels is None else channels)
            found.append((variable.name, variable.dtype, place, self.dataset.variables[variable.name]))
        return found

    def place(self, window: Window) -> xr.Dataset:
        """Give the coordinates of a window."""
        return xr.Dataset(coords=xr.Coordinates(*self.places.of(window)))[[*SPATIAL]]
