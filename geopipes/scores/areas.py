"""Areas and accuracies estimated from a stratified sample, with confidence intervals.

After Olofsson, Foody, Herold, Stehman, Woodcock and Wulder (2014), "Good practices for estimating area and assessing
accuracy of land change", Remote Sensing of Environment 148, 42-57: eq. 1 and 4 to 11.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from geopipes.errors import ScoreError

Floats = npt.NDArray[np.float64]
Unit = Literal["m2", "ha", "km2"]

SQUARE_METRES: dict[Unit, float] = {"m2": 1.0, "ha": 1e4, "km2": 1e6}
"""Of each unit."""

DESIGN = ("stratum", "probability", "stratum_pixels", "stratum_m2")
"""Columns of a sample that say how it was drawn."""

SLACK = 1e-6
"""By how much the numbers of a sample's design may miss whole ones, as a share: they have been through files."""


@dataclass(frozen=True, eq=False)
class AreaEstimates:
    """What a stratified sample says of a map.

    Attributes
    ----------
    classes : value and name of each class
    counts : (class, class) places: of the map's classes, the strata (rows), and of the reference (columns)
    mapped_m2 : (class,) what the map says; 0 for a class of the reference alone
    area_m2, area_error_m2 : (class,) the estimate of the true area, and its standard error
    users, users_error : (class,) the share of what is mapped that is right; NaN for a class that is not mapped
    producers, producers_error : (class,) the share of what is true that is mapped; NaN where nothing is
    accuracy, accuracy_error : of the whole map
    confidence : of the intervals, which are estimate +- `z` standard errors
    """

    classes: Mapping[int, str]
    counts: npt.NDArray[np.int64]
    mapped_m2: Floats
    area_m2: Floats
    area_error_m2: Floats
    users: Floats
    users_error: Floats
    producers: Floats
    producers_error: Floats
    accuracy: float
    accuracy_error: float
    confidence: float

    @property
    def z(self) -> float:
        """The standard errors on each side: 1.96 for 95 %."""
        return NormalDist().inv_cdf((1 + self.confidence) / 2)

    def table(self, unit: Unit = "ha") -> pd.DataFrame:
        """Give a line for each class; what is named ``..._interval`` is half of it: estimate +- interval.

        Parameters
        ----------
        unit : of areas: hectares, square metres or square kilometres
        """
        if unit not in SQUARE_METRES:
            raise ScoreError(f"table(unit={unit!r}): write one of {', '.join(SQUARE_METRES)}")
        size, z = SQUARE_METRES[unit], self.z
        columns = {
            "name": list(self.classes.values()),
            "places": self.counts.sum(axis=1),
            f"mapped_{unit}": self.mapped_m2 / size,
            f"area_{unit}": self.area_m2 / size,
            f"area_interval_{unit}": z * self.area_error_m2 / size,
            "users": self.users,
            "users_interval": z * self.users_error,
            "producers": self.producers,
            "producers_interval": z * self.producers_error,
        }
        return pd.DataFrame(columns, index=pd.Index(list(self.classes), name="class"))

    def __str__(self) -> str:
        table = self.table("ha")
        whole = f"{self.accuracy:.3f} ± {self.z * self.accuracy_error:.3f}"
        lines = [f"{self.counts.sum()} places; overall accuracy {whole}; intervals of {self.confidence:.0%}"]
        width = max(map(len, table.name))
        for _, row in table.iterrows():
            lines.append(
                f"  {row['name']:<{width}}  {row.area_ha:,.0f} ± {row.area_interval_ha:,.0f} ha "
                f"(mapped {row.mapped_ha:,.0f} ha), user's accuracy {row.users:.2f} ± {row.users_interval:.2f}, "
                f"producer's {row.producers:.2f} ± {row.producers_interval:.2f}"
            )
        return "\n".join(lines)


def area_estimates(
    sample: pd.DataFrame,
    *,
    reference: str = "reference",
    classes: Mapping[int, str] | None = None,
    confidence: float = 0.95,
) -> AreaEstimates:
    """Estimate the area of each class, and the accuracy of a map, from a stratified sample of its pixels.

    Parameters
    ----------
    sample : what `stratified_sample` drew, with a column more: the class that was found at each place
    reference : that column
    classes : names, of the map's classes and those of the reference; None for the sample's own ``name``, or the values
    confidence : of the intervals, 0..1

    Raises
    ------
    ScoreError
        for a sample that was not drawn at random with known probabilities, or that is not whole: nothing can be said of
        the error of an estimate then. And for fewer than two places in a stratum
    """
    strata = _design(sample, reference)
    found = sample[reference].astype(np.int64)
    values = sorted({*strata.index.tolist(), *found.tolist()})
    counts = pd.crosstab(sample["stratum"], found).reindex(index=values, columns=values, fill_value=0).to_numpy()
    areas = strata["stratum_m2"].reindex(values, fill_value=0.0).to_numpy()
    if classes is None and "name" in sample:
        classes = dict(zip(sample["stratum"].tolist(), sample["name"].astype(str).tolist(), strict=True))
    names = {value: (classes or {}).get(value, str(value)) for value in values}
    return estimates(counts, areas, classes=names, confidence=confidence)


def estimates(
    counts: npt.ArrayLike,
    areas_m2: npt.ArrayLike,
    *,
    classes: Mapping[int, str] | Collection[int] | None = None,
    confidence: float = 0.95,
) -> AreaEstimates:
    """Estimate areas and accuracies from an error matrix of a stratified random sample.

    Parameters
    ----------
    counts : (class, class) places: of the map's classes, the strata (rows), and of the reference (columns)
    areas_m2 : (class,) of the map's classes, 0 for those of the reference alone
    classes : values and names; None for 1, 2, ...
    confidence : of the intervals, 0..1

    Notes
    -----
    Whoever calls this states that places were drawn at random within the classes of the map; `area_estimates` checks
    it.

    Raises
    ------
    ScoreError
        for shapes that do not fit, and fewer than two places in a stratum
    """
    n, mapped = np.array(counts, float), np.array(areas_m2, float)
    size = len(mapped)
    if n.shape != (size, size) or (n < 0).any() or not mapped.sum() > 0 or not 0 < confidence < 1:
        raise ScoreError(
            f"estimates: counts are {n.shape}, areas {mapped.shape}, confidence {confidence}; needed are a square "
            "matrix of counts, an area above 0 for each of its rows that is a stratum, and a confidence as 0.95"
        )
    named = dict(classes) if isinstance(classes, Mapping) else {v: str(v) for v in classes or range(1, size + 1)}
    drawn, strata = n.sum(axis=1), mapped > 0
    if (drawn[strata] < 2).any() or drawn[~strata].any():
        raise ScoreError(
            f"estimates: the strata have {drawn.astype(int).tolist()} places and {mapped.tolist()} m2; needed are two "
            "or more places in each stratum, since of one no error can be told"
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = mapped / mapped.sum()
        share = np.where(strata[:, None], n / drawn[:, None], 0.0)  # of the reference's classes, in each stratum
        spread = np.where(strata[:, None], share * (1 - share) / (drawn[:, None] - 1), 0.0)
        users = np.where(strata, np.diag(share), np.nan)
        true = weight @ share  # eq. 9
        right = weight * np.diag(share)
        producers = right / true
        elsewhere = (weight[:, None] ** 2 * spread).sum(axis=0) - weight**2 * np.diag(spread)
        own = weight**2 * (1 - producers) ** 2 * np.diag(spread)
        producers_error = np.sqrt(own + producers**2 * elsewhere) / true  # eq. 7
    return AreaEstimates(
        classes=named,
        counts=n.astype(np.int64),
        mapped_m2=mapped,
        area_m2=mapped.sum() * true,
        area_error_m2=mapped.sum() * np.sqrt((weight[:, None] ** 2 * spread).sum(axis=0)),  # eq. 10 and 11
        users=users,
        users_error=np.where(strata, np.sqrt(np.diag(spread)), np.nan),  # eq. 6
        producers=producers,
        producers_error=producers_error,
        accuracy=float(right.sum()),
        accuracy_error=float(np.sqrt((weight**2 * np.diag(spread)).sum())),  # eq. 5
        confidence=confidence,
    )


def _design(sample: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Give the strata of a sample, after checking that it is one that was drawn.

    Returns
    -------
    DataFrame indexed by stratum: ``probability``, ``stratum_pixels``, ``stratum_m2``, ``places``
    """
    needed = "needed is a probability sample, as stratified_sample() draws it"
    if missing := [name for name in DESIGN if name not in sample]:
        raise ScoreError(
            f"area_estimates: the sample has no column {', '.join(map(repr, missing))}, so it is not known how its "
            f"places were chosen, and no interval can be given; {needed}"
        )
    if reference not in sample:
        raise ScoreError(
            f"area_estimates(reference={reference!r}): the sample has no such column; add one with the classes found "
            "at its places"
        )
    if sample[reference].isna().any():
        absent = int(sample[reference].isna().sum())
        raise ScoreError(
            f"area_estimates: {absent} of {len(sample)} places have no {reference!r}; what could not be seen "
            "is not missing at random: look these places up, or state what they are"
        )
    groups = sample.groupby("stratum")
    if (groups[list(DESIGN[1:])].nunique(dropna=False) != 1).any(axis=None) or sample[list(DESIGN)].isna().any(
        axis=None
    ):
        raise ScoreError(f"area_estimates: places of one stratum differ in their probabilities or strata; {needed}")
    strata = groups[list(DESIGN[1:])].first().assign(places=groups.size())
    expected = strata.probability * strata.stratum_pixels
    if not np.allclose(expected, strata.places, rtol=SLACK):
        raise ScoreError(
            f"area_estimates: the strata have {strata.places.to_dict()} places, and {expected.round(2).to_dict()} were "
            f"drawn; some are left out or added, and the probabilities no longer hold; {needed}"
        )
    return strata
