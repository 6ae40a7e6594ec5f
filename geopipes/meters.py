"""What a profile counts, and how whoever does the work finds the counters: none where no profile is asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, fields
from enum import IntEnum
from threading import Lock
from time import perf_counter, thread_time
from typing import NamedTuple


class Stage(IntEnum):
    """Where something happens: each stage waits for the one before it."""

    READ = 0
    """Chips are read, on the reading threads."""
    PART = 1
    """Parts of reading a chip."""
    CHIP = 2
    """Steps on a chip, on the reading threads."""
    STREAM = 3
    """What one thread does with the chips in their order: batches, and steps on these."""
    LOOP = 4
    """The loop that takes what comes out."""


class Row(NamedTuple):
    """A line of a profile, in the order of the data.

    Attributes
    ----------
    stage : where it happens
    number : its place in the stage
    name : as it is printed
    """

    stage: Stage
    number: int
    name: str


OPENING = Row(Stage.PART, 0, "opening files")
FETCHING = Row(Stage.PART, 1, "fetching bytes")
AFAR = Row(Stage.PART, 2, "bytes from afar")
DECODING = Row(Stage.PART, 3, "decoding tiles")
BY_GDAL = Row(Stage.PART, 4, "tiles by GDAL")
FROM_AFAR = Row(Stage.PART, 5, "remote tiles by GDAL")
WAITING = Row(Stage.PART, 6, "waiting for another thread")
COPYING = Row(Stage.PART, 7, "copying pixels")
RESAMPLING = Row(Stage.PART, 8, "resampling pixels")
COMPUTING = Row(Stage.PART, 9, "steps on pixels")
RETRYING = Row(Stage.PART, 10, "waiting to try again")
PROCESSES = Row(Stage.STREAM, -2, "waiting for worker processes")
CHIPS = Row(Stage.STREAM, -1, "waiting for chips")
LOOP = Row(Stage.LOOP, 0, "your loop")

TILE_PARTS = (DECODING, BY_GDAL, FROM_AFAR)
"""Where tiles are decoded; `DECODING` also counts those asked for, by whatever they are decoded."""


@dataclass
class Counts:
    """What a line of a profile counts; those of several threads, runs and processes are added.

    Attributes
    ----------
    calls : how often
    refused : how many of them a filter refused
    seconds : spent, without what other lines spend meanwhile
    cpu : seconds of them in which the thread computed
    waiting : seconds spent in waiting for the stage before
    fetched, decoded : bytes read from files; bytes of the tiles made of them
    tiles, hits, again : tiles asked for, those of them that were there, parts of tiles decoded a second time
    asked, ready : how often a chip was asked for, and how many were ready, summed up over these times
    wall, capacity : seconds during which threads were there, and these times the number of threads
    """

    calls: int = 0
    refused: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    waiting: float = 0.0
    fetched: int = 0
    decoded: int = 0
    tiles: int = 0
    hits: int = 0
    again: int = 0
    asked: int = 0
    ready: int = 0
    wall: float = 0.0
    capacity: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


class Meter:
    """The counters of one piece of work on one thread.

    Parameters
    ----------
    row_of : gives the line of a step
    decoded : hashes of parts of tiles that were decoded before, in the same profile

    Attributes
    ----------
    counts : of each line
    skipped : elements that were left out, as they could not be read
    """

    def __init__(self, row_of: Callable[[object], Row], decoded: set[int]) -> None:
        self.row_of = row_of
        self.counts: defaultdict[Row, Counts] = defaultdict(Counts)
        self.skipped = 0
        self._decoded = decoded
        self._inner = self._inner_cpu = 0.0  # seconds of the lines inside the one that goes on

    @contextmanager
    def timing(self, row: Row, *, calls: int = 1, fetched: int = 0, decoded: int = 0) -> Iterator[Counts]:
        """Count what the block does; a block inside it counts for its own line alone."""
        counts, inner, inner_cpu = self.counts[row], self._inner, self._inner_cpu
        self._inner = self._inner_cpu = 0.0
        began, began_cpu = perf_counter(), thread_time()
        try:
            yield counts
        finally:
            whole, cpu = perf_counter() - began, thread_time() - began_cpu
            counts.calls += calls
            counts.seconds += whole - self._inner
            counts.cpu += cpu - self._inner_cpu
            counts.fetched += fetched
            counts.decoded += decoded
            self._inner, self._inner_cpu = inner + whole, inner_cpu + cpu

    def refused(self, step: object) -> None:
        """Count an element that a step refused."""
        self.counts[self.row_of(step)].refused += 1

    def tiles(self, asked: int, missing: int) -> None:
        """Count tiles that were asked for, and those of them that were not there."""
        self.counts[DECODING].tiles += asked
        self.counts[DECODING].hits += asked - missing

    def decoded(self, part: int) -> None:
        """Count a part of a tile, by its hash, if it was decoded before."""
        self.counts[DECODING].again += part in self._decoded
        self._decoded.add(part)


metering: ContextVar[Meter | None] = ContextVar("metering", default=None)
"""The counters of what this thread does just now; None where nobody asked for a profile."""

_NOTHING: AbstractContextManager[None] = nullcontext()


def timed(row: Row, *, calls: int = 1, fetched: int = 0, decoded: int = 0) -> AbstractContextManager[Counts | None]:
    """Count a block of code, and bytes, where a profile is asked for; else nothing happens."""
    meter = metering.get()
    return _NOTHING if meter is None else meter.timing(row, calls=calls, fetched=fetched, decoded=decoded)


@contextmanager
def holding(lock: Lock) -> Iterator[None]:
    """Hold a lock, and count how long it is waited for."""
    with timed(WAITING):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
