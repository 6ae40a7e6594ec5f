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
def _write(out: Array, row: int, start: float, stop: float, col0: int, owner: int, codes: Array, ranks: Array) -> int:
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
def _edge(coordinates: Array, first: int, last: int, i: int) -> tuple[float, float, float, float]:
    """Give the edge of a ring that leads to a point; to its first one leads that from its last."""
    before = i - 1 if i > first else last - 1
    return coordinates[before, 0], coordinates[before, 1], coordinates[i, 0], coordinates[i, 1]


@compiled
def _rows(low: float, high: float, row0: int, height: int) -> tuple[int, int]:
    """Give the rows of a window, from its first, whose centres lie in low <= centre < high."""
    start = int(min(max(np.ceil(low - 0.5), float(row0)), float(row0 + height))) - row0
    stop = int(min(max(np.ceil(high - 0.5), float(row0)), float(row0 + height))) - row0
    return start, stop


@compiled
def _sort(crossings: Array) -> None:
    """Sort in place."""
    if len(crossings) > FEW:
        crossings.sort()
        return
    for i in range(1, len(crossings)):
        moving, at = crossings[i], i
        while at > 0 and crossings[at - 1] > moving:
            crossings[at] = crossings[at - 1]
            at -= 1
        crossings[at] = moving


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
    ends = np.zeros(height + 1, np.int64)  # where the crossings of each row end, among all of a polygon
    for polygon in range(len(polygons) - 1):
        first, last = rings[polygons[polygon]], rings[polygons[polygon + 1]]
        if first == last:
            continue
        top, bottom = _rows(coordinates[first:last, 1].min(), coordinates[first:last, 1].max(), row0, height)
        bottom = min(bottom + 1, height)  # an edge along its bottom may lie on a centre line
        ends[top : bottom + 1] = 0
        for ring in range(polygons[polygon], polygons[polygon + 1]):
            for i in range(rings[ring], rings[ring + 1]):
                x1, y1, x2, y2 = _edge(coordinates, rings[ring], rings[ring + 1], i)
                if y1 == y2 and x1 > x2 and y1 - 0.5 == np.floor(y1) and row0 <= y1 < row0 + height:
                    # An edge on a centre line counts along the bottom, and not along the top.
                    start, stop = np.floor(x2 + 0.5), np.floor(x1 + 0.5)
                    met = _write(out, int(y1 - 0.5) - row0, start, stop, col0, owners[polygon], codes, ranks)
                    if met >= 0:
                        return met
                above, below = _rows(min(y1, y2), max(y1, y2), row0, height)
                for row in range(above, below):
                    ends[row + 1] += 1
        for row in range(top, bottom):
            ends[row + 1] += ends[row]
        crossings = np.empty(ends[bottom], np.float64)
        for ring in range(polygons[polygon], polygons[polygon + 1]):
            for i in range(rings[ring], rings[ring + 1]):
                x1, y1, x2, y2 = _edge(coordinates, rings[ring], rings[ring + 1], i)
                if y1 > y2:
                    x1, y1, x2, y2 = x2, y2, x1, y1
                above, below = _rows(y1, y2, row0, height)
                for row in range(above, below):
                    centre = row0 + row + 0.5
                    crossings[ends[row]] = np.floor((centre - y1) * (x2 - x1) / (y2 - y1) + x1 + 0.5)
                    ends[row] += 1  # from where they begin to where they end
        for row in range(top, bottom):
            here = crossings[ends[row - 1] if row > top else 0 : ends[row]]
            _sort(here)
            for i in range(0, len(here) - 1, 2):
                met = _write(out, row, here[i], here[i + 1], col0, owners[polygon], codes, ranks)
                if met >= 0:
                    return met
    return -1
