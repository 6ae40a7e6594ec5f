"""Batches whose rows are written as samples are made, so that nothing is left to stack."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import torch

MARK = "geopipes_rows"
"""The attribute of a tensor that was made to be a batch: no other tensor is handed out whole for its rows."""


class Rows:
    """Tensors for batches to come, handed out row by row to any thread.

    Parameters
    ----------
    size : samples in a batch
    total : samples in all
    """

    def __init__(self, size: int, total: int) -> None:
        self._size, self._total, self._lock = size, total, Lock()
        self._begun: dict[tuple[int, str], tuple[torch.Tensor, set[int]]] = {}

    def row(self, position: int, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Give the place of a sample's tensor, holding anything.

        Parameters
        ----------
        position : of the sample
        name : of the tensor
        shape, dtype : of the tensor; one that differs from those before in the batch gets a place of its own
        """
        group, index = divmod(position, self._size)
        with self._lock:
            members = min(self._size, self._total - group * self._size)
            batch, left = self._begun.get((group, name)) or (None, set(range(members)))
            if batch is None:
                batch = torch.empty((members, *shape), dtype=dtype)
                setattr(batch, MARK, True)
                self._begun[group, name] = batch, left
            left.discard(index)
            if not left:
                del self._begun[group, name]
        fits = batch.shape[1:] == shape and batch.dtype == dtype
        return batch[index] if fits else torch.empty(shape, dtype=dtype)


def gathered(values: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Give the batch whose rows these tensors are, all of them and in order; None where they are not."""
    batch, first = values[0]._base, values[0]
    if batch is None or not hasattr(batch, MARK) or len(batch) != len(values):
        return None
    for index, value in enumerate(values):
        offset = batch.stride(0) * index
        alike = value.shape == first.shape and value.stride() == first.stride() and value.dtype == first.dtype
        if value._base is not batch or not alike or value.storage_offset() - first.storage_offset() != offset:
            return None
    if first.storage_offset() >= max(batch.stride(0), 1):  # rows of another batch's middle
        return None
    return batch.as_strided((len(values), *first.shape), (batch.stride(0), *first.stride()), first.storage_offset())
