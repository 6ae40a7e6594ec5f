"""Classes to other classes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr

from geopipes.datacubes.lazies import trying
from geopipes.edits import Array, Edit, edited, into
from geopipes.errors import StepError, UnknownBand
from geopipes.labels.masks import check_holds
from geopipes.labels.rasterizing import SMALLEST

OF_CLASSES = ("class_values", "class_names", "class_counts", "nodata", "_FillValue")
"""Attributes that hold no longer."""

Other = int | Literal["keep"] | None


def remap(
    dataset: xr.Dataset,
    variable: str,
    mapping: Mapping[int, int],
    *,
    other: Other = None,
    nodata: int | None = None,
    dtype: str | None = None,
) -> xr.Dataset:
    """Give classes other numbers, pixel by pixel.

    Parameters
    ----------
    dataset : with the variable
    variable : of whole numbers: a label, a scene classification
    mapping : ``{1: 0, 5: 1}``, old to new
    other : for values that the mapping does not name; ``"keep"`` leaves them as they are, None makes them an error when
        they are met. What stands for no label stays so unless it is named
    nodata : the number that stands for no label in the result; None for the one before, unless it was mapped
    dtype : of the result; None for the variable's own where it holds all numbers, else the smallest that does

    Returns
    -------
    the Dataset with the variable changed, without the names and counts of the classes before

    Raises
    ------
    UnknownBand
        if the variable is not there
    StepError
        if it does not hold whole numbers, or values are met that nothing is said of
    SourceError
        if the dtype does not hold the new numbers
    """
    return edited(dataset, remapping(dataset, variable, mapping, other=other, nodata=nodata, dtype=dtype))


def remapping(
    dataset: xr.Dataset,
    variable: str,
    mapping: Mapping[int, int],
    *,
    other: Other = None,
    nodata: int | None = None,
    dtype: str | None = None,
) -> list[Edit]:
    """Tell what `remap` does to a Dataset; its pixels are not looked at."""
    if not isinstance(dataset, xr.Dataset) or variable not in dataset.data_vars:
        there = list(map(str, getattr(dataset, "data_vars", dataset)))
        raise UnknownBand(f"remap({variable!r}): there is no such variable; there are {there}")
    own = dataset.variables[variable]
    if own.dtype.kind not in "biu":
        raise StepError(f"remap({variable!r}): the variable is {own.dtype}; classes are whole numbers")
    before = own.attrs.get("nodata", own.attrs.get("_FillValue"))
    table = {int(value): int(number) for value, number in mapping.items()}
    stays = None if before is None or int(before) in table else int(before)
    if stays is not None:
        table[stays] = stays if nodata is None else nodata
    numbers: dict[str, Any] = {f"the number for {value}": number for value, number in table.items()}
    numbers |= {"nodata": nodata, "other": other if isinstance(other, int) else None}
    kind = _dtype(dtype, own.dtype, numbers, keep=other == "keep")
    attrs = {key: value for key, value in own.attrs.items() if key not in OF_CLASSES}
    if nodata is not None or stays is not None:
        attrs["nodata"] = before if nodata is None else nodata
    keys = np.array(sorted(table), np.int64)
    function = partial(
        _remapped, name=variable, keys=keys, numbers=np.array([table[int(key)] for key in keys], np.int64), other=other,
        dtype=kind,
    )  # fmt: skip
    return [Edit(variable, (variable,), function, kind, attrs)]


def _remapped(
    values: Array, *, name: str, keys: Array, numbers: Array, other: Other, dtype: np.dtype[Any], out: Array | None
) -> Array:
    at = np.minimum(np.searchsorted(keys, values), max(len(keys) - 1, 0))
    listed = keys[at] == values if len(keys) else np.zeros(values.shape, bool)
    found = numbers[at] if len(keys) else np.zeros(values.shape, np.int64)
    if not listed.all():
        if other is None:
            if not trying.get():  # a template's pixels are none
                unknown = np.unique(values[~listed])
                raise StepError(
                    f"remap({name!r}): {unknown[:10].tolist()} are not named; name them, or write other=255, a "
                    "number for all others, or other='keep' to leave them as they are"
                )
        else:
            found = np.where(listed, found, values if other == "keep" else other)
    return into(found, dtype, out)


def _dtype(given: str | None, own: np.dtype[Any], numbers: dict[str, Any], *, keep: bool) -> np.dtype[Any]:
    """Choose a dtype that holds the new numbers, and the old ones where these stay."""
    if given is not None:
        check_holds(np.dtype(given), numbers)
        return np.dtype(given)
    own = np.dtype(np.uint8) if own.kind == "b" else own
    for kind in (own, *map(np.dtype, SMALLEST)):
        info = np.iinfo(kind)
        fits = all(number is None or info.min <= number <= info.max for number in numbers.values())
        if fits and (not keep or np.can_cast(own, kind)):
            return np.dtype(kind)
    raise StepError(f"remap: no dtype holds {numbers}")
