"""Scene labels: one label for all of an item, as a column of the plan."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from geopipes.chips.tables import OWN
from geopipes.chips.touching import items_of_each, sources
from geopipes.chips.windows import Windows
from geopipes.errors import ChipError

NAMED = 3
"""Items that an error names."""


def scene_labels(
    windows: Windows,
    table: pd.DataFrame | Mapping[str, Any] | str | os.PathLike[str],
    *,
    on: str = "item",
    columns: str | list[str] | None = None,
) -> Windows:
    """Give each chip the labels of the item that it shows, from a table; no pixels are read.

    Parameters
    ----------
    windows : (n,) a plan
    table : a row for each item: a DataFrame, the path of a CSV or Parquet file, or a dict of the ids, which becomes a
        column ``label``; `geopipes.catalogs.folder_classes` makes one of a folder for each class
    on : the column of the ids; where there is none of that name, the index holds them
    columns : that are taken; None for all others

    Returns
    -------
    the plan with these columns; ``tensor(columns=...)`` hands them to samples

    Raises
    ------
    ChipError
        if an item stands in no row, or in two, or a chip shows items whose labels differ
    """
    rows = _rows(table, on)
    wanted = _wanted(rows, [columns] if isinstance(columns, str) else columns)
    shown = _shown(windows)
    of_chip = np.repeat(np.arange(len(windows)), [len(each) for each in shown])
    begins = np.searchsorted(of_chip, np.arange(len(windows)))
    if len(np.unique(of_chip)) < len(windows):
        raise ChipError("scene_labels: some chips show no item; leave them out: chip(coverage='full')")
    places = _places(rows, [item for each in shown for item in each])
    found = {}
    for name in wanted:
        values = rows[name].to_numpy()[places]
        odd = np.flatnonzero(values != values[begins][of_chip])
        if odd.size:
            chip = int(of_chip[odd[0]])
            raise ChipError(
                f"scene_labels: chip {windows.ids[chip]} shows items of different {name!r}: "
                f"{', '.join(shown[chip][:NAMED])}; read each date alone, chip(time=1), or each item on its own grid, "
                "stack_each(...)"
            )
        texts = values.dtype == object and all(isinstance(one, str) for one in values)
        found[name] = values[begins].astype(str) if texts else values[begins]
    return windows.with_columns(found)


def _shown(windows: Windows) -> Sequence[tuple[str, ...]]:
    """Give the items that each chip shows: of cubes that are one item each without looking at outlines."""
    if not all(cube.alone for cube in windows.cubes):
        return list(items_of_each(windows))
    items = [(next(sources(cube))[1].item,) for cube in windows.cubes]
    return [items[cube] for cube in windows.cube.tolist()]


def _wanted(rows: pd.DataFrame, columns: list[str] | None) -> list[str]:
    """Give the columns that are taken; all of them must be there."""
    there = [str(name) for name in rows.columns]
    wanted = there if columns is None else columns
    if lacking := [name for name in wanted if name not in there]:
        near = get_close_matches(lacking[0], there, n=NAMED)
        raise ChipError(f"scene_labels: there is no column {lacking[0]!r}; there are {near or there}")
    if taken := [name for name in wanted if name in OWN]:
        raise ChipError(f"scene_labels: {taken} says what a plan is; rename the column, table.rename(columns=...)")
    return wanted


def _places(rows: pd.DataFrame, items: list[str]) -> npt.NDArray[np.intp]:
    """Give the row of each item."""
    places = rows.index.get_indexer(pd.Index(items, dtype=object))
    if lost := [*dict.fromkeys(item for item, place in zip(items, places, strict=True) if place < 0)]:
        near = get_close_matches(lost[0], [*map(str, rows.index)], n=NAMED)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {[*rows.index[:NAMED]]}, ..."
        raise ChipError(
            f"scene_labels: {len(lost)} of {len({*items})} items are not in the table, {lost[0]!r} first; {hint}"
        )
    return np.asarray(places)


def _rows(table: Any, on: str) -> pd.DataFrame:
    """Give a table by its items."""
    if isinstance(table, Mapping):
        table = pd.DataFrame({on: [*table], "label": [*table.values()]})
    if isinstance(table, str | os.PathLike):
        path = os.fspath(table)
        table = pd.read_parquet(path) if path.endswith(".parquet") else pd.read_csv(path, dtype={on: str})
    rows: pd.DataFrame = table.set_index(on) if on in table.columns else table
    if not rows.index.is_unique:
        twice = rows.index[rows.index.duplicated()][0]
        raise ChipError(f"scene_labels: item {twice!r} stands in two rows of the table; which of them is meant?")
    return rows
