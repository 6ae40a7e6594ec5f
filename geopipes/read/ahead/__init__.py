"""Bytes of tiles in stores, fetched ahead of whoever decodes them: in the order of the plan, neighbours together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from geopipes.meters import OPENING, timed
from geopipes.read.ahead.crews import Closed, Fetching, Wanted

REQUESTS = 64
"""Requests of a run in flight, if not told otherwise."""

BUDGET = 64 * 2**20
"""Bytes fetched for a window that is read alone, beyond those it waits for."""

current: ContextVar[Fetching | None] = ContextVar("fetching", default=None)
"""The run that fetches for what this thread reads."""

patient: ContextVar[bool] = ContextVar("patient", default=True)
"""Whether files that have to be opened are waited for."""


class Pending(Exception):
    """Files are being opened, and nobody waits for them."""


@contextmanager
def fetching() -> Iterator[Fetching]:
    """Give what fetches for this thread: that of its run, or else one that ends with the block."""
    found = current.get()
    if found is not None:
        yield found
        return
    own = Fetching(requests=REQUESTS, budget=BUDGET)
    token = current.set(own)
    try:
        yield own
    finally:
        current.reset(token)
        own.close()


def together(calls: Sequence[tuple[Hashable, Callable[[], object]]]) -> None:
    """Call what waits for the network, side by side; what they raise is not looked at.

    Raises
    ------
    Pending
        they have not ended, and this thread is not ``patient``
    Closed
        the run has ended
    """
    with fetching() as fetched:
        done = fetched.call(calls)
        if not patient.get():
            if not all(each.is_set() for each in done):
                raise Pending
            return
        with timed(OPENING, calls=len(done)):
            for each in done:
                each.wait()
        if fetched.closed:
            raise Closed("the run has ended")


def stored(keys: Iterable[Any], tiles: Any) -> Iterator[Wanted]:
    """Give what is to be fetched from stores for tiles, by their keys, that are not decoded.

    Each is looked at when it is asked for: whoever takes it down does so before the bytes of a tile, that another
    thread decodes meanwhile, are gone.
    """
    for planes, level, row, col, *mask in keys:
        if not mask and planes.afar:
            yield from planes.stored(level, row, col, tiles)


__all__ = [
    "REQUESTS",
    "Closed",
    "Fetching",
    "Pending",
    "Wanted",
    "current",
    "fetching",
    "patient",
    "stored",
    "together",
]
