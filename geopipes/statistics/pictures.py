"""Histograms as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geopipes.errors import StatisticsError
from geopipes.statistics.results import Statistics

BINS = 60
"""Steps of a drawn histogram."""

SHOWN = (0.1, 99.9)
"""Percentiles between which values are drawn: a few far outliers would leave the rest one bar."""


def histograms(statistics: Mapping[str, Statistics], ax: Any = None, *, variables: Sequence[str] | None = None) -> Any:
    """Draw how the values of each variable are distributed in each split.

    Parameters
    ----------
    statistics : by the name of the split, ``{"train": ..., "test": ...}``
    ax : matplotlib's axes to draw on, one for each variable; None for a new figure
    variables : to draw; None for all that every split knows

    Returns
    -------
    the axes, (variables,): density over the value, between the percentiles 0.1 and 99.9 of all splits; for classes
    bars of their shares

    Raises
    ------
    StatisticsError
        if there is nothing to draw, or not one of the axes for each variable
    """
    every = dict.fromkeys(name for part in statistics.values() for name in part.variables)
    common = [name for name in every if all(name in part.variables for part in statistics.values())]
    names = common if variables is None else list(variables)
    if not names or not set(names) <= set(common):
        raise StatisticsError(f"histograms(variables={names}): the variables that every split knows are {common}")
    if ax is None:
        import matplotlib.pyplot as plt

        columns = min(len(names), 3)
        rows = -(-len(names) // columns)
        figure, grid = plt.subplots(rows, columns, squeeze=False, figsize=(4 * columns, 3 * rows), layout="constrained")
        axes = grid.ravel()[: len(names)]
        for unused in grid.ravel()[len(names) :]:
            figure.delaxes(unused)
    else:
        axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != len(names):
        raise StatisticsError(f"histograms: there are {len(names)} variables {names} for {len(axes)} axes")
    for axis, name in zip(axes, names, strict=True):
        _draw(axis, name, {split: part[name] for split, part in statistics.items()})
    axes[0].legend()
    return axes


def _draw(axis: Any, name: str, splits: Mapping[str, Any]) -> None:
    """Draw one variable."""
    axis.set_title(name)
    filled = {split: summary for split, summary in splits.items() if summary.count}
    if not filled:
        return
    if any(summary.categorical for summary in filled.values()):
        values = sorted({value for summary in filled.values() for value in summary.classes})
        width = 0.8 / len(filled)
        for i, (split, summary) in enumerate(filled.items()):
            shares = [summary.classes.get(value, 0) / summary.count for value in values]
            axis.bar(np.arange(len(values)) + (i - (len(filled) - 1) / 2) * width, shares, width, label=split)
        axis.set_xticks(range(len(values)), [str(value) for value in values])
        axis.set_ylabel("share")
        return
    ends = [[summary.percentile(end) for summary in filled.values()] for end in SHOWN]
    low, high = min(ends[0]), max(ends[1])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    for split, summary in filled.items():
        counts, _ = np.histogram(summary.histogram.values, edges, weights=summary.histogram.counts)
        axis.stairs(counts / (summary.count * (edges[1] - edges[0])), edges, label=split)
    axis.set_ylabel("density")
