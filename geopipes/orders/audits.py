"""Audit: what splits share that they should not."""

from __future__ import annotations

from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from geopipes.chips import Windows
from geopipes.chips.touching import days_of_all, items_of_all
from geopipes.errors import ChipError
from geopipes.orders.grounds import Ground, nearest, overlap

Apart = Literal["ground", "time"]


def audit(*plans: Windows, apart: Apart = "ground", insist: bool = False) -> pd.DataFrame:
    """Measure what each two of some splits share; no pixels are read.

    Parameters
    ----------
    plans : two or more, such as the splits of one plan
    apart : in what they are meant to stand apart: ``"ground"``, so that no place is in two of them, whatever its date,
        scene or zone; or ``"time"``, so that no day is
    insist : raise where two do not

    Returns
    -------
    a row for each pair: ``first`` and ``second``, the names in their columns ``split`` or else their places;
    ``distance``, the least between their chips' footprints [m, along the ellipsoid]; ``overlap``, the area in the
    footprints of both [m2]; ``scenes``, the number of items that touch chips of both; ``dates``, that of days (UTC) of
    which both hold images (of several inputs the first's, of matched ones all inputs'); and ``leak``, whether they
    share what ``apart`` forbids. Blocks of one scene share it, and blocks of one stack its dates: that alone is no leak
    of ground

    Raises
    ------
    ChipError
        for fewer than two plans, an empty one, and, with ``insist``, for a leak
    """
    if apart not in ("ground", "time"):
        raise ChipError(f"audit(apart={apart!r}): use 'ground' or 'time'")
    if len(plans) < 2 or not all(len(windows) for windows in plans):
        raise ChipError(
            f"audit: plans of {[len(windows) for windows in plans]} chips; needed are two or more, none empty"
        )
    names = _names(plans)
    first = Ground.of(plans[0])
    grounds = [first, *(Ground.of(windows, first.plane) for windows in plans[1:])]
    items, days = [items_of_all(windows) for windows in plans], [days_of_all(windows) for windows in plans]
    rows = []
    for i, j in combinations(range(len(plans)), 2):
        shared = {
            "distance": nearest(grounds[i], grounds[j]),
            "overlap": overlap(grounds[i], grounds[j]),
            "scenes": len(items[i] & items[j]),
            "dates": len(days[i] & days[j]),
        }
        leak = shared["overlap"] > 0 if apart == "ground" else shared["dates"] > 0
        rows.append({"first": names[i], "second": names[j], **shared, "leak": leak})
    found = pd.DataFrame(rows)
    if insist and found["leak"].any():
        raise ChipError(_leaks(found[found["leak"]], apart))
    return found


def _names(plans: tuple[Windows, ...]) -> list[Any]:
    """Give the plans' names: those in their columns, where these tell them apart."""
    found: list[Any] = []
    for windows in plans:
        names = np.unique(windows.columns.get("split", np.empty(0)))
        found += names.tolist() if len(names) == 1 else []
    return found if len({*found}) == len(plans) else [*range(len(plans))]


def _leaks(found: pd.DataFrame, apart: Apart) -> str:
    """Say which plans leak, how much, and what to write."""
    lines = [
        f"  {row.first!r} and {row.second!r}: {row.overlap:,.0f} m2 of ground in both, {row.distance:,.0f} m apart, "
        f"{row.scenes} scenes and {row.dates} dates in both"
        for row in found.itertuples()
    ]
    mend = {
        "ground": "write split(..., block=..., buffer=...), which keeps each place in one plan; plans that hold "
        "one place at different dates on purpose are audited by apart='time'",
        "time": "write split_by_time(...), and chips of few dates, chip(size, time=1)",
    }
    return "\n".join([f"audit: plans share {apart} that they should not; {mend[apart]}", *lines])
