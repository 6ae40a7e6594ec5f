"""Polygons to pixels: which of them covers a pixel's centre, as GDAL tells it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geopipes.read.warps.compiling import compiled

Array = npt.NDArray[Any]

FEW = 16
"""Crossings of a row up to which they are sorted one by one: a call of sort costs more."""


@compiled
def _write(
    out: Array, row: int, start: float, stop: float, col0: int, owner: int, codes: Array, ranks: Array
) -> int:  # fmt: skip
    """Write a polygon's number from one crossing to another; gives the place where it meets one that it must not."""
    width = out.shape[1]
    begin = int(min(max(start, float(col0)), float(col0 + width))) - col0
    end = int(min(max(stop, float(col0)), float(col0 + width))) - col0
    for col in range(begin, end):
        there = out[row, col]
        if there >= 0 and ranks[owner] >= 0 and ranks[there] == ranks[owner] and codes[there] != codes[owner]:
            return int(row * width + col)
        out[row, col] = owner
    return -1


@compiled
def fill(
    coordinates: Array, rings: Array, polygons: Array, owners: Array, codes: Array, ranks: Array, corner: Array,
    out: Array,
) -> int:  # fmt: skip
    """Write the number of the last polygon whose inside holds a pixel's centre; what is inside tells the even-odd rule.

    The arithmetic is that of GDAL's ``GDALdllImageFilledPolygon`` (alg/llrasterize.cpp) on the whole grid: crossings
    of a row's centre line are told in the grid's pixels, whatever window is written. So no pixel depends on that.

    Parameters
    ----------
    coordinates : (n, 2) x and y in pixels of the grid
    rings : (r + 1,) where each ring begins among them
    polygons : (p + 1,) where each polygon begins among the rings
    owners : (p,) the number written for each polygon, from 0
    codes, ranks : by owner: two of one rank and of different codes must not meet; a rank below 0 meets any
    corner : (2,) row and column of the window in the grid
    out : (y, x) int32, -1 where nothing is written yet

    Returns
    -------
    -1, or the place in ``out`` (row * width + column) where two met that must not
    """
    height = out.shape[0]
    row0, col0 = corner[0], corner[1]
    for polygon in range(len(polygons) - 1):
        first, last = rings[polygons[polygon]], rings[polygons[polygon + 1]]
        if first == last:
            continue
        owner = owners[polygon]
        low, high = coordinates[first, 1], coordinates[first, 1]
        for i in range(first, last):
            low, high = min(low, coordinates[i, 1]), max(high, coordinates[i, 1])
        # Clipped as floats: what lies far away need not be a whole number of 64 bits.
        top = max(int(min(max(low, row0 - 1.0), row0 + height + 1.0)), row0)
        bottom = min(int(min(max(high, row0 - 1.0), row0 + height + 1.0)), row0 + height - 1)
        crossings = np.empty(last - first, np.float64)
        for row in range(top, bottom + 1):
            centre = row + 0.5
            found = 0
            for ring in range(polygons[polygon], polygons[polygon + 1]):
                for i in range(rings[ring], rings[ring + 1]):
                    before = i - 1 if i > rings[ring] else rings[ring + 1] - 1
                    y1, y2 = coordinates[before, 1], coordinates[i, 1]
                    if (y1 < centre and y2 < centre) or (y1 > centre and y2 > centre):
                        continue
                    x1, x2 = coordinates[before, 0], coordinates[i, 0]
                    if y1 > y2:
                        x1, x2, y1, y2 = x2, x1, y2, y1
                    elif y1 == y2:
                        if x1 > x2:  # an edge on the centre line counts along the bottom, and not along the top
                            ends = np.floor(x2 + 0.5), np.floor(x1 + 0.5)
                            met = _write(out, row - row0, ends[0], ends[1], col0, owner, codes, ranks)
                            if met >= 0:
                                return met
                        continue
                    if y1 <= centre < y2:
                        crossings[found] = np.floor((centre - y1) * (x2 - x1) / (y2 - y1) + x1 + 0.5)
                        found += 1
            if found > FEW:
                crossings[:found].sort()
            else:
                for i in range(1, found):
                    moving, at = crossings[i], i
                    while at > 0 and crossings[at - 1] > moving:
                        crossings[at] = crossings[at - 1]
                        at -= 1
                    crossings[at] = moving
            for i in range(0, found - 1, 2):
                met = _write(out, row - row0, crossings[i], crossings[i + 1], col0, owner, codes, ranks)
                if met >= 0:
                    return met
    return -1
