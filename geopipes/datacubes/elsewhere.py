"""Arrays from elsewhere to cubes: xarray objects, NetCDF and Zarr; put on another grid where asked."""

from __future__ import annotations

import os
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import odc.geo.xr  # gives xarray objects their .odc
import rasterio
import rioxarray  # noqa: F401  # gives xarray objects their .rio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from geopipes import grids
from geopipes.datacubes.arraycube import ArrayCube, with_valid
from geopipes.datacubes.cube import Cube, Cubes, Window
from geopipes.datacubes.lazies import Array, spread, template
from geopipes.datacubes.places import placed
from geopipes.errors import GridError, NotGeoreferenced, SourceError
from geopipes.read.sources import Source, Variable
from geopipes.read.windows import read_variable

if TYPE_CHECKING:
    from shapely import Geometry

NAMES = {"lat": "y", "latitude": "y", "lon": "x", "longitude": "x"}
"""Names of dims that are known to mean y and x, in degrees."""

SPACING = 1e-3
"""Share of a pixel by which coordinates may miss a regular grid: float32 coordinates do."""

PLANES_HELD = 16
"""Planes (one variable, one date) that a reprojected cube holds in memory."""

Openable = xr.Dataset | xr.DataArray | str | os.PathLike[str]


def from_xarray(sources: Openable | Sequence[Openable], *, crs: Any = None) -> Cubes:
    """Take cubes from xarray objects, NetCDF files and Zarr stores.

    Parameters
    ----------
    sources : one or several: a Dataset or DataArray in memory, lazily indexed or on dask, or the path or URL of
        a NetCDF file or a Zarr store (a name that ends in ``.zarr``). Dims y and x (or latitude and longitude)
        on a regular grid; time where there is one
    crs : where the source states none

    Returns
    -------
    one cube for each. Dims are ordered (time, ..., y, x), north up; coordinates become exact pixel centres;
    variables without y and x are left behind. ``valid`` is the source's own, or the AND of what is not NaN and not
    the ``nodata`` or ``_FillValue`` of its attributes

    Raises
    ------
    NotGeoreferenced
        if there is no CRS
    GridError
        if y and x are missing or not regular
    """
    many = [sources] if isinstance(sources, xr.Dataset | xr.DataArray | str | os.PathLike) else list(sources)
    return Cubes([_cube(_opened(source), crs) for source in many])


def reproject(cubes: Cubes, grid: GeoBox, *, resampling: str = "nearest") -> Cubes:
    """Put cubes from elsewhere on another grid.

    Parameters
    ----------
    cubes : of `from_xarray`; items are read onto their grid by `stack` at once and need no second one
    grid : where to, axis-aligned and north up
    resampling : as in `stack`

    Returns
    -------
    one cube on that grid for each. On dask, the graph of odc-geo's warp, chunk by chunk; elsewhere each plane is
    held in memory whole while it is read, and pixels do not depend on the windows
    """
    done: list[Cube] = []
    for cube in cubes.cubes:
        if not isinstance(cube, ArrayCube):
            raise GridError(f"reproject takes cubes from elsewhere, gp.cubes(...); this is {type(cube).__name__}")
        if any(variable.chunks for variable in cube.array.variables.values()):
            floats = {name: "nearest" if v.dtype == bool else resampling for name, v in cube.array.data_vars.items()}
            warped = {n: v.odc.reproject(grid, resampling=floats[n]) for n, v in cube.array.data_vars.items()}
            done.append(_cube(xr.Dataset(warped), grid.crs))
        else:
            done.append(ReprojectedCube(cube, grid, resampling))
    return Cubes(done)


def _opened(source: Openable) -> xr.Dataset:
    """Open a path; give a DataArray the Dataset it is a variable of."""
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if PurePath(path.rstrip("/")).suffix == ".zarr":
            return xr.open_dataset(path, engine="zarr", decode_coords="all")
        return xr.open_dataset(path, decode_coords="all")
    return source.to_dataset(name=source.name or "values") if isinstance(source, xr.DataArray) else source


def _cube(dataset: xr.Dataset, crs: Any) -> ArrayCube:
    """Bring a Dataset into the one layout."""
    degrees = {name: NAMES[name] for name in map(str, dataset.dims) if name in NAMES}
    dataset = dataset.rename(degrees)
    if not {"y", "x"} <= set(dataset.dims):
        raise GridError(f"cubes: dims {dict(dataset.sizes)} have no y and x; rename them, dataset.rename(...)")
    found = crs if crs is not None else (dataset.rio.crs or ("EPSG:4326" if degrees else None))
    if found is None:
        raise NotGeoreferenced("cubes: the Dataset states no CRS; say it, gp.cubes(..., crs='EPSG:32633')")
    if dataset["y"].size > 1 and float(dataset["y"][0]) < float(dataset["y"][-1]):
        dataset = dataset.isel(y=slice(None, None, -1))
    if dataset["x"].size > 1 and float(dataset["x"][0]) > float(dataset["x"][-1]):
        dataset = dataset.isel(x=slice(None, None, -1))
    grid = _regular(dataset, found)
    kept = {name: v for name, v in dataset.data_vars.items() if {"y", "x"} <= set(v.dims)}
    order = [dim for dim in ("time",) if dim in dataset.dims]
    layout = {name: v.transpose(*[d for d in order if d in v.dims], ..., "y", "x").variable for name, v in kept.items()}
    y, x = grids.coordinates(grid)
    coords = {n: c.variable for n, c in dataset.coords.items() if not set(c.dims) & {"y", "x"} and n != "spatial_ref"}
    result = xr.Dataset(layout, coords, dataset.attrs).assign_coords(odc.geo.xr.xr_coords(grid, always_yx=True))
    result = result.assign_coords(y=("y", y), x=("x", x))
    if "time" in result.dims:
        result = result.assign_coords(time=result["time"].astype("datetime64[ns]"))
    if "valid" not in result and any(variable.chunks for variable in result.variables.values()):
        result = with_valid(result)
    result.encoding = {key: dataset.encoding[key] for key in ("source",) if key in dataset.encoding}  # the file's name
    return ArrayCube(result, grid)


def _regular(dataset: xr.Dataset, crs: Any) -> GeoBox:
    """Give the grid whose pixel centres the coordinates are."""
    steps, origins = {}, {}
    for dim in ("y", "x"):
        if dim not in dataset.coords or dataset[dim].size < 2:
            raise GridError(f"cubes: {dim} needs coordinates of at least 2 pixel centres to tell the pixel size")
        values = np.asarray(dataset[dim].values, float)
        step = (values[-1] - values[0]) / (len(values) - 1)
        if np.abs(np.diff(values) - step).max() > SPACING * abs(step):
            raise GridError(f"cubes: {dim} is not regular ({np.diff(values).min():g}..{np.diff(values).max():g} apart)")
        steps[dim], origins[dim] = step, values[0] - step / 2
    affine = Affine(steps["x"], 0, origins["x"], 0, steps["y"], origins["y"])
    return GeoBox((dataset.sizes["y"], dataset.sizes["x"]), affine, crs)


@dataclass(frozen=True, eq=False)
class ReprojectedCube(Cube):
    """Arrays read onto another grid by the window reader, a plane (variable, date) at a time."""

    base: ArrayCube
    grid: GeoBox
    resampling: str
    planes: _Planes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "planes", _Planes())

    @property
    def geobox(self) -> GeoBox:
        """The grid it is put on."""
        return self.grid

    @cached_property
    def dataset(self) -> xr.Dataset:
        """All of it, lazy."""
        small = template(self.base.dataset)
        place = odc.geo.xr.xr_coords(self.grid, always_yx=True)
        return spread(small, xr.Dataset(coords=place), self._block)

    @cached_property
    def footprint(self) -> Geometry:
        """Where the arrays lie."""
        return grids.extent(self.base.geobox, self.crs)

    def place(self, window: Window) -> xr.Dataset:
        """Give the coordinates of a window."""
        return xr.Dataset(coords=placed(self.dataset, self.grid, window))[["y", "x", "spatial_ref"]]

    def read(self, window: Window, names: tuple[str, ...] | None = None) -> xr.Dataset:
        """Read a window of every variable, or of those named."""
        arrays: dict[Any, Any] = {}
        valid: Any = None
        for name, variable in self.base.dataset.data_vars.items():
            if name != "valid":
                data, mask = self._variable(str(name), variable, window)
                arrays[name] = (variable.dims, data, variable.attrs)
                spatial = mask.all(axis=tuple(range(1, mask.ndim - 2))) if "time" in variable.dims else mask
                valid = spatial if valid is None else valid & spatial
        dims = self.base.dataset["valid"].dims
        return xr.Dataset(arrays | {"valid": (dims, valid)}, placed(self.dataset, self.grid, window))

    def _block(self, name: str, bounds: dict[str, slice]) -> Array:
        window = Window(bounds["y"], bounds["x"], bounds.get("time"))
        values: Array = self.read(window)[name].values
        return values

    def _variable(self, name: str, variable: xr.DataArray, window: Window) -> tuple[Array, Array]:
        """Read one variable: pixels with its dims, and their validity."""
        timed = "time" in variable.dims
        steps = range(variable.sizes["time"])[window.time or slice(None)] if timed else [None]
        read = [self._plane(name, step, window) for step in steps]
        data, mask = np.stack([r[0] for r in read]), np.stack([r[1] for r in read])
        if variable.ndim - timed == 2:
            data, mask = data[:, 0], mask[:, 0]
        return (data, mask) if timed else (data[0], mask[0])

    def _plane(self, name: str, step: int | None, window: Window) -> tuple[Array, Array]:
        """Read one plane onto the grid: (band, y, x) twice."""
        source = self.planes.source(self.base, name, step)
        variable = Variable(name, source.dtype, source.nodata, self.resampling, None, ((source,),))
        plane: tuple[Array, Array] = read_variable(variable, 0, self.grid, window.rows, window.cols)
        return plane


class _Planes:
    """Planes of arrays as rasters in memory, the last used kept; another process makes its own."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, int | None], tuple[Source, rasterio.MemoryFile]] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[_Planes], tuple[()]]:
        return _Planes, ()

    def source(self, cube: ArrayCube, name: str, step: int | None) -> Source:
        """Give a plane as a raster that the window reader opens."""
        with self._lock:
            if (name, step) not in self._held:
                self._held[name, step] = self._written(cube, name, step)
                while len(self._held) > PLANES_HELD:
                    self._held.popitem(last=False)[1][1].close()
            self._held.move_to_end((name, step))
            return self._held[name, step][0]

    @staticmethod
    def _written(cube: ArrayCube, name: str, step: int | None) -> tuple[Source, rasterio.MemoryFile]:
        variable = cube.array[name] if step is None else cube.array[name].isel(time=step)
        values = np.asarray(variable.values)
        pixels = values.reshape(-1, *values.shape[-2:])
        nodata = np.nan if pixels.dtype.kind == "f" else variable.attrs.get("nodata", variable.attrs.get("_FillValue"))
        if nodata is None and "valid" in cube.array and not bool(cube.array["valid"].all()):
            raise SourceError(
                f"reproject: {name!r} has pixels that are not valid and states no nodata; set attrs['nodata']"
            )
        memory = rasterio.MemoryFile(filename=f"{uuid.uuid4().hex}.tif")
        count, height, width = pixels.shape
        with memory.open(
            driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype, nodata=nodata,
            crs=cube.crs.to_wkt(), transform=cube.geobox.affine,
        ) as file:  # fmt: skip
            file.write(pixels)
        bands = tuple(range(1, count + 1))
        kind = np.dtype(pixels.dtype)
        time = np.datetime64("NaT", "ns")
        return Source(memory.name, bands, cube.geobox, kind, nodata, name, None, name, time), memory
