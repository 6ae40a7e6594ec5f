"""What is known of the pixels of one variable, and grows as chips come by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from geopipes.errors import StatisticsError

Values = npt.NDArray[Any]

EXACT_BYTES = 2
"""Whole numbers of so many bytes are counted one by one: there are 65,536 of them at most."""

MANTISSA = 12
"""Bits of a float's mantissa that tell its bin."""

DROPPED = np.finfo(np.float64).nmant - MANTISSA

ERROR = 2.0 ** -(MANTISSA + 1)
"""What is counted by bins is known to this share of itself, 1/8192: a bin is 1/4096 of its low end wide at most."""


@dataclass(frozen=True)
class Moments:
    """Number, mean and spread of values, in float64.

    Attributes
    ----------
    count : of values
    mean : NaN where there are none
    squares : sum of the squared differences from the mean
    minimum, maximum : NaN where there are none
    """

    count: int = 0
    mean: float = math.nan
    squares: float = 0.0
    minimum: float = math.nan
    maximum: float = math.nan

    @classmethod
    def of(cls, values: Values) -> Moments:
        """Take them of an array (n,), in two passes."""
        if values.size == 0:
            return cls()
        precise = values.astype(np.float64)
        mean = float(precise.mean())
        low, high = float(precise.min()), float(precise.max())
        precise -= mean
        return cls(values.size, mean, float(np.square(precise, out=precise).sum()), low, high)

    def __add__(self, other: Moments) -> Moments:
        """Merge by the formula of Chan, Golub and LeVeque (1979)."""
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        count = self.count + other.count
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        squares = self.squares + other.squares + step * step * (self.count * (other.count / count))
        low, high = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        return Moments(count, mean, squares, low, high)


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often values occur: each whole number of 16 bits or less, other numbers by bins.

    A bin holds the numbers of one sign, one exponent and the same first 12 bits of mantissa, so bins never depend on
    the data, and histograms of any parts add up to that of the whole.

    Attributes
    ----------
    keys : (bins,) int64, ascending: the whole numbers themselves, or the bins' names
    counts : (bins,) int64, above 0
    exact : whether the keys are the values
    """

    keys: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    exact: bool

    @classmethod
    def of(cls, values: Values, exact: bool) -> Histogram:
        """Count an array (n,)."""
        if exact and values.dtype.itemsize <= EXACT_BYTES and values.size:
            low = int(values.min())
            counts = np.bincount(values.astype(np.int64) - low)
            keys = np.flatnonzero(counts)
            return cls(keys + low, counts[keys], True)
        keys, counts = np.unique(values.astype(np.int64) if exact else _bins(values), return_counts=True)
        return cls(keys, counts.astype(np.int64), exact)

    @classmethod
    def merged(cls, parts: Sequence[Histogram]) -> Histogram:
        """Add several up; in whatever order, the counts are the same."""
        keys = np.concatenate([part.keys for part in parts])
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], np.concatenate([part.counts for part in parts])[order]
        starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
        sums = np.add.reduceat(counts, starts) if len(starts) else counts
        return cls(keys[starts], sums, parts[0].exact)

    @cached_property
    def values(self) -> npt.NDArray[np.float64]:
        """The value of each bin, its middle: (bins,), ascending."""
        if self.exact:
            return self.keys.astype(np.float64)
        middle = (np.abs(self.keys) << DROPPED) | np.int64(1 << (DROPPED - 1))
        sizes = np.where(self.keys == 0, 0.0, middle.view(np.float64))
        return np.copysign(sizes, self.keys)

    def at(self, ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Give the values at some places of the sorted whole, from 0."""
        return self.values[np.searchsorted(np.cumsum(self.counts), ranks, side="right")]


def _bins(values: Values) -> npt.NDArray[np.int64]:
    """Name the bin of each value: ascending with the values, symmetric about 0."""
    bits = (values.astype(np.float64) + 0.0).view(np.int64)
    sizes = (bits & np.iinfo(np.int64).max) >> DROPPED
    return np.where(bits < 0, -sizes, sizes)


@dataclass(frozen=True, eq=False)
class Summary:
    """What is known of one variable.

    Attributes
    ----------
    dtypes : of the variable; several where chips differ
    categorical : whether its values are classes
    pixels : seen, valid or not
    moments : of the valid pixels; without a mean for classes
    histogram : of the valid pixels
    """

    dtypes: tuple[str, ...]
    categorical: bool
    pixels: int
    moments: Moments
    histogram: Histogram

    @classmethod
    def of(cls, values: Values, pixels: int, *, categorical: bool) -> Summary:
        """Summarize the valid pixels (n,) of a variable of which ``pixels`` were seen."""
        whole = values.dtype.kind in "iub"
        exact = categorical or (whole and values.dtype.itemsize <= EXACT_BYTES)
        moments = Moments(values.size) if categorical else Moments.of(values)
        return cls((str(values.dtype),), categorical, pixels, moments, Histogram.of(values, exact))

    @classmethod
    def merged(cls, parts: Sequence[Summary], name: str) -> Summary:
        """Merge summaries of other pixels of the same variable.

        Raises
        ------
        StatisticsError
            if some are counted by value and others by bins
        """
        dtypes = tuple(sorted({dtype for part in parts for dtype in part.dtypes}))
        if len({(part.categorical, part.histogram.exact) for part in parts}) > 1:
            raise StatisticsError(
                f"{name!r} is {' in some chips, '.join(dtypes)} in others, or of classes in some alone: "
                "convert it in a step before, or make both statistics with the same classes="
            )
        categorical = parts[0].categorical
        counts = sum(part.moments.count for part in parts)
        moments = Moments(counts) if categorical else _sum(part.moments for part in parts)
        histogram = Histogram.merged([part.histogram for part in parts])
        return cls(dtypes, categorical, sum(part.pixels for part in parts), moments, histogram)

    @property
    def count(self) -> int:
        """Valid pixels."""
        return self.moments.count

    @property
    def valid_share(self) -> float:
        """Valid pixels of those seen, 0..1."""
        return self.count / self.pixels if self.pixels else math.nan

    @property
    def mean(self) -> float:
        """Mean of the valid pixels; NaN for classes, or where there are none."""
        return self.moments.mean

    @property
    def std(self) -> float:
        """Standard deviation of the valid pixels, that of the population (divided by their number)."""
        if self.categorical or not self.count:
            return math.nan
        return math.sqrt(self.moments.squares / self.count)

    @property
    def minimum(self) -> float:
        """Smallest valid pixel."""
        return self.moments.minimum

    @property
    def maximum(self) -> float:
        """Largest valid pixel."""
        return self.moments.maximum

    @property
    def classes(self) -> dict[int, int]:
        """Valid pixels of each value, for variables of classes."""
        if not self.categorical:
            return {}
        return dict(zip(self.histogram.keys.tolist(), self.histogram.counts.tolist(), strict=True))

    def percentile(self, percent: float) -> float:
        """Give a percentile of the valid pixels, between two values as numpy's default.

        Exact for whole numbers of 16 bits or less; for others each of the two values is known to 1/8192 of itself.
        """
        if self.categorical or not self.count:
            return math.nan
        place = percent / 100 * (self.count - 1)
        ranks = np.array([math.floor(place), math.ceil(place)])
        low, high = np.clip(self.histogram.at(ranks), self.minimum, self.maximum)
        return float(low + (high - low) * (place - math.floor(place)))


def _sum(parts: Iterable[Moments]) -> Moments:
    total = Moments()
    for part in parts:
        total = total + part
    return total
