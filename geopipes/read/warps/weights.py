"""Weights of bilinear and cubic kernels, as whole numbers for each 1/256 of a pixel."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import numpy as np

from geopipes.read.warps.roots import Array

PHASES = 256
"""Places within a pixel that weights are told for: a neighbour's value errs by 1/512 of the local gradient."""

TOTAL = 1 << 20
"""Sum of an axis's weights; those of a kernel that is not widened are rounded by less than shows in 16 bits."""

SUPPORT = {"bilinear": 1.0, "cubic": 2.0}
"""Pixels from a kernel's centre to its end, before it is widened."""


def radius(resampling: str, scale: float) -> int:
    """Give the pixels on each side of a centre that a kernel touches.

    Parameters
    ----------
    resampling : "bilinear" or "cubic"
    scale : grid pixels for one of the raster's; below 1 the kernel is widened by its inverse, as GDAL's XSCALE does
    """
    return ceil(SUPPORT[resampling] / min(scale, 1.0))


def plain(resampling: str, scale: float) -> bool:
    """Say whether a kernel is bilinear and not widened."""
    return resampling == "bilinear" and scale >= 1


@lru_cache(maxsize=256)
def weights(resampling: str, scale: float) -> Array:
    """Give a kernel's weights.

    Bilinear is a triangle, cubic Keys' convolution with a = -1/2 (Catmull-Rom; IEEE TASSP 29, 1981, eq. 15).

    Parameters
    ----------
    resampling, scale : as `radius`

    Returns
    -------
    (256, 2 * radius), int64: for each phase the weights of the pixels from ``radius - 1`` before the one at or
    before the centre; the sum of each row is 256 for plain bilinear, where that is exact, else `TOTAL`
    """
    reach, scale = radius(resampling, scale), min(scale, 1.0)
    offsets = np.arange(2 * reach) - (reach - 1) - np.arange(PHASES)[:, None] / PHASES
    distance = np.abs(offsets) * scale
    shape = _triangle(distance) if resampling == "bilinear" else _cubic(distance)
    total = PHASES if plain(resampling, scale) else TOTAL
    whole: Array = np.rint(shape / shape.sum(axis=1, keepdims=True) * total).astype(np.int64)
    # What rounding lost goes to the largest weight: a constant image stays as it is.
    whole[np.arange(PHASES), whole.argmax(axis=1)] += total - whole.sum(axis=1)
    whole.setflags(write=False)
    return whole


def _triangle(distance: Array) -> Array:
    value: Array = np.maximum(1 - distance, 0)
    return value


def _cubic(d: Array) -> Array:
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    value: Array = np.where(d <= 1, near, np.where(d < 2, far, 0))
    return value
