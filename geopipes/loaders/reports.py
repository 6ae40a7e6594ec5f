"""Where the time goes: what a profile found, as a table and in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import fill
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from geopipes.errors import StepError
from geopipes.loaders.bounds import Bound, bound
from geopipes.loaders.ops import Op
from geopipes.loaders.profiles import Profile, Watched
from geopipes.loaders.tables import HEADS, drawn, lines
from geopipes.meters import Counts, Row

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 100
"""Characters of a line in words."""


class Report:
    """Where the time of a pipe's runs goes; printed, it is a table and the step that bounds the rest.

    A line for each step, in the order of the data. ``read`` has a line for each of its parts beneath it, which add up
    to its own. Reading threads work side by side: their seconds are added up. What is counted:

    - calls : chips for ``read`` and steps on chips, batches for ``batch``, elements delivered for your loop. A chip
      that a filter refused is no call of the steps after it
    - self : seconds in the step itself, [s]; of your loop, those from an element delivered to the next one asked for
    - on cpu : the share of them in which the thread computed. What is missing, it waited: for bytes, for a core, or
      for other threads to let go of Python's interpreter
    - waiting : seconds [s] in which reading threads waited for tiles that another one was decoding, batches for
      chips, and your loop for elements
    - queue : mean number of elements that were ready when the next one was asked for
    - read, decoded : megabytes read from files and those of the tiles made of them. GDAL does not tell what it reads
    - cached : share of the tiles needed that were there, decoded, when a chip needed them. Runs of other pipes fill
      the same cache

    Worker processes of a loader count too: their seconds are added up as those of threads are. Those of a torch
    DataLoader are not seen.
    """

    def __init__(self) -> None:
        self._counts: dict[Row, Counts] = {}
        self._decoded: set[int] = set()
        self._lock = Lock()

    @property
    def counts(self) -> dict[Row, Counts]:
        """What was counted so far: plain values, which travel to other processes."""
        with self._lock:
            return dict(sorted(self._counts.items()))

    def merge(self, counts: Mapping[Row, Counts]) -> None:
        """Add what was counted elsewhere: the `counts` of another report of the same pipe."""
        with self._lock:
            for row, more in counts.items():
                self._counts[row] = self._counts.get(row, Counts()) + more

    def drain(self) -> dict[Row, Counts]:
        """Give what was counted, and count from 0 again: for a worker process that tells now and then."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return counts

    def profile(self, source: Any, ops: Sequence[Op], *, elsewhere: bool = False) -> Profile:
        """Give what watches one run; ``elsewhere``, that part of it which a worker process does."""
        return Profile(source, ops, self.merge, self._decoded, elsewhere=elsewhere)

    def watched(self, elements: Iterator[Any], ready: Callable[[], int] | None = None) -> Watched:
        """Watch the loop that takes elements: see `geopipes.loaders.profiles.Watched`."""
        return Watched(elements, self.merge, ready)

    @property
    def bound(self) -> Bound | None:
        """The step that bounds the rest, and why; None while nothing has run."""
        return bound(self.counts)

    def table(self) -> pd.DataFrame:
        """Give the table, numbers as they are: seconds, megabytes of 10^6 bytes, shares; NaN where nobody knows."""
        import pandas as pd

        found = lines(self.counts)
        return pd.DataFrame([line[1:] for line in found], [line.name.strip() for line in found], [*HEADS])

    def __str__(self) -> str:
        bound = fill(str(self.bound or ""), WIDTH)
        return "\n\n".join(filter(None, (drawn(self.counts), bound)))

    __repr__ = __str__


class Profiled(Protocol):
    """What can be profiled: a pipe, or a loader."""

    _report: Report | None


@contextmanager
def profiling(profiled: Profiled) -> Iterator[Report]:
    """Report on the runs that begin in a ``with`` block, up to their end.

    Parameters
    ----------
    profiled : whose runs they are; those of pipes made of it are not

    Raises
    ------
    StepError
        inside another such block for the same one
    """
    if profiled._report is not None:
        raise StepError("profile(): its runs are profiled already; end that block first, or look at its report")
    profiled._report = report = Report()
    try:
        yield report
    finally:
        profiled._report = None
