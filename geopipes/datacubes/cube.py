"""A cube: pixels on one grid that can be read window by window.

Every kind of cube (`StackCube`, `ArrayCube`, `JoinedCube`, `InputsCube`, and `MappedCube` here) has the same
three things: a lazy Dataset to look at, a footprint that says where there are sources, and `read`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import shapely

from geopipes import grids
from geopipes.datacubes.lazies import Array, cropped, first, spread, template, templates
from geopipes.steps import Step, dataset_wanted

if TYPE_CHECKING:
    from odc.geo.crs import CRS
    from odc.geo.geobox import GeoBox
    from shapely import Geometry


SPATIAL = ("y", "x", "spatial_ref")
"""The coordinates that say where a window lies."""

MADE = ("dataset", "footprint", "places", "reader", "_parts")
"""What a cube makes of itself when it is first asked for."""

EDGE_SLACK = 1e-3
"""Pixels by which a footprint is widened."""


@dataclass(frozen=True)
class Window:
    """Where to read: pixel ranges of the cube's grid, which may reach outside; ``time`` None for all dates."""

    rows: slice
    cols: slice
    time: slice | None = None

    def grown(self, margin: int) -> Window:
        """Add ``margin`` pixels on every side."""
        rows = slice(self.rows.start - margin, self.rows.stop + margin)
        return Window(rows, slice(self.cols.start - margin, self.cols.stop + margin), self.time)


class Cube(ABC):
    """Pixels on one grid."""

    @property
    @abstractmethod
    def geobox(self) -> GeoBox:
        """The grid, axis-aligned and north up; windows count its pixels."""

    @property
    def crs(self) -> CRS:
        """The grid's CRS."""
        return grids.crs_of(self.geobox)

    @property
    def alone(self) -> bool:
        """Whether it is one image of many, which shares its ground with none: no other zone's cube owns its places."""
        return False

    @cached_property
    @abstractmethod
    def dataset(self) -> Any:
        """All of the cube, lazy: an xr.Dataset, or a dict of them for inputs side by side."""

    @cached_property
    @abstractmethod
    def footprint(self) -> Geometry:
        """Where every source has pixels, in the grid's CRS."""

    def outlines(self) -> list[Geometry]:
        """Give for each date where there are pixels, in the grid's CRS: equal ones are one object."""
        dates = first(self.dataset).sizes.get("time", 0)
        return [self.footprint] * dates

    @abstractmethod
    def read(self, window: Window, names: tuple[str, ...] | None = None) -> Any:
        """Read a window into memory; pixels outside the grid or the sources are not valid.

        Parameters
        ----------
        window : where
        names : the variables wanted, None for all; more may come back

        Returns
        -------
        a loaded xr.Dataset with dims (time, y, x), or a dict of them
        """

    def keys(self, window: Window) -> list[Any]:
        """Name the decoded tiles that reading a window will use: what the cache is told beforehand."""
        return []

    @abstractmethod
    def place(self, window: Window) -> Any:
        """Give the coordinates y, x and spatial_ref of a window: an xr.Dataset, or a dict of them."""

    def map(self, step: Step) -> Cube:
        """Record a step, to be run window by window."""
        return MappedCube(self, step)

    def check_windows(self, size: tuple[int, int], stride: tuple[int, int], margin: int, call: str) -> None:
        """Raise where such windows do not fall on whole pixels; only cubes of several grids can object."""
        return

    def enclosing(self, name: str | None, bounds: dict[str, slice]) -> tuple[Window, dict[str, slice]]:
        """Give the smallest window that holds some pixels of one input, and where they stand in it.

        Parameters
        ----------
        name : of the input; None where there is one Dataset
        bounds : pixel ranges of that input's own grid, by dim
        """
        inside = {dim: slice(0, bound.stop - bound.start) for dim, bound in bounds.items()}
        return Window(bounds["y"], bounds["x"], bounds.get("time")), inside

    def __getstate__(self) -> dict[str, Any]:
        """Leave lazily built views behind: they are made again where they are needed."""
        own = getattr(self, "__dataclass_fields__", ())
        return {key: value for key, value in self.__dict__.items() if key in own or key not in MADE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what `__getstate__` kept, frozen dataclasses included."""
        self.__dict__.update(state)


class Cubes(Sequence[Any]):
    """Several cubes, one for each grid; iterating gives their lazy Datasets."""

    def __init__(self, cubes: Sequence[Cube]) -> None:
        self.cubes = tuple(cubes)

    def __len__(self) -> int:
        return len(self.cubes)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Cubes: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Give the lazy Dataset of one cube, or fewer cubes."""
        return Cubes(self.cubes[index]) if isinstance(index, slice) else self.cubes[index].dataset

    def __iter__(self) -> Iterator[Any]:
        return (cube.dataset for cube in self.cubes)

    def map(self, step: Step) -> Cubes:
        """Record a step on every cube."""
        return Cubes([cube.map(step) for cube in self.cubes])

    def __add__(self, other: Cubes) -> Cubes:
        return Cubes(self.cubes + other.cubes)


@dataclass(frozen=True, eq=False)
class MappedCube(Cube):
    """A cube with a recorded step: each window is read with the step's margin and taken through it once."""

    base: Cube
    step: Step

    @property
    def geobox(self) -> GeoBox:
        """The grid of the base: a step never moves pixels."""
        return self.base.geobox

    @property
    def alone(self) -> bool:
        """Whether the base is."""
        return self.base.alone

    @cached_property
    def dataset(self) -> Any:
        """All of the cube, lazy; dims and dtypes found by running the step on a small template."""
        base = self.base.dataset
        small = template(base)
        with templates():
            result = dataset_wanted(self.step, self.step(small), small)
        if isinstance(result, dict):
            return {
                name: spread(part, base.get(name, first(base)), self._reader(name)) for name, part in result.items()
            }
        return spread(result, base, self._reader(None))

    @cached_property
    def footprint(self) -> Geometry:
        """Where every source has pixels: the base's."""
        return self.base.footprint

    def outlines(self) -> list[Geometry]:
        """Ask the base, unless the step changes the dates: then there are pixels wherever there are some."""
        before, after = (first(dataset).coords.get("time") for dataset in (self.base.dataset, self.dataset))
        same = before is not None and after is not None and np.array_equal(before, after, equal_nan=True)
        return self.base.outlines() if same else super().outlines()

    def check_windows(self, size: tuple[int, int], stride: tuple[int, int], margin: int, call: str) -> None:
        """Ask the base."""
        self.base.check_windows(size, stride, margin, call)

    def enclosing(self, name: str | None, bounds: dict[str, slice]) -> tuple[Window, dict[str, slice]]:
        """Ask the base."""
        return self.base.enclosing(name, bounds)

    def read(self, window: Window, names: tuple[str, ...] | None = None) -> Any:
        """Read the base's window and apply the step."""
        based = self._based(window)
        pick_dates = window.time is not None and based.time is None
        element = self.base.read(based)
        element = dataset_wanted(self.step, self.step(element), element)
        if self.step.margin:
            element = relocated(cropped(element, self.step.margin), self.place(window))
        if pick_dates:
            key = next(iter(element)) if isinstance(element, dict) else None
            part = first(element).isel(time=window.time)
            element = part if key is None else {**element, key: part}
        return element

    def keys(self, window: Window) -> list[Any]:
        """Ask the base for the window that `read` reads."""
        return self.base.keys(self._based(window))

    def place(self, window: Window) -> Any:
        """Ask the base."""
        return self.base.place(window)

    def _based(self, window: Window) -> Window:
        """Give the base's window: with the step's margin, and all dates unless the step looks at each alone."""
        pick_dates = window.time is not None and not self.step.local_in_time
        return Window(window.rows, window.cols, None if pick_dates else window.time).grown(self.step.margin)

    def _reader(self, key: str | None) -> Callable[[str, dict[str, slice]], Array]:
        """Give what reads a block of a variable of one input."""

        def read(name: str, bounds: dict[str, slice]) -> Array:
            window, inside = self.enclosing(key, bounds)
            element = self.read(window) if key is None else self.read(window)[key]
            values: Array = element[name].isel(inside).values
            return values

        return read


def relocated(element: Any, place: Any) -> Any:
    """Let a cropped element state where it lies now."""
    if isinstance(element, dict):
        return {name: relocated(part, place.get(name, first(place))) for name, part in element.items()}
    return element.assign_coords(spatial_ref=place["spatial_ref"].variable)


def widened(geometry: Geometry, geobox: GeoBox) -> Geometry:
    """Widen a footprint by far less than a pixel, so that rounding never drops a window at a raster's edge."""
    slack = EDGE_SLACK * min(abs(geobox.resolution.x), abs(geobox.resolution.y))
    return shapely.buffer(geometry, slack, join_style="mitre")
