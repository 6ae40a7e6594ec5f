"""Gaps in time filled, and series brought to other dates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geopipes import steps
from geopipes.composites import kernels
from geopipes.composites.periods import Dates, Periods, Span, dates_of
from geopipes.composites.series import Array, Methods, along, bits, floating, kept, lying, methods, missing, on_dates
from geopipes.errors import StepError

HOW = {"nearest": kernels.NEAREST, "forward": kernels.FORWARD, "linear": kernels.LINEAR}

Gap = str | dt.timedelta | np.timedelta64 | None


def fill_gaps(dataset: xr.Dataset, method: Methods, *, max_gap: Gap = None) -> xr.Dataset:
    """Fill pixels that are not valid from the same pixel's other dates.

    Parameters
    ----------
    dataset : all dates of a chip or cube, with ``valid``
    method : ``"linear"`` between the dates before and after, ``"nearest"`` of them, of two the earlier, or
        ``"forward"``, the last one before. One for all variables, or by variable with ``"*"`` for the rest,
        ``{"scl": "nearest", "*": "linear"}``
    max_gap : the longest time bridged, ``"30D"``: linear, between the two dates; else, to the one that is taken. None
        for any

    Returns
    -------
    the Dataset on its dates. ``valid`` is True where it was, and where all variables are known now; nothing is made up
    before the first and after the last valid date, but by nearest and forward. Linear gives floats, others keep their
    dtype

    Raises
    ------
    StepError
        for methods that cannot be, linear ones of bands that seem to hold classes, and for dates that do not differ
    UnknownBand
        for a variable that is not there
    """
    call = steps.call("fill_gaps", method)
    dates = dates_of(dataset, call)
    return _bridged(dataset, dates, method, max_gap, call)


def interpolate(
    dataset: xr.Dataset,
    times: str | pd.DateOffset | Sequence[Any],
    method: Methods,
    *,
    max_gap: Gap = None,
    span: Span | None = None,
) -> xr.Dataset:
    """Bring a series to other dates: of each pixel what its valid dates before and after say.

    Parameters
    ----------
    dataset, method, max_gap : as in `fill_gaps`
    times : ``"10D"``, ``"month"`` or another period: where those of `composite` begin; or the dates themselves, in
        order, UTC
    span : as in `composite`

    Returns
    -------
    the Dataset on those dates: the same for all chips

    Raises
    ------
    StepError, UnknownBand
        as in `fill_gaps`, and for periods as in `composite`
    """
    call = steps.call("interpolate", times, method)
    dates_of(dataset, call)
    if isinstance(times, str | pd.DateOffset):
        wanted = Periods.of(dataset, times, span, call).begins
    else:
        try:
            wanted = pd.DatetimeIndex([*times]).values.astype("M8[ns]")
        except (ValueError, TypeError) as error:
            raise StepError(f"{call}: give a period, '10D', or dates, ['2024-05-01', '2024-05-11']") from error
        if len(wanted) == 0 or not (np.diff(wanted) > np.timedelta64(0)).all():
            raise StepError(f"{call}: needed are one or more dates, each later than the one before")
    return _bridged(dataset, wanted, method, max_gap, call)


def _bridged(dataset: xr.Dataset, wanted: Dates, method: Methods, max_gap: Gap, call: str) -> xr.Dataset:
    """Give a Dataset on some dates."""
    dates = dataset["time"].values.astype("M8[ns]")
    chosen = methods(dataset, method, [*HOW], ("linear",), call)
    if not (np.diff(dates) > np.timedelta64(0)).all():
        raise StepError(f"{call}: needed are dates of which each is later than the one before; sort or group them")
    first = min(dates[0], wanted[0])
    times, others = ((every - first).astype("m8[us]").astype(np.int64) for every in (dates, wanted))
    given: dict[str, Any] = {"times": times, "wanted": others, "longest": _microseconds(max_gap, call)}
    valid = dataset.variables["valid"]
    variables: dict[str, xr.Variable] = {}
    for name, way in chosen.items():
        variable = dataset.variables[name]
        dtype = floating(variable.dtype) if way == "linear" else variable.dtype
        fill, attrs = missing(variable, dtype), kept(variable, dtype)
        function = partial(_between, **given, how=HOW[way], fill=fill)
        variables[name] = along(function, dtype, len(wanted), variable, valid, attrs=attrs)
    # Where all variables are known: of several methods the one that bridges least decides.
    knowing = partial(_known, **given, ways=sorted({HOW[way] for way in chosen.values()}))
    variables["valid"] = along(knowing, np.dtype(bool), len(wanted), valid, attrs=valid.attrs)
    return on_dates(dataset, variables, wanted)


def _microseconds(gap: Gap, call: str) -> int:
    """Read the longest gap."""
    if gap is None:
        return kernels.FAR // 2
    try:
        length = pd.Timedelta(gap)
    except ValueError as error:
        raise StepError(f"{call}, max_gap={gap!r}: give a length of time, '30D'") from error
    if not length > pd.Timedelta(0):
        raise StepError(f"{call}, max_gap={gap!r}: give a length of time above 0, '30D'")
    return int(length / pd.Timedelta(1, "us"))


def _between(
    values: Array, valid: Array, *, times: Array, wanted: Array, longest: int, how: int, fill: np.generic
) -> Array:
    """Give values on other dates, (date, ..., y, x)."""
    out = np.empty((len(wanted), *values.shape[1:]), fill.dtype)
    known = np.empty(lying(out).shape, bool)
    kernels.bridged(lying(values), valid, times, wanted, how, longest, bits(fill), lying(out), known)
    return out


def _known(valid: Array, *, times: Array, wanted: Array, longest: int, ways: Sequence[int]) -> Array:
    """Say where there are values on other dates, (date, y, x), by each of some methods."""
    whole = np.ones((len(wanted), *valid.shape[1:]), bool)
    known = np.empty((len(wanted), 1, *valid.shape[1:]), bool)
    for how in ways:
        kernels.bridged(
            lying(valid), valid, times, wanted, how, longest, bits(np.False_), lying(np.empty_like(whole)), known
        )
        whole &= known[:, 0]
    return whole
