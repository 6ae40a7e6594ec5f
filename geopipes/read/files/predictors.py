"""Predictors undone: TIFF 6.0 section 14, and Adobe's TIFF Technical Note 3 for floating point."""

from __future__ import annotations

import numpy as np
from numba import njit

from geopipes.read.files.layouts import Array


@njit(cache=True, nogil=True)
def undo_differences(stored: Array, sample: int, out: Array) -> None:
    """Add up what predictor 2 stores, the difference to the pixel on the left.

    Parameters
    ----------
    stored : (y, x, sample), unsigned, in the machine's byte order
    sample : which one
    out : (y, x), of the same dtype; may be the same memory where there is one sample
    """
    for row in range(stored.shape[0]):
        value = stored[row, 0, sample]
        out[row, 0] = value
        for col in range(1, stored.shape[1]):
            value += stored[row, col, sample]
            out[row, col] = value


@njit(cache=True, nogil=True)
def undo_float_differences(stored: Array, sample: int, samples: int, out: Array) -> None:
    """Add up what predictor 3 stores: in each row all first bytes, then all second ones, as differences.

    Parameters
    ----------
    stored : (y, byte), uint8; the most significant bytes come first, whatever the file's byte order
    sample, samples : which one, of how many that alternate
    out : (y, x), unsigned, as wide as the pixels
    """
    cols, planes = out.shape[1], out.itemsize
    for row in range(out.shape[0]):
        value = np.uint64(0)
        for plane in range(planes):
            for col in range(cols):
                value = (value + stored[row, (plane * cols + col) * samples + sample]) & np.uint64(255)
                before = np.uint64(0) if plane == 0 else np.uint64(out[row, col]) << np.uint64(8)
                out[row, col] = before | value
