"""Average and mode: what a grid pixel overlaps in a raster, and how much of each.

Where raster and grid are parallel, overlaps are exact, in 1/256 px of the raster along each axis. Elsewhere a grid
pixel is the quadrilateral between its corners, and sampled at ``2^n x 2^n`` points that lie evenly in it.
"""

from __future__ import annotations

import numpy as np

from geopipes.read.warps.compiling import compiled
from geopipes.read.warps.kernels import Crop, Number, column, divided
from geopipes.read.warps.lattices import NOWHERE
from geopipes.read.warps.roots import Array
from geopipes.read.warps.splitting import PARTS


@compiled
def average(
    crop: Crop,
    corners: tuple[Array, Array],
    halvings: int,
    capacity: int,
    one: Number,
    low: Number,
    high: Number,
    out: Array,
    ok: Array,
) -> None:
    """Average the valid pixels that each grid pixel overlaps, by area.

    Parameters
    ----------
    crop : the raster
    corners : rows and columns [2^-8 px] of the grid pixels' edges, (y + 1, 1) and (1, x + 1), where raster and grid
        are parallel, else of their corners, (y + 1, x + 1) each
    halvings : a grid pixel is sampled ``2 ** halvings`` times along each side, where they are not parallel
    capacity : the most pixels that one can overlap, or samples
    one : 1, as an integer where sums are exact in 64 bits, else as a float
    low, high : what an integer dtype can hold, of the type of ``one``; None for floats, which are not rounded
    out, ok : (band, y, x), written where not yet ok and any overlapped pixel is valid
    """
    rows, cols, shares = np.empty(capacity, np.int64), np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    for y in range(out.shape[1]):
        for x in range(out.shape[2]):
            count = _overlapped(crop, corners, y, x, halvings, rows, cols, shares)
            for band in range(out.shape[0]):
                if count == 0 or ok[band, y, x]:
                    continue
                total, weight = 0 * one, 0 * one
                for k in range(count):
                    if crop.valid[band, rows[k], cols[k]]:
                        total += crop.pixels[band, rows[k], cols[k]] * (shares[k] * one)
                        weight += shares[k] * one
                if weight > 0:
                    out[band, y, x] = divided(total, weight, low, high)
                    ok[band, y, x] = True


@compiled
def mode(crop: Crop, corners: tuple[Array, Array], halvings: int, capacity: int, out: Array, ok: Array) -> None:
    """Find the class with the largest area within each grid pixel; of those with equal areas the smallest.

    Parameters
    ----------
    crop, corners, halvings, capacity, out, ok : as `average`
    """
    rows, cols, shares = np.empty(capacity, np.int64), np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    classes, areas = np.empty(capacity, crop.pixels.dtype), np.empty(capacity, np.int64)
    for y in range(out.shape[1]):
        for x in range(out.shape[2]):
            count = _overlapped(crop, corners, y, x, halvings, rows, cols, shares)
            for band in range(out.shape[0]):
                if ok[band, y, x]:
                    continue
                found, last = 0, 0
                for k in range(count):
                    if not crop.valid[band, rows[k], cols[k]]:
                        continue
                    value = crop.pixels[band, rows[k], cols[k]]
                    if found == 0 or classes[last] != value:  # neighbours mostly are of one class
                        last = 0
                        while last < found and classes[last] != value:
                            last += 1
                        if last == found:
                            classes[last], areas[last] = value, 0
                            found += 1
                    areas[last] += shares[k]
                if found > 0:
                    best = 0
                    for k in range(1, found):
                        if areas[k] > areas[best] or (areas[k] == areas[best] and classes[k] < classes[best]):
                            best = k
                    out[band, y, x] = classes[best]
                    ok[band, y, x] = True


@compiled
def _overlapped(
    crop: Crop,
    corners: tuple[Array, Array],
    y: int,
    x: int,
    halvings: int,
    rows: Array,
    cols: Array,
    shares: Array,
) -> int:
    """List the pixels of a crop that a grid pixel overlaps, and their shares; give how many."""
    row, col = corners
    if row.shape[1] == 1:
        r0, r1, c0, c1 = row[y, 0], row[y + 1, 0], col[0, x], col[0, x + 1]
        if min(r0, r1, c0, c1) == NOWHERE:
            return 0
        c1 = _beside(c1, c0, crop.period)
        return _straight(crop, min(r0, r1), max(r0, r1), min(c0, c1), max(c0, c1), rows, cols, shares)
    r0, r1, r2, r3 = row[y, x], row[y, x + 1], row[y + 1, x], row[y + 1, x + 1]
    c0, c1, c2, c3 = col[y, x], col[y, x + 1], col[y + 1, x], col[y + 1, x + 1]
    if min(min(r0, r1, r2, r3), min(c0, c1, c2, c3)) == NOWHERE:
        return 0
    c1, c2, c3 = _beside(c1, c0, crop.period), _beside(c2, c0, crop.period), _beside(c3, c0, crop.period)
    return _sampled(crop, (r0, r1, r2, r3), (c0, c1, c2, c3), halvings, rows, cols, shares)


@compiled
def _beside(col: int, first: int, period: int) -> int:
    """Give a column on the same side of the globe's seam as another one."""
    turn = period << PARTS
    if period > 0 and 2 * (col - first) > turn:
        return col - turn
    if period > 0 and 2 * (first - col) > turn:
        return col + turn
    return col


@compiled
def _straight(crop: Crop, top: int, bottom: int, left: int, right: int, rows: Array, cols: Array, shares: Array) -> int:
    """List what lies between edges; a grid pixel thinner than 2^-8 px counts as that thick."""
    count, bottom, right = 0, max(bottom, top + 1), max(right, left + 1)
    for r in range(max(top >> PARTS, crop.row), min(((bottom - 1) >> PARTS) + 1, crop.row + crop.height)):
        tall = min(bottom, (r + 1) << PARTS) - max(top, r << PARTS)
        for c in range(left >> PARTS, ((right - 1) >> PARTS) + 1):
            within = column(c - crop.col, crop.col, crop.width, crop.period)
            if within >= 0:
                rows[count], cols[count] = r - crop.row, within
                shares[count] = tall * (min(right, (c + 1) << PARTS) - max(left, c << PARTS))
                count += 1
    return count


@compiled
def _sampled(
    crop: Crop,
    row: tuple[int, int, int, int],
    col: tuple[int, int, int, int],
    halvings: int,
    rows: Array,
    cols: Array,
    shares: Array,
) -> int:
    """List what lies at points spread evenly between four corners: upper left and right, lower left and right."""
    count, samples = 0, 1 << halvings
    # Weights of corners are odd multiples of half a sample: their sum is 4 * samples ** 2.
    digits = PARTS + 2 + 2 * halvings
    for i in range(samples):
        down, up = 2 * i + 1, 2 * (samples - i) - 1
        left_row, right_row = row[0] * up + row[2] * down, row[1] * up + row[3] * down
        left_col, right_col = col[0] * up + col[2] * down, col[1] * up + col[3] * down
        for j in range(samples):
            right, left = 2 * j + 1, 2 * (samples - j) - 1
            r = ((left_row * left + right_row * right) >> digits) - crop.row
            c = ((left_col * left + right_col * right) >> digits) - crop.col
            c = column(c, crop.col, crop.width, crop.period)
            if 0 <= r < crop.height and c >= 0:
                if count > 0 and rows[count - 1] == r and cols[count - 1] == c:
                    shares[count - 1] += 1
                else:
                    rows[count], cols[count], shares[count] = r, c, 1
                    count += 1
    return count
