"""One answer of a model as a map: its pixels beside those of the chips, its values, its nodata."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, isnan
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from geopipes.errors import MapError
from geopipes.maps.blending import Pixels
from geopipes.maps.sheets import Layout

Activation = Literal["softmax", "sigmoid"]

HALF = 0.5
"""The probability from which one channel alone is class 1."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """What becomes of an answer.

    Attributes
    ----------
    activation : what turns the model's numbers into probabilities, chip by chip, before they are blended
    classes : whether the map holds the number of the most probable channel
    probability : whether a second map holds its probability
    nodata : what stands where nothing is known; None for NaN in floats, the largest number of a dtype without sign and
        of classes, the smallest of one with
    """

    activation: Activation | None = None
    classes: bool = False
    probability: bool = False
    nodata: float | None = None


@dataclass(frozen=True)
class Layer:
    """One answer as a map.

    Attributes
    ----------
    name : of the answer
    rule : what becomes of it
    bands : that are blended
    size : (y, x) pixels of a chip here
    chip : (y, x) pixels of a chip
    dtype : in which it is blended
    """

    name: str
    rule: Rule
    bands: int
    size: tuple[int, int]
    chip: tuple[int, int]
    dtype: str

    @classmethod
    def of(cls, name: str, answer: torch.Tensor, layout: Layout, rule: Rule) -> Layer:
        """Look at the first answer, of one chip.

        Raises
        ------
        MapError
            if it is no map of the chip, or its pixels would not fall on those of its neighbours
        """
        chip = layout.windows.size
        found = f"stitch(of={name!r}): the answer for a chip of {chip[0]} x {chip[1]} px is {tuple(answer.shape)}"
        if answer.ndim > 3:
            raise MapError(f"{found}; needed is (band, y, x), (y, x), (band,) or one value; pick a date in the model")
        size = (answer.shape[-2], answer.shape[-1]) if answer.ndim > 1 else _one_for_all(layout)
        for axis, own, whole, step in zip("yx", size, chip, layout.steps, strict=True):
            if own == 0 or (whole % own and own % whole):
                raise MapError(f"{found}; needed are {chip[0]} x {chip[1]} px, or a whole part of them")
            if step * own % whole:
                raise MapError(
                    f"{found}: along {axis} one pixel of {whole // own} px of the chip, but chips lie multiples of "
                    f"{step} px apart; write chip(overlap=...) so that they lie on multiples of {whole // own} px, and "
                    "edge='pad' instead of 'shift'"
                )
        dtype = _blended_in(answer.dtype)
        _check_activation(found, answer, rule)
        if rule.classes and dtype.kind != "f" and answer.ndim > 2 and len(answer) > 1:
            raise MapError(f"{found} of whole numbers; classes=True takes a probability for each class, or one band")
        bands = len(answer) if answer.ndim in (1, 3) else 1
        return cls(name, rule, bands, size, (chip[0], chip[1]), str(dtype))

    def document(self) -> dict[str, Any]:
        """Write it down, without its rule."""
        fields = vars(self) | {"size": [*self.size], "chip": [*self.chip]}
        return {name: value for name, value in fields.items() if name != "rule"}

    @classmethod
    def read(cls, document: dict[str, Any], rule: Rule) -> Layer:
        """Take up what was written down."""
        return cls(**document | {"size": tuple(document["size"]), "chip": tuple(document["chip"])}, rule=rule)

    @property
    def scale(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels here, of how many of a chip, along y and x."""
        return (self.size[0], self.chip[0]), (self.size[1], self.chip[1])

    def taken(self, answer: torch.Tensor, valid: torch.Tensor) -> tuple[Pixels, Mask]:
        """Give the (bands, y, x) of a chip that are blended, and (y, x) where they count: valid and not NaN.

        Raises
        ------
        MapError
            if the answer has another form than the first
        """
        if answer.is_floating_point():
            answer = answer.to(getattr(torch, self.dtype))
        if self.rule.activation == "softmax":
            answer = torch.softmax(answer, 0)
        elif self.rule.activation is not None:
            answer = torch.sigmoid(answer)
        values: Pixels = answer.numpy()
        high, wide = self.size
        if values.ndim < 2:
            values = np.broadcast_to(values.reshape(-1, 1, 1), (values.size, high, wide))
        values = values[None] if values.ndim == 2 else values
        if values.shape != (self.bands, high, wide):
            raise MapError(
                f"stitch(of={self.name!r}): an answer is {tuple(answer.shape)}, and the first was {self.bands} bands "
                f"of {high} x {wide} px; a map has one form"
            )
        mask: Mask = self._mask(valid.numpy())
        return values, mask & ~np.isnan(values).any(axis=0) if values.dtype.kind == "f" else mask

    def _mask(self, valid: Any) -> Mask:
        """Say which pixels here hold a valid one of the chip."""
        for axis, own in enumerate(self.size):
            length = valid.shape[axis]
            if length == own:
                continue
            if length > own and length % own == 0:
                shape = (*valid.shape[:axis], own, length // own, *valid.shape[axis + 1 :])
                valid = valid.reshape(shape).any(axis=axis + 1)
            else:
                valid = valid.take((2 * np.arange(own) + 1) * length // (2 * own), axis=axis)
        found: Mask = valid
        return found

    def _nodata(self, kind: str) -> float:
        """Give what stands for nodata in a dtype, of which it must be a value."""
        dtype, given = np.dtype(kind), self.rule.nodata
        if given is None:
            if dtype.kind == "f":
                return float("nan")
            return int(np.iinfo(dtype).max if dtype.kind == "u" else np.iinfo(dtype).min)
        if dtype.kind != "f" and not (float(given).is_integer() and np.can_cast(np.min_scalar_type(int(given)), dtype)):
            raise MapError(f"stitch(nodata={given}): {self.name!r} is {dtype}, which does not hold it")
        return given

    def outcomes(self) -> list[Outcome]:
        """Give what is kept of it: itself or its class, and the class's probability."""
        if not self.rule.classes:
            return [Outcome(self.name, self, self.bands, self.dtype, self._nodata(self.dtype))]
        kind = "uint8" if self.bands < 255 else "uint16"
        found = [Outcome(self.name, self, 1, kind, self._nodata(kind), classes=True)]
        if self.rule.probability:
            found.append(Outcome(f"{self.name}_probability", self, 1, self.dtype, float("nan"), probability=True))
        return found


@dataclass(frozen=True)
class Outcome:
    """One variable of a map.

    Attributes
    ----------
    name : of the variable
    layer : of which it is made
    bands : it has
    dtype : as it is kept
    nodata : what stands where nothing is known
    classes, probability : whether it is the most probable class, or its probability
    """

    name: str
    layer: Layer
    bands: int
    dtype: str
    nodata: float
    classes: bool = False
    probability: bool = False

    def made(self, values: Pixels, covered: Mask) -> Pixels:
        """Make rows of it.

        Parameters
        ----------
        values : (bands, n, x), blended
        covered : (n, x)

        Returns
        -------
        (bands, n, x)

        Raises
        ------
        MapError
            if a valid pixel has the value of nodata, or classes do not fit
        """
        if self.classes or self.probability:
            values = self._most_probable(values, covered)
        elif values.dtype.kind != "f":
            self._check_free(values, covered)
        made: Pixels = values.astype(self.dtype, copy=False)
        if not covered.all():
            np.copyto(made, np.dtype(self.dtype).type(self.nodata), where=~covered)
        return made

    def _most_probable(self, values: Pixels, covered: Mask) -> Pixels:
        if values.dtype.kind != "f":
            self._check_range(values, covered, 0, np.iinfo(self.dtype).max, "class numbers")
            self._check_free(values, covered)
            return values
        if len(values) > 1:
            return values.max(axis=0, keepdims=True) if self.probability else values.argmax(axis=0)[None]
        self._check_range(values, covered, 0, 1, "probabilities; write activation='sigmoid'")
        one = values >= HALF
        return np.where(one, values, 1 - values) if self.probability else one

    def _check_range(self, values: Pixels, covered: Mask, low: float, high: float, what: str) -> None:
        there = values[:, covered]
        if there.size and not (low <= there.min() and there.max() <= high):
            raise MapError(
                f"stitch(of={self.name!r}, classes=True): values from {there.min():g} to {there.max():g}; needed are "
                f"{what}, {low} to {high:g}"
            )

    def _check_free(self, values: Pixels, covered: Mask) -> None:
        if not isnan(self.nodata) and (values[:, covered] == self.nodata).any():
            raise MapError(
                f"stitch(of={self.name!r}): a valid pixel is {self.nodata:g}, which stands for nodata in {self.dtype}; "
                "write stitch(nodata=...) with a value that is free, or let the model give floats"
            )


def _one_for_all(layout: Layout) -> tuple[int, int]:
    """Give the pixels of a chip on a grid where one value stands for all of it: as few as its neighbours allow."""
    high, wide = (size // gcd(size, step) for size, step in zip(layout.windows.size, layout.steps, strict=True))
    return high, wide


def _blended_in(dtype: torch.dtype) -> np.dtype[Any]:
    """Give the dtype in which answers are blended: that of the answers, float32 for the half ones."""
    if dtype.is_floating_point and dtype not in (torch.float32, torch.float64):
        return np.dtype(np.float32)
    if dtype.is_complex:
        raise MapError(f"stitch: an answer is {dtype}; needed are real numbers")
    kind: np.dtype[Any] = torch.empty(0, dtype=dtype).numpy().dtype
    return np.dtype(np.uint8) if kind.kind == "b" else kind


def _check_activation(found: str, answer: torch.Tensor, rule: Rule) -> None:
    """Raise where there is nothing that probabilities could be made of."""
    one = answer.ndim in (0, 2) or len(answer) == 1
    if rule.activation is not None and not answer.is_floating_point():
        raise MapError(f"{found} of whole numbers; activation={rule.activation!r} is of the numbers before argmax")
    if rule.activation == "softmax" and one:
        raise MapError(f"{found}: over one band softmax is 1 everywhere; write activation='sigmoid'")
