"""Which items touch the chips of a plan, and how much of each chip its sources cover: by outlines alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely

from geopipes import grids
from geopipes.chips.footprints import edges, inputs, members, of_cube, spans, times
from geopipes.chips.groups import Sequences
from geopipes.chips.windows import Indices, Windows
from geopipes.datacubes.cube import Cube, MappedCube
from geopipes.datacubes.stackcube import StackCube
from geopipes.datacubes.together import InputsCube, JoinedCube

if TYPE_CHECKING:
    from shapely import Geometry

    from geopipes.read.sources import Source

ALWAYS = -1
"""Stands for the date of a raster that is in every chip."""

EDGE = 1e-6
"""Of a chip's side: a raster that only touches an edge is in none of its pixels."""

Dated = list[tuple[int, int, str]]
"""The dates' places, the times and the ids of items that share one outline."""


def items_of_each(windows: Windows) -> npt.NDArray[np.object_]:
    """Give the ids of the items that touch each chip at its dates: (n,) tuples, in the order of time."""
    found: list[list[tuple[int, str]]] = [[] for _ in range(len(windows))]
    for part in _moments(windows):
        for at, rasters, (chip, raster) in _touching(part):
            begin, end = spans(part, at[chip])
            for row in zip(at[chip].tolist(), raster.tolist(), begin.tolist(), end.tolist(), strict=True):
                found[row[0]] += [dated[1:] for dated in _within(rasters[row[1]], row[2], row[3])]
    ids = np.empty(len(windows), object)
    ids[:] = [tuple(dict.fromkeys(item for _, item in sorted(dated))) for dated in found]
    return ids


def items_of_all(windows: Windows) -> set[str]:
    """Give the ids of the items that touch some chip of a plan at its dates."""
    found: set[str] = set()
    for part in _moments(windows):
        for at, rasters, (chip, raster) in _touching(part):
            for number, low, high in np.unique([raster, *spans(part, at[chip])], axis=1).T.tolist():
                found |= {item for *_, item in _within(rasters[number], low, high)}
    return found


def days_of_all(windows: Windows) -> set[str]:
    """Give the days (UTC) of which a plan holds images; of several inputs the first's, of matched ones all inputs'."""
    found: set[str] = set()
    for part in _moments(windows):
        for index, cube in enumerate(part.cubes):
            stamps = times(cube).astype("datetime64[D]")
            open_ = np.zeros(len(stamps) + 2, np.int64)  # how many windows begin at a date, less those that end before
            for at in of_cube(part, index) if len(stamps) else ():
                first, last = (date[date >= 0] for date in spans(part, at))
                open_ += np.bincount(first, minlength=len(open_)) - np.bincount(last + 1, minlength=len(open_))
            found |= {str(day) for day in stamps[np.cumsum(open_)[:-2] > 0] if not np.isnat(day)}
    return found


def coverage(windows: Windows) -> npt.NDArray[np.float32]:
    """Give the share of each chip that every source of its cube covers, (n,); of groups the least of the members."""
    least = np.ones(len(windows), np.float32)
    for part in members(windows):
        for index, cube in enumerate(part.cubes):
            whole = part.size[0] * part.size[1] * abs(cube.geobox.affine.a * cube.geobox.affine.e)
            for at in of_cube(part, index):
                footprint = cube.footprint
                shapely.prepare(footprint)
                left, bottom, right, top = edges(part, at)
                boxes = shapely.box(left, bottom, right, top)
                area = shapely.area(boxes)
                partly = np.flatnonzero(~shapely.covers(footprint, boxes))
                area[partly] = shapely.area(shapely.intersection(footprint, boxes[partly]))
                least[at] = np.minimum(least[at], area / whole)
    return least


def _moments(windows: Windows) -> Iterator[Windows]:
    """Give plans of one kind: the members of groups, and each date of sequences, whose dates need not be neighbours."""
    for part in inputs(windows):
        if isinstance(part, Sequences):
            for date in part.when.T:
                own = {field.name: getattr(part, field.name) for field in fields(Windows)}
                yield Windows(**{**own, "dates": 1}).placed(time=date)
        else:
            yield part


def _within(dated: Dated, low: int, high: int) -> Dated:
    """Give the items of some dates."""
    return [one for one in dated if one[0] == ALWAYS or low <= one[0] <= high]


def _touching(windows: Windows) -> Iterator[tuple[Indices, list[Dated], Indices]]:
    """Give chips, some at a time, with the outlines of rasters that touch them.

    Yields
    ------
    (at, rasters, pairs) : positions in the plan; for each outline its items; and (2, m), which of the chips and which
        of the outlines
    """
    for index, cube in enumerate(windows.cubes):
        pieces = of_cube(windows, index)
        first = next(pieces, None)
        if first is None:
            continue
        outlines: dict[Any, tuple[Geometry, dict[tuple[int, int, str], None]]] = {}
        for date, source in sources(cube):
            key = grids.key(source.geobox)
            if key not in outlines:
                outlines[key] = (grids.extent(source.geobox, cube.crs), {})
            outlines[key][1][date, int(source.time.astype(np.int64)), source.item] = None
        tree = shapely.STRtree([outline for outline, _ in outlines.values()])
        rasters = [list(dated) for _, dated in outlines.values()]
        for at in chain((first,), pieces):
            left, bottom, right, top = edges(windows, at)
            slack = EDGE * (right - left)
            boxes = shapely.box(left + slack, bottom + slack, right - slack, top - slack)
            yield at, rasters, tree.query(boxes, predicate="intersects")


def sources(cube: Cube) -> Iterator[tuple[int, Source]]:
    """Give the rasters of a cube with their dates, but for what is joined to it."""
    if isinstance(cube, StackCube):
        always = cube.stack.times is None
        for variable in cube.stack.variables:
            for date, step in enumerate(variable.sources):
                yield from ((ALWAYS if always else date, source) for source in step)
    elif isinstance(cube, MappedCube | JoinedCube):
        yield from sources(cube.base)
    elif isinstance(cube, InputsCube):
        for number, part in enumerate(cube.cubes.values()):
            yield from ((date if number == 0 else ALWAYS, source) for date, source in sources(part))
