"""Values of a column to the numbers that are burnt: one mapping for all of the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from geopipes.errors import SourceError
from geopipes.labels.features import SOME, Array

REST = "*"
"""Stands for all values that a mapping does not name."""

MOST_NAMED = 1000
"""Whole numbers beyond which a column holds no classes, but numbers of some kind."""

Classes = Mapping[Any, int | None] | Sequence[Any]


@dataclass(frozen=True)
class Coding:
    """How values become numbers.

    Attributes
    ----------
    column : of the values; None where every feature is 1
    codes : by value; None for numbers that are burnt as they are
    rest : of values that are not among them, where ``listed`` is False; None leaves these features out
    listed : whether others are an error
    counts : features of each code, over all of the file
    names : of each code
    """

    column: str | None
    codes: Mapping[Any, int | None] | None
    rest: int | None
    listed: bool
    counts: Mapping[int, int]
    names: Mapping[int, str]

    @classmethod
    def of(cls, column: str | None, values: Array, classes: Classes | None, reserved: set[Any]) -> Coding:
        """Tell it of all values of a file.

        Parameters
        ----------
        column : their name; None where there is none
        values : of all features
        classes : as `rasterize` takes them
        reserved : numbers that codes which are made here must not be: of background and nodata

        Raises
        ------
        SourceError
            for values that the classes do not name, or that are none
        """
        if column is None:
            return cls(None, None, None, True, {1: len(values)}, {})
        found = _counted(values)
        if classes is None:
            codes = _made(column, values, found, reserved)
            if codes is None:
                return cls(column, None, None, True, {}, {})
            classes = codes
        elif not isinstance(classes, Mapping):
            numbers = (n for n in range(1, len(classes) + len(reserved) + 1) if n not in reserved)
            classes = dict(zip(classes, numbers, strict=False))
        given = dict(classes)
        listed, rest = REST not in given, given.pop(REST, None)
        if unknown := {value: count for value, count in found.items() if value not in given} if listed else {}:
            some = ", ".join(f"{value!r} ({count} features)" for value, count in [*unknown.items()][:SOME])
            raise SourceError(
                f"rasterize(column={column!r}): classes do not name {some}{', ...' if len(unknown) > SOME else ''}; "
                f"name them, or write classes={{..., {REST!r}: 9}} for all others, {REST!r}: None to leave them out"
            )
        counts: Counter[int] = Counter()
        names: dict[int, list[str]] = {code: [] for code in given.values() if code is not None}
        for value, count in found.items():
            code = given.get(value, rest)
            if code is not None:
                counts[code] += count
        for value, code in given.items():
            if code is not None:
                names[code].append(str(value))
        if rest is not None:
            names.setdefault(rest, []).append("other")
        return cls(
            column, given, rest, listed, {code: counts[code] for code in sorted(names)},
            {code: " or ".join(names[code]) for code in sorted(names)},
        )  # fmt: skip

    def encode(self, values: Array) -> tuple[Array, Array]:
        """Give the number of each value, and which features are burnt at all."""
        if self.column is None:
            return np.ones(len(values), np.int64), np.ones(len(values), bool)
        if self.codes is None:
            return values, np.ones(len(values), bool)
        asked = values.astype(object)
        asked[pd.isna(values)] = None
        at = pd.Index([*self.codes], dtype=object).get_indexer(pd.Index(asked, dtype=object))
        numbers = [*self.codes.values(), self.rest]
        if self.listed and (at < 0).any():
            raise SourceError(f"{self.column!r} holds {values[at < 0][0]!r} now, which was not there: the file changed")
        codes = np.array([0 if number is None else number for number in numbers], np.int64)
        kept = np.array([number is not None for number in numbers])
        return codes[at], kept[at]  # -1 is the last: the rest


def _made(column: str, values: Array, found: Mapping[Any, int], reserved: set[Any]) -> dict[Any, int] | None:
    """Make codes: whole numbers are their own, texts are counted in their order; None for numbers as they are."""
    if None in found:
        raise SourceError(
            f"rasterize(column={column!r}): {found[None]} features have no value; write classes={{..., None: number}}, "
            "or None: None to leave them out"
        )
    if all(isinstance(value, bool | int) for value in found):
        clash = sorted(reserved & found.keys())
        if clash:
            raise SourceError(
                f"rasterize(column={column!r}): {clash[0]} is a value of the column, and background or nodata too; "
                "choose another number for these, or say by classes={value: number} what is meant"
            )
        return {value: int(value) for value in sorted(found)} if len(found) <= MOST_NAMED else None
    if values.dtype.kind == "f":
        return None
    if not all(isinstance(value, str) for value in found):
        kinds = sorted({type(value).__name__ for value in found})
        raise SourceError(f"rasterize(column={column!r}) holds {', '.join(kinds)}; write classes={{value: number}}")
    numbers = (n for n in range(1, len(found) + len(reserved) + 1) if n not in reserved)
    return dict(zip(sorted(found), numbers, strict=False))


def _counted(values: Array) -> dict[Any, int]:
    """Count values; what is missing is None, and whole numbers are int, whatever held them."""
    counts = pd.Series(values).value_counts(dropna=False, sort=False)
    found: dict[Any, int] = {}
    for value, count in counts.items():
        found[_plain(value)] = found.get(_plain(value), 0) + int(count)
    return found


def _plain(value: Any) -> Any:
    """Give a value as Python has it."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value is pd.NA or value != value:
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value
