"""Chips read straight into tensors, and these into the rows of their batch: no Dataset where no step asks for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from geopipes.chips import Windows
from geopipes.chips.loading import known
from geopipes.datacubes.cube import Cube, Window
from geopipes.datacubes.stackcube import StackCube
from geopipes.datacubes.together import JoinedCube
from geopipes.errors import TensorError
from geopipes.read.reader import Block
from geopipes.read.scratch import scratch
from geopipes.read.sources import Variable
from geopipes.steps import Step
from geopipes.tensors.cuts import Layer, nanoseconds, place
from geopipes.tensors.rows import Rows
from geopipes.tensors.samples import check_names
from geopipes.tensors.stacking import checked_fill, stacked, stored_dtype

BOOL = np.dtype(bool)


def sampler(windows: Windows, step: Step, rows: Rows) -> Callable[[Windows, int], dict[str, Any]] | None:
    """Give what reads the chip at a position to the very sample that the step ``tensor`` makes of its Dataset.

    Parameters
    ----------
    windows : the plan
    step : ``tensor``, with its options
    rows : of the batches that follow

    Returns
    -------
    None where Datasets are needed: for steps before, several inputs and arrays from elsewhere; and for options that
    ``tensor`` refuses, so that it says why
    """
    if type(windows) is not Windows or windows.steps or not usable(**step.kwargs):  # groups name cubes of their own
        return None
    wanted = Wanted(**step.kwargs)
    makers: list[Maker] = []
    for cube in windows.cubes:
        parts = Parts.of(cube)
        if parts is None or not wanted.known_to(parts, windows):
            return None
        try:
            makers.append(Maker(parts, wanted, rows))
        except TensorError:
            return None
    return lambda windows, position: makers[windows.values("cube", position)].sample(windows, position)


def usable(
    *, fill: float | None, dtype: Any, time_axis: bool, columns: str | Sequence[str], **tensors: str | Sequence[str]
) -> bool:
    """Say whether ``tensor`` takes these options, whatever the chip."""
    try:
        check_names(tensors, dtype, columns)
    except TensorError:
        return False
    return True


class Wanted:
    """The options of ``tensor``, all tensors as lists of variables."""

    def __init__(
        self, *, fill: float | None, dtype: Any, time_axis: bool, columns: str | Sequence[str], **tensors: Any
    ) -> None:
        self.fill, self.time_axis = fill, time_axis
        self.columns = [columns] if isinstance(columns, str) else list(columns)
        self.tensors = {name: [given] if isinstance(given, str) else list(given) for name, given in tensors.items()}
        self.plain = {name for name, given in tensors.items() if isinstance(given, str)}
        self._dtype = dtype

    def dtype(self, name: str) -> torch.dtype | None:
        """Give the dtype of a tensor, where one is asked for."""
        return self._dtype.get(name) if isinstance(self._dtype, Mapping) else self._dtype

    def known_to(self, parts: Parts, windows: Windows) -> bool:
        """Say whether all is there that is asked for, and can be had."""
        names = [name for variables in self.tensors.values() for name in variables]
        if not all(name in parts.owner for name in names) or not all(name in windows.columns for name in self.columns):
            return False
        timed = any(parts.timed(name) for name in names)
        return self.time_axis or not timed or (windows.dates or len(parts.stacks[0].stack.times or (0,))) == 1


@dataclass(frozen=True, eq=False)
class Parts:
    """A cube taken apart: the stack that ``valid`` speaks of, then those joined to it."""

    stacks: tuple[StackCube, ...]
    joins: tuple[JoinedCube, ...]

    @classmethod
    def of(cls, cube: Cube) -> Parts | None:
        """Take a cube apart; None where not all of it is read by our own reader."""
        joins: list[JoinedCube] = []
        while isinstance(cube, JoinedCube):
            joins.insert(0, cube)
            cube = cube.base
        cubes = [cube, *(join.other for join in joins)]
        stacks = tuple(part for part in cubes if isinstance(part, StackCube))
        return cls(stacks, tuple(joins)) if len(stacks) == len(cubes) else None

    @cached_property
    def owner(self) -> dict[str, int]:
        """Which stack holds a variable."""
        return {variable.name: i for i, part in enumerate(self.stacks) for variable in part.stack.variables}

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """All variables by name."""
        return {variable.name: variable for part in self.stacks for variable in part.stack.variables}

    def timed(self, name: str) -> bool:
        """Say whether a variable has dates."""
        return self.stacks[self.owner[name]].stack.times is not None


class Maker:
    """Makes samples of the chips of one cube.

    Raises
    ------
    TensorError
        the variables have no common dtype, or it does not hold the fill
    """

    def __init__(self, parts: Parts, wanted: Wanted, rows: Rows) -> None:
        self._parts, self._wanted, self._rows = parts, wanted, rows
        first = parts.stacks[0]
        self._wkt = first.dataset["spatial_ref"].attrs["crs_wkt"]
        self._times = (
            None if first.stack.times is None else nanoseconds(np.array(first.stack.times, "datetime64[ns]")).numpy()
        )
        self._stored = {
            name: stored_dtype(name, {v: parts.variables[v].dtype for v in variables}, wanted.dtype(name))
            for name, variables in wanted.tensors.items()
        }
        self._fills = {
            name: None if wanted.fill is None else checked_fill(name, wanted.fill, stored)
            for name, stored in self._stored.items()
            if any(parts.owner[variable] == 0 for variable in wanted.tensors[name])
        }
        self._picks = {name: self._pick(name) for name in wanted.tensors}
        self._whole = {parts.owner[v[0]]: name for name, v in wanted.tensors.items() if self._holds_a_stack(name)}

    def _pick(self, name: str) -> tuple[int | None, int | None]:
        """Give the place along time and bands where a tensor has no such axis; None for the whole axis."""
        variables = self._wanted.tensors[name]
        timed = any(self._parts.timed(variable) for variable in variables)
        one = name in self._wanted.plain and self._parts.variables[variables[0]].labels is None
        return None if timed and self._wanted.time_axis else 0, 0 if one else None

    def _holds_a_stack(self, name: str) -> bool:
        """Say whether a tensor is all variables of a stack, in order, so that the stack can be read into it."""
        variables = self._wanted.tensors[name]
        stack = self._parts.stacks[self._parts.owner[variables[0]]].stack
        dtypes, stored = {variable.dtype for variable in stack.variables}, self._stored[name]
        kept = self._wanted.dtype(name) in (None, torch.from_numpy(np.empty(0, stored)).dtype)
        in_order = variables == [variable.name for variable in stack.variables]
        return in_order and kept and len(dtypes) == 1 and np.can_cast(next(iter(dtypes)), stored, "safe")

    def sample(self, windows: Windows, position: int) -> dict[str, Any]:
        """Read a chip, and name its tensors."""
        _, window = windows.window(position)
        blocks: list[Block] = []
        made: dict[str, dict[str, torch.Tensor]] = {}
        for i, part in enumerate(self._parts.stacks):
            where = window if i == 0 else Window(window.rows, window.cols)
            if (name := self._whole.get(i)) is None:
                blocks.append(part.pixels(where))
            else:
                made[name], into = self._rows_of(position, name, i, where)
                blocks.append(part.pixels(where, into=into))
                self._fill(name, into)
        for join, block in zip(self._parts.joins, blocks[1:], strict=True):
            join.check_covered(block.complete, window)
        sample: dict[str, Any] = {}
        for name in self._wanted.tensors:
            sample |= made.get(name) or self._stacked(name, blocks)
        if self._times is not None:
            sample["time"] = torch.from_numpy(self._times[window.time or slice(None)].copy())
        if self._wanted.columns:
            row = known(windows, position)
            sample |= {name: row[name] for name in self._wanted.columns}
        return sample | self._place(windows, position, window)

    def _rows_of(self, position: int, name: str, i: int, window: Window) -> tuple[dict[str, torch.Tensor], Block]:
        """Give the rows of the batch that a stack is read into, as tensors and as a block."""
        stack = self._parts.stacks[i].stack
        dates = 1 if stack.times is None else len(stack.times[window.time or slice(None)])
        height, width = window.rows.stop - window.rows.start, window.cols.stop - window.cols.start
        shape = (dates, sum(len(variable.labels or ("",)) for variable in stack.variables), height, width)
        row, pixels = self._rows.row(position, name, shape, self._stored[name])
        if i == 0:
            valid, measured = self._rows.row(position, f"{name}_valid", (dates, height, width), BOOL)
        else:
            valid, measured = None, np.empty((dates, height, width), bool)
        dtype = stack.variables[0].dtype
        return self._named(name, row, valid), Block({dtype: pixels}, {dtype: scratch("ok", shape, BOOL)}, measured)

    def _fill(self, name: str, block: Block) -> None:
        """Write the fill where nothing was measured."""
        number = self._fills.get(name)
        if number is not None and not block.complete:
            (pixels,) = block.pixels.values()
            np.copyto(pixels, number, where=~block.valid[:, None])

    def _stacked(self, name: str, blocks: list[Block]) -> dict[str, torch.Tensor]:
        """Make one tensor, and its validity, of variables of several blocks, or of some of one."""
        layers = [self._layer(variable, blocks) for variable in self._wanted.tensors[name]]
        dtype = self._wanted.dtype(name)
        return self._named(name, *stacked(name, layers, blocks[0].valid, fill=self._wanted.fill, dtype=dtype))

    def _named(self, name: str, pixels: torch.Tensor, valid: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Name (time, band, y, x) and its validity, without the axes that are not asked for."""
        date, band = self._picks[name]
        pixels = pixels if date is None else pixels[0]
        tensors = {name: pixels if band is None else pixels.select(-3, 0)}
        if valid is not None:
            tensors[f"{name}_valid"] = valid if date is None else valid[0]
        return tensors

    def _layer(self, name: str, blocks: list[Block]) -> Layer:
        part, variable = self._parts.owner[name], self._parts.variables[name]
        pixels = blocks[part].pixels[variable.dtype][:, self._parts.stacks[part].reader.channels[name]]
        return Layer(name, pixels, self._parts.timed(name), variable.labels is not None, joined=part > 0)

    def _place(self, windows: Windows, position: int, window: Window) -> dict[str, Any]:
        grown = window.grown(windows.margin)
        dx, _, x0, _, dy, y0, *_ = self._parts.stacks[0].geobox.affine
        transform = (dx, 0.0, dx * grown.cols.start + x0, 0.0, dy, dy * grown.rows.start + y0)
        shape = (grown.rows.stop - grown.rows.start, grown.cols.stop - grown.cols.start)
        return place(windows.values("id", position), self._wkt, transform, shape, windows.margin)
