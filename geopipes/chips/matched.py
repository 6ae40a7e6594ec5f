"""Chips of several inputs, each at a date of its own: how they are read, and what stands for one that is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import xarray as xr

from geopipes.chips.frames import Frame
from geopipes.chips.windows import Indices, Windows
from geopipes.datacubes.cube import Cube, MappedCube, Window
from geopipes.datacubes.together import InputsCube
from geopipes.steps import Step

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from shapely import Geometry

MISSING = -1
"""Stands for the date of an input that has none."""


@dataclass(frozen=True, eq=False)
class Matched(Windows):
    """A plan whose chips hold one date of each of some inputs.

    Attributes
    ----------
    matches : (n,) by input: the date that each chip holds, by its place in the input; -1 where it is missing
    """

    matches: Frame = field(default_factory=lambda: Frame(0))

    def with_matches(self, places: Mapping[str, Indices]) -> Self:
        """Give the chips other dates: (n,) by input."""
        return replace(self, matches=Frame.of(len(self), {n: at.astype(np.int32) for n, at in places.items()}))

    def take(self, positions: npt.ArrayLike) -> Self:
        """Give the chips of these positions, in this order."""
        return replace(super().take(positions), matches=self.matches.take(positions))

    def deciding(self) -> Iterator[Indices]:
        """Give what decides the pixels of the chips."""
        yield from super().deciding()
        yield from (self.matches.column(name).astype(np.int64) for name in self.matches.names)

    def inputs(self) -> Iterator[Windows]:
        """Give a plan of each input alone: of one date, -1 where it is missing, or of all where none was chosen."""
        own = {part.name: getattr(self, part.name) for part in fields(Windows)}
        several = [inputs for cube in self.cubes if (inputs := inputs_of(cube)[0])]
        for name in several[0].cubes:
            cubes = tuple(replace(one, cubes={name: one.cubes[name]}) for one in several)
            alone = Windows(**{**own, "cubes": cubes})
            if name in self.matches.names:
                alone = replace(alone, dates=1).placed(time=self.matches.column(name))
            yield alone

    def window(self, position: int) -> tuple[Cube, Window]:
        """Give the inputs, each at the date of the chip at a position, and the chip's window."""
        cube, window = super().window(position)
        several, steps = inputs_of(cube)
        names = self.matches.names
        places = zip(names, self.matches.row(names, position), strict=True)
        found: Cube = Dates(several, {name: int(place) for name, place in places}) if several else cube
        for step in steps:
            found = MappedCube(found, step)
        return found, window


def inputs_of(cube: Cube) -> tuple[InputsCube | None, list[Step]]:
    """Give the inputs that a cube is made of, and the steps recorded on it; None where it is no cube of several."""
    steps: list[Step] = []
    while isinstance(cube, MappedCube):
        steps.insert(0, cube.step)
        cube = cube.base
    return (cube if isinstance(cube, InputsCube) else None), steps


@dataclass(frozen=True, eq=False)
class Dates(Cube):
    """Several inputs, some of them at one date; one that is missing has a date without a time, and nothing valid."""

    base: InputsCube
    at: Mapping[str, int]

    @property
    def geobox(self) -> GeoBox:
        """The grid of the first input."""
        return self.base.geobox

    @cached_property
    def dataset(self) -> dict[str, xr.Dataset]:
        """Every input, lazy."""
        whole = self.base.dataset
        return {name: self._dated(name, part) for name, part in whole.items()}

    def _dated(self, name: str, part: xr.Dataset) -> xr.Dataset:
        if name not in self.at:
            return part
        place = self.at[name]
        one = part.isel(time=[max(place, 0)])
        return one if place != MISSING else unknown(one)

    @cached_property
    def footprint(self) -> Geometry:
        """Where every input has pixels, over all dates."""
        return self.base.footprint

    def read(self, window: Window, names: tuple[str, ...] | None = None) -> dict[str, xr.Dataset]:
        """Read every input at its date."""
        parts = {}
        for name, part in self._windows(window).items():
            cube = self.base.cubes[name]
            if self.at.get(name) != MISSING:
                parts[name] = cube.read(part)
            elif all("time" in variable.dims for variable in cube.dataset.data_vars.values()):
                parts[name] = blank(shell(cube, part))
            else:  # what has no time is there all the same
                parts[name] = blank(cube.read(part))
        return parts

    def keys(self, window: Window) -> list[Any]:
        """Ask every input at its date."""
        there = {name: part for name, part in self._windows(window).items() if self.at.get(name) != MISSING}
        return [key for name, part in there.items() for key in self.base.cubes[name].keys(part)]

    def place(self, window: Window) -> dict[str, xr.Dataset]:
        """Give the coordinates of every input."""
        return self.base.place(window)

    def _windows(self, window: Window) -> dict[str, Window]:
        """Give the window of each input, at its date; of one that is missing the first, whose pixels are left."""
        found = {name: self.base.window_of(name, window) for name in self.base.cubes}
        for name, place in self.at.items():
            first = max(place, 0)
            found[name] = Window(found[name].rows, found[name].cols, slice(first, first + 1))
        return found


def unknown(chip: xr.Dataset) -> xr.Dataset:
    """Give a chip of one date another one, which is not known."""
    stated = chip["time"].attrs
    return chip.assign_coords(time=("time", np.array(["NaT"], "datetime64[ns]"), stated))


def shell(cube: Cube, window: Window) -> xr.Dataset:
    """Give a window of one date without its pixels."""
    one, place = cube.dataset.isel(time=[0]), cube.place(window)
    sizes = {**one.sizes, **place.sizes}
    variables = {}
    for name, variable in one.data_vars.items():
        shape = [sizes[dim] for dim in variable.dims]
        variables[name] = (variable.dims, np.broadcast_to(np.zeros((), variable.dtype), shape), variable.attrs)
    return xr.Dataset(variables, {**one.drop_dims(["y", "x"]).coords, **place.coords}, one.attrs)


def blank(chip: xr.Dataset) -> xr.Dataset:
    """Give a chip of one date on which nothing was measured; what has no time stays."""
    variables = {}
    for name, variable in chip.data_vars.items():
        if "time" in variable.dims:
            fill = np.nan if variable.dtype.kind in "fc" else variable.attrs.get("nodata", 0)
            empty = np.full(variable.shape, False if name == "valid" else fill, variable.dtype)
            variables[name] = (variable.dims, empty, variable.attrs)
    return unknown(chip.assign(variables))
