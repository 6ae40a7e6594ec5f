"""What became of the chips of a run: counted by their position, and written to the ledger as they are delivered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from geopipes.loaders.ops import HOLE, Element
from geopipes.loaders.shares import Share
from geopipes.loaders.states import order_of
from geopipes.read.failures import Counts, Failure


class Tally:
    """The count of one run, of which each chip that comes by is delivered, filtered or skipped.

    Parameters
    ----------
    source : a `geopipes.chips.Reading`, in the order of the epoch
    share : of which the positions are loaded
    block : positions that one of the elements that come out is made of

    Attributes
    ----------
    counts : of what was delivered so far, and what was passed over on the way there
    """

    def __init__(self, source: Any, share: Share, block: int) -> None:
        self._windows, self._ledger, self._share, self._block = source.windows, source.ledger, share, block
        self._epoch = order_of(source).epoch
        self._failed = set() if self._ledger is None else {*self._ledger.failed.tolist()}
        self._skips: set[int] = set()
        self._masks: set[int] = set()
        self._holes: set[int] = set()
        self._passed: deque[tuple[int, Counts, list[int]]] = deque()
        self._retries = 0
        self.counts = Counts()

    def tell(self, failure: Failure) -> None:
        """Take down a failure, on any thread, or of another process."""
        self._retries += failure.attempts - 1
        if failure.position is not None and failure.action != "recovered":
            (self._masks if failure.action == "masked" else self._skips).add(failure.position)
        if self._ledger is not None:
            self._ledger.add(replace(failure, epoch=self._epoch))

    def watched(self, elements: Iterable[Element]) -> Iterator[Element]:
        """Give elements on, before they are put together, and note which of them are holes."""
        for position, element in elements:
            if element is HOLE:
                self._holes.add(position)
            yield position, element

    def members(self, group: int, members: list[Any]) -> None:
        """Note which elements of a batch, made elsewhere, are holes."""
        positions = self._positions(group)
        self._holes.update(position for position, one in zip(positions, members, strict=False) if one is HOLE)

    def passes(self, position: int, after: int, *, hole: bool) -> None:
        """Count what one of the elements that come out is made of.

        Parameters
        ----------
        position : of the element
        after : where the run would go on behind it
        hole : whether it was refused as a whole
        """
        there = self._positions(position)
        holes = {*there} if hole else {one for one in there if one in self._holes}
        skipped = {one for one in there if one in self._skips}
        masked = {one for one in there if one in self._masks} - holes
        counts = Counts(len(there) - len(holes), len(masked), len(holes - skipped), len(skipped & holes))
        failed = skipped.union(one for one in there if one in self._masks)
        for its in (self._holes, self._skips, self._masks):
            its.difference_update(there)
        self._passed.append((after, counts, [one for one in there if one not in failed] if self._failed else []))

    def settle(self, position: int) -> None:
        """Write down what was delivered up to a position."""
        while self._passed and self._passed[0][0] <= position:
            _, counts, whole = self._passed.popleft()
            self.counts += counts
            if self._ledger is not None:
                self._ledger.count(counts, self._mended(whole))
        self.counts = replace(self.counts, retries=self._retries)

    def _mended(self, positions: list[int]) -> set[int]:
        """Give the ids of those that had failed before."""
        if not positions:
            return set()
        mended = self._failed.intersection(self._windows.values("id", np.array(positions)).tolist())
        self._failed -= mended
        return mended

    def flush(self) -> None:
        """Have the ledger write what waits."""
        if self._ledger is not None:
            self._ledger.flush()

    def _positions(self, position: int) -> Sequence[int]:
        """Give the positions of this rank that an element that comes out is made of, and holes that stayed behind."""
        if self._block == 1:
            return [*sorted(hole for hole in self._holes if hole < position), position]
        first = position * self._block
        return self._share.positions(first, min(first + self._block, len(self._windows)))
