"""One place on several dates: pairs of seasons, sequences."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from geopipes.chips.footprints import distinct, end, times
from geopipes.chips.groups import Groups, Sequences
from geopipes.chips.matched import Matched
from geopipes.chips.partners import partners
from geopipes.chips.windows import Indices, Windows
from geopipes.errors import ChipError, StepError

Kind = Literal["sliding", "random", "period"]
Every = Literal["day", "week", "month", "quarter", "year"]

UNITS = {"day": "D", "week": "D", "month": "M", "quarter": "M", "year": "Y"}
"""Periods, and the units of numpy that they are counted in."""


def pairs(
    windows: Windows, *, seed: int, months: float | None = None, gap: tuple[float, float] | None = None
) -> Groups:
    """Make pairs of one place on two dates, as in another season.

    Parameters
    ----------
    windows : (N,) a plan, of chips of some dates (``chip(..., time=1)``), whose first counts; of chips of all dates
        each is taken apart, but those that `match_dates` made stay as they are
    seed : of numpy's PCG64
    months : least distance of the two dates in the calendar, whatever their years [months, 0 to 6]: with 3, 15 January
        may be paired with 15 April to 15 October
    gap : least and most time between the two [days]; both rules may be given, and hold then both

    Returns
    -------
    groups of ``anchor`` and ``other``, in random order. Every window that has a partner is an anchor once, and its
    partner is any of those that the rules allow, all as likely; `Windows.left_out` counts the windows without

    Raises
    ------
    ChipError
        if no rule is given, or one that nothing can meet, and where no window has a partner
    """
    call = f"pairs(months={months}, gap={gap})"
    if months is None and gap is None:
        raise ChipError("pairs(): give months= or gap=, so that the two dates differ as you want")
    if (months is not None and not 0 < months <= 6) or (gap is not None and not 0 <= gap[0] <= gap[1]):
        raise ChipError(f"{call}: months are more than 0 and at most 6; gap is (least, most) days")
    windows = _taken_apart(windows, call)
    rng = np.random.default_rng(seed)
    _, place = distinct(windows, dated=False)
    line = np.argsort(place, kind="stable")
    held = np.bincount(place)
    begin = (np.cumsum(held) - held)[place]
    stamps = _stamps(windows, call)
    days = (stamps - stamps.min()) / np.timedelta64(1, "D")
    season = _season(stamps)

    def fits(i: Indices, number: Indices) -> npt.NDArray[np.bool_]:
        other = line[number]
        fit: npt.NDArray[np.bool_] = other != i
        if gap is not None:
            between = np.abs(days[i] - days[other])
            fit &= (between >= gap[0]) & (between <= gap[1])
        if months is not None:
            away = np.abs(season[i] - season[other])
            fit &= np.minimum(away, 12 - away) >= months
        return fit

    found = partners(begin[:, None], (begin + held[place])[:, None], fits, rng)
    anchors = rng.permutation(np.flatnonzero(found >= 0))
    if len(anchors) == 0:
        raise ChipError(
            f"{call}: none of {len(windows)} windows has a partner: the plan has {len(held)} places, each with at most "
            f"{held.max(initial=0)} dates of {_span(stamps)}; use wider rules, or more dates"
        )
    members = {"anchor": windows.take(anchors), "other": windows.take(line[found[anchors]])}
    return Groups.together(members, left_out=len(windows) - len(anchors))


def sequences(
    windows: Windows,
    length: int,
    *,
    kind: Kind = "sliding",
    stride: int = 1,
    every: Every | None = None,
    seed: int | None = None,
) -> Sequences:
    """Make sequences of dates of each place: chips of several dates, which need not follow each other.

    Parameters
    ----------
    windows : (N,) a plan of chips of one date each (``chip(..., time=1)``): a place's dates are those that the plan
        has of it, so dates may be chosen before. Chips of all dates stand for each of these
    length : dates in a sequence
    kind : ``"sliding"``, dates that follow each other in the plan; ``"random"``, a place's dates dealt at random to
        sequences, each date at most once; ``"period"``, a random date of each period of the calendar, over so many
        periods in a row
    stride : sliding: dates, period: periods, from one sequence of a place to the next
    every : the period
    seed : of numpy's PCG64; for the kinds that are random

    Returns
    -------
    sequences, place by place (`geopipes.orders.shuffle` mixes them), dates in order, with ids of their own and the
    columns of the first date; `Windows.left_out` counts the windows that are in none

    Raises
    ------
    ChipError
        for options that make no sequence, and where no place has dates for one
    StepError
        if a step was recorded that would see other dates than before
    """
    call = f"sequences({length}, kind={kind!r})"
    if kind not in ("sliding", "random", "period") or length < 1 or stride < 1:
        raise ChipError(f"{call}, stride={stride}: 'sliding', 'random' or 'period'; length and stride at least 1")
    if (seed is None and kind != "sliding") or (every not in UNITS) is (kind == "period"):
        raise ChipError(f"{call}: 'random' needs seed=, 'period' seed= and every= (one of {', '.join(UNITS)})")
    if windows.dates not in (None, 1) or type(windows) is not Windows:
        raise ChipError(
            f"{call}: the plan is of {type(windows).__name__} of {windows.dates} dates; cut chip(..., time=1)"
        )
    for step in windows.steps:
        if not step.local_in_time:
            raise StepError(f"{call}: {step} would see all dates of a sequence and saw one; write it after sequences()")
    windows = _taken_apart(windows, call)
    _, place = distinct(windows, dated=False)
    stamps = _stamps(windows, call)
    rng = np.random.default_rng(seed)
    if kind == "random":
        line = np.lexsort((rng.random(len(windows)), place))
        rank = _rank(place[line])
        begins = rank % length == 0
    elif kind == "period":
        period = _period(stamps, every or "day")
        line = np.lexsort((rng.random(len(windows)), period, place))
        new = np.diff(place[line], prepend=-1).astype(bool) | np.diff(period[line], prepend=period.min() - 1).astype(
            bool
        )
        line = line[new]  # one of each period
        rank = period[line] - period[line][np.arange(len(line)) - _rank(place[line])]
        begins = rank % stride == 0
    else:
        line = np.lexsort((stamps, place))
        rank = _rank(place[line])
        begins = rank % stride == 0
    ends = np.arange(length - 1, len(line))
    begin = ends - (length - 1)
    whole = begins[begin] & (place[line][begin] == place[line][ends]) & (rank[ends] - rank[begin] == length - 1)
    members = line[begin[whole][:, None] + np.arange(length)]
    if len(members) == 0:
        raise ChipError(
            f"{call}: none of {place.max(initial=-1) + 1} places has the dates for it: at most "
            f"{np.bincount(place).max(initial=0)}, of {_span(stamps)}; use a smaller length, or more dates"
        )
    return _as_sequences(windows, members, stamps)


def _as_sequences(windows: Windows, members: Indices, stamps: npt.NDArray[np.datetime64]) -> Sequences:
    """Make sequences of windows of one date: (n, length)."""
    members = np.take_along_axis(members, np.argsort(stamps[members], axis=1, kind="stable"), axis=1)
    firsts = windows.take(members[:, 0])
    own = {part.name: getattr(firsts.numbered(), part.name) for part in fields(Windows)}
    own |= {"dates": members.shape[1], "left_out": len(windows) - len(np.unique(members))}
    return Sequences(**own).with_dates(windows.time[members])


def _taken_apart(windows: Windows, call: str) -> Windows:
    """Give a window for each date of chips of all dates."""
    if windows.dates is not None or isinstance(windows, Matched):
        return windows
    for step in windows.steps:
        if not step.local_in_time:
            raise StepError(f"{call}: {step} saw all dates of a chip and would see some; write it after {call}")
    dates = np.array([len(times(cube)) for cube in windows.cubes])[windows.cube]
    every = windows.take(np.repeat(np.arange(len(windows)), dates))
    time = np.arange(len(every)) - np.repeat(np.cumsum(dates) - dates, dates)
    return replace(every.placed(time=time).numbered(), dates=1)


def _stamps(windows: Windows, call: str) -> npt.NDArray[np.datetime64]:
    """Give the first date of each window."""
    found = end(windows, 0)
    if len(found) == 0 or np.isnat(found).any():
        raise ChipError(
            f"{call}: {int(np.isnat(found).sum())} of {len(windows)} windows have no date; dates are needed: leave "
            "those out, .query('start == start')"
        )
    return found


def _season(stamps: npt.NDArray[np.datetime64]) -> npt.NDArray[np.float64]:
    """Give where in the year dates lie [months]: 15 February is 1.5."""
    month = stamps.astype("M8[M]")
    length = (month + 1).astype("M8[D]") - month.astype("M8[D]")
    of_year: npt.NDArray[np.float64] = month.astype(np.int64) % 12 + (stamps - month) / length
    return of_year


def _period(stamps: npt.NDArray[np.datetime64], every: Every) -> Indices:
    """Give the period of the calendar that each date lies in, by number; weeks begin on Monday."""
    number: Indices = stamps.astype(f"M8[{UNITS[every]}]").astype(np.int64)
    return {"quarter": number // 3, "week": (number + 3) // 7}.get(every, number)  # 1 January 1970 was a Thursday


def _rank(sorted_places: Indices) -> Indices:
    """Give the place of each of some numbers that are sorted among its equals."""
    first = np.diff(sorted_places, prepend=-1) != 0
    return np.arange(len(first)) - np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))


def _span(stamps: npt.NDArray[np.datetime64]) -> str:
    """Write the first and the last date."""
    return f"{stamps.min().astype('M8[D]')} to {stamps.max().astype('M8[D]')}"
