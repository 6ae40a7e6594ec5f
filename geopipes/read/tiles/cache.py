"""The cache itself: claims, pins and buffers.

Whoever holds a tile decodes the parts that nobody is decoding yet, and only then waits for the others (claim or
help): a thread that waits has claimed nothing, so that threads cannot wait for each other in a ring.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from geopipes.meters import WAITING, metering, timed
from geopipes.read.tiles.uses import Ranked, Ranking, Uses
from geopipes.threads import collecting

Pixels = np.ndarray[Any, Any]

BUDGET = 256 * 2**20
"""Bytes that a process keeps until told otherwise: 64 stacks of 512 x 512 px with eight 16-bit bands."""

NO_PIXELS: Pixels = np.empty(0, np.uint8)


class Wanted(NamedTuple):
    """A tile that is asked for: the planes of one place, of one file or several.

    A tuple, as one is made for each use: a frozen dataclass takes three times as long.

    Attributes
    ----------
    key : names the tile in this process; hashed several times for each use, so keep it short
    shape : of all its pixels, (plane, y, x)
    dtype : of its pixels
    parts : those of its parts that are needed, a part being the planes that one file gives
    decode : called as ``decode(part, pixels)`` to fill the part's planes of ``pixels``, (plane, y, x), which hold
        anything before; other threads may be filling other parts
    """

    key: Hashable
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    parts: tuple[int, ...]
    decode: Callable[[int, Pixels], None]


@dataclass(frozen=True)
class Counts:
    """What a cache has done so far.

    Attributes
    ----------
    decoded : parts decoded
    hits : tiles asked for whose needed parts were all there
    evicted : tiles evicted
    held : bytes held now, by tiles and by buffers that wait for one
    """

    decoded: int
    hits: int
    evicted: int
    held: int


class _Tile(Ranked):
    """A tile in the cache; `done` and `claimed` are the parts decoded, and being decoded."""

    __slots__ = ("claimed", "done", "pixels", "waiting")

    def __init__(self, key: Hashable) -> None:
        super().__init__(key)
        self.pixels = NO_PIXELS
        self.done: set[int] = set()
        self.claimed: set[int] = set()
        self.waiting = 0


_Job = tuple[_Tile, Wanted, int]  # the part of a tile that is to be decoded


class Tiles:
    """A cache of decoded tiles for any number of threads.

    Parameters
    ----------
    budget : bytes of pixels to keep; more only for as long as the tiles held at once need more. When it is set
        anew, what is too much is evicted
    """

    def __init__(self, budget: int) -> None:
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._tiles: dict[Hashable, _Tile] = {}
        self._ranking: Ranking[_Tile] = Ranking(self._lock, self._tiles)
        self._free: defaultdict[int, list[Pixels]] = defaultdict(list)  # buffers by their bytes
        self._closed: deque[Uses] = deque()  # of runs that have ended
        self._budget = budget
        self._decoded = self._hits = self._evicted = self._held = 0

    @property
    def budget(self) -> int:
        """Bytes of pixels to keep."""
        return self._budget

    @budget.setter
    def budget(self, budget: int) -> None:
        with self._lock:
            self._budget = budget
            self._keep_to_budget()

    @property
    def counts(self) -> Counts:
        """What was done so far."""
        with self._lock:
            return Counts(self._decoded, self._hits, self._evicted, self._held)

    @contextmanager
    def expecting(self) -> Iterator[Uses]:
        """Open a run's list of uses to come; those that have not come when it closes are taken back."""
        uses = Uses(self._ranking)
        with self._lock:
            self._take_back()
            self._ranking.runs.append(uses)
        try:
            yield uses
        finally:
            self._closed.append(uses)
            if not collecting():  # who collects garbage may hold the lock
                with self._lock:
                    self._take_back()

    def _take_back(self) -> None:
        while self._closed:
            uses = self._closed.popleft()
            self._ranking.runs.remove(uses)
            self._ranking.moved(uses)

    @contextmanager
    def hold(self, wanted: Sequence[Wanted], uses: Uses | None = None) -> Iterator[list[Pixels]]:
        """Hold tiles, decoded, for as long as the block lasts.

        Parameters
        ----------
        wanted : the tiles, all that are needed at once
        uses : the run that expects them: one use of each has come

        Returns
        -------
        the pixels of each tile, (plane, y, x), not to be written to, nor looked at after the block; parts that
        were not asked for hold anything

        Raises
        ------
        Exception
            what ``decode`` raises, in the thread that decoded; others that want the part try it themselves
        """
        pinned: list[_Tile] = []
        try:
            missing = self._pin(wanted, uses, pinned)
            if (meter := metering.get()) is not None:
                meter.tiles(len(wanted), len({id(tile) for tile, _, _ in missing}))
            while missing:
                others = [job for job in missing if not self._decode(job)]
                if others:
                    with timed(WAITING):
                        self._wait(others[0])
                missing = others
            yield [tile.pixels for tile in pinned]
        finally:
            with self._lock:
                self._ranking.release(pinned)
                self._keep_to_budget()

    def there(self, key: Hashable, part: int) -> bool:
        """Say whether a part of a tile is decoded, or being decoded, at this moment."""
        tile = self._tiles.get(key)
        return tile is not None and (part in tile.done or part in tile.claimed)

    def clear(self) -> None:
        """Give back all memory but that of tiles that are held at this moment."""
        with self._lock:
            while self._shrink():
                pass

    def forget(self) -> None:
        """Forget all tiles but those that are held at this moment; their memory stays, for the next ones."""
        with self._lock:
            while (tile := self._ranking.farthest()) is not None:
                self._drop(tile)

    def _pin(self, wanted: Sequence[Wanted], uses: Uses | None, pinned: list[_Tile]) -> list[_Job]:
        """Pin all tiles, then find buffers for new ones; give the parts that are not decoded."""
        missing: list[_Job] = []
        lacking: list[tuple[_Tile, Wanted]] = []
        with self._lock:
            for one in wanted:
                tile = self._tiles.get(one.key) or self._tiles.setdefault(one.key, _Tile(one.key))
                tile.pins += 1
                pinned.append(tile)
                if not tile.done.issuperset(one.parts):
                    lacking.append((tile, one))
            if uses is not None:
                uses.consume([one.key for one in wanted])
            for tile, one in lacking:
                if tile.pixels is NO_PIXELS:
                    tile.pixels = self._buffer(one)
                missing += [(tile, one, part) for part in one.parts if part not in tile.done]
            self._hits += len(wanted) - len(lacking)
        return missing

    def _decode(self, job: _Job) -> bool:
        """Decode a part unless somebody else is at it; say whether it is decoded now."""
        tile, one, part = job
        with self._lock:
            if part in tile.done or part in tile.claimed:
                return part in tile.done
            tile.claimed.add(part)
        decoded = False
        try:
            one.decode(part, tile.pixels)
            decoded = True
        finally:
            with self._lock:
                tile.claimed.remove(part)
                if decoded:
                    tile.done.add(part)
                    self._decoded += 1
                if tile.waiting:
                    self._settled.notify_all()
        if (meter := metering.get()) is not None:
            meter.decoded(hash((tile.key, part)))
        return True

    def _wait(self, job: _Job) -> None:
        """Wait until a part that somebody else is decoding is decoded, or has failed."""
        tile, _, part = job
        with self._lock:
            tile.waiting += 1
            try:
                self._settled.wait_for(lambda: part not in tile.claimed)
            finally:
                tile.waiting -= 1

    def _drop(self, tile: _Tile) -> None:
        """Forget a tile and keep its buffer."""
        del self._tiles[tile.key]
        if tile.pixels is not NO_PIXELS:
            self._free[tile.pixels.nbytes].append(tile.pixels.reshape(-1).view(np.uint8))
            tile.pixels = NO_PIXELS

    def _buffer(self, one: Wanted) -> Pixels:
        """Give a buffer for a tile: a free one of its size, or a new one, for which others make room."""
        size = prod(one.shape) * one.dtype.itemsize
        while not (free := self._free[size]):
            if self._held + size <= self._budget or not self._shrink():
                free.append(np.empty(size, np.uint8))
                self._held += size
        return free.pop().view(one.dtype).reshape(one.shape)

    def _shrink(self) -> bool:
        """Drop a free buffer, or else evict a tile, which frees one; say whether there was either."""
        for size, buffers in self._free.items():
            if buffers:
                buffers.pop()
                self._held -= size
                return True
        tile = self._ranking.farthest()
        if tile is not None:
            self._drop(tile)
            self._evicted += 1
        return tile is not None

    def _keep_to_budget(self) -> None:
        while self._held > self._budget and self._shrink():
            pass


_shared = Tiles(BUDGET)


def shared(budget: int | None = None) -> Tiles:
    """Give this process's own cache; a forked child starts an empty one with the same budget.

    Parameters
    ----------
    budget : bytes of pixels to keep from now on; None for what it is
    """
    if budget is not None:
        _shared.budget = budget
    return _shared


def _start_anew() -> None:
    """Leave the cache to the parent: its lock may be taken by a thread that does not exist here."""
    global _shared
    _shared = Tiles(_shared.budget)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
