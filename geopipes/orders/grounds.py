"""Grounds: what plans hold of the ground, and how near, over how large an area, two of them come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from geopipes.chips.frames import AT_ONCE, Rows, chunks, gathered, grouped, smallest, where
from geopipes.chips.places import TOUCH, plane
from geopipes.chips.windows import Indices

Mask = npt.NDArray[np.bool_]
Centres = npt.NDArray[np.float32]

RADIUS = 6_371_007.2
"""Of the sphere with the ellipsoid's area [m]."""

CELLS = 2048
"""Cells along each side of the raster on which far chips are told from near ones, at most."""

FINE = 16
"""Cells to a distance, at most, on which it is told that places are surely within it."""

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
        reach += max(_rounding(middle) for middle in middles)
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
    far = float(np.hypot(*_furthest(places)))
    return float(max(1 - (far / (2 * RADIUS)) ** 2, 0.01) ** -0.5)


def _furthest(places: Centres) -> Floats:
    """Give how far places are at most from the plane's middle, in x and in y."""
    ends = places.max(axis=1, initial=0.0), -places.min(axis=1, initial=0.0)
    return np.maximum(*ends).astype(float)


def _rounding(places: Centres) -> float:
    """Give by how much distances between places err at most, as they are kept."""
    return 4 * float(np.spacing(np.float32(max(1.0, _furthest(places).max()))))


def _reach(windows: Windows, crs: str) -> float:
    """Give half the longest diagonal of a plan's chips on a plane: that of those in the extremes."""
    some = np.linspace(0, len(windows) - 1, min(len(windows), 100)).astype(np.int64)
    ends = [end for name in ("row", "col") for end in _extremes(windows, name)]
    found = corners(windows, np.array([*some, *ends]), crs)
    return SLACK * float(np.hypot(*(found[:, 2:] - found[:, :2]).T).max()) / 2


def _extremes(windows: Windows, name: str) -> tuple[int, int]:
    """Give the positions of the least and of the largest value."""
    some, done = np.empty(0, np.int64), 0
    for values in windows.pieces(name):
        some = np.append(some, [values.argmin() + done, values.argmax() + done])
        done += len(values)
    found = windows.values(name, some)
    return int(some[found.argmin()]), int(some[found.argmax()])


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
        mine, there = own.centres[part], others.centres[theirs]
        most = max(distance * _stretch(mine[:, i]) - TOUCH, TOUCH / 4)
        sure = _within(mine[:, i], there[:, j], most)
        hit[i[sure]] = True
        i = i[~sure]
        a, b = _beside(mine, i, there, j, wide + own.reach + others.reach)
        i, j = i[a], j[b]
        one, which = distinct(own.parts[part], i, dated=False)
        other, _ = distinct(others.parts[theirs], j, dated=False)
        drawn_in = rectangles(own.parts[part], i[one], own.plane, drawn_in=TOUCH)
        found = np.zeros(len(one), bool)
        for some in _first_few(there, j[other], others.reach):
            left = np.flatnonzero(~found)
            tree = shapely.STRtree(rectangles(others.parts[theirs], some, own.plane))
            found[left[tree.query_nearest(drawn_in[left], max_distance=most, all_matches=False)[0]]] = True
        hit[i] |= found[which]
    return hit


def _within(mine: Centres, there: Centres, distance: float) -> Mask:
    """Say of which places one of the other side surely lies within a distance, told on a raster of cells.

    Two cells hold no places further apart than the far corners of the two.
    """
    none = np.zeros(mine.shape[1], bool)
    distance -= _rounding(mine) + _rounding(there)
    if not (mine.size and there.size and distance > 0):
        return none
    low, high = _bounds([(mine, None), (there, None)])
    side = max(distance / FINE, float((high - low).max()) / (CELLS - 2))
    shape = tuple(int(n) + 2 for n in (high - low) / side)
    at = [tuple(((xy - low[:, None]) / side).astype(np.int32)) for xy in (mine, there)]
    cells = np.zeros(shape, bool)
    cells[at[1]] = True
    seen, wide, done = np.zeros(shape, bool), cells, 0
    for across in range(int(distance / side) - 1, -1, -1):
        along = int(((distance / side) ** 2 - (across + 1) ** 2) ** 0.5) - 1
        if along >= 0:
            wide, done = _widened(wide, along - done, 1), along
            seen |= _shifted(wide, across)
    return seen[at[0]]


def _shifted(cells: Mask, by: int) -> Mask:
    """Put what is true so many rows up and down."""
    both = np.zeros_like(cells)
    both[by:] |= cells[: len(cells) - by]
    both[: len(cells) - by] |= cells[by:]
    return both


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
            for i, j in _close(mine, there, _counted(own, part), _counted(others, theirs), reach, axis=0):
                yield from ((part, theirs, *pair) for pair in _close(mine, there, i, j, reach, axis=1))


def _counted(ground: Ground, part: int) -> Rows:
    """Give the chips that count."""
    n = ground.centres[part].shape[1]
    return np.arange(n, dtype=smallest(n)) if ground.mask is None else where(ground.mask)


def _close(mine: Centres, there: Centres, i: Rows, j: Rows, reach: float, *, axis: int) -> Iterator[tuple[Rows, Rows]]:
    """Cut places into slabs along an axis, each with those of the other side that may be within reach."""
    a, b = _beside(mine, i, there, j, reach)
    i, j = i[a], j[b]
    if len(i) == 0 or len(j) == 0:
        return
    x, y = mine[axis], there[axis]
    cuts = _cuts(x[i[:: max(len(i) // 10_000, 1)]], ceil(len(i) / (AT_ONCE * (4 if axis == 0 else 1))))
    (line, begin), (others, start) = (_slabs(*each, cuts) for each in ((x, i), (y, j)))
    for number in range(len(cuts) - 1):
        own = line[begin[number] : begin[number + 1]]
        if len(own):
            low, high = float(x[own].min()) - reach, float(x[own].max()) + reach
            first, last = np.searchsorted(cuts[1:-1], (low, high), "right")
            other = others[start[first] : start[last + 1]]
            other = other[(y[other] >= low) & (y[other] <= high)]
            a, b = _beside(mine, own, there, other, reach)
            if a.any():
                yield own[a], other[b]


def _slabs(x: Centres, at: Rows, cuts: Floats) -> tuple[Rows, Indices]:
    """Line places up by the slabs between cuts, and say where each slab begins."""
    line, held = grouped(lambda some: np.searchsorted(cuts[1:-1], x[at[some]], "right"), len(at), len(cuts) - 1)
    return gathered(at, line), np.concatenate([[0], np.cumsum(held)])


def _cuts(x: Centres, pieces: int) -> Floats:
    """Give where to cut a line so that about as many places are in each piece."""
    some = x[:: max(len(x) // 10_000, 1)].astype(float)
    cuts = np.unique(np.quantile(some, np.arange(1, pieces) / pieces))
    return np.array([-np.inf, *cuts, np.inf])


def _beside(mine: Centres, i: Rows, there: Centres, j: Rows, reach: float) -> tuple[Mask, Mask]:
    """Say which of some places may have one of the other side within reach, told on a raster of cells."""
    if len(i) == 0 or len(j) == 0:
        return np.zeros(len(i), bool), np.zeros(len(j), bool)
    sides = ((mine, i), (there, j))
    low, high = _bounds(sides)
    cell = np.maximum(reach / 4, (high - low) / (CELLS - 2))
    spread = [ceil(reach / side) for side in cell]
    shape = tuple(int(n) + 2 for n in (high - low) / cell)

    def cells(places: Centres, at: Rows) -> tuple[npt.NDArray[np.int32], ...]:
        return tuple(((places[:, at] - low[:, None]) / cell[:, None]).astype(np.int32))

    seen = []
    for places, at in sides:
        held = np.zeros(shape, bool)
        for some in chunks(len(at)):
            held[cells(places, at[some])] = True
        seen.append(_widened(_widened(held, spread[0], 0), spread[1], 1))
    found = (np.empty(len(i), bool), np.empty(len(j), bool))
    for beside, (places, at), near_ in zip(found, sides, seen[::-1], strict=True):
        for some in chunks(len(at)):
            beside[some] = near_[cells(places, at[some])]
    return found


def _bounds(sides: Sequence[tuple[Centres, Rows | None]]) -> tuple[Floats, Floats]:
    """Give the least and the largest x and y of some places on either side."""
    pieces = [
        places[:, some] if at is None else places[:, at[some]]
        for places, at in sides
        for some in chunks(places.shape[1] if at is None else len(at))
    ]
    return (
        np.min([piece.min(axis=1) for piece in pieces], axis=0).astype(float),
        np.max([piece.max(axis=1) for piece in pieces], axis=0).astype(float),
    )


def _widened(cells: Mask, by: int, axis: int) -> Mask:
    """Spread what is true to the cells on both sides."""
    lines = np.moveaxis(cells, axis, 0)
    wide = lines.copy()
    for step in range(1, min(by, len(lines) - 1) + 1):
        wide[step:] |= lines[:-step]
        wide[:-step] |= lines[step:]
    return np.moveaxis(wide, 0, axis)
