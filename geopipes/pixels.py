"""Dataset to Dataset: what happens to the pixels of a chip.

Each function is local: a pixel of the result depends on that pixel alone, on its own date alone. It therefore
gives the same on a chip as on the whole cube, on numpy and on dask, before or after ``chip`` and ``read``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from geopipes.errors import StepError, UnknownBand

STALE = ("nodata", "_FillValue", "scale_factor", "add_offset")
"""Attributes of stored pixels that no longer hold once their values are changed."""


def scale(dataset: xr.Dataset, bands: str | Sequence[str], *, factor: float, offset: float = 0.0) -> xr.Dataset:
    """Turn stored numbers into physical ones: ``factor * stored + offset``.

    Parameters
    ----------
    dataset : with variables (time, y, x) and ``valid``
    bands : the variables to scale; others stay as they are
    factor, offset : as the product's documentation states them; never applied by itself

    Returns
    -------
    the same Dataset with those variables as float32, NaN where not valid, without the attributes of stored pixels

    Raises
    ------
    UnknownBand
        if a band is not there
    """
    scaled = {name: _floating(dataset, name) for name in _names(dataset, bands)}
    return _changed(dataset, {n: v * np.float32(factor) + np.float32(offset) for n, v in scaled.items()})


def normalized_difference(dataset: xr.Dataset, first: str, second: str, *, name: str) -> xr.Dataset:
    """Add the normalized difference of two bands, (first - second) / (first + second).

    Parameters
    ----------
    dataset : with variables (time, y, x) and ``valid``
    first, second : bands; ``("nir", "red")`` gives the NDVI
    name : of the variable added

    Returns
    -------
    the Dataset with one variable more, float32 within -1..1 for bands that are not negative, NaN where not valid
    or where the bands sum to zero

    Raises
    ------
    UnknownBand
        if a band is not there
    """
    _names(dataset, (first, second))
    a, b = _floating(dataset, first), _floating(dataset, second)
    total = a + b
    return _changed(dataset, {name: (a - b) / total.where(total != 0)})


def mask_values(dataset: xr.Dataset, band: str, values: Sequence[float]) -> xr.Dataset:
    """Declare pixels not valid where a band holds certain values, such as the clouds of a scene classification.

    Parameters
    ----------
    dataset : with ``valid`` and the band, both (time, y, x)
    band : the variable looked at; it stays
    values : that make a pixel not valid, as 3, 8, 9 and 10 in Sentinel-2's SCL

    Returns
    -------
    the Dataset with a smaller ``valid``; floats that vary with it become NaN there, integers keep their values

    Raises
    ------
    UnknownBand
        if the band is not there
    StepError
        if the Dataset has no ``valid``
    """
    _names(dataset, band)
    if "valid" not in dataset:
        raise StepError("mask_values needs the boolean 'valid' that stack() gives; there is none in this Dataset")
    valid = dataset["valid"] & ~dataset[band].isin(list(values))
    dims = set(valid.dims)
    floats = {
        name: variable.where(valid)
        for name, variable in dataset.data_vars.items()
        if variable.dtype.kind == "f" and dims <= set(variable.dims)
    }
    return dataset.assign({name: v.transpose(*dataset[name].dims) for name, v in floats.items()} | {"valid": valid})


def _names(dataset: xr.Dataset, bands: str | Sequence[str]) -> list[str]:
    """Give the bands as a list; all of them must be there."""
    if not isinstance(dataset, xr.Dataset):
        raise StepError(
            f"pixel steps take an xr.Dataset, this is {type(dataset).__name__}: with several inputs let the step stand "
            "on each before gp.inputs(...), or use .map(fn) on the dict"
        )
    names = [bands] if isinstance(bands, str) else list(bands)
    there = [str(name) for name in dataset.data_vars]
    unknown = [name for name in names if name not in there]
    if unknown:
        raise UnknownBand(f"no variable {unknown} in this Dataset: there are {there}")
    return names


def _floating(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Give a variable as float32, NaN where not valid."""
    values = dataset[name].astype(np.float32)
    if "valid" in dataset and set(dataset["valid"].dims) <= set(values.dims):
        values = values.where(dataset["valid"]).transpose(*dataset[name].dims)
    return values


def _changed(dataset: xr.Dataset, variables: dict[Any, xr.DataArray]) -> xr.Dataset:
    """Assign changed variables, without attributes that no longer hold."""
    for name, variable in variables.items():
        kept = dataset[name].attrs if name in dataset else {}
        variable.attrs = {key: value for key, value in kept.items() if key not in STALE}
    return dataset.assign(variables)
