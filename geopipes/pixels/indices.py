"""Spectral indices: normalized differences, and all that spyndex knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from geopipes.edits import Array, Edit, blanked, edited, into
from geopipes.pixels.variables import FLOAT, floats, known


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
    return [floats(dataset, name, known(dataset, (first, second)), _difference)]


def _difference(first: Array, second: Array, *valid: Array, spoken: Sequence[bool], out: Array | None) -> Array:
    a, b = (
        blanked(into(values, FLOAT, None), valid[0] if known else None)
        for values, known in zip((first, second), spoken, strict=True)
    )
    total = a + b
    np.copyto(total, np.nan, where=total == 0)
    result: Array = np.divide(a - b, total, out=out)
    return result
