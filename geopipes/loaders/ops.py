"""What happens to a stream of elements: one by one, or several together.

A stream holds pairs of (position, element). What a filter refuses stays behind as a `HOLE`, so that batches are made
by position in the plan and never shift.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from math import ceil
from typing import Any, Protocol

from geopipes.errors import EmptyBatch, StepError
from geopipes.meters import metering
from geopipes.steps import Step, call


class _Hole:
    """The type of `HOLE`; a class of its own, so that it stays itself when it is pickled."""

    def __reduce__(self) -> str:
        return "HOLE"


HOLE = _Hole()
"""Stands where an element was refused: a value of its own, since None may be an element."""

Element = tuple[int, Any]


class Op(Protocol):
    """What happens to a stream of (position, element)."""

    def stream(self, elements: Iterator[Element], ranks: int = 1) -> Iterator[Element]:
        """Give the stream after this operation; it holds the positions of one of several ranks."""

    def length(self, length: int) -> int:
        """Give the planned length after this operation."""


@dataclass(frozen=True)
class Each:
    """Apply a step to every element.

    Attributes
    ----------
    step : what is applied
    keeps : whether it says if the element stays
    key : of the random numbers that the step draws, without the chip's id; known once a run begins
    """

    step: Step
    keeps: bool = False
    key: tuple[int, ...] = ()

    def __str__(self) -> str:
        return str(self.step)

    def __call__(self, position: int, element: Any) -> Any:
        """Apply the step to one element; an error says at which."""
        if element is HOLE:
            return HOLE
        try:
            result = self.step(element, self._key(position, element) if self.step.draws else ())
        except Exception as error:
            error.add_note(f"at element {position}{_named(element)}")
            raise
        if not self.keeps:
            return result
        if not result and (meter := metering.get()) is not None:
            meter.refused(self.step)
        return element if result else HOLE

    def _key(self, position: int, element: Any) -> tuple[int, ...]:
        """Give the key of an element's random numbers: its chip's, or else its place's."""
        chip = chip_of(element)
        return *self.key, position if chip is None else chip

    def stream(self, elements: Iterator[Element], ranks: int = 1) -> Iterator[Element]:
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

    def stream(self, elements: Iterator[Element], ranks: int = 1) -> Iterator[Element]:
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

    def stream(self, elements: Iterator[Element], ranks: int = 1) -> Iterator[Element]:
        """Give a batch for every ``n`` positions; those of refused elements leave it smaller."""
        for group, together in groupby(elements, lambda pair: pair[0] // self.n):
            members = [element for _, element in together]
            if not (self.drop_last and len(members) < self.n // ranks):
                yield group, self.batch(group, members, ranks)
                members.clear()  # the memory of a batch that nobody holds becomes that of another

    def batch(self, group: int, members: Sequence[Any], ranks: int = 1) -> Any:
        """Make a batch of what stands at its positions; of holes alone it is one, and said.

        Raises
        ------
        StepError
            if the batch is empty and others take a step with theirs
        """
        there = [element for element in members if element is not HOLE]
        if there:
            return collated(there)
        why = "refused, by filter or as reads that failed"
        if ranks > 1:
            raise StepError(
                f"batch {group}: all {len(members)} elements were {why}; this rank has nothing for a step that {ranks} "
                "ranks take together. Choose chips before they are read, plan.measure(...).query(...), or use larger "
                "batches"
            )
        if self.n > 1:  # of one, a filter says it
            # Without its number, so that Python shows it once for a run.
            warnings.warn(EmptyBatch(f"all elements of a batch were {why}; it is left out"), stacklevel=2)
        return HOLE

    def length(self, length: int) -> int:
        """Give the number of batches."""
        return length // self.n if self.drop_last else ceil(length / self.n)


def planned(length: int, ops: Sequence[Op]) -> int:
    """Give the elements that come out of a pipe, of those that go in; holes are counted."""
    for op in ops:
        length = op.length(length)
    return length


def collated(members: Sequence[Any]) -> Any:
    """Make a batch: samples with tensors are collated, anything else is a list."""
    if "torch" in sys.modules and isinstance(members[0], dict):
        import torch

        if any(isinstance(value, torch.Tensor) for value in members[0].values()):
            from geopipes.tensors import collate

            return collate(members)
    return list(members)


def weight(element: Any) -> tuple[int, int]:
    """Give the chips in an element, 1 unless it is a batch, and the bytes of its arrays."""
    if isinstance(element, list):
        weights = [weight(member) for member in element]
        return sum(chips for chips, _ in weights), sum(size for _, size in weights)
    if not isinstance(element, dict):
        return 1, getattr(element, "nbytes", 0)
    ids = getattr(element.get("chip"), "shape", ())
    return ids[0] if ids else 1, sum(getattr(part, "nbytes", 0) for part in element.values())


def _named(element: Any) -> str:
    """Name the chip that an element is, where it is one."""
    chip = chip_of(element)
    return "" if chip is None else f" (chip {chip})"


def chip_of(element: Any) -> int | None:
    """Give the id of the chip that an element is: a Dataset, a dict of them or a sample; None where it is none."""
    part: Any = next(iter(element.values()), None) if isinstance(element, dict) and "chip" not in element else element
    try:
        return int(part["chip"])
    except (KeyError, TypeError, ValueError, IndexError):
        return None
