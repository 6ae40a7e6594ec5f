"""Footprints: where and when windows are, as plain arrays, millions of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from geopipes.chips.groups import Groups, Sequences
from geopipes.chips.matched import Matched
from geopipes.chips.rows import ALL, At, chunks
from geopipes.chips.windows import Indices, Windows
from geopipes.datacubes.lazies import first

if TYPE_CHECKING:
    from geopipes.datacubes.cube import Cube

Floats = npt.NDArray[np.float64]
Geometries = npt.NDArray[np.object_]
DEGREES = "EPSG:4326"

WGS84 = pyproj.Geod(ellps="WGS84")


def members(windows: Windows) -> tuple[Windows, ...]:
    """Give the windows that a chip is made of: one each, or those of the members of its group."""
    if not isinstance(windows, Groups):
        return (windows,)
    return tuple(part for member in windows.members.values() for part in members(member))


def inputs(windows: Windows) -> Iterator[Windows]:
    """Give the members' windows, those of matched inputs input by input: the dates of each are its first input's."""
    for part in members(windows):
        yield from part.inputs() if isinstance(part, Matched) else (part,)


def of_cube(windows: Windows, index: int) -> Iterator[Indices]:
    """Give the positions of the windows of one cube, some at a time."""
    start = 0
    for cubes in windows.pieces("cube"):
        mine = np.flatnonzero(cubes == index)
        if len(mine):
            yield mine + start
        start += len(cubes)


def edges(windows: Windows, at: At) -> tuple[Floats, ...]:
    """Give left, bottom, right and top of windows, cut to their grids, each (n,) in its cube's CRS."""
    grids = [(*cube.geobox.affine[:6], *cube.geobox.shape) for cube in windows.cubes]
    a, _, c, _, e, f, height, width = np.array(grids, float)[windows.values("cube", at)].T
    row, col = (windows.values(name, at).astype(float) for name in ("row", "col"))
    left, right = (c + a * np.clip(side, 0, width) for side in (col, col + windows.size[1]))
    top, bottom = (f + e * np.clip(side, 0, height) for side in (row, row + windows.size[0]))
    return left, bottom, right, top


def corners(windows: Windows, at: At, crs: str) -> Floats:
    """Give the four corners of windows in a CRS: (n, 4, 2), counter-clockwise from the lower left."""
    left, bottom, right, top = edges(windows, at)
    x, y = np.stack([left, right, right, left], axis=1), np.stack([bottom, bottom, top, top], axis=1)
    return np.stack(_moved(windows, at, x, y, crs), axis=-1)


def centres(windows: Windows, crs: str) -> npt.NDArray[np.float32]:
    """Give the centres of windows in a CRS: (2, n), x and y, in 4-byte floats."""
    found = np.empty((2, len(windows)), np.float32)
    for at in chunks(len(windows)):
        left, bottom, right, top = edges(windows, at)
        found[:, at] = _moved(windows, at, (left + right) / 2, (bottom + top) / 2, crs)
    return found


def rectangles(windows: Windows, at: At, crs: str, *, drawn_in: float = 0.0) -> Geometries:
    """Give windows as polygons in a CRS; ``drawn_in`` moves each corner towards the middle, in the CRS's units."""
    found = corners(windows, at, crs)
    if drawn_in:
        inward = found.mean(axis=1, keepdims=True) - found
        found += inward * (drawn_in / np.maximum(np.hypot(*inward.T).T[..., None], drawn_in))
    return polygons(found)


def polygons(rings: Floats) -> Geometries:
    """Make polygons of corners (n, k, 2)."""
    made = shapely.polygons(shapely.linearrings(rings))
    return np.asarray(made, object)


def distinct(windows: Windows, at: At = ALL, *, dated: bool) -> tuple[Indices, Indices]:
    """Tell places (and dates) that occur more than once.

    Returns
    -------
    (first, which) : of each distinct one a position within ``at``, ordered by cube, date, row and column, and for
        every window the number of its own
    """
    code = windows.values("cube", at)
    for name in ("time", "row", "col") if dated else ("row", "col"):
        part = windows.values(name, at)
        if len(part):
            low = part.min()
            code = code * (part.max() - low + 1) + (part - low)
    _, found, which = np.unique(code, return_index=True, return_inverse=True)
    return found, which


def times(cube: Cube) -> npt.NDArray[np.datetime64]:
    """Give the times of a cube's dates, of several inputs the first's; none where it has no time."""
    dataset = first(cube.dataset)
    stamps = dataset["time"].values if "time" in dataset.dims else np.empty(0, "datetime64[ns]")
    return stamps.astype("datetime64[ns]")


def spans(windows: Windows, at: At = ALL) -> tuple[Indices, Indices]:
    """Give the first and the last date of windows, by their place in the cube; -1 for an input that is missing."""
    if isinstance(windows, Sequences):
        when = windows.moments(at)
        return when.min(axis=1), when.max(axis=1)
    if windows.dates is None:
        last = np.array([max(len(times(cube)) - 1, 0) for cube in windows.cubes])[windows.values("cube", at)]
        return np.zeros_like(last), last
    first = windows.values("time", at)
    return first, first + (windows.dates - 1)


def end(windows: Windows, which: int) -> npt.NDArray[np.datetime64]:
    """Give the first (0) or last (1) date of each chip, over all members and matched inputs; NaT where it has none."""
    found = np.full(len(windows), "NaT", "datetime64[ns]")
    for part in inputs(windows):
        stamps = [np.append(times(cube), np.datetime64("NaT", "ns")) for cube in part.cubes]
        none = np.array([len(stamp) - 1 for stamp in stamps])
        begin, every = np.cumsum(none + 1) - none - 1, np.concatenate(stamps)
        for at in chunks(len(part)):
            cube, place = part.values("cube", at), spans(part, at)[which]
            dates = every[begin[cube] + np.where(place < 0, none[cube], np.minimum(place, none[cube]))]
            found[at] = (np.fmin, np.fmax)[which](found[at], dates)
    return found


def geodesic(lines: Geometries, crs: str) -> Floats:
    """Measure straight lines between two places along the ellipsoid [m]."""
    onto = transformer(crs, DEGREES)
    (x0, y0), (x1, y1) = shapely.get_coordinates(lines).reshape(-1, 2, 2).transpose(1, 2, 0)
    metres: Floats = WGS84.inv(*onto.transform(x0, y0), *onto.transform(x1, y1))[2]
    return np.asarray(metres, float)


def _moved(windows: Windows, at: At, x: Any, y: Any, crs: str) -> tuple[Floats, Floats]:
    """Put coordinates (n, ...) of windows, each in its cube's CRS, into one CRS."""
    names = [str(cube.crs) for cube in windows.cubes]
    kinds, kind = np.unique(names, return_inverse=True)
    if len(kinds) == 1:
        x, y = transformer(str(kinds[0]), crs).transform(x, y)
        return x, y
    own = kind[windows.values("cube", at)]
    for number, name in enumerate(kinds):
        mine = np.flatnonzero(own == number)
        if len(mine):
            x[mine], y[mine] = transformer(str(name), crs).transform(x[mine], y[mine])
    return x, y


@lru_cache(maxsize=256)
def transformer(crs: str, to: str) -> pyproj.Transformer:
    """Give what puts x and y from one CRS into another."""
    return pyproj.Transformer.from_crs(crs, to, always_xy=True)
