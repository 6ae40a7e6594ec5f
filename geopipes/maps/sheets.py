"""Where a plan's chips lie on the maps they make: one sheet for each grid and date, from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np

from geopipes.chips.footprints import times
from geopipes.chips.groups import Groups
from geopipes.chips.rows import chunks
from geopipes.chips.windows import Indices, Windows
from geopipes.errors import MapError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

AT_ONCE = 65_536
"""Ids of chips that are looked through at a time."""


@dataclass(frozen=True)
class Sheet:
    """One date of the rectangle of a cube's grid that chips cover, as far as the grid goes.

    Attributes
    ----------
    cube : its number
    time : the place of the chips' first date among the cube's; None where chips have all dates
    top, left, bottom, right : of the rectangle, in pixels of the cube
    rows : (k,) where rows of chips begin, ascending, in pixels of the cube
    starts : (k + 1,) the position in the plan of each row's first chip, and of what follows the last
    """

    cube: int
    time: int | None
    top: int
    left: int
    bottom: int
    right: int
    rows: Indices
    starts: Indices

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, in pixels of the cube."""
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True)
class Layout:
    """The sheets of a plan, in its order.

    Attributes
    ----------
    windows : the plan
    sheets : in order
    steps : (y, x) the largest number of pixels of which all chips' places are multiples, counted from their sheet's
        corner; 0 where there is one place
    """

    windows: Windows
    sheets: tuple[Sheet, ...]
    steps: tuple[int, int]

    @classmethod
    def of(cls, windows: Windows, call: str) -> Layout:
        """Lay out a plan.

        Raises
        ------
        MapError
            for groups of chips, and for chips in another order than from top to bottom
        """
        if isinstance(windows, Groups):
            raise MapError(f"{call}: groups of chips lie at several places; predict a plan of single chips")
        if len(windows) == 0:
            raise MapError(f"{call}: the plan has no chips; choose some")
        keys, starts = _rows(windows, call)
        own = np.flatnonzero(np.r_[True, (keys[1:, :2] != keys[:-1, :2]).any(axis=1), True])
        found: dict[int, list[tuple[Indices, Indices, Indices, int]]] = {}
        for first, last in zip(own[:-1].tolist(), own[1:].tolist(), strict=True):
            rows, at = keys[first:last, 2], starts[first : last + 1]
            cols = np.unique(np.concatenate([np.unique(part) for part in _parts(windows, "col", at[0], at[-1])]))
            found.setdefault(int(keys[first, 0]), []).append((rows, cols, at, int(keys[first, 1])))
        sheets, steps = [], [0, 0]
        for cube, dates in found.items():
            side = _sides(windows, cube, dates)
            for rows, cols, at, time in dates:
                steps = [gcd(steps[0], *(rows - side[0]).tolist()), gcd(steps[1], *(cols - side[1]).tolist())]
                sheets.append(Sheet(cube, None if windows.dates is None else time, *side, rows, at))
        return cls(windows, tuple(sheets), (steps[0], steps[1]))

    @cached_property
    def grids(self) -> list[int]:
        """The numbers of the cubes there are maps of, in order."""
        return [*dict.fromkeys(sheet.cube for sheet in self.sheets)]

    def geobox(self, sheet: Sheet, scale: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1))) -> GeoBox:
        """Give the grid of a sheet, with ``(pixels, of the map's pixels)`` along y and x."""
        from affine import Affine
        from odc.geo.geobox import GeoBox

        whole = self.windows.cubes[sheet.cube].geobox
        (py, qy), (px, qx) = scale
        moved = whole.affine @ Affine.translation(sheet.left, sheet.top) @ Affine.scale(qx / px, qy / py)
        height, width = sheet.shape
        return GeoBox((-(-height * py // qy), -(-width * px // qx)), moved, whole.crs)

    def date(self, sheet: Sheet) -> np.datetime64 | None:
        """Give the date of a sheet; None where its chips have all dates, or the cube none."""
        if sheet.time is None:
            return None
        date: np.datetime64 = times(self.windows.cubes[sheet.cube])[sheet.time]
        return None if np.isnat(date) else date

    def breaks(self, chips: int) -> Indices:
        """Give positions between which there are at least so many chips, each the first of a row of chips."""
        found = [0]
        for start in np.concatenate([sheet.starts[:-1] for sheet in self.sheets]).tolist():
            if start - found[-1] >= chips:
                found.append(start)
        return np.array(found, np.int64)

    def begin(self, sheet: int, row: int) -> int:
        """Give the position of the first chip that reaches below a row of a sheet."""
        if sheet == len(self.sheets):
            return len(self.windows)
        own = self.sheets[sheet]
        number = int(np.searchsorted(own.rows + self.windows.size[0], own.top + row, side="right"))
        return int(own.starts[number])

    def places(self, start: int) -> Places:
        """Find chips by their ids, in the order of the plan, from a position on."""
        return Places(self, start)


class Places:
    """Finds the chips of a plan by their ids as they come, in order; those that were refused are passed over."""

    def __init__(self, layout: Layout, start: int) -> None:
        self._layout, self._windows, self._next, self._sheet = layout, layout.windows, start, 0
        self._first, self._ids = start, np.empty(0, np.int64)

    def find(self, chip: int) -> tuple[int, int, int, int]:
        """Give the position of the next chip of this id, and its sheet, row and column from the sheet's corner.

        Raises
        ------
        MapError
            if none follows of this id
        """
        position = self._position(chip)
        while position >= self._layout.sheets[self._sheet].starts[-1]:
            self._sheet += 1
        sheet = self._layout.sheets[self._sheet]
        row, col = (self._windows.values(name, position) for name in ("row", "col"))
        return position, self._sheet, row - sheet.top, col - sheet.left

    def _position(self, chip: int) -> int:
        at = self._next
        while True:
            if not self._first <= at < self._first + len(self._ids):
                if at >= len(self._windows):
                    raise MapError(f"stitch: chip {chip} is none of the plan that follow; keep 'chip' as it is")
                self._first = at
                self._ids = self._windows.values("id", slice(at, min(at + AT_ONCE, len(self._windows))))
            found = np.flatnonzero(self._ids[at - self._first :] == chip)
            if len(found):
                self._next = at + int(found[0]) + 1
                return self._next - 1
            at = self._first + len(self._ids)


def _rows(windows: Windows, call: str) -> tuple[Indices, Indices]:
    """Give (k, 3) cube, date and row of each row of chips, and (k + 1,) the position of its first chip."""
    keys, starts = [np.empty((0, 3), np.int64)], [np.empty(0, np.int64)]
    last = np.full((1, 3), -1, np.int64)
    for at in chunks(len(windows)):
        key = np.stack([windows.values(name, at) for name in ("cube", "time", "row")], axis=1)
        steps = np.diff(key, axis=0, prepend=last if at.start else key[:1] - 1)
        changed = steps.any(axis=1)
        leading = np.take_along_axis(steps, (steps != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
        if (leading < 0).any():
            where = at.start + int((leading < 0).argmax())
            raise MapError(
                f"{call}: a map is made from top to bottom, and chip {windows.values('id', where)} at position {where} "
                "lies above the one before it; leave shuffle(...) out: chip(...).read() has the order of the plan"
            )
        keys.append(key[changed])
        starts.append(np.flatnonzero(changed) + at.start)
        last = key[-1:]
    return np.concatenate(keys), np.append(np.concatenate(starts), len(windows))


def _sides(windows: Windows, cube: int, dates: Sequence[Any]) -> tuple[int, int, int, int]:
    """Give top, left, bottom and right of the chips of one cube, as far as its grid goes."""
    rows, cols = (np.concatenate([each[axis] for each in dates]) for axis in (0, 1))
    height, width = windows.cubes[cube].geobox.shape
    bottom, right = int(rows.max()) + windows.size[0], int(cols.max()) + windows.size[1]
    return max(int(rows.min()), 0), max(int(cols.min()), 0), min(bottom, height), min(right, width)


def _parts(windows: Windows, name: str, start: int, stop: int) -> Iterator[Any]:
    """Give the values of windows between two positions, some at a time."""
    for first in range(int(start), int(stop), AT_ONCE):
        yield windows.values(name, slice(first, min(first + AT_ONCE, int(stop))))
