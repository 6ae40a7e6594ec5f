"""Stored numbers to physical ones: scale and offset, decibels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import xarray as xr

from geopipes.edits import Array, Edit, blanked, edited, into
from geopipes.errors import StepError
from geopipes.kinds import SCALED, UNITS, is_categorical
from geopipes.pixels.variables import FLOAT, floats, known

DECIBEL = "dB"
"""The units of decibels."""


def scale(
    dataset: xr.Dataset, bands: str | Sequence[str], *, factor: float, offset: float = 0.0, again: bool = False
) -> xr.Dataset:
    """Turn stored numbers into physical ones: ``factor * stored + offset``.

    Parameters
    ----------
    dataset : with variables (time, y, x) and ``valid``
    bands : the variables to scale; others stay as they are
    factor, offset : as the product's documentation states them; never applied by itself. Where scenes of one cube have
        different ones, ``stack(rescale=True)`` applies them item by item
    again : whether to scale what was scaled before, as kelvin to degrees Celsius

    Returns
    -------
    the same Dataset with those variables as float32, NaN where not valid, without the attributes of stored pixels;
    their attribute ``scaled`` is True

    Raises
    ------
    UnknownBand
        if a band is not there
    StepError
        if a band was scaled before, or holds classes
    """
    return edited(dataset, scaling(dataset, bands, factor=factor, offset=offset, again=again))


def scaling(
    dataset: xr.Dataset, bands: str | Sequence[str], *, factor: float, offset: float = 0.0, again: bool = False
) -> list[Edit]:
    """Tell what `scale` does to a Dataset; its pixels are not looked at."""
    function = partial(_scaled, factor=np.float32(factor), offset=np.float32(offset))
    # ``valid`` comes last: that of the others is as it was.
    names = sorted(dict.fromkeys(known(dataset, bands)), key=lambda name: name == "valid")
    finite = bool(np.isfinite([factor, offset]).all())
    edits = []
    for name in names:
        variable = dataset.variables[name]
        if variable.attrs.get(SCALED) and not again:
            raise StepError(
                f"scale({name!r}): it was scaled before, by stack(rescale=...) or scale(...); leave one of them "
                "out, or write scale(..., again=True) for a change of units"
            )
        if is_categorical(name, variable.dtype, variable.attrs):
            raise StepError(f"scale({name!r}): it holds classes, which are no numbers to be scaled; leave it out")
        attrs = {key: value for key, value in variable.attrs.items() if key != UNITS}
        edit = floats(dataset, name, (name,), function, attrs | {SCALED: True})
        edits.append(replace(edit, numbers=finite and variable.dtype.kind in "iu"))
    return edits


def to_decibel(dataset: xr.Dataset, bands: str | Sequence[str]) -> xr.Dataset:
    """Convert linear radar backscatter to decibels, ``10 * log10(power)``.

    What is averaged, over time or space, is linear power: let this step stand after composites.

    Parameters
    ----------
    dataset : with variables (time, y, x) and ``valid``
    bands : the variables to convert [linear power, sigma0 or gamma0]; zero and below become NaN

    Returns
    -------
    the same Dataset with those variables as float32 [dB], which their attribute ``units`` says

    Raises
    ------
    UnknownBand
        if a band is not there
    StepError
        if a band is in decibels already, or holds classes
    """
    return edited(dataset, decibels(dataset, bands))


def decibels(dataset: xr.Dataset, bands: str | Sequence[str]) -> list[Edit]:
    """Tell what `to_decibel` does to a Dataset; its pixels are not looked at."""
    edits = []
    for name in dict.fromkeys(known(dataset, bands)):
        variable = dataset.variables[name]
        if str(variable.attrs.get(UNITS, "")).lower() == DECIBEL.lower():
            raise StepError(f"to_decibel({name!r}): its units are dB already; leave this step out")
        if is_categorical(name, variable.dtype, variable.attrs):
            raise StepError(f"to_decibel({name!r}): it holds classes; leave it out")
        edits.append(floats(dataset, name, (name,), _decibels, {**variable.attrs, SCALED: True, UNITS: DECIBEL}))
    return edits


def _scaled(
    values: Array, *valid: Array, spoken: Sequence[bool], factor: np.float32, offset: np.float32, out: Array | None
) -> Array:
    result = into(values, FLOAT, out)
    np.multiply(result, factor, out=result)
    if offset != 0:
        np.add(result, offset, out=result)
    return blanked(result, valid[0] if spoken[0] else None)


def _decibels(values: Array, *valid: Array, spoken: Sequence[bool], out: Array | None) -> Array:
    result = into(values, FLOAT, out)
    np.log10(result, out=result)  # NaN below zero
    np.multiply(result, np.float32(10), out=result)
    np.copyto(result, np.nan, where=np.isinf(result))  # of zero
    return blanked(result, valid[0] if spoken[0] else None)
