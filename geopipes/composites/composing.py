"""Composites: one value of each pixel for each period."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr

from geopipes import steps
from geopipes.composites import kernels
from geopipes.composites.periods import Named, Periods, Span, dates_of
from geopipes.composites.series import Array, Methods, along, bits, floating, kept, lying, methods, missing, on_dates
from geopipes.errors import StepError, UnknownBand

BLENDS = ("median", "mean", "quantile", "min", "max")
"""Methods that look at values as amounts."""

FLOATS = ("median", "mean", "quantile")
"""Methods whose results are floats."""

WHOLE = ("first", "last")
"""Methods that choose a date, and give all variables as they were on it."""

METHODS = (*BLENDS, *WHOLE, "mode")


def composite(
    dataset: xr.Dataset,
    period: str | pd.DateOffset | Named,
    method: Methods,
    *,
    by: str | None = None,
    q: float | None = None,
    span: Span | None = None,
) -> xr.Dataset:
    """Make one image of each period: of each pixel the median, the first valid date, the best one by a band, ...

    Parameters
    ----------
    dataset : all dates of a chip or cube, with ``valid``
    period : ``"week"`` (from Monday), ``"month"``, ``"quarter"``, ``"season"`` (from December, March, ...),
        ``"year"``; an offset of pandas, ``"14D"``, ``"2MS"``; ``"all"``; or windows with names, which do not overlap,
        ``{"spring": ("2024-03", "2024-05")}``, the last day included
    method : ``"median"``, ``"mean"``, ``"min"``, ``"max"``, ``"quantile"`` (with ``q=``) of what is valid; ``"mode"``,
        the value that is there most often; ``"first"`` or ``"last"`` valid date. One for all variables, or by variable
        with ``"*"`` for the rest, ``{"scl": "mode", "*": "median"}``
    by : a band, with ``"max"`` or ``"min"``: all variables as they were on the date on which it was greatest or least,
        ``composite("month", "max", by="NDVI")``
    q : the quantile, 0 to 1; linear between two values
    span : first and last date of the range that periods are anchored to: the first period of days begins with it,
        calendar periods hold it. None for the range searched, or else that of all items of the stack: it is the same
        for all chips

    Returns
    -------
    the Dataset with one time step for each period, whether a chip has dates in it or not. ``time`` is where periods
    begin; named windows have the coordinate ``period``, too. ``valid`` is True where any date was (and had the band
    ``by``). Median, mean and
    quantile are floats, NaN where nothing was measured; others keep their dtype, and hold their nodata (or 0) there.
    Variables without time stay as they are

    Raises
    ------
    StepError
        for a period or method that cannot be, a period longer than the range, windows that overlap or lie outside it,
        and for means of bands that hold classes or flags (`geopipes.kinds.is_categorical`)
    UnknownBand
        for a variable that is not there
    """
    call = steps.call("composite", period, method)
    dates = dates_of(dataset, call)
    periods = Periods.of(dataset, period, span, call)
    _check(dataset, method, by, q, call)
    chosen = methods(dataset, method, METHODS, () if by else BLENDS, call)
    dealt = dict(zip(("members", "begins"), periods.members(dates), strict=True))
    valid = dataset.variables["valid"]
    variables = {"valid": along(partial(_any, **dealt), np.dtype(bool), len(periods), valid, attrs=valid.attrs)}
    best: dict[str, xr.Variable] = {}
    for name, way in chosen.items():
        variable = dataset.variables[name]
        dtype = floating(variable.dtype) if way in FLOATS and not by else variable.dtype
        fill, attrs = missing(variable, dtype), kept(variable, dtype)
        if by or way in WHOLE:
            if way not in best:
                function = partial(_choose, **dealt, way=way)
                scores = dataset.variables[by] if by else valid
                dates_chosen = along(function, np.dtype(np.int32), len(periods), scores, valid, attrs={})
                best[way] = xr.Variable(("period", "y", "x"), dates_chosen.data)
            taking = partial(_take, **dealt, fill=fill)
            variables[name] = along(taking, dtype, len(periods), variable, best[way], attrs=attrs)
        else:
            reducing = partial(_reduce, **dealt, way=way, q=q, fill=fill)
            variables[name] = along(reducing, dtype, len(periods), variable, valid, attrs=attrs)
    if by:  # a date without the band is none
        variables["valid"] = xr.Variable(("time", "y", "x"), best[str(method)].data >= 0, valid.attrs)
    return on_dates(dataset, variables, periods.begins, periods.names)


def _check(dataset: xr.Dataset, method: Methods, by: str | None, q: float | None, call: str) -> None:
    """Raise where options do not go together."""
    named = {method} if isinstance(method, str) else {*method.values()}
    if ("quantile" in named) is (q is None) or (q is not None and not 0 <= q <= 1):
        raise StepError(f"{call}, q={q}: method 'quantile', and no other, needs q= from 0 to 1, as q=0.25")
    if by is None:
        return
    if method not in ("min", "max"):
        raise StepError(f"{call}, by={by!r}: 'max' takes the date on which {by} is greatest, 'min' the least; use one")
    there = [str(name) for name, v in dataset.data_vars.items() if {*v.dims} == {"time", "y", "x"}]
    if by not in there:
        raise UnknownBand(f"{call}, by={by!r}: no variable (time, y, x) of that name: there are {there}")


def _reduce(
    values: Array, valid: Array, *, members: Array, begins: Array, way: str, q: float | None, fill: np.generic
) -> Array:
    """Give one number for each period, (period, ..., y, x)."""
    out = np.empty((len(begins) - 1, *values.shape[1:]), fill.dtype)
    given = (lying(values), valid, members, begins)
    if way in ("median", "quantile"):
        kernels.quantiles(*given, 0.5 if q is None or way == "median" else q, lying(out))
    elif way == "mean":
        kernels.means(*given, lying(out))
    elif way == "mode":
        kernels.modes(*given, bits(fill), lying(out))
    else:
        kernels.extremes(*given, way == "max", bits(fill), lying(out))
    return out


def _choose(scores: Array, valid: Array, *, members: Array, begins: Array, way: str) -> Array:
    """Give the place in time of the best date of each period, (period, y, x); -1 for none."""
    out = np.empty((len(begins) - 1, *valid.shape[1:]), np.int32)
    if way == "last":
        members = np.concatenate([members[a:b][::-1] for a, b in itertools.pairwise(begins)])
    kernels.choices(scores, valid, members, begins, way != "min", out)
    return out


def _take(values: Array, chosen: Array, *, members: Array, begins: Array, fill: np.generic) -> Array:
    """Give values at the dates chosen, (period, ..., y, x)."""
    out = np.empty((len(chosen), *values.shape[1:]), fill.dtype)
    kernels.taken(lying(values), chosen, members, begins, bits(fill), lying(out))
    return out


def _any(valid: Array, *, members: Array, begins: Array) -> Array:
    """Say where any date of each period was valid, (period, y, x)."""
    parts = [valid[members[a:b]].any(axis=0) for a, b in itertools.pairwise(begins)]
    return np.stack(parts)
