"""What a cube looks like, whoever reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.xr import xr_coords

from geopipes.read.sources import Stack


def dataset(stack: Stack, arrays: Mapping[str, Any]) -> xr.Dataset:
    """Lay out the pixels of a stack.

    Parameters
    ----------
    stack : what the pixels are of
    arrays : an array for each variable, (time, y, x) or (time, band, y, x), and ``arrays["valid"]``, bool
        (time, y, x); without ``time`` where the stack has no times. Numpy, dask or what xarray indexes
        lazily: nothing is read.

    Returns
    -------
    Dataset with the variables in the stack's order, then ``valid``. The band dimension is called ``band``
    where all variables that have one share its labels, else ``{name}_band``. Coordinates: ``time``,
    datetime64[ns], with the stack's span as the attribute ``range``, "first/last"; ``y`` and ``x``, pixel
    centres, float64, as the geobox gives them; ``spatial_ref``.
    """
    time = () if stack.times is None else ("time",)
    coords: dict[Any, Any] = dict(xr_coords(stack.geobox, always_yx=True))
    if stack.times is not None:
        stated = {} if stack.span is None else {"range": "/".join(map(str, stack.span))}
        coords["time"] = ("time", np.array(stack.times, dtype="datetime64[ns]"), stated)
    one_band = len({variable.labels for variable in stack.variables if variable.labels is not None}) == 1
    variables = {}
    for variable in stack.variables:
        band: tuple[str, ...] = ()
        if variable.labels is not None:
            band = ("band" if one_band else f"{variable.name}_band",)
            coords[band[0]] = list(variable.labels)
        attrs = dict(variable.attrs) if variable.nodata is None else {"nodata": variable.nodata, **variable.attrs}
        variables[variable.name] = xr.Variable((*time, *band, "y", "x"), arrays[variable.name], attrs)
    variables["valid"] = xr.Variable((*time, "y", "x"), arrays["valid"])
    for laid_out in variables.values():
        laid_out.encoding["grid_mapping"] = "spatial_ref"
    return xr.Dataset(variables, coords=coords)
