"""What was measured, and the lines that are made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Results = Mapping[str, Sequence[dict[str, Any]]]
"""What every repeat of a measurement gave, by its key."""


@dataclass(frozen=True)
class Bar:
    """A line of the table.

    Attributes
    ----------
    row : the part of the run that it belongs to
    what : in words
    got : a number; None where it could not be measured
    asked : "<= 1.05" or ">= 6"; empty for what is reported only
    note : more figures, or the reason why there is none
    """

    row: str
    what: str
    got: float | None
    asked: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the number is what was asked for; None where there is neither."""
        if not self.asked or self.got is None:
            return None
        sign, number = self.asked.split()
        return self.got <= float(number) if sign == "<=" else self.got >= float(number)


Missing = Mapping[str, str]
"""Why a measurement was left out, by its key."""


@dataclass(frozen=True)
class Found:
    """The results, and medians of them."""

    results: Results
    missing: Missing
    threads: int

    def has(self, key: str) -> bool:
        """Say whether a measurement was asked for."""
        return key in self.results or key in self.missing

    def keys(self, row: str) -> list[str]:
        """Give the measurements of a row that has any number of them."""
        return [key for key in {**self.results, **self.missing} if key.split()[0] == row]

    def value(self, key: str, *fields: str) -> float | None:
        """Give the median of a field, or of a sum of fields."""
        good = [one for one in self.results.get(key, ()) if "failed" not in one]
        return median(sum(one[name] for name in fields) for one in good) if good else None

    def chip(self, key: str, *fields: str) -> float | None:
        """Give ms for a chip."""
        good = [one for one in self.results.get(key, ()) if "failed" not in one]
        times = [1e3 * sum(one[name] for name in fields or ("seconds",)) / one["chips"] for one in good]
        return median(times) if times else None

    def why(self, *keys: str) -> str:
        """Say why a measurement gave nothing."""
        for key in keys:
            if key in self.missing:
                return self.missing[key]
            failed = [one["failed"] for one in self.results.get(key, ()) if "failed" in one]
            if failed:
                return f"{key} failed: {failed[0]}"
        return ""

    def ours(self, name: str, order: str, threads: int | None = None) -> str:
        """Give the key of a run of ours."""
        return f"geopipes {name} {order} {threads or self.threads}"

    def floor(self, name: str, threads: int | None = None) -> str:
        """Give the key of a job's floors."""
        return f"floor {name} {threads or self.threads}"


def ratio(above: float | None, below: float | None) -> float | None:
    """Divide what was measured; None where something was not."""
    return None if above is None or not below else above / below


def ms(*values: tuple[str, float | None]) -> str:
    """Write named values, those that were measured."""
    return ", ".join(f"{name} {value:.3g} ms" for name, value in values if value is not None)
