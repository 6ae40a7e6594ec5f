"""Statistics as a value: merged, printed, kept in a file, compared with the chain they are used in."""

from __future__ import annotations

import base64
import json
import math
import os
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geopipes.errors import StatisticsError
from geopipes.fingerprints import Document, differences, digest
from geopipes.statistics.summaries import Histogram, Moments, Summary

if TYPE_CHECKING:
    from geopipes.normalizing import How

VERSION = 1
"""Of what stands in a file; another number is another meaning."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is known of the pixels of some chips: ``statistics["red"].mean``.

    Attributes
    ----------
    variables : what is known of each; of several inputs ``"s2/red"``, of several bands ``"embedding[A00]"``
    chips : that were seen
    percentiles : that are printed and saved, and between which ``normalize(how="percentiles")`` works
    chain : the steps that the chips had been through, as `geopipes.fingerprints.chain` gives them; None where unknown
    plans : fingerprints of the plans that were measured, sorted; several after a merge, none where they have none
    """

    variables: Mapping[str, Summary]
    chips: int
    percentiles: tuple[float, ...]
    chain: Document | None = None
    plans: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        """Say whether `save` would write the same."""
        if not isinstance(other, Statistics):
            return NotImplemented
        return self is other or digest(self._document()) == digest(other._document())

    def __hash__(self) -> int:
        return hash((*self.variables, self.chips, self.percentiles, self.plans))

    def __getitem__(self, name: str) -> Summary:
        """Give what is known of one variable."""
        if name not in self.variables:
            raise StatisticsError(f"these statistics know no {name!r}; they are of {list(self.variables)}")
        return self.variables[name]

    def scale(self, name: str, how: How) -> tuple[float, float]:
        """Give the centre and the width by which `normalize` brings a variable to a common scale.

        Raises
        ------
        StatisticsError
            if no pixel was valid, or there are no two percentiles
        """
        summary = self[name]
        if summary.count == 0:
            raise StatisticsError(f"normalize: no pixel of {name!r} was valid in the {self.chips} chips measured")
        if how == "standard":
            centre, width = summary.mean, summary.std
        else:
            if how == "percentiles" and len(set(self.percentiles)) < 2:
                raise StatisticsError(
                    f"normalize(how='percentiles'): the statistics have percentiles {list(self.percentiles)}; "
                    "make them with two or more, statistics(percentiles=(2, 98))"
                )
            ends = (0.0, 100.0) if how == "minmax" else (min(self.percentiles), max(self.percentiles))
            centre, high = (summary.percentile(end) for end in ends)
            width = high - centre
        return centre, width or 1.0

    def check(self, chain: Mapping[str, Any] | None) -> None:
        """Refuse to be used in another chain of steps; what is unknown is not compared.

        Parameters
        ----------
        chain : the steps before `normalize`, as `geopipes.fingerprints.chain` gives them. They must be equal, and so
            must be the dtypes of the variables that both know: labels may be joined on one side alone

        Raises
        ------
        StatisticsError
            says which steps differ
        """
        if self.chain is None or chain is None:
            return
        before, after = _comparable(self.chain, chain)
        if digest(before) != digest(after):
            raise StatisticsError(
                "normalize: the statistics are of another chain of steps (theirs -> this one):\n  "
                + "\n  ".join(differences(before, after))
                + "\nmake statistics after the same steps, or write .map(...) with normalize(...) to use them anyway"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Keep them in a JSON file, which appears whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as workplace:
            draft = Path(workplace) / path.name
            draft.write_text(json.dumps(self._document(), indent=1, allow_nan=False), encoding="utf-8")
            os.replace(draft, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Give what `save` kept: the same to the last bit.

        Raises
        ------
        StatisticsError
            if the file holds something else
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            if document["geopipes_statistics"] != VERSION:
                raise StatisticsError(
                    f"{os.fspath(path)!r} holds statistics of version {document['geopipes_statistics']}, this geopipes "
                    f"reads version {VERSION}: make them again"
                )
            variables = {name: _restored(part) for name, part in document["variables"].items()}
            percentiles, plans = tuple(document["percentiles"]), tuple(document["plans"])
            return cls(variables, document["chips"], percentiles, document["chain"], plans)
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            if isinstance(error, StatisticsError):
                raise
            raise StatisticsError(f"{os.fspath(path)!r} holds no statistics of geopipes: {error!r}") from error

    def _document(self) -> Document:
        return {
            "geopipes_statistics": VERSION,
            "chips": self.chips,
            "percentiles": list(self.percentiles),
            "plans": list(self.plans),
            "chain": self.chain,
            "variables": {name: _kept(summary, self.percentiles) for name, summary in self.variables.items()},
        }

    def __str__(self) -> str:
        lines = [f"Statistics of {self.chips} chips"]
        width = max((len(name) for name in self.variables), default=0)
        for name, summary in self.variables.items():
            words = [f"valid {summary.valid_share:.1%}"]
            if summary.categorical:
                words += [f"{value}: {count / summary.count:.2%}" for value, count in summary.classes.items()]
            elif summary.count:
                words += [f"mean {summary.mean:.6g}", f"std {summary.std:.6g}", f"min {summary.minimum:.6g}"]
                words += [f"{percent:g}% {summary.percentile(percent):.6g}" for percent in self.percentiles]
                words += [f"max {summary.maximum:.6g}"]
            lines.append(f"  {name:<{width}}  {', '.join(words)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Statistics of {self.chips} chips: {', '.join(self.variables)}>"


def merge(*several: Statistics) -> Statistics:
    """Merge statistics of different chips, such as those of several workers: the same however chips were dealt.

    Counts, extremes and percentiles are the same to the last bit, means and deviations to rounding.

    Raises
    ------
    StatisticsError
        if there are none, or they are of different chains, percentiles or classes
    """
    if not several:
        raise StatisticsError("merge(): give statistics to merge")
    first = several[0]
    for other in several[1:]:
        if other.percentiles != first.percentiles:
            raise StatisticsError(f"merge: percentiles {first.percentiles} and {other.percentiles} differ")
        if other.chain != first.chain:
            words = "\n  ".join(differences(first.chain or {}, other.chain or {}))
            raise StatisticsError(f"merge: the chips have been through different steps:\n  {words}")
    names = dict.fromkeys(name for part in several for name in part.variables)
    parts = {name: [part.variables[name] for part in several if name in part.variables] for name in names}
    variables = {name: Summary.merged(found, name) for name, found in parts.items()}
    plans = tuple(sorted({plan for part in several for plan in part.plans}))
    return Statistics(variables, sum(part.chips for part in several), first.percentiles, first.chain, plans)


def _comparable(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[Document, Document]:
    """Leave out the variables that one of two chains alone knows."""
    common = set(ours["variables"]) & set(theirs["variables"])
    first, second = (
        {**side, "variables": {name: side["variables"][name] for name in sorted(common)}} for side in (ours, theirs)
    )
    return first, second


def _kept(summary: Summary, percentiles: tuple[float, ...]) -> Document:
    """Write down one variable: what a person reads, and what is needed to go on."""
    histogram = summary.histogram
    bins = np.stack([histogram.keys, histogram.counts]).astype("<i8")
    document: Document = {"dtypes": list(summary.dtypes), "categorical": summary.categorical, "pixels": summary.pixels}
    document["valid_share"] = _finite(summary.valid_share)
    if summary.categorical:
        document["classes"] = {str(value): count for value, count in summary.classes.items()}
    else:
        document["std"] = _finite(summary.std)
        document["percentiles"] = {f"{p:g}": _finite(summary.percentile(p)) for p in percentiles}
    document["moments"] = {key: _finite(value) for key, value in asdict(summary.moments).items()}
    document["exact"] = histogram.exact
    document["bins"] = base64.b64encode(zlib.compress(bins.tobytes(), 9)).decode()
    return document


def _restored(document: Document) -> Summary:
    """Read what `_kept` wrote."""
    bins = np.frombuffer(zlib.decompress(base64.b64decode(document["bins"])), "<i8").reshape(2, -1).astype(np.int64)
    known: dict[str, Any] = {key: math.nan if v is None else v for key, v in document["moments"].items()}
    moments = Moments(**known)
    histogram = Histogram(bins[0], bins[1], document["exact"])
    return Summary(tuple(document["dtypes"]), document["categorical"], document["pixels"], moments, histogram)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
