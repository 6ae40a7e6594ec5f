"""What comes next: the tiles of chips to come, told to the cache and to what fetches from stores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any

from geopipes.chips.windows import Windows
from geopipes.meters import WAITING, timed
from geopipes.read import ahead
from geopipes.read.draws import current
from geopipes.read.failures import asking
from geopipes.read.tiles import Uses, shared

OUTLOOK_USES = 8000
"""Tile uses ahead that the cache is told of: a shuffled epoch decodes 1.40 times what it needs; told of all 1.37."""

OUTLOOK_CHIPS = 4
"""Chips ahead that are looked at for each that is read, until the outlook is full."""

OUTLOOK_FAR = 32
"""The same where tiles lie in stores: neighbours are fetched together if they are known before one of them is begun."""

LOOKED_AFTER = 8
"""Chips that were told of and are begun before a thread looks further ahead, where all tiles lie on the disk."""

OPENED_CHIPS = 64
"""Chips ahead whose files are opened at a time, where that waits for the network."""


class Outlook:
    """Tells which tiles the chips ahead will use: the cache, and what fetches them from stores.

    Always those of a chip before it is read.

    Attributes
    ----------
    fetched : bytes of tiles in stores
    """

    def __init__(
        self, windows: Windows, positions: Sequence[int], uses: Uses, fetched: ahead.Fetching, margin: int
    ) -> None:
        self._windows, self._uses, self._margin, self._lock = windows, uses, margin, Lock()
        self.fetched = fetched
        self._following = iter(positions)
        self._next: deque[int] = deque()  # of which files are being opened
        self._told: dict[int, int] = {}  # tile uses of each chip that is not read yet
        self._begun: deque[int] = deque()  # of which reading has begun, though they may still be among those
        self._afar: dict[int, list[Any]] = {}  # tiles of each chip, where some of them lie in stores
        self._stored: dict[int, list[ahead.Wanted]] = {}  # bytes of these that are expected
        self._ahead = 0

    def reading(self, loads: Callable[[int], Any], position: int) -> Any:
        """Read a chip by what loads it, which is what is expected."""
        tokens = current.set(self._uses), ahead.current.set(self.fetched)
        try:
            self._before(position)
            if keys := self._afar.pop(position, None):
                self.fetched.hurry(ahead.stored(keys, shared()))
            return loads(position)
        finally:
            if stored := self._stored.pop(position, None):
                self.fetched.used(stored)
            current.reset(tokens[0])
            ahead.current.reset(tokens[1])

    def _before(self, position: int) -> None:
        """Tell of chips up to this one, and of a few more."""
        told = position in self._told
        if not told or self._stored or len(self._begun) >= LOOKED_AFTER:
            # A thread whose chip was told of does not wait for another that is telling.
            with timed(WAITING):
                free = self._lock.acquire(blocking=not told)
            if free:
                try:
                    self._look_ahead(position)
                finally:
                    self._lock.release()
        self._begun.append(position)  # only now: another thread would take it for one that was never told of

    def _look_ahead(self, position: int) -> None:
        """Tell of chips up to one, and of more for each that was begun since; on one thread at a time."""
        while position not in self._told and self._tell_next(patient=True):
            pass
        for _ in range(OUTLOOK_FAR if self._stored else OUTLOOK_CHIPS * (1 + len(self._begun))):
            if self._ahead >= OUTLOOK_USES or not self._tell_next(patient=False):
                break
        self.fetched.begin()
        while self._begun:
            self._ahead -= self._told.pop(self._begun.popleft(), 0)

    def _tell_next(self, *, patient: bool) -> bool:
        """Tell of the next chip; not if its files have to be opened first and nobody waits for that."""
        if not self._next and not self._look_further():
            return False
        try:
            keys = self._keys(self._next[0], patient=patient)
        except ahead.Pending:
            while not self.fetched.full and len(self._next) < OPENED_CHIPS and self._look_further():
                with suppress(ahead.Pending):
                    self._keys(self._next[-1], patient=False)
            return False
        position = self._next.popleft()
        self._uses.add(keys)
        if any(planes.afar for planes, *_ in keys):
            self._afar[position] = keys
            self._stored.setdefault(position, []).extend(self.fetched.expect(ahead.stored(keys, shared())))
        self._told[position] = len(keys)
        self._ahead += len(keys)
        return True

    def _look_further(self) -> bool:
        position = next(self._following, None)
        if position is not None:
            self._next.append(position)
        return position is not None

    def _keys(self, position: int, *, patient: bool) -> list[Any]:
        """Name the tiles of a chip."""
        cube, window = self._windows.window(position)
        once = asking.set(self.fetched.asked)
        token = ahead.patient.set(patient)
        try:
            return cube.keys(window.grown(self._margin))
        except (ahead.Pending, ahead.Closed):
            raise
        except Exception:  # whatever opening a file raises is raised again, of the right chip, when that is read
            return []
        finally:
            ahead.patient.reset(token)
            asking.reset(once)
