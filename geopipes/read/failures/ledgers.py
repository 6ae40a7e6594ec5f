"""The ledger: every read that failed, and what became of each chip."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, finalize

from geopipes.errors import LedgerError
from geopipes.read.failures.counts import Counts
from geopipes.read.failures.journals import Journal, Line
from geopipes.read.failures.records import Failure

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "time", "epoch", "chip", "item", "collection", "asset", "href", "window", "kind", "message", "attempts", "action",
)  # fmt: skip
"""Of the table."""

_ledgers: WeakSet[Ledger] = WeakSet()

SECONDS = 1.0
"""Between two lines of counts in a file: of a kill in between, no failure is lost."""


class Ledger:
    """Every read that failed while chips were read, and how many chips were delivered, filtered and skipped.

    ``read(on_error="skip", ledger=ledger)`` writes to it as the pipe runs. Printed, it is a sentence that adds up::

        9,812 delivered (57 of them masked) + 100 filtered + 88 skipped = 10,000 planned

    A ledger with a path is a file of JSON lines, appended as things happen, so that a kill loses no failure: begin
    another program with the same path, and it goes on. Worker processes of ``loader(processes=...)`` report to the
    process that began them; those of a torch DataLoader, and ranks on one machine, append to the same file. Without a
    path it is in the memory of one process, and what workers of a DataLoader find is lost. Ranks on several machines
    need a path each.

    Runs add up: a chip that is delivered twice, in two epochs or as a run began behind its last state, counts twice.
    What a DataLoader has taken ahead counts as delivered. Where ``on_error="raise"`` ended a run, neither the chip that
    ended it nor those not reached are in a count.

    Parameters
    ----------
    path : of the file, kept if it is there; None for none

    Raises
    ------
    LedgerError
        if the file holds something else
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._begin(None if path is None else Path(path))

    def _begin(self, path: Path | None) -> None:
        self._journal = None if path is None else Journal(path.absolute())
        self._rows: list[dict[str, Any]] = []
        self._failed: dict[int, None] = {}
        self._counts = Counts()
        self._waiting = _Waiting(self._journal)
        self._anew()
        finalize(self, self._waiting.flush)
        _ledgers.add(self)

    def _anew(self) -> None:
        """Have locks that nobody holds."""
        self._lock = self._waiting.lock = RLock()
        if self._journal is not None:
            self._journal.anew()

    @property
    def path(self) -> Path | None:
        """Where it is written to; None where nowhere."""
        return None if self._journal is None else self._journal.path

    @property
    def counts(self) -> Counts:
        """How many chips were delivered, filtered and skipped so far, in all runs that wrote to it."""
        self.flush()
        with self._lock:
            self._take_in()
            return self._counts

    @property
    def failed(self) -> pd.Index[int]:
        """The ids of the chips that failed when they were last read: ``plan.query(ledger.failed)`` runs these alone.

        Chips that were skipped or masked, and those that ended a run. One that was read whole since is no longer among
        them, so the same ledger serves the second run, and says what is still left.
        """
        import pandas as pd

        with self._lock:
            self._take_in()
            return pd.Index([*self._failed], dtype="int64", name="id")

    def table(self) -> pd.DataFrame:
        """Give all failures as a table, one for each row, in the order in which they were written.

        Returns
        -------
        with the columns ``time`` (UTC), ``epoch``, ``chip`` (its id), ``item``, ``collection``, ``asset``, ``href``
        (unsigned), ``window`` (rows and columns of the grid: first, one after the last, first, one after the last; None
        for recovered reads, which are those of tiles),
        ``kind`` ("auth", "transient", "missing", "corrupt"), ``message``, ``attempts`` and ``action``: "raised",
        "masked", "skipped", or "recovered" by another try
        """
        import pandas as pd

        with self._lock:
            self._take_in()
            table = pd.DataFrame(self._rows, columns=[*COLUMNS])
        return table.astype({"chip": "Int64"}).assign(time=pd.to_datetime(table["time"], format="ISO8601", utc=True))

    def __len__(self) -> int:
        """Count the failures, recovered ones too."""
        with self._lock:
            self._take_in()
            return len(self._rows)

    def __bool__(self) -> bool:
        return True

    def add(self, failure: Failure) -> None:
        """Take down a failure, on any thread."""
        self._write({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **_line(failure)})

    def count(self, counts: Counts, read: Iterable[int] = ()) -> None:
        """Add chips that came by, and the ids of those that had failed before and were read whole now."""
        if read := [*read]:
            self._write({"read": read})
        if self._journal is not None:
            self._waiting.add(counts)
            return
        with self._lock:
            self._counts += counts

    def flush(self) -> None:
        """Write what waits to be written: nothing but counts of the last second does."""
        self._waiting.flush()

    def _write(self, line: Line) -> None:
        if self._journal is not None:
            self._journal.append(line)
            return
        with self._lock:
            self._know(line)

    def _take_in(self) -> None:
        """Know what stands in the file by now."""
        if self._journal is not None:
            for line in self._journal.added():
                try:
                    self._know(line)
                except (KeyError, TypeError, ValueError) as error:
                    raise LedgerError(f"ledger {self.path}: the line {line} is none of a ledger") from error

    def _know(self, line: Line) -> None:
        if "kind" in line:
            window = line["window"] and tuple(line["window"])  # a list, as JSON has it
            self._rows.append({name: line.get(name) for name in COLUMNS} | {"window": window})
            self._counts += Counts(retries=line["attempts"] - 1)
            if line["chip"] is not None and line["action"] != "recovered":
                self._failed[line["chip"]] = None
        elif "read" in line:
            for chip in line["read"]:
                self._failed.pop(chip, None)
        else:
            self._counts += Counts(**line["counts"])

    def __getstate__(self) -> dict[str, Any]:
        """Travel as a path, or empty."""
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin(state["path"])

    def __str__(self) -> str:
        return f"{self.counts}; {len(self.failed):,} chips failed when they were last read"

    def __repr__(self) -> str:
        return "Ledger()" if self.path is None else f"Ledger({str(self.path)!r})"


class _Waiting:
    """Counts that wait to be written to a file: a line for each batch would be many."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal, self.lock, self._pid = journal, RLock(), os.getpid()
        self._counts, self._written = Counts(), monotonic()

    def add(self, counts: Counts) -> None:
        with self.lock:
            if self._pid != os.getpid():  # those of the parent are its own
                self._pid, self._counts = os.getpid(), Counts()
            self._counts += counts
            if monotonic() - self._written >= SECONDS:
                self.flush()

    def flush(self) -> None:
        with self.lock:
            if self._journal is not None and self._counts and self._pid == os.getpid():
                self._journal.append({"counts": asdict(self._counts)})
                self._counts, self._written = Counts(), monotonic()


def _line(failure: Failure) -> Line:
    return {field.name: getattr(failure, field.name) for field in fields(failure)}


def opened(ledger: Ledger | str | os.PathLike[str] | None) -> Ledger | None:
    """Give a ledger, or that of a path.

    Raises
    ------
    LedgerError
        for what is neither, and for a file that holds something else
    """
    if ledger is None or isinstance(ledger, Ledger):
        return ledger
    if isinstance(ledger, str | os.PathLike):
        return Ledger(ledger)
    raise LedgerError(f"read(ledger={ledger!r}): give a gp.Ledger(), or the path of its file, 'failures.jsonl'")


def _after_fork() -> None:
    """Leave the parent's locks to it: its threads may have held them just then."""
    for ledger in _ledgers:
        ledger._anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
