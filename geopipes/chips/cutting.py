"""Cutting cubes into windows: the regular grid, its edges, what sources cover, and which zone owns a place."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import shapely
import xarray as xr

from geopipes import grids
from geopipes.chips.footprints import DEGREES, transformer
from geopipes.chips.frames import Frame, Numbers
from geopipes.chips.lattices import Lattice, Part
from geopipes.chips.rows import chunks
from geopipes.chips.windows import Indices, Windows, boxes_between, boxes_of
from geopipes.datacubes.cube import Cube, Cubes
from geopipes.datacubes.lazies import first
from geopipes.errors import ChipError, ChipTooLarge

if TYPE_CHECKING:
    from xbatcher import BatchGenerator

BLOCK = 8
"""Blocks along the side of a block of windows that is covered in part."""

MOST_WINDOWS = 100_000_000
"""Windows of one cube: far more than any region of interest needs."""

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
        dates contains the window, without what ``edge="pad"`` adds beyond the cube), ``"any"`` all of them;
        ``table(coverage=True)`` tells the share of the whole window that they cover

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
    parts = [_part(cubes, index, (shape, stride, margin, time), edge, call) for index in range(len(cubes.cubes))]
    count = sum(part.places * len(part.times) for part in parts)
    if count == 0:
        sizes = ", ".join(f"{cube.geobox.shape.y} x {cube.geobox.shape.x}" for cube in cubes.cubes)
        raise ChipTooLarge(
            f"chip(size={shape[0]} x {shape[1]}): the cube is {sizes} px (y, x); use a smaller size or edge='pad'"
            + _doubt(cubes.cubes)
        )
    lattice = Lattice.of([_kept(cubes, part, shape, coverage, call) for part in parts])
    if lattice.length == 0:
        raise ChipError(
            f"{call}: none of the {count} windows of {shape[0]} x {shape[1]} px is covered by every source; "
            "use a smaller size, coverage='any', or other bounds"
        )
    frame = Frame.of(lattice.length, {"id": Numbers(lattice.length), **lattice.columns()})
    return Windows(cubes.cubes, shape, margin, time, frame, left_out=count - lattice.length)


def _doubt(cubes: Sequence[Cube]) -> str:
    """Ask about a resolution that is a number of metres, and of degrees to its grid."""
    wide = [cube for cube in cubes if cube.crs.geographic and abs(cube.geobox.affine.a) >= 1]
    return f"; is stack(resolution=...) in the units of {grids.crs_name(wide[0].crs)}, degrees?" if wide else ""


def _part(
    cubes: Cubes, index: int, options: tuple[tuple[int, int], tuple[int, int], int, int | None], edge: Edge, call: str
) -> Part:
    """Give the windows of one cube, covered or not."""
    cube, (shape, stride, margin, time) = cubes.cubes[index], options
    cube.check_windows(shape, stride, margin, call)
    rows = _starts(cube.geobox.shape.y, shape[0], stride[0], edge)
    cols = _starts(cube.geobox.shape.x, shape[1], stride[1], edge)
    part = Part(index, _date_starts(cube, time, edge), rows, cols)
    if (count := part.places * len(part.times)) > MOST_WINDOWS:
        raise ChipError(
            f"{call}: the cube is {cube.geobox.shape.y} x {cube.geobox.shape.x} px (y, x), which makes "
            f"{count:,} windows; is stack(resolution=...) in the units of {grids.crs_name(cube.crs)}?"
        )
    return part


def _kept(cubes: Cubes, part: Part, size: tuple[int, int], coverage: Coverage, call: str) -> Part:
    """Keep the places of a cube that its sources cover and its zone owns: the same at all dates."""
    inside = _inside(cubes.cubes[part.cube], size, part.rows, part.cols, coverage, call).ravel()
    for at in chunks(len(inside)) if _zones(cubes.cubes) else ():
        place = np.flatnonzero(inside[at]) + at.start
        row, col = np.divmod(place, len(part.cols))
        inside[place] = _owned(cubes.cubes, part.cube, size, part.rows[row], part.cols[col])
    return part._replace(inside=inside)


def _inside(
    cube: Cube, size: tuple[int, int], rows: Indices, cols: Indices, coverage: Coverage, call: str
) -> npt.NDArray[np.bool_]:
    """Say which windows of a grid of places lie, cut to their cube's, inside its footprint: (rows, cols).

    Blocks of windows are asked before the windows in them: what covers a block covers these, and what does not meet
    it covers none.
    """
    if _checked(coverage, call) == "any" or not (len(rows) and len(cols)):
        return np.ones((len(rows), len(cols)), bool)
    inside = np.zeros((len(rows), len(cols)), bool)
    footprint = cube.footprint
    shapely.prepare(footprint)
    side = BLOCK ** ceil(log(max(inside.shape), BLOCK)) if max(inside.shape) > 1 else 1
    top, left = np.zeros((2, 1), np.int64)
    while True:
        bottom, right = np.minimum(top + side, len(rows)), np.minimum(left + side, len(cols))
        whole = boxes_between(cube, rows[top], rows[bottom - 1] + size[0], cols[left], cols[right - 1] + size[1])
        full = shapely.covers(footprint, whole)
        for block in zip(top[full], bottom[full], left[full], right[full], strict=True) if side > 1 else ():
            inside[block[0] : block[1], block[2] : block[3]] = True
        if side == 1:
            inside[top[full], left[full]] = True
            return inside
        partly = ~full & shapely.intersects(footprint, whole)
        side //= BLOCK
        steps = np.arange(BLOCK) * side
        top, left = (
            axis.ravel() for axis in np.broadcast_arrays(
                top[partly, None, None] + steps[:, None], left[partly, None, None] + steps
            )
        )  # fmt: skip
        there = (top < len(rows)) & (left < len(cols))
        top, left = top[there], left[there]


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


def _checked(coverage: Coverage, call: str) -> Coverage:
    if coverage not in ("full", "any"):
        raise ChipError(f"{call}: coverage={coverage!r}: use 'full' or 'any'")
    return coverage


def fits(windows: Windows, coverage: Coverage, call: str, *, owned: bool = True) -> npt.NDArray[np.bool_]:
    """Say which windows lie, cut to their grid, inside their cube's footprint, and belong to their own UTM zone."""
    found = np.ones(len(windows), bool)
    cubes, row, col = (windows.values(name) for name in ("cube", "row", "col"))
    for index, cube in enumerate(windows.cubes):
        mine = np.flatnonzero(cubes == index)
        if _checked(coverage, call) == "full":
            footprint = cube.footprint
            shapely.prepare(footprint)
            found[mine] = shapely.covers(footprint, boxes_of(cube, windows.size, row[mine], col[mine]))
        if owned and _zones(windows.cubes):
            found[mine] &= _owned(windows.cubes, index, windows.size, row[mine], col[mine])
    return found


def _zones(cubes: Sequence[Cube]) -> list[str]:
    """Give the UTM zone of each cube where there are several; none where places have one owner anyway."""
    if all(cube.alone for cube in cubes):
        return []
    zones = [cube.crs.proj.utm_zone or "" for cube in cubes]
    return [] if len(set(zones)) < 2 or "" in zones else zones


def _owned(
    cubes: Sequence[Cube], index: int, size: tuple[int, int], row: Indices, col: Indices
) -> npt.NDArray[np.bool_]:
    """Say which windows of a cube belong to its own UTM zone: no nearer central meridian's cube sees their centre."""
    zones, keep = _zones(cubes), np.ones(len(row), bool)
    if len(row) == 0:
        return keep
    centres = shapely.centroid(boxes_of(cubes[index], size, row, col))
    x, y = shapely.get_x(centres), shapely.get_y(centres)
    lon, lat = transformer(cubes[index].crs.to_wkt(), DEGREES).transform(x, y)
    own = _distance(zones[index], lon, lat)
    for other, rival in enumerate(cubes):
        if zones[other] != zones[index]:
            nearer = _distance(zones[other], lon, lat)
            rivals = np.flatnonzero(keep & ((nearer < own) | ((nearer == own) & (other < index))))
            there = shapely.points(*transformer(DEGREES, rival.crs.to_wkt()).transform(lon[rivals], lat[rivals]))
            seen = shapely.covers(rival.footprint, there)
            keep[rivals] = ~(seen & shapely.covers(shapely.box(*rival.geobox.boundingbox.bbox), there))
    return keep


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
