"""A run that is watched, step by step, and the loop that takes what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from threading import Lock
from time import perf_counter, thread_time
from typing import Any

from geopipes.loaders.ops import HOLE, Batch, Each, Element, Op, Take
from geopipes.meters import CHIPS, LOOP, PROCESSES, Counts, Meter, Row, Stage, metering, timed

Add = Callable[[Mapping[Row, Counts]], None]
"""Takes what was counted, on any thread."""

RECORDED = 1000
"""More steps than anyone records before ``read``."""


class Profile:
    """What watches one run.

    Parameters
    ----------
    source, ops : of the run
    add : takes what was counted
    decoded : hashes of the parts of tiles that were decoded before
    elsewhere : whether this is a worker process, where threads take elements through the steps from any source
    """

    def __init__(self, source: Any, ops: Sequence[Op], add: Add, decoded: set[int], *, elsewhere: bool = False) -> None:
        self._source, self._ops, self._add, self._decoded = source, ops, add, decoded
        self._reads = hasattr(source, "loading")
        self._rows: list[Row] = []
        stage = Stage.CHIP if self._reads or elsewhere else Stage.STREAM
        for number, op in enumerate(ops, 1):
            stage = stage if isinstance(op, Each) else Stage.STREAM
            self._rows.append(Row(stage, number, str(op)))
        pairs = zip(ops, self._rows, strict=True)
        self._by_step = {id(op.step): row for op, row in pairs if isinstance(op, Each)}
        self._recorded = count(-RECORDED)  # in the order in which they are met, that of the chain
        self._lock, self._made = Lock(), 0

    def reading(self, work: Callable[[int], Any], *, straight: int) -> Callable[[int], Any]:
        """Watch what reading threads do with the chip at a position.

        Parameters
        ----------
        work : reads it and takes it through the first steps
        straight : the first steps, by number, that reading does at once: it gives what the last of them makes
        """
        text = f"read(threads={self._source.threads})" if self._reads else _given_by(self._source)
        done = "".join(f".{row.name.split('(')[0]}(...)" for row in self._rows[:straight])
        row = Row(Stage.READ, 0, text + done)

        def one(position: int) -> Any:
            try:
                with self._metering() as meter, meter.timing(row, calls=0) as counts:
                    element = work(position)
                    counts.calls += 1
                    counts.refused += meter.skipped
                    return element
            finally:
                with self._lock:
                    self._made += 1

        return one

    def streamed(
        self,
        base: Iterator[Element],
        done: int,
        ranks: int,
        *,
        here: bool,
        watched: Callable[[Iterator[Element]], Iterator[Element]] | None = None,
    ) -> Iterator[Element]:
        """Give the stream of what comes out at the end, as `geopipes.loaders.runs.streamed` does.

        Parameters
        ----------
        base : the elements, taken through the first steps
        done : how many steps these were
        ranks : see there
        here : whether this process makes the elements, and not others
        watched : looks at the elements where they are put together first
        """
        source = Row(Stage.STREAM, 0, _given_by(self._source)) if here else PROCESSES
        stream = self._awaited(base) if here and self._reads else _timed(base, source)
        for op, row in zip(self._ops[done:], self._rows[done:], strict=True):
            if watched is not None and isinstance(op, Batch | Take):
                stream, watched = watched(stream), None
            stream = op.stream(stream, ranks)
            stream = stream if isinstance(op, Each) else _timed(stream, row)
        while True:
            with self._metering():
                element = next(stream, None)
            if element is None:
                return
            yield element

    def _awaited(self, base: Iterator[Element]) -> Iterator[Element]:
        """Count how long chips are waited for, how many are ready when one is asked for, and the threads at work."""
        last, threads = perf_counter(), self._source.threads
        for taken in count():
            ready = max(self._made - taken, 0)
            with timed(CHIPS) as counts:
                element = next(base, None)
            last, before = perf_counter(), last
            if counts is not None:
                counts.asked += 1
                counts.ready += ready
                counts.wall += last - before
                counts.capacity += threads * (last - before)
            if element is None:
                return
            yield element

    @contextmanager
    def _metering(self) -> Iterator[Meter]:
        """Count what this thread does in the block."""
        meter = Meter(self._row_of, self._decoded)
        token = metering.set(meter)
        try:
            yield meter
        finally:
            metering.reset(token)
            self._add(meter.counts)

    def _row_of(self, step: object) -> Row:
        """Give the line of a step: of one that was recorded before ``read``, a line before the others."""
        row = self._by_step.get(id(step))
        if row is None:
            with self._lock:
                row = self._by_step.setdefault(id(step), Row(Stage.CHIP, next(self._recorded), str(step)))
        return row


class Watched(Iterator[Any]):
    """Elements as a loop takes them: how long it waits for each, and how long it keeps them waiting.

    Parameters
    ----------
    elements : a run, or what takes its elements ahead; all else that is asked of this one is asked of it
    add : takes what was counted
    ready : says how many elements are ready to be taken; None where nobody knows
    """

    def __init__(self, elements: Iterator[Any], add: Add, ready: Callable[[], int] | None = None) -> None:
        self._elements, self._add, self._ready = elements, add, ready
        self._left: tuple[float, float] | None = None  # when the last element was given, wall and CPU

    def __next__(self) -> Any:
        came = perf_counter(), thread_time()
        left = self._left or came
        counts = Counts(seconds=came[0] - left[0], cpu=came[1] - left[1])
        if self._ready is not None:
            counts.asked, counts.ready = 1, self._ready()
        try:
            element = next(self._elements)
            counts.calls = 1
        finally:
            self._left = perf_counter(), thread_time()
            counts.waiting = self._left[0] - came[0]
            self._add({LOOP: counts})
        return element

    def __getattr__(self, name: str) -> Any:
        return getattr(self._elements, name)


def _given_by(source: Any) -> str:
    return f"Pipe({type(source).__name__})"


def _timed(elements: Iterator[Element], row: Row) -> Iterator[Element]:
    """Count elements, and the time it takes to make each."""
    while True:
        with timed(row) as counts:
            element = next(elements, None)
            if counts is not None:
                counts.calls -= element is None or element[1] is HOLE
        if element is None:
            return
        yield element
