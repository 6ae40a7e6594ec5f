"""The pass over batches, chips or pairs of arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import length_hint
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from geopipes.datacubes.lazies import cropped
from geopipes.errors import ScoreError
from geopipes.pixels.variables import measured
from geopipes.progress import progressing
from geopipes.scores.confusions import Confusion, named_classes
from geopipes.scores.regressions import Regression
from geopipes.scores.results import Part, Scores

Array = npt.NDArray[Any]


def scores(
    batches: Iterable[Any],
    prediction: str = "prediction",
    label: str = "label",
    *,
    classes: Mapping[int, str] | Collection[int] | None = None,
    by: str | None = None,
    ignore: Collection[float] = (),
    progress: bool = False,
) -> Scores:
    """Compare predictions with labels as they come by.

    Parameters
    ----------
    batches : batches or samples, dicts that hold both; chips, Datasets that hold both (a map that was written, and
        labels joined to it); or pairs of arrays (prediction, label)
    prediction, label : their names there. Predictions of one shape with the labels, or with one axis more: an axis of
        classes after that of the batch, whose k-th is the k-th of ``classes``, of which the largest counts
    classes : values and names, ``{1: "crop", 2: "water"}``; None for quantities, whose errors are taken
    by : a column of the plan, which says the region of each chip: ``tensor(..., columns="region")`` lets samples carry
        it, and chips have all. The name of a polygon or a fold is one: see `split_by_polygon`
    ignore : values of the label that stand for no class or measurement; of a Dataset its nodata need not be named.
        A prediction of one of them is not counted either
    progress : whether a bar on stderr shows how far it is

    Returns
    -------
    Scores : ``whole`` and ``regions`` are of `Confusion` or `Regression`. A pixel counts where each entry named
        ``..._valid`` that has the place of the label is True, on some date where there are several, and neither value
        is NaN

    Raises
    ------
    ScoreError
        for names that are not there, shapes that do not fit, a value that is no class, and nothing to compare
    """
    named = None if classes is None else named_classes(classes)
    total: Scores | None = None
    for element in progressing(batches, length_hint(batches) or None, "scores") if progress else batches:
        for region, values in _parts(element, prediction, label, by, named):
            part = values.scored(named, ignore)
            found = Scores(part, {} if by is None else {region: part}, by)
            total = found if total is None else total + found
    if total is None or not total.whole.summary()["count"]:
        raise ScoreError("scores: there is nothing to compare: no batch came by, or no pixel of any was valid")
    return total


def across_seeds(runs: Sequence[Scores]) -> pd.DataFrame:
    """Give the mean and the deviation of scores over runs that differ in their seeds.

    Parameters
    ----------
    runs : scores of one kind, on the same ground; at least two

    Returns
    -------
    DataFrame with the lines of ``runs[0].summary()``, and for each of its columns ``mean`` and ``std``, the sample's
    standard deviation (n - 1)
    """
    if len(runs) < 2:
        raise ScoreError(f"across_seeds: found are {len(runs)} runs; a deviation needs at least two")
    tables = [run.summary() for run in runs]
    if any(list(table.index) != list(tables[0].index) or list(table) != list(tables[0]) for table in tables):
        raise ScoreError("across_seeds: the runs are of other regions, or other kinds of scores")
    stacked = np.stack([table.to_numpy(float) for table in tables])
    parts = {"mean": stacked.mean(axis=0), "std": stacked.std(axis=0, ddof=1)}
    columns = {
        (name, how): values[:, at] for at, name in enumerate(tables[0]) for how, values in parts.items()
    }  # fmt: skip
    return pd.DataFrame(columns, index=tables[0].index)


@dataclass(frozen=True)
class _Values:
    """What is compared."""

    prediction: Array
    label: Array
    valid: npt.NDArray[np.bool_] | None

    def scored(self, classes: Mapping[int, str] | None, ignore: Collection[float]) -> Part:
        if classes is None:
            return Regression.of(self.prediction, self.label, valid=self.valid, ignore=ignore)
        return Confusion.of(self.prediction, self.label, classes=classes, valid=self.valid, ignore=ignore)


def _parts(
    element: Any, prediction: str, label: str, by: str | None, classes: Mapping[int, str] | None
) -> Iterable[tuple[str, _Values]]:
    """Give what an element compares, region by region."""
    if isinstance(element, xr.Dataset):
        _check(element, (prediction, label))
        regions = [None if by is None else _column(element["chip"].attrs, by)]
        found = _of_chip(element, prediction, label)
    elif isinstance(element, Mapping):
        _check(element, (prediction, label))
        batched = np.ndim(_array(element.get("chip", [0]))) > 0
        column = [None] if by is None else _column(element, by)
        regions = list(_array(column)) if batched and by is not None else [column]
        found = _of_batch(element, prediction, label, classes, batched=batched)
    elif isinstance(element, tuple) and len(element) == 2 and by is None:
        regions, found = [None], _Values(_array(element[0]), _array(element[1]), None)
    else:
        raise ScoreError(
            f"scores: an element is {type(element).__name__}; needed are batches, chips, or pairs of arrays, which "
            "have no regions"
        )
    if len(regions) == 1:
        yield str(regions[0]), found
        return
    names = np.array([str(region) for region in regions])
    for name in np.unique(names):
        at = names == name
        valid = None if found.valid is None else found.valid[at]
        yield str(name), _Values(found.prediction[at], found.label[at], valid)


def _of_chip(chip: xr.Dataset, prediction: str, label: str) -> _Values:
    """Take both variables of a chip, without its margin, where they are measured."""
    inner = cropped(chip, int(chip["chip"].attrs.get("margin", 0)) if "chip" in chip.coords else 0)
    first, second, *valid = xr.broadcast(
        inner[prediction], inner[label], measured(inner, prediction), measured(inner, label)
    )
    return _Values(first.values, second.values, valid[0].values & valid[1].values)


def _of_batch(
    batch: Mapping[str, Any], prediction: str, label: str, classes: Mapping[int, str] | None, *, batched: bool
) -> _Values:
    """Take both tensors of a batch or sample, and what is valid of them."""
    first, second = _array(batch[prediction]), _array(batch[label])
    axis = int(batched)
    if second.ndim > axis and second.shape[axis] == 1 and second.ndim in (axis + 3, axis + 4):
        second = second.squeeze(axis)  # an axis of bands, or dates, of which there is one
    valid = np.ones(second.shape, bool)
    if first.ndim == second.ndim + 1:
        if first.shape[axis] == 1:
            first = first.squeeze(axis)
        elif classes is not None:
            if first.shape[axis] != len(classes):
                raise ScoreError(
                    f"scores: the prediction {prediction!r} is {first.shape}, with {first.shape[axis]} on the axis of "
                    f"classes; needed are the {len(classes)} of classes={dict(classes)}"
                )
            unknown = np.isnan(first).any(axis)
            first = np.array(list(classes))[first.argmax(axis)]
            valid = valid & ~unknown if unknown.shape == valid.shape else valid
    for name, values in batch.items():
        if name.endswith("_valid"):
            there = _array(values)
            while there.ndim > second.ndim:
                there = np.asarray(there.any(axis=axis))
            if there.shape == valid.shape:
                valid &= there
    return _Values(first, second, valid)


def _array(value: Any) -> Array:
    """Give an array, of a tensor on whatever device."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.dtype.is_floating_point and value.element_size() < 4 else value
    return np.asarray(value)


def _check(element: Any, names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in element]:
        raise ScoreError(f"scores: there is no {missing[0]!r} in an element that has {', '.join(map(str, element))}")


def _column(holder: Mapping[str, Any], by: str) -> Any:
    if by not in holder:
        raise ScoreError(
            f"scores(by={by!r}): no chip carries that column; write tensor(..., columns={by!r}), of a column of "
            "the plan"
        )
    return holder[by]
