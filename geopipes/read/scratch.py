"""Arrays that a thread writes anew each time: fresh memory costs more than filling it."""

from __future__ import annotations

import threading
from math import prod
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, Array] = {}
        self.arrays: dict[str, Array] = {}


_scratch = _Scratch()


def scratch(role: str, shape: tuple[int, ...], dtype: Any = np.uint8) -> Array:
    """Give this thread's array for a role, holding anything: what an earlier call gave for it is overwritten."""
    array = _scratch.arrays.get(role)
    if array is not None and array.shape == shape and array.dtype == dtype:  # as for most chips
        return array
    dtype = np.dtype(dtype)
    size = prod(shape) * dtype.itemsize
    held = _scratch.buffers.get(role)
    if held is None or len(held) < size:
        held = _scratch.buffers[role] = np.empty(size, np.uint8)
    fitting: Array = held[:size].view(dtype).reshape(shape)
    _scratch.arrays[role] = fitting
    return fitting
