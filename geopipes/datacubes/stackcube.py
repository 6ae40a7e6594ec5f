"""A cube of rasters, read by our own window reader."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import xarray as xr

from geopipes import grids
from geopipes.datacubes.cube import SPATIAL, Cube, Window, placed, widened
from geopipes.datacubes.lazies import Array, LazyVariable
from geopipes.errors import SourceError
from geopipes.read.engines import dataset as laid_out
from geopipes.read.sources import Stack, Variable
from geopipes.read.windows import read_variable

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

            read = partial(self._block, name)
            arrays[name] = LazyVariable(tuple(sizes), tuple(sizes.values()), dtype, read).lazy
        return laid_out(self.stack, arrays)

    def _block(self, name: str, bounds: dict[str, slice]) -> Array:
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

    def read(self, window: Window, names: tuple[str, ...] | None = None) -> xr.Dataset:
        """Read a window: every variable, or those named where no other decides which of their pixels are valid."""
        variables = self.stack.variables
        if names is not None and "valid" not in names:
            asked = [variable for variable in variables if variable.name in names]
            if not any(variable.dtype.kind == "f" for variable in asked):
                variables = tuple(asked)
        whole = self.dataset
        arrays: dict[str, Any] = {}
        valid: Array | None = None
        for variable in variables:
            data, mask = self._read_variable(variable, window)
            valid = mask if valid is None else np.logical_and(valid, mask, out=valid)
            arrays[variable.name] = (whole[variable.name].dims, data, whole[variable.name].attrs)
        if valid is None:
            raise SourceError(f"no variable {names}: there are {[v.name for v in self.stack.variables]}")
        if variables is self.stack.variables:
            for variable in variables:
                if variable.dtype.kind == "f":
                    data = arrays[variable.name][1]
                    np.copyto(data, np.nan, where=~(valid if variable.labels is None else valid[..., None, :, :]))
        coords = placed(whole, self.geobox, window)
        return xr.Dataset(arrays | {"valid": (whole["valid"].dims, valid)}, coords)

    def place(self, window: Window) -> xr.Dataset:
        """Give the coordinates of a window."""
        return xr.Dataset(coords=placed(self.dataset, self.geobox, window))[[*SPATIAL]]

    def _read_variable(self, variable: Variable, window: Window) -> tuple[Array, Array]:
        """Read one variable of a window: pixels (time, [band,] y, x) and validity (time, y, x)."""
        steps = range(len(variable.sources))[window.time or slice(None)]
        height, width = window.rows.stop - window.rows.start, window.cols.stop - window.cols.start
        data = np.empty((len(steps), len(variable.labels or ("",)), height, width), variable.dtype)
        valid = np.empty((len(steps), height, width), bool)
        for i, step in enumerate(steps):
            data[i], mask = read_variable(variable, step, self.geobox, window.rows, window.cols)
            np.all(mask, axis=0, out=valid[i])
        if variable.labels is None:
            data = data[:, 0]
        return (data[0], valid[0]) if self.stack.times is None else (data, valid)
