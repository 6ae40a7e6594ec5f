"""A stack on dask: read by odc-stac or by stackstac, laid out alike."""

from __future__ import annotations

import functools
import importlib
import operator
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.crs import norm_crs_or_error

from geopipes.errors import GridError
from geopipes.read.engines.layers import carrier, layers
from geopipes.read.engines.layout import dataset
from geopipes.read.sources import Stack


def load_odc(stack: Stack, *, chunk: int = 2048) -> xr.Dataset:
    """Read a stack lazily through odc-stac, on dask.

    GDAL resamples chunk by chunk: off the file's own grid, pixels depend a little on where the chunks are
    cut. Overviews are not read. A raster is taken to lie where its source says; headers are not compared.

    Parameters
    ----------
    stack : the grid, the times and the rasters
    chunk : height and width of a dask chunk [px]; a chunk holds one band of one step

    Returns
    -------
    Dataset as `dataset` lays it out. Hrefs are signed now and stay in the graph: compute it before the
    signatures expire. What cannot be read raises a ReadError when it is computed.

    Raises
    ------
    SourceError : a variable that floats cannot carry exactly
    ImportError : dask or odc-stac is not installed
    """
    return _assembled(stack, _imported("geopipes.read.engines.by_odc"), chunk)


def load_stackstac(stack: Stack, *, chunk: int = 2048) -> xr.Dataset:
    """Read a stack lazily through stackstac, on dask: as `load_odc`, onto grids that have an EPSG code.

    Parameters
    ----------
    stack : the grid, the times and the rasters
    chunk : height and width of a dask chunk [px]; a chunk holds one band of one source

    Returns
    -------
    Dataset as `dataset` lays it out; what `load_odc` says of it holds here.

    Raises
    ------
    GridError : the grid's CRS has no EPSG code
    SourceError : a variable that floats cannot carry exactly
    ImportError : dask or stackstac is not installed
    """
    crs = norm_crs_or_error(stack.geobox.crs)
    if crs.to_epsg() is None:
        raise GridError(
            f"engine='stackstac' names grids by their EPSG code, and the CRS {crs.proj.name!r} has none;"
            " write stack(crs='EPSG:...'), or engine='odc'"
        )
    return _assembled(stack, _imported("geopipes.read.engines.by_stackstac"), chunk)


def _imported(module: str) -> Any:
    """Import what stands on the extra ``dask``, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this engine needs more: pip install 'geopipes[dask]' ({error})") from error


def _assembled(stack: Stack, engine: Any, chunk: int) -> xr.Dataset:
    """Read every variable by an engine; find where all are valid; give each its dtype and nodata."""
    array = _imported("dask.array")
    floats = {}
    for variable in stack.variables:
        found = list(layers(variable, stack.geobox))
        filled = engine.read(stack.geobox, variable, found, chunk) if found else {}
        shape = (len(variable.labels or ("",)), *stack.geobox.shape)
        empty = array.full(shape, np.nan, dtype=carrier(variable), chunks=(1, chunk, chunk))
        steps = range(len(variable.sources))
        floats[variable.name] = array.stack([filled.get(step, empty) for step in steps])
    valid = functools.reduce(operator.and_, (~array.isnan(pixels).any(axis=1) for pixels in floats.values()))
    arrays = {"valid": valid}
    for variable in stack.variables:
        pixels, dtype = floats[variable.name], variable.dtype
        if dtype.kind == "f":
            pixels = array.where(valid[:, np.newaxis], pixels, np.nan).astype(dtype)
        else:
            pixels = pixels.map_blocks(_integers, variable.nodata or 0, dtype, dtype=dtype)
        arrays[variable.name] = pixels[:, 0] if variable.labels is None else pixels
    if stack.times is None:
        arrays = {name: pixels[0] for name, pixels in arrays.items()}
    return dataset(stack, arrays)


def _integers(
    pixels: np.ndarray[Any, np.dtype[Any]], nodata: float, dtype: np.dtype[Any]
) -> np.ndarray[Any, np.dtype[Any]]:
    """Round half up, as GDAL does, and clamp to the dtype; nodata for NaN."""
    limits = np.iinfo(dtype)
    whole = np.clip(np.floor(pixels + 0.5), limits.min, limits.max)
    return np.where(np.isnan(pixels), nodata, whole).astype(dtype)
