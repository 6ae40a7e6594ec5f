"""What steps along time share: which method is for which variable, and how a function of arrays becomes variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from geopipes.composites.periods import Dates
from geopipes.errors import StepError, UnknownBand
from geopipes.kinds import STALE, is_categorical

Array = npt.NDArray[Any]
Methods = str | Mapping[str, str]


def methods(
    dataset: xr.Dataset, given: Methods, known: Sequence[str], blends: Sequence[str], call: str
) -> dict[str, str]:
    """Give the method of each variable that has time.

    Parameters
    ----------
    given : one for all, or by variable with ``"*"`` for the rest
    known, blends : all methods there are, and those that make values of several others: never of classes, unless the
        variable is named
    call : for errors

    Raises
    ------
    StepError
        for a method that is not known, or that a variable is left without, and where classes would be blended
    UnknownBand
        for a variable that is not there
    """
    names = [str(name) for name, v in dataset.data_vars.items() if "time" in v.dims and name != "valid"]
    named = given if isinstance(given, Mapping) else {"*": given}
    if unknown := [method for method in named.values() if method not in known]:
        raise StepError(f"{call}: the method {unknown[0]!r} is not known: use one of {', '.join(known)}")
    if unknown := [name for name in named if name not in (*names, "*")]:
        raise UnknownBand(f"{call}: no variable {unknown} with dates in this Dataset: there are {names}")
    if lacking := [name for name in names if name not in named and "*" not in named]:
        raise StepError(f"{call}: no method for {lacking}; write {{..., '*': {known[0]!r}}} for the rest")
    for name in names:
        method, variable = named.get(name, named.get("*", "")), dataset.variables[name]
        if method in blends and name not in named and is_categorical(name, variable.dtype, variable.attrs):
            whole = next(one for one in ("mode", "nearest") if one in known)
            raise StepError(
                f"{call}: {name!r} holds classes or flags, of which there is no {method}: write "
                f"{{{name!r}: {whole!r}, '*': {method!r}}}, drop it before, or name it, {{{name!r}: {method!r}, ...}}, "
                "where it holds amounts"
            )
    return {name: named.get(name, named.get("*", "")) for name in names}


def floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Give the float that holds means of a dtype: what xarray's ``where`` makes of it."""
    small = dtype.kind in "iub" and dtype.itemsize <= 2
    return np.dtype(np.float32) if small or dtype in (np.float16, np.float32) else np.dtype(np.float64)


def missing(variable: xr.Variable, dtype: np.dtype[Any]) -> np.generic:
    """Give what stands where nothing was measured: NaN, else the variable's nodata, or 0."""
    number: np.generic = dtype.type(np.nan if dtype.kind == "f" else variable.attrs.get("nodata", 0))
    return number


def kept(variable: xr.Variable, dtype: np.dtype[Any]) -> dict[Any, Any]:
    """Give the attributes that still hold for pixels of a dtype."""
    return {k: v for k, v in variable.attrs.items() if dtype == variable.dtype or k not in STALE}


def along(
    function: Callable[..., Array], dtype: np.dtype[Any], dates: int, *given: xr.Variable, attrs: Mapping[Any, Any]
) -> xr.Variable:
    """Make a variable of others by a function of arrays along time.

    Parameters
    ----------
    function : takes an array of each, (time, ..., y, x), contiguous; gives (date, ..., y, x) of the first one's shape
    dtype, dates, attrs : of the result
    given : variables, (time, ..., y, x), or (period, y, x) with dates of another series; on dask all dates become one
        chunk
    """
    core = ["period" if "period" in one.dims else "time" for one in given]
    head = given[0].transpose("time", ...)
    if head.dims[-2:] != ("y", "x"):
        raise StepError(f"steps along time take variables (time, ..., y, x); this one is {given[0].dims}: drop it")
    if not any(one.chunks for one in given):
        arrays = (np.ascontiguousarray(one.transpose(dim, ...).values) for dim, one in zip(core, given, strict=True))
        return xr.Variable(head.dims, function(*arrays), dict(attrs), fastpath=True)

    def blockwise(*arrays: Array) -> Array:
        return np.moveaxis(function(*(np.ascontiguousarray(np.moveaxis(one, -1, 0)) for one in arrays)), 0, -1)

    result: xr.Variable = xr.apply_ufunc(
        blockwise, *given, input_core_dims=[[dim] for dim in core], output_core_dims=[["when"]], dask="parallelized",
        output_dtypes=[dtype], dask_gufunc_kwargs={"output_sizes": {"when": dates}, "allow_rechunk": True},
        keep_attrs=False,
    )  # fmt: skip
    result = xr.Variable(tuple("time" if dim == "when" else dim for dim in result.dims), result.data, dict(attrs))
    return result.transpose(*head.dims)


def lying(values: Array) -> Array:
    """Give (time, band, y, x) of (time, ..., y, x), truth as 0 and 1: what kernels take."""
    return values.view(np.uint8 if values.dtype == bool else values.dtype).reshape(len(values), -1, *values.shape[-2:])


def bits(number: np.generic) -> np.generic:
    """Give a number as kernels take it, truth as 0 or 1."""
    return np.uint8(number) if isinstance(number, np.bool_) else number


def on_dates(
    dataset: xr.Dataset, variables: Mapping[str, xr.Variable], dates: Dates, names: Sequence[str] | None = None
) -> xr.Dataset:
    """Give a Dataset with other dates: variables along time are the new ones, all else stays.

    Parameters
    ----------
    dates : (time,), which state the same range as those before
    names : of the dates, as a coordinate ``period``
    """
    coords = {name: v for name, v in dataset.coords.variables.items() if "time" not in v.dims}
    coords["time"] = xr.Variable("time", dates, dataset.variables["time"].attrs)
    if names is not None:
        coords["period"] = xr.Variable("time", list(names))
    whole = {name: variables.get(str(name), dataset.variables[name]) for name in dataset.data_vars}
    return xr.Dataset(whole, coords, dataset.attrs)
