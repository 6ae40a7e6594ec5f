"""Work side by side: in order, a few at a time; and ahead of whoever asks for it."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from operator import length_hint
from threading import Condition, Event, Lock, Thread, current_thread, get_ident
from time import monotonic, sleep
from typing import Any, Generic, TypeVar, cast
from weakref import finalize

R = TypeVar("R")
V = TypeVar("V")

IN_FLIGHT = 2
"""Elements in flight for each thread: one being worked on, one waiting to be taken."""

PATIENCE = 0.3
"""Seconds for which whoever ends a run waits for a thread that waits for the network."""

GLANCE = 0.02
"""Seconds after which it is looked at again."""


def in_order(
    work: Callable[[int], R],
    positions: Iterable[int],
    threads: int,
    together: int = 1,
    *,
    leave: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, R]]:
    """Give (position, what ``work`` made of it) in the order of the positions, worked on by threads.

    What raises is raised at its place; closing waits for what is being worked on, and drops the rest. A thread that
    waits for the network (`afar`) is left behind, and ends once it has what it waits for, or its request times out.

    Parameters
    ----------
    work : done on the threads
    positions : in order
    threads : that work
    together : results that whoever takes them needs before there is anything to do, as those of a batch: it sleeps
        until they are all there, as waking it for each costs as much as to read a small chip
    leave : called when it is over, before threads are waited for: breaks off what they wait for
    """
    shift = _Shift(work, positions, IN_FLIGHT * threads)
    # Daemons, as others would be waited for at exit before anybody tells them that it is over; ``end`` does, and waits.
    workers = [
        Thread(target=shift.run, name=f"geopipes-read_{number}", daemon=True)
        for number in range(max(1, min(threads, length_hint(positions, threads))))
    ]
    anchor = _Anchor()
    end = finalize(anchor, _ended, shift, workers, leave)
    for worker in workers:
        worker.start()
    try:
        while ready := shift.take(together):
            while ready:
                position, result, error = ready.popleft()
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error  # which knows this frame
                yield position, cast(R, result)
                del result
    finally:
        end()


def mapped(work: Callable[[V], R], values: Sequence[V], threads: int) -> list[R]:
    """Give what ``work`` makes of each value, worked on by threads; the first error is raised."""
    if not values:
        return []
    return [made for _, made in in_order(lambda number: work(values[number]), range(len(values)), threads)]


def pause(seconds: float) -> bool:
    """Sleep; say whether it was for nothing, as nobody waits any more for what this thread works on."""
    shift = _at_work.get()
    if shift is None:
        sleep(seconds)
        return False
    return shift.ended.wait(seconds)


class _Anchor:
    """Goes with the frame that holds it."""


class _Shift(Generic[R]):
    """Work in order, that any number of threads take and one takes back."""

    def __init__(self, work: Callable[[int], R], positions: Iterable[int], ahead: int) -> None:
        self._work, self._positions, self._ahead = work, enumerate(positions), ahead
        lock = Lock()
        self._may_begin, self._may_take = Condition(lock), Condition(lock)
        self._begun = self._through = self._taken = 0  # all before ``through`` are done
        self._allowed, self._wanted, self._failed = ahead, 0, sys.maxsize
        self._done: dict[int, tuple[int, R | None, BaseException | None]] = {}
        self._over = self._left = False  # nothing is left to begin; nobody takes any more
        self.ended = Event()

    def run(self) -> None:
        """Work until there is nothing left to do."""
        _at_work.set(self)
        while (task := self._begin()) is not None:
            self._finish(task[0], (task[1], *_outcome(self._work, task[1])))

    def take(self, count: int) -> deque[tuple[int, R | None, BaseException | None]]:
        """Wait for so many results and take them; fewer where the work ends, or one raised."""
        with waiting(self.end), self._may_take:
            self._wanted = self._taken + count
            self._allowed = self._wanted - 1 + self._ahead
            self._may_begin.notify_all()
            self._may_take.wait_for(lambda: self._left or self._ready())
            taken = deque(self._done.pop(index) for index in range(self._taken, min(self._through, self._wanted)))
            self._taken += len(taken)
            return taken

    def end(self) -> None:
        """Let nothing more begin, and nobody wait for what has begun."""
        self.ended.set()
        with self._may_begin:
            self._over = self._left = True
            self._may_begin.notify_all()
            self._may_take.notify()

    def _begin(self) -> tuple[int, int] | None:
        with self._may_begin:
            self._may_begin.wait_for(lambda: self._over or self._begun < self._allowed)
            task = None if self._over else next(self._positions, None)
            if task is not None:
                self._begun += 1
            elif not self._over:
                self._over = True
                self._may_begin.notify_all()
                self._tell()
            return task

    def _finish(self, index: int, outcome: tuple[int, R | None, BaseException | None]) -> None:
        with self._may_take:
            self._done[index] = outcome
            while self._through in self._done:
                self._through += 1
            if outcome[2] is not None:
                self._failed = min(self._failed, index + 1)  # what comes after it is not waited for
            self._tell()

    def _ready(self) -> bool:
        over = self._over and self._through == self._begun
        return over or self._through >= min(self._wanted, self._failed)

    def _tell(self) -> None:
        if self._ready():
            self._may_take.notify()


_at_work: ContextVar[_Shift[Any] | None] = ContextVar("at_work", default=None)
"""The shift that this thread belongs to."""


def _outcome(work: Callable[[int], R], position: int) -> tuple[R | None, BaseException | None]:
    """Give what work makes of a position, or what it raises."""
    try:
        return work(position), None
    except BaseException as error:
        return None, error


def _ended(shift: _Shift[Any], workers: Sequence[Thread], leave: Callable[[], None]) -> None:
    """End a shift, and wait for its workers."""
    shift.end()
    leave()
    until = monotonic() + PATIENCE
    for worker in workers:
        while worker.is_alive() and worker is not current_thread() and not collecting():
            worker.join(GLANCE)
            if worker.ident in _afar and monotonic() > until:
                break


_afar: set[int] = set()

_waiting: dict[int, Callable[[], object]] = {}


@contextmanager
def afar() -> Iterator[None]:
    """Say that this thread waits for the network, in a call that nothing can end: whoever ends its run goes on."""
    _afar.add(get_ident())
    try:
        yield
    finally:
        _afar.discard(get_ident())


@contextmanager
def waiting(end: Callable[[], object]) -> Iterator[None]:
    """Say what ends the wait of this thread for others, when it is told to end itself."""
    outer = _waiting.get(get_ident())
    _waiting[get_ident()] = end
    try:
        yield
    finally:
        if outer is None:
            del _waiting[get_ident()]
        else:
            _waiting[get_ident()] = outer


def collecting() -> bool:
    """Say whether this thread is collecting garbage: it may hold any lock, and so must wait for nobody."""
    return _collector == get_ident()


_collector = 0


def _collects(phase: str, _: dict[str, int]) -> None:
    global _collector
    _collector = get_ident() if phase == "start" else 0


gc.callbacks.append(_collects)


class Ahead(Iterator[R]):
    """Elements made by a thread of its own, some before they are asked for.

    An error is raised once the elements before it have been taken, and by each call after that. Closing waits for what
    the thread is doing, not for what it waits for; it happens by itself when nobody holds the iterator any more.

    Parameters
    ----------
    elements : made on the thread, and closed there
    depth : elements that wait to be taken, at most
    """

    def __init__(self, elements: Iterator[R], depth: int) -> None:
        self._line: _Line[R] = _Line(depth)
        # The thread knows the line alone, so that this object goes when its user drops it.
        thread = Thread(target=_fill, args=(elements, self._line), name="geopipes-ahead", daemon=True)
        thread.start()
        self.close = finalize(self, _stop, self._line, thread)

    def __next__(self) -> R:
        return self._line.take()

    def ready(self) -> int:
        """Give how many elements wait to be taken."""
        return len(self._line)


class _Line(Generic[R]):
    """A queue between two threads that either may end; whoever waits is woken."""

    def __init__(self, depth: int) -> None:
        self._depth, self._changed = depth, Condition()
        self._waiting: deque[R] = deque()
        self._ended = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, element: R) -> bool:
        """Add an element once there is room; say whether there is anybody to take more."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._waiting) < self._depth)
            if not self._ended:
                self._waiting.append(element)
                self._changed.notify_all()
            return not self._ended

    def end(self, error: BaseException | None = None) -> None:
        """Let nothing more come."""
        with self._changed:
            self._ended, self._error = True, self._error or error
            self._changed.notify_all()

    def drop(self) -> None:
        """Let go of what nobody will take."""
        with self._changed:
            self._waiting.clear()

    def take(self) -> R:
        """Take an element, or what ended the line."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._waiting)
            if self._waiting:
                element = self._waiting.popleft()
                self._changed.notify_all()
                return element
            if self._error is not None:
                raise self._error
            raise StopIteration


def _fill(elements: Iterator[R], line: _Line[R]) -> None:
    """Put elements in a line until one of the two ends."""
    error = None
    try:
        while line.put(next(elements)):
            pass
    except StopIteration:
        pass
    except BaseException as raised:
        error = raised
    try:
        if hasattr(elements, "close"):
            elements.close()
    finally:
        line.end(error)


def _stop(line: _Line[R], thread: Thread) -> None:
    """End a line and wait for the thread that fills it, which waits for nobody any more."""
    line.end()
    line.drop()
    while thread.is_alive() and thread is not current_thread() and not collecting():
        if (end := _waiting.get(thread.ident or 0)) is not None:
            end()
        thread.join(GLANCE)
