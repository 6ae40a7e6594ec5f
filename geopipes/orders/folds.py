"""Splits that are not dealt by chance alone: folds, polygons, columns and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from geopipes.chips import Windows
from geopipes.chips.footprints import centres, members
from geopipes.chips.places import given
from geopipes.chips.rows import chunks
from geopipes.chips.tables import column as column_of
from geopipes.chips.windows import check_some
from geopipes.errors import ChipError
from geopipes.orders.grounds import Ground
from geopipes.orders.splitting import ROOM, Owner, apart, dealt, laid, named

if TYPE_CHECKING:
    import geopandas as gpd

Gap = str | float | pd.Timedelta | np.timedelta64


def kfold(
    windows: Windows, k: int, *, block: float, buffer: float = 0.0, seed: int
) -> tuple[tuple[Windows, Windows], ...]:
    """Make k pairs of a training and a test plan for cross-validation: each chip is in one test plan.

    Blocks of ground are dealt to k folds as in `split`. Chips to train on that come nearer than ``buffer`` to the
    fold that judges, or overlap it, are left out of that pair.

    Parameters
    ----------
    windows : (n,) a plan
    k : folds, 2 or more
    block, buffer, seed : as in `split`

    Returns
    -------
    k pairs (train, test). The column ``fold`` says in which test plan a chip is, ``split`` is ``train`` or ``test``

    Raises
    ------
    ChipError
        if there are fewer blocks than folds, the buffer is wider than a block, or a plan stays empty
    """
    what = f"kfold({k}, block={block:g}, buffer={buffer:g})"
    if k < 2:
        raise ChipError(f"{what}: give 2 folds or more")
    ground, fold, count = dealt(windows, np.full(k, 1 / k), block=block, buffer=buffer, seed=seed, what=what)
    held = np.bincount(fold, minlength=k)
    if (held == 0).any():
        raise ChipError(
            f"{what}: {count} blocks give folds of {held.tolist()} chips; use fewer folds or smaller blocks"
        )
    ground = replace(ground, windows=windows.with_columns({"fold": fold}))
    pairs = []
    for number in range(k):
        owner = (fold == number).astype(np.int16)
        parts = apart(ground, owner, ("train", "test"), buffer=buffer, what=f"{what}: fold {number}", mend=ROOM)
        pairs.append((parts[0], parts[1]))
    return tuple(pairs)


def split_by_polygon(
    windows: Windows,
    polygons: gpd.GeoDataFrame,
    *,
    column: str,
    buffer: float = 0.0,
    names: Sequence[Any] | None = None,
) -> dict[Any, Windows]:
    """Split a plan by polygons: a chip goes with the polygon that holds its centre, and is left out where none does.

    Chips of an earlier split that overlap a chip of a later one, or come nearer than ``buffer``, are left out.

    Parameters
    ----------
    windows : (n,) a plan
    polygons : with a CRS; several may bear one name
    column : of the polygons' table, which names the split of each
    buffer : least distance between the chips of two splits [m]
    names : the splits wanted, in the order in which they make room; None for all, the one of most chips first

    Returns
    -------
    a plan for each name, which stands in the column ``split``

    Raises
    ------
    ChipError
        if there is no such column or name, polygons of two names hold one chip's centre, or a split stays empty
    """
    what = f"split_by_polygon(column={column!r}, buffer={buffer:g})"
    shapes, crs = given(polygons, what)
    if column not in polygons.columns:
        raise ChipError(f"{what}: the polygons have no such column; there are {[*map(str, polygons.columns)]}")
    codes, found = pd.factorize(np.asarray(polygons[column], object))
    ground = laid(windows, what)
    owner = np.full(len(windows), -1, np.int16)
    tree = shapely.STRtree(shapes)
    middles = centres(members(windows)[0], crs.to_wkt())
    for at in chunks(len(windows)):
        chip, place = tree.query(shapely.points(middles[:, at].T.astype(float)), predicate="intersects")
        code = codes[place]
        chip, code = chip[code >= 0], code[code >= 0]
        own = owner[at]  # a view
        own[chip] = code
        if (twice := own[chip] != code).any():
            both = found[[own[chip][twice][0], code[twice][0]]].tolist()
            raise ChipError(
                f"{what}: polygons of {both[0]!r} and of {both[1]!r} hold one chip's centre; cut one of them"
            )
    if (owner < 0).all():
        bounds = [f"{bound:.6g}" for bound in shapely.total_bounds(shapes)]
        data = [f"{value:.6g}" for value in (*middles.min(axis=1), *middles.max(axis=1))]
        raise ChipError(
            f"{what}: the polygons, in {', '.join(bounds)}, hold none of the {len(windows)} chips' centres, in "
            f"{', '.join(data)} ({crs}); are the polygons' CRS and place right?"
        )
    mend = "use a smaller buffer, larger polygons, or names=[...] of those wanted"
    return _by_name(ground, owner, found, names, buffer, what, mend)


def split_by_column(
    windows: Windows, column: str, *, buffer: float = 0.0, names: Sequence[Any] | None = None
) -> dict[Any, Windows]:
    """Split a plan by a column: one of its own, or one that was joined or measured.

    Chips of an earlier split that overlap a chip of a later one, or come nearer than ``buffer``, are left out; so are
    those without a value.

    Parameters
    ----------
    windows : (n,) a plan
    column : as `geopipes.chips.table` shows it
    buffer : least distance between the chips of two splits [m]
    names : the values wanted, in the order in which they make room; None for all, that of most chips first

    Returns
    -------
    a plan for each value, which stands in the column ``split``

    Raises
    ------
    ChipError
        if there is no such column or value, or a split stays empty
    """
    what = f"split_by_column({column!r}, buffer={buffer:g})"
    codes, found = pd.factorize(column_of(windows, column, what))
    if len(found) > np.iinfo(np.int16).max:
        raise ChipError(f"{what}: the column has {len(found)} values; give one that names splits")
    mend = "use a smaller buffer, or names=[...] of the values wanted"
    return _by_name(laid(windows, what), codes.astype(np.int16), np.asarray(found), names, buffer, what, mend)


def _by_name(
    ground: Ground,
    owner: Owner,
    found: npt.NDArray[Any],
    names: Sequence[Any] | None,
    buffer: float,
    what: str,
    mend: str,
) -> dict[Any, Windows]:
    """Put splits in their order and leave room between them."""
    if not buffer >= 0:
        raise ChipError(f"{what}: the buffer is metres, at least 0")
    there = found.tolist()
    if names is None:
        held = np.bincount(owner[owner >= 0], minlength=len(there))
        names = [there[i] for i in np.argsort(-held, kind="stable")]
    unknown = [name for name in names if name not in there]
    if unknown or len({*names}) < len(names) or len(names) < 2:
        raise ChipError(f"{what}: needed are two or more of {there}, each once; names={[*names]}")
    order = np.full(len(there) + 1, -1, np.int16)  # the last is that of -1
    order[[there.index(name) for name in names]] = np.arange(len(names))
    parts = apart(ground, order[owner], names, buffer=buffer, what=f"{what}: {[*names]}", mend=mend)
    return dict(zip(names, parts, strict=True))


def split_by_time(
    windows: Windows, dates: str | np.datetime64 | Sequence[str | np.datetime64], *, gap: Gap = "0D"
) -> tuple[Windows, ...]:
    """Split a plan by time: the same places, at dates that do not mix.

    A chip belongs to a split with all its dates, or to none: chips that reach over a cut are left out.

    Parameters
    ----------
    windows : (n,) a plan, of chips with few dates: ``chip(size, time=1)``
    dates : where to cut, ascending, UTC; the day itself is later. With several inputs the first's dates count, once
        they are matched (`geopipes.chips.match_dates`) those that each chip holds of any input
    gap : time without chips before each cut: ``"30D"``, a timedelta, or a number of days

    Returns
    -------
    one plan more than dates, in the order of time; the column ``split`` says 0, 1, ...

    Raises
    ------
    ChipError
        if the dates do not ascend, the chips have no dates, or a split stays empty
    """
    cuts = np.atleast_1d(np.asarray(dates, "datetime64[ns]"))
    rest = pd.Timedelta(gap, "D") if isinstance(gap, int | float) else pd.Timedelta(gap)
    what = f"split_by_time({[str(cut)[:10] for cut in cuts]}, gap={str(rest)!r})"
    if len(cuts) == 0 or (np.diff(cuts) <= np.timedelta64(0)).any() or rest < pd.Timedelta(0):
        raise ChipError(f"{what}: give one or more dates, ascending, and a gap of 0 or more")
    check_some(windows, what)
    begin, end = (column_of(windows, name) for name in ("start", "end"))
    if np.isnat(begin).any():
        raise ChipError(
            f"{what}: {int(np.isnat(begin).sum())} of the {len(windows)} chips have no dates; leave them out, "
            ".query('start == start')"
        )
    first, last = np.searchsorted(cuts, begin, "right"), np.searchsorted(cuts - rest.to_timedelta64(), end, "right")
    held = [int(np.count_nonzero((first == k) & (last == k))) for k in range(len(cuts) + 1)]
    if 0 in held:
        raise ChipError(
            f"{what} gives splits of {held} chips, of {str(begin.min())[:10]} to {str(end.max())[:10]}; "
            "cut within these, use a smaller gap, or chips of fewer dates: chip(size, time=1), or match_dates(...) of "
            "every input"
        )
    return tuple(named(windows.take(np.flatnonzero((first == k) & (last == k))), k) for k in range(len(held)))
