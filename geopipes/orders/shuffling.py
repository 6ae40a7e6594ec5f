"""Shuffle: a random order in which neighbours stay near, for readers that keep decoded tiles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import floor, isfinite, log2
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geopipes.chips import Windows
from geopipes.chips.windows import Indices, Order
from geopipes.datacubes.cube import Cube, MappedCube
from geopipes.datacubes.stackcube import StackCube
from geopipes.datacubes.together import InputsCube, JoinedCube
from geopipes.errors import ChipError
from geopipes.read.placing import placement
from geopipes.read.sources import Source, Variable

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Floats = npt.NDArray[np.float64]

LANES = 32
"""Chips in a usual batch, so that each comes from another lane."""

TILE = 512
"""Side of a source tile [px] as most COGs have it: the files' own is not known before they are opened."""

STRIP_TILES = 2
"""Tiles in the height of a strip: of one, the tiles at its edges, decoded for two strips, would be most of them."""

JITTER_TILES = 0.5
"""Tiles by which chips are moved along their strip: neighbours in a lane change, hardly the tiles that are open."""


def shuffle(
    windows: Windows, seed: int, *, exact: bool = False, epoch: int = 0, lanes: int = LANES, strip: int | None = None
) -> Windows:
    """Put the chips in a random order that a cache of decoded tiles can follow, or in a plain random order.

    Each scene (a cube's date) is cut into strips, two source tiles high. Scenes are lined up in random order,
    the strips of each from top to bottom, and the line is cut into ``lanes`` equal pieces. A lane takes its strips
    in random order, from a random place on and round, the chips of a strip from left to right but for half a
    tile's jitter. The order takes one chip of each lane in turn: position p belongs to lane ``p % lanes``.

    So a batch of as many chips as there are lanes holds one of each lane, in proportion to the scenes, and each
    tile is decoded about once. With 8 scenes of 7,680 px, chips of 224 px and a cache of a tenth of the pixels,
    each tile is decoded 1.3 times, and 5.8 times in a plain random order. There the variance of means over
    batches of 32 is 0.5 of that of independent draws (of 64 0.7, but of 128, four chips from each lane, 1.2).

    What cannot be had together is one decode for each tile, bounded memory and independent batches: batches that
    follow each other are of neighbouring places (their means correlate by 0.4 to 0.8 where chips are like their
    neighbours). Fewer lanes need less memory, and their batches are less mixed. ``exact=True`` gives independent
    batches, and decodes tiles again and again.

    Memory: the reader decodes each tile about once if its cache holds 4 to 8 stacks of tiles for each lane, a
    stack being all bands and dates of one tile. Seven 16-bit bands in tiles of 512 px make stacks of 3.7 MB, and
    32 lanes need 0.5 to 0.9 GB; 24 dates of four bands make stacks of 50 MB: there ``lanes=4`` is about right.

    Parameters
    ----------
    windows : (n,) a plan
    seed : of numpy's PCG64
    exact : a plain permutation: every order of the chips is as likely as any other
    epoch : another one is another order, the one that `geopipes.orders.epoch` gives. Order is a function of the
        chips, seed and epoch alone; the order they stood in before does not count
    lanes : strips that are read at a time, best as many as there are chips in a batch. Ranks that divide it and
        take every R-th chip have lanes of their own, which lie side by side, and so decode few of the same tiles
    strip : its height [px of the grid]; None for two tiles of the source of which most is read, taken as 512 px,
        and at least a chip

    Returns
    -------
    the same chips, each once, with their ids

    Raises
    ------
    ChipError
        for an epoch below 0, no lane, or strips without height
    """
    if epoch < 0 or lanes < 1 or (strip is not None and strip < 1):
        raise ChipError(
            f"shuffle(epoch={epoch}, lanes={lanes}, strip={strip}): use epoch 0 and up, the others 1 and up"
        )
    rng = np.random.default_rng((seed, epoch))
    by_id = np.argsort(windows.ids, kind="stable")
    if exact or len(windows) < 2:
        order = rng.permutation(len(windows))
    else:
        order = _interleaved(*_strips(windows.take(by_id), strip, rng), min(lanes, len(windows)), rng)
    again = partial(shuffle, seed=seed, exact=exact, lanes=lanes, strip=strip)
    return replace(windows.take(by_id[order]), order=Order(seed, epoch, again))


def _interleaved(scene: Indices, run: Indices, along: Floats, lanes: int, rng: np.random.Generator) -> Indices:
    """Deal chips to lanes and take one of each lane in turn.

    Parameters
    ----------
    scene, run : (n,) of each chip, numbered from 0
    along : (n,) the place of each chip in its run
    lanes : n at most

    Returns
    -------
    (n,) the chip at each position
    """
    number = _spread(lanes)
    lengths = (len(run) - 1 - number) // lanes + 1
    lane = np.repeat(np.arange(lanes), lengths)
    scenes, turns = (rng.permutation(count + 1) for count in (scene.max(), run.max()))
    line = np.lexsort((along, run, scenes[scene]))
    line = line[np.lexsort((along[line], turns[run[line]], lane))]
    place = np.arange(len(run)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    place = (place + rng.integers(lengths)[lane]) % lengths[lane]
    order = np.empty(len(run), np.int64)
    order[place * lanes + number[lane]] = line
    return order


def _spread(lanes: int) -> Indices:
    """Give numbers to the lanes so that a few in a row lie all over the line: van der Corput's sequence."""
    return np.argsort([f"{lane:032b}"[::-1] for lane in range(lanes)])


def _strips(windows: Windows, strip: int | None, rng: np.random.Generator) -> tuple[Indices, Indices, Floats]:
    """Give the scene and the strip of each chip, numbered from 0, and its place along the strip [px]."""
    dates = int(windows.time.max()) + 1
    codes, scene = np.unique(windows.cube * dates + windows.time, return_inverse=True)
    lattices = [_Lattice.of(cube) for cube in windows.cubes]
    tops = np.array([lattices[code // dates].top(code % dates) for code in codes])
    tall = [strip or max(STRIP_TILES * TILE * lattice.scale[0], windows.size[0]) for lattice in lattices]
    band = np.floor((windows.row - windows.margin - tops[scene]) / np.array(tall)[windows.cube]).astype(np.int64)
    band -= band.min()
    _, run = np.unique(scene * (band.max() + 1) + band, return_inverse=True)
    jitter = np.array([JITTER_TILES * TILE * lattice.scale[1] for lattice in lattices])[windows.cube]
    return scene, run, windows.col + jitter * rng.random(len(windows))


@dataclass(frozen=True)
class _Lattice:
    """How the tiles of a cube's heaviest source lie on its grid, as far as is known before files are opened.

    Attributes
    ----------
    grid : whose pixels the windows count
    dates : that source's rasters at each date, or once for all
    scale : pixels of the grid for one of the source's, or of the overview that is read for it, (y, x)
    """

    grid: GeoBox
    dates: Sequence[Sequence[Source]]
    scale: tuple[float, float]

    @classmethod
    def of(cls, cube: Cube) -> _Lattice:
        """Find the source of which most bytes are read for a pixel of the grid; bands of one scale are one."""
        weights: dict[tuple[float, float], float] = defaultdict(float)
        found: dict[tuple[float, float], Sequence[Sequence[Source]]] = {}
        for variable in _variables(cube):
            source = next((source for date in variable.sources for source in date), None)
            if source is not None:
                scale = placement(source.geobox, cube.geobox).scale
                weights[scale] += source.dtype.itemsize * len(source.bands) / (scale[0] * scale[1])
                found.setdefault(scale, variable.sources)
        if not found:  # an array from elsewhere
            return cls(cube.geobox, (), (1.0, 1.0))
        scale = max(weights, key=lambda scale: weights[scale])
        return cls(cube.geobox, found[scale], (_overview(scale[0]), _overview(scale[1])))

    def top(self, date: int) -> float:
        """Give the grid's row where the tiles of a date begin."""
        rasters = self.dates[min(date, len(self.dates) - 1)] if self.dates else ()
        top = placement(rasters[0].geobox, self.grid).bounds[0] if rasters else 0.0
        return top if isfinite(top) else 0.0


def _variables(cube: Cube) -> Iterator[Variable]:
    """Give the variables of the stacks that a cube is made of."""
    if isinstance(cube, StackCube):
        yield from cube.stack.variables
    elif isinstance(cube, MappedCube):
        yield from _variables(cube.base)
    elif isinstance(cube, JoinedCube | InputsCube):
        parts = (cube.base, cube.other) if isinstance(cube, JoinedCube) else cube.cubes.values()
        for part in parts:
            yield from _variables(part)


def _overview(scale: float) -> float:
    """Give the scale of the overview that is read for a source finer than the grid: overviews halve."""
    return scale * 2.0 ** max(0, floor(-log2(scale)))
