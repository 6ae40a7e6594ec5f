"""The plan as a table: a row for each chip, to look at, to choose by and to join."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import shapely

from geopipes.chips.footprints import DEGREES, Floats, Geometries, corners, end, members, polygons
from geopipes.chips.groups import Groups
from geopipes.chips.rows import AT_ONCE, chunks, where
from geopipes.chips.touching import coverage as coverage_of
from geopipes.chips.touching import items_of_each
from geopipes.chips.windows import PLACE, Windows
from geopipes.errors import ChipError

if TYPE_CHECKING:
    import geopandas as gpd

PLAIN = ("id", "cube", "time", "row", "col", "start", "end", "grid_crs")
"""Columns that every plan has at hand."""

COSTLY = ("items", "coverage")
"""Columns that are worked out when they are asked for."""

OWN = (*PLAIN, *COSTLY, "geometry")
"""Columns that say what a plan is: no other may bear their names."""

Mask = npt.NDArray[np.bool_]


def table(windows: Windows, *, items: bool = False, coverage: bool = False, crs: Any = DEGREES) -> gpd.GeoDataFrame:
    """Give a plan as a table; no pixels are read.

    Parameters
    ----------
    windows : (n,) a plan
    items : whether to add the ids of the items that touch each chip at its dates
    coverage : whether to add the share of each chip's area that every source covers, over all dates
    crs : of the footprints

    Returns
    -------
    a GeoDataFrame of n rows, indexed by id: ``id``; ``cube``, ``time``, ``row`` and ``col``, the window's place;
    ``start`` and ``end``, its first and last date (NaT where it has none; of several inputs the first's, and once they
    are matched, `match_dates`, over all that the chip holds of any of them); ``grid_crs``, the chip's own; ``items``
    and ``coverage`` where asked for; the plan's columns; and ``geometry``, the footprint without margin, of a group
    that of all its members. In degrees, a footprint across the 180th meridian goes on beyond 180
    """
    import geopandas

    costly = [name for name, wanted in zip(COSTLY, (items, coverage), strict=True) if wanted]
    return geopandas.GeoDataFrame(_frame(windows, costly), geometry=outlines(windows, crs), crs=crs)


def query(windows: Windows, condition: str | npt.ArrayLike | pd.Series[Any] | pd.DataFrame | pd.Index[Any]) -> Windows:
    """Keep the chips for which a condition holds, in their order.

    Parameters
    ----------
    windows : (n,) a plan
    condition : a pandas expression over the columns of `table`, ``"share_3 > 0.1 and start < '2024-07'"``; (n,) bool
        in the order of the plan; a boolean Series by id; a DataFrame, by its column ``id`` or else its index, whose
        rows are the chips that stay and whose columns are added; or an Index of the ids that stay, ``ledger.failed``

    Returns
    -------
    the plan of those chips

    Raises
    ------
    ChipError
        if the condition cannot be worked out, is not boolean, or holds for no chip
    """
    what = f"query({condition!r})" if isinstance(condition, str) else f"query({type(condition).__name__})"
    if isinstance(condition, pd.DataFrame):
        rows = _by_id(condition)
        mask = _places(windows, rows.index, what) >= 0
    elif isinstance(condition, pd.Index):
        mask = np.isin(windows.ids, condition.to_numpy())
    elif isinstance(condition, str):
        mask = _evaluated(windows, condition, what)
    elif isinstance(condition, pd.Series):
        places = _places(windows, condition.index, what)
        if (places < 0).any():
            raise ChipError(f"{what}: {int((places < 0).sum())} of {len(windows)} chips are not in its index, the ids")
        mask = condition.to_numpy()[places]
    else:
        mask = np.asarray(condition)
    if mask.dtype != bool or mask.shape != (len(windows),):
        raise ChipError(
            f"{what} is {mask.dtype} of shape {mask.shape}; needed is bool, one for each of {len(windows)} chips"
        )
    if not mask.any():
        raise ChipError(f"{what} holds for none of the {len(windows)} chips")
    kept = windows.take(where(mask))
    return assign(kept, rows) if isinstance(condition, pd.DataFrame) else kept


def assign(windows: Windows, table: pd.DataFrame | None = None, /, **columns: npt.ArrayLike) -> Windows:
    """Add columns of one's own to a plan.

    Parameters
    ----------
    windows : (n,) a plan
    table : joined by its column ``id`` or else its index, one row for every chip at least. What `table` made of the
        plan itself is left aside, so that what it gave may be worked on and handed back
    columns : (n,) in the order of the plan, or one value for all

    Raises
    ------
    ChipError
        if chips are missing in the table, or stand in it twice, a column has another length, or bears the name of one
        that says what a plan is
    """
    added: dict[str, npt.NDArray[Any]] = {}
    if table is not None:
        rows = _by_id(table)
        places = _places(windows, rows.index, "assign(table)")
        if (missing := places < 0).any():
            raise ChipError(
                f"assign(table): {int(missing.sum())} of {len(windows)} chips are not in it, the first of id "
                f"{windows.ids[missing][0]}; write query(table), which keeps those that are"
            )
        added = {str(name): rows[name].to_numpy()[places] for name in rows.columns if name not in OWN}
    for name, values in columns.items():
        array = np.asarray(values)
        if name in OWN:
            raise ChipError(f"assign({name}=...): the plan's own columns {OWN} say what it is; use another name")
        if array.ndim > 0 and array.shape != (len(windows),):
            raise ChipError(f"assign({name}=...) has shape {array.shape}; needed is ({len(windows)},), or one value")
        added[name] = array
    return windows.with_columns(added)


def column(windows: Windows, name: str, call: str = "column") -> npt.NDArray[Any]:
    """Give one column of the table, (n,); ``call`` is what asked for it, for errors.

    Raises
    ------
    ChipError
        if there is none of this name
    """
    return np.asarray(_column(windows, name, call))


def outlines(windows: Windows, crs: Any = DEGREES) -> Geometries:
    """Give the footprints of chips as polygons, (n,), of groups as what all their members cover."""
    found = [polygons(quads(part, crs)) for part in members(windows)]
    return found[0] if len(found) == 1 else np.asarray(shapely.union_all(np.stack(found, axis=1), axis=1), object)


def quads(windows: Windows, crs: Any = DEGREES) -> Floats:
    """Give the corners of chips, (n, 4, 2); in degrees those across the 180th meridian go on beyond 180."""
    wanted = pyproj.CRS.from_user_input(crs)
    places = np.empty((len(windows), 4, 2))
    for at in chunks(len(windows)):
        places[at] = corners(windows, at, wanted.to_wkt())
    if wanted.is_geographic:
        across = np.ptp(places[..., 0], axis=1) > 180
        places[across, :, 0] %= 360
    return places


def _frame(windows: Windows, costly: Iterable[str] = ()) -> pd.DataFrame:
    """Give the table without footprints."""
    names = [*PLAIN, *costly, *windows.columns]
    return pd.DataFrame({name: _column(windows, name) for name in names}, index=windows.ids)


def _column(windows: Windows, name: str, call: str = "table") -> Any:
    """Give one column as the table holds it."""
    if name in windows.columns:
        return windows.columns[name]
    if name in PLACE:
        return windows.values(name)
    if name in ("start", "end"):
        return end(windows, 0 if name == "start" else 1)
    if name == "grid_crs":
        names, code = np.unique([str(cube.crs) for cube in windows.cubes], return_inverse=True)
        return pd.Categorical.from_codes(code[windows.cube], names.tolist())
    made = {"items": items_of_each, "coverage": coverage_of}
    if name not in made:
        raise ChipError(f"{call}: there is no column {name!r}; there are {[*PLAIN, *COSTLY, *windows.columns]}")
    return made[name](windows)


def _by_id(table: pd.DataFrame) -> pd.DataFrame:
    """Give a table of one's own by id."""
    return table.set_index("id") if "id" in table.columns else table


def _places(windows: Windows, ids: pd.Index[Any], what: str) -> npt.NDArray[np.intp]:
    """Give the row of each chip, (n,); -1 where there is none."""
    if np.array_equal(ids.to_numpy(), windows.ids):
        return np.arange(len(windows))
    if not ids.is_unique:
        raise ChipError(f"{what}: id {ids[ids.duplicated()][0]!r} stands in it more than once; group by id first")
    return ids.get_indexer(pd.Index(windows.ids))


def _evaluated(windows: Windows, condition: str, what: str) -> npt.NDArray[Any]:
    """Work out an expression over the columns of the table, those it names alone.

    One that only compares and reckons is the same for some windows at a time, and takes no more memory for many.
    """
    every = [*PLAIN, *COSTLY, *windows.columns]
    names = [name for name in every if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", condition)]
    local = _local(condition) and not {*COSTLY} & {*names} and not isinstance(windows, Groups)
    size = AT_ONCE if local else max(len(windows), 1)
    found: list[npt.NDArray[Any]] = []
    try:
        for at in chunks(len(windows), size):
            some = windows if size >= len(windows) else windows.take(np.arange(at.start, at.stop))
            frame = pd.DataFrame({name: _column(some, name) for name in names}, index=some.ids)
            found.append(np.asarray(frame.eval(condition)))
    except (ValueError, TypeError, KeyError, NameError, AttributeError, SyntaxError, NotImplementedError) as error:
        raise ChipError(f"{what} cannot be worked out: {error}; there are the columns {every}") from error
    return np.concatenate(found) if found and found[0].ndim else np.asarray(found[0] if found else np.empty(0, bool))


def _local(condition: str) -> bool:
    """Say whether a condition asks nothing of a window that others decide, such as a mean of all."""
    try:
        parts = ast.walk(ast.parse(condition.strip(), mode="eval"))
    except SyntaxError:  # as pandas writes it: `a name`, @variable
        return False
    return not any(isinstance(part, ast.Call | ast.Subscript | ast.Attribute) for part in parts)
