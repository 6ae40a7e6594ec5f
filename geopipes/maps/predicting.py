"""A model over chips: batches filled, its answers checked and given back to the chips they belong to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from geopipes.errors import StepError, TensorError
from geopipes.fingerprints import Document
from geopipes.loaders import HOLE, Element
from geopipes.maps.models import Model, called, model_document
from geopipes.meters import metering
from geopipes.steps import Step
from geopipes.tensors import collate
from geopipes.threads import Ahead

BATCH = 16
"""Samples that are put together for a call of the model, where nobody says how many."""

AHEAD = 2
"""Batches that are read and put together while the model computes."""

Unit = tuple[list[Element], dict[str, Any] | None]
"""Elements, and what the model is asked about them; None where there is nothing to ask."""


@dataclass(frozen=True)
class Predict:
    """Ask a model about every chip; as an operation of a run.

    Attributes
    ----------
    step : how it was typed, and the model
    on : the tensors the model takes, by keyword; those by place are "0", "1", ...
    name : of the answer, or the names of several
    batch : samples for a call of the model; None for batches as they come, and `BATCH` samples
    device, autocast : see `geopipes.maps.predict`
    breaks : positions over which no batch reaches, ascending: a run that begins there asks about the same batches
    """

    step: Step
    on: Mapping[str, str]
    name: str | tuple[str, ...]
    batch: int | None = None
    device: Any = None
    autocast: torch.dtype | None = None
    breaks: Sequence[int] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.step.text

    def length(self, length: int) -> int:
        """Keep the planned length."""
        return length

    def stream(self, elements: Iterator[Element], ranks: int = 1) -> Iterator[Element]:
        """Give elements with the model's answers; those to come are read meanwhile."""
        units: Any = self._units(elements)
        if metering.get() is None:  # who measures reading wants to see it on this thread
            units = Ahead(units, AHEAD)
        try:
            for members, batch in units:
                yield from members if batch is None else self._answered(members, batch)
        finally:
            units.close()

    def document(self) -> Document:
        """Describe what decides the answers."""
        return {
            "text": str(self), "on": dict(self.on), "name": self.name if isinstance(self.name, str) else [*self.name],
            "batch": self.batch, "autocast": str(self.autocast), **model_document(self.step.function),
        }  # fmt: skip

    def _units(self, elements: Iterator[Element]) -> Iterator[Unit]:
        """Put samples together; holes among them stay where they are."""
        waiting: list[Element] = []
        filled = 0
        for position, element in elements:
            if waiting and (filled == (self.batch or BATCH) or self._apart(waiting[-1][0], position)):
                yield self._unit(waiting)
                waiting, filled = [], 0
            if element is not HOLE and self._is_batch(element):
                yield [(position, element)], self._asked(element)
                continue
            waiting.append((position, element))
            filled += element is not HOLE
        if waiting:
            yield self._unit(waiting)

    def _apart(self, before: int, after: int) -> bool:
        return bisect_right(self.breaks, before) != bisect_right(self.breaks, after)

    def _unit(self, members: list[Element]) -> Unit:
        there = [self._asked(element) for _, element in members if element is not HOLE]
        return members, collate(there) if there else None

    def _is_batch(self, element: Any) -> bool:
        """Say whether an element is a batch, and refuse what is neither that nor a sample."""
        if not isinstance(element, dict) or "chip" not in element:
            found = f"a dict of {', '.join(element)}" if isinstance(element, dict) else type(element).__name__
            raise StepError(f"{self} takes samples or batches of tensor(...), which have a 'chip'; found is {found}")
        several = isinstance(element["chip"], torch.Tensor) and element["chip"].ndim > 0
        if several and self.batch is not None:
            raise StepError(f"{self}: these are batches already, asked about as they are; leave batch={self.batch} out")
        return several

    def _asked(self, element: dict[str, Any]) -> dict[str, Any]:
        """Give what the model needs of a sample or a batch, and what is known of its validity."""
        lacking = [name for name in self.on.values() if not isinstance(element.get(name), torch.Tensor)]
        if lacking:
            there = [name for name, value in element.items() if isinstance(value, torch.Tensor)]
            raise TensorError(f"{self}: there is no tensor {lacking[0]!r}; there are {', '.join(there)}")
        known = [f"{name}_valid" for name in self.on.values() if f"{name}_valid" in element]
        return {name: element[name] for name in ["chip", *self.on.values(), *known]}

    def _answered(self, members: list[Element], batch: dict[str, Any]) -> Iterator[Element]:
        """Ask the model, and give its answers to the elements they are of."""
        given = {key: batch[name] for key, name in self.on.items()}
        answer = self._named(called(self.step.function, given, self.device, self.autocast))
        held = next(element for _, element in members if element is not HOLE)
        if taken := [name for name in answer if name in held]:
            raise TensorError(f"{self}: the model gave {taken[0]!r}, which the sample has already; write another name=")
        answers = {name: self._fitting(name, tensor, batch) for name, tensor in answer.items()}
        answers |= {f"{name}_valid": self._valid(batch) for name in answers}
        number = 0
        for position, element in members:
            if element is HOLE:
                yield position, HOLE
            elif isinstance(element["chip"], torch.Tensor) and element["chip"].ndim > 0:
                yield position, element | answers
            else:
                yield position, element | {name: answer[number] for name, answer in answers.items()}
                number += 1

    def _named(self, answer: Any) -> dict[str, Any]:
        if isinstance(answer, Mapping):
            return dict(answer)
        names = [self.name] if isinstance(self.name, str) else [*self.name]
        heads = [*answer] if isinstance(answer, list | tuple) else [answer]
        if len(names) != len(heads):
            needed = ", ".join(f'"head{number}"' for number in range(len(heads)))
            raise TensorError(
                f"{self}: the model gave {len(heads)} tensors, and there are {len(names)} names; write name=[{needed}]"
            )
        return dict(zip(names, heads, strict=True))

    def _fitting(self, name: str, answer: Any, batch: dict[str, Any]) -> torch.Tensor:
        """Give an answer on this side of the device, or say why it does not belong to the chips."""
        first = batch[next(iter(self.on.values()))]
        if not isinstance(answer, torch.Tensor):
            raise TensorError(
                f"{self}: {name!r} is {type(answer).__name__}; needed is a tensor, a dict of tensors or a tuple of "
                "them; let a function pick it, predict(lambda image: model(image)['out'])"
            )
        found = f"{self}: {name!r} is {tuple(answer.shape)} for {len(first)} chips of {tuple(first.shape[1:])}"
        if answer.ndim == 0 or len(answer) != len(first):
            raise TensorError(f"{found}; needed is a first axis of {len(first)}, one row for each chip")
        if answer.ndim >= 3 and first.ndim >= 3:
            (high, wide), (height, width) = answer.shape[-2:], first.shape[-2:]
            if not all(a and b and (a % b == 0 or b % a == 0) for a, b in ((high, height), (wide, width))):
                raise TensorError(
                    f"{found}; needed are last axes of {height} x {width}, or of a whole part of them: crop or resize "
                    "in the model, or choose a chip size that it keeps"
                )
        here: torch.Tensor = answer.cpu()
        if here.is_floating_point():
            self._check_numbers(name, here, batch)
        return here

    def _check_numbers(self, name: str, answer: torch.Tensor, batch: dict[str, Any]) -> None:
        """Raise where a chip has valid pixels and no number at all: the model cannot have been asked rightly."""
        empty = torch.isnan(answer).flatten(1).all(1) if answer.ndim > 1 else torch.isnan(answer)
        if empty.any() and (lost := empty & self._valid(batch).flatten(1).any(1)).any():
            chips = batch["chip"][lost].tolist()
            raise TensorError(
                f"{self}: {name!r} is NaN at every pixel of chip {chips[0]} ({len(chips)} of {len(answer)} chips of "
                "the batch), which has valid pixels; is NaN filled, tensor(fill=0), and the range one that "
                "autocast holds?"
            )

    def _valid(self, batch: dict[str, Any]) -> torch.Tensor:
        """Say which pixels the model has seen: (B, y, x), valid in each of its inputs, at any of its dates."""
        first = batch[next(iter(self.on.values()))]
        size = first.shape[-2:] if first.ndim >= 3 else (1, 1)
        valid = torch.ones((len(first), *size), dtype=torch.bool)
        for name in self.on.values():
            mask = batch.get(f"{name}_valid")
            if mask is not None:
                mask = mask.cpu()
                mask = mask.flatten(1, -3).any(1) if mask.ndim > 3 else mask
                valid &= _resized(mask, size)
        return valid


def _resized(mask: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Lay a mask on the pixels of another size on the same ground: that which holds each pixel's centre."""
    for axis, length in zip((-2, -1), size, strict=True):
        if (own := mask.shape[axis]) != length:
            mask = mask.index_select(axis, (2 * torch.arange(length) + 1) * own // (2 * length))
    return mask


def predict(
    model: Model,
    *,
    on: str | Sequence[str] | Mapping[str, str] = "image",
    name: str | Sequence[str] = "prediction",
    batch: int | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
    text: str = "predict(...)",
) -> Predict:
    """Ask a model about samples or batches, and let these carry its answers.

    Parameters
    ----------
    model : any callable from tensors with a first axis of chips to a tensor with one: (B, C, y, x) or (B, y, x), of
        the chip's size or of a whole part of it (embeddings), (B, C) or (B,) for the chip as a whole. Several heads
        are a dict of tensors, which have its keys for names, or a tuple. A module computes as in evaluation, without
        gradients, and is in training afterwards where it was before
    on : the tensors it takes: one, several in this order, or by keyword ``{"optical": "s2", "radar": "s1"}``
    name : of the answer; names for the tensors of a tuple
    batch : samples that are put together for a call, 16 if not said: whatever a filter left out, batches are full.
        Batches of `batch` are asked about as they are
    device : where to compute: tensors are copied there and answers back, and a module goes there. None for where a
        module is
    autocast : the lower precision that torch may compute in, ``torch.bfloat16`` or ``torch.float16``
    text : as it was typed

    Returns
    -------
    the operation: samples and batches keep what they hold, and get ``prediction`` and ``prediction_valid``, bool,
    (y, x): where each of the tensors in ``on`` is valid, at any of its dates

    Raises
    ------
    StepError
        for numbers and names that make no sense; when it runs, for elements that are no samples and no batches
    TensorError
        when it runs: for a tensor that is not there, and for answers that do not belong to the chips
    """
    if batch is not None and batch < 1:
        raise StepError(f"{text}: batch={batch}; give a number of samples, at least 1")
    names = name if isinstance(name, str) else tuple(name)
    if isinstance(on, Mapping):
        wanted = dict(on)
    else:
        wanted = {str(number): each for number, each in enumerate([on] if isinstance(on, str) else on)}
    if not callable(model) or not wanted or not names:
        raise StepError(f"{text}: give a model that can be called, and names of tensors, on='image'")
    return Predict(Step(text, model), wanted, names, batch, device, autocast)
