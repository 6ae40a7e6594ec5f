"""Where the variables of a chip go that is read straight into tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
import xarray as xr

from geopipes.edits import Array
from geopipes.tensors.cuts import Cut, Layer
from geopipes.tensors.programs import LYING, Program
from geopipes.tensors.stacking import Spoken, checked_fill, held_in, named, spoken, stored_dtype

Slots = tuple[tuple[str, slice], ...]
"""Variables and the bands of a tensor that they are."""


@dataclass(frozen=True, eq=False)
class Target:
    """A tensor that is to be written, (time or 1, band, y, x) of the dtype ``stored``.

    Attributes
    ----------
    name : of the tensor
    bands, stored, timed : its size and dtype, and whether it has all dates
    dtype, kept : of the tensor handed out, and whether it is the one that is written
    variables : all that it holds
    homes, copied : the bands that the last edit of a variable writes to, and those to which one is copied
    whole : the stack, by number, and the dtype of which all variables are read into it; None where there are none
    spoken : what tells where its bands are measured; nothing where all are joined
    number : written where nothing was measured; None for nothing
    pad : written to dates beyond the chip's own; None where there are none
    date, band : the place along time and bands where it has no such axis; None for the whole axis
    """

    name: str
    bands: int
    stored: np.dtype[Any]
    timed: bool
    dtype: torch.dtype
    kept: bool
    variables: tuple[str, ...]
    homes: Slots
    copied: Slots
    whole: tuple[int, np.dtype[Any]] | None
    spoken: Spoken
    number: np.generic | None
    pad: np.generic | None
    date: int | None
    band: int | None

    def named(self, pixels: torch.Tensor, valid: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Name (time, band, y, x) and its validity, without the axes that are not asked for."""
        pixels = pixels if self.kept else pixels.to(self.dtype)
        return named(self.name, pixels, valid, date=self.date, band=self.band)


def targets(
    program: Program,
    *,
    fill: float | None,
    dtype: torch.dtype | Mapping[str, torch.dtype] | None,
    time_axis: bool,
    length: int | None = None,
    **tensors: str | Sequence[str],
) -> list[Target]:
    """Tell where the variables of a program go, for options that ``tensor`` takes."""
    cut, wholes = Cut.of(program.small), set[Any]()
    homeless = {edit.name for edit in program.edits}
    found: list[Target] = []
    for name, given in tensors.items():
        layers = [cut.layer(name, variable) for variable in ([given] if isinstance(given, str) else given)]
        timed, told = any(layer.timed for layer in layers), spoken(layers, program.numbers)
        asked = dtype.get(name) if isinstance(dtype, Mapping) else dtype
        stored = stored_dtype(name, tuple((layer.name, layer.pixels.dtype) for layer in layers), asked)
        written = held_in(stored)
        ends = [*accumulate(layer.pixels.shape[1] for layer in layers)]
        whole = _whole(program, layers, stored)
        whole = None if whole in wholes else whole
        wholes.add(whole)
        homes, copied = [], []
        for layer, end in zip(layers, ends, strict=True):
            slot = (layer.name, slice(end - layer.pixels.shape[1], end))
            if layer.name in homeless and layer.pixels.dtype == stored and layer.timed == timed:
                homeless.remove(layer.name)
                homes.append(slot)
            elif whole is None or layer.name in program.edited:
                copied.append(slot)
        found.append(
            Target(
                name=name, bands=ends[-1], stored=stored, timed=timed,
                dtype=asked or written,
                kept=asked in (None, written),
                variables=tuple(layer.name for layer in layers), homes=tuple(homes), copied=tuple(copied), whole=whole,
                spoken=told, number=None if fill is None or not told else checked_fill(name, fill, stored),
                pad=None if fill is None or length is None or not timed else checked_fill(name, fill, stored),
                date=None if timed and time_axis else 0,
                band=0 if isinstance(given, str) and not layers[0].banded else None,
            )
        )  # fmt: skip
    return found


def _whole(program: Program, layers: Sequence[Layer], stored: np.dtype[Any]) -> tuple[int, np.dtype[Any]] | None:
    """Give the stack and the dtype whose variables are those of a tensor, all and in order, and can be read into it."""
    if layers[0].name not in program.variables:
        return None
    number, first = program.variables[layers[0].name]
    stack = program.stacks[number].stack
    variables = [variable for variable in stack.variables if variable.dtype == first.dtype]
    if [layer.name for layer in layers] != [variable.name for variable in variables]:
        return None
    for layer, variable in zip(layers, variables, strict=True):
        as_read = (stack.times is not None, variable.labels is not None, len(variable.labels or ("",)))
        if (layer.timed, layer.banded, layer.pixels.shape[1]) != as_read:
            return None
        if layer.name in program.edited and layer.pixels.dtype != stored:
            return None
    # What edits read must be to them what it is in its own dtype: float64 does not hold all integers of 64 bits.
    exact = first.dtype == stored or (first.dtype.kind in "iu" and first.dtype.itemsize < stored.itemsize)
    touched = any(layer.name in program.edited | program.read for layer in layers)
    fits = np.can_cast(first.dtype, stored, "safe") and (exact or not touched)
    return (number, first.dtype) if fits else None


def canonical(variable: xr.Variable) -> Array:
    """Give (time or 1, band or 1, y or 1, x or 1) of a variable."""
    bands = [dim for dim in variable.dims if dim not in LYING]
    order = ["time", *(bands or ["band"]), "y", "x"]
    there = [dim for dim in order if dim in variable.dims]
    return np.asarray(variable.transpose(*there).values.reshape([variable.sizes.get(dim, 1) for dim in order]))
