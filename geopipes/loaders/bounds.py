"""Which step bounds the rest: the rule, and what to do about it.

Your loop waits for batches, and these wait for chips. So one goes up from the end: where your loop spends more time
than it waits, it bounds the rest; else, where batches take more time to be made than they wait for chips, the longest
step on these does; else the longest of what reading threads do. Where these together compute as much as one processor
can, and wait for most of their time, Python's GIL lets one of them go on at a time: then the longest is what computes
longest, since waiting for the GIL falls to all of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from geopipes.meters import (
    AFAR,
    BY_GDAL,
    CHIPS,
    DECODING,
    FETCHING,
    FROM_AFAR,
    LOOP,
    OPENING,
    PROCESSES,
    RESAMPLING,
    TILE_PARTS,
    WAITING,
    Counts,
    Row,
    Stage,
)

OFTEN = 0.25
"""Shares of tiles decoded a second time, and of reading spent on tiles, from which on that is worth a word."""

AWAIT_BYTES = (OPENING, FETCHING, AFAR, BY_GDAL, FROM_AFAR)
"""What waits for a disk or the network; other parts of reading wait for nothing but a processor and the GIL."""

COMPUTING = 0.6
"""Share of its time in which a step computes, from which on it is said to compute; else it waits."""

ONE_PROCESSOR = (0.8, 1.2)
"""Processors that threads keep busy where they hold the GIL in turns; what releases it now and then adds to one."""

SPARE = 0.8
"""Share of the processors below which more processes may help."""

IDLE, BUSY_LOOP = 0.3, 0.2
"""Shares of the time, of idle reading threads and of a loop at work, from which on the two should overlap."""


@dataclass(frozen=True)
class Bound:
    """The step that bounds the rest.

    Attributes
    ----------
    step : as it was typed
    share : of the time of its stage: of your loop, of the thread that hands elements on, or of all reading threads
    why : in words, and what can be done about it
    """

    step: str
    share: float
    why: str

    def __str__(self) -> str:
        return f"{self.step} bounds the rest: {self.why}."


def bound(counts: Mapping[Row, Counts]) -> Bound | None:
    """Find the step that bounds the rest, by the rule of this module; None where nothing was counted."""
    loop, waited = counts.get(LOOP, Counts()), counts.get(CHIPS, Counts()) + counts.get(PROCESSES, Counts())
    if loop.seconds > loop.waiting:
        share = loop.seconds / (loop.seconds + loop.waiting)
        return Bound(LOOP.name, share, f"it takes {share:.0%} of the time, and the pipe waits for it")
    stream = {row: its for row, its in counts.items() if row.stage == Stage.STREAM and row not in (CHIPS, PROCESSES)}
    own = sum(its.seconds for its in stream.values())
    if own > waited.seconds:
        row = max(stream, key=lambda row: stream[row].seconds)
        share = stream[row].seconds / (own + waited.seconds)
        why = f"it takes {share:.0%} of the time of the one thread that hands elements on"
        return Bound(row.name, share, f"{why}; {_off_it(row, loop, reads=CHIPS in counts)}")
    return _Threads(counts).bound() if any(row.stage < Stage.STREAM for row in counts) else None


def _off_it(row: Row, loop: Counts, *, reads: bool) -> str:
    """Say how a step gets off the thread that hands elements on."""
    if reads and not row.name.startswith(("batch(", "take(")):
        return "written before batch(...), it runs on the reading threads"
    return "loader(processes=2) shares it out" if loop.asked else "loader(prefetch=2) makes batches ahead of your loop"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Threads:
    """What reading threads do, and what would make them faster."""

    def __init__(self, counts: Mapping[Row, Counts]) -> None:
        self._loop, self._chips = counts.get(LOOP, Counts()), counts.get(CHIPS, Counts())
        self._spread = PROCESSES in counts
        self._rows = {row: its for row, its in counts.items() if row.stage < Stage.STREAM}
        self._all = sum(self._rows.values(), Counts())
        wall = self._chips.wall
        self._threads = max(1, round(self._chips.capacity / wall)) if wall else 1
        processors = self._all.cpu / wall if wall else 0.0
        waits = self._all.cpu < COMPUTING * self._all.seconds
        self._in_turns = self._threads > 1 and waits and ONE_PROCESSOR[0] <= processors <= ONE_PROCESSOR[1]

    def bound(self) -> Bound:
        """Find the longest: a step on a chip, or reading and the longest part of it."""
        spent = {row: its.cpu if self._in_turns else its.seconds for row, its in self._rows.items()}
        whole = sum(spent.values()) or 1.0
        reading = sum(seconds for row, seconds in spent.items() if row.stage != Stage.CHIP)
        steps = [row for row in spent if row.stage == Stage.CHIP]
        longest = max(steps, key=spent.__getitem__, default=None)
        of_what = "what the reading threads compute" if self._in_turns else "the reading threads' time"
        if longest is not None and spent[longest] > reading:
            share = spent[longest] / whole
            return Bound(longest.name, share, f"it takes {share:.0%} of {of_what}; {self._advice(longest)}")
        # Whoever waits for another thread waits for what that one does.
        part = max((row for row in spent if row.stage != Stage.CHIP and row != WAITING), key=spent.__getitem__)
        name = next((row.name for row in spent if row.stage == Stage.READ), "read()")
        why = f"it takes {reading / whole:.0%} of {of_what}"
        if part.stage == Stage.PART:
            why += f", {part.name} alone {spent[part] / whole:.0%}"
        return Bound(name, reading / whole, f"{why}; {self._advice(part)}")

    def _advice(self, row: Row) -> str:
        """Say what would make a row shorter."""
        its, chips = self._rows[row], self._chips
        idle = 1 - self._all.seconds / chips.capacity if chips.capacity else 0.0
        at_work = self._loop.seconds > BUSY_LOOP * (self._loop.seconds + self._loop.waiting)
        if not self._loop.asked and idle > IDLE and at_work:
            return f"the threads are idle for {idle:.0%} of the time, as your loop works; not with loader(prefetch=2)"
        if row.stage != Stage.CHIP and (again := self._again()):
            return again
        if self._spread:
            return self._of_processes()
        if self._in_turns:
            return (
                f"the {self._threads} threads keep one processor busy together, as they do where Python holds the "
                "GIL: loader(processes=2)"
            )
        if its.cpu < COMPUTING * its.seconds:
            share = 1 - its.cpu / its.seconds
            if row.stage != Stage.CHIP and row not in AWAIT_BYTES and DECODING in self._rows:
                return (
                    f"{share:.0%} of that it waits for a processor or for the GIL, which loader(processes=2) may mend"
                )
            if row == AFAR or (row == OPENING and AFAR in self._rows):
                return (
                    f"{share:.0%} of that it waits for the network: read(requests=...) asks for more at a time, and "
                    "read(disk=...) keeps what came for the next pass"
                )
            what = " for bytes from afar" if row == FROM_AFAR else " for bytes" if row in AWAIT_BYTES else ""
            return f"{share:.0%} of that it waits{what}: read(threads={2 * self._threads}) waits for more at a time"
        cores = _cores()
        if self._threads < cores:
            return f"read(threads={cores}) uses all {cores} processors"
        if row == RESAMPLING:
            return "pixels on the grid of the files themselves are copied, which is faster"
        return f"its threads use all {cores} processors"

    def _of_processes(self) -> str:
        """Say whether more worker processes would help."""
        wall, cores = self._loop.seconds + self._loop.waiting, _cores()
        used = self._all.cpu / wall if wall else 0.0
        more = "more of them may use the rest" if used < SPARE * cores else "there are no more"
        return f"the worker processes compute on {used:.1f} of {cores} processors; {more}"

    def _again(self) -> str:
        """Say that tiles are decoded again and again, if that takes a good part of reading."""
        tiles = [self._rows[row] for row in TILE_PARTS if row in self._rows]
        again, parts = sum(its.again for its in tiles), sum(its.calls for its in tiles)
        reading = sum(its.seconds for row, its in self._rows.items() if row.stage != Stage.CHIP)
        spent = sum(its.seconds for its in (*tiles, self._rows.get(FETCHING, Counts())))
        if again <= OFTEN * parts or spent <= OFTEN * reading:
            return ""
        return (
            f"{again / parts:.0%} of the tiles had been decoded before: shuffle(seed) without exact=True, or a larger "
            "read(cache=...), decodes each about once"
        )
