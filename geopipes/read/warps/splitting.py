"""Coordinates split into pixels and parts of pixels, and the pixels of a raster that a window touches."""

from __future__ import annotations

import numpy as np

from geopipes.read.warps.compiling import compiled
from geopipes.read.warps.lattices import BITS, NOWHERE, ONE
from geopipes.read.warps.roots import Array

PARTS = 8
"""Binary digits of the part of a pixel that weights are told for."""

PART_SHIFT = BITS - PARTS

OUTSIDE = -(1 << 30)
"""Row and column of a pixel that lies outside the raster."""

Bounds = tuple[int, int, int, int]
"""First and last row, first and last column; the first is above the last where there are none."""


def coarser(places: Array) -> Array:
    """Round coordinates from 2^-12 to 2^-8 px, halves up: weights of areas then stay within 64 bits."""
    fewer: Array = (places + (1 << (PART_SHIFT - 1))) >> PART_SHIFT
    fewer[places == NOWHERE] = NOWHERE
    return fewer


@compiled
def split(places: Array, image: tuple[int, int], period: int, between: bool, at: Array, parts: Array) -> Bounds:
    """Split coordinates into whole pixels and parts, and find the first and last pixels that hold a centre.

    Parameters
    ----------
    places : (2, y, x) as `positions` gives them; columns around the globe are counted from its edge
    image : (height, width) of the raster
    period : columns of a raster that closes upon itself, or 0
    between : whether to give the pixel centre at or before each place and the part from there, or the pixel itself
    at : (2, y, x), int32, written
    parts : (2, y, x), uint8, written where ``between``
    """
    first_row, last_row, first_col, last_col = -NOWHERE, NOWHERE, -NOWHERE, NOWHERE
    # As in kernels: lines of their own, no calls and no conditional loads make loops of vector instructions.
    middle = np.int64(1 << (BITS - 1)) if between else np.int64(0)
    height, width = image
    for y in range(places.shape[1]):
        place_rows, place_cols, rows, cols = places[0, y], places[1, y], at[0, y], at[1, y]
        if period > 0:
            for x in range(len(rows)):
                if place_cols[x] != NOWHERE:
                    place_cols[x] %= period << BITS
        for x in range(len(rows)):
            row, col = place_rows[x], place_cols[x]
            held_row, held_col = row >> BITS, col >> BITS
            near_row, near_col = (row - middle) >> BITS, (col - middle) >> BITS
            inside = (held_row >= 0) & (held_row < height) & (held_col >= 0) & (held_col < width)
            rows[x] = near_row if inside else OUTSIDE
            cols[x] = near_col if inside else OUTSIDE
            first_row = min(first_row, held_row if inside else -NOWHERE)
            last_row = max(last_row, held_row if inside else NOWHERE)
            first_col = min(first_col, held_col if inside else -NOWHERE)
            last_col = max(last_col, held_col if inside else NOWHERE)
        for axis in range(2 if between else 0):
            line, line_parts = places[axis, y], parts[axis, y]
            for x in range(len(line)):
                rest = (line[x] - middle) & (ONE - 1)
                # Rounded, but not over the edge to the next pixel: the part tells which one holds the place.
                most = 127 if rest < middle else 255
                line_parts[x] = min((rest + (1 << (PART_SHIFT - 1))) >> PART_SHIFT, most)
    return first_row, last_row, first_col, last_col


@compiled
def around(rows: Array, cols: Array, image: tuple[int, int], period: int) -> Bounds:
    """Find the first and last row and column that the pixels with these corners (y + 1, x + 1) overlap."""
    first_row, last_row, first_col, last_col = -NOWHERE, NOWHERE, -NOWHERE, NOWHERE
    for y in range(rows.shape[0] - 1):
        for x in range(rows.shape[1] - 1):
            r, c = rows[y : y + 2, x : x + 2], cols[y : y + 2, x : x + 2]
            if min(r.min(), c.min()) == NOWHERE:
                continue
            top, bottom, left, right = r.min(), r.max(), c.min(), c.max()
            if period > 0 and 2 * (right - left) > period << PARTS:  # it lies across the seam
                left, right = 0, period << PARTS
            top, bottom, left, right = top >> PARTS, (bottom - 1) >> PARTS, left >> PARTS, (right - 1) >> PARTS
            bottom, right = max(top, bottom), max(left, right)
            if bottom >= 0 and top < image[0] and (period > 0 or (right >= 0 and left < image[1])):
                first_row, last_row = min(first_row, top), max(last_row, bottom)
                first_col, last_col = min(first_col, left), max(last_col, right)
    return first_row, last_row, first_col, last_col
