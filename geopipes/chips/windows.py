"""A plan: windows over cubes, a frame of whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt
import shapely

from geopipes.chips.frames import Frame, Numbers
from geopipes.chips.rows import ALL, At, chunks, small
from geopipes.datacubes.cube import Cube, Window
from geopipes.datacubes.lazies import first
from geopipes.errors import ChipError, MarginTooSmall, StepError
from geopipes.steps import Step

Indices = npt.NDArray[np.int64]

PLACE = ("id", "cube", "time", "row", "col")
"""What says which pixels a window holds, and its id."""

SIDE_BY_SIDE = 64
"""Windows whose places are looked up together, which takes as long as for a few."""

REMEMBERED = 8
"""How often what was looked up is remembered: for the windows that are read, and those of which the cache is told."""


class Columns(Mapping[str, npt.NDArray[Any]]):
    """What is known of windows beyond their place, by name; each (n,) is gathered when it is asked for."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._names = [name for name in frame.names if name not in PLACE]

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        column: npt.NDArray[Any] = self._frame.column(name)
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Order:
    """Which of many orders the chips of a plan stand in.

    Attributes
    ----------
    seed : of the verb that put them in order
    epoch : whose order it is
    again : ``again(windows, epoch=1)`` puts the same chips in the order of another epoch, whatever order they stand
        in; None where all epochs have one order
    stands : whether they stand in that order; those that were chosen from it stand as they were chosen
    share : (rank, ranks), whose part of an order this is; None for all of it
    """

    seed: int = 0
    epoch: int = 0
    again: Callable[..., Windows] | None = None
    stands: bool = True
    share: tuple[int, int] | None = None

    def key(self, number: int) -> tuple[int, int, int]:
        """Give the key of the random numbers of this epoch, of the chain's first step that draws, its second, ..."""
        return self.seed, self.epoch, number


@dataclass(frozen=True, eq=False)
class Windows(Sequence[Any]):
    """A plan: windows over cubes, nothing read.

    Plans that choose or order the windows of another share its columns. So a column is gathered each time it is
    asked for; a loop asks for some windows at a time, `values(name, at)`.

    Attributes
    ----------
    cubes : what the windows are cut from
    size : of each window, (y, x) [px of the (first) cube]
    margin : pixels read beyond the window on every side
    dates : dates in each window; None for all
    frame : (n,) the windows: ``id``, ``cube``, ``time``, ``row`` and ``col``, and what is known of them beyond
    left_out : windows that some source does not cover, or whose place belongs to another zone
    steps : what happens to each chip, recorded
    order : which of many orders they stand in
    """

    cubes: tuple[Cube, ...]
    size: tuple[int, int]
    margin: int
    dates: int | None
    frame: Frame
    left_out: int = 0
    steps: tuple[Step, ...] = ()
    order: Order = Order()

    @classmethod
    def of(
        cls,
        cubes: tuple[Cube, ...],
        size: tuple[int, int],
        *,
        row: npt.ArrayLike,
        col: npt.ArrayLike,
        cube: npt.ArrayLike = 0,
        time: npt.ArrayLike = 0,
        ids: npt.ArrayLike | None = None,
        margin: int = 0,
        dates: int | None = None,
        columns: Mapping[str, Any] = MappingProxyType({}),
    ) -> Self:
        """Make a plan of windows whose places are known.

        Parameters
        ----------
        cubes, size, margin, dates : as in `Windows`
        row, col : (n,) the first row and column of each window [px]
        cube, time : (n,) the number of its cube, and its first date's place there; or one for all
        ids : (n,) whole numbers; None for 0, 1, ...
        columns : (n,) each, or one value for all
        """
        n = max(np.size(row), np.size(col))
        frame = Frame.of(n, {"id": Numbers(n)})
        empty = cls(cubes, size, margin, dates, frame)
        return empty.placed(ids=ids, cube=cube, time=time, row=row, col=col).with_columns(columns)

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Windows: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Give the chip at a position, lazy: all of it is read at the first look at any of its pixels."""
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self)), dtype=np.min_scalar_type(-len(self) - 1)))
        from geopipes.chips.loading import look  # which knows this class

        return look(self, index)

    @property
    def ids(self) -> Indices:
        """Each window's id, its place in the plan as it was cut: (n,)."""
        whole: Indices = self.values("id")
        return whole

    @property
    def cube(self) -> Indices:
        """The number of each window's cube: (n,)."""
        whole: Indices = self.values("cube")
        return whole

    @property
    def time(self) -> Indices:
        """The place of each window's first date in its cube: (n,)."""
        whole: Indices = self.values("time")
        return whole

    @property
    def row(self) -> Indices:
        """Each window's first row [px]: (n,); below 0 where it reaches over the edge."""
        whole: Indices = self.values("row")
        return whole

    @property
    def col(self) -> Indices:
        """Each window's first column [px]: (n,)."""
        whole: Indices = self.values("col")
        return whole

    @cached_property
    def columns(self) -> Mapping[str, npt.NDArray[Any]]:
        """What is known of the windows beyond their place: a split's name, a probability, what was measured."""
        return Columns(self.frame)

    def values(self, name: str, at: At = ALL) -> Any:
        """Give ``id``, ``cube``, ``time``, ``row`` or ``col`` of some windows, by default of all.

        Returns
        -------
        (n,) int64, however small they are kept: sums and products of them do not overflow. One number for one window
        """
        found = self.frame.column(name, at)
        return int(found) if isinstance(at, int | np.integer) else found.astype(np.int64, copy=False)

    def pieces(self, name: str) -> Iterator[Indices]:
        """Give these values some windows at a time, in their order."""
        return (self.values(name, at) for at in chunks(len(self)))

    def deciding(self) -> Iterator[Indices]:
        """Give what decides the pixels of the windows beside cubes, sizes and steps: arrays of whole numbers."""
        return (piece for name in PLACE for piece in self.pieces(name))

    def take(self, positions: npt.ArrayLike) -> Self:
        """Give the plan of these positions, in this order."""
        order = replace(self.order, stands=False)
        return replace(self, left_out=0, frame=self.frame.take(positions), order=order)

    def placed(
        self,
        *,
        ids: npt.ArrayLike | None = None,
        cube: npt.ArrayLike | None = None,
        time: npt.ArrayLike | None = None,
        row: npt.ArrayLike | None = None,
        col: npt.ArrayLike | None = None,
    ) -> Self:
        """Give the windows other ids or places: (n,) each, or one for all."""
        given = dict(zip(PLACE, (ids, cube, time, row, col), strict=True))
        found = {name: small(values) for name, values in given.items() if values is not None}
        return replace(self, frame=self.frame.with_columns(found))

    def numbered(self) -> Self:
        """Give the windows the ids 0, 1, ... in their order."""
        return replace(self, frame=self.frame.with_columns({"id": Numbers(len(self))}))

    def with_columns(self, columns: Mapping[str, Any]) -> Self:
        """Add columns, or put others in their place.

        Parameters
        ----------
        columns : (n,) each, or one value for all, which then takes no memory

        Raises
        ------
        ChipError
            for another length, and for the names of the places
        """
        if taken := [name for name in columns if name in PLACE]:
            raise ChipError(f"columns {taken} would change what the plan is; write placed(...), or use other names")
        return replace(self, frame=self.frame.with_columns(columns))

    def map(self, step: Step) -> Windows:
        """Record a step; a step that needs neighbours uses the margin.

        Raises
        ------
        MarginTooSmall
            if the steps together need more pixels than the chips carry
        StepError
            if the step must see all dates, and the chips hold some
        """
        steps = (*self.steps, step)
        self.check_margin(step, sum(s.margin for s in steps))
        self.check_dates(step)
        return replace(self, steps=steps)

    def check_margin(self, step: Step, needed: int) -> None:
        """Raise where steps need more pixels around a chip than it carries."""
        if needed > self.margin:
            raise MarginTooSmall(
                f"{step} and the steps before it need {needed} px around each chip, which carries {self.margin}: "
                f"write chip(..., margin={needed})"
            )

    def check_dates(self, step: Step) -> None:
        """Raise where a step must see all dates and chips hold some of them."""
        if not step.all_dates or self.dates is None:
            return
        most = max(first(cube.dataset).sizes.get("time", 1) for cube in self.cubes)
        if self.dates < most:
            raise StepError(
                f"{step} must see all {most} dates of a place, and each chip holds {self.dates}: write it before the "
                f"dates are cut, .{step}.chip(..., time=...), whose chips then hold so many of its dates, or leave "
                "time= out"
            )

    def window(self, position: int) -> tuple[Cube, Window]:
        """Give the cube and the window (without margin) of the chip at a position."""
        _, cube, start, row, col = self._place(position)
        time = None if self.dates is None else slice(start, start + self.dates)
        window = Window(slice(row, row + self.size[0]), slice(col, col + self.size[1]), time)
        return self.cubes[cube], window

    def id(self, position: int) -> int:
        """Give the id of the chip at a position."""
        return self._place(position)[0]

    def _place(self, position: int) -> tuple[int, ...]:
        """Give `PLACE` of the chip at a position."""
        try:
            position = range(len(self))[position]
        except IndexError:
            raise IndexError(f"plan[{position}]: the plan has {len(self)} chips") from None
        number, index = divmod(position, SIDE_BY_SIDE)
        found = self._looked_up.get(number)
        if found is None:
            at = slice(position - index, min(position - index + SIDE_BY_SIDE, len(self)))
            found = [*zip(*(self.values(name, at).tolist() for name in PLACE), strict=True)]
            if len(self._looked_up) >= REMEMBERED:
                self._looked_up.clear()
            self._looked_up[number] = found
        return found[index]

    @cached_property
    def _looked_up(self) -> dict[int, list[tuple[int, ...]]]:
        return {}


def check_some(windows: Windows, call: str) -> None:
    """Raise where a plan has no windows; ``call`` is what asked for some."""
    if len(windows) == 0:
        raise ChipError(f"{call}: the plan has no chips; choose some")


def boxes(windows: Windows, which: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
    """Give the rectangles of some windows of one cube, cut to its grid, in its CRS."""
    cube, row, col = (windows.values(name, np.flatnonzero(which)) for name in ("cube", "row", "col"))
    return boxes_of(windows.cubes[int(cube[0])], windows.size, row, col) if len(cube) else np.empty(0, object)


def boxes_of(cube: Cube, size: tuple[int, int], row: Indices, col: Indices) -> npt.NDArray[np.object_]:
    """Give windows of a cube as rectangles, cut to its grid, in its CRS."""
    return boxes_between(cube, row, row + size[0], col, col + size[1])


def boxes_between(cube: Cube, top: Indices, bottom: Indices, left: Indices, right: Indices) -> npt.NDArray[np.object_]:
    """Give pixels of a cube as rectangles, cut to its grid, in its CRS."""
    affine, (height, width) = cube.geobox.affine, cube.geobox.shape
    xs = [affine.c + affine.a * np.clip(side, 0, width) for side in (left, right)]
    ys = [affine.f + affine.e * np.clip(side, 0, height) for side in (top, bottom)]
    found: npt.NDArray[np.object_] = shapely.box(xs[0], ys[1], xs[1], ys[0])
    return found
