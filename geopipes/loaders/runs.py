"""One pass over a pipe: elements with their positions flow through the steps, several chips in flight."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from geopipes import orders
from geopipes.chips.windows import Order, Windows
from geopipes.errors import StateError, StepError
from geopipes.loaders import states
from geopipes.loaders.ops import HOLE, Batch, Each, Element, Op, Take
from geopipes.loaders.shares import Share, torch_worker
from geopipes.loaders.tallies import Tally
from geopipes.meters import metering
from geopipes.read.failures import Skipped, Told
from geopipes.threads import in_order

if TYPE_CHECKING:
    from geopipes.loaders.profiles import Profile
    from geopipes.loaders.reports import Report
    from geopipes.tensors.rows import Rows

Work = Callable[[int, Any], Any]
"""Takes the element at a position through a step."""

Watch = Callable[[Iterator[Element]], Iterator[Element]]
"""Gives elements on, and looks at them."""

Feed = Callable[[int], Iterator[Element]]
"""Gives (group, batch) from the position of a batch's first element on, in order; can be closed."""


class Reading(Protocol):
    """A source whose elements can be read by position, on any thread."""

    threads: int

    def __len__(self) -> int: ...

    def loading(
        self, positions: Sequence[int], loads: Any = None, *tell: Told
    ) -> AbstractContextManager[Callable[[int], Any]]:
        """Begin to read these elements in this order; what is given reads the one at a position.

        Of a source with ``windows``, ``tell`` is told of reads that fail.
        """


class Run(Iterator[Any]):
    """One pass over a pipe, from any position on.

    In a worker process of a torch DataLoader, a pass over its own batches alone. An error in a step ends it, and is
    raised again by whoever goes on.

    Parameters
    ----------
    source : what can be iterated again; if its elements can be read by position, they are, on threads
    ops : what happens to them, in order; those one to one at the beginning run where the element is read
    share : of which the positions are loaded
    start : the position to begin at, that of a batch's first element
    feed : gives the batches that worker processes make, up to the first `Batch`; None where this process makes them
    report : is told where the time goes; None for none
    tally : counts what becomes of the chips, settled by whoever delivers them; None for one of this run's own

    Attributes
    ----------
    position : where the next run would go on
    tally : of the chips; None of a source without
    """

    def __init__(
        self,
        source: Any,
        ops: Sequence[Op],
        *,
        share: Share | None = None,
        start: int = 0,
        feed: Feed | None = None,
        report: Report | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._source, self._share, self.position, self._feed = source, share or Share(), start, feed
        self._ops = keyed(ops, source)
        self._profile = None if report is None else report.profile(source, self._ops)
        self._block = states.block(ops)
        self._settles, self.tally = tally is None, tally
        self._base: Iterator[Element] | None = None
        self._stream: Iterator[Element] | None = None
        self._failed: BaseException | None = None

    def __next__(self) -> Any:
        """Give the next element; holes are passed over."""
        if self._failed is not None:
            raise StepError(f"this run ended with an error, {self._failed!r}; begin another one") from self._failed
        if self._stream is None:
            self._stream = self._begin()
        try:
            for position, element in self._stream:
                self.position = self._after(position)
                if self.tally is not None:
                    self.tally.passes(position, self.position, hole=element is HOLE)
                    if self._settles:
                        self.tally.settle(self.position)
                if element is not HOLE:
                    return element
        except BaseException as error:
            self._failed = error
            self.close()
            raise
        self._flush()
        raise StopIteration

    def _flush(self) -> None:
        """Have the ledger written, by whoever settles what is in it."""
        if self.tally is not None and self._settles:
            self.tally.flush()

    def _after(self, position: int) -> int:
        """Give the position after an element that comes out at the end: all ranks have taken as many steps."""
        if self._block > 1:
            return (position + 1) * self._block
        return (position // self._share.ranks + 1) * self._share.ranks

    def _begin(self) -> Iterator[Element]:
        """Give the stream of what comes out at the end."""
        ops, share = self._ops, self._share
        if self.tally is None:
            self.tally = tally_of(self._source, share, self._block)
        if self._feed is not None:
            first = next(i for i, op in enumerate(ops) if isinstance(op, Batch))
            return self._streamed(self._feed(self.position), first + 1)
        worker, workers = torch_worker()
        if workers > 1 and any(isinstance(op, Take) for op in ops):
            if worker > 0:  # "the first n" is known to one who sees all of them
                return iter(())
            workers = 1
        leading = next((i for i, op in enumerate(ops) if not isinstance(op, Each)), len(ops))
        each = [op for op in ops[:leading] if isinstance(op, Each)]
        rows = next((op.n for op in ops[leading : leading + 1] if isinstance(op, Batch)), share.ranks)
        mine = partial(_mine, self._block, worker, workers) if workers > 1 else None
        elements = _elements(self._source, each, rows, share, self.position, mine, self._profile, self.tally)
        return self._streamed(elements, leading)

    def _streamed(self, base: Iterator[Element], done: int) -> Iterator[Element]:
        """Give the stream of what comes out, of elements that the first operations are done with."""
        self._base, ranks = base, self._share.ranks
        watched = None if self.tally is None or self._feed is not None else self.tally.watched
        if self._profile is None:
            return streamed(base, self._ops[done:], ranks, watched)
        return self._profile.streamed(base, done, ranks, here=self._feed is None, watched=watched)

    def state_dict(self) -> dict[str, Any]:
        """Say where another run of the same pipe would go on: ``version``, ``fingerprint``, ``epoch``, ``position``."""
        self._flush()
        length = states.usable(len(self._source), self._ops) if hasattr(self._source, "__len__") else None
        return states.state(self.fingerprint, states.order_of(self._source).epoch, self.position, length)

    @cached_property
    def fingerprint(self) -> states.Document:
        """What decides which element comes when: see `geopipes.loaders.states.fingerprint`."""
        return states.fingerprint(self._source, self._ops)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a run of the same pipe stood; before the first element.

        Raises
        ------
        StateError
            if the state is of another pipe or epoch, or this run has begun
        """
        epoch, position = states.checked(state, self.fingerprint, self._ops, self._share.ranks)
        if self._stream is not None:
            raise StateError("load_state_dict: this run has begun; load the state before its first element")
        own = states.order_of(self._source).epoch
        if (epoch, position) == (own + 1, 0):  # the end of this one
            position = len(self._source)
        elif epoch != own:
            raise StateError(f"load_state_dict: the state is of epoch {epoch}; write .epoch({epoch}) before this")
        self.position = position

    def close(self) -> None:
        """End the run: what is being read is waited for, the rest dropped."""
        for stream in (self._stream, self._base):
            if stream is not None and hasattr(stream, "close"):
                stream.close()
        self._stream = iter(())
        self._flush()


def _mine(block: int, worker: int, workers: int, position: int) -> bool:
    """Say whether a batch that holds a position is that of a worker of torch's, which take whole ones in turn."""
    return position // block % workers == worker


def _elements(
    source: Any,
    each: Sequence[Each],
    rows: int,
    share: Share,
    start: int,
    mine: Callable[[int], bool] | None,
    profile: Profile | None,
    tally: Tally | None,
) -> Iterator[Element]:
    """Give the elements of a share from a position on, taken through the first steps.

    A function, not a method: a run that its generators know would wait for the garbage collector.
    """
    if not hasattr(source, "loading"):
        for position, element in enumerate(source):
            if position >= start and share.owns(position) and (mine is None or mine(position)):
                yield position, through(each, position, element)
        return
    positions: Sequence[int] = share.positions(start, len(source))  # a range: there may be millions
    if mine is not None:
        positions = [*filter(mine, positions)]
    sampler, works = straight(source, each, partial(_fresh_rows, rows // share.ranks, len(source), share.ranks))
    with source.loading(positions, sampler, *([] if tally is None else [tally.tell])) as load:
        work: Callable[[int], Any] = partial(read, load, works)
        if profile is not None:
            work = profile.reading(work, straight=len(each) - len(works) if sampler else 0)
        # A profile tells how many chips are ready when one is asked for, so it asks for one at a time.
        together = 1 if profile is not None else rows // share.ranks
        yield from in_order(work, positions, source.threads, together, leave=getattr(load, "leave", _nothing))


def _nothing() -> None:
    """Break nothing off: the source waits for nobody."""


def tally_of(source: Any, share: Share, block: int) -> Tally | None:
    """Give what counts the chips of a run; None where there are none."""
    return Tally(source, share, block) if has_windows(source) else None


def has_windows(source: Any) -> bool:
    """Say whether the elements of a source are the chips of a plan."""
    return isinstance(getattr(source, "windows", None), Windows)


def streamed(
    elements: Iterator[Element], ops: Sequence[Op], ranks: int, watched: Watch | None = None
) -> Iterator[Element]:
    """Give a stream after some operations, and have it watched where elements are put together first."""
    for op in ops:
        if watched is not None and isinstance(op, Batch | Take):
            elements, watched = watched(elements), None
        elements = op.stream(elements, ranks)
    return elements


def run(source: Iterable[Any], ops: Sequence[Op], report: Report | None = None) -> Iterator[Any]:
    """Run a pipe once, and report where the time goes where one asks."""
    return Run(source, ops) if report is None else report.watched(Run(source, ops, report=report))


def ordered(source: Any, epoch: int, *, pad: int = 1) -> Any:
    """Give a source in the order of an epoch, and padded by its first elements to a multiple of a number."""
    windows = getattr(source, "windows", None)
    if not isinstance(windows, Windows):
        return source
    windows = orders.epoch(windows, epoch)
    if over := len(windows) % pad:
        order, whole = windows.order, len(windows) + pad - over
        windows = replace(windows.take(np.arange(whole) % len(windows)), order=order)
    return replace(source, windows=windows)


def keyed(ops: Sequence[Op], source: Any) -> tuple[Op, ...]:
    """Give each step that draws random numbers the key of its own, which counts those before it."""
    order: Order = states.order_of(source)
    number = sum(step.draws for step in getattr(source, "steps", ()))
    done: list[Op] = []
    for op in ops:
        if isinstance(op, Each) and op.step.draws:
            op, number = replace(op, key=order.key(number)), number + 1
        done.append(op)
    return tuple(done)


def straight(source: Any, each: Sequence[Each], rows: Callable[[], Rows]) -> tuple[Any, Sequence[Work]]:
    """Give what reads chips straight into rows of batches of tensors, and the steps that are left.

    Parameters
    ----------
    source, each : of a run, and its first steps
    rows : makes the rows; called only where there are tensors

    Returns
    -------
    None, and all steps, where chips are Datasets first; then ``tensor`` writes to the rows
    """
    tensors = sys.modules.get("geopipes.tensors")
    end = next((i for i, op in enumerate(each, 1) if tensors and op.step.function is tensors.tensor), 0)
    if end == 0:
        return None, each
    from geopipes.tensors.rows import Writing
    from geopipes.tensors.straight import sampler

    places = rows()
    filtered = any(op.keeps for op in each[:end])
    found = None if filtered else sampler(source.windows, [op.step for op in each[:end]], places)
    return found, each[end:] if found else [*each[: end - 1], Writing(each[end - 1], places), *each[end:]]


def _fresh_rows(size: int, total: int, ranks: int) -> Rows:
    from geopipes.tensors.rows import FreshRows

    return FreshRows(size, total, ranks)


def read(load: Callable[[int], Any], each: Sequence[Work], position: int) -> Any:
    """Read one element and take it through the first steps, on a reading thread."""
    try:
        element = load(position)
    except Skipped:
        if (meter := metering.get()) is not None:
            meter.skipped += 1
        return HOLE
    except Exception as error:
        error.add_note(f"while reading element {position}")
        raise
    return through(each, position, element)


def through(each: Sequence[Work], position: int, element: Any) -> Any:
    """Take an element through steps that are one to one."""
    for op in each:
        element = op(position, element)
    return element
