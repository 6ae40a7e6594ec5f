"""Triplets: a window, a neighbour of it, and one far away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from geopipes.chips.footprints import centres
from geopipes.chips.groups import Groups
from geopipes.chips.partners import partners
from geopipes.chips.places import plane
from geopipes.chips.rows import chunks
from geopipes.chips.windows import Indices, Windows, check_some
from geopipes.errors import ChipError


def triplets(windows: Windows, *, near: float, far: float, seed: int, n: int | None = None) -> Groups:
    """Make triplets for learning from neighbourhood: Tile2Vec (Jean et al. 2019).

    Parameters
    ----------
    windows : (N,) a plan
    near : most distance between the centres of anchor and neighbour [m], of which neither is the other's place
    far : least distance between the centres of anchor and distant [m]
    seed : of numpy's PCG64
    n : triplets; None for one with each window for an anchor that has a neighbour and a distant

    Returns
    -------
    groups of ``anchor``, ``neighbour`` and ``distant``, in random order. Anchors are random and differ; neighbours
    are of the anchor's scene (its cube and date), distants of any. Among those that the rules allow all are as
    likely. Distances are taken on the plan's equal-area plane, to a decimetre. Split a plan before: the members of a
    triplet lie too far apart to keep two sets of them from each other

    Raises
    ------
    ChipError
        for distances that are not 0 < near < far, and where fewer than n windows have a neighbour and a distant
    """
    call = f"triplets(near={near}, far={far})"
    check_some(windows, call)
    if not 0 < near < far:
        raise ChipError(f"{call}: both are metres, 0 < near < far")
    if n is not None and not 1 <= n <= len(windows):
        raise ChipError(f"{call}: n={n} anchors that differ, of {len(windows)} windows; use a smaller n")
    rng = np.random.default_rng(seed)
    cells = _Cells.of(windows, near)
    order = rng.permutation(np.arange(len(windows), dtype=cells.line.dtype))
    found = [np.empty((3, 0), np.int64)]
    done, count = 0, 0
    while done < len(order) and (n is None or count < n):
        needed = len(order) if n is None else 64 + int(1.1 * (n - count) * (done + 1) / (count + 1))
        some = order[done : done + needed].astype(np.int64)
        beside = cells.neighbours(some, rng)
        some, beside = some[beside >= 0], beside[beside >= 0]
        apart = cells.distants(some, far, rng)
        found.append(np.stack([some, beside, apart])[:, apart >= 0])
        done, count = done + needed, count + found[-1].shape[1]
    members = np.concatenate(found, axis=1)[:, :n]
    if members.shape[1] < (n or 1):
        raise ChipError(
            f"{call}: {members.shape[1]} of {len(windows)} windows have both a neighbour of their scene within "
            f"{near:g} m and a window beyond {far:g} m, {n or 1} needed; use a larger near=, a smaller far= or n="
        )
    names = ("anchor", "neighbour", "distant")
    return Groups.together({name: windows.take(member) for name, member in zip(names, members, strict=True)})


@dataclass(frozen=True, eq=False)
class _Cells:
    """The windows of a plan in square cells of ground, scene by scene.

    Attributes
    ----------
    windows : (n,) the plan
    x, y : (n,) their centres [m], from the lower left of all
    side : of a cell [m]
    line : (n,) windows by scene, and by cell row by row
    keys : (n,) the number of the cell of each window of the line, rising
    shape : cells of a scene, rows and columns
    dates : of a cube, at most
    """

    windows: Windows
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    side: float
    line: npt.NDArray[np.unsignedinteger[Any]]
    keys: Indices
    shape: tuple[int, int]
    dates: int

    @classmethod
    def of(cls, windows: Windows, side: float) -> _Cells:
        """Deal windows to cells."""
        x, y = centres(windows, plane(windows).to_wkt())
        x -= x.min()
        y -= y.min()
        # An empty cell on every side, so that neighbours never run into the next row or scene.
        shape = (int(y.max() / side) + 3, int(x.max() / side) + 3)
        none = np.empty(0, np.min_scalar_type(len(windows)))
        dates = max(int(piece.max()) for piece in windows.pieces("time")) + 1
        cells = cls(windows, x, y, side, none, np.empty(len(windows), np.int64), shape, dates)
        for at in chunks(len(windows)):
            cells.keys[at] = cells.key(at)
        line = np.argsort(cells.keys).astype(none.dtype)
        cells.keys.sort()
        return replace(cells, line=line)

    def key(self, at: Indices | slice) -> Indices:
        """Give the number of the cell of some windows."""
        scene = self.windows.values("cube", at) * self.dates + self.windows.values("time", at)
        row, col = ((axis[at] / self.side).astype(np.int64) + 1 for axis in (self.y, self.x))
        key: Indices = (scene * self.shape[0] + row) * self.shape[1] + col
        return key

    def neighbours(self, some: Indices, rng: np.random.Generator) -> Indices:
        """Give each of some windows another one of its scene, within a cell's side; -1 where there is none."""
        middle = self.key(some)[:, None] + self.shape[1] * np.array([-1, 0, 1])
        low, high = np.searchsorted(self.keys, middle - 1), np.searchsorted(self.keys, middle + 1, side="right")

        def fits(i: Indices, number: Indices) -> npt.NDArray[np.bool_]:
            own, other = some[i], self.line[number].astype(np.int64)
            elsewhere = np.zeros(len(own), bool)
            for name in ("row", "col"):
                elsewhere |= self.windows.values(name, own) != self.windows.values(name, other)
            near: npt.NDArray[np.bool_] = elsewhere & (self._apart(own, other) <= self.side)
            return near

        found = partners(low, high, fits, rng)
        return np.where(found >= 0, self.line[found].astype(np.int64), -1)

    def distants(self, some: Indices, far: float, rng: np.random.Generator) -> Indices:
        """Give each of some windows one that is at least so far away; -1 where there is none."""
        sides = [np.maximum(axis[some], axis.max() - axis[some]) for axis in (self.x, self.y)]
        possible = np.hypot(*sides) >= far  # by the corners of all
        low = np.zeros((len(some), 1), np.int64)
        high = (possible * len(self.windows))[:, None]
        return partners(low, high, lambda i, number: self._apart(some[i], number) >= far, rng)

    def _apart(self, own: Indices, other: Indices) -> npt.NDArray[np.float64]:
        """Give the distance between windows [m]."""
        dx, dy = (axis[own].astype(float) - axis[other] for axis in (self.x, self.y))
        return np.hypot(dx, dy)
