"""What the chips of a cube are made of: stacks that are read, and edits of their variables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import xarray as xr

from geopipes import labels, normalizing, pixels
from geopipes.datacubes.cube import Cube, MappedCube
from geopipes.datacubes.lazies import template, templates
from geopipes.datacubes.stackcube import StackCube
from geopipes.datacubes.together import JoinedCube
from geopipes.edits import Edit, edited
from geopipes.labels.masks import MaskCube
from geopipes.read.sources import Variable
from geopipes.steps import Step

TOLD: Mapping[Callable[..., Any], Callable[..., list[Edit]]] = {
    pixels.scale: pixels.scaling,
    pixels.normalized_difference: pixels.differencing,
    pixels.to_decibel: pixels.decibels,
    pixels.spectral_index: pixels.indexing,
    pixels.mask_values: pixels.masking,
    pixels.mask_clouds: pixels.clouding,
    normalizing.normalize: normalizing.normalization,
    labels.remap: labels.remapping,
}
"""What tells the edits of a step."""

LYING = ("time", "y", "x")
"""Dims that are no bands."""


@dataclass(frozen=True, eq=False)
class Program:
    """How chips are made without a Dataset.

    Attributes
    ----------
    stacks : what is read: first the one that ``valid`` speaks of, then those joined to it
    joins : the cubes that join these, in order
    edits : done to their variables, in order
    small : a small twin of the chips, loaded
    """

    stacks: tuple[StackCube | MaskCube, ...]
    joins: tuple[JoinedCube, ...]
    edits: tuple[Edit, ...]
    small: xr.Dataset

    @classmethod
    def of(cls, cube: Cube, steps: Sequence[Step], dates: int | None, columns: Iterable[str] = ()) -> Program | None:
        """Tell it of a cube and of steps on its chips; None where these need Datasets.

        Parameters
        ----------
        cube : what chips are read from
        steps : that chips go through
        dates : in each chip; None for all
        columns : of the plan
        """
        parts: list[Step | JoinedCube] = list(steps)
        while isinstance(cube, MappedCube | JoinedCube):
            parts.insert(0, cube.step if isinstance(cube, MappedCube) else cube)
            cube = cube.base
        if not isinstance(cube, StackCube):
            return None
        small = template(cube.dataset, None if dates is None or cube.stack.times is None else slice(0, dates))
        small = small.assign_coords(chip=((), 0, dict.fromkeys(columns, 0) | {"margin": 0}))
        stacks: list[StackCube | MaskCube] = [cube]
        joins, edits = [], []
        for part in parts:
            if isinstance(part, JoinedCube):
                other = template(part.own(part.other.dataset))
                if not isinstance(part.other, StackCube | MaskCube) or _labelled_otherwise(other, small):
                    return None
                stacks.append(part.other)
                joins.append(part)
                small = small.assign(other.data_vars)
            else:
                if part.function not in TOLD or part.margin:
                    return None
                told = TOLD[part.function](small, *part.args, **part.kwargs)
                edits += [edit for edit in told if not edit.drops]  # nothing that follows reads the others
                with templates():
                    small = edited(small, told)
        bands = set(small.dims) - {*LYING}
        return cls(tuple(stacks), tuple(joins), tuple(edits), small) if len(bands) <= 1 else None

    @cached_property
    def variables(self) -> dict[str, tuple[int, Variable]]:
        """The variables that are read, and the stack of each."""
        return {v.name: (i, v) for i, part in enumerate(self.stacks) for v in part.stack.variables}

    @cached_property
    def edited(self) -> set[str]:
        """The variables that edits change or add."""
        return {edit.name for edit in self.edits}

    @cached_property
    def numbers(self) -> set[str]:
        """The variables that are NaN nowhere but where they are not valid: read of whole numbers, or by their edits."""
        read = {
            variable.name: all(source.dtype.kind in "iu" for step in variable.sources for source in step)
            for variable in self.stacks[0].stack.variables
        }
        return {name for name, sure in (read | {edit.name: edit.numbers for edit in self.edits}).items() if sure}

    @cached_property
    def read(self) -> set[str]:
        """The variables that edits read."""
        return {one for edit in self.edits for one in edit.reads if isinstance(one, str)}

    def needed(self, names: set[str]) -> list[Edit]:
        """Give the edits on which some variables depend, in order; names gets those that must be read for them."""
        kept: list[Edit] = []
        for edit in reversed(self.edits):
            if edit.name in names:
                names.discard(edit.name)
                names.update(read for read in edit.reads if isinstance(read, str))
                kept.insert(0, edit)
        return kept


def _labelled_otherwise(other: xr.Dataset, small: xr.Dataset) -> bool:
    """Say whether bands of two Datasets are labelled otherwise, where xarray aligns them."""
    return any(not other[band].equals(small[band]) for band in set(other.dims) & set(small.dims) - {*LYING})
