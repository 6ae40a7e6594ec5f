"""Where a window lies: its coordinates, and Datasets made of parts that are known to fit."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr
from xarray.indexes import PandasIndex

from geopipes import grids

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from geopipes.datacubes.cube import Window

AXES = 2048
"""Rows and columns of chips whose coordinates are kept: many chips share them, and each epoch has the same ones."""

Coords = dict[Any, xr.Variable]
Indexes = dict[Any, xr.Index]


class Places:
    """Coordinates of the windows of one cube: what they have in common is made once.

    Parameters
    ----------
    whole : all of the cube, lazy
    geobox : its grid
    """

    def __init__(self, whole: xr.Dataset, geobox: GeoBox) -> None:
        self._geobox, self._affine = geobox, geobox.affine[:6]
        self._coords = {name: whole.variables[name] for name in whole.coords}
        self._indexes = dict(whole.xindexes)
        self._whole = {axis: pd.Index(at) for axis, at in zip("yx", grids.coordinates(geobox), strict=True)}
        self._axis = lru_cache(maxsize=AXES)(self._sliced)
        self._dated: dict[tuple[Any, Any] | None, tuple[Coords, Indexes]] = {}

    def of(self, window: Window) -> tuple[Coords, Indexes]:
        """Give a window's coordinates, slices of the whole's own, continued where it reaches outside; and indexes."""
        dates = None if window.time is None else (window.time.start, window.time.stop)
        dated = self._dated.get(dates)
        if dated is None:
            dated = self._dated[dates] = self._dates(window.time)
        # Copies: attributes of one chip are not those of the others.
        coords, indexes = {name: like(variable) for name, variable in dated[0].items()}, dict(dated[1])
        dx, _, left, _, dy, top = self._affine
        corner = (left + dx * window.cols.start, dx, 0.0, top + dy * window.rows.start, 0.0, dy)
        coords["spatial_ref"].attrs["GeoTransform"] = " ".join(repr(float(number)) for number in corner)
        for axis, pixels in (("y", window.rows), ("x", window.cols)):
            variable, indexes[axis] = self._axis(axis, pixels.start, pixels.stop)
            coords[axis] = like(variable)
        return coords, indexes

    def _sliced(self, axis: str, start: int, stop: int) -> tuple[xr.Variable, xr.Index]:
        """Give one axis of windows between two pixels."""
        values = self._whole[axis]
        if start >= 0 and stop <= len(values):
            values = values[start:stop]
        else:
            pixels = slice(start, stop)
            values = pd.Index(grids.coordinates(self._geobox, pixels, pixels)["yx".index(axis)])
        index = PandasIndex(values, axis)
        like = xr.Variable((axis,), values, self._coords[axis].attrs)
        return index.create_variables({axis: like})[axis], index

    def _dates(self, time: slice | None) -> tuple[Coords, Indexes]:
        """Give the coordinates, and their indexes, that all windows of some dates share; None for all dates."""
        coords: Coords = {}
        indexes: Indexes = {}
        for name, coord in self._coords.items():
            if not {"y", "x"}.isdisjoint(coord.dims):
                continue
            coords[name] = coord.isel(time=time) if time is not None and "time" in coord.dims else coord
            index = self._indexes.get(name)
            if index is not None and coord.dims == (name,):
                picked = index.isel({name: time}) if time is not None and name == "time" else index
                indexes[name] = index if picked is None else picked
        return coords, indexes


def placed(whole: xr.Dataset, geobox: GeoBox, window: Window) -> xr.Coordinates:
    """Give the coordinates of a window of a cube."""
    return xr.Coordinates(*Places(whole, geobox).of(window))


def like(variable: xr.Variable, data: Any = None) -> xr.Variable:
    """Give a shallow copy of a variable, or one like it of other data of its dims.

    What ``variable.copy(deep=False, data=data)`` gives, without its checks, which take ten times as long: a chip has a
    dozen variables. The second and last place that knows what xarray keeps to itself, and held equal by a test too.
    """
    made = object.__new__(type(variable))
    made._dims, made._data = variable._dims, variable._data if data is None else data
    made._attrs = None if variable._attrs is None else dict(variable._attrs)
    made._encoding = None if variable._encoding is None else dict(variable._encoding)
    return made


def assembled(variables: Coords, coords: Coords, indexes: Indexes) -> xr.Dataset:
    """Make a Dataset of variables and coordinates that are known to fit.

    ``xr.Dataset`` looks at each of them several times, which takes longer than to read a chip; xarray has no public
    way around it, only the private one that all its own methods take. It stands here alone, and a test holds what it
    gives equal to what ``xr.Dataset`` makes of the same parts.
    """
    every = variables | coords
    sizes: dict[Any, int] = {}
    for variable in {variable.dims: variable for variable in every.values()}.values():
        sizes.update(zip(variable.dims, variable.shape, strict=True))
    return xr.Dataset._construct_direct(every, set(coords), sizes, indexes=indexes)
