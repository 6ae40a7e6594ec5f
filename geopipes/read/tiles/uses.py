"""When each tile is needed next, as far as the plans tell, and so which one is to go first."""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from threading import Lock
from typing import Any, Generic, TypeVar

NEVER = sys.maxsize
"""The place in time of a use that nobody expects."""

FEW = 64
"""Stale entries in the heap that are not worth a tidying."""

OUT = 0
"""The stamp of what has no place in the ranking."""


class Ranked:
    """What has a key, is pinned as often as it is in use, and may have to go when it is not.

    Attributes
    ----------
    used : when it was released last
    stamp : tells its last place in the ranking from those before
    """

    __slots__ = ("key", "pins", "stamp", "used")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.pins = self.used = 0
        self.stamp = OUT


R = TypeVar("R", bound=Ranked)


class Uses:
    """The uses that one run expects, in the order of its plan: made by ``Tiles.expecting``."""

    def __init__(self, ranking: Ranking[Any]) -> None:
        self._ranking = ranking
        self._ahead: defaultdict[Hashable, deque[int]] = defaultdict(deque)  # places in time, ascending

    def __len__(self) -> int:
        """Count the uses to come."""
        return sum(map(len, self._ahead.values()))

    def add(self, keys: Iterable[Hashable]) -> None:
        """Expect these tiles next, after all that any run has added before.

        A few thousand at a time are enough to evict well, and keep the runs that share a cache in step.
        """
        with self._ranking.lock:
            for key in keys:
                self._ranking.clock += 1
                self._ahead[key].append(self._ranking.clock)

    def __iter__(self) -> Iterator[Hashable]:
        """Give the tiles that are expected, each once."""
        return iter(self._ahead)

    def next(self, key: Hashable) -> int:
        """Give the place in time of the next use."""
        ahead = self._ahead.get(key)
        return ahead[0] if ahead else NEVER

    def drop(self, keys: Sequence[Hashable]) -> None:
        """Take back a use of each: it was expected and will not come."""
        with self._ranking.lock:
            self.consume(keys)
            self._ranking.moved(keys)

    def consume(self, keys: Iterable[Hashable]) -> None:
        """Count a use of each as come; with the lock held."""
        for key in keys:
            if ahead := self._ahead.get(key):
                ahead.popleft()
                if not ahead:
                    del self._ahead[key]


class Ranking(Generic[R]):
    """What may go, the farthest next use first; where none is expected, what was not used for longest.

    Places are worked out when something has to go, not at each use. The methods need the lock held.

    Attributes
    ----------
    lock : guards this and what is ranked
    kept : all that is ranked
    clock : the place in time of the use expected last
    runs : the open runs
    touched : whose places may have changed
    """

    def __init__(self, lock: Lock, kept: Mapping[Hashable, R]) -> None:
        self.lock = lock
        self.kept = kept
        self.clock = 0
        self.runs: list[Uses] = []
        self.touched: set[R] = set()
        self._heap: list[tuple[int, int, int, R]] = []  # (-next use, used, stamp, what)
        self._tidy_at = FEW
        self._stamps = OUT
        self._releases = 0

    def moved(self, keys: Iterable[Hashable]) -> None:
        """Rank these anew: their next uses are others now."""
        self.touched.update(self.kept[key] for key in keys if key in self.kept)

    def release(self, ones: Iterable[R]) -> None:
        """Take back a pin of each."""
        self._releases += 1
        for one in ones:
            one.pins -= 1
            one.used = self._releases
        self.touched.update(ones)

    def farthest(self) -> R | None:
        """Take out the one that is to go first, of those not pinned."""
        for one in self.touched:
            self._rank(one)
        self.touched.clear()
        while self._heap:
            place, _, stamp, one = heappop(self._heap)
            if one.pins or one.stamp != stamp:
                continue
            if self._next(one) != -place:  # a use was added since
                self._rank(one)
                continue
            one.stamp = OUT
            return one
        return None

    def _rank(self, one: R) -> None:
        """Give one its place; what is pinned gets it when it is released."""
        self._stamps += 1
        one.stamp = self._stamps
        if not one.pins:
            heappush(self._heap, (-self._next(one), one.used, one.stamp, one))
        if len(self._heap) > self._tidy_at:
            self._heap = [entry for entry in self._heap if entry[2] == entry[3].stamp]
            heapify(self._heap)
            self._tidy_at = 2 * len(self._heap) + FEW

    def _next(self, one: R) -> int:
        """Give the place in time of the next use that any run expects."""
        nearest = NEVER
        for uses in self.runs:
            nearest = min(nearest, uses.next(one.key))
        return nearest
