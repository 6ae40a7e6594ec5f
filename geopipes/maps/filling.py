"""Holes of objects, filled: their ground belongs to the object around them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import MultiPolygon, Polygon

from geopipes.maps.components import Outline, Thing, united
from geopipes.maps.ground import Ground

Holes = npt.NDArray[np.object_]
Pairs = dict[int, list[int]]


def fill(things: list[Thing], smaller: float, ground: Ground) -> list[Thing]:
    """Fill the holes that cover less than an area [m2]; what lies within them goes.

    An object that reaches into a hole through a corner, as it may where pixels that share a corner are connected,
    keeps its ground.

    Parameters
    ----------
    things : whose outlines share no ground; areas and outlines change in place
    smaller : than which holes are filled [m2]
    ground : of the pixels in which the outlines are
    """
    outlines = [thing.outline for thing in things]
    owners, holes = _holes(outlines)
    areas = _areas(holes, ground)
    small = np.flatnonzero(areas < smaller)
    small = small[
        np.argsort(-areas[small], kind="stable")
    ]  # what lies within a larger hole is gone before its own turn
    owners, holes = owners[small], holes[small]
    tree = shapely.STRtree(outlines)
    within = _pairs(tree, holes, "covers")
    corners = any(isinstance(outline, MultiPolygon) for outline in outlines)
    reaching = _pairs(tree, holes, "overlaps", "within") if corners else {}
    gone: set[int] = set()
    gains: dict[int, list[Outline]] = {}
    for number, (owner, hole) in enumerate(zip(owners.tolist(), holes, strict=True)):
        if owner in gone:
            continue
        gone |= set(within.get(number, ())) - {owner}
        for other in set(reaching.get(number, ())) - {owner} - gone:
            hole = hole.difference(united([outlines[other], *gains.get(other, ())]))
        if hole.area:
            gains.setdefault(owner, []).append(hole)
    for owner in gains.keys() - gone:
        before, after = outlines[owner], _filled(outlines[owner], gains[owner])
        gained = np.array(gains[owner], object)
        share = (after.area - before.area) / shapely.area(gained).sum()  # an object may lie in a hole of its own
        things[owner].area += float(share * _areas(gained, ground).sum())
        things[owner].parts = [after]
    return [thing for number, thing in enumerate(things) if number not in gone]


def _filled(outline: Outline, gained: list[Outline]) -> Outline:
    """Add ground in holes to an outline."""
    if isinstance(outline, MultiPolygon):
        return united([outline, *gained])
    holes: dict[Outline, Any] = {Polygon(ring): ring for ring in outline.interiors}
    changed = [part for part in gained if holes.pop(part, None) is None]  # others reach into these
    filled = Polygon(outline.exterior, list(holes.values()))
    return united([filled, *changed]) if changed else filled


def _holes(outlines: list[Outline]) -> tuple[npt.NDArray[np.int64], Holes]:
    """Give (owners, holes): all holes as polygons, and whose they are."""
    parts, of = shapely.get_parts(np.array(outlines, object), return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    inner = np.r_[False, part[1:] == part[:-1]] if len(part) else np.zeros(0, bool)  # the first ring is the outer one
    return of[part[inner]], np.array(shapely.polygons(rings[inner]), object)


def _areas(holes: Holes, ground: Ground) -> npt.NDArray[np.float64]:
    """Give the area of holes in pixels, each as large as those at its middle [m2]."""
    centres = shapely.get_coordinates(shapely.centroid(holes)).reshape(-1, 2)
    return np.asarray(shapely.area(holes) * ground.at(centres[:, 1], centres[:, 0]))


def _pairs(tree: shapely.STRtree, holes: Holes, *predicates: Literal["covers", "overlaps", "within"]) -> Pairs:
    """Give the objects that each hole covers, overlaps in part, or lies within."""
    found: Pairs = {}
    for predicate in predicates:
        for hole, other in tree.query(holes, predicate=predicate).T.tolist():
            found.setdefault(hole, []).append(other)
    return found
