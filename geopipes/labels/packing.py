"""Which of many boxes touch a window: a packed R-tree in three arrays, for vectors that have no index of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float64]
Bounds = tuple[float, float, float, float]

FANOUT = 32
"""Boxes in a node: few levels, and each is looked at by one comparison of arrays."""


@dataclass(frozen=True)
class Packed:
    """Boxes packed by sort-tile-recursive (Leutenegger, Lopez and Edgington 1997).

    Attributes
    ----------
    order : (n,) the boxes' own numbers, so that near ones stand together
    levels : (m, 4) the boxes of each level: left, bottom, right, top; first the root's children, last the boxes
    """

    order: npt.NDArray[np.int64]
    levels: tuple[Boxes, ...]

    @classmethod
    def of(cls, boxes: Boxes) -> Packed:
        """Pack boxes, (n, 4)."""
        middle = boxes[:, :2] + boxes[:, 2:]
        slices = max(int(np.ceil(np.sqrt(len(boxes) / FANOUT))), 1)
        by_x = np.argsort(middle[:, 0], kind="stable")
        strip = np.empty(len(boxes), np.int64)
        strip[by_x] = np.arange(len(boxes)) * slices // max(len(boxes), 1)
        order = np.lexsort((middle[:, 1], strip))
        levels = [boxes[order]]
        while len(levels[0]) > FANOUT:
            starts = np.arange(0, len(levels[0]), FANOUT)
            low = np.minimum.reduceat(levels[0][:, :2], starts)
            levels.insert(0, np.hstack([low, np.maximum.reduceat(levels[0][:, 2:], starts)]))
        return cls(order, tuple(levels))

    def touching(self, window: Bounds) -> npt.NDArray[np.int64]:
        """Give the numbers of the boxes that touch a window, ascending."""
        left, bottom, right, top = window
        at = np.arange(len(self.levels[0]))
        for depth, level in enumerate(self.levels):
            if depth > 0:
                at = (at[:, None] * FANOUT + np.arange(FANOUT)).ravel()
                at = at[at < len(level)]
            near = level[at]
            at = at[(near[:, 0] <= right) & (near[:, 2] >= left) & (near[:, 1] <= top) & (near[:, 3] >= bottom)]
        return np.sort(self.order[at])
