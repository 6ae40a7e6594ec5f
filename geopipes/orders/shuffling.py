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
from geopipes.chips.rows import SORTED_AT_ONCE, Rows, chunks, grouped, shuffled, small, smallest
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

MIDDLE = 1 << 31
"""Is added to the number of a strip in its scene, which may be below 0, so that it has the lower half of 8 bytes."""

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
    again = partial(shuffle, seed=seed, exact=exact, lanes=lanes, strip=strip)
    by_id = _by_id(windows)
    ordered = windows if by_id is None else windows.take(by_id)
    if exact or len(windows) < 2:
        order = shuffled(len(windows), rng)
    else:
        order = _interleaved(*_strips(ordered, strip, rng), min(lanes, len(windows)), rng)
    return replace(ordered.take(order), order=Order(seed, epoch, again))


def _by_id(windows: Windows) -> Rows | None:
    """Give the positions in the order of their ids; None where they stand in it."""
    last = -1
    for ids in windows.pieces("id"):
        if ids[0] < last or (np.diff(ids) < 0).any():
            break
        last = ids[-1]
    else:
        return None
    found: Rows = np.argsort(small(windows.ids), kind="stable").astype(smallest(len(windows)))
    return found


def _interleaved(scene: Indices, run: Rows, along: Floats, lanes: int, rng: np.random.Generator) -> Rows:
    """Deal chips to lanes and take one of each lane in turn.

    Parameters
    ----------
    scene : (runs,) that of each run, numbered from 0
    run : (n,) of each chip, numbered from 0
    along : (n,) the place of each chip in its run
    lanes : n at most

    Returns
    -------
    (n,) the chip at each position
    """
    n = len(run)
    number = _spread(lanes)
    lengths = (n - 1 - number) // lanes + 1
    scenes, turns = (rng.permutation(count) for count in (scene.max() + 1, len(scene)))
    rank = np.argsort(scenes[scene], kind="stable")  # the runs as they stand in the line
    line, held = _lined_up(run, along, rank)
    starts = rng.integers(lengths)
    # The line is cut into lanes, and these where runs meet: each lane takes its pieces in the order of their turns.
    ends = np.cumsum(held)
    begins = np.cumsum(lengths) - lengths
    cuts = np.union1d(begins, ends - held)
    lane, piece = np.searchsorted(begins, cuts, "right") - 1, np.searchsorted(ends, cuts, "right")
    sizes = np.diff(cuts, append=n)
    turn = np.lexsort((turns[rank[piece]], lane))
    place = np.empty(len(cuts), np.int64)  # of each piece in its lane
    place[turn] = np.cumsum(sizes[turn]) - sizes[turn] - begins[lane[turn]]
    order = np.empty(n, line.dtype)
    for at in chunks(n, SORTED_AT_ONCE):
        which = np.searchsorted(cuts, np.arange(at.start, at.stop), "right") - 1
        own = lane[which]
        there = place[which] + np.arange(at.start, at.stop) - cuts[which] + starts[own]
        order[there % lengths[own] * lanes + number[own]] = line[at]
    return order


def _lined_up(run: Rows, along: Floats, rank: Indices) -> tuple[Rows, Indices]:
    """Line chips up run by run, and in each run along it.

    Parameters
    ----------
    run, along : (n,) of each chip
    rank : (runs,) the runs in the order in which they stand in the line

    Returns
    -------
    (n,) the chips, and (runs,) how many each run of the line has
    """
    to = np.empty(len(rank), np.int64)
    to[rank] = np.arange(len(rank))
    line, held = grouped(lambda at: to[run[at]], len(run), len(rank))
    ends = np.cumsum(held)
    begin = 0
    while begin < len(run):  # whole runs at a time
        last = max(np.searchsorted(ends, begin + SORTED_AT_ONCE, "right") - 1, np.searchsorted(ends, begin, "right"))
        some = line[begin : ends[last]]
        line[begin : ends[last]] = some[np.lexsort((along[some], to[run[some]]))]
        begin = int(ends[last])
    return line, held


def _spread(lanes: int) -> Indices:
    """Give numbers to the lanes so that a few in a row lie all over the line: van der Corput's sequence."""
    return np.argsort([f"{lane:032b}"[::-1] for lane in range(lanes)])


def _strips(windows: Windows, strip: int | None, rng: np.random.Generator) -> tuple[Indices, Rows, Floats]:
    """Give the scene of each strip and the strip of each chip, numbered from 0, and its place along the strip [px]."""
    dates = max(int(time.max()) for time in windows.pieces("time")) + 1
    lattices = [_Lattice.of(cube) for cube in windows.cubes]
    tall = np.array([strip or max(STRIP_TILES * TILE * one.scale[0], windows.size[0]) for one in lattices])
    wide = np.array([JITTER_TILES * TILE * one.scale[1] for one in lattices])
    along = np.empty(len(windows))
    run = np.empty(len(windows), smallest(len(windows)))
    tops: dict[int, float] = {}
    found = []  # the strips of each piece, their scene in the upper half of a number
    for at in chunks(len(windows), SORTED_AT_ONCE):
        cube, time, row = (windows.values(name, at) for name in ("cube", "time", "row"))
        codes, scene = np.unique(cube * dates + time, return_inverse=True)
        tops |= {code: lattices[code // dates].top(code % dates) for code in codes.tolist() if code not in tops}
        top = np.array([tops[code] for code in codes.tolist()])[scene]
        band = np.floor((row - windows.margin - top) / tall[cube]).astype(np.int64)
        strips, run[at] = np.unique((codes[scene] << 32) + band + MIDDLE, return_inverse=True)
        found.append(strips)
        along[at] = windows.values("col", at) + wide[cube] * rng.random(len(cube))
    every = np.unique(np.concatenate(found))
    for at, strips in zip(chunks(len(windows), SORTED_AT_ONCE), found, strict=True):
        run[at] = np.searchsorted(every, strips)[run[at]]
    return np.unique(every >> 32, return_inverse=True)[1], run, along


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
