"""A few chips, read as the pipe reads them, and where their time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from time import perf_counter
from typing import Any

from geopipes.errors import StepError
from geopipes.forecasts.values import Probe
from geopipes.loaders import Op, Report, Run
from geopipes.meters import (
    AFAR,
    BY_GDAL,
    COMPUTING,
    COPYING,
    DECODING,
    FETCHING,
    FROM_AFAR,
    LOOP,
    OPENING,
    RESAMPLING,
    WAITING,
    Counts,
    Row,
    Stage,
)

SECONDS = 5.0
"""For which a pipe is tried, if not told otherwise."""

KINDS = {
    AFAR: "network", FROM_AFAR: "network", OPENING: "network", FETCHING: "disk", DECODING: "decoding",
    BY_GDAL: "decoding", RESAMPLING: "resampling", COPYING: "copying", COMPUTING: "steps",
}  # fmt: skip
"""What the parts of reading a chip are."""


def probe(source: Any, ops: Sequence[Op], seconds: float) -> Probe:
    """Run a pipe for a while.

    Parameters
    ----------
    source, ops : of the pipe
    seconds : after which no more is taken; two elements are, however long they take

    Raises
    ------
    StepError
        if the pipe gives fewer than two elements
    """
    report = Report()
    taken, begun, first = 0, perf_counter(), 0.0
    with closing(Run(source, ops, report=report)) as run:
        for _ in run:
            taken += 1
            last = perf_counter()
            if taken == 1:
                first = last
            elif last - begun > seconds:
                break
    if taken < 2:
        raise StepError(f"explain(probe=...): {taken} elements came, and the first is not timed; 2 are needed at least")
    kind, share = _bound(report.counts)
    bound = report.bound
    return Probe(taken, (last - first) / (taken - 1), kind, share, "" if bound is None else str(bound))


def _bound(counts: Mapping[Row, Counts]) -> tuple[str, float]:
    """Give what most of the reading threads' time went to, and its share."""
    far = AFAR in counts or FROM_AFAR in counts
    spent: dict[str, float] = {}
    for row, its in counts.items():
        if row in (LOOP, WAITING) or row.stage > Stage.CHIP:
            continue
        kind = "steps" if row.stage == Stage.CHIP else KINDS.get(row, "python")
        kind = "disk" if row == OPENING and not far else kind
        spent[kind] = spent.get(kind, 0.0) + its.seconds
    longest = max(spent, key=spent.__getitem__)
    return longest, spent[longest] / (sum(spent.values()) or 1.0)
