"""What of which file is to be fetched, and what goes in one request."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Hashable
from enum import Enum
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from geopipes.read.files.afar import FarFile

GAP = 64 * 1024
"""Bytes between two tiles that are read rather than left out: at 100 MB/s as long as 0.7 ms, of a round trip of 20."""

LEAST, LONGEST = 256 * 1024, 2 * 2**20
"""Bytes that neighbours come to in one request, at least and at most: more is no faster, and is waited for longer."""

SHARES = 128
"""Requests of neighbours that the budget has room for: a lane of a shuffle needs some for each band and row of tiles,
and what is fetched long before it is needed leaves no room for what is needed next."""

Key = tuple["FarFile", int]
"""A piece by its file and where it begins."""


class State(Enum):
    """Where a piece stands."""

    IDLE = 0
    """Nobody has asked for it yet, or it was taken."""
    QUEUED = 1
    FLYING = 2
    HERE = 3


class Piece:
    """Bytes of a file that a tile is stored in.

    Attributes
    ----------
    file, start, stop : where; stop excluded
    uses : how many chips to come need it, as far as the plan has told
    state : where it stands
    data : its bytes, while they are here
    kept : whether they came from disk
    error : why it could not be fetched, for whoever takes it: who waits before the next try
    settled : set when it is here or has failed; made by whoever waits
    """

    __slots__ = ("data", "error", "file", "kept", "settled", "start", "state", "stop", "uses")

    def __init__(self, file: FarFile, start: int, stop: int) -> None:
        self.file, self.start, self.stop = file, start, stop
        self.uses, self.state = 0, State.IDLE
        self.data: memoryview | None = None
        self.kept = False
        self.settled: Event | None = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        """Wake whoever waits."""
        if self.settled is not None:
            self.settled.set()
            self.settled = None


class Job:
    """One request.

    Attributes
    ----------
    file, start, stop : where
    pieces : it brings
    """

    __slots__ = ("file", "pieces", "start", "stop")

    def __init__(self, pieces: list[Piece]) -> None:
        self.file, self.start, self.stop = pieces[0].file, pieces[0].start, max(piece.stop for piece in pieces)
        self.pieces = pieces


class Call(NamedTuple):
    """Something else that waits for the network, such as opening a file; what it raises is not looked at."""

    name: Hashable
    function: Callable[[], Any]
    done: Event


class Queue:
    """Pieces that wait to be fetched: those needed now, then those to come in their order.

    Parameters
    ----------
    budget : bytes that may be held of what is not needed now
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._longest = min(max(budget // SHARES, LEAST), LONGEST)
        self._now: deque[Piece] = deque()
        self._ahead: deque[Piece] = deque()
        self._by_file: dict[FarFile, list[tuple[int, Piece]]] = {}

    def add(self, piece: Piece, *, now: bool) -> None:
        """Add a piece; one that is there already may become one that is needed now."""
        if piece.state is not State.QUEUED:
            piece.state = State.QUEUED
            insort(self._by_file.setdefault(piece.file, []), (piece.start, piece), key=lambda entry: entry[0])
        (self._now if now else self._ahead).append(piece)

    def roomy(self, held: int) -> bool:
        """Say whether there is room for a request of any length: a short one would leave its neighbours behind."""
        return held == 0 or self._budget - held >= self._longest

    def count(self, held: int) -> int:
        """Count what may be fetched while so many bytes are held, about."""
        return len(self._now) + (len(self._ahead) if self.roomy(held) else 0)

    def remove(self, piece: Piece) -> None:
        """Take out a piece that nobody needs."""
        entries = self._by_file[piece.file]
        at = self._at(entries, piece)
        self._cut(piece.file, entries, at, at + 1)
        piece.state = State.IDLE

    def take(self, held: int) -> Job | None:
        """Take the next piece, and its neighbours in the file; None where there is none, or no room for it.

        Parameters
        ----------
        held : bytes of what was taken before and is not let go of
        """
        roomy = self.roomy(held)
        for pieces in (self._now, self._ahead) if roomy else (self._now,):
            while pieces:
                piece = pieces.popleft()
                if piece.state is State.QUEUED:
                    return self._job(piece, self._longest if roomy else LEAST)
        return None

    def _job(self, piece: Piece, most: int) -> Job:
        """Take a piece with those beside it, as long as gaps are small and the whole is not."""
        entries = self._by_file[piece.file]
        low = self._at(entries, piece)
        high, start, stop = low + 1, piece.start, piece.stop
        while high < len(entries):
            other = entries[high][1]
            if other.start - stop > GAP or max(stop, other.stop) - start > most:
                break
            high, stop = high + 1, max(stop, other.stop)
        while low > 0:
            other = entries[low - 1][1]
            if start - other.stop > GAP or stop - other.start > most:
                break
            low, start = low - 1, other.start
        taken = [each for _, each in entries[low:high]]
        self._cut(piece.file, entries, low, high)
        for each in taken:
            each.state = State.FLYING
        return Job(taken)

    def _at(self, entries: list[tuple[int, Piece]], piece: Piece) -> int:
        return bisect_left(entries, piece.start, key=lambda entry: entry[0])

    def _cut(self, file: FarFile, entries: list[tuple[int, Piece]], low: int, high: int) -> None:
        del entries[low:high]
        if not entries:
            del self._by_file[file]
