"""Scores of a map, over all and by region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from geopipes.errors import ScoreError
from geopipes.scores.confusions import Confusion
from geopipes.scores.regressions import Regression

Part = Confusion | Regression


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores over all and by region: a value that can be added to others, pickled and printed.

    ``+`` adds those of other chips: of several ranks, workers or maps.

    Attributes
    ----------
    whole : over all regions
    regions : by name, where they were asked for
    by : what regions are named by; None where none were asked for
    """

    whole: Part
    regions: Mapping[str, Part]
    by: str | None = None

    def __add__(self, other: Scores | int) -> Scores:
        if other == 0:
            return self  # what sum() begins with
        if not isinstance(other, Scores):
            return NotImplemented
        if type(self.whole) is not type(other.whole) or self.by != other.by:
            raise ScoreError(
                f"scores of another kind cannot be added: {type(self.whole).__name__} by {self.by!r} and "
                f"{type(other.whole).__name__} by {other.by!r}"
            )
        regions = dict(self.regions)
        for name, part in other.regions.items():
            regions[name] = regions[name] + part if name in regions else part  # type: ignore[operator]
        return Scores(self.whole + other.whole, regions, self.by)  # type: ignore[operator]

    __radd__ = __add__

    def __getitem__(self, region: str) -> Part:
        """Give the scores of a region."""
        try:
            return self.regions[str(region)]
        except KeyError:
            raise ScoreError(f"scores[{region!r}]: there are the regions {sorted(self.regions)}") from None

    def table(self) -> pd.DataFrame:
        """Give a line for each class (or one, of a quantity), for each region where there are any."""
        if self.by is None:
            return self.whole.table()
        tables = {name: self.regions[name].table() for name in sorted(self.regions)}
        table = pd.concat(tables, names=[self.by])
        return table if isinstance(self.whole, Confusion) else table.droplevel(1)

    def summary(self) -> pd.DataFrame:
        """Give a line for each region, and one for all, of what is said over all classes."""
        parts = {**{name: self.regions[name] for name in sorted(self.regions)}, "all": self.whole}
        rows = [part.summary() for part in parts.values()]
        return pd.DataFrame(rows, index=pd.Index(list(parts), name=self.by or "region"))

    def __str__(self) -> str:
        text = str(self.whole)
        if self.by is not None:
            text += f"\n{self.summary().to_string(float_format='{:.3f}'.format)}"
        return text

    def __repr__(self) -> str:
        return f"<Scores of {self.whole.summary()['count']:,.0f} pixels>"
