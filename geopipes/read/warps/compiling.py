"""How kernels are compiled: once for each dtype, kept on disk, without the GIL, and never with fast-math."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function by numba.

    Without fast-math LLVM neither reorders nor fuses operations on floats: a result depends on the inputs alone.
    """
    return cast(F, numba.njit(cache=True, nogil=True)(function))
