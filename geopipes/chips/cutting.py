"""Cutting cubes into windows: the regular grid, its edges, what sources cover, and which zone owns a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
import xarray as xr

from geopipes.chips.windows import Indices, Windows, boxes
from geopipes.datacubes.cube import Cube, Cubes
from geopipes.datacubes.lazies import first
from geopipes.errors import ChipError, ChipTooLarge

if TYPE_CHECKING:
    from xbatcher import BatchGenerator

MOST_WINDOWS = 100_000_000
"""Windows of one cube: four integers each make 3 GB; far more than any region of interest needs."""

Edge = Literal["drop", "pad", "shift"]
Coverage = Literal["full", "any"]


def chip(
    cubes: Cubes,
    size: int | tuple[int, int],
    *,
    overlap: int | tuple[int, int] = 0,
    margin: int = 0,
    edge: Edge = "drop",
    time: int | None = None,
    coverage: Coverage = "full",
) -> Windows:
    """Cut cubes into windows on a regular grid; nothing is read.

    Parameters
    ----------
    cubes : one for each grid
    size : of a chip [px], one number or (y, x); of several inputs, in pixels of the first
    overlap : of neighbouring chips [px], one number or (y, x)
    margin : pixels read beyond the chip on every side, for steps that need neighbours; `tensor` crops them
    edge : what happens where the cube is no multiple of the chip: ``"drop"`` leaves the rest out, ``"pad"`` goes
        on beyond the edge with pixels that are not valid, ``"shift"`` moves the last chip back inside; the last
        two cover every pixel
    time : dates in a chip, one after the other; None keeps all dates. With several inputs, of the first. Dates
        left over are dropped with edge="drop", else covered by a last window that is moved back
    coverage : ``"full"`` keeps the windows that every source covers (the union of its raster extents over all
        dates contains the window), ``"any"`` all of them

    Returns
    -------
    windows by cube, date, row and column. Where cubes of several UTM zones see one place, the chip belongs to
    the zone whose central meridian is nearest to its centre.

    Raises
    ------
    ChipTooLarge
        if no cube holds a single chip
    ChipError
        if the numbers make no grid, or no window is covered
    GridMismatch
        if a chip would cut pixels of an input in two
    """
    call = f"chip(size={size})"
    shape, lap = _pair(size, "size", "chip"), _pair(overlap, "overlap", "chip")
    stride = (shape[0] - lap[0], shape[1] - lap[1])
    if min(shape) < 1 or min(lap) < 0 or min(stride) < 1 or margin < 0:
        raise ChipError(
            f"chip(size={size}, overlap={overlap}, margin={margin}): size must be at least 1 px, overlap at least 0 "
            "and less than size, margin at least 0"
        )
    parts = []
    for index, cube in enumerate(cubes.cubes):
        cube.check_windows(shape, stride, margin, call)
        rows = _starts(cube.geobox.shape.y, shape[0], stride[0], edge)
        cols = _starts(cube.geobox.shape.x, shape[1], stride[1], edge)
        times = _date_starts(cube, time, edge)
        if len(times) * len(rows) * len(cols) > MOST_WINDOWS:
            raise ChipError(
                f"{call}: the cube is {cube.geobox.shape.y} x {cube.geobox.shape.x} px (y, x), which makes "
                f"{len(times) * len(rows) * len(cols):,} windows; is stack(resolution=...) in the units of {cube.crs}?"
            )
        grid = np.meshgrid(np.array([index]), times, rows, cols, indexing="ij")
        parts.append(np.stack([axis.ravel() for axis in grid]).astype(np.int64))
    columns = np.concatenate(parts, axis=1)
    if columns.shape[1] == 0:
        sizes = ", ".join(f"{cube.geobox.shape.y} x {cube.geobox.shape.x}" for cube in cubes.cubes)
        raise ChipTooLarge(
            f"chip(size={shape[0]} x {shape[1]}): the cube is {sizes} px (y, x); use a smaller size or edge='pad'"
        )
    index, times, rows, cols = columns
    windows = Windows(cubes.cubes, shape, margin, time, np.arange(len(index)), index, times, rows, cols)
    kept = np.flatnonzero(_covered(windows, coverage, call) & _owned(windows))
    if len(kept) == 0:
        raise ChipError(
            f"{call}: none of the {len(windows)} windows of {shape[0]} x {shape[1]} px is covered by every source; "
            "use a smaller size, coverage='any', or other bounds"
        )
    left_out = len(windows) - len(kept)
    return replace(windows.take(kept), ids=np.arange(len(kept)), left_out=left_out)


def _pair(value: int | tuple[int, int], name: str, verb: str) -> tuple[int, int]:
    """Give (y, x) of what a verb was given under a name."""
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or not all(isinstance(part, int | np.integer) for part in pair):
        raise ChipError(f"{verb}({name}={value!r}): give whole pixels, one number or (y, x)")
    return int(pair[0]), int(pair[1])


def _starts(length: int, size: int, stride: int, edge: Edge) -> Indices:
    """Give where windows begin along one axis of ``length`` pixels."""
    if edge not in ("drop", "pad", "shift"):
        raise ChipError(f"chip(edge={edge!r}): use 'drop', 'pad' or 'shift'")
    whole = np.arange(0, max(length - size + 1, 0), stride, dtype=np.int64)
    end = int(whole[-1]) + size if len(whole) else 0
    if end >= length or edge == "drop":
        return whole
    if edge == "shift":
        return np.append(whole, length - size) if length >= size else whole
    return np.append(whole, whole[-1] + stride if len(whole) else 0)


def _date_starts(cube: Cube, time: int | None, edge: Edge) -> Indices:
    """Give the first date of each window."""
    if time is None:
        return np.zeros(1, np.int64)
    dates = first(cube.dataset).sizes.get("time", 0)
    if time < 1 or time > dates:
        raise ChipTooLarge(f"chip(time={time}): the cube has {dates} dates; use a smaller number, or None for all")
    return _starts(dates, time, time, "drop" if edge == "drop" else "shift")


def _covered(windows: Windows, coverage: Coverage, call: str) -> npt.NDArray[np.bool_]:
    """Say which windows, cut to their grid, lie inside their cube's footprint."""
    if coverage == "any":
        return np.ones(len(windows), bool)
    if coverage != "full":
        raise ChipError(f"{call}: coverage={coverage!r}: use 'full' or 'any'")
    covered = np.empty(len(windows), bool)
    for index, cube in enumerate(windows.cubes):
        mine = windows.cube == index
        footprint = cube.footprint
        shapely.prepare(footprint)
        covered[mine] = shapely.covers(footprint, boxes(windows, mine))
    return covered


def _owned(windows: Windows) -> npt.NDArray[np.bool_]:
    """Say which windows belong to their own UTM zone: no nearer central meridian's cube sees their centre."""
    owned = np.ones(len(windows), bool)
    zones = [cube.crs.proj.utm_zone or "" for cube in windows.cubes]
    if len(set(zones)) < 2 or "" in zones:
        return owned
    for index, cube in enumerate(windows.cubes):
        mine = windows.cube == index
        if not mine.any():
            continue
        centres = shapely.centroid(boxes(windows, mine))
        x, y = shapely.get_x(centres), shapely.get_y(centres)
        lon, lat = pyproj.Transformer.from_crs(cube.crs.to_wkt(), 4326, always_xy=True).transform(x, y)
        own = _distance(zones[index], lon, lat)
        keep = np.ones(len(own), bool)
        for other, rival in enumerate(windows.cubes):
            if zones[other] != zones[index]:
                to = pyproj.Transformer.from_crs(4326, rival.crs.to_wkt(), always_xy=True)
                seen = shapely.covers(rival.footprint, shapely.points(*to.transform(lon, lat)))
                inside = shapely.box(*rival.geobox.boundingbox.bbox)
                seen &= shapely.covers(inside, shapely.points(*to.transform(lon, lat)))
                nearer = _distance(zones[other], lon, lat)
                keep &= ~(seen & ((nearer < own) | ((nearer == own) & (other < index))))
        owned[mine] = keep
    return owned


def _distance(zone: str, lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Give degrees from a zone's central meridian; a place on the other hemisphere is one zone further."""
    meridian = int(zone[:-1]) * 6 - 183
    away = np.abs((lon - meridian + 180) % 360 - 180)
    wrong = (lat < 0) if zone.endswith("N") else (lat >= 0)
    distance: npt.NDArray[np.float64] = away + 6.0 * wrong
    return distance


def slices(block: xr.Dataset, size: int | tuple[int, int], *, overlap: int | tuple[int, int] = 0) -> BatchGenerator:
    """Slice a block one looks at into chips, by xbatcher.

    Parameters
    ----------
    block : any Dataset with dims y and x, of moderate size: the generator lists its windows at once
    size, overlap : of the chips [px], one number or (y, x)

    Returns
    -------
    an xbatcher.BatchGenerator: ``slices(block, 64)[3]`` is a lazy Dataset. Whole windows alone, in the order of
    ``chip(64, edge="drop", coverage="any")``
    """
    from xbatcher import BatchGenerator

    shape, lap = _pair(size, "size", "slices"), _pair(overlap, "overlap", "slices")
    dims = {"y": shape[0], "x": shape[1]}
    return BatchGenerator(block, dims, {"y": lap[0], "x": lap[1]}, preload_batch=False)
