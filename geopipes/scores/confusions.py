"""Classes predicted against classes labelled: counts, and what follows from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from geopipes.errors import ScoreError

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Confusion:
    """A confusion matrix: a value that can be added to others, pickled and printed.

    Attributes
    ----------
    classes : value of each class, with its name
    counts : (class, class) int64: labelled (rows) and predicted (columns)

    Notes
    -----
    With n(i, j) pixels of class i predicted as j: recall (producer's accuracy) of i is n(i, i) / n(i, .), precision
    (user's accuracy) n(i, i) / n(., i), IoU n(i, i) / (n(i, .) + n(., i) - n(i, i)), F1 the harmonic mean of recall and
    precision. What is divided by 0 is NaN, and is left out of means over classes.
    """

    classes: Mapping[int, str]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        prediction: npt.ArrayLike,
        label: npt.ArrayLike,
        *,
        classes: Mapping[int, str] | Collection[int],
        valid: npt.ArrayLike | None = None,
        ignore: Collection[float] = (),
    ) -> Confusion:
        """Count pairs of values.

        Parameters
        ----------
        prediction, label : of one shape, values of classes; where one of them is NaN or in ``ignore``, nothing counts
        classes : ``{1: "crop", 2: "water"}``, or the values alone
        valid : of that shape too: False where nothing counts
        ignore : values that stand for no class, such as nodata

        Raises
        ------
        ScoreError
            for shapes that differ, and a value that is neither a class nor ignored
        """
        named = named_classes(classes)
        first, second, counted = paired(prediction, label, valid)
        for values in (first, second):
            counted &= ~np.isin(values, list(ignore))
        size = len(named)
        places = [_places(values[counted], named, name) for values, name in ((first, "prediction"), (second, "label"))]
        counts = np.bincount(places[1] * size + places[0], minlength=size * size)
        return cls(named, counts.reshape(size, size).astype(np.int64))

    def __add__(self, other: Confusion | int) -> Confusion:
        if other == 0:
            return self  # what sum() begins with
        if not isinstance(other, Confusion):
            return NotImplemented
        if dict(other.classes) != dict(self.classes):
            raise ScoreError(f"scores of other classes cannot be added: {dict(self.classes)} and {dict(other.classes)}")
        return Confusion(self.classes, self.counts + other.counts)

    __radd__ = __add__

    @property
    def total(self) -> int:
        """How many pixels were counted."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """The overall accuracy."""
        return float(_shares(np.trace(self.counts), self.counts.sum()))

    @property
    def recall(self) -> Floats:
        """Of each class, the share of what is labelled that is found: the producer's accuracy."""
        return _shares(np.diag(self.counts), self.counts.sum(axis=1))

    @property
    def precision(self) -> Floats:
        """Of each class, the share of what is predicted that is right: the user's accuracy."""
        return _shares(np.diag(self.counts), self.counts.sum(axis=0))

    @property
    def iou(self) -> Floats:
        """Of each class, the intersection over the union."""
        return _shares(np.diag(self.counts), self.counts.sum(axis=0) + self.counts.sum(axis=1) - np.diag(self.counts))

    @property
    def f1(self) -> Floats:
        """Of each class, the harmonic mean of precision and recall."""
        return _shares(2 * np.diag(self.counts), self.counts.sum(axis=0) + self.counts.sum(axis=1))

    @property
    def mean_iou(self) -> float:
        """The mean IoU of the classes that were labelled or predicted."""
        return _mean(self.iou)

    @property
    def mean_f1(self) -> float:
        """The mean F1 of the classes that were labelled or predicted."""
        return _mean(self.f1)

    def table(self) -> pd.DataFrame:
        """Give the scores of each class, indexed by its value."""
        columns = {
            "name": list(self.classes.values()), "iou": self.iou, "f1": self.f1, "precision": self.precision,
            "recall": self.recall, "labelled": self.counts.sum(axis=1), "predicted": self.counts.sum(axis=0),
        }  # fmt: skip
        return pd.DataFrame(columns, index=pd.Index(list(self.classes), name="class"))

    def summary(self) -> dict[str, float]:
        """Give the scores over all classes."""
        return {
            "count": self.total, "accuracy": self.accuracy, "mean_iou": self.mean_iou, "mean_f1": self.mean_f1,
        }  # fmt: skip

    def __str__(self) -> str:
        words = f"{self.total:,} pixels, accuracy {self.accuracy:.3f}, mean IoU {self.mean_iou:.3f}, "
        return f"{words}mean F1 {self.mean_f1:.3f}\n{self.table().to_string(float_format='{:.3f}'.format)}"


def named_classes(classes: Mapping[int, str] | Collection[int]) -> dict[int, str]:
    """Give classes with their names; those without are named by their values.

    Raises
    ------
    ScoreError
        for none, and values that are no whole numbers
    """
    pairs = classes.items() if isinstance(classes, Mapping) else ((value, str(value)) for value in classes)
    try:
        named = {int(value): str(name) for value, name in pairs if int(value) == value}
    except (TypeError, ValueError):
        named = {}
    if not named or len(named) != len(classes):
        raise ScoreError(f"classes={classes!r}: give their values, [0, 1], or with names, {{1: 'crop', 2: 'water'}}")
    return named


def paired(
    prediction: npt.ArrayLike, label: npt.ArrayLike, valid: npt.ArrayLike | None
) -> tuple[Values, Values, npt.NDArray[np.bool_]]:
    """Give two arrays of one shape, and where both hold something that counts.

    Raises
    ------
    ScoreError
        for shapes that differ
    """
    first, second = np.asarray(prediction), np.asarray(label)
    counted = np.ones(first.shape, bool) if valid is None else np.array(valid, bool)
    if first.shape != second.shape or counted.shape != first.shape:
        raise ScoreError(
            f"scores: the prediction is {first.shape}, the label {second.shape}, the validity {counted.shape}; needed "
            "is one shape"
        )
    for values in (first, second):
        if values.dtype.kind == "f":
            counted &= ~np.isnan(values)
    return first, second, counted


def _places(values: Values, classes: Mapping[int, str], name: str) -> npt.NDArray[np.intp]:
    """Give the number of the class of each value."""
    known = np.array(list(classes))
    order = np.argsort(known)
    places: npt.NDArray[np.intp] = order[np.searchsorted(known, values, sorter=order).clip(max=len(known) - 1)]
    strange = known[places] != values
    if strange.any():
        shown = ", ".join(f"{value:g}" for value in np.unique(values[strange])[:5].tolist())
        raise ScoreError(
            f"scores: the {name} holds {shown}, which is none of the classes {list(classes)}; name it in classes=..., "
            "or in ignore=... if it stands for no class (probabilities are made classes by predict, or by argmax)"
        )
    return places


def _shares(part: Any, whole: Any) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.asarray(part, float) / np.asarray(whole, float))


def _mean(values: Floats) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")
