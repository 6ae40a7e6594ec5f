"""A map that is made as it is asked for: a run's chips, stitched strip by strip."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geopipes import fingerprints
from geopipes.chips import Reading
from geopipes.errors import MapError, SourceError, StepError
from geopipes.loaders import Batch, Each, Op, Run, Take
from geopipes.maps.blending import Blend, Canvas, Pixels
from geopipes.maps.layers import Layer, Outcome, Rule
from geopipes.maps.predicting import BATCH, Predict
from geopipes.maps.sheets import Layout
from geopipes.threads import Ahead

if TYPE_CHECKING:
    import xarray as xr

GROUP = 16
"""Batches after which a run may go on as another one began: so many are asked about again, at most."""

AHEAD = 2
"""Batches that the model is ahead of blending: it need not wait for each sample of one to be taken."""


@dataclass(frozen=True)
class Options:
    """How chips become a map.

    Attributes
    ----------
    of : the answers
    blend : how chips are laid over each other
    rules : of each answer
    """

    of: tuple[str, ...]
    blend: Blend
    rules: Mapping[str, Rule]


@dataclass(frozen=True)
class Block:
    """Rows of a map that are done, of all variables.

    Attributes
    ----------
    sheet : its number
    done : all rows above this one are done, in pixels of the chips
    layers : the answers
    parts : each variable with the first of its rows, and its (bands, n, x); n differs between resolutions
    position : of the first chip that is not needed any more for what is done
    """

    sheet: int
    done: int
    layers: tuple[Layer, ...]
    parts: tuple[tuple[Outcome, int, Pixels], ...]
    position: int


class Mosaic:
    """A map that is made as it is asked for, from top to bottom, grid by grid and date by date.

    Parameters
    ----------
    source, ops : of the run that predicts
    options : how to stitch
    text : as it was typed
    """

    def __init__(self, source: Any, ops: Sequence[Op], options: Options, text: str) -> None:
        self._source, self._ops, self.options, self.text = source, tuple(ops), options, text
        if not isinstance(source, Reading):
            raise MapError(f"{text}: elements from elsewhere have no place; write chip(...).read()...{text}")
        if any(isinstance(op, Take) for op in ops):
            raise MapError(
                f"{text}: take(n) after read() counts what comes by; take chips of the plan, .take(n).read()"
            )

    @cached_property
    def layout(self) -> Layout:
        """Where the chips lie."""
        return Layout.of(self._source.windows, self.text)

    @property
    def chips(self) -> int:
        """How many chips are planned."""
        return len(self._source)

    def document(self) -> fingerprints.Document:
        """Describe what decides the pixels.

        Returns
        -------
        what JSON can hold. ``unknown`` says what cannot be told from another of its kind, such as a model that cannot
        be pickled, with a word that is never the same
        """
        try:
            return self._document()
        except (SourceError, StepError) as error:
            return {"unknown": f"{error} {uuid.uuid4()}"}

    def _document(self) -> fingerprints.Document:
        rules = {name: fingerprints.value_document(vars(rule)) for name, rule in self.options.rules.items()}
        policy = self._source.policy
        return {
            "plan": fingerprints.describe(self._source.windows),
            # What could be read is the same; how a map with holes came about is to be known.
            **({} if policy.on_error == "raise" else {"on_error": policy.on_error}),
            "steps": [_document(op) for op in self._ops],
            "stitch": {"of": [*self.options.of], "blend": self.options.blend, "rules": rules},
        }

    def blocks(self, sheet: int = 0, row: int = 0, layers: Sequence[Layer] = ()) -> Iterator[Block]:
        """Make the map from a row of a sheet on, block by block.

        Parameters
        ----------
        sheet, row : where to begin, as a `Block` before said
        layers : the answers, where an earlier run has seen them
        """
        layout = self.layout
        needed = layout.begin(sheet, row)
        run = self._run(needed)
        stitching = _Stitching(self, sheet, row, layers)
        places = layout.places(run.position)
        elements: Any = Ahead(run, AHEAD * (1 if any(isinstance(op, Batch) for op in self._ops) else self._asked))
        try:
            for element in elements:
                for chip, answers in _chips(element, self.options.of, self.text):
                    position, number, top, left = places.find(chip)
                    if position >= needed:
                        stitching.know(answers)
                        yield from stitching.advance(number, top, position)
                        stitching.add(answers, top, left)
            yield from stitching.advance(len(layout.sheets), 0, len(layout.windows))
        finally:
            elements.close()

    @property
    def _asked(self) -> int:
        """How many samples the model is asked about at once."""
        return max((op.batch or BATCH for op in self._ops if isinstance(op, Predict)), default=1)

    def _run(self, needed: int) -> Run:
        """Begin a run that has what it needs from a position on, in the batches that any other run makes of it."""
        ops = [replace(op, breaks=()) if isinstance(op, Predict) else op for op in self._ops]
        first = next((i for i, op in enumerate(ops) if isinstance(op, Predict)), len(ops))
        block = prod(op.n for op in ops[:first] if isinstance(op, Batch))
        breaks = self.layout.breaks(GROUP * self._asked)
        ops = [replace(op, breaks=breaks.tolist()) if isinstance(op, Predict) else op for op in ops]
        start = int(breaks[np.searchsorted(breaks, needed, side="right") - 1])
        if needed == len(self.layout.windows):
            start = needed
        return Run(self._source, ops, start=start // block * block)

    def __iter__(self) -> Iterator[xr.Dataset]:
        """Make the map, strip by strip."""
        from geopipes.maps.datasets import strip

        for block in self.blocks():
            if (found := strip(self.layout, block)) is not None:
                yield found


class _Stitching:
    """The open rows of the sheet at work, of all answers."""

    def __init__(self, mosaic: Mosaic, sheet: int, row: int, layers: Sequence[Layer]) -> None:
        self._mosaic, self._layout = mosaic, mosaic.layout
        self._sheet, self._row = sheet, row
        self._layers = [(layer, layer.outcomes()) for layer in layers]
        self._canvases: list[Canvas] = []

    def add(self, answers: Mapping[str, tuple[torch.Tensor, torch.Tensor]], row: int, col: int) -> None:
        """Lay a chip over the map at its place, in pixels of the chips."""
        self._open()
        for (layer, _), canvas in zip(self._layers, self._canvases, strict=True):
            values, valid = layer.taken(*answers[layer.name])
            (py, qy), (px, qx) = layer.scale
            canvas.add(values, valid, row * py // qy, col * px // qx)

    def know(self, answers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Learn of the first chip what the answers are."""
        if not self._layers:
            rules = self._mosaic.options.rules
            layers = [Layer.of(name, answer, self._layout, rules[name]) for name, (answer, _) in answers.items()]
            self._layers = [(layer, layer.outcomes()) for layer in layers]

    def _open(self) -> None:
        """Begin this sheet."""
        if not self._canvases:
            self._canvases = [self._canvas(layer) for layer, _ in self._layers]

    def _canvas(self, layer: Layer) -> Canvas:
        shape = self._layout.geobox(self._layout.sheets[self._sheet], layer.scale).shape
        top = self._row * layer.scale[0][0] // layer.scale[0][1]
        return Canvas((layer.bands, *shape), layer.size, np.dtype(layer.dtype), self._mosaic.options.blend, top)

    def advance(self, sheet: int, row: int, position: int) -> Iterator[Block]:
        """Give the rows above one of a sheet, which no chip that follows will change."""
        if not self._layers:
            raise MapError(f"{self._mosaic.text}: no chip is left to make a map of; every one was refused by a filter")
        while self._sheet < sheet:
            yield from self._closed(self._layout.sheets[self._sheet].shape[0], position)
            self._sheet, self._row, self._canvases = self._sheet + 1, 0, []
        if sheet < len(self._layout.sheets):
            yield from self._closed(row, position)

    def _closed(self, row: int, position: int) -> Iterator[Block]:
        """Close rows of this sheet, at most as many at a time as a chip has."""
        self._open()
        sheet, high = self._layout.sheets[self._sheet], self._layout.windows.size[0]
        while self._row < row:
            step = min(self._row + high, row)
            parts = []
            for (layer, outcomes), canvas in zip(self._layers, self._canvases, strict=True):
                (py, qy), _ = layer.scale
                stop = -(-step * py // qy) if step == sheet.shape[0] else step * py // qy
                top = canvas.top
                if stop > top:
                    values, covered = canvas.close(stop)
                    parts += [(outcome, top, outcome.made(values, covered)) for outcome in outcomes]
            self._row = step
            yield Block(self._sheet, step, tuple(layer for layer, _ in self._layers), tuple(parts), position)


def _chips(element: Any, of: Sequence[str], call: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give the chips of an element, a sample or a batch: id, and each answer with where it is valid."""
    lacking = [name for name in ("chip", *of) if not isinstance(element, dict) or name not in element]
    if lacking:
        there = ", ".join(element) if isinstance(element, dict) else type(element).__name__
        raise MapError(f"{call}: there is no {lacking[0]!r} among {there}; write predict(model, name={of[0]!r}) before")
    several = isinstance(element["chip"], torch.Tensor) and element["chip"].ndim > 0
    for number, chip in enumerate(element["chip"].tolist() if several else [int(element["chip"])]):
        answers = {}
        for name in of:
            answer, valid = element[name], element.get(f"{name}_valid")
            answer = answer[number] if several else answer
            if valid is None:
                valid = torch.ones(answer.shape[-2:] if answer.ndim > 1 else (1, 1), dtype=torch.bool)
            elif several:
                valid = valid[number]
            answers[name] = (answer, valid)
        yield chip, answers


def _document(op: Op) -> fingerprints.Document:
    """Describe what happens to the elements of a run."""
    if isinstance(op, Predict):
        return op.document()
    if isinstance(op, Each):
        return fingerprints.step_document(op.step) | ({"keeps": True} if op.keeps else {})
    return {"text": str(op)}
