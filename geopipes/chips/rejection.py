"""Drawing by rejection: candidates are tried until enough of them fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import shapely

from geopipes.chips.cutting import Coverage, fits
from geopipes.chips.fields import Field
from geopipes.chips.footprints import Floats, Geometries
from geopipes.chips.windows import Indices, Windows, boxes_of
from geopipes.errors import ChipError

AT_ONCE = 1 << 18
"""Candidates that are tried at a time: 100 MB of rectangles."""

TRIES = 1_000_000
"""Candidates that are tried before nothing is taken to fit."""

SQUARE_KM = 1e6
"""In square metres."""

TRIES_EACH = 1_000
"""Candidates that are tried for each window asked for: less than one in a thousand fits, and drawing would not end."""


@dataclass(frozen=True)
class Ask:
    """How many windows are asked for, by which call."""

    call: str
    n: int | None
    density: float | None
    seed: int
    coverage: Coverage

    def __post_init__(self) -> None:
        if (self.n is None) == (self.density is None):
            raise ChipError(f"{self.call}: give one of n= (windows) and density= (windows per km²)")
        if (self.n is not None and self.n < 1) or (self.density is not None and not self.density > 0):
            raise ChipError(f"{self.call}: n={self.n}, density={self.density}: give a number above 0")
        if self.coverage not in ("full", "any"):
            raise ChipError(f"{self.call}: coverage={self.coverage!r}: use 'full' or 'any'")


@dataclass(frozen=True)
class Area:
    """Polygons of one cube, in which windows are drawn.

    Attributes
    ----------
    field : the positions of the cube
    shapes : (k,) polygons in the cube's CRS
    whole : whether they hold the window, or only its centre
    label : (k,) what each belongs to
    low, count : (k, 2) the first position (row, col) that may fit, and how many there are, in strides of the field
    """

    field: Field
    shapes: Geometries
    whole: bool
    label: Indices
    low: Indices
    count: Indices

    @classmethod
    def of(cls, field: Field, shapes: Geometries, *, whole: bool, on_grid: bool, label: Indices | None = None) -> Area:
        """Find the positions that may fit each polygon."""
        label = np.zeros(len(shapes), np.int64) if label is None else label
        low, count = field.positions(shapely.bounds(shapes), whole=whole, on_grid=on_grid)
        kept = (shapely.area(shapes) > 0) & (count > 0).all(axis=1)
        shapely.prepare(shapes[kept])
        return cls(field, shapes[kept], whole, label[kept], low[kept], count[kept])

    def holds(self, windows: Windows, part: Indices) -> npt.NDArray[np.bool_]:
        """Say which windows, all of this cube, lie in their part."""
        if self.whole:
            whole = boxes_of(self.field.cube, windows.size, windows.row, windows.col)
            held: npt.NDArray[np.bool_] = shapely.covers(self.shapes[part], whole)
            return held
        affine = self.field.cube.geobox.affine
        x = affine.c + affine.a * (windows.col + windows.size[1] / 2)
        y = affine.f + affine.e * (windows.row + windows.size[0] / 2)
        middles: npt.NDArray[np.bool_] = shapely.intersects_xy(self.shapes[part], x, y)
        return middles


def drawn(blank: Windows, areas: list[Area], ask: Ask) -> tuple[Windows, Indices]:
    """Draw windows in areas, by rejection; give them with the labels of their parts.

    A candidate is a part, in proportion to the most ground that its positions can hold, one of these, and a first
    date. It is kept with the share that its own ground has of the most, and where its window fits. So each window is
    what comes of a candidate with the probability ground / (total x dates).
    """
    areas = [area for area in areas if len(area.shapes)]
    rng = np.random.default_rng(ask.seed)
    numbers = [(np.full(len(area.shapes), k), np.arange(len(area.shapes))) for k, area in enumerate(areas)]
    parts = np.concatenate(numbers, axis=1).T
    total = np.cumsum(np.concatenate([area.count.prod(axis=1) * area.field.most_ground for area in areas]))
    wanted = np.inf if ask.n is None else ask.n + 1
    most = TRIES + TRIES_EACH * wanted if ask.density is None else round(ask.density / SQUARE_KM * total[-1])
    found: list[tuple[Windows, Indices, Indices]] = []
    tries, fitted = 0, 0
    while fitted < wanted and tries < most:
        needed = most - tries if ask.n is None else 64 + 1.1 * (wanted - fitted) * (tries + 1) / (fitted + 1)
        picks = np.searchsorted(total, rng.random(int(min(AT_ONCE, needed))) * total[-1], side="right")
        windows, label, at = _tried(blank, areas, parts[picks], ask, rng)
        found.append((windows, label, tries + at))
        tries, fitted = tries + len(picks), fitted + len(windows)
    if fitted < (1 if ask.n is None else wanted):
        raise ChipError(
            f"{ask.call}: {fitted:,} of {tries:,} random windows fit, too few to draw {ask.n or 'one'}; use a smaller "
            "size, another region, coverage='any', or a higher density"
        )
    windows, label, at = _joined(found)
    if ask.n is not None:
        windows, label, tries = windows[: ask.n], label[: ask.n], int(at[ask.n])  # tries before window n + 1 fitted
    probability = windows.columns["probability"] * (tries / total[-1])
    return windows.numbered().with_columns({"probability": probability}), label


def _tried(
    blank: Windows, areas: list[Area], parts: Indices, ask: Ask, rng: np.random.Generator
) -> tuple[Windows, Indices, Indices]:
    """Try a candidate in each of the parts (number of the area, of its polygon): (count, 2).

    Returns
    -------
    the windows that fit, with their ground for each date [m²], their labels, and their places among the candidates
    """
    chance = rng.random((4, len(parts)))
    found = []
    for index, area in enumerate(areas):
        at = np.flatnonzero(parts[:, 0] == index)
        part, field = parts[at, 1], area.field
        place = area.low[part] + (chance[:2, at].T * area.count[part]).astype(np.int64)
        row, col = (place * field.stride).T
        ground = field.ground(row, col)
        kept = np.flatnonzero(chance[2, at] * field.most_ground < ground)
        at, part, row, col, ground = at[kept], part[kept], row[kept], col[kept], ground[kept]
        date = field.dates[(chance[3, at] * len(field.dates)).astype(np.int64)]
        windows = _placed(blank, np.full(len(at), field.index), date, row, col, ground / len(field.dates))
        kept = np.flatnonzero(area.holds(windows, part))
        found.append((windows.take(kept), area.label[part[kept]], at[kept]))
    windows, label, at = _joined(found)
    inside = "any" if areas[0].whole else ask.coverage  # what an area holds whole is covered already
    fit = fits(windows, inside, ask.call)
    order = np.argsort(at)
    kept = order[fit[order]]
    return windows.take(kept), label[kept], at[kept]


def _placed(blank: Windows, cube: Indices, time: Indices, row: Indices, col: Indices, ground: Floats) -> Windows:
    """Give a plan windows."""
    placed = Windows.of(
        blank.cubes, blank.size, row=row, col=col, cube=cube, time=time, columns={"probability": ground}
    )
    return replace(blank, frame=placed.frame)


def _joined(found: list[tuple[Windows, Indices, Indices]]) -> tuple[Windows, Indices, Indices]:
    """Put what several rounds found in one line."""
    plans, labels, at = zip(*found, strict=True)
    cube, time, row, col = (np.concatenate([w.values(name) for w in plans]) for name in ("cube", "time", "row", "col"))
    ground = np.concatenate([plan.columns["probability"] for plan in plans])
    return _placed(plans[0], cube, time, row, col, ground), np.concatenate(labels), np.concatenate(at)
