"""Random partners: for each of many, one of its candidates for which a rule holds, all as likely."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from geopipes.chips.windows import Indices

Fits = Callable[[Indices, Indices], npt.NDArray[np.bool_]]

ROUNDS = 16
"""Random tries before all candidates are looked at."""

AT_ONCE = 1 << 21
"""Pairs that are looked at at a time."""

MOST = 1 << 30
"""Pairs that are looked at in all: 20 s."""


def partners(low: Indices, high: Indices, fits: Fits, rng: np.random.Generator) -> Indices:
    """Find a partner for each of many.

    Parameters
    ----------
    low, high : (n, r) the candidates of each, r ranges of numbers, low <= candidate < high
    fits : says for arrays of i < n and candidates which may be partners

    Returns
    -------
    (n,) a candidate, each that fits as likely as the others; -1 where none fits. Where more than a billion pairs are
    left after 16 random tries for each, those beyond get -1 though a candidate might fit
    """
    counts = np.maximum(high - low, 0)
    ends = np.cumsum(counts, axis=1)
    total = ends[:, -1]

    def candidate(i: Indices, number: Indices) -> Indices:
        part = (number[:, None] >= ends[i]).sum(axis=1)
        found: Indices = high[i, part] - (ends[i, part] - number)
        return found

    chosen = np.full(len(low), -1, np.int64)
    left = np.flatnonzero(total)
    for _ in range(ROUNDS):
        pick = candidate(left, (rng.random(len(left)) * total[left]).astype(np.int64))
        fit = fits(left, pick)
        chosen[left[fit]] = pick[fit]
        left = left[~fit]
    pairs = np.cumsum(total[left])
    left = left[pairs <= MOST]
    for some in np.split(left, np.flatnonzero(np.diff(pairs[pairs <= MOST] // AT_ONCE)) + 1):
        of = np.repeat(np.arange(len(some)), total[some])
        begin = np.cumsum(total[some]) - total[some]
        every = candidate(some[of], np.arange(len(of)) - begin[of])
        good = np.flatnonzero(fits(some[of], every))
        many = np.bincount(of[good], minlength=len(some))
        has = np.flatnonzero(many)
        place = (np.cumsum(many) - many)[has] + (rng.random(len(has)) * many[has]).astype(np.int64)
        chosen[some[has]] = every[good[place]]
    return chosen
