"""A profile as lines, and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, log10, nan
from typing import NamedTuple

from geopipes.meters import BY_GDAL, CHIPS, DECODING, FROM_AFAR, LOOP, PROCESSES, WAITING, Counts, Row, Stage

MEGABYTE = 1e6

WIDEST = 48
"""Characters of a step that are shown; a longer one is cut."""

DIGITS = 3
"""Significant digits of the largest number of a column."""


class Line(NamedTuple):
    """A line of the table; NaN where nobody knows, or nothing is to be said.

    Attributes
    ----------
    name, calls : of the step
    seconds, on_cpu, waiting : of the step itself, the share of them in which it computed, and seconds it waited
    queue : elements ready, on average
    refused : by a filter
    read, decoded : megabytes
    cached : share of the tiles needed
    """

    name: str
    calls: float
    seconds: float
    on_cpu: float
    waiting: float = nan
    queue: float = nan
    refused: float = nan
    read: float = nan
    decoded: float = nan
    cached: float = nan


HEADS = ("calls", "self s", "on cpu", "waiting s", "queue", "refused", "read MB", "decoded MB", "cached")
"""What stands above the numbers of a line."""

SHARES = ("on cpu", "cached")

COUNTS = ("calls", "refused")


def lines(counts: Mapping[Row, Counts]) -> list[Line]:
    """Give a line for each step, in the order of the data; for the parts of reading too."""
    found: list[Line] = []
    stream = (row for row in counts if row.stage == Stage.STREAM and row not in (CHIPS, PROCESSES))
    first, waited = next(stream, None), sum((counts[row] for row in (CHIPS, PROCESSES) if row in counts), Counts())
    for row, its in counts.items():
        if row.stage == Stage.READ:
            found += _reading(row, counts)
        elif row.stage != Stage.PART and row not in (CHIPS, PROCESSES):
            line = _line(row.name, its)
            if row == LOOP:
                line = line._replace(waiting=its.waiting, queue=_share(its.ready, its.asked))
            elif row == first and waited.calls:
                line = line._replace(waiting=waited.seconds)
            found.append(line)
    return found


def _reading(row: Row, counts: Mapping[Row, Counts]) -> list[Line]:
    """Give the line of reading, and one for each of its parts, which add up to it."""
    own, chips = counts[row], counts.get(CHIPS, Counts())
    parts = {row: its for row, its in counts.items() if row.stage == Stage.PART and row != WAITING}
    whole = sum(parts.values(), own)
    told = DECODING in parts and not {BY_GDAL, FROM_AFAR} & parts.keys()
    line = _line(row.name, whole)._replace(
        calls=own.calls,
        waiting=counts.get(WAITING, Counts()).seconds,
        queue=_share(chips.ready, chips.asked),
        read=whole.fetched / MEGABYTE if told else nan,
        decoded=whole.decoded / MEGABYTE if DECODING in parts else nan,
        cached=_share(whole.hits, whole.tiles),
    )
    shown = [_line(f"  {part.name}", its) for part, its in parts.items() if its.calls]
    return [line, *shown, _line("  all else", own)._replace(calls=nan)] if shown else [line]


def _line(name: str, its: Counts) -> Line:
    return Line(name, its.calls, its.seconds, _share(its.cpu, its.seconds), refused=its.refused or nan)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else nan


def drawn(counts: Mapping[Row, Counts]) -> str:
    """Draw the table: what there was in all, then a line for each step."""
    found = lines(counts)
    if not found:
        return "profile: nothing has run yet"
    numbers = [line[1:] for line in found]
    columns = [_column(head, column) for head, column in zip(HEADS, zip(*numbers, strict=True), strict=True)]
    columns = [column for column in columns if any(column[1:])]
    names = ["step", *(_cut(line.name) for line in found)]
    columns.insert(0, [f"{name:<{max(map(len, names))}}" for name in names])
    return "\n".join([_summary(counts), "", *("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))])


def _summary(counts: Mapping[Row, Counts]) -> str:
    """Say in one line how much there was, and how fast."""
    loop, chips = counts.get(LOOP, Counts()), counts.get(CHIPS, Counts())
    wall = loop.seconds + loop.waiting or chips.wall
    read = next((_reading(row, counts)[0] for row in counts if row.stage == Stage.READ), None)
    number, what = (read.calls, "chips") if read is not None and chips.capacity else (loop.calls, "elements")
    words = [f"{number:,.0f} {what} in {_brief(wall)} s, {_brief(number / wall)} a second"]
    if read is not None:
        rates = {"read": read.read / wall, "decoded": read.decoded / wall}
        words += [f"{name} {_brief(rate)} MB/s" for name, rate in rates.items() if rate > 0]
    if chips.capacity:
        busy = sum(its.seconds for row, its in counts.items() if row.stage < Stage.STREAM and row != WAITING)
        words.append(f"reading threads busy {min(busy / chips.capacity, 1):.0%}")
    return "; ".join(words)


def _column(head: str, numbers: Sequence[float]) -> list[str]:
    """Write a column, its numbers one below the other; nothing for NaN."""
    known = [number for number in numbers if not isnan(number)]
    largest = max(known, default=0.0)
    decimals = 0 if head in COUNTS else _decimals(largest)
    form = "{:.0%}" if head in SHARES else f"{{:,.{decimals}f}}"
    cells = [head, *("" if isnan(number) else form.format(number) for number in numbers)]
    width = max(map(len, cells))
    return [f"{cell:>{width}}" for cell in cells] if known else [""] * len(cells)


def _brief(number: float) -> str:
    return f"{number:,.{_decimals(number)}f}"


def _decimals(number: float) -> int:
    return max(0, DIGITS - 1 - int(log10(max(number, 1.0))))


def _cut(name: str) -> str:
    return name if len(name) <= WIDEST else f"{name[: WIDEST - 3]}..."
