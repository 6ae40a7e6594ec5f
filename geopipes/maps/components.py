"""Objects of pixels, found strip by strip: the same as if the raster were looked at whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import shapes
from shapely.geometry import MultiPolygon, Polygon

from geopipes.read.warps.compiling import compiled

Outline = Polygon | MultiPolygon

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(eq=False)
class Thing:
    """Connected pixels of one class, as far as they have been seen.

    Attributes
    ----------
    value : the class
    first : the first pixel, counted along the rows of the raster
    area : [m2]
    weight, total : how many pixels have a probability, and the sum of these
    parts : what is covered, in pixels
    into : the thing that this one turned out to be a part of
    """

    value: int
    first: int
    area: float
    weight: float = 0.0
    total: float = 0.0
    parts: list[Outline] = field(default_factory=list)
    into: Thing | None = None

    def whole(self) -> Thing:
        """Give the thing that this one is a part of by now."""
        thing = self
        while thing.into is not None:
            thing = thing.into
        return thing

    def join(self, other: Thing) -> None:
        """Become one with another."""
        one, two = sorted(
            (self.whole(), other.whole()), key=lambda thing: -len(thing.parts)
        )  # lists grow, or are moved
        if one is two:
            return
        one.first = min(one.first, two.first)
        one.area += two.area
        one.weight += two.weight
        one.total += two.total
        one.parts += two.parts
        two.parts, two.into = [], one

    def unite(self) -> None:
        """Make one outline of the parts; pieces that touch at corners alone stay polygons apart, and so valid."""
        if len(self.parts) > 1:
            self.parts = [straight(united(self.parts))]

    @property
    def outline(self) -> Outline:
        """What is covered, in pixels, of a thing that is united."""
        (outline,) = self.parts
        return outline

    @property
    def probability(self) -> float:
        """The mean; NaN where no pixel has one."""
        return self.total / self.weight if self.weight else math.nan


class Finder:
    """Finds things in strips that come from the top to the bottom.

    Those that touch the last row stay open, and become one with what touches them in the next strip. Held in memory
    are one strip and the outlines of what is open.

    Parameters
    ----------
    diagonal : whether pixels that share a corner alone are connected
    smallest : things of less area are left out [m2]
    """

    def __init__(self, *, diagonal: bool, smallest: float) -> None:
        self._diagonal, self._smallest = diagonal, smallest
        self._open: dict[int, Thing] = {}  # by the label in the last row
        self._last: tuple[Ints, Ints] | None = None  # its labels and values
        self._row = 0

    def strip(
        self, values: Ints, inside: Mask, areas: Floats, probability: tuple[Ints, Mask] | None = None
    ) -> list[Thing]:
        """Take the next strip, and give the things that are complete.

        Parameters
        ----------
        values : (rows, x) the class of each pixel
        inside : pixels that have one
        areas : of pixels [m2]
        probability : of pixels, and which of them have one
        """
        labels, firsts = label(values, inside, self._diagonal)
        count = len(firsts)
        area = np.bincount(labels.ravel(), areas.ravel(), count)
        top, bottom = np.unique(labels[0]), np.unique(labels[-1])
        wanted = area >= self._smallest  # a speck that is complete is left out before it gets an outline
        wanted[top] = wanted[bottom] = True
        wanted[0] = False
        above = self._row * values.shape[1]
        things = {
            number: Thing(int(values.flat[firsts[number]]), above + int(firsts[number]), float(area[number]))
            for number in np.flatnonzero(wanted).tolist()
        }
        if probability is not None:
            _weigh(things, labels, *probability)
        for upper, number in self._touching(labels[0], values[0]):
            self._open[upper].join(things[number])
        self._outline(things, labels, wanted)
        before = [thing.whole() for thing in (*self._open.values(), *things.values())]
        self._open = {number: things[number].whole() for number in bottom.tolist() if number}
        self._last = labels[-1].copy(), values[-1].copy()
        self._row += len(values)
        goes_on = set(map(id, self._open.values()))
        return self._complete({id(thing): thing for thing in before if id(thing) not in goes_on})

    def rest(self) -> list[Thing]:
        """Give what touches the last row, when there is no strip any more."""
        return self._complete({id(thing): thing for thing in self._open.values()})

    def _complete(self, things: dict[int, Thing]) -> list[Thing]:
        large = [thing for thing in things.values() if thing.area >= self._smallest]
        for thing in large:
            thing.unite()  # its parts need no memory any more
        return large

    def _touching(self, labels: Ints, values: Ints) -> Iterator[tuple[int, int]]:
        """Give pairs of labels, of the last row and of the one below it, that are connected."""
        if self._last is None:
            return
        pairs = set()
        for shift in (-1, 0, 1) if self._diagonal else (0,):
            above = slice(max(0, shift), len(labels) + min(0, shift))
            below = slice(max(0, -shift), len(labels) - max(0, shift))
            ours, theirs = self._last[0][above], labels[below]
            same = (ours > 0) & (theirs > 0) & (self._last[1][above] == values[below])
            pairs |= set(zip(ours[same].tolist(), theirs[same].tolist(), strict=True))
        yield from sorted(pairs)

    def _outline(self, things: dict[int, Thing], labels: Ints, wanted: Mask) -> None:
        """Add the outlines of a strip's things to what they belong to."""
        place = Affine.translation(0, self._row)
        for geometry, number in shapes(labels, mask=wanted[labels], connectivity=4, transform=place):
            shell, *holes = geometry["coordinates"]
            things[int(number)].whole().parts.append(Polygon(shell, holes))


def _weigh(things: dict[int, Thing], labels: Ints, probability: Ints, there: Mask) -> None:
    """Add up the probabilities of a strip's things."""
    of = labels[there]
    totals = np.bincount(of, probability[there].astype(np.float64), minlength=1)
    weights = np.bincount(of, minlength=1)
    for number, thing in things.items():
        if number < len(weights):
            thing.weight, thing.total = float(weights[number]), float(totals[number])


def united(parts: Sequence[Outline]) -> Outline:
    """Make one of outlines in pixels; exact, since corners are whole numbers."""
    return cast(Outline, shapely.union_all(parts))


def straight(geometry: Outline) -> Outline:
    """Leave out the corners that are none: where strips met in the middle of an edge."""
    if isinstance(geometry, MultiPolygon):
        return MultiPolygon(list(map(_straight, geometry.geoms)))
    return _straight(geometry)


def _straight(polygon: Polygon) -> Polygon:
    return Polygon(_corners(polygon.exterior), [_corners(ring) for ring in polygon.interiors])


def _corners(ring: Any) -> Floats:
    """Give the corners of a ring whose edges are horizontal or vertical."""
    places = shapely.get_coordinates(ring)[:-1]
    before, after = places - np.roll(places, 1, axis=0), np.roll(places, -1, axis=0) - places
    corners: Floats = places[(before == 0).argmax(axis=1) != (after == 0).argmax(axis=1)]
    return corners


def label(values: Ints, inside: Mask, diagonal: bool) -> tuple[Ints, Ints]:
    """Give connected pixels of one value a number.

    Parameters
    ----------
    values : (y, x) whole numbers
    inside : pixels to be numbered
    diagonal : whether pixels that share a corner alone are connected

    Returns
    -------
    (labels, firsts) : (y, x) int32, 0 outside, else from 1 in the order of the first pixels along the rows; and the
        index of the first pixel of each label, that of 0 without meaning
    """
    return _label(np.ascontiguousarray(values), np.ascontiguousarray(inside), diagonal)


@compiled
def _label(values: Ints, inside: Mask, diagonal: bool) -> tuple[Ints, Ints]:
    height, width = values.shape
    labels = np.zeros((height, width), np.int32)
    parents = np.zeros(height * width + 1, np.int32)
    count = 0
    for row in range(height):
        for col in range(width):
            if not inside[row, col]:
                continue
            mine = 0
            for step in range(4):  # left, above, and above to both sides
                if step >= 2 and not diagonal:
                    break
                y = row if step == 0 else row - 1
                x = col if step == 1 else col + 1 if step == 3 else col - 1
                if y < 0 or x < 0 or x >= width or not inside[y, x] or values[y, x] != values[row, col]:
                    continue
                other = labels[y, x]
                while parents[other] != other:
                    parents[other] = parents[parents[other]]
                    other = parents[other]
                if mine == 0 or other == mine:
                    mine = other
                elif other < mine:
                    parents[mine] = other
                    mine = other
                else:
                    parents[other] = mine
            if mine == 0:
                count += 1
                parents[count] = count
                mine = count
            labels[row, col] = mine
    final = np.zeros(count + 1, np.int32)
    firsts = np.zeros(count + 1, np.int64)
    number = 0
    for row in range(height):
        for col in range(width):
            mine = labels[row, col]
            if mine == 0:
                continue
            while parents[mine] != mine:
                mine = parents[mine]
            if final[mine] == 0:
                number += 1
                final[mine] = number
                firsts[number] = row * width + col
            labels[row, col] = final[mine]
    return labels, firsts[: number + 1]
