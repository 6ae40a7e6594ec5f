"""Inputs matched in time: of each the date that is nearest to an event, or to a date of another input."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from geopipes.chips.cutting import Coverage
from geopipes.chips.footprints import times
from geopipes.chips.matched import Matched, inputs_of
from geopipes.chips.rows import chunks
from geopipes.chips.windows import Indices, Windows, boxes_of, check_some
from geopipes.datacubes.together import InputsCube
from geopipes.errors import ChipError, StepError

Side = Literal["nearest", "before", "after"]
Stamps = npt.NDArray[np.datetime64]


def match_dates(
    windows: Windows,
    within: Mapping[str, Any],
    *,
    to: str,
    side: Side | Mapping[str, Side] = "nearest",
    optional: str | Collection[str] = (),
    coverage: Coverage = "full",
) -> Matched:
    """Choose one date of each input for each chip: that nearest to an event, or to a date of one of the inputs.

    Parameters
    ----------
    windows : (n,) a plan of several inputs (``gp.inputs``), of chips of all dates
    within : the inputs that are matched, each with the longest time to what it is matched to,
        ``{"s1": "3D", "s2": "5D"}``; inputs that are not named keep all that they have
    to : a column of the plan with dates (UTC); or the name of an input: then a chip becomes one for each of its dates
    side : ``"nearest"``, of two the earlier; ``"before"`` alone, and never at the same time; or ``"after"``, or at the
        same time. One for all inputs, or by input
    optional : inputs that may be missing: they have one date without a time, on which nothing is valid. Chips without
        one of the others are left out
    coverage : ``"full"``: of an input the dates count on which its rasters cover the whole chip; ``"any"``: those on
        which they touch it

    Returns
    -------
    the chips, in their order, whose inputs have one date each; with the dates as columns, ``s1_time``, NaT for none.
    Its table, ``split_by_time`` and ``audit`` go by the dates that a chip holds, from the first to the last over all
    inputs: one that is missing has none, one that is not named has all its own. The event itself does not count.
    Where all dates of the column are days, without a time of day, days are counted, whatever the hour.
    `Windows.left_out` counts the chips that are

    Raises
    ------
    ChipError
        for inputs and columns that are not there, inputs without dates, and where no chip is left
    StepError
        if a step was recorded that would see other dates than before
    """
    call = f"match_dates({', '.join(within)}, to={to!r})"
    check_some(windows, call)
    several = _checked(windows, call)
    rules = _rules(several, within, side, {optional} if isinstance(optional, str) else {*optional}, call)
    found: dict[str, Indices] = {}
    days = False
    if to in windows.columns:
        stamps = _dates(windows.columns[to], call)
        days = bool((stamps == stamps.astype("M8[D]")).all())
    else:
        windows, found[to] = _each_date(windows, several, _input(several, to, call), coverage)
        stamps = _stamps_at(windows, several, to, found[to])
    for name, rule in rules.items():
        if name not in found:
            found[name] = _matched(windows, several, name, rule, (stamps, days), coverage)
    lacking = {name: found[name] < 0 for name, rule in rules.items() if not rule.optional}
    kept = ~np.logical_or.reduce([*lacking.values(), np.zeros(len(windows), bool)])
    if not kept.any():
        raise ChipError(
            f"{call}: none of {len(windows)} chips has all inputs; missing are "
            f"{', '.join(f'{name} of {lack.sum()}' for name, lack in lacking.items())}: allow more time in within=, "
            "coverage='any', or say which inputs are optional="
        )
    columns = {f"{name}_time": _stamps_at(windows, several, name, places) for name, places in found.items()}
    return _as_matched(windows.with_columns(columns), found, kept)


@dataclass(frozen=True)
class Rule:
    """Which date of an input a chip has.

    Attributes
    ----------
    within : the longest time to what it is matched to
    side : on which it lies
    optional : whether it may be missing
    """

    within: np.timedelta64
    side: Side
    optional: bool


def _checked(windows: Windows, call: str) -> list[InputsCube]:
    """Give the inputs of each cube; they must be there, with all dates, and no step may have looked at these."""
    if type(windows) is not Windows or windows.dates is not None:
        raise ChipError(f"{call}: the plan is of {type(windows).__name__} of {windows.dates or 'chosen'} dates; needed "
                        "are chips of all dates, gp.inputs(...).chip(...) without time=")  # fmt: skip
    found = []
    for cube in windows.cubes:
        several, steps = inputs_of(cube)
        if several is None:
            raise ChipError(f"{call}: the plan is of one input; put several side by side, gp.inputs(s1=..., s2=...)")
        for step in (*steps, *windows.steps):
            if not step.local_in_time:
                raise StepError(f"{call}: {step} saw all dates and would see one; write it after match_dates(...)")
        found.append(several)
    return found


def _rules(
    several: list[InputsCube], within: Mapping[str, Any], side: Side | Mapping[str, Side], optional: set[str], call: str
) -> dict[str, Rule]:
    """Read what is said of each input."""
    sides: Mapping[str, Any] = side if isinstance(side, Mapping) else dict.fromkeys(within, side)
    if wrong := [one for one in sides.values() if one not in get_args(Side)]:
        raise ChipError(f"{call}: side={wrong[0]!r}: use one of {', '.join(get_args(Side))}")
    for word, names in (("side", sides), ("optional", optional)):
        if unknown := sorted({*names} - within.keys()):
            raise ChipError(f"{call}: {word}= names {unknown[0]!r}, which within= does not; there are {[*within]}")
    rules = {}
    for name, given in within.items():
        _input(several, name, call)
        try:
            longest = pd.Timedelta(given)
        except ValueError as error:
            raise ChipError(f"{call}: within {given!r} of {name!r}: give a length of time, '3D'") from error
        if pd.isna(longest) or longest < pd.Timedelta(0):
            raise ChipError(f"{call}: within {given!r} of {name!r}: give a length of time, '3D'")
        rules[name] = Rule(longest.to_timedelta64(), sides.get(name, "nearest"), name in optional)
    return rules


def _input(several: list[InputsCube], name: str, call: str) -> str:
    """Give the name of an input that has dates.

    Raises
    ------
    ChipError
        if there is none
    """
    for inputs in several:
        dated = [one for one, cube in inputs.cubes.items() if not np.isnat(times(cube)).all()]
        if name not in dated:
            what = "an input without dates" if name in inputs.cubes else "no input"
            raise ChipError(f"{call}: {name!r} is {what}, and no column of the plan; inputs with dates are {dated}")
    return name


def _dates(column: Any, call: str) -> Stamps:
    """Read a column of dates."""
    try:
        stamps = (
            pd.DatetimeIndex(pd.to_datetime(column, utc=True, format="ISO8601"))
            .tz_localize(None)
            .values.astype("M8[ns]")
        )
    except (ValueError, TypeError) as error:
        raise ChipError(f"{call}: the column holds {np.asarray(column).dtype}, dates are needed") from error
    if np.isnat(stamps).any():
        raise ChipError(f"{call}: {int(np.isnat(stamps).sum())} chips have no date; leave them out, .query(...)")
    return stamps


def _stamps_at(windows: Windows, several: list[InputsCube], name: str, places: Indices) -> Stamps:
    """Give the dates at places of an input's own, NaT for -1: (n,)."""
    found = np.full(len(windows), "NaT", "M8[ns]")
    for index, inputs in enumerate(several):
        mine = np.flatnonzero((windows.cube == index) & (places >= 0))
        found[mine] = times(inputs.cubes[name])[places[mine]]
    return found


def _each_date(windows: Windows, several: list[InputsCube], name: str, coverage: Coverage) -> tuple[Windows, Indices]:
    """Make of each chip one for each date on which an input covers it; give these dates' places."""
    chip, place = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for index, inputs in enumerate(several):
        for at, seen in _seen(windows, index, inputs, name, coverage):
            rows, dates = np.nonzero(seen)
            chip.append(at[rows])
            place.append(dates)
    chips, places = np.concatenate(chip), np.concatenate(place)
    order = np.lexsort((places, chips))
    return windows.take(chips[order]).numbered(), places[order].astype(np.int64)


def _matched(
    windows: Windows, several: list[InputsCube], name: str, rule: Rule, to: tuple[Stamps, bool], coverage: Coverage
) -> Indices:
    """Find the date of an input that each chip is to have, by its place; -1 for none."""
    stamps, days = to
    found = np.full(len(windows), -1, np.int64)
    none = np.iinfo(np.int64).max
    for index, inputs in enumerate(several):
        dates = times(inputs.cubes[name])
        for at, seen in _seen(windows, index, inputs, name, coverage):
            wanted, there = (stamps[at], dates)
            if days:
                wanted, there = (one.astype("M8[D]").astype("M8[ns]") for one in (wanted, there))
            ahead = (there[None] - wanted[:, None]).astype(np.int64)
            fits = seen & ~np.isnat(there) & (np.abs(ahead) <= rule.within.astype("m8[ns]").astype(np.int64))
            fits &= {"nearest": True, "before": ahead < 0, "after": ahead >= 0}[rule.side]
            apart = np.where(fits, np.abs(ahead), none)
            # Dates rise: of equals the first is the earlier.
            best = apart.argmin(axis=1)
            found[at] = np.where(apart[np.arange(len(at)), best] < none, best, -1)
    return found


def _seen(windows: Windows, index: int, inputs: InputsCube, name: str, coverage: Coverage) -> Any:
    """Give chips of one cube, some at a time, and on which dates an input covers them, (n, dates)."""
    if coverage not in ("full", "any"):
        raise ChipError(f"match_dates(coverage={coverage!r}): use 'full' or 'any'")
    outlines = inputs.cubes[name].outlines()
    distinct = {id(outline): outline for outline in outlines}
    mine = np.flatnonzero(windows.cube == index)
    for part in chunks(len(mine)):
        at = mine[part]
        boxes = boxes_of(inputs, windows.size, windows.values("row", at), windows.values("col", at))
        asked = shapely.covers if coverage == "full" else shapely.intersects
        answers = {key: asked(outline, boxes) for key, outline in distinct.items()}
        yield at, np.stack([answers[id(outline)] for outline in outlines], axis=1)


def _as_matched(windows: Windows, found: Mapping[str, Indices], kept: npt.NDArray[np.bool_]) -> Matched:
    """Make a plan of chips with chosen dates; in orders by date they stand by the first input's."""
    whole = windows.placed(time=np.maximum(next(iter(found.values())), 0))
    own = {part.name: getattr(whole, part.name) for part in fields(Windows)}
    matched = Matched(**own).with_matches(found)
    at = np.flatnonzero(kept)
    return replace(matched.take(at), left_out=len(windows) - len(at))
