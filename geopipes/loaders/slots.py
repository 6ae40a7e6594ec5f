"""Memory that worker processes fill and this one hands out: a slot holds the tensors of one batch.

A slot is anonymous memory whose descriptor goes to each worker once, and which all map once: it needs no name, so that
nothing can be left of it, and no room in /dev/shm, of which containers have little. A layout says what lies where, for
one batch at a time. A worker writes a sample's tensors that the layout knows to their row; all else of the sample, and
any other element, travels pickled. The memory of a batch becomes another one's when nobody holds a view of it.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import numpy.typing as npt
import torch

from geopipes.errors import LoaderError
from geopipes.tensors.rows import MARK

Memory = npt.NDArray[np.uint8]
Tensors = dict[str, torch.Tensor]

ALIGNED = 64
"""Bytes: a line of the processor's cache, and the widest of its registers."""


class _InPlace:
    """The type of `IN_PLACE`; a class of its own, so that it stays itself when it is pickled."""

    def __reduce__(self) -> str:
        return "IN_PLACE"


IN_PLACE = _InPlace()
"""Stands in a sample for a tensor that lies in its row."""


@dataclass(frozen=True)
class Layout:
    """What lies where in a slot.

    Attributes
    ----------
    rows : samples in a batch
    columns : the name, shape and dtype of each tensor of a sample
    """

    rows: int
    columns: tuple[tuple[str, tuple[int, ...], torch.dtype], ...] = ()

    def grown(self, members: Sequence[Any]) -> Layout:
        """Know the tensors, too, that are alike in all samples of a batch."""
        samples = [member for member in members if type(member) is dict]
        columns = {name: (name, shape, dtype) for name, shape, dtype in self.columns}
        for name, value in samples[0].items():
            if _plain(value) and all(alike(sample.get(name), value) for sample in samples):
                columns[name] = name, tuple(value.shape), value.dtype
        return Layout(self.rows, tuple(columns.values()))

    @property
    def size(self) -> int:
        """Bytes of a slot."""
        return sum(map(self._bytes, self.columns))

    def tensors(self, memory: Memory, rows: int) -> Tensors:
        """Give the first rows of each tensor of the batch, none of them a view of another tensor."""
        made: Tensors = {}
        start = 0
        for column in self.columns if rows else ():
            name, shape, dtype = column
            count = rows * int(np.prod(shape))
            made[name] = torch.frombuffer(memory, dtype=dtype, count=count, offset=start).resize_(rows, *shape)
            setattr(made[name], MARK, True)
            start += self._bytes(column)
        return made

    def _bytes(self, column: tuple[str, tuple[int, ...], torch.dtype]) -> int:
        _, shape, dtype = column
        size = self.rows * int(np.prod(shape)) * dtype.itemsize
        return size + -size % ALIGNED


def _plain(value: Any) -> bool:
    """Say whether a value is a tensor that is its memory and no more."""
    return (
        type(value) is torch.Tensor and value.layout == torch.strided and value.is_cpu
        and value.numel() > 0 and not (value.requires_grad or value.is_conj() or value.is_neg() or value.is_quantized)
    )  # fmt: skip


def alike(value: Any, other: torch.Tensor) -> bool:
    """Say whether a value can stand in the same batch as a tensor."""
    return _plain(value) and value.shape == other.shape and value.dtype == other.dtype


# In a worker.


def put(element: Any, rows: Tensors, memory: range) -> bytes:
    """Write the tensors of a sample to their rows; give the rest of it, pickled, or all of another element.

    Parameters
    ----------
    element : any
    rows : the places of this sample's tensors, by name
    memory : addresses of the slot; what a step left there of its own is read before any of it is written
    """
    placed = {}
    if type(element) is dict:
        placed = {name: value for name, value in element.items() if name in rows and alike(value, rows[name])}
        element = element | dict.fromkeys(placed, IN_PLACE)
    pickled = dumps(element)
    moves = []
    for name, value in placed.items():
        if value.data_ptr() != rows[name].data_ptr() or not value.is_contiguous():
            moves.append((rows[name], value.clone() if value.data_ptr() in memory else value))
    for row, value in moves:
        if value.dim() and value.is_contiguous():  # as bytes, of which torch copies uint16 at half this speed
            np.copyto(row.view(torch.uint8).numpy(), value.view(torch.uint8).numpy())
        else:
            row.copy_(value)
    return pickled


def dumps(element: Any) -> bytes:
    """Pickle an element; tensors of all dtypes, and of a view no more than is seen of it."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(element)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if not (_plain(value) or (type(value) is torch.Tensor and value.numel() == 0)):
            return NotImplemented  # torch's own way, which fails for uint16 (2.13) and takes along what a view is of
        # Of one element the stride may be any number, which a view as bytes minds.
        flat = value.contiguous().as_strided((value.numel(),), (1,))
        return _tensor, (flat.view(torch.uint8).numpy(), value.dtype, tuple(value.shape))


def _tensor(memory: Memory, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(memory).view(dtype).reshape(shape)


# In the process that hands batches out.


def placed(members: Sequence[Any], tensors: Tensors) -> bool:
    """Put the rows of a slot where `put` took them from; say whether there are tensors that came pickled."""
    pickled = False
    for index, member in enumerate(members):
        if type(member) is dict:
            for name, value in member.items():
                if value is IN_PLACE:
                    member[name] = tensors[name][index]
                else:
                    pickled = pickled or _plain(value)
    return pickled


@dataclass(eq=False)
class Slot:
    """Shared memory.

    Attributes
    ----------
    number : names it to the workers
    memory : mapped, for as long as anybody holds an array of it
    kept : whether a step in a worker holds what it saw of it, so that nothing may be written there any more
    """

    number: int
    memory: mmap.mmap
    kept: bool = False


class Slots:
    """The slots of some workers.

    Parameters
    ----------
    spare : slots that are kept while nobody uses them
    given : called with each new slot and its descriptor
    forgotten : called with each slot that is used no more
    """

    def __init__(self, spare: int, given: Callable[[Slot, int], None], forgotten: Callable[[Slot], None]) -> None:
        self._spare, self._given, self._forgotten = spare, given, forgotten
        self._free: deque[Slot] = deque()
        self.made = 0

    def take(self, size: int) -> Slot:
        """Give a slot that nobody uses.

        Raises
        ------
        LoaderError
            if there is no memory for another one
        """
        while self._free:
            slot = self._free.popleft()
            if len(slot.memory) >= size and not slot.kept and len(self._free) <= self._spare:
                return slot
            self._forgotten(slot)
        descriptor = allocated(size)
        try:
            slot = Slot(self.made, mmap.mmap(descriptor, size))
            self.made += 1
            self._given(slot, descriptor)
        finally:
            os.close(descriptor)
        return slot

    def lent(self, slot: Slot) -> Memory:
        """Give a slot's memory; when nobody holds it nor a view of it any more, the slot is free again."""
        memory = np.frombuffer(slot.memory, np.uint8)
        finalize(memory, self.back, slot).atexit = False
        return memory

    def back(self, slot: Slot) -> None:
        """Take a slot back; called in the midst of anything, wherever memory is collected, so it takes no lock."""
        self._free.append(slot)

    def close(self) -> None:
        """Let go of all memory that nobody holds; what is held goes with its holder."""
        self._free = deque(maxlen=0)


def allocated(size: int) -> int:
    """Give the descriptor of new shared memory without a name.

    Raises
    ------
    LoaderError
        if there is no room for it: better than to be killed when it is written to
    """
    there = _room()
    if size > there:
        raise _no_room(size, f"{there / 1e6:,.0f} MB are free")
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("geopipes-batch")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.ftruncate(descriptor, size)
    except OSError as error:
        os.close(descriptor)
        raise _no_room(size, f"there is no room for it ({error})") from error
    return descriptor


def _no_room(size: int, found: str) -> LoaderError:
    return LoaderError(
        f"loader: a batch in shared memory needs {size / 1e6:,.0f} MB, and {found}; write a smaller .batch(n), fewer "
        "batches ahead, loader(prefetch=1), or keep fewer batches"
    )


def _room() -> int:
    """Give the bytes that can be allocated; without bounds where nobody tells."""
    told = Path("/proc/meminfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 2**63)
