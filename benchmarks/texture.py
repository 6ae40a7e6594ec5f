"""Pixels that compress as imagery does: a pure function of row, column and band."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]

OCTAVES = tuple(2**k for k in range(2, 11))
"""Wavelengths of the ground [px]: 120 m to 30 km, so that near chips resemble each other and far ones do not."""

PARCEL = (27, 19)
"""Rows and columns of a field: 810 x 570 m, as in the US Midwest."""

NOISE = 48
"""Digital numbers of noise from lowest to highest: with predictor 2 deflate then halves the files, as Landsat's."""


@lru_cache(maxsize=2)  # the dates of a series share it
def ground(row: int, col: int, pixels: int) -> Array:
    """Give a smooth field with fields of farmland in it, (pixels, pixels) float32, roughly -1 to 1.

    Parameters
    ----------
    row, col : of the first pixel, counted from the CRS's origin
    """
    field = np.zeros((pixels, pixels), np.float32)
    for octave in OCTAVES:
        _add_octave(field, row, col, octave, np.float32(octave**0.5 / 48))
    _add_parcels(field, row, col)
    return field


def band(field: Array, row: int, col: int, number: int, day: int) -> Array:
    """Give a band's digital numbers on a day, uint16, never 0."""
    season = 0.5 + 0.5 * np.cos(2 * np.pi * (day - 200 - 9 * number) / 365)
    return np.asarray(_numbers(field, row, col, number * 1000 + day, 8000 + 1500 * number, 1400 + 900 * season))


def classes(row: int, col: int, height: int, width: int) -> Array:
    """Give crop classes, uint8, 0 to 9, in fields."""
    return np.asarray(_classes(row, col, height, width))


@njit(cache=True, nogil=True)
def _hash(row: int, col: int, key: int) -> np.uint32:
    """Mix three integers to 32 bits (the finalizer of MurmurHash3)."""
    mixed = np.uint32(row) * np.uint32(0x85EBCA6B) ^ np.uint32(col) * np.uint32(0xC2B2AE35)
    mixed ^= np.uint32(key) * np.uint32(0x27D4EB2F)
    mixed = (mixed ^ (mixed >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return np.uint32(mixed ^ (mixed >> np.uint32(16)))


@njit(cache=True, nogil=True)
def _add_octave(field: Array, row: int, col: int, octave: int, weight: np.float32) -> None:
    """Add value noise of one wavelength: hashed numbers on a lattice, linear between."""
    height, width = field.shape
    scale = np.float32(2.0**-31)
    for i in range(height):
        y, down = (row + i) // octave, np.float32((row + i) % octave) / np.float32(octave)
        last, west, east = -(2**40), np.float32(0), np.float32(0)
        for j in range(width):
            x, right = (col + j) // octave, np.float32((col + j) % octave) / np.float32(octave)
            if x != last:
                upper, lower = _hash(y, x, octave) * scale, _hash(y + 1, x, octave) * scale
                west = np.float32(upper + (lower - upper) * down) - np.float32(1)
                upper, lower = _hash(y, x + 1, octave) * scale, _hash(y + 1, x + 1, octave) * scale
                east = np.float32(upper + (lower - upper) * down) - np.float32(1)
                last = x
            field[i, j] += weight * (west + (east - west) * right)


@njit(cache=True, nogil=True)
def _add_parcels(field: Array, row: int, col: int) -> None:
    """Give every field a brightness of its own."""
    height, width = field.shape
    for i in range(height):
        for j in range(width):
            parcel = _hash((row + i) // PARCEL[0], (col + j) // PARCEL[1], 7)
            field[i, j] += np.float32(parcel) * np.float32(2.0**-32) - np.float32(0.5)


@njit(cache=True, nogil=True)
def _numbers(field: Array, row: int, col: int, key: int, base: float, gain: float) -> Array:
    height, width = field.shape
    numbers = np.empty((height, width), np.uint16)
    for i in range(height):
        for j in range(width):
            noise = int(_hash(row + i, col + j, key) % np.uint32(NOISE))
            numbers[i, j] = min(max(base + gain * field[i, j] + noise, 1.0), 65535.0)
    return numbers


@njit(cache=True, nogil=True)
def _classes(row: int, col: int, height: int, width: int) -> Array:
    made = np.empty((height, width), np.uint8)
    for i in range(height):
        for j in range(width):
            made[i, j] = _hash((row + i) // PARCEL[0], (col + j) // PARCEL[1], 11) % np.uint32(10)
    return made
