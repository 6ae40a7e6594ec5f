"""What was made is kept, up to a number of bytes: the least used goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

V = TypeVar("V")


class Kept(Generic[V]):
    """Values by key, for any number of threads: each is made once, by whoever asks first, and others wait for it.

    Parameters
    ----------
    budget : bytes to keep; what is being made or held by others counts not
    size : tells the bytes of a value
    """

    def __init__(self, budget: int, size: Callable[[V], int]) -> None:
        self._budget, self._size, self._held = budget, size, 0
        self._lock = Lock()
        self._values: OrderedDict[Hashable, Future[V]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """Give the value of a key; one that cannot be made is tried again by the next who asks."""
        with self._lock:
            found = self._values.get(key)
            mine = found is None
            if found is None:
                found = self._values[key] = Future()
            self._values.move_to_end(key)
        if not mine:
            return found.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._values[key]
            found.set_exception(error)
            raise
        with self._lock:
            found.set_result(value)
            self._held += self._size(value)
            self._evict()
        return value

    def _evict(self) -> None:
        """Drop the least used of what is there, not of what is being made."""
        for key in [key for key, value in self._values.items() if value.done()][:-1]:
            if self._held <= self._budget:
                return
            self._held -= self._size(self._values.pop(key).result())
