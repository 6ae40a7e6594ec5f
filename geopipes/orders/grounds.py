"""Grounds: what plans hold of the ground, and how near, over how large an area, two of them come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import numpy as np
import shapely

from geopipes.chips import Windows
from geopipes.chips.footprints import (
    centres,
    corners,
    distinct,
    geodesic,
    members,
    polygons,
    rectangles,
)
from geopipes.chips.places import TOUCH, plane
from geopipes.chips.rows import AT_ONCE, Rows, chunks, smallest, where
from geopipes.orders.closeness import Centres, Mask, beside, close, cuts, furthest, rounding, within

RADIUS = 6_371_007.2
"""Of the sphere with the ellipsoid's area [m]."""

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
    inner : from a chip's centre to its sides at least [m]
    mask : (n,) which chips count; None for all
    """

    windows: Windows
    parts: tuple[Windows, ...]
    plane: str
    centres: tuple[Centres, ...]
    reach: float
    inner: float
    mask: Mask | None = None

    @classmethod
    def of(cls, windows: Windows, crs: str | None = None) -> Ground:
        """Lay a plan on a plane, by default its own."""
        crs = crs or plane(windows).to_wkt()
        parts = members(windows)
        middles = [centres(part, crs) for part in parts]
        reach, inner = np.array([_radii(part, crs) for part in parts]).T
        # Of the middles as they are kept.
        whole = float(reach.max()) + max(rounding(middle) for middle in middles)
        return cls(windows, parts, crs, tuple(middles), whole, float(inner.min()))

    def only(self, mask: Mask) -> Ground:
        """Give a part of it."""
        return replace(self, mask=mask)

    @property
    def stretch(self) -> float:
        """How much the plane lengthens at most."""
        return max(_stretch(middle) for middle in self.centres)


def _stretch(places: Centres) -> float:
    """Give how much the plane lengthens at most: 1 / cos(c / 2), c the angle from its middle (Snyder 1987, p. 185)."""
    far = float(np.hypot(*furthest(places)))
    return float(max(1 - (far / (2 * RADIUS)) ** 2, 0.01) ** -0.5)


def _radii(windows: Windows, crs: str) -> tuple[float, float]:
    """Give how far the corners of a plan's chips are from the middle at most, and their sides at least, on a plane.

    By the chips in the extremes; sides are taken to lie at the middle where chips are cut off at the edge of a grid.
    """
    some = np.linspace(0, len(windows) - 1, min(len(windows), 100)).astype(np.int64)
    ends = [end for name in ("row", "col") for end in _extremes(windows, name)]
    found = corners(windows, np.array([*some, *ends]), crs)
    reach = SLACK * float(np.hypot(*(found[:, 2:] - found[:, :2]).T).max()) / 2
    longest = np.hypot(*(found[:, 1:] - found[:, :-1]).T).max(axis=0)
    inner = float((shapely.area(polygons(found)) / longest).min()) / (2 * SLACK) - TOUCH
    return reach, 0.0 if _cut_off(windows) else max(inner, 0.0)


def _cut_off(windows: Windows) -> bool:
    """Say whether windows reach over the edges of their grids."""
    last = np.array([cube.geobox.shape for cube in windows.cubes]) - windows.size
    for at in chunks(len(windows)):
        place = np.stack([windows.values(name, at) for name in ("row", "col")], axis=1)
        if ((place < 0) | (place > last[windows.values("cube", at)])).any():
            return True
    return False


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
        sure = within(mine[:, i], there[:, j], most + own.inner + others.inner)
        hit[i[sure]] = True
        i = i[~sure]
        a, b = beside(mine, i, there, j, wide + own.reach + others.reach)
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


def _first_few(places: Centres, at: Rows, reach: float) -> Iterator[Rows]:
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
    for low, high in pairwise(cuts(x, ceil(len(x) / AT_ONCE))):
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


def _neighbours(own: Ground, others: Ground, distance: float) -> Iterator[tuple[int, int, Rows, Rows]]:
    """Give chips, some at a time, with all the others that may come as near as a distance on the plane.

    Yields
    ------
    the number of a part on either side, and positions in each
    """
    reach = distance + own.reach + others.reach
    for part, mine in enumerate(own.centres):
        for theirs, there in enumerate(others.centres):
            for i, j in close(mine, there, _counted(own, part), _counted(others, theirs), reach, axis=0):
                yield from ((part, theirs, *pair) for pair in close(mine, there, i, j, reach, axis=1))


def _counted(ground: Ground, part: int) -> Rows:
    """Give the chips that count."""
    n = ground.centres[part].shape[1]
    return np.arange(n, dtype=smallest(n)) if ground.mask is None else where(ground.mask)
