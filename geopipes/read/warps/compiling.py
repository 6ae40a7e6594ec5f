"""How kernels are compiled: once for each dtype, kept on disk, and never with fast-math."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast
from uuid import uuid4

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function by numba, to run without the GIL.

    Without fast-math LLVM neither reorders nor fuses operations on floats: a result depends on the inputs alone.
    """
    return cast(F, _kept_apart(numba.njit(cache=True, nogil=True)(function)))


def brief(function: F) -> F:
    """Compile a function that takes microseconds: giving up the GIL, and waiting for it again, would cost more."""
    return cast(F, _kept_apart(numba.njit(cache=True)(function)))


def _kept_apart(dispatcher: Any) -> Any:
    """Give each file of compiled code a name of its own.

    Numba numbers them: of two processes that compile one function at once, for two dtypes, both take the same number,
    and whoever comes later loads the code of the wrong one.
    """
    files = dispatcher._cache._cache_file  # numba has no public way
    files._data_name = lambda _: f"{files._index_name.removesuffix('.nbi')}.{uuid4().hex}.nbc"
    return dispatcher
