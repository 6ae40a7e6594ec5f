"""Nearest, bilinear and cubic, for all bands of a crop at once.

Integers of 16 bits or fewer are weighed in integers, others in float64 and in one order, so that a pixel is the
same to the last bit whatever computes it. Compiled once for each dtype.

Lines are taken in passes, one simple loop each, through buffers: loops that only gather, and loops that the
compiler turns into vector instructions. It does so only where a loop calls no other function and loads nothing on
a condition; and each helper that is called adds to the time of compiling.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from geopipes.read.warps.compiling import compiled
from geopipes.read.warps.lattices import BITS, ONE, between
from geopipes.read.warps.roots import Array
from geopipes.read.warps.splitting import OUTSIDE

FAR = 1 << 42
"""Coordinates beyond which a place is outside whatever the raster: what is less fits 32 bits, counted in pixels."""

Number = Any
"""An int, a float or None: for each type a kernel is compiled anew, and does what suits it."""


class Crop(NamedTuple):
    """A part of a raster.

    Attributes
    ----------
    pixels : (band, h, w), C-contiguous
    valid : (band, h, w), bool, C-contiguous; may be empty for nearest where all bands are whole
    whole : (band,), bool: whether all pixels of a band are valid
    height, width : of the part of ``pixels`` that is image
    row, col : of the first pixel within the image
    period : columns of an image that closes upon itself; 0 for others
    """

    pixels: Array
    valid: Array
    whole: Array
    height: int
    width: int
    row: int
    col: int
    period: int


class Kernel(NamedTuple):
    """How neighbours are weighed, and sums become pixels.

    Attributes
    ----------
    down, across : (256, n), int64 or float64: for each 1/256 px the weights along rows and columns
    down_instead, across_instead : weights where a neighbour is missing, none negative; what is missing is left out
    total : sum of the weights of all neighbours
    sums : an array of no length, of the dtype that holds sums of weighed pixels
    """

    down: Array
    across: Array
    down_instead: Array
    across_instead: Array
    total: Number
    sums: Array


class Cells(NamedTuple):
    """Cells of the lattice that hold a window, as `geopipes.read.warps.lattices.fill` takes them.

    Attributes
    ----------
    points, tops, lefts, size : of the cells
    row, col : root indices of the window's first pixel
    """

    points: Array
    tops: Array
    lefts: Array
    size: int
    row: int
    col: int


class Places(NamedTuple):
    """Where the centres of a window's pixels lie in the image, all (y, x): as in `Located`."""

    rows: Array
    cols: Array
    row_parts: Array
    col_parts: Array


@compiled
def measured(pixels: Array, mask: Array, nodata: Array, free: Array, valid: Array, whole: Array) -> None:
    """Tell which pixels are measurements.

    Parameters
    ----------
    pixels : (band, h, w)
    mask : (h, w) uint8, 0 where not valid; (0, 0) for none
    nodata, free : (band,) the value that stands for no measurement in each, and whether there is none
    valid : (band, h, w), bool, written
    whole : (band,), bool, whether all are
    """
    for band in range(pixels.shape[0]):
        value, any_value, every = nodata[band], free[band], True
        for y in range(pixels.shape[1]):
            line, good = pixels[band, y], valid[band, y]
            for x in range(len(line)):  # NaN is not itself
                good[x] = ((line[x] != value) | any_value) & (line[x] == line[x])
            if mask.shape[0] > 0:
                for x in range(len(line)):
                    good[x] = good[x] & (mask[y, x] != 0)
            for x in range(len(line)):
                every &= good[x]
        whole[band] = every


@compiled
def nearest(crop: Crop, rows: Array, cols: Array, cells: Cells, out: Array, ok: Array) -> None:
    """Take the pixel that holds each centre.

    Parameters
    ----------
    crop : the raster
    rows, cols : (y, x), of the image; empty where ``cells`` tell
    cells : of the lattice, all good, if there are any: places are then worked out line by line
    out, ok : (band, y, x), written where not yet ok and now valid
    """
    width, corner, last = out.shape[2], (crop.row, crop.col), (crop.height - 1, crop.width - 1)
    at, within, found = np.empty(width, np.uint32), np.empty(width, np.bool_), np.empty(width, np.bool_)
    values = np.empty(width, crop.pixels.dtype)
    line_rows, line_cols = np.empty(width, np.int32), np.empty(width, np.int32)
    for y in range(out.shape[1]):
        if len(cells.tops) > 0:
            _line_of_cells(cells, y, line_rows, line_cols)
            _placed(line_rows, line_cols, corner, last, crop.pixels.shape[2], at, within)
        else:
            _placed(rows[y], cols[y], corner, last, crop.pixels.shape[2], at, within)
        for band in range(out.shape[0]):
            plane, valid = crop.pixels[band].reshape(-1), crop.valid[band].reshape(-1)
            for x in range(width):
                values[x] = plane[at[x]]
                found[x] = within[x]
            if not crop.whole[band]:
                for x in range(width):
                    found[x] = within[x] & valid[at[x]]
            _selected(values, found, out[band, y], ok[band, y])


@compiled
def _line_of_cells(cells: Cells, y: int, rows: Array, cols: Array) -> None:
    """Give the pixels that hold the centres of a window's row, `OUTSIDE` for those far beyond the raster."""
    part = 1.0 / cells.size
    for k in range(len(cells.tops)):
        top, left = cells.tops[k] - cells.row, cells.lefts[k] - cells.col
        if not top <= y < top + cells.size:
            continue
        first, last = max(left, 0), min(left + cells.size, len(rows))
        down = (y - top + 0.5) * part
        row, row_slope, row_bend = between(cells.points[k, 0], down)
        col, col_slope, col_bend = between(cells.points[k, 1], down)
        line_rows, line_cols = rows[first:last], cols[first:last]
        for x in range(len(line_rows)):
            along = (x + first - left + 0.5) * part
            at_row = math.floor((row + along * (row_slope + along * row_bend)) * ONE + 0.5)
            at_col = math.floor((col + along * (col_slope + along * col_bend)) * ONE + 0.5)
            near = (abs(at_row) < FAR) & (abs(at_col) < FAR)
            line_rows[x] = (at_row >> BITS) if near else OUTSIDE
            line_cols[x] = (at_col >> BITS) if near else OUTSIDE


@compiled
def weighed(
    crop: Crop,
    places: Places,
    kernel: Kernel,
    bits: Number,
    low: Number,
    high: Number,
    out: Array,
    ok: Array,
) -> bool:
    """Weigh the pixels around each place, where none is missing: bilinear and cubic, widened or not.

    Parameters
    ----------
    crop : the raster
    places : where the centres lie
    kernel : the weights
    bits : of which the kernel's total is the power of two, where sums are integers; else None
    low, high : what an integer dtype can hold; None for floats, which are not rounded
    out, ok : (band, y, x), written where not yet ok and all neighbours are valid

    Returns
    -------
    whether some were missing
    """
    taps_down, taps_across, stride = kernel.down.shape[1], kernel.across.shape[1], crop.pixels.shape[2]
    corner = crop.row + taps_down // 2 - 1, crop.col + taps_across // 2 - 1
    last = crop.height - taps_down, crop.width - taps_across
    width, numbers, total, missing = out.shape[2], kernel.sums.dtype, kernel.total, False
    at, within, found = np.empty(width, np.uint32), np.empty(width, np.bool_), np.empty(width, np.bool_)
    values, along, sums = np.empty(width, crop.pixels.dtype), np.empty(width, numbers), np.empty(width, numbers)
    down, across = np.empty((taps_down, width), numbers), np.empty((taps_across, width), numbers)
    for y in range(out.shape[1]):
        inside = _placed(places.rows[y], places.cols[y], corner, last, stride, at, within)
        row_parts, col_parts = places.row_parts[y], places.col_parts[y]
        for x in range(width):
            for i in range(taps_down):
                down[i, x] = kernel.down[row_parts[x], i]
            for j in range(taps_across):
                across[j, x] = kernel.across[col_parts[x], j]
        for band in range(out.shape[0]):
            plane, valid, whole = crop.pixels[band].reshape(-1), crop.valid[band].reshape(-1), crop.whole[band]
            missing |= inside < width or not whole
            for x in range(width):
                sums[x], found[x] = 0, within[x]
            for i in range(taps_down if min(last) >= 0 else 0):
                for x in range(width):
                    along[x] = 0
                for j in range(taps_across):
                    offset, weights = np.uint32(i * stride + j), across[j]
                    for x in range(width):
                        values[x] = plane[at[x] + offset]
                    for x in range(width):
                        along[x] += values[x] * weights[x]
                    if not whole:
                        for x in range(width):
                            found[x] = found[x] & valid[at[x] + offset]
                weights = down[i]
                for x in range(width):
                    sums[x] += along[x] * weights[x]
            for x in range(width):
                # Which of these there is, is known from the types: None has one of its own.
                if low is None:
                    values[x] = sums[x] / total
                elif bits is None:
                    values[x] = min(max(np.floor(sums[x] / total + 0.5), low), high)
                else:
                    values[x] = min(max((sums[x] + (total >> 1)) >> bits, low), high)
            _selected(values, found, out[band, y], ok[band, y])
    return missing


@compiled
def _placed(
    rows: Array, cols: Array, corner: tuple[int, int], last: tuple[int, int], stride: int, at: Array, within: Array
) -> int:
    """Find where in a crop each place's first neighbour lies (0 if not), whether it holds all, and how many such."""
    count = 0
    first_row, first_col = np.int32(corner[0]), np.int32(corner[1])
    last_row, last_col, line = np.int32(last[0]), np.int32(last[1]), np.int32(stride)
    for x in range(len(at)):
        row, col = np.int32(rows[x] - first_row), np.int32(cols[x] - first_col)
        inside = (row >= 0) & (col >= 0) & (row <= last_row) & (col <= last_col)
        within[x] = inside
        at[x] = np.uint32(row * line + col) if inside else np.uint32(0)
        count += int(inside)
    return count


@compiled
def _selected(values: Array, found: Array, line: Array, line_ok: Array) -> None:
    """Write what is found where nothing is ok yet."""
    for x in range(len(values)):
        new, old, now, was = values[x], line[x], found[x], line_ok[x]
        line[x] = new if now & (not was) else old
        line_ok[x] = was | now


@compiled
def divided(total: Number, weight: Number, low: Number, high: Number) -> Number:
    """Divide a weighed sum by its weight: floats as they are, integers rounded, halves up, and clamped."""
    if low is None:
        return total / weight
    return min(max((2 * total + weight) // (2 * weight), low), high)


@compiled
def column(col: int, first: int, width: int, period: int) -> int:
    """Give where a column lies in a crop, around the globe if need be; -1 where it does not."""
    if 0 <= col < width:
        return col
    if period > 0:
        col = (col + first) % period - first
        if 0 <= col < width:
            return col
    return -1


@compiled
def partly(crop: Crop, places: Places, kernel: Kernel, low: Number, high: Number, out: Array, ok: Array) -> None:
    """Weigh what there is around each place, where the pixel that holds it is valid.

    Parameters
    ----------
    crop, places, kernel, low, high, out, ok : as `weighed`; ``ok`` where that was done
    """
    found = np.empty(out.shape[2], np.bool_)
    first_col, height, width, period = crop.col, crop.height, crop.width, crop.period
    for band in range(out.shape[0]):
        plane, valid = crop.pixels[band], crop.valid[band]
        for y in range(out.shape[1]):
            line, line_ok, rows, cols = out[band, y], ok[band, y], places.rows[y], places.cols[y]
            for x in range(len(line)):
                found[x] = False
                if line_ok[x] or rows[x] == OUTSIDE:
                    continue
                row, col = rows[x] - crop.row, cols[x] - first_col
                down, across = int(places.row_parts[y, x]), int(places.col_parts[y, x])
                if not valid[row + (down >> 7), column(col + (across >> 7), first_col, width, period)]:
                    continue
                # A place at the globe's seam may have all its neighbours, though the crop holds them apart.
                for downs, acrosses, strict in (
                    (kernel.down[down], kernel.across[across], True),
                    (kernel.down_instead[down], kernel.across_instead[across], False),
                ):
                    top, left = row - len(downs) // 2 + 1, col - len(acrosses) // 2 + 1
                    sums, weight, missing = 0 * downs[0], 0 * downs[0], False
                    for i in range(len(downs)):
                        along, along_weight, r = 0 * downs[0], 0 * downs[0], top + i
                        for j in range(len(acrosses)):
                            c = column(left + j, first_col, width, period)
                            if 0 <= r < height and c >= 0 and valid[r, c]:
                                along += plane[r, c] * acrosses[j]
                                along_weight += acrosses[j]
                            else:
                                missing = True
                        sums += along * downs[i]
                        weight += along_weight * downs[i]
                    if not (strict and missing):
                        break
                line[x] = divided(sums, weight, low, high)
                found[x] = True
            for x in range(len(line)):
                line_ok[x] = line_ok[x] | found[x]
