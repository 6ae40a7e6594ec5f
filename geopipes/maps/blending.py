"""Chips laid over each other: what a pixel weighs in its chip, and the rows of a map that are still open.

The mean of the chips that hold a pixel is kept up to date as they come, in the way of West (1979, "Updating mean and
variance estimates", Communications of the ACM 22(9)): a pixel of one chip alone is a copy, and where all chips agree
the mean is what they say, bit for bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geopipes.errors import MapError

Blend = Literal["hann", "gaussian", "linear", "mean", "crop"]

BLENDS: tuple[Blend, ...] = ("hann", "gaussian", "linear", "mean", "crop")

SIGMA = 1 / 8
"""Standard deviation of the Gaussian as a share of the chip, as in nnU-Net (Isensee et al. 2021)."""

Pixels = npt.NDArray[Any]


@lru_cache(maxsize=16)
def weights(blend: Blend, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Give what each pixel of a chip weighs: most in the middle, above 0 everywhere.

    Parameters
    ----------
    blend : ``"hann"``, ``"gaussian"``, ``"linear"``: a window along y times one along x; ``"mean"``: 1; ``"crop"``:
        the distance to the nearest edge [px], to be compared and not to be added
    size : of the chip
    """
    y, x = (np.arange(length) + 0.5 for length in size)
    if blend == "crop":
        deep = [np.minimum(at, length - at) for at, length in zip((y, x), size, strict=True)]
        return np.asarray(np.minimum(deep[0][:, None], deep[1]), np.float32)
    sides = [_window(blend, at / length) for at, length in zip((y, x), size, strict=True)]
    return np.asarray(np.outer(*sides), np.float32)


def _window(blend: Blend, at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Give the weights along one side, at places from 0 to 1."""
    if blend == "hann":
        return np.asarray(np.sin(np.pi * at) ** 2)
    if blend == "linear":
        return np.minimum(at, 1 - at)
    return np.exp(-0.5 * ((at - 0.5) / SIGMA) ** 2) if blend == "gaussian" else np.ones_like(at)


class Canvas:
    """The open rows of a map: those that a chip to come may still change.

    Parameters
    ----------
    shape : (bands, rows, columns) of the map
    size : of a chip, (y, x)
    dtype : of the values
    blend : how chips are laid over each other
    top : the first row that is open
    """

    def __init__(
        self, shape: tuple[int, int, int], size: tuple[int, int], dtype: np.dtype[Any], blend: Blend, top: int = 0
    ) -> None:
        bands, self._height, width = shape
        self._width, self._blend, self._weights = width, blend, weights(blend, size)
        self._values = np.zeros((bands, size[0], width), dtype)
        self._weight = np.zeros((size[0], width), np.float32)
        self.top = top

    def add(self, values: Pixels, valid: npt.NDArray[np.bool_], row: int, col: int) -> None:
        """Lay a chip over the map; rows that are closed, and what lies outside, are left out.

        Parameters
        ----------
        values : (bands, y, x)
        valid : (y, x); other pixels do not count
        row, col : of its first pixel; no row is below the first open one by more than a chip
        """
        high, wide = valid.shape
        above, left = max(self.top - row, 0), max(-col, 0)
        below, right = min(high, self._height - row), min(wide, self._width - col)
        if above >= below or left >= right:
            return
        inside = np.s_[above:below, left:right]
        there = np.s_[row + above - self.top : row + below - self.top, col + left : col + right]
        self._lay(values[:, inside[0], inside[1]], valid[inside], self._weights[inside], there)

    def _lay(self, values: Pixels, valid: npt.NDArray[np.bool_], weights: Pixels, there: tuple[slice, slice]) -> None:
        weight, mean = self._weight[there], self._values[:, there[0], there[1]]
        if valid.all() and not weight.any():
            mean[...], weight[...] = values, weights
        elif self._blend == "crop":
            deeper = valid & (weights > weight)
            np.copyto(mean, values, where=deeper)
            np.copyto(weight, weights, where=deeper)
        else:
            fresh = valid & (weight == 0)
            again = valid & (weight > 0)
            np.add(weight, weights, out=weight, where=valid)
            if again.any():
                self._check_numbers()
                share = np.zeros(weight.shape, weight.dtype)
                np.divide(weights, weight, out=share, where=again)
                change = np.zeros(mean.shape, mean.dtype)
                np.subtract(values, mean, out=change, where=again)
                change *= share
                mean += change
            np.copyto(mean, values, where=fresh)

    def _check_numbers(self) -> None:
        if self._values.dtype.kind != "f":
            raise MapError(
                f"stitch(blend={self._blend!r}): {self._values.dtype} of overlapping chips have no mean; let the model "
                "give probabilities, stitch(classes=True), or write blend='crop'"
            )

    def close(self, row: int) -> tuple[Pixels, npt.NDArray[np.bool_]]:
        """Close rows up to one, at most as many as a chip has.

        Returns
        -------
        (bands, n, x) their values, and (n, x) which were covered by a valid pixel of some chip; the caller's own
        """
        count = min(row - self.top, self._weight.shape[0])
        values, covered = self._values[:, :count].copy(), self._weight[:count] > 0
        left = self._weight.shape[0] - count
        for buffer in (self._values, self._weight):
            buffer[..., :left, :] = buffer[..., count:, :].copy()
            buffer[..., left:, :] = 0
        self.top += count
        return values, covered
