"""What stands in a synthetic town, as shapes to be painted: buildings with their roofs, trees, the shadows of both.

East and north are x and y, in metres from the middle of the town.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, sin

import numpy as np
import shapely
from shapely import Polygon
from shapely.affinity import affine_transform, translate
from shapely.geometry.base import BaseGeometry

Colour = tuple[float, float, float, float]
"""Red, green, blue and near infrared, 0 to 255."""
Painted = tuple[BaseGeometry, Colour]
Part = tuple[float, float, float, float]
"""A rectangle of a building: its middle, across and along the street, and its depth and width [m]."""

_SUN = (0.5, -0.87)  # towards the sun: east, north; late morning. It stands 45 degrees high: shadows as long as bodies
_PITCH = 0.4  # of roofs [radians]
_CROWN = ((1.0, 0.72), (0.75, 1.0), (0.42, 1.25))  # of a tree's radius, how light it is


@dataclass(frozen=True)
class Site:
    """A place with a direction: what is drawn around (0, 0), x across the street and y along it, stands there.

    Attributes
    ----------
    x, y : [m]
    turn : of the street, counter-clockwise from north [radians]
    """

    x: float
    y: float
    turn: float

    def direction(self, across: float, along: float) -> tuple[float, float]:
        """Give (east, north) of a direction."""
        c, s = cos(self.turn), sin(self.turn)
        return c * across - s * along, s * across + c * along

    def put(self, shape: BaseGeometry) -> BaseGeometry:
        """Put a shape there."""
        c, s = cos(self.turn), sin(self.turn)
        return affine_transform(shape, (c, -s, s, c, self.x, self.y))


@dataclass(frozen=True)
class Building:
    """A building.

    Attributes
    ----------
    footprint : its outline
    use : "home", "garage" or "shop"
    height : [m]
    roof : its faces and what lies on it, what is on top last
    """

    footprint: BaseGeometry
    use: str
    height: float
    roof: tuple[Painted, ...]

    def shadow(self) -> BaseGeometry:
        """Give the ground that it shades, its own included."""
        return _shadow(self.footprint, self.height)


@dataclass(frozen=True)
class Tree:
    """A tree: where its trunk stands, the radius of its crown and its height [m], the colour of its leaves."""

    x: float
    y: float
    radius: float
    height: float
    leaves: Colour

    def crown(self) -> list[Painted]:
        """Give what is seen from above, lighter towards the sun."""
        return [(self._disc(share, 0.35 * (1 - share)), lit(self.leaves, light)) for share, light in _CROWN]

    def shadow(self) -> BaseGeometry:
        """Give the ground that it shades."""
        return _shadow(self._disc(1.0, 0.0), self.height)

    def _disc(self, share: float, towards: float) -> Polygon:
        middle = (at + towards * self.radius * sun for at, sun in zip((self.x, self.y), _SUN, strict=True))
        return shapely.Point(*middle).buffer(self.radius * share, quad_segs=4)


def hipped(site: Site, parts: Sequence[Part], colour: Colour, *, use: str, height: float) -> Building:
    """Build of rectangles, each under a roof that slopes to all four sides and is lighter towards the sun."""
    roof = []
    for part in parts:
        for face, slope in _faces(part):
            towards = float(np.dot(site.direction(*slope), _SUN))
            roof.append((site.put(face), lit(colour, cos(_PITCH) + sin(_PITCH) * towards)))
    return Building(_outline(site, parts), use, height, tuple(roof))


def flat(
    site: Site, part: Part, colour: Colour, *, use: str, height: float, on_top: Sequence[Painted] = ()
) -> Building:
    """Build under a flat roof, with things on top."""
    outline = _outline(site, [part])
    things = [(site.put(shape), tint) for shape, tint in on_top]
    return Building(outline, use, height, ((outline, colour), *things))


def rectangle(across: float, along: float, u: float = 0.0, v: float = 0.0) -> Polygon:
    """Draw a rectangle around a middle."""
    return shapely.box(u - across / 2, v - along / 2, u + across / 2, v + along / 2)


def lit(colour: Colour, light: float) -> Colour:
    """Give a colour in more light, or less."""
    red, green, blue, nir = (min(255.0, light * value) for value in colour)
    return red, green, blue, nir


def _outline(site: Site, parts: Sequence[Part]) -> BaseGeometry:
    return site.put(shapely.union_all([rectangle(deep, wide, u, v) for u, v, deep, wide in parts]))


def _shadow(body: BaseGeometry, height: float) -> BaseGeometry:
    return shapely.union_all([body, translate(body, -_SUN[0] * height, -_SUN[1] * height)]).convex_hull


def _faces(part: Part) -> Iterator[tuple[Polygon, tuple[float, float]]]:
    """Give the four faces of a hipped roof, with the direction in which each slopes."""
    u, v, deep, wide = part
    half = min(deep, wide) / 2
    a, b = deep / 2, wide / 2
    ridge = [(u - (a - half), v - (b - half)), (u + (a - half), v + (b - half))]
    for s, t in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        edge = [(u + (s or side) * a, v + (t or side) * b) for side in (-1, 1)]
        inner = ridge if (s == 0) == (deep > wide) else [ridge[s + t > 0]]  # the long sides meet at the ridge
        yield Polygon([*edge, *reversed(inner)]), (s, t)
