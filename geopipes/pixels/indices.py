"""Spectral indices: normalized differences, and all that spyndex knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import xarray as xr

from geopipes.edits import Array, Edit, blanked, edited, into
from geopipes.errors import StepError
from geopipes.pixels.spectral import (
    catalogue,
    check_platform,
    check_words,
    evaluated,
    find,
    formula,
    is_ratio,
    lacking,
    parts,
    words,
)
from geopipes.pixels.variables import FLOAT, check_amounts, check_new, floats, known


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
    StepError
        if the name is taken, or a band was normalized before
    """
    return edited(dataset, differencing(dataset, first, second, name=name))


def differencing(dataset: xr.Dataset, first: str, second: str, *, name: str) -> list[Edit]:
    """Tell what `normalized_difference` does to a Dataset; its pixels are not looked at."""
    call = f"normalized_difference({first!r}, {second!r}, name={name!r})"
    reads = known(dataset, (first, second))
    check_new(dataset, name, call)
    check_amounts(dataset, reads, call)
    return [floats(dataset, name, reads, _difference)]


def _difference(first: Array, second: Array, *valid: Array, spoken: Sequence[bool], out: Array | None) -> Array:
    a, b = (values.astype(FLOAT, copy=False) for values in (first, second))
    total = a + b
    np.copyto(total, np.nan, where=total == 0)
    result: Array = np.divide(a - b, total, out=out)
    return blanked(result, valid[0] if any(spoken) else None)


def spectral_index(
    dataset: xr.Dataset,
    names: str | Sequence[str],
    *,
    bands: Mapping[str, str] | None = None,
    platform: str | None = None,
    **constants: float,
) -> xr.Dataset:
    """Add spectral indices of the awesome-spectral-indices catalogue, by the formulas that spyndex holds.

    Parameters
    ----------
    dataset : with reflectance, variables (time, y, x), and ``valid``
    names : of the indices, ``"NDVI"`` or ``["EVI", "kNDVI"]``: https://awesome-ee-spectral-indices.readthedocs.io
    bands : variables for the catalogue's bands where these are not told by themselves, ``{"N": "nir08"}``. Told are
        bands with a common name (B: blue, R: red, N: nir, S1: swir16), that of `stack`'s attributes or their own, and
        those that a platform calls so: B04, SR_B4
    platform : whose names these are, as ``"sentinel-2"`` or ``"landsat-8"``; None for what `stack`'s attributes say
    constants : of the formulas, ``L=0.5``; others are spyndex's defaults: its SAVI has L = 1.0, that of the literature
        ``L=0.5`` (Huete 1988, https://doi.org/10.1016/0034-4257(88)90106-X). Of kernel indices, ``sigma`` is the RBF
        kernel's; by default half the sum of its two bands, pixel by pixel, so that kNDVI is tanh(NDVI ** 2)
        (Camps-Valls et al. 2021, https://doi.org/10.1126/sciadv.abc7447)

    Returns
    -------
    the Dataset with a variable more for each index, float32, NaN where not valid or where the formula has no number

    Raises
    ------
    StepError
        for an index, a band of the catalogue, a constant or a platform that is not known; where a variable of the
        index's name is there; and where a formula needs reflectance and a band holds whole numbers as stored, or was
        normalized
    UnknownBand
        if a band that an index needs is not there
    """
    return edited(dataset, indexing(dataset, names, bands=bands, platform=platform, **constants))


def indexing(
    dataset: xr.Dataset,
    names: str | Sequence[str],
    *,
    bands: Mapping[str, str] | None = None,
    platform: str | None = None,
    **constants: float,
) -> list[Edit]:
    """Tell what `spectral_index` does to a Dataset; its pixels are not looked at."""
    known(dataset, list((bands or {}).values()))
    check_platform(platform)
    wanted = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    check_words(names, {word for name in wanted for word in words(formula(name))}, bands or {}, constants)
    return [_index(dataset, name, bands or {}, platform, constants) for name in wanted]


def _index(
    dataset: xr.Dataset, name: str, given: Mapping[str, str], platform: str | None, constants: Mapping[str, float]
) -> Edit:
    """Tell of one index."""
    text, call = formula(name), f"spectral_index({name!r})"
    check_new(dataset, name, call)
    needed, numbers = parts(name, text, constants)
    found = {band: find(dataset, band, given, platform) for band in needed}
    if missing := [band for band, variable in found.items() if variable is None]:
        raise lacking(dataset, name, missing)
    reads = [str(variable) for variable in found.values()]
    check_amounts(dataset, reads, call)
    stored = [one for one in reads if dataset.variables[one].dtype.kind in "biu"]
    if stored and not is_ratio(text, needed, numbers):
        raise StepError(
            f"{call}: its formula {text} needs reflectance, and {stored} hold whole numbers as "
            "stored; write stack(rescale=True), or scale(...) before"
        )
    function = partial(_computed, text=text, bands=tuple(needed), numbers=numbers)
    return floats(dataset, name, reads, function, {"long_name": str(catalogue().indices[name].long_name)})


def _computed(
    *arrays: Array,
    spoken: Sequence[bool],
    text: str,
    bands: Sequence[str],
    numbers: Mapping[str, float | None],
    out: Array | None,
) -> Array:
    """Evaluate a formula in float32; what is not valid is NaN in the end, whatever was computed of it."""
    values = {band: array.astype(FLOAT, copy=False) for band, array in zip(bands, arrays, strict=False)}
    result = into(np.asarray(evaluated(text, values, numbers), FLOAT), FLOAT, out)
    np.copyto(result, np.nan, where=np.isinf(result))
    return blanked(result, arrays[-1] if any(spoken) else None)
