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
from geopipes.read.warps.compiling import compiled

Blend = Literal["hann", "gaussian", "linear", "mean", "crop"]

BLENDS: tuple[Blend, ...] = ("hann", "gaussian", "linear", "mean", "crop")

SIGMA = 1 / 8
"""Standard deviation of the Gaussian as a share of the chip, as in nnU-Net (Isensee et al. 2021)."""

COPY = np.float32(2)
"""Stands for the share of a pixel that no other chip has had: above 1, which a share is not."""

Pixels = npt.NDArray[Any]
Sides = tuple[int, int, int, int]


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


@compiled
def mean(
    means: Pixels, total: Pixels, values: Pixels, valid: Pixels, weights: Pixels, sides: Sides, at: tuple[int, int]
) -> bool:
    """Bring weighted means up to date with a chip.

    Parameters
    ----------
    means, total : (bands, rows, x) and (rows, x), with the sum of the weights so far; changed
    values, valid, weights : (bands, y, x) and (y, x) of the chip
    sides : the part of it that counts: top, bottom, left, right
    at : the row and column of that part's corner among the means

    Returns
    -------
    whether some pixel is of several chips now
    """
    top, bottom, left, right = sides
    several = False
    share = np.empty(right - left, np.float32)
    for y in range(top, bottom):
        row = at[0] + y - top
        for x in range(right - left):
            share[x] = 0
            if valid[y, left + x]:
                before = total[row, at[1] + x]
                weight = weights[y, left + x]
                total[row, at[1] + x] = before + weight
                share[x] = weight / (before + weight) if before > 0 else COPY
                several |= before > 0
        for band in range(values.shape[0]):
            for x in range(right - left):
                value, col = values[band, y, left + x], at[1] + x
                if share[x] == COPY:
                    means[band, row, col] = value
                elif share[x] > 0:
                    means[band, row, col] += share[x] * (value - means[band, row, col])
    return several


@compiled
def deepest(
    kept: Pixels, depth: Pixels, values: Pixels, valid: Pixels, weights: Pixels, sides: Sides, at: tuple[int, int]
) -> bool:
    """Keep of each pixel what the chip says that weighs most; parameters as of `mean`, which any dtype has."""
    top, bottom, left, right = sides
    for y in range(top, bottom):
        row = at[0] + y - top
        for x in range(left, right):
            col = at[1] + x - left
            if valid[y, x] and weights[y, x] > depth[row, col]:
                depth[row, col] = weights[y, x]
                for band in range(values.shape[0]):
                    kept[band, row, col] = values[band, y, x]
    return False


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
        here, valid = np.ascontiguousarray(values), np.ascontiguousarray(valid)
        lay = deepest if self._blend == "crop" else mean
        sides, at = (above, below, left, right), (row + above - self.top, col + left)
        if lay(self._values, self._weight, here, valid, self._weights, sides, at):
            self._check_numbers()

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
