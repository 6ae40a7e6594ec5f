"""Running a pipe: elements with their positions flow through the steps, several chips in flight.

A run works on pairs of (position, element). What a filter refuses stays behind as a `HOLE`, so that batches are
made by position in the plan and never shift. Worker processes of a torch DataLoader each take whole batches.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import ceil, prod
from typing import Any, Protocol

from geopipes.steps import Step, call
from geopipes.threads import in_order


class _Hole:
    """The type of `HOLE`; a class of its own, so that it stays itself when it is pickled."""

    def __reduce__(self) -> str:
        return "HOLE"


HOLE = _Hole()
"""Stands where an element was refused: a value of its own, since None may be an element."""

Element = tuple[int, Any]
Work = Callable[[int, Any], Any]


class Op(Protocol):
    """What happens to a stream of (position, element)."""

    def stream(self, elements: Iterator[Element]) -> Iterator[Element]:
        """Give the stream after this operation."""

    def length(self, length: int) -> int:
        """Give the planned length after this operation."""


@dataclass(frozen=True)
class Each:
    """Apply a step to every element; with ``keeps``, the step says whether the element stays."""

    step: Step
    keeps: bool = False

    def __str__(self) -> str:
        return str(self.step)

    def __call__(self, position: int, element: Any) -> Any:
        """Apply the step to one element; an error says at which."""
        if element is HOLE:
            return HOLE
        try:
            result = self.step(element)
        except Exception as error:
            error.add_note(f"at element {position}{_named(element)}")
            raise
        return (element if result else HOLE) if self.keeps else result

    def stream(self, elements: Iterator[Element]) -> Iterator[Element]:
        """Apply it as elements come by."""
        return ((position, self(position, element)) for position, element in elements)

    def length(self, length: int) -> int:
        """Keep the planned length: a refused element leaves a hole."""
        return length


@dataclass(frozen=True)
class Take:
    """Stop after ``n`` elements."""

    n: int

    def __str__(self) -> str:
        return call("take", self.n)

    def stream(self, elements: Iterator[Element]) -> Iterator[Element]:
        """Give the first elements that are there."""
        return islice((pair for pair in elements if pair[1] is not HOLE), self.n)

    def length(self, length: int) -> int:
        """Give at most ``n``."""
        return min(self.n, length)


@dataclass(frozen=True)
class Batch:
    """Collate ``n`` elements, by position."""

    n: int
    drop_last: bool = False

    def __str__(self) -> str:
        return call("batch", self.n, **({"drop_last": True} if self.drop_last else {}))

    def stream(self, elements: Iterator[Element]) -> Iterator[Element]:
        """Give a batch for every ``n`` positions; those of refused elements leave it smaller."""
        members: list[Any] = []
        group, seen = -1, 0
        for position, element in elements:
            if position // self.n != group:
                if seen:
                    yield group, collated(members)
                group, members, seen = position // self.n, [], 0
            seen += 1
            if element is not HOLE:
                members.append(element)
        if seen and not (self.drop_last and seen < self.n):
            yield group, collated(members)

    def length(self, length: int) -> int:
        """Give the number of batches."""
        return length // self.n if self.drop_last else ceil(length / self.n)


class Reading(Protocol):
    """A source whose elements can be read by position, on any thread."""

    threads: int

    def __len__(self) -> int: ...

    def loading(self, positions: Sequence[int], loads: Any = None) -> AbstractContextManager[Callable[[int], Any]]:
        """Begin to read these elements in this order; what is given reads the one at a position."""


def run(source: Iterable[Any], ops: Sequence[Op]) -> Iterator[Any]:
    """Run a pipe once.

    Parameters
    ----------
    source : what can be iterated again; if its elements can be read by position, they are, on threads
    ops : what happens to them, in order; those one to one at the beginning run where the element is read

    Yields
    ------
    the elements, in order; in a worker process of a torch DataLoader those of its own batches alone
    """
    worker, workers = torch_worker()
    if workers > 1 and any(isinstance(op, Take) for op in ops):
        if worker > 0:  # "the first n" is known to one who sees all of them
            return
        worker, workers = 0, 1
    block = prod(op.n for op in ops if isinstance(op, Batch))
    leading = next((i for i, op in enumerate(ops) if not isinstance(op, Each)), len(ops))
    each = [op for op in ops[:leading] if isinstance(op, Each)]
    rows = next((op.n for op in ops[leading : leading + 1] if isinstance(op, Batch)), 1)
    elements = _elements(source, each, rows, lambda position: position // block % workers == worker)
    for op in ops[leading:]:
        elements = op.stream(elements)
    for _, element in elements:
        if element is not HOLE:
            yield element


def _elements(source: Any, each: Sequence[Each], rows: int, mine: Callable[[int], bool]) -> Iterator[Element]:
    """Give the elements of this worker, taken through the first steps."""
    if not hasattr(source, "loading"):
        for position, element in enumerate(source):
            if mine(position):
                yield position, _through(each, position, element)
        return
    positions = [position for position in range(len(source)) if mine(position)]
    straight, works = _straight(source, each, rows)
    with source.loading(positions, straight) as load:
        yield from in_order(partial(_read, load, works), positions, source.threads)


def _straight(source: Any, each: Sequence[Each], n: int) -> tuple[Any, Sequence[Work]]:
    """Give what reads chips straight into the rows of batches of tensors, where the steps allow it, and those left."""
    tensors = sys.modules.get("geopipes.tensors")
    end = next((i for i, op in enumerate(each, 1) if tensors and op.step.function is tensors.tensor), 0)
    if end == 0 or any(op.keeps for op in each[:end]):
        return None, each
    from geopipes.tensors.rows import FreshRows, Writing
    from geopipes.tensors.straight import sampler

    rows = FreshRows(n, len(source))
    straight = sampler(source.windows, [op.step for op in each[:end]], rows)
    return straight, each[end:] if straight else [*each[: end - 1], Writing(each[end - 1], rows), *each[end:]]


def _read(load: Callable[[int], Any], each: Sequence[Work], position: int) -> Any:
    """Read one element and take it through the first steps, on a reading thread."""
    try:
        element = load(position)
    except Exception as error:
        error.add_note(f"while reading element {position}")
        raise
    return _through(each, position, element)


def _through(each: Sequence[Work], position: int, element: Any) -> Any:
    for op in each:
        element = op(position, element)
    return element


def collated(members: list[Any]) -> Any:
    """Make a batch: samples with tensors are collated, anything else is a list; none left is a hole."""
    if not members:
        return HOLE
    if "torch" in sys.modules and isinstance(members[0], dict):
        import torch

        if any(isinstance(value, torch.Tensor) for value in members[0].values()):
            from geopipes.tensors import collate

            return collate(members)
    return members


def torch_worker() -> tuple[int, int]:
    """Give this process's number among the workers of a torch DataLoader, and how many there are; (0, 1) outside."""
    if "torch" not in sys.modules:
        return 0, 1
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


def _named(element: Any) -> str:
    """Name the chip that an element is, where it is one."""
    part: Any = next(iter(element.values()), None) if isinstance(element, dict) and "chip" not in element else element
    try:
        return f" (chip {int(part['chip'])})"
    except (KeyError, TypeError, ValueError, IndexError):
        return ""
