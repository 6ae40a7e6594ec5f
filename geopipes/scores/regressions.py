"""Quantities predicted against quantities measured."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from geopipes.scores.confusions import paired


@dataclass(frozen=True)
class Regression:
    """Errors of a quantity: a value that can be added to others, pickled and printed.

    Attributes
    ----------
    count : pixels
    mean, spread : of the labels: their mean, and the sum of the squares of their distances from it
    error, absolute, square : sums of prediction minus label, of its amount, and of its square

    Notes
    -----
    R2 is 1 - (sum of squared errors) / ``spread``: below 0 where the mean of the labels would predict better. Merging
    is that of Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance".
    """

    count: int
    mean: float
    spread: float
    error: float
    absolute: float
    square: float

    @classmethod
    def of(
        cls,
        prediction: npt.ArrayLike,
        label: npt.ArrayLike,
        *,
        valid: npt.ArrayLike | None = None,
        ignore: Collection[float] = (),
    ) -> Regression:
        """Sum up pairs of values.

        Parameters
        ----------
        prediction, label : of one shape; where one of them is NaN, or the label is in ``ignore``, nothing counts
        valid : of that shape too: False where nothing counts
        ignore : labels that stand for no measurement, such as nodata

        Raises
        ------
        ScoreError
            for shapes that differ
        """
        first, second, counted = paired(prediction, label, valid)
        counted &= ~np.isin(second, list(ignore))
        predicted, measured = first[counted].astype(float), second[counted].astype(float)
        if not len(measured):
            return cls(0, 0.0, 0.0, 0.0, 0.0, 0.0)
        error, mean = predicted - measured, float(measured.mean())
        spread = float(((measured - mean) ** 2).sum())
        return cls(len(error), mean, spread, float(error.sum()), float(abs(error).sum()), float((error**2).sum()))

    def __add__(self, other: Regression | int) -> Regression:
        if other == 0:
            return self  # what sum() begins with
        if not isinstance(other, Regression):
            return NotImplemented
        count = self.count + other.count
        if not count:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * other.count / count
        spread = self.spread + other.spread + apart**2 * self.count * other.count / count
        sums = (self.error + other.error, self.absolute + other.absolute, self.square + other.square)
        return Regression(count, mean, spread, *sums)

    __radd__ = __add__

    @property
    def rmse(self) -> float:
        """The root of the mean squared error."""
        return math.sqrt(self.square / self.count) if self.count else math.nan

    @property
    def mae(self) -> float:
        """The mean absolute error."""
        return self.absolute / self.count if self.count else math.nan

    @property
    def bias(self) -> float:
        """The mean error: above 0 where too much is predicted."""
        return self.error / self.count if self.count else math.nan

    @property
    def r2(self) -> float:
        """The coefficient of determination; NaN where all labels are alike."""
        return 1 - self.square / self.spread if self.spread else math.nan

    def table(self) -> pd.DataFrame:
        """Give the scores as a table of one line."""
        return pd.DataFrame([self.summary()])

    def summary(self) -> dict[str, float]:
        """Give the scores by name."""
        return {"count": self.count, "rmse": self.rmse, "mae": self.mae, "bias": self.bias, "r2": self.r2}

    def __str__(self) -> str:
        return (
            f"{self.count:,} pixels, RMSE {self.rmse:.4g}, MAE {self.mae:.4g}, bias {self.bias:+.4g}, R2 {self.r2:.3f}"
        )
