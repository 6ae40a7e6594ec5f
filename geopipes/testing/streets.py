"""A synthetic town, block by block: homes, shops, parks and fields between bent streets, each a function of a seed.

A block depends on its number and the seed alone, so the same houses stand at the same places however large the piece
of the town is that is looked at. East and north are x and y, in metres from the middle of the town.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import atan2, cos, pi, sin

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon
from shapely.affinity import rotate

from geopipes.testing.bodies import Building, Colour, Painted, Part, Site, Tree, flat, hipped, lit, rectangle

_ACROSS, _ALONG = 86.0, 150.0  # [m] from the middle of one street to that of the next
_PAVED = 7.5  # [m] the width of a street
_VERGE = 7.0  # [m] from the middle of a street to the lots: half of what is paved, and grass
_BEND, _WAVE = 14.0, 900.0  # [m] how far streets swing to each side, and over what length

GRASS: Colour = (100, 116, 80, 150)
ASPHALT: Colour = (110, 109, 110, 98)
CONCRETE: Colour = (164, 160, 152, 142)
SOIL: Colour = (154, 130, 106, 148)
POOL: Colour = (92, 158, 172, 40)
CROPS: tuple[Colour, ...] = ((90, 116, 66, 178), (172, 156, 108, 150), (124, 130, 84, 166))
LEAVES: tuple[Colour, ...] = ((50, 70, 44, 136), (62, 82, 50, 158), (78, 88, 54, 150))
CARS: tuple[Colour, ...] = ((225, 225, 225, 200), (45, 45, 50, 50), (150, 50, 46, 90), (64, 80, 124, 80))
TILES: tuple[Colour, ...] = (
    (146, 96, 78, 116), (118, 96, 80, 106), (130, 128, 128, 118), (84, 86, 92, 80), (168, 150, 130, 142),
)  # fmt: skip
FLAT: tuple[Colour, ...] = ((206, 205, 200, 188), (150, 150, 148, 138), (110, 110, 114, 100), (174, 158, 140, 150))
"""Roofs are of tiles or flat; some have the colour of asphalt, concrete or soil, and are told by form alone."""

_KINDS = {"homes": 0.62, "shops": 0.12, "park": 0.07, "crops": 0.11, "woods": 0.05, "soil": 0.03}
"""Of blocks, and their shares."""
_TREES = {"homes": 26, "park": 30, "woods": 190}
"""That are planted, where there is room."""


@dataclass
class Block:
    """What lies between four streets, and the streets at its west and its south.

    Attributes
    ----------
    ground : painted in this order: the block itself, streets, lots, drives, pools, cars
    buildings, trees : what stands on it
    """

    ground: list[Painted] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)


@dataclass(frozen=True)
class Streets:
    """The net of streets: u and v run across and along them [m]."""

    seed: int

    @cached_property
    def _form(self) -> tuple[float, NDArray[np.float64]]:
        """Give by how much the net is turned [radians], and where its waves begin."""
        rng = np.random.default_rng((self.seed, 1))
        return float(rng.uniform(-0.3, 0.3)), rng.uniform(0, 2 * pi, 2)

    def bent(self, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give (n, 2) places on the ground."""
        turn, phase = self._form
        u, v = u + _BEND * np.sin(2 * pi * v / _WAVE + phase[0]), v + _BEND * np.sin(2 * pi * u / _WAVE + phase[1])
        return np.stack([u * cos(turn) - v * sin(turn), u * sin(turn) + v * cos(turn)], axis=-1)

    def site(self, u: float, v: float, turn: float = 0.0) -> Site:
        """Give a place, in the direction of the street there, turned a little [radians]."""
        here, ahead = self.bent(np.array([u, u]), np.array([v, v + 1.0]))
        east, north = ahead - here
        return Site(here[0], here[1], atan2(-east, north) + turn)

    def strip(self, start: tuple[float, float], end: tuple[float, float], width: float) -> Polygon:
        """Pave from one (u, v) to another."""
        u, v = (np.linspace(a, b, 12) for a, b in zip(start, end, strict=True))
        return shapely.LineString(self.bent(u, v)).buffer(width / 2, cap_style="flat")

    def near(self, bounds: tuple[float, float, float, float]) -> Iterator[tuple[int, int]]:
        """Give the numbers of all blocks that may reach into a box (left, bottom, right, top)."""
        reach = shapely.box(*bounds).buffer(2 * _BEND + _ACROSS / 2)  # bends, and shadows that fall out of a block
        left, bottom, right, top = rotate(reach, -self._form[0], (0, 0), use_radians=True).bounds
        for column in range(int(left // _ACROSS), int(right // _ACROSS) + 1):
            for row in range(int(bottom // _ALONG), int(top // _ALONG) + 1):
                yield column, row

    def block(self, column: int, row: int) -> Block:
        """Build a block."""
        return _Builder(self, np.random.default_rng((self.seed, 2, column + 2**20, row + 2**20)), column, row).build()


@dataclass
class _Builder:
    """Builds a block; places are (u, v) from its south-western corner [m]."""

    streets: Streets
    rng: np.random.Generator
    column: int
    row: int
    made: Block = field(default_factory=Block)

    def build(self) -> Block:
        kind = self.rng.choice([*_KINDS], p=[*_KINDS.values()])
        colour = {"crops": self.one(CROPS), "soil": SOIL}.get(kind, GRASS)
        middle = (_ACROSS / 2, _VERGE), (_ACROSS / 2, _ALONG - _VERGE)
        area = self.pave(*middle, _ACROSS - 2 * _VERGE, self.varied(colour, 0.08))
        self.pave((0, -_PAVED / 2), (0, _ALONG), _PAVED, ASPHALT)
        self.pave((0, 0), (_ACROSS, 0), _PAVED, ASPHALT)
        if kind == "homes":
            self.homes(inwards=1)
            self.homes(inwards=-1)
        if kind == "shops":
            self.pave(*middle, _ACROSS - 2 * _VERGE - 2, self.varied(self.one((ASPHALT, CONCRETE)), 0.06))
            self.shops()
        self.plant(area, _TREES.get(kind, 0))
        return self.made

    def homes(self, *, inwards: int) -> None:
        """Line one side of the block with lots: the western one, inwards 1 [east], or the eastern one, -1."""
        edge = _VERGE if inwards == 1 else _ACROSS - _VERGE
        v = _VERGE + 2.0
        while (room := _ALONG - _VERGE - v) > 17.0:
            width = min(self.rng.uniform(17.0, 25.0), room)
            if self.rng.random() > 0.08:  # the others are not built on
                self.home(edge, inwards, v, width)
            v += width

    def home(self, edge: float, inwards: int, v: float, width: float) -> None:
        """Build a house with a drive, and perhaps a garage or a pool, on a lot."""
        rng = self.rng
        deep, wide = rng.uniform(7.5, 11.0), rng.uniform(8.5, width - 6.0)
        u, middle, drive = edge + inwards * (rng.uniform(4.5, 8.0) + deep / 2), v + 0.5 + wide / 2, v + width - 2.5
        behind = edge + inwards * (_ACROSS / 2 - _VERGE - 7.0)
        parts: list[Part] = [(0.0, 0.0, deep, wide)]
        if rng.random() < 0.45:  # an L: a wing towards the garden, under a roof of its own
            parts.append((inwards * deep * 0.6, 0.275 * wide * rng.choice([-1, 1]), deep * 0.9, 0.45 * wide))
        site = self.site(u, middle, rng.normal(0.0, 0.03))
        tiles = self.varied(self.one(TILES), 0.1)
        self.made.buildings.append(hipped(site, parts, tiles, use="home", height=rng.uniform(4.0, 7.0)))
        self.pave((edge - inwards * 3.0, drive), (u, drive), 3.2, self.one((CONCRETE, ASPHALT)))
        if rng.random() < 0.4:
            self.park(edge + inwards * 3.0, drive)
        if rng.random() < 0.35:
            self.pave((u, drive), (behind, drive), 2.8, CONCRETE)
            site = self.site(behind, drive - 0.5, rng.normal(0.0, 0.03))
            self.made.buildings.append(flat(site, (0, 0, 6.5, 4.5), self.one(FLAT), use="garage", height=2.8))
        elif rng.random() < 0.15:
            pool = rectangle(rng.uniform(3.0, 4.5), rng.uniform(6.0, 9.0))
            self.made.ground.append((self.site(behind, middle).put(pool), POOL))

    def shops(self) -> None:
        """Put up to four large buildings on the paved block, and park cars before them."""
        rng, v = self.rng, _VERGE + 6.0
        while (room := _ALONG - _VERGE - 4.0 - v) > 26.0:
            deep, wide = rng.uniform(22.0, 40.0), min(rng.uniform(22.0, 44.0), room)
            site = self.site(_ACROSS - _VERGE - 6.0 - deep / 2, v + wide / 2)
            units = [
                (rectangle(*rng.uniform(1.5, 3.5, 2), *rng.uniform(-0.4, 0.4, 2) * (deep, wide)), self.one(CARS[:2]))
                for _ in range(rng.integers(2, 7))
            ]
            roof = self.varied(self.one(FLAT), 0.08)
            part = (0.0, 0.0, deep, wide)
            shop = flat(site, part, roof, use="shop", height=rng.uniform(5.0, 9.0), on_top=units)
            self.made.buildings.append(shop)
            v += wide + rng.uniform(8.0, 20.0)
        for u in (_VERGE + 4.0, _VERGE + 15.0):
            for v in np.arange(_VERGE + 5.0, _ALONG - _VERGE - 5.0, 2.8):
                if rng.random() < 0.55:
                    self.park(u, v)

    def plant(self, area: Polygon, n: int) -> None:
        """Plant up to n trees; crowns may hang over roofs a little."""
        left, bottom, right, top = area.bounds
        houses = shapely.union_all([building.footprint for building in self.made.buildings])
        for x, y in self.rng.uniform((left, bottom), (right, top), (n, 2)):
            trunk, radius, leaves = shapely.Point(x, y), self.rng.uniform(1.6, 4.8), self.varied(self.one(LEAVES), 0.12)
            if area.contains(trunk) and not houses.dwithin(trunk, 0.6 * radius):
                self.made.trees.append(Tree(x, y, radius, self.rng.uniform(1.2, 1.9) * radius, leaves))

    def park(self, u: float, v: float) -> None:
        self.made.ground.append((self.site(u, v).put(rectangle(4.4, 1.9)), self.one(CARS)))

    def pave(self, start: tuple[float, float], end: tuple[float, float], width: float, colour: Colour) -> Polygon:
        u, v = self.column * _ACROSS, self.row * _ALONG
        area = self.streets.strip((u + start[0], v + start[1]), (u + end[0], v + end[1]), width)
        self.made.ground.append((area, colour))
        return area

    def site(self, u: float, v: float, turn: float = 0.0) -> Site:
        return self.streets.site(self.column * _ACROSS + u, self.row * _ALONG + v, turn)

    def one(self, colours: tuple[Colour, ...]) -> Colour:
        return colours[int(self.rng.integers(len(colours)))]

    def varied(self, colour: Colour, by: float) -> Colour:
        """Give a colour a little lighter or darker."""
        return lit(colour, 1.0 + self.rng.uniform(-by, by))
