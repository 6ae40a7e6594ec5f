"""What is computed along time, for each pixel alone: compiled, without the GIL.

Of all kernels: ``values`` (time, band, y, x), ``valid`` (time, y, x); NaN is never measured. ``members`` are the
places in time of the dates of all periods, ``begins`` (period + 1) where those of each begin. ``out`` (period, band,
y, x) is written to. Along a row the innermost loops run over memory, so that they are done several pixels at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geopipes.read.warps.compiling import compiled

Array = npt.NDArray[Any]
Places = npt.NDArray[np.int64]


@compiled
def quantiles(values: Array, valid: Array, members: Places, begins: Places, q: float, out: Array) -> None:
    """Write a quantile, linear between two values; of q = 0.5 the median, the mean of the middle two.

    The dates of a row are sorted by a network of exchanges (Batcher's odd-even mergesort), what is not measured last.
    """
    bands, height, width = values.shape[1:]
    rows = np.empty((np.diff(begins).max(), width), out.dtype)
    low, high, share = np.empty(width, out.dtype), np.empty(width, out.dtype), np.empty(width, out.dtype)
    count, at = np.empty(width, np.int32), np.empty(width, np.int32)
    for period in range(len(begins) - 1):
        begin, dates = begins[period], begins[period + 1] - begins[period]
        for band in range(bands):
            for y in range(height):
                count[:] = 0
                for date in range(dates):
                    place = members[begin + date]
                    for x in range(width):
                        value = values[place, band, y, x]
                        known = valid[place, y, x] & (value == value)
                        rows[date, x] = value if known else np.inf
                        count[x] += known
                _sort(rows, dates)
                for x in range(width):
                    place = q * max(count[x] - 1, 0)
                    at[x] = np.int32(place)
                    share[x] = place - at[x]
                low[:] = np.nan
                high[:] = np.nan
                for date in range(dates):
                    for x in range(width):
                        value, there = rows[date, x], date < count[x]
                        low[x] = value if there & (at[x] == date) else low[x]
                        high[x] = value if there & (at[x] + 1 == date) else high[x]
                for x in range(width):
                    a, b, s = low[x], high[x], share[x]
                    between = (a + b) / 2 if q == 0.5 else a + (b - a) * s
                    out[period, band, y, x] = a if s == 0 else between


@compiled
def _sort(rows: Array, n: int) -> None:
    """Sort the first ``n`` of (date, x) at each x."""
    width = rows.shape[1]
    size = 1
    while size < n:
        step = size
        while step >= 1:
            for start in range(step % size, n - step, 2 * step):
                for i in range(start, min(start + step, n - step)):
                    if i // (2 * size) == (i + step) // (2 * size):
                        for x in range(width):
                            a, b = rows[i, x], rows[i + step, x]
                            rows[i, x] = a if a < b else b
                            rows[i + step, x] = b if a < b else a
            step //= 2
        size *= 2


@compiled
def means(values: Array, valid: Array, members: Places, begins: Places, out: Array) -> None:
    """Write the mean, added up in float64."""
    bands, height, width = values.shape[1:]
    total, count = np.empty(width, np.float64), np.empty(width, np.int64)
    for period in range(len(begins) - 1):
        for band in range(bands):
            for y in range(height):
                total[:] = 0
                count[:] = 0
                for place in members[begins[period] : begins[period + 1]]:
                    for x in range(width):
                        value = values[place, band, y, x]
                        known = valid[place, y, x] & (value == value)
                        total[x] += value if known else 0
                        count[x] += known
                for x in range(width):
                    out[period, band, y, x] = total[x] / count[x] if count[x] else np.nan


@compiled
def extremes(
    values: Array, valid: Array, members: Places, begins: Places, greatest: bool, fill: Any, out: Array
) -> None:
    """Write the greatest or the least; ``fill`` where nothing was measured."""
    bands, height, width = values.shape[1:]
    seen = np.empty(width, np.bool_)
    for period in range(len(begins) - 1):
        for band in range(bands):
            for y in range(height):
                seen[:] = False
                for place in members[begins[period] : begins[period + 1]]:
                    for x in range(width):
                        value, held = values[place, band, y, x], out[period, band, y, x]
                        known = valid[place, y, x] & (value == value)
                        better = value > held if greatest else value < held
                        out[period, band, y, x] = value if known & (better | ~seen[x]) else held
                        seen[x] |= known
                for x in range(width):
                    if not seen[x]:
                        out[period, band, y, x] = fill


@compiled
def modes(values: Array, valid: Array, members: Places, begins: Places, fill: Any, out: Array) -> None:
    """Write the value that is there most often, of several the least; ``fill`` where nothing was measured."""
    bands, height, width = values.shape[1:]
    line = np.empty(np.diff(begins).max(), values.dtype)
    for period in range(len(begins) - 1):
        for band in range(bands):
            for y in range(height):
                for x in range(width):
                    n = 0
                    for place in members[begins[period] : begins[period + 1]]:
                        value = values[place, band, y, x]
                        if valid[place, y, x] & (value == value):
                            k = n
                            while k > 0 and line[k - 1] > value:
                                line[k] = line[k - 1]
                                k -= 1
                            line[k] = value
                            n += 1
                    best, most, run = fill, 0, 0
                    for k in range(n):
                        run = run + 1 if k > 0 and line[k] == line[k - 1] else 1
                        if run > most:
                            best, most = line[k], run
                    out[period, band, y, x] = best


@compiled
def choices(scores: Array, valid: Array, members: Places, begins: Places, greatest: bool, out: Array) -> None:
    """Write the place in time of the best date, of equals the first of the members; -1 where none was measured.

    ``scores`` (time, y, x), ``out`` (period, y, x)
    """
    height, width = valid.shape[1:]
    best = np.empty(width, scores.dtype)
    for period in range(len(begins) - 1):
        for y in range(height):
            out[period, y] = -1
            for place in members[begins[period] : begins[period + 1]]:
                for x in range(width):
                    score = scores[place, y, x]
                    better = score > best[x] if greatest else score < best[x]
                    if valid[place, y, x] & (score == score) & (better | (out[period, y, x] < 0)):
                        best[x] = score
                        out[period, y, x] = place


@compiled
def taken(values: Array, chosen: Array, members: Places, begins: Places, fill: Any, out: Array) -> None:
    """Write the values at the dates chosen, (period, y, x); ``fill`` where none was."""
    bands, height, width = values.shape[1:]
    for period in range(len(begins) - 1):
        for band in range(bands):
            for y in range(height):
                out[period, band, y] = fill
                for place in members[begins[period] : begins[period + 1]]:
                    for x in range(width):
                        value, held = values[place, band, y, x], out[period, band, y, x]
                        out[period, band, y, x] = value if chosen[period, y, x] == place else held


NEAREST, FORWARD, LINEAR = 0, 1, 2
"""How values come to dates between those measured."""

FAR = 1 << 60
"""Stands for the time to a date that is not there; longer than any gap that is bridged, in microseconds."""


@compiled
def bridged(
    values: Array, valid: Array, times: Places, wanted: Places, how: int, longest: int, fill: Any, out: Array,
    known: Array,
) -> None:  # fmt: skip
    """Write values at other dates, of those measured before and after each.

    ``times`` and ``wanted`` rise, from 0; ``longest`` is the longest gap bridged, in their unit; ``known`` (wanted,
    band, y, x) gets whether there is a value
    """
    dates, bands, height, width = values.shape
    before, after = np.empty((dates + 1, width), values.dtype), np.empty((dates + 1, width), values.dtype)
    since, until = np.empty((dates + 1, width), np.int64), np.empty((dates + 1, width), np.int64)
    place = np.searchsorted(times, wanted, side="right")
    for band in range(bands):
        for y in range(height):
            before[0], after[dates], since[0], until[dates] = fill, fill, -FAR, FAR
            for date in range(dates):
                for x in range(width):
                    value = values[date, band, y, x]
                    there = valid[date, y, x] & (value == value)
                    before[date + 1, x] = value if there else before[date, x]
                    since[date + 1, x] = times[date] if there else since[date, x]
            for date in range(dates - 1, -1, -1):
                for x in range(width):
                    value = values[date, band, y, x]
                    there = valid[date, y, x] & (value == value)
                    after[date, x] = value if there else after[date + 1, x]
                    until[date, x] = times[date] if there else until[date + 1, x]
            for w in range(len(wanted)):
                when, at = wanted[w], place[w]
                for x in range(width):
                    back, ahead = when - since[at, x], until[at, x] - when
                    low, high = before[at, x], after[at, x]
                    if how == LINEAR:
                        there = (back == 0) | (back + ahead <= longest)
                        between = low + (high - np.float64(low)) * (back / (back + ahead))
                        out[w, band, y, x] = low if back == 0 else between if there else fill
                    elif how == NEAREST:
                        there = min(back, ahead) <= longest
                        nearest = low if back <= ahead else high
                        out[w, band, y, x] = nearest if there else fill
                    else:
                        there = back <= longest
                        out[w, band, y, x] = low if there else fill
                    known[w, band, y, x] = there
