"""What is worked out when it is first needed: values, and modules."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from threading import RLock
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class Lazy(Generic[V]):
    """A value that is made once, when first needed, and remembered; pickled, it travels as the value."""

    def __init__(self, make: Callable[[], V]) -> None:
        self._make: Callable[[], V] | None = make
        self._lock = RLock()

    @classmethod
    def known(cls, value: V) -> Lazy[V]:
        """Wrap a value that is there already."""
        lazy = cls(lambda: value)
        lazy.get()
        return lazy

    @property
    def done(self) -> bool:
        """Whether the value has been made."""
        return self._make is None

    def get(self) -> V:
        """Give the value; if making it fails, the next call tries again."""
        with self._lock:
            if self._make is not None:
                self._value = self._make()
                self._make = None
            return self._value

    def __reduce__(self) -> tuple[Callable[[V], Lazy[V]], tuple[V]]:
        return Lazy.known, (self.get(),)


class LazyModule:
    """A module that is imported at the first look inside: what keeps ``import geopipes`` light."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
