"""Dataset to Dataset: what happens to the pixels of a chip.

Each function is local: a pixel of the result depends on that pixel alone, on its own date alone. It therefore
gives the same on a chip as on the whole cube, on numpy and on dask, before or after ``chip`` and ``read``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import xarray as xr

from geopipes.edits import Array, Edit, blanked, edited, into
from geopipes.errors import StepError, UnknownBand

STALE = ("nodata", "_FillValue", "scale_factor", "add_offset")
"""Attributes of stored pixels that no longer hold once their values are changed."""

FLOAT = np.dtype(np.float32)


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
    return edited(dataset, scaling(dataset, bands, factor=factor, offset=offset))


def scaling(dataset: xr.Dataset, bands: str | Sequence[str], *, factor: float, offset: float = 0.0) -> list[Edit]:
    """Tell what `scale` does to a Dataset; its pixels are not looked at."""
    function = partial(_scaled, factor=np.float32(factor), offset=np.float32(offset))
    # ``valid`` comes last: that of the others is as it was.
    names = sorted(dict.fromkeys(_names(dataset, bands)), key=lambda name: name == "valid")
    finite = bool(np.isfinite([factor, offset]).all())
    edits = [_floats(dataset, name, (name,), function) for name in names]
    return [replace(edit, numbers=finite and dataset.variables[edit.name].dtype.kind in "iu") for edit in edits]


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
    return edited(dataset, differencing(dataset, first, second, name=name))


def differencing(dataset: xr.Dataset, first: str, second: str, *, name: str) -> list[Edit]:
    """Tell what `normalized_difference` does to a Dataset; its pixels are not looked at."""
    return [_floats(dataset, name, _names(dataset, (first, second)), _difference)]


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
    return edited(dataset, masking(dataset, band, values))


def masking(dataset: xr.Dataset, band: str, values: Sequence[float]) -> list[Edit]:
    """Tell what `mask_values` does to a Dataset; its pixels are not looked at."""
    _names(dataset, band)
    if "valid" not in dataset:
        raise StepError("mask_values needs the boolean 'valid' that stack() gives; there is none in this Dataset")
    valid = dataset.variables["valid"]
    dims = {*valid.dims, *dataset.variables[band].dims}
    function = partial(_without, values=list(values))
    edits = [Edit("valid", ("valid", band), function, np.dtype(bool), dict(valid.attrs))]
    for name in map(str, dataset.data_vars):
        variable = dataset.variables[name]
        if variable.dtype.kind == "f" and dims <= set(variable.dims):
            edits.append(Edit(name, (name, "valid"), _masked, variable.dtype, dict(variable.attrs)))
    return edits


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


def _floats(dataset: xr.Dataset, name: str, reads: Sequence[str], function: Callable[..., Array]) -> Edit:
    """Tell of float32 made of some variables, each with what of ``valid`` speaks of it."""
    attrs = dataset.variables[name].attrs if name in dataset else {}
    kept = {key: value for key, value in attrs.items() if key not in STALE}
    spoken = [speaks(dataset, read) for read in reads]
    given = (*reads, "valid") if any(spoken) else tuple(reads)
    return Edit(name, given, partial(function, spoken=spoken), FLOAT, kept)


def speaks(dataset: xr.Dataset, name: str) -> bool:
    """Say whether ``valid`` is there and has no dims but a variable's."""
    return "valid" in dataset and set(dataset.variables["valid"].dims) <= set(dataset.variables[name].dims)


def _scaled(
    values: Array, *valid: Array, spoken: Sequence[bool], factor: np.float32, offset: np.float32, out: Array | None
) -> Array:
    result = into(values, FLOAT, out)
    np.multiply(result, factor, out=result)
    if offset != 0:
        np.add(result, offset, out=result)
    return blanked(result, valid[0] if spoken[0] else None)


def _difference(first: Array, second: Array, *valid: Array, spoken: Sequence[bool], out: Array | None) -> Array:
    a, b = (
        blanked(into(values, FLOAT, None), valid[0] if known else None)
        for values, known in zip((first, second), spoken, strict=True)
    )
    total = a + b
    np.copyto(total, np.nan, where=total == 0)
    result: Array = np.divide(a - b, total, out=out)
    return result


def _without(valid: Array, band: Array, *, values: list[float], out: Array | None) -> Array:
    return np.logical_and(valid, np.isin(band, values, invert=True), out=out)


def _masked(values: Array, valid: Array, *, out: Array | None) -> Array:
    return blanked(into(values, values.dtype, out), valid)
