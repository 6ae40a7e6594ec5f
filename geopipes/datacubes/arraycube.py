"""A cube of arrays from elsewhere: in memory, lazily indexed or on dask."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import numpy as np
import shapely
import xarray as xr
from xbatcher import BatchGenerator

from geopipes.datacubes.cube import SPATIAL, Cube, MappedCube, Window, placed, widened
from geopipes.datacubes.lazies import Array, LazyVariable, template
from geopipes.steps import Step

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from shapely import Geometry


@dataclass(frozen=True, eq=False)
class ArrayCube(Cube):
    """Arrays from elsewhere: an xr.Dataset on one grid, in memory, lazily indexed or on dask.

    Where steps were built into the graph, `typed` is the same cube as it was typed: its base and its last step.
    """

    array: xr.Dataset
    grid: GeoBox
    typed: MappedCube | None = None

    @property
    def geobox(self) -> GeoBox:
        """The grid that the coordinates state."""
        return self.grid

    @cached_property
    def dataset(self) -> xr.Dataset:
        """The arrays as they are; ``valid`` is told from them where they have none."""
        if "valid" in self.array:
            return self.array
        small = with_valid(template(self.array))["valid"]
        sizes = {str(dim): self.array.sizes[dim] for dim in small.dims}
        lazy = LazyVariable(tuple(sizes), tuple(sizes.values()), np.dtype(bool), self._told)
        return self.array.assign(valid=(tuple(sizes), lazy.lazy))

    def _told(self, bounds: dict[str, slice]) -> Array:
        """Tell the validity of a block."""
        block = self.array.isel({dim: bound for dim, bound in bounds.items() if dim in self.array.dims})
        values: Array = with_valid(block)["valid"].values
        return values

    @cached_property
    def footprint(self) -> Geometry:
        """All of the grid."""
        return widened(shapely.box(*self.grid.boundingbox.bbox), self.grid)

    def map(self, step: Step) -> Cube:
        """Build the graph on dask; record the step elsewhere."""
        if any(variable.chunks for variable in self.array.variables.values()) and step.margin == 0:
            return ArrayCube(step(self.array), self.grid, MappedCube(self, step))
        return super().map(step)

    def read(self, window: Window, names: tuple[str, ...] | None = None) -> xr.Dataset:
        """Load a window; what lies outside the arrays is padded and not valid."""
        height, width = self.grid.shape
        rows = slice(max(window.rows.start, 0), min(window.rows.stop, height))
        cols = slice(max(window.cols.start, 0), min(window.cols.stop, width))
        block = self.array.isel(y=rows, x=cols)
        if window.time is not None and "time" in block.dims:
            block = block.isel(time=window.time)
        # All dims are the batch's own: xbatcher stacks those that are not, where there are two, to one "sample".
        sizes = {str(dim): size for dim, size in block.sizes.items()}
        inside = BatchGenerator(block, sizes, preload_batch=False)[0].compute()
        inside = inside if "valid" in inside else with_valid(inside)
        edges = {
            "y": (rows.start - window.rows.start, window.rows.stop - rows.stop),
            "x": (cols.start - window.cols.start, window.cols.stop - cols.stop),
        }
        variables = {name: padded(variable.variable, edges) for name, variable in inside.data_vars.items()}
        return xr.Dataset(variables, placed(self.array, self.grid, window), inside.attrs)

    def place(self, window: Window) -> xr.Dataset:
        """Give the coordinates of a window."""
        return xr.Dataset(coords=placed(self.array, self.grid, window))[[*SPATIAL]]


def with_valid(dataset: xr.Dataset) -> xr.Dataset:
    """Tell the validity of arrays from elsewhere: not NaN, not the nodata or fill value of the attributes."""
    parts = []
    for variable in dataset.data_vars.values():
        nodata = variable.attrs.get("nodata", variable.attrs.get("_FillValue"))
        part = variable.notnull() if variable.dtype.kind in "fc" else xr.ones_like(variable, bool)
        if nodata is not None and nodata == nodata:
            part &= variable != nodata
        parts.append(part.all([dim for dim in part.dims if dim not in ("time", "y", "x")]))
    order = [dim for dim in ("time", "y", "x") if any(dim in part.dims for part in parts)]
    valid = reduce(operator.and_, parts).transpose(*order)
    valid.attrs = {}
    return dataset.assign(valid=valid)


def padded(variable: xr.Variable, edges: dict[str, tuple[int, int]]) -> xr.Variable:
    """Widen a variable by pixels that are not valid: False, NaN, its nodata, or 0 where it states none."""
    widths = {dim: width for dim, width in edges.items() if dim in variable.dims and any(width)}
    if not widths:
        return variable
    fill = np.nan if variable.dtype.kind in "fc" else variable.attrs.get("nodata", 0)
    wider: xr.Variable = variable.pad(widths, constant_values=fill)
    return wider
