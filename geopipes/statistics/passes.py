"""The pass over the chips: each is summarized on the thread that read it, then all are merged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import length_hint
from typing import Any

import numpy as np
import xarray as xr

from geopipes import fingerprints, loaders
from geopipes.chips import Reading
from geopipes.chips.windows import Indices, Windows
from geopipes.datacubes.cube import Cubes
from geopipes.datacubes.lazies import cropped
from geopipes.errors import SourceError, StatisticsError, UnknownBand
from geopipes.kinds import CATEGORICAL, is_categorical
from geopipes.normalizing import layers, named
from geopipes.pixels.variables import measured
from geopipes.progress import progressing
from geopipes.statistics.results import Statistics, merge
from geopipes.statistics.summaries import Summary
from geopipes.steps import Step

PERCENTILES = (2.0, 50.0, 98.0)

GUESSED_CLASSES = 256
"""Values that a joined variable of whole numbers may hold to be taken for classes unasked: those of 8 bits."""

MERGED_AT_ONCE = 16
"""Chips whose summaries wait to be merged: merging costs as much as the bins there are."""


@dataclass(frozen=True, eq=False)
class Run:
    """The chips of a pipe: where they come from, and what happens to each.

    Attributes
    ----------
    source : what can be iterated again, or read by position on threads
    ops : what happens to the elements
    """

    source: Any
    ops: tuple[loaders.Op, ...] = ()

    def __len__(self) -> int:
        length = len(self.source)
        for op in self.ops:
            length = op.length(length)
        return length

    def __iter__(self) -> Iterator[Any]:
        return loaders.run(self.source, self.ops)

    def mapped(self, step: Step) -> Run:
        """Add a step; it runs on the reading threads where those before it do."""
        return replace(self, ops=(*self.ops, loaders.Each(step)))

    def sampled(self, sample: int, seed: int) -> Run:
        """Read fewer chips: those that `sampled` draws of the ids, in the order of the ids.

        Raises
        ------
        StatisticsError
            if the number of chips is changed after ``read``, or nothing is read
        """
        if not isinstance(self.source, Reading) or not all(isinstance(op, loaders.Each) for op in self.ops):
            raise StatisticsError(
                f"statistics(sample={sample}) chooses chips of a plan before they are read: leave sample out, or let "
                "take(...) and batch(...) stand before read or after statistics"
            )
        windows = self.source.windows
        chosen = np.argsort(windows.ids, kind="stable")[sampled(len(windows), sample, seed)]
        return replace(self, source=replace(self.source, windows=windows.take(chosen)))

    def plans(self) -> tuple[str, ...]:
        """Give the fingerprint of the plan; none for lazy arrays that name no file, and elements from elsewhere."""
        try:
            return (fingerprints.fingerprint(self.source.windows),) if isinstance(self.source, Reading) else ()
        except SourceError:
            return ()


def chain_of(source: Any, ops: Iterable[loaders.Op] = ()) -> fingerprints.Document | None:
    """Give the steps that elements have been through, before read and after it; filters do not count.

    Parameters
    ----------
    source : a plan, cubes or `geopipes.chips.Reading`
    ops : what happens after ``read``

    Returns
    -------
    as `geopipes.fingerprints.chain` gives it; None for elements from elsewhere
    """
    source = source.windows if isinstance(source, Reading) else source
    if not isinstance(source, Windows | Cubes):
        return None
    return fingerprints.chain(source, [op.step for op in ops if isinstance(op, loaders.Each) and not op.keeps])


def statistics(
    chips: Iterable[xr.Dataset] | Iterable[dict[str, xr.Dataset]],
    *,
    variables: str | Sequence[str] | None = None,
    percentiles: Sequence[float] = PERCENTILES,
    classes: str | Sequence[str] | None = None,
    sample: int | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> Statistics:
    """Take statistics of the pixels of chips as they come by: mean, deviation, extremes, percentiles, valid share.

    Every chip counts without its margin; where chips overlap, pixels count as often as they are in one. A variable of
    the stack counts where ``valid``, a joined one where it is not its own nodata, and none where it is NaN.

    Parameters
    ----------
    chips : loaded Datasets with ``valid``, or dicts of them for several inputs
    variables : to look at, of several inputs as ``"s2/red"``; None for all that have y and x
    percentiles : 0..100, that are printed and saved; any other can be asked for afterwards
    classes : variables of whole numbers whose values are classes: they are counted, have no mean, and are never
        normalized. None asks the attribute ``categorical``, which ``join(resampling="bilinear")`` sets to False; where
        it is not there, those that were joined are classes, and those that `geopipes.kinds.is_categorical` tells by
        their attributes or name, as ``scl``. So an elevation in whole numbers that was joined by ``"nearest"`` is
        taken for classes: write ``classes=["crop"]``, the labels alone, or ``classes=()``, none
    sample : look at so many chips, drawn at random without replacement and read in the order of their ids, whatever
        order the plan has; all where there are no more
    seed : of the draw, by numpy's PCG64
    progress : show a bar on stderr

    Returns
    -------
    Statistics : mean and standard deviation (of the population) in float64; counts of classes; percentiles exact for
        whole numbers of 16 bits or less, of others each to 1/8192 of itself

    Raises
    ------
    StatisticsError
        if there are no chips, a variable is infinite or no number, classes are not whole numbers, or ``sample`` has
        no ``seed``
    UnknownBand
        if a variable is not there
    """
    percents = tuple(float(percent) for percent in percentiles)
    if any(not 0 <= percent <= 100 for percent in percents):
        raise StatisticsError(f"statistics(percentiles={tuple(percentiles)}): they are numbers from 0 to 100")
    source: Any = chips if sample is None else _sample(chips, sample, seed)
    look = Look(_listed(variables), _listed(classes), percents)
    running = isinstance(source, Run)
    origin = {"chain": chain_of(source.source, source.ops), "plans": source.plans()} if running else {}
    parts: Iterable[Statistics] = source.mapped(Step("statistics()", look)) if running else map(look, source)
    if progress:
        parts = progressing(parts, length_hint(source) or None, "statistics")
    whole = _merged(parts, guessed=classes is None)
    if whole is None:
        raise StatisticsError("statistics: there are no chips; every one was filtered, or the plan is empty")
    return replace(whole, **origin)


@dataclass(frozen=True)
class Look:
    """Take the statistics of one chip."""

    variables: tuple[str, ...] | None
    classes: tuple[str, ...] | None
    percentiles: tuple[float, ...]

    def __call__(self, chip: Any) -> Statistics:
        """Summarize every variable that is asked for."""
        parts = chip if isinstance(chip, dict) else {"": chip}
        if not parts or not all(isinstance(part, xr.Dataset) for part in parts.values()):
            raise StatisticsError(
                f"statistics: an element is {type(chip).__name__}; needed are loaded chips, xr.Dataset or a dict of "
                "them: let statistics stand before tensor and batch"
            )
        inner = {name: _without_margin(part) for name, part in parts.items()}
        there = {key: (part, name) for part, data in inner.items() for key, name in named(data, part).items()}
        for asked in (self.variables or (), self.classes or ()):
            unknown = [key for key in asked if key not in there]
            if unknown:
                raise UnknownBand(f"statistics: no variable {unknown} in this chip: there are {list(there)}")
        keys = there if self.variables is None else dict.fromkeys((*self.variables, *(self.classes or ())))
        found: dict[str, Summary] = {}
        for key in keys:
            found |= self._summaries(inner[there[key][0]], there[key][1], key)
        return Statistics(found, 1, self.percentiles)

    def _summaries(self, dataset: xr.Dataset, name: str, key: str) -> dict[str, Summary]:
        """Summarize a variable, band by band where it has several."""
        variable = dataset[name]
        kind = variable.dtype.kind
        unsaid = kind in "iub" and CATEGORICAL not in variable.attrs
        guess = (unsaid and bool(variable.attrs.get("joined"))) or is_categorical(name, variable.dtype, variable.attrs)
        categorical = guess if self.classes is None else key in self.classes
        if kind not in ("iub" if categorical else "iubf"):
            needed = "classes are whole numbers" if categorical else "statistics are of numbers"
            raise StatisticsError(f"statistics: {key!r} is {variable.dtype}; {needed}")
        valid = layers(measured(dataset, name), key)
        summaries = {}
        for layer, pixels in layers(variable, key).items():
            values = pixels.values[valid[layer].values]
            if kind == "f" and not np.isfinite(values).all():
                raise StatisticsError(
                    f"statistics: {layer!r} is infinite in a valid pixel; let the step that makes it give NaN"
                )
            summaries[layer] = Summary.of(values, pixels.size, categorical=categorical)
        return summaries


def sampled(length: int, sample: int, seed: int) -> Indices:
    """Draw positions at random without replacement, ascending; all where there are no more."""
    if sample >= length:
        return np.arange(length)
    return np.sort(np.random.default_rng(seed).choice(length, sample, replace=False))


def _sample(chips: Any, sample: int, seed: int | None) -> Any:
    """Choose some of the chips."""
    if sample < 1 or seed is None:
        raise StatisticsError(f"statistics(sample={sample}, seed={seed}): give a number of chips above 0, and a seed")
    if isinstance(chips, Run):
        return chips.sampled(sample, seed)
    if not isinstance(chips, Sequence):
        raise StatisticsError(
            f"statistics(sample={sample}): of {type(chips).__name__} some cannot be taken without all; give a list"
        )
    return map(chips.__getitem__, sampled(len(chips), sample, seed).tolist())


def _merged(parts: Iterable[Statistics], *, guessed: bool) -> Statistics | None:
    """Merge the statistics of all chips, some at a time."""
    whole: Statistics | None = None
    iterator = iter(parts)
    while some := list(islice(iterator, MERGED_AT_ONCE)):
        whole = merge(*some) if whole is None else merge(whole, *some)
        if guessed:
            _check_guess(whole)
    return whole


def _check_guess(statistics: Statistics) -> None:
    """Raise where what was taken for classes has too many of them."""
    for name, summary in statistics.variables.items():
        if summary.categorical and len(summary.histogram.keys) > GUESSED_CLASSES:
            raise StatisticsError(
                f"statistics: {name!r} is {' or '.join(summary.dtypes)} and joined, or named as classes are: it is "
                f"taken for classes, but holds more than {GUESSED_CLASSES} values: write classes=({name!r},), or "
                "classes=() if it is a quantity"
            )


def _without_margin(chip: xr.Dataset) -> xr.Dataset:
    margin = int(chip["chip"].attrs.get("margin", 0)) if "chip" in chip.coords else 0
    inner: xr.Dataset = cropped(chip, margin)
    return inner


def _listed(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else (names,) if isinstance(names, str) else tuple(names)
