"""Work side by side: in order, a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")

IN_FLIGHT = 2
"""Elements in flight for each thread: one being worked on, one waiting to be taken."""


def in_order(work: Callable[[int], R], positions: Iterable[int], threads: int) -> Iterator[tuple[int, R]]:
    """Give (position, what ``work`` made of it) in the order of the positions, worked on by threads.

    What raises is raised at its place; closing waits for what is being worked on, and drops the rest.
    """
    pending: deque[tuple[int, Future[R]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="geopipes-read") as pool:
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
            for _, future in pending:
                future.cancel()
