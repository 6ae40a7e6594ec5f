"""What pixel steps know of a variable: whether it is there, what of it is measured, what may be said of its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from geopipes.edits import Array, Edit
from geopipes.errors import StepError, UnknownBand
from geopipes.kinds import CLASSES, NORMALIZED, STALE
from geopipes.spelling import nearest

FLOAT = np.dtype(np.float32)


def known(dataset: xr.Dataset, bands: str | Sequence[str]) -> list[str]:
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
        dropped = "; mask_clouds drops its band, unless keep=True" if unknown[0].lower() in CLASSES else ""
        raise UnknownBand(
            f"no variable {unknown} in this Dataset: there are {there}{nearest(unknown[0], there) or dropped}"
        )
    return names


def check_new(dataset: xr.Dataset, name: str, call: str) -> None:
    """Refuse to write over a variable or a coordinate with one that is to be added.

    Raises
    ------
    StepError
        if the name is taken
    """
    if name in dataset.variables or name in dataset.dims:
        raise StepError(
            f"{call}: the chip has a {name!r} already; rename that one before, or add this under another name"
        )


def check_amounts(dataset: xr.Dataset, names: Sequence[str], call: str) -> None:
    """Refuse bands that were normalized, whose ratios have no meaning.

    Raises
    ------
    StepError
        says what to write
    """
    if brought := [name for name in names if dataset.variables[name].attrs.get(NORMALIZED)]:
        raise StepError(
            f"{call}: {brought} were normalized before, and an index is of reflectance; let it stand before "
            "normalize(...)"
        )


def floats(
    dataset: xr.Dataset,
    name: str,
    reads: Sequence[str],
    function: Callable[..., Array],
    attrs: Mapping[str, Any] = MappingProxyType({}),
) -> Edit:
    """Tell of float32 made of some variables, each with what of ``valid`` speaks of it.

    Parameters
    ----------
    dataset : that holds them
    name, reads, function : of the edit
    attrs : of the result, but those of stored pixels
    """
    kept = {key: value for key, value in attrs.items() if key not in STALE}
    spoken = [speaks(dataset, read) for read in reads]
    given = (*reads, "valid") if any(spoken) else tuple(reads)
    return Edit(name, given, partial(function, spoken=spoken), FLOAT, kept)


def speaks(dataset: xr.Dataset, name: str) -> bool:
    """Say whether ``valid`` is there and has no dims but a variable's."""
    return "valid" in dataset and set(dataset.variables["valid"].dims) <= set(dataset.variables[name].dims)


def told_by(dataset: xr.Dataset, name: str) -> tuple[bool, Any]:
    """Say whether ``valid`` tells where a variable was measured; else the nodata that does, None for none."""
    attrs = dataset.variables[name].attrs
    if not attrs.get("joined") and speaks(dataset, name):
        return True, None
    return False, attrs.get("nodata", attrs.get("_FillValue"))


def measured(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Say where a variable was measured: where ``valid`` for those of the stack, else by its own nodata; never NaN.

    Returns
    -------
    bool, with the variable's dims; on dask where the variable is
    """
    variable = dataset[name]
    there = variable.notnull() if variable.dtype.kind == "f" else xr.ones_like(variable, bool)
    valid, nodata = told_by(dataset, name)
    if valid:
        return (there & dataset["valid"]).transpose(*variable.dims)
    return there if nodata is None else there & (variable != nodata)
