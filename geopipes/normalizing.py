"""Normalize: pixels by what statistics say of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import xarray as xr

from geopipes.edits import Array, Edit, blanked, edited, into
from geopipes.errors import StatisticsError, UnknownBand
from geopipes.kinds import NORMALIZED, STALE, UNITS
from geopipes.pixels.variables import told_by

if TYPE_CHECKING:
    from geopipes.statistics.results import Statistics

How = Literal["standard", "percentiles", "minmax"]


@overload
def normalize(
    dataset: xr.Dataset, statistics: Statistics, *, how: How = "standard", variables: str | Sequence[str] | None = None
) -> xr.Dataset: ...
@overload
def normalize(
    dataset: dict[str, xr.Dataset],
    statistics: Statistics,
    *,
    how: How = "standard",
    variables: str | Sequence[str] | None = None,
) -> dict[str, xr.Dataset]: ...
def normalize(
    dataset: Any, statistics: Statistics, *, how: How = "standard", variables: str | Sequence[str] | None = None
) -> Any:
    """Bring variables to a common scale: subtract a centre and divide by a width.

    A pixel of the result depends on that pixel and the statistics alone. A variable that holds one value alone
    becomes 0. Nothing is clipped.

    Parameters
    ----------
    dataset : with variables (time, y, x) and ``valid``, or a dict of them for several inputs
    statistics : of these variables after the same steps, as `geopipes.statistics.statistics` gives them
    how : ``"standard"``, mean 0 and standard deviation 1; ``"percentiles"``, the lowest percentile of the statistics
        0 and the highest 1; ``"minmax"``, the minimum 0 and the maximum 1
    variables : to normalize, of several inputs as ``"s2/red"``; None for all that the statistics know, but classes

    Returns
    -------
    the same Dataset with those variables as float32, NaN where they are not valid, without the attributes of stored
    pixels, and with the attribute ``normalized``; others stay as they are

    Raises
    ------
    UnknownBand
        if a variable is in the Dataset or in the statistics alone
    StatisticsError
        if what is given is no Statistics, a variable is of classes, none of its pixels was valid, or there are no two
        percentiles
    """
    parts = dataset if isinstance(dataset, dict) else {"": dataset}
    edits = _edits(parts, statistics, how, variables)
    done = {part: edited(data, edits[part]) if part in edits else data for part, data in parts.items()}
    return done if isinstance(dataset, dict) else done[""]


def normalization(
    dataset: xr.Dataset, statistics: Statistics, *, how: How = "standard", variables: str | Sequence[str] | None = None
) -> list[Edit]:
    """Tell what `normalize` does to a Dataset; its pixels are not looked at."""
    return _edits({"": dataset}, statistics, how, variables)[""]


def _edits(
    parts: dict[str, xr.Dataset], statistics: Statistics, how: How, variables: str | Sequence[str] | None
) -> dict[str, list[Edit]]:
    """Tell what is to be done to each input, where there is anything."""
    check_statistics(statistics)
    if how not in ("standard", "percentiles", "minmax"):
        raise StatisticsError(f"normalize(how={how!r}): write 'standard', 'percentiles' or 'minmax'")
    there = {name: (part, variable) for part, data in parts.items() for name, variable in named(data, part).items()}
    known = {name.partition("[")[0]: summary.categorical for name, summary in statistics.variables.items()}
    edits: dict[str, list[Edit]] = {}
    for name in dict.fromkeys(_chosen(variables, there, known)):
        part, variable = there[name]
        edits.setdefault(part, []).append(_normalization(parts[part], variable, name, statistics, how))
    return edits


def check_statistics(statistics: object) -> None:
    """Refuse what are no statistics.

    Raises
    ------
    StatisticsError
        says where they come from
    """
    from geopipes.statistics.results import Statistics

    if not isinstance(statistics, Statistics):
        raise StatisticsError(
            f"normalize({type(statistics).__name__}): Statistics are needed, as .statistics() of a plan, or "
            "Statistics.load(path), gives them; for numbers of your own write "
            "scale('red', factor=1 / std, offset=-mean / std)"
        )


def _chosen(variables: str | Sequence[str] | None, there: Iterable[str], known: dict[str, bool]) -> list[str]:
    """Say which variables are to be normalized."""
    if variables is None:
        names = [name for name in there if known.get(name) is False]
        if not names:
            raise StatisticsError(f"normalize: the Dataset has {sorted(there)}, the statistics are of {sorted(known)}")
        return names
    names = [variables] if isinstance(variables, str) else list(variables)
    for name in names:
        if name not in there or name not in known:
            where, has = ("Dataset", there) if name not in there else ("statistics", known)
            raise UnknownBand(f"normalize: there is no variable {name!r} in the {where}; there are {sorted(has)}")
        if known[name]:
            others = tuple(other for other, classes in known.items() if classes and other != name)
            raise StatisticsError(
                f"normalize: {name!r} was counted as classes, which have no mean; leave it out, or if it is a "
                f"quantity make the statistics with statistics(classes={others})"
            )
    return names


def _normalization(dataset: xr.Dataset, variable: str, name: str, statistics: Statistics, how: How) -> Edit:
    """Tell what is to be done to one variable."""
    values = dataset[variable]
    keys = list(layers(values, name))
    unknown = [key for key in keys if key not in statistics.variables]
    if unknown:
        raise UnknownBand(f"normalize: the statistics do not know {unknown}; they are of {list(statistics.variables)}")
    precision = np.float32 if np.can_cast(values.dtype, np.float32, "safe") else np.float64
    centre, width = np.array([statistics.scale(key, how) for key in keys]).T
    near = centre.astype(precision)  # what float32 rounds off the centre is taken away by itself
    band = banded(values)
    scales = [
        xr.Variable(() if band is None else (band,), column[0] if band is None else column).astype(precision)
        for column in (near, centre - near, width)
    ]
    valid, nodata = told_by(dataset, variable)
    kept = {key: value for key, value in values.attrs.items() if key not in (*STALE, UNITS)} | {NORMALIZED: True}
    reads: list[str | xr.Variable] = [variable, *scales, *(["valid"] if valid else [])]
    return Edit(variable, tuple(reads), partial(_normalized, nodata=nodata), np.dtype(np.float32), kept)


def _normalized(
    values: Array, near: Array, rest: Array, width: Array, *valid: Array, nodata: Any, out: Array | None
) -> Array:
    """Normalize pixels in the precision of ``near``."""
    there = valid[0] if valid else None if nodata is None else values != nodata
    result = into(values, near.dtype, out if out is not None and out.dtype == near.dtype else None)
    result -= near
    result -= rest
    result /= width
    if result.dtype != np.float32:
        result = into(result, np.dtype(np.float32), out)
    return blanked(result, there)


def named(dataset: xr.Dataset, part: str = "") -> dict[str, str]:
    """Give the variables of pixels by the names that statistics have for them: ``"red"``, of an input ``"s2/red"``."""
    names = [str(name) for name, v in dataset.data_vars.items() if name != "valid" and {"y", "x"} <= set(v.dims)]
    return {f"{part}/{name}" if part else name: name for name in names}


def banded(variable: xr.DataArray) -> str | None:
    """Give the dim of a variable's bands, where it has several.

    Raises
    ------
    StatisticsError
        if there are dims beside time, one of bands, y and x
    """
    dims = [str(dim) for dim in variable.dims if dim not in ("time", "y", "x")]
    if len(dims) > 1:
        raise StatisticsError(f"{variable.name!r} is {variable.dims}: statistics know time, one dim of bands, y and x")
    return dims[0] if dims else None


def layers(variable: xr.DataArray, name: str) -> dict[str, xr.DataArray]:
    """Give a variable by its name; one of several bands band by band, ``"embedding[A00]"``."""
    band = banded(variable)
    if band is None:
        return {name: variable}
    labels = variable[band].values if band in variable.coords else range(variable.sizes[band])
    return {f"{name}[{label}]": variable.isel({band: i}) for i, label in enumerate(labels)}
