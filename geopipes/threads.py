"""Work side by side: in order, a few at a time; and ahead of whoever asks for it."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition, Thread, current_thread, get_ident
from typing import Generic, TypeVar
from weakref import finalize

R = TypeVar("R")

IN_FLIGHT = 2
"""Elements in flight for each thread: one being worked on, one waiting to be taken."""


def in_order(work: Callable[[int], R], positions: Iterable[int], threads: int) -> Iterator[tuple[int, R]]:
    """Give (position, what ``work`` made of it) in the order of the positions, worked on by threads.

    What raises is raised at its place; closing waits for what is being worked on, and drops the rest.
    """
    pending: deque[tuple[int, Future[R]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="geopipes-read")
    try:
        for position in positions:
            pending.append((position, pool.submit(work, position)))
            if len(pending) >= IN_FLIGHT * threads:
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(wait=not collecting(), cancel_futures=True)


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

    An error is raised once the elements before it have been taken, and by each call after that. Closing waits for the
    element that is being made; it happens by itself when nobody holds the iterator any more.

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
    """End a line and wait for the thread that fills it."""
    line.end()
    line.drop()
    if thread is not current_thread() and not collecting():
        thread.join()
