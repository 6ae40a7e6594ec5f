"""Batches whose rows are written as samples are made, so that nothing is left to stack."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import Any, Protocol
from weakref import finalize

import numpy as np
import numpy.typing as npt
import torch

MARK = "geopipes_rows"
"""The attribute of a tensor that was made to be a batch: no other tensor is handed out whole for its rows."""

LATE = 64
"""Positions by which a sample may come later than another; a batch that lacks one for longer does not wait for it."""

FREE = 2
"""Batches whose memory is kept for others, of each size."""

Buffer = npt.NDArray[np.uint8]

Place = tuple[torch.Tensor, npt.NDArray[Any]]
"""Where a tensor of a sample is written to: the tensor, and its array."""


class Rows(Protocol):
    """Places for the tensors of samples, in batches to come, for any thread."""

    def row(self, position: int, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Place:
        """Give the place of a sample's tensor, holding anything: as a tensor and as an array.

        Parameters
        ----------
        position : of the sample
        name : of the tensor
        shape, dtype : of the tensor; one that differs from those before in the batch gets a place of its own
        """


class FreshRows:
    """Rows of batches made in this process.

    The memory of a batch that nobody holds any more becomes that of another one: touching fresh memory for the
    first time costs as much as decoding what is written to it.

    Parameters
    ----------
    size : samples in a batch of this rank's
    total : samples in all
    ranks : that take positions in turn
    """

    def __init__(self, size: int, total: int, ranks: int = 1) -> None:
        self._size, self._total, self._ranks, self._lock = size, total, ranks, Lock()
        self._begun: dict[tuple[int, str], _Begun] = {}
        self._free: dict[int, deque[Buffer]] = {}  # by bytes

    def row(self, position: int, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Place:
        """Give the place of a sample's tensor: see `Rows`."""
        group, index = divmod(position // self._ranks, self._size)
        rank = position % self._ranks
        key = group, name
        begun = self._begun.get(key)
        if begun is None:
            with self._lock:
                begun = self._begun.get(key)
                if begun is None:
                    for old in [old for old in list(self._begun) if (group - old[0]) * self._size > self._size + LATE]:
                        self._begun.pop(old, None)
                    mine = -(-(self._total - rank) // self._ranks)
                    members = min(self._size, mine - group * self._size)
                    begun = self._begun[key] = _Begun(shape, dtype, self._batch((members, *shape), dtype))
        place = begun.left.pop(index, None)
        if not begun.left:
            self._begun.pop(key, None)
        return fresh(shape, dtype) if place is None or begun.shape != shape or begun.dtype != dtype else place

    def _batch(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[int, Place]:
        """Make a tensor and its array, of memory that was a batch's where there is some; give the rows of both."""
        size = prod(shape) * dtype.itemsize
        free = self._free.setdefault(size, deque(maxlen=FREE))
        buffer = free.pop() if free else np.empty(size, np.uint8)
        array = buffer.view(dtype).reshape(shape)
        finalize(array, free.append, buffer).atexit = False  # the array lives as long as any tensor of its memory
        batch = torch.from_numpy(array)
        setattr(batch, MARK, True)
        return {index: (batch[index], row) for index, row in enumerate(batch.numpy())}


class _Begun:
    """A batch of which some rows are left to be given out: all are made at once, as one takes as long as a few."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], left: dict[int, Place]) -> None:
        self.shape, self.dtype, self.left = shape, dtype, left


written: ContextVar[tuple[Rows, int] | None] = ContextVar("written", default=None)
"""The rows, and the position, of the sample that this thread is making."""


@dataclass(frozen=True)
class Writing:
    """A step on the element at a position, whose tensors are written to rows."""

    step: Callable[[int, Any], Any]
    rows: Rows

    def __call__(self, position: int, element: Any) -> Any:
        """Take the step."""
        token = written.set((self.rows, position))
        try:
            return self.step(position, element)
        finally:
            written.reset(token)


def row(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Place:
    """Give the place of a tensor of the sample that is being made: its row, or memory of its own where it has none."""
    place = written.get()
    return fresh(shape, dtype) if place is None else place[0].row(place[1], name, shape, dtype)


def fresh(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Place:
    """Give memory for a tensor, holding anything."""
    array = np.empty(shape, dtype)
    return torch.from_numpy(array), array


def gathered(values: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Give the batch whose rows tensors of one shape and dtype are, all and in order; None where they are not."""
    batch, first = values[0]._base, values[0]
    if batch is None or not hasattr(batch, MARK) or len(batch) != len(values):
        return None
    step, strides, start = batch.stride(0), first.stride(), first.storage_offset()
    if start >= max(step, 1) or first.dtype != batch.dtype or first.is_complex():
        return None  # rows of another batch's middle, or seen as another dtype or as their conjugates
    for index, value in enumerate(values):
        if value._base is not batch or value.storage_offset() != start + index * step or value.stride() != strides:
            return None
    return batch.as_strided((len(values), *first.shape), (step, *strides), start)
