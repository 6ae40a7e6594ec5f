"""Periods: stretches of time that are the same for every chip, since they begin where a stated range does."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from geopipes.errors import StepError

Dates = npt.NDArray[np.datetime64]
Span = tuple[Any, Any]
Named = Mapping[str, Span]

WORDS = {"day": "D", "week": "W", "month": "MS", "quarter": "QS", "season": "QS-DEC", "year": "YS"}
"""Periods of the calendar by name, as pandas writes them; weeks begin on Monday, seasons in December, March, ..."""

NANOSECOND = np.timedelta64(1, "ns")

MOST = 10_000
"""Periods of a composite: far more than any series needs."""


@dataclass(frozen=True)
class Periods:
    """Periods in order, none over another.

    Attributes
    ----------
    begins, ends : (n,) datetime64[ns]; a date belongs to a period where begin <= date < end
    names : of windows that have some
    """

    begins: Dates
    ends: Dates
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.begins)

    @classmethod
    def of(cls, dataset: xr.Dataset, period: str | pd.DateOffset | Named, span: Span | None, call: str) -> Periods:
        """Give the periods of a Dataset of a series.

        Raises
        ------
        StepError
            for a period that pandas does not know, that is longer than the range, and for windows that overlap or lie
            outside it
        """
        begin, end = spanned(dataset, span, call)
        if isinstance(period, Mapping):
            return _named(period, begin, end, call)
        if isinstance(period, str) and period == "all":
            return cls(np.array([begin], "M8[ns]"), np.array([end + NANOSECOND], "M8[ns]"))
        edges = _edges(_offset(period, call), pd.Timestamp(begin), pd.Timestamp(end), call)
        return cls(edges[:-1], edges[1:])

    def members(self, dates: Dates) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Give the places of the dates of each period, period by period and in order of time; and their bounds.

        Returns
        -------
        (dates in any period,) places, and (n + 1,) where those of each period begin
        """
        order = np.argsort(dates, kind="stable")
        line = dates[order]
        low, high = np.searchsorted(line, self.begins), np.searchsorted(line, self.ends)
        places = [order[a:b] for a, b in zip(low, high, strict=True)]
        return np.concatenate([np.empty(0, np.int64), *places]), np.cumsum([0, *(len(part) for part in places)])


def dates_of(dataset: Any, call: str) -> Dates:
    """Give the dates of a Dataset.

    Raises
    ------
    StepError
        if there are none, or some rasters state none
    """
    if not isinstance(dataset, xr.Dataset):
        raise StepError(
            f"{call} takes an xr.Dataset, this is {type(dataset).__name__}: with several inputs let it stand on each "
            "before gp.inputs(...), or use .map(fn) on the dict"
        )
    if "time" not in dataset.dims or "time" not in dataset.coords or "valid" not in dataset:
        raise StepError(
            f"{call} needs dates and the boolean 'valid' that stack() gives; there is {dict(dataset.sizes)}"
        )
    dates: Dates = dataset["time"].values.astype("datetime64[ns]")
    if np.isnat(dates).any():
        raise StepError(f"{call}: {int(np.isnat(dates).sum())} time steps have no date; leave their items out before")
    return dates


def spanned(dataset: xr.Dataset, span: Span | None, call: str) -> tuple[np.datetime64, np.datetime64]:
    """Give the range that periods are anchored to: as said, else as the cube states, else the first to the last date.

    Raises
    ------
    StepError
        for what is no range of dates
    """
    dates = dates_of(dataset, call)
    stated = dataset["time"].attrs.get("range")
    if span is None and stated is None:
        return dates.min(), dates.max()
    if span is not None:
        return between(span, f"{call}: span={span}")
    first, _, last = str(stated).partition("/")
    return between((first, last), f"{call}: the range {stated!r} of the Dataset's time")


def between(given: Span, what: str) -> tuple[np.datetime64, np.datetime64]:
    """Read a range; a month or a year as its end is meant to its last nanosecond.

    Raises
    ------
    StepError
        for what is no range of dates
    """
    try:
        first, last = given
        begin, end = _stamp(first, end=False), _stamp(last, end=True)
    except (ValueError, TypeError) as error:
        raise StepError(f"{what}: give the first and the last date, ('2024-04', '2024-10-15')") from error
    if not begin <= end:
        raise StepError(f"{what}: it ends before it begins; give the first and the last date, ('2024-04', '2024-10')")
    return begin.to_datetime64(), end.to_datetime64()


def _stamp(given: Any, *, end: bool) -> pd.Timestamp:
    """Read a date, in UTC: of ``"2024-05"`` the first moment or the last."""
    text = isinstance(given, str) and len(given) <= len("2024-05-01")
    stamp = (pd.Period(given).end_time if end else pd.Period(given).start_time) if text else pd.Timestamp(given)
    if pd.isna(stamp):
        raise ValueError("no date")
    return (stamp.tz_convert(None) if stamp.tz is not None else stamp).as_unit("ns")


def _offset(period: Any, call: str) -> pd.offsets.BaseOffset:
    """Read a period."""
    text = WORDS.get(period, period) if isinstance(period, str) else period
    if isinstance(period, str) and period not in WORDS and (word := period.lower().rstrip("s")) in WORDS:
        raise StepError(f"{call}: the period {period!r} is not known; did you mean {word!r}?")
    try:
        offset = pd.tseries.frequencies.to_offset(text)
    except (ValueError, TypeError) as error:
        raise StepError(
            f"{call}: the period {period!r} is not known: use one of {', '.join(WORDS)}, 'all', an offset of pandas "
            "('14D', '2MS'), or named windows, {'spring': ('2024-03', '2024-05')}"
        ) from error
    if offset is None or offset.n < 1:
        raise StepError(f"{call}: the period {period!r} has no length; use '14D' or 'month'")
    return offset


@lru_cache(maxsize=64)  # all chips have the same
def _edges(offset: pd.offsets.BaseOffset, begin: pd.Timestamp, end: pd.Timestamp, call: str) -> Dates:
    """Give where periods begin that hold a range, and where the last one ends."""
    # What pandas names by its last day, "ME" and "W", begins a day later.
    ahead = type(offset).__name__.endswith("End") or isinstance(offset, pd.offsets.Week)
    shift = pd.Timedelta(int(ahead), "D")
    edges = [offset.rollback(begin.floor("D") - shift)]
    while edges[-1] + shift <= end:
        edges.append(edges[-1] + offset)
        if len(edges) > MOST:
            raise StepError(f"{call}: more than {MOST:,} periods from {begin:%F} to {end:%F}; use longer ones")
    length = edges[1] - edges[0]
    # A range of whole days: the search's last second is not a day's.
    if len(edges) == 2 and length > end.floor("D") + pd.Timedelta(1, "D") - begin.floor("D"):
        raise StepError(
            f"{call}: the period lasts {length.days} days, longer than the range, {begin:%F} to {end:%F}: use a "
            "shorter one, period='all' for one composite of all dates, or a longer span="
        )
    found = np.array([(edge + shift).to_datetime64() for edge in edges], "M8[ns]")
    found.flags.writeable = False
    return found


def _named(windows: Named, begin: np.datetime64, end: np.datetime64, call: str) -> Periods:
    """Give windows that have names."""
    if not windows:
        raise StepError(f"{call}: there are no windows; name some, {{'spring': ('2024-03', '2024-05')}}")
    found = sorted((*between(window, f"{call}: the window {name!r}"), str(name)) for name, window in windows.items())
    for first, last, name in found:
        if last < begin or first > end:
            raise StepError(
                f"{call}: the window {name!r} lies outside the range, {_day(begin)} to {_day(end)}: leave it out, or "
                "give a longer range, span=(first, last)"
            )
    for (_, last, name), (first, _, following) in itertools.pairwise(found):
        if first <= last:
            raise StepError(f"{call}: the windows {name!r} and {following!r} overlap; let one end before the other")
    begins = np.array([first for first, *_ in found], "M8[ns]")
    ends = np.array([last + NANOSECOND for _, last, _ in found], "M8[ns]")
    return Periods(begins, ends, tuple(name for *_, name in found))


def _day(date: np.datetime64) -> str:
    return str(date.astype("M8[D]"))
