"""Where a window of a cube can begin: pixels, dates, and how much ground each pixel stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyproj

from geopipes.chips.windows import Indices
from geopipes.datacubes.cube import Cube, Cubes
from geopipes.datacubes.lazies import first
from geopipes.errors import ChipError, ChipTooLarge

Floats = npt.NDArray[np.float64]

EQUAL_AREA = pyproj.CRS(6933)
"""The plane on which ground is measured: cylindrical, equal-area, of the whole Earth (EASE-Grid 2.0)."""

AROUND = 2 * 17_367_530.4451615
"""Its width [m]."""

LATTICE = 33
"""Points a side at which a pixel's ground is computed; between them it is interpolated, within 1e-4."""

SLACK = 1 + 1e-3
"""By how much the most ground of a pixel may exceed that found on the lattice."""

ON_EDGE = 1e-3
"""Pixels by which a window may reach over the edge of what holds it: footprints are widened by as much."""


@dataclass(frozen=True)
class Field:
    """The positions that windows of one cube can take.

    Attributes
    ----------
    index, cube : the cube, and its number
    size : of a window, (y, x) [px]
    stride : pixels between positions, (y, x): one, but where a window would cut pixels of an input in two
    dates : the first dates that a window can have, by their place in the cube
    lattice : [m²] the ground of a pixel, at points evenly spaced over the grid, first and last at its edges
    """

    index: int
    cube: Cube
    size: tuple[int, int]
    stride: tuple[int, int]
    dates: Indices
    lattice: Floats

    @property
    def most_ground(self) -> float:
        """The most ground that a position can stand for [m²]."""
        return float(self.lattice.max()) * SLACK * self.stride[0] * self.stride[1]

    def ground(self, row: Indices, col: Indices) -> Floats:
        """Give the ground that positions stand for [m²], at the middle of their windows."""
        weights, cells = [], []
        for start, length, side in zip((row, col), self.cube.geobox.shape, self.size, strict=True):
            at = np.clip((start + side / 2) / length, 0, 1) * (LATTICE - 1)
            cell = np.minimum(at.astype(np.int64), LATTICE - 2)
            cells.append(cell)
            weights.append(at - cell)
        (y, x), (v, u) = cells, weights
        upper = self.lattice[y, x] * (1 - u) + self.lattice[y, x + 1] * u
        lower = self.lattice[y + 1, x] * (1 - u) + self.lattice[y + 1, x + 1] * u
        ground: Floats = (upper * (1 - v) + lower * v) * (self.stride[0] * self.stride[1])
        return ground

    def positions(self, bounds: Floats, *, whole: bool, on_grid: bool) -> tuple[Indices, Indices]:
        """Give where windows can begin.

        Parameters
        ----------
        bounds : (k, 4) left, bottom, right, top, in the cube's CRS
        whole : whether the bounds hold the window, or its middle alone
        on_grid : whether the grid holds the window too

        Returns
        -------
        (k, 2) the first row and column, and (k, 2) how many there are, both in strides
        """
        affine, low, count = self.cube.geobox.affine, [], []
        sides = ((3, 1, affine.f, affine.e), (0, 2, affine.c, affine.a))
        for axis, (begin, end, origin, step) in enumerate(sides):
            size, stride, length = self.size[axis], self.stride[axis], self.cube.geobox.shape[axis]
            start, stop = (bounds[:, begin] - origin) / step, (bounds[:, end] - origin) / step
            start, stop = (start, stop - size) if whole else (start - size / 2, stop - size / 2)
            if on_grid:
                start, stop = np.maximum(start, 0), np.minimum(stop, length - size)
            lowest = np.ceil((start - ON_EDGE) / stride)
            low.append(lowest)
            count.append(np.maximum(np.floor((stop + ON_EDGE) / stride) - lowest + 1, 0))
        return np.stack(low, axis=1).astype(np.int64), np.stack(count, axis=1).astype(np.int64)


def fields(
    cubes: Cubes,
    size: tuple[int, int],
    call: str,
    *,
    margin: int,
    time: int | None,
    period: tuple[str, str] | None = None,
) -> tuple[list[Field], int | None]:
    """Give the positions of each cube that has dates for a window, and how many dates a window has.

    ``call`` is what asked for them, for errors.

    Raises
    ------
    ChipError
        for a size or margin that makes no window, and where no date lies in the period
    ChipTooLarge
        if a window has more dates than a cube
    GridMismatch
        if windows would cut pixels of an input in two
    """
    if min(size) < 1 or margin < 0:
        raise ChipError(f"{call}: size={size}, margin={margin}: size must be at least 1 px, margin at least 0")
    begins, dates = _begins(cubes, time, period, call)
    found = []
    for index, (cube, starts) in enumerate(zip(cubes.cubes, begins, strict=True)):
        if len(starts):
            pixel, _ = cube.enclosing(None, {"y": slice(0, 1), "x": slice(0, 1)})
            stride = (pixel.rows.stop - pixel.rows.start, pixel.cols.stop - pixel.cols.start)
            cube.check_windows(size, stride, margin, call)
            found.append(Field(index, cube, size, stride, starts, _ground(cube)))
    return found, dates


def date_starts(cube: Cube, time: int | None, call: str) -> Indices:
    """Give the dates at which windows of so many dates can begin.

    Raises
    ------
    ChipTooLarge
        if a window has more dates than the cube, or none
    """
    if time is None:
        return np.zeros(1, np.int64)
    dates = first(cube.dataset).sizes.get("time", 0)
    if not 1 <= time <= dates:
        raise ChipTooLarge(f"{call}: time={time}: the cube has {dates} dates; use a smaller number, or None for all")
    return np.arange(dates - time + 1, dtype=np.int64)


def _begins(
    cubes: Cubes, time: int | None, period: tuple[str, str] | None, call: str
) -> tuple[list[Indices], int | None]:
    """Give, for each cube, the dates at which windows can begin, and how many dates a window has."""
    if period is None:
        return [date_starts(cube, time, call) for cube in cubes.cubes], time
    try:
        low, high = np.datetime64(period[0]), np.datetime64(period[1]) + 1
    except ValueError as error:
        raise ChipError(f"{call}: period={period}: give first and last as ISO dates, ('2024-05', '2024-09')") from error
    begins, spans = [], []
    for cube in cubes.cubes:
        times = first(cube.dataset)["time"].values if "time" in first(cube.dataset).coords else np.empty(0, "M8[ns]")
        inside = np.flatnonzero((times >= low) & (times < high))
        begins.append(inside if time is None else inside[: max(len(inside) - time + 1, 0)])
        spans.append(len(inside))
    if not any(len(starts) for starts in begins):
        raise ChipError(
            f"{call}: period={period}: the cubes have {spans} dates in it, {time or 1} needed; give a longer one"
        )
    if time is None:
        if len({*spans} - {0}) > 1:
            raise ChipError(
                f"{call}: period={period}: the cubes have {spans} dates in it; write time=, so that chips have as many"
            )
        return [starts[:1] for starts in begins], max(spans)
    return begins, time


def _ground(cube: Cube) -> Floats:
    """Give the ground of a pixel [m²] at points over the grid: (LATTICE, LATTICE)."""
    affine, (height, width) = cube.geobox.affine, cube.geobox.shape
    x, y = np.meshgrid(
        affine.c + affine.a * width * np.linspace(0, 1, LATTICE),
        affine.f + affine.e * height * np.linspace(0, 1, LATTICE),
    )
    onto = pyproj.Transformer.from_crs(cube.crs.proj, EQUAL_AREA, always_xy=True)
    # The area of a parallelogram: the steps of a pixel's width and of its height, on the plane.
    dx, dy = abs(affine.a) / 2, abs(affine.e) / 2
    right, left, upper, lower = (onto.transform(x + a, y + b) for a, b in ((dx, 0), (-dx, 0), (0, dy), (0, -dy)))
    (xx, xy), (yx, yy) = (np.subtract(right, left), np.subtract(upper, lower))
    with np.errstate(invalid="ignore"):
        xx, yx = ((step + AROUND / 2) % AROUND - AROUND / 2 for step in (xx, yx))
        area: Floats = np.abs(xx * yy - xy * yx)
    return np.where(np.isfinite(area), area, 0.0)
