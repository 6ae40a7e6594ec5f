"""Cubes together: one joined to another, several side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import TYPE_CHECKING, Any

import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geopipes.datacubes.cube import Cube, Window
from geopipes.errors import GridMismatch, SourceError
from geopipes.read.failures import asking

if TYPE_CHECKING:
    import xarray as xr
    from shapely import Geometry


@dataclass(frozen=True, eq=False)
class JoinedCube(Cube):
    """A cube and, on the same grid, what has no time of its own: labels, elevation."""

    base: Cube
    other: Cube

    @property
    def geobox(self) -> GeoBox:
        """The base's grid."""
        return self.base.geobox

    @property
    def alone(self) -> bool:
        """Whether the base is."""
        return self.base.alone

    @cached_property
    def dataset(self) -> xr.Dataset:
        """Both, lazy; `valid` is the base's alone."""
        joined: xr.Dataset = self.base.dataset.assign(self.own(self.other.dataset).data_vars)
        return joined

    @cached_property
    def footprint(self) -> Geometry:
        """Where both have pixels."""
        return shapely.intersection(self.base.footprint, self.other.footprint)

    def read(self, window: Window, names: tuple[str, ...] | None = None) -> xr.Dataset:
        """Read both."""
        base: xr.Dataset = self.base.read(window, names)
        other = self.other.read(Window(window.rows, window.cols))
        self.check_covered(bool(other["valid"].values.all()), window)
        return base.assign(self.own(other).data_vars)

    def check_covered(self, covered: bool, window: Window) -> None:
        """Raise where the other leaves pixels of a window open, and nothing would tell them from measured ones.

        Raises
        ------
        SourceError
            says how to give such pixels a value
        """
        if covered:
            return
        for name, variable in self.own(self.other.dataset).data_vars.items():
            if variable.dtype.kind != "f" and "nodata" not in variable.attrs:
                asking.get().check_masked(f"join: {name!r} states no nodata")
                raise SourceError(
                    f"join: {name!r} states no nodata and does not cover rows {window.rows.start}.."
                    f"{window.rows.stop}, columns {window.cols.start}..{window.cols.stop} of the grid: "
                    "say which value stands for no label, join(..., nodata=255) or rasterize(..., nodata=255)"
                )

    def outlines(self) -> list[Geometry]:
        """Ask the base."""
        return self.base.outlines()

    def keys(self, window: Window) -> list[Any]:
        """Ask both."""
        return self.base.keys(window) + self.other.keys(Window(window.rows, window.cols))

    def place(self, window: Window) -> Any:
        """Ask the base."""
        return self.base.place(window)

    @staticmethod
    def own(other: xr.Dataset) -> xr.Dataset:
        """Give the other's variables, marked: their validity is not that of ``valid``."""
        own = other.drop_vars("valid", errors="ignore")
        for variable in own.data_vars.values():
            variable.attrs["joined"] = True
        return own


@dataclass(frozen=True, eq=False)
class InputsCube(Cube):
    """Several cubes side by side on one footprint, each with its own times and resolution.

    The footprint is what all of them span, cut to the edges that all their pixels share; windows count the
    pixels of the first. `places` holds for each input the row and column where the footprint begins and how
    many of its pixels stand for one of the first's, (y, x).
    """

    cubes: dict[str, Cube]
    grid: GeoBox
    places: dict[str, tuple[int, int, Fraction, Fraction]]

    @property
    def geobox(self) -> GeoBox:
        """The first input's grid, cut to the footprint."""
        return self.grid

    @cached_property
    def dataset(self) -> dict[str, xr.Dataset]:
        """Every input, lazy, cut to the footprint."""
        height, width = self.grid.shape
        parts = {}
        for name, cube in self.cubes.items():
            window = self.window_of(name, Window(slice(0, height), slice(0, width)))
            parts[name] = cube.dataset.isel(y=window.rows, x=window.cols)
        return parts

    @cached_property
    def footprint(self) -> Geometry:
        """Where every input has pixels."""
        return shapely.intersection_all([cube.footprint for cube in self.cubes.values()])

    def read(self, window: Window, names: tuple[str, ...] | None = None) -> dict[str, xr.Dataset]:
        """Read every input's part; a range of dates is the first input's, the others keep all of theirs."""
        return {name: cube.read(self.window_of(name, window)) for name, cube in self.cubes.items()}

    def keys(self, window: Window) -> list[Any]:
        """Ask every input."""
        return [key for name, cube in self.cubes.items() for key in cube.keys(self.window_of(name, window))]

    def place(self, window: Window) -> dict[str, xr.Dataset]:
        """Give the coordinates of a window in every input."""
        return {name: cube.place(self.window_of(name, window)) for name, cube in self.cubes.items()}

    def check_windows(self, size: tuple[int, int], stride: tuple[int, int], margin: int, call: str) -> None:
        """Raise where a window would cut a pixel of an input in two; ``call`` is what asked for it."""
        for name, (_, _, *ratios) in self.places.items():
            for axis, ratio in zip((0, 1), ratios, strict=True):
                lengths = {"size": size[axis], "size - overlap": stride[axis], "margin": margin}
                for what, length in lengths.items():
                    if (length * ratio).denominator != 1:
                        raise GridMismatch(
                            f"{call}: {what} of {length} px is {float(length * ratio):g} px of input {name!r}: "
                            f"use multiples of {ratio.denominator}"
                        )

    def enclosing(self, name: str | None, bounds: dict[str, slice]) -> tuple[Window, dict[str, slice]]:
        """Give the smallest window of whole pixels of all inputs that holds some pixels of one of them."""
        *_, ratio_y, ratio_x = self.places[name or next(iter(self.cubes))]
        ranges, inside = {}, {}
        for dim, axis, ratio in (("y", 2, ratio_y), ("x", 3, ratio_x)):
            period = lcm(*(place[axis].denominator for place in self.places.values()))
            start = int(bounds[dim].start / ratio) // period * period
            stop = -(int(-(bounds[dim].stop / ratio) // period) * period)
            ranges[dim] = slice(start, stop)
            offset = bounds[dim].start - int(start * ratio)
            inside[dim] = slice(offset, offset + bounds[dim].stop - bounds[dim].start)
        own_time = name == next(iter(self.cubes))
        if "time" in bounds:
            inside["time"] = slice(0, bounds["time"].stop - bounds["time"].start) if own_time else bounds["time"]
        return Window(ranges["y"], ranges["x"], bounds.get("time") if own_time else None), inside

    def window_of(self, name: str, window: Window) -> Window:
        """Count a window in an input's own pixels."""
        row, col, ratio_y, ratio_x = self.places[name]
        rows = slice(row + int(window.rows.start * ratio_y), row + int(window.rows.stop * ratio_y))
        cols = slice(col + int(window.cols.start * ratio_x), col + int(window.cols.stop * ratio_x))
        return Window(rows, cols, window.time if name == next(iter(self.cubes)) else None)


def side_by_side(cubes: dict[str, Cube]) -> InputsCube:
    """Put cubes of one CRS on their common footprint.

    Raises
    ------
    GridMismatch
        if pixel edges never meet, or the cubes share no place
    """
    reference = next(iter(cubes.values())).geobox
    starts, stops, places = {}, {}, {}
    for axis, length in (("y", reference.shape.y), ("x", reference.shape.x)):
        lines = {name: _line(cube.geobox, reference, axis, name) for name, cube in cubes.items()}
        low = max(Fraction(0), *(-offset / ratio for offset, ratio, _ in lines.values()))
        high = min(Fraction(length), *((n - offset) / ratio for offset, ratio, n in lines.values()))
        meets = [k for k in range(-(-low // 1), int(high // 1) + 1) if _whole(k, lines.values())]
        if len(meets) < 2:
            raise GridMismatch(
                f"inputs({', '.join(cubes)}) share no stretch of {axis} whose ends are pixel edges of all: "
                "use the same bounds, and resolutions that are multiples of each other"
            )
        starts[axis], stops[axis] = meets[0], meets[-1]
        places[axis] = {name: (int(offset + meets[0] * ratio), ratio) for name, (offset, ratio, _) in lines.items()}
    shape = (stops["y"] - starts["y"], stops["x"] - starts["x"])
    grid = GeoBox(shape, reference.affine @ Affine.translation(starts["x"], starts["y"]), reference.crs)
    merged = {n: (places["y"][n][0], places["x"][n][0], places["y"][n][1], places["x"][n][1]) for n in cubes}
    return InputsCube(cubes, grid, merged)


def _line(grid: GeoBox, reference: GeoBox, axis: str, name: str) -> tuple[Fraction, Fraction, int]:
    """Give, along one axis, where the reference begins in a grid's pixels, pixels per reference pixel, length."""
    if grid.crs != reference.crs:
        raise GridMismatch(f"inputs: {name!r} is in {grid.crs}, the first input in {reference.crs}: give both crs=")
    own, theirs = (grid.affine.e, reference.affine.e) if axis == "y" else (grid.affine.a, reference.affine.a)
    origin, begin = (grid.affine.f, reference.affine.f) if axis == "y" else (grid.affine.c, reference.affine.c)
    ratio = Fraction(theirs / own).limit_denominator(1000)
    offset = Fraction((begin - origin) / own).limit_denominator(1000)
    if abs(float(ratio) - theirs / own) > 1e-9 or abs(float(offset) - (begin - origin) / own) > 1e-6:
        raise GridMismatch(
            f"inputs: pixels of {name!r} ({own:g} in {axis}) and of the first input ({theirs:g}) share no edges: "
            "give both a resolution that divides the other's"
        )
    return offset, ratio, int(getattr(grid.shape, axis))


def _whole(k: int, lines: Iterable[tuple[Fraction, Fraction, int]]) -> bool:
    """Say whether the reference's pixel edge k is an edge in every grid."""
    return all((offset + k * ratio).denominator == 1 for offset, ratio, _ in lines)
