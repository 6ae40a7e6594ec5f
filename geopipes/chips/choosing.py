"""Choosing among the windows of a plan: weighted, stratified, away from places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from geopipes.chips.footprints import Floats
from geopipes.chips.places import given, ground, moved, near, plane
from geopipes.chips.rows import shuffled
from geopipes.chips.windows import Indices, Windows, check_some
from geopipes.errors import ChipError

if TYPE_CHECKING:
    import geopandas
    from shapely.geometry.base import BaseGeometry

Shares = Literal["equal", "proportional"] | Mapping[Any, float] | Sequence[float]

SLACK = 1e-6
"""By how much shares may miss 1."""


def sample(
    windows: Windows,
    n: int,
    *,
    seed: int,
    weights: str | npt.ArrayLike | None = None,
    replace: bool = False,
) -> Windows:
    """Choose windows at random, equally or in proportion to weights.

    Parameters
    ----------
    windows : (N,) a plan
    n : windows to choose
    seed : of numpy's PCG64
    weights : a column's name or (N,) numbers, 0 and up; None for equal ones
    replace : whether a window may be chosen again

    Returns
    -------
    the windows chosen, in the plan's order. The column ``probability`` is multiplied by the probability that the
    window is chosen, with ``replace`` by the expected number of times: so the sum of value / probability is an
    unbiased estimate of the sum over the plan, or over what the plan was drawn from. Without ``replace`` that is
    n * weight / sum of weights, exactly, and 1 where it would be more: systematic sampling along a random order
    (Madow 1949; Hartley and Rao 1962)

    Raises
    ------
    ChipError
        for weights that are negative, not finite or all zero, and for n larger than what can be chosen
    """
    call = f"sample({n})"
    rng = np.random.default_rng(seed)
    if weights is None:
        chances = None
        most = len(windows)
    else:
        chances = _weights(windows, weights, call)
        most = int(np.count_nonzero(chances))
    if n < 1 or len(windows) == 0 or (n > most and not replace):
        what = "windows" if weights is None else "windows with a weight above 0"
        raise ChipError(f"{call}: give 1 to {most}, the {what} there are, or replace=True to choose some again")
    if chances is None:
        chosen = np.sort(rng.integers(len(windows), size=n) if replace else rng.choice(len(windows), n, replace=False))
        return _chosen(windows, chosen, n / len(windows))
    chances /= chances.max()
    if replace:
        chances *= n / chances.sum()
        line = np.cumsum(chances)
        chosen = np.searchsorted(line, np.sort(rng.random(n)) * line[-1], side="right")
        return _chosen(windows, chosen, chances[chosen])
    sure = _certain(chances, n)
    chances[sure] = 0
    some = _systematic(chances, n - len(sure), rng)
    chances[sure] = 1
    chosen = np.sort(np.concatenate([sure, some]))
    return _chosen(windows, chosen, chances[chosen])


def _certain(chances: Floats, n: int) -> Indices:
    """Find the windows that are chosen for certain, and scale the chances of the others to what these leave of n."""
    sure = np.zeros(len(chances), bool)
    while True:
        left = chances.sum(where=~sure)
        if left > 0:
            np.divide(chances, left / (n - np.count_nonzero(sure)), out=chances, where=~sure)
        above = chances >= 1 - SLACK
        if not (above & ~sure).any():
            return np.flatnonzero(sure)
        sure |= above


def _systematic(chances: Floats, n: int, rng: np.random.Generator) -> Indices:
    """Choose n by chances that sum to n: those in whose stretch of a random line a point of a regular grid falls."""
    order = shuffled(len(chances), rng)
    line = chances[order]
    np.cumsum(line, out=line)
    points = (rng.random() + np.arange(n)) * (line[-1] / max(n, 1))
    chosen: Indices = order[np.minimum(np.searchsorted(line, points, side="right"), len(line) - 1)].astype(np.int64)
    return chosen


def stratify(
    windows: Windows,
    n: int,
    *,
    by: str | npt.ArrayLike,
    shares: Shares,
    seed: int,
    edges: Sequence[float] | None = None,
) -> Windows:
    """Choose windows at random within strata, so many of each.

    Parameters
    ----------
    windows : (N,) a plan
    n : windows to choose
    by : a column's name, or (N,) values: classes, or numbers with ``edges``
    shares : of the strata among the windows chosen: ``"equal"``; ``"proportional"`` to the plan's; by value,
        ``{"water": 0.2, "forest": 0.8}``, strata that are not named being left out; or in the order of the strata.
        They sum to 1, and are met as nearly as whole windows allow
    seed : of numpy's PCG64
    edges : between the strata of numbers, rising: ``[0.1, 0.5]`` makes three, the second of 0.1 <= value < 0.5

    Returns
    -------
    the windows chosen, in the plan's order, with the column ``stratum`` (the value; with ``edges`` its number from
    0), and ``probability`` multiplied by chosen / all of the window's stratum, which is exact

    Raises
    ------
    ChipError
        for a column that is not there or has no value in places, shares that are negative, do not sum to 1 or name
        no stratum, and for a stratum with fewer windows than asked for
    """
    call = f"stratify({n}, by={by!r})" if isinstance(by, str) else f"stratify({n})"
    check_some(windows, call)
    values = _column(windows, by, call)
    if (missing := int(pd.isna(values).sum())) > 0:
        raise ChipError(f"{call}: {missing} of {len(values)} windows have no value; leave them out before")
    if edges is None:
        codes, names = pd.factorize(values, sort=True)
    else:
        rising = np.asarray(edges, float)
        if not (np.diff(rising) > 0).all():
            raise ChipError(f"{call}: edges={[*edges]} must rise")
        codes, names = np.digitize(values, rising), np.arange(len(rising) + 1)
    codes = codes.astype(np.min_scalar_type(len(names)))
    held = np.bincount(codes, minlength=len(names))
    wanted = allotted(n, shared_out(shares, names, held, call), call)
    if (short := np.flatnonzero(wanted > held)).size:
        text = ", ".join(f"{names[k]!s}: {wanted[k]} of {held[k]}" for k in short[:5])
        raise ChipError(f"{call}: more windows are asked for than there are ({text}); use a smaller n, or other shares")
    rng = np.random.default_rng(seed)
    order = np.argsort(codes, kind="stable")
    starts = np.cumsum(held) - held
    chosen = [
        order[starts[k] + rng.choice(held[k], wanted[k], replace=False)] for k in range(len(names)) if wanted[k] > 0
    ]
    kept = np.sort(np.concatenate(chosen))
    stratum = np.asarray(names)[codes[kept]]
    return _chosen(windows, kept, (wanted / np.maximum(held, 1))[codes[kept]], stratum=stratum)


def away(
    windows: Windows,
    places: geopandas.GeoDataFrame | geopandas.GeoSeries | BaseGeometry | Windows,
    distance: float,
    *,
    within: float | None = None,
) -> Windows:
    """Keep the windows that lie apart from places, and not too far: negatives beside positives.

    Parameters
    ----------
    windows : (N,) a plan
    places : geometries in any CRS (a bare geometry in longitude and latitude), or the windows of another plan
    distance : least distance of a window's rectangle from all places [m]; at 0 it may touch, and not overlap, them
    within : most distance from the nearest place [m]; None for any

    Returns
    -------
    the windows kept, in their order. Distances are taken on the plan's equal-area plane (`geopipes.chips.plane`)

    Raises
    ------
    ChipError
        if distance is negative or not less than within, and if no window is left
    """
    call = f"away(distance={distance}, within={within})"
    check_some(windows, call)
    if not distance >= 0 or (within is not None and not within > distance):
        raise ChipError(f"{call}: both are metres; distance at least 0, within more than distance")
    flat = plane(windows)
    if isinstance(places, Windows):
        others = ground(places, flat)
    else:
        shapes, crs = given(places, call)
        others = moved(shapes, crs.proj, flat)
    tree = shapely.STRtree(others)
    keep = ~near(windows, tree, distance, flat)
    if within is not None:
        keep &= near(windows, tree, within, flat)
    chosen = np.flatnonzero(keep)
    if len(chosen) == 0:
        raise ChipError(f"{call}: none of the {len(windows)} windows lies so; use a smaller distance, or a larger area")
    return windows.take(chosen)


def _chosen(windows: Windows, chosen: Indices, chance: float | Floats, **columns: npt.NDArray[Any]) -> Windows:
    """Give the windows chosen, with their columns; the chance counts with that of an earlier choice."""
    some = windows.take(chosen)
    before = some.columns.get("probability", np.ones(()))
    probability = (before if any(before.strides) else before.flat[0]) * chance  # one for all takes no memory
    return some.with_columns({**columns, "probability": probability})


def _column(windows: Windows, by: str | npt.ArrayLike, call: str) -> npt.NDArray[Any]:
    """Give a column by name, or an array that has a value for each window."""
    if isinstance(by, str):
        if by not in windows.columns:
            raise ChipError(f"{call}: there is no column {by!r}; there are {[*windows.columns]}")
        by = windows.columns[by]
    values = np.asarray(by)
    if values.shape != (len(windows),):
        raise ChipError(f"{call}: {values.shape} values for {len(windows)} windows; give one for each")
    return values


def _weights(windows: Windows, weights: str | npt.ArrayLike, call: str) -> Floats:
    """Give weights as numbers of one's own."""
    values = _column(windows, weights, call)
    if values.dtype.kind not in "biuf":
        raise ChipError(f"{call}: weights are {values.dtype}, numbers are needed")
    found = values.astype(float)
    if not np.isfinite(found).all() or found.min(initial=0) < 0 or not found.any():
        bad = int((~np.isfinite(found)).sum()), int((found < 0).sum())
        what = f"{bad[0]} are not finite, {bad[1]} negative" if any(bad) else "all are 0"
        raise ChipError(f"{call}: of {len(found)} weights {what}; give numbers of 0 and up, some of them above 0")
    return found


def shared_out(shares: Shares, names: npt.NDArray[Any], held: Indices, call: str) -> Floats:
    """Give the share of each stratum."""
    if isinstance(shares, str):
        if shares not in ("equal", "proportional"):
            raise ChipError(f"{call}: shares={shares!r}; use 'equal', 'proportional', or numbers")
        there = (held > 0) if shares == "equal" else held
        return np.asarray(there / there.sum(), float)
    if isinstance(shares, Mapping):
        if unknown := [name for name in shares if name not in names]:
            raise ChipError(f"{call}: shares name {unknown}, there are {np.asarray(names).tolist()}")
        shares = [shares.get(name, 0.0) for name in names]
    found = np.asarray(shares, float)
    if found.shape != names.shape or not (found >= 0).all() or abs(found.sum() - 1) > SLACK:
        raise ChipError(
            f"{call}: shares={found.tolist()} for {len(names)} strata; give one for each, 0 and up, summing to 1"
        )
    return found


def allotted(n: int, shares: Floats, call: str) -> Indices:
    """Give whole numbers that sum to n, as near to the shares as can be: the largest remainders are rounded up."""
    if n < 1:
        raise ChipError(f"{call}: n={n}: give a number of windows, at least 1")
    exact = n * shares
    whole = np.floor(exact + SLACK).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: n - whole.sum()]] += 1
    return whole
