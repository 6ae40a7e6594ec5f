"""Grounds: what plans hold of the ground, and how near, over how large an area, two of them come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import numpy as np
import numpy.typing as npt
import shapely

from geopipes.chips import Windows
from geopipes.chips.footprints import (
    Floats,
    centres,
    corners,
    distinct,
    geodesic,
    members,
    rectangles,
)
from geopipes.chips.frames import AT_ONCE, chunks
from geopipes.chips.places import TOUCH, plane
from geopipes.chips.windows import Indices

Mask = npt.NDArray[np.bool_]
Centres = npt.NDArray[np.float32]

RADIUS = 6_371_007.2
"""Of the sphere with the ellipsoid's area [m]."""

CELLS = 2048
"""Cells along each side of the raster on which far chips are told from near ones, at most."""

SLACK = 1.05
"""By how much the largest chip may be larger than the largest one looked at."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What a plan, or some of it, holds of the ground, in metres on an equal-area plane.

    Attributes
    ----------
    windows : the plan, (n,)
    parts : the windows that its chips are made of, (n,) each: itself, or the members of groups
    plane : the plane's CRS
    centres : of each part, (2, n) [m]
    reach : from a chip's centre to its corners at most [m]
    mask : (n,) which chips count; None for all
    """

    windows: Windows
    parts: tuple[Windows, ...]
    plane: str
    centres: tuple[Centres, ...]
    reach: float
    mask: Mask | None = None

    @classmethod
    def of(cls, windows: Windows, crs: str | None = None) -> Ground:
        """Lay a plan on a plane, by default its own."""
        crs = crs or plane(windows).to_wkt()
        parts = members(windows)
        middles = [centres(part, crs) for part in parts]
        reach = max(_reach(part, crs) for part in parts)
        # Of the middles as they are kept.
        reach += 4 * max(float(np.spacing(np.abs(middle).max(initial=1.0))) for middle in middles)
        return cls(windows, parts, crs, tuple(middles), reach)

    def only(self, mask: Mask) -> Ground:
        """Give a part of it."""
        return replace(self, mask=mask)

    @property
    def stretch(self) -> float:
        """How much the plane lengthens at most."""
        return max(_stretch(middle) for middle in self.centres)


def _stretch(places: Centres) -> float:
    """Give how much the plane lengthens at most: 1 / cos(c / 2), c the angle from its middle (Snyder 1987, p. 185)."""
    far = float(np.hypot(*np.abs(places).max(axis=1, initial=0.0)))
    return float(max(1 - (far / (2 * RADIUS)) ** 2, 0.01) ** -0.5)


def _reach(windows: Windows, crs: str) -> float:
    """Give half the longest diagonal of a plan's chips on a plane: that of those in the extremes."""
    some = np.linspace(0, len(windows) - 1, min(len(windows), 100)).astype(np.int64)
    ends = [function(axis) for axis in (windows.row, windows.col) for function in (np.argmin, np.argmax)]
    found = corners(windows, np.array([*some, *ends]), crs)
    return SLACK * float(np.hypot(*(found[:, 2:] - found[:, :2]).T).max()) / 2


def near(own: Ground, others: Ground, distance: float) -> Mask:
    """Say which chips overlap one of the others, or come nearer than a distance [m]; to touch is not to overlap.

    Distances are taken on the plane and are never longer on the ground.

    Returns
    -------
    (n,) of all the chips of ``own``, False where its mask is
    """
    wide = distance * max(own.stretch, others.stretch)
    hit = np.zeros(len(own.windows), bool)
    for part, theirs, i, j in _neighbours(own, others, wide):
        one, which = distinct(own.parts[part], i, dated=False)
        other, _ = distinct(others.parts[theirs], j, dated=False)
        drawn_in = rectangles(own.parts[part], i[one], own.plane, drawn_in=TOUCH)
        most = max(distance * _stretch(own.centres[part][:, i]) - TOUCH, TOUCH / 4)
        found = np.zeros(len(one), bool)
        for some in _first_few(others.centres[theirs], j[other], others.reach):
            left = np.flatnonzero(~found)
            tree = shapely.STRtree(rectangles(others.parts[theirs], some, own.plane))
            found[left[tree.query_nearest(drawn_in[left], max_distance=most, all_matches=False)[0]]] = True
        hit[i] |= found[which]
    return hit


def _first_few(places: Centres, at: Indices, reach: float) -> Iterator[Indices]:
    """Give places, some at a time; of dense ones first a few from all over: what is near any is mostly near these."""
    cell = np.floor(places[:, at].astype(float) / (reach / 2)).astype(np.int64)
    few = np.unique((cell[0] << 32) + cell[1], return_index=True)[1]
    if 4 * len(few) < len(at):
        yield at[few]
    yield from (at[piece] for piece in chunks(len(at)))


def nearest(own: Ground, others: Ground) -> float:
    """Give the least distance between the chips of two grounds along the ellipsoid [m]; 0 where they overlap."""
    if near(own, others, 0.0).any():
        return 0.0
    distance = own.reach + others.reach
    while not (close := near(own, others, distance)).any():
        distance *= 2
    own = own.only(close)
    others = others.only(near(others, own, distance))
    least = np.inf
    for part, theirs, i, j in _neighbours(own, others, distance * max(own.stretch, others.stretch)):
        mine, there = (rectangles(g.parts[p], at, own.plane) for g, p, at in ((own, part, i), (others, theirs, j)))
        pairs = shapely.STRtree(there).query_nearest(mine, all_matches=False)
        lines = shapely.shortest_line(mine[pairs[0]], there[pairs[1]])
        least = min(least, float(geodesic(lines, own.plane).min(initial=np.inf)))
    return least


def overlap(own: Ground, others: Ground) -> float:
    """Give the area that the chips of both grounds cover [m2]."""
    own = own.only(near(own, others, 0.0))
    others = others.only(near(others, own, 0.0))
    if own.mask is None or not own.mask.any():
        return 0.0
    # In strips, so that the polygons of one are in memory.
    x = np.concatenate([middle[0][own.mask] for middle in own.centres])
    area = 0.0
    for low, high in pairwise(_cuts(x, ceil(len(x) / AT_ONCE))):
        ours, theirs = (_strip(ground, float(low), float(high)) for ground in (own, others))
        area += float(shapely.area(shapely.intersection(ours, theirs)))
    return area


def _strip(ground: Ground, low: float, high: float) -> shapely.Geometry:
    """Unite the chips of a ground between two x."""
    pieces = []
    for part, middle in zip(ground.parts, ground.centres, strict=True):
        inside = (middle[0] >= low - ground.reach) & (middle[0] <= high + ground.reach)
        at = np.flatnonzero(inside if ground.mask is None else inside & ground.mask)
        at = at[distinct(part, at, dated=False)[0]]
        pieces += [rectangles(part, at[piece], ground.plane) for piece in chunks(len(at))]
    whole = shapely.union_all(np.concatenate(pieces))
    far = 4 * RADIUS
    return shapely.intersection(whole, shapely.box(max(low, -far), -far, min(high, far), far))


def _neighbours(own: Ground, others: Ground, distance: float) -> Iterator[tuple[int, int, Indices, Indices]]:
    """Give chips, some at a time, with all the others that may come as near as a distance on the plane.

    Yields
    ------
    the number of a part on either side, and positions in each
    """
    reach = distance + own.reach + others.reach
    for part, mine in enumerate(own.centres):
        for theirs, there in enumerate(others.centres):
            for i, j in _slabs(mine, own.mask, there, others.mask, reach, axis=0):
                a, b = _beside(mine[:, i], there[:, j], reach)
                i, j = i[a], j[b]
                for ii, jj in _slabs(mine[:, i], None, there[:, j], None, reach, axis=1):
                    a, b = _beside(mine[:, i[ii]], there[:, j[jj]], reach)
                    if a.any() and b.any():
                        yield part, theirs, i[ii[a]], j[jj[b]]


def _slabs(
    mine: Centres, mask: Mask | None, there: Centres, other: Mask | None, reach: float, *, axis: int
) -> Iterator[tuple[Indices, Indices]]:
    """Cut places into slabs of about as many, each with the others within reach along the axis."""
    count = len(mine[axis]) if mask is None else int(np.count_nonzero(mask))
    if count == 0:
        return
    for low, high in pairwise(_cuts(mine[axis], ceil(count / (AT_ONCE * (4 if axis == 0 else 1))))):
        inside = (mine[axis] >= low) & (mine[axis] < high)
        i = np.flatnonzero(inside if mask is None else inside & mask)
        if len(i):
            x = mine[axis][i]
            beside = (there[axis] >= x.min() - reach) & (there[axis] <= x.max() + reach)
            j = np.flatnonzero(beside if other is None else beside & other)
            if len(j):
                yield i, j


def _cuts(x: Centres, pieces: int) -> Floats:
    """Give where to cut a line so that about as many places are in each piece."""
    some = x[:: max(len(x) // 10_000, 1)].astype(float)
    cuts = np.unique(np.quantile(some, np.arange(1, pieces) / pieces))
    return np.array([-np.inf, *cuts, np.inf])


def _beside(mine: Centres, there: Centres, reach: float) -> tuple[Mask, Mask]:
    """Say which places may have one of the other side within reach, told on a raster of cells."""
    if mine.shape[1] == 0 or there.shape[1] == 0:
        return np.zeros(mine.shape[1], bool), np.zeros(there.shape[1], bool)
    low = np.minimum(mine.min(axis=1), there.min(axis=1)).astype(float)
    high = np.maximum(mine.max(axis=1), there.max(axis=1)).astype(float)
    cell = np.maximum(reach / 4, (high - low) / (CELLS - 2))
    spread = [ceil(reach / side) for side in cell]
    shape = tuple(int(n) + 2 for n in (high - low) / cell)
    at = [tuple(((xy - low[:, None]) / cell[:, None]).astype(np.int32)) for xy in (mine, there)]
    seen = []
    for places in at:
        cells = np.zeros(shape, bool)
        cells[places] = True
        seen.append(_widened(_widened(cells, spread[0], 0), spread[1], 1))
    return seen[1][at[0]], seen[0][at[1]]


def _widened(cells: Mask, by: int, axis: int) -> Mask:
    """Spread what is true to the cells on both sides."""
    lines = np.moveaxis(cells, axis, 0)
    wide = lines.copy()
    for step in range(1, min(by, len(lines) - 1) + 1):
        wide[step:] |= lines[:-step]
        wide[:-step] |= lines[step:]
    return np.moveaxis(wide, 0, axis)
