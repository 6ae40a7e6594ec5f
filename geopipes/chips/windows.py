"""A plan: windows over cubes as integer arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import shapely

from geopipes.datacubes.cube import Cube, Window
from geopipes.errors import ChipError, MarginTooSmall
from geopipes.steps import Step

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Windows(Sequence[Any]):
    """A plan: windows over cubes, nothing read.

    Attributes
    ----------
    cubes : what the windows are cut from
    size : of each window, (y, x) [px of the (first) cube]
    margin : pixels read beyond the window on every side
    dates : dates in each window; None for all
    ids : (n,) each window's place in the plan as it was cut
    cube, time, row, col : (n,) the cube, and the first date, row and column of each window
    left_out : windows that some source does not cover, or whose place belongs to another zone
    steps : what happens to each chip, recorded
    columns : (n,) each, what is known of the windows beyond their place: a split's name, the probability with which
        a window was drawn, what was measured
    """

    cubes: tuple[Cube, ...]
    size: tuple[int, int]
    margin: int
    dates: int | None
    ids: Indices
    cube: Indices
    time: Indices
    row: Indices
    col: Indices
    left_out: int = 0
    steps: tuple[Step, ...] = ()
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Windows: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Give the chip at a position, lazy: all of it is read at the first look at any of its pixels."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        from geopipes.chips.loading import look  # which knows this class

        return look(self, index)

    def take(self, positions: npt.ArrayLike) -> Windows:
        """Give the plan of these positions, in this order."""
        pick = np.asarray(positions, dtype=np.int64)
        places = {name: getattr(self, name)[pick] for name in ("ids", "cube", "time", "row", "col")}
        columns = {name: column[pick] for name, column in self.columns.items()}
        return replace(self, left_out=0, columns=columns, **places)

    def map(self, step: Step) -> Windows:
        """Record a step; a step that needs neighbours uses the margin.

        Raises
        ------
        MarginTooSmall
            if the steps together need more pixels than the chips carry
        """
        steps = (*self.steps, step)
        self.check_margin(step, sum(s.margin for s in steps))
        return replace(self, steps=steps)

    def check_margin(self, step: Step, needed: int) -> None:
        """Raise where steps need more pixels around a chip than it carries."""
        if needed > self.margin:
            raise MarginTooSmall(
                f"{step} and the steps before it need {needed} px around each chip, which carries {self.margin}: "
                f"write chip(..., margin={needed})"
            )

    def window(self, position: int) -> tuple[Cube, Window]:
        """Give the cube and the window (without margin) of the chip at a position."""
        if not -len(self) <= position < len(self):
            raise IndexError(f"plan[{position}]: the plan has {len(self)} chips")
        i = range(len(self))[position]
        row, col, start = int(self.row[i]), int(self.col[i]), int(self.time[i])
        time = None if self.dates is None else slice(start, start + self.dates)
        window = Window(slice(row, row + self.size[0]), slice(col, col + self.size[1]), time)
        return self.cubes[int(self.cube[i])], window


def check_some(windows: Windows, call: str) -> None:
    """Raise where a plan has no windows; ``call`` is what asked for some."""
    if len(windows) == 0:
        raise ChipError(f"{call}: the plan has no chips; choose some")


def boxes(windows: Windows, which: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
    """Give the rectangles of some windows of one cube, cut to its grid, in its CRS."""
    indices = np.flatnonzero(which)
    geobox = windows.cubes[int(windows.cube[indices[0]])].geobox if len(indices) else None
    if geobox is None:
        return np.empty(0, object)
    affine, (height, width) = geobox.affine, geobox.shape
    top, left = windows.row[indices], windows.col[indices]
    bottom, right = np.minimum(top + windows.size[0], height), np.minimum(left + windows.size[1], width)
    xs = [affine.c + affine.a * np.clip(col, 0, width) for col in (left, right)]
    ys = [affine.f + affine.e * np.clip(row, 0, height) for row in (top, bottom)]
    rectangles: npt.NDArray[np.object_] = shapely.box(xs[0], ys[1], xs[1], ys[0])
    return rectangles
