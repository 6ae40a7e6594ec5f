"""Edits: variables that become functions of others, pixel by pixel, in a Dataset or in arrays alone.

A step that looks at each pixel alone tells its edits from names, dims, dtypes and attributes, never from pixels. So
they can be told once, of a small twin, and done to every chip, whether it is a Dataset or read straight into tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Edit:
    """A variable, there or new, that becomes a function of others; those are as the edits before have left them.

    Attributes
    ----------
    name : of the variable
    reads : the others by name, ``valid`` too, or constants
    function : of their arrays, whose axes broadcast, and of ``out``: None, or where to write the result, which may be
        the memory of the variable's own array. It writes to nothing else, and never gives back what it was given.
    dtype, attrs : of the result
    numbers : whether that is NaN nowhere but where ``valid``, where it is read, says so
    drops : whether the variable is dropped instead
    """

    name: str
    reads: tuple[str | xr.Variable, ...]
    function: Callable[..., Array]
    dtype: np.dtype[Any]
    attrs: dict[str, Any]
    numbers: bool = False
    drops: bool = False

    def __call__(self, *arrays: Array, out: Array | None = None) -> Array:
        """Compute the variable; numbers that overflow, or are none, are no warning."""
        with np.errstate(all="ignore"):
            return self.function(*arrays, out=out)


def edited(dataset: xr.Dataset, edits: Sequence[Edit]) -> xr.Dataset:
    """Do edits to a Dataset; on dask they become part of its graph."""
    variables = dict(dataset.variables)
    changed: dict[str, xr.Variable] = {}
    dropped: set[str] = set()
    for edit in edits:
        if edit.drops:
            changed.pop(edit.name, None)
            dropped.add(edit.name)
            continue
        given = [variables[one] if isinstance(one, str) else one for one in edit.reads]
        options: dict[str, Any] = {"dask": "parallelized", "output_dtypes": [edit.dtype], "keep_attrs": False}
        result: xr.Variable = xr.apply_ufunc(edit, *given, **options)
        result.attrs = edit.attrs
        changed[edit.name] = variables[edit.name] = result
    return dataset.drop_vars(dropped).assign(changed)


def dropping(name: str) -> Edit:
    """Tell that a variable is there no more."""
    return Edit(name, (), into, np.dtype(bool), {}, drops=True)


def into(values: Array, dtype: np.dtype[Any], out: Array | None) -> Array:
    """Give values in a dtype, in memory that may be written to: that of ``out``, or their own copy."""
    if out is None:
        return values.astype(dtype)
    if out is not values:
        np.copyto(out, values, casting="unsafe")
    return out


def blanked(values: Array, valid: Array | None) -> Array:
    """Write NaN where not valid; None for where that is not known of."""
    if valid is not None and not valid.all():
        np.copyto(values, np.nan, where=np.logical_not(valid))
    return values
