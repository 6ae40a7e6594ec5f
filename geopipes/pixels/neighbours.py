"""What looks at neighbours: disks around pixels, functions of a margin on numpy and on dask."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isqrt

import numpy as np
import xarray as xr

from geopipes.edits import Array
from geopipes.errors import StepError


def over_neighbours(
    variable: xr.Variable, function: Callable[[Array], Array], *, margin: int, dtype: np.dtype[np.generic]
) -> xr.Variable:
    """Apply a function that looks up to ``margin`` pixels around each; on dask its chunks overlap by them.

    Parameters
    ----------
    variable : with y and x
    function : of an array (..., y, x), to one of the same shape; it takes what lies beyond the array for not there
    margin, dtype : what it needs, and what it gives
    """
    laid_out = variable.transpose(..., "y", "x")
    if laid_out.chunks is None:
        data = function(laid_out.values)
    else:
        depth = {laid_out.ndim - 2: margin, laid_out.ndim - 1: margin}
        data = laid_out.data.map_overlap(function, depth=depth, boundary="none", dtype=dtype)
    return xr.Variable(laid_out.dims, data).transpose(*variable.dims)


def dilated(marked: xr.Variable, radius: int) -> xr.Variable:
    """Mark all pixels whose centres lie within a radius [px] of a marked one: bool, of the same dims."""
    if radius == 0:
        return marked
    return over_neighbours(marked, partial(_grown, radius=radius), margin=radius, dtype=np.dtype(bool))


def _grown(marked: Array, *, radius: int) -> Array:
    """Grow (..., y, x) by a disk, from its outer rows inward: each is a run that is no shorter than that before."""
    height, width = marked.shape[-2:]
    found, run, reach = marked.copy(), marked.copy(), 0
    for down in range(radius, -1, -1):
        half = isqrt(radius**2 - down**2)
        for across in range(reach + 1, half + 1):
            left = max(width - across, 0)
            run[..., across:] |= marked[..., :left]
            run[..., :left] |= marked[..., across:]
        reach, left = half, max(height - down, 0)
        found[..., down:, :] |= run[..., :left, :]
        found[..., :left, :] |= run[..., down:, :]
    return found


def checked_radius(call: str, dilate: int) -> int:
    """Refuse what is no number of pixels."""
    if isinstance(dilate, bool) or not isinstance(dilate, int | np.integer) or dilate < 0:
        raise StepError(f"{call}(dilate={dilate!r}): give a whole number of pixels, 0 or more")
    return int(dilate)
