"""Chips read straight into tensors, and these into the rows of their batch: no Dataset where no step asks for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from affine import Affine

from geopipes.chips import Windows
from geopipes.datacubes.cube import Cube, Window
from geopipes.datacubes.stackcube import StackCube
from geopipes.datacubes.together import JoinedCube
from geopipes.errors import TensorError
from geopipes.read.reader import Block
from geopipes.read.sources import Variable
from geopipes.steps import Step
from geopipes.tensors.cuts import Layer, nanoseconds, place
from geopipes.tensors.rows import Rows
from geopipes.tensors.samples import check_names
from geopipes.tensors.stacking import stacked, stored_dtype


def sampler(windows: Windows, step: Step, size: int) -> Callable[[Windows, int], dict[str, Any]] | None:
    """Give what reads the chip at a position to the very sample that the step ``tensor`` makes of its Dataset.

    Parameters
    ----------
    windows : the plan
    step : ``tensor``, with its options
    size : samples of the batches that follow; 1 where none do

    Returns
    -------
    None where Datasets are needed: for steps before, several inputs and arrays from elsewhere; and for options that
    ``tensor`` refuses, so that it says why
    """
    if windows.steps or not usable(**step.kwargs):
        return None
    wanted = Wanted(**step.kwargs)
    makers: list[Maker] = []
    rows = Rows(size, len(windows))
    for cube in windows.cubes:
        parts = Parts.of(cube)
        if parts is None or not wanted.known_to(parts, windows.dates):
            return None
        makers.append(Maker(parts, wanted, rows))

    def sample(windows: Windows, position: int) -> dict[str, Any]:
        try:
            return makers[int(windows.cube[position])].sample(windows, position)
        except TensorError as error:
            error.add_note(f"in step {step}")
            error.add_note(f"at element {position} (chip {windows.ids[position]})")
            raise

    return sample


def usable(*, fill: float | None, dtype: Any, time_axis: bool, **tensors: str | Sequence[str]) -> bool:
    """Say whether ``tensor`` takes these options, whatever the chip."""
    try:
        check_names(tensors, dtype)
    except TensorError:
        return False
    return True


class Wanted:
    """The options of ``tensor``, all tensors as lists of variables."""

    def __init__(self, *, fill: float | None, dtype: Any, time_axis: bool, **tensors: str | Sequence[str]) -> None:
        self.fill, self.time_axis = fill, time_axis
        self.tensors = {name: [given] if isinstance(given, str) else list(given) for name, given in tensors.items()}
        self.plain = {name for name, given in tensors.items() if isinstance(given, str)}
        self._dtype = dtype

    def dtype(self, name: str) -> torch.dtype | None:
        """Give the dtype of a tensor, where one is asked for."""
        return self._dtype.get(name) if isinstance(self._dtype, Mapping) else self._dtype

    def known_to(self, parts: Parts, dates: int | None) -> bool:
        """Say whether all is there that is asked for, and can be had."""
        names = [name for variables in self.tensors.values() for name in variables]
        if not all(name in parts.owner for name in names):
            return False
        timed = any(parts.timed(name) for name in names)
        return self.time_axis or not timed or (dates or len(parts.stacks[0].stack.times or (0,))) == 1


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
    """Makes samples of the chips of one cube."""

    def __init__(self, parts: Parts, wanted: Wanted, rows: Rows) -> None:
        self._parts, self._wanted, self._rows = parts, wanted, rows
        self._wkt = parts.stacks[0].dataset["spatial_ref"].attrs["crs_wkt"]
        self._stored = {
            name: stored_dtype(name, {v: parts.variables[v].dtype for v in variables}, wanted.dtype(name))
            for name, variables in wanted.tensors.items()
        }
        # A stack whose variables are a tensor, all of them and in order, is read into that tensor.
        self._whole: dict[int, str] = {}
        for name, variables in wanted.tensors.items():
            part = parts.stacks[parts.owner[variables[0]]]
            dtypes = {variable.dtype for variable in part.stack.variables}
            stored = self._stored[name]
            kept = wanted.dtype(name) in (None, torch.from_numpy(np.empty(0, stored)).dtype)
            all_of_it = variables == [variable.name for variable in part.stack.variables]
            if all_of_it and len(dtypes) == 1 and kept and np.can_cast(next(iter(dtypes)), stored, "safe"):
                self._whole[parts.owner[variables[0]]] = name

    def sample(self, windows: Windows, position: int) -> dict[str, Any]:
        """Read a chip, and name its tensors."""
        _, window = windows.window(position)
        blocks: list[Block] = []
        rows: dict[str, torch.Tensor] = {}
        for i, part in enumerate(self._parts.stacks):
            where = window if i == 0 else Window(window.rows, window.cols)
            into = None
            if (name := self._whole.get(i)) is not None:
                rows[name] = self._row(position, name, part, windows.size, where)
                into = {part.stack.variables[0].dtype: rows[name].numpy()}
            blocks.append(part.pixels(where, into=into))
        for join, block in zip(self._parts.joins, blocks[1:], strict=True):
            join.check_covered(bool(block.valid.all()), window)
        sample: dict[str, Any] = {}
        for name in self._wanted.tensors:
            sample |= self._tensor(name, blocks, rows.get(name))
        first = self._parts.stacks[0]
        if first.stack.times is not None:
            sample["time"] = nanoseconds(np.array(first.stack.times[window.time or slice(None)], "datetime64[ns]"))
        return sample | self._place(windows, position, window)

    def _row(self, position: int, name: str, part: StackCube, size: tuple[int, int], window: Window) -> torch.Tensor:
        dates = 1 if part.stack.times is None else len(part.stack.times[window.time or slice(None)])
        channels = sum(len(variable.labels or ("",)) for variable in part.stack.variables)
        dtype = torch.from_numpy(np.empty(0, self._stored[name])).dtype
        return self._rows.row(position, name, (dates, channels, *size), dtype)

    def _tensor(self, name: str, blocks: list[Block], row: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Make one tensor, and its validity."""
        variables = self._wanted.tensors[name]
        if row is None:
            layers = [self._layer(variable, blocks) for variable in variables]
        else:
            part = self._parts.owner[variables[0]]
            layers = [Layer(name, row.numpy(), self._parts.timed(variables[0]), True, joined=part > 0)]
        made, valid = stacked(
            name, layers, blocks[0].valid, fill=self._wanted.fill, dtype=self._wanted.dtype(name), owned=row is not None
        )
        made = made if row is None else row
        timed = any(layer.timed for layer in layers)
        date = slice(None) if timed and self._wanted.time_axis else 0
        one = name in self._wanted.plain and self._parts.variables[variables[0]].labels is None
        tensors = {name: made[date, 0 if one else slice(None)]}
        return tensors if valid is None else tensors | {f"{name}_valid": valid[date]}

    def _layer(self, name: str, blocks: list[Block]) -> Layer:
        part, variable = self._parts.owner[name], self._parts.variables[name]
        pixels = blocks[part].pixels[variable.dtype][:, self._parts.stacks[part].reader.channels[name]]
        return Layer(name, pixels, self._parts.timed(name), variable.labels is not None, joined=part > 0)

    def _place(self, windows: Windows, position: int, window: Window) -> dict[str, Any]:
        grown = window.grown(windows.margin)
        geobox = self._parts.stacks[0].geobox
        dx, _, x0, _, dy, y0, *_ = geobox.affine @ Affine.translation(grown.cols.start, grown.rows.start)
        shape = (grown.rows.stop - grown.rows.start, grown.cols.stop - grown.cols.start)
        return place(int(windows.ids[position]), self._wkt, (dx, 0.0, x0, 0.0, dy, y0), shape, windows.margin)
