"""Batches made by worker processes: whole pipelines, each with its lanes of the order and its part of the budget.

Each worker is told the plan once, and then, for each batch, to make its rows of it in a slot of shared memory
(`geopipes.loaders.slots`); it reports what is not in the slot. An order is answered by one report, always: when all
workers have reported, nobody writes to the slot any more, and the batch is put together as in one process. Orders are
given for as many batches as may be ahead, and nobody waits for a slot: if none is free, another is made. What lies
where in a slot, the batches show: the first one, which comes all pickled, and later ones that differ from it.

Runs have numbers and share the workers. Whoever needs a batch takes reports, for all runs, one thread at a time, and
blocks on the pipes and on the ends of the processes. What the garbage collector may call (`Crew.leave`, `Slots.back`)
never waits for a lock.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from threading import Lock
from typing import Any
from weakref import finalize

from geopipes.chips.loading import Reading
from geopipes.errors import StepError
from geopipes.loaders.crews import Crew
from geopipes.loaders.messages import Plan
from geopipes.loaders.ops import Batch, Each, Element, Op
from geopipes.loaders.profiles import Add
from geopipes.loaders.runs import Feed
from geopipes.loaders.shares import Share
from geopipes.loaders.tallies import Tally
from geopipes.read.stores import told


class Processes:
    """Worker processes for one pipe: begun with the first batch that is asked for, kept until they are closed.

    An error in a step ends its run; a worker that dies, or a wait that is broken off, ends all runs and all workers,
    and the next run begins with new ones.

    Parameters
    ----------
    source : what a pipe runs on
    ops : all that happens to its elements; the workers do what comes before the first `Batch`, and that
    share : of this rank
    processes : at least 1; threads and cache of the source are shared out among them
    ahead : batches in the making beyond the one delivered
    pad : the positions of an epoch are filled up to a multiple of it

    Raises
    ------
    StepError
        if a step cannot travel to another process, or what is batched is not single elements
    """

    def __init__(
        self, source: Any, ops: Sequence[Op], *, share: Share, processes: int, ahead: int, pad: int = 1
    ) -> None:
        leading = next((i for i, op in enumerate(ops) if not isinstance(op, Each)), len(ops))
        batch = next(iter(ops[leading:]), None)
        if not isinstance(batch, Batch):
            raise StepError(
                f"loader(processes={processes}) hands over batches of what the steps make of each element, and after "
                f"them stands {batch or 'nothing'}; write .batch(n) there, and take(n) before read()"
            )
        self.share, self._batch, self._ranks, self._ahead = share, batch, share.ranks, ahead
        self._rows = batch.n // share.ranks
        self._plan = _pickled(
            Plan(
                _part(source, processes), [op for op in ops[:leading] if isinstance(op, Each)], self._rows, pad, told()
            )
        )
        self._shares = [replace(share, process=process, processes=processes) for process in range(processes)]
        self._starting = Lock()
        self._crew: Crew | None = None
        self._end: finalize[Any, Any] | None = None

    def feed(self, epoch: int, add: Add | None = None, tally: Tally | None = None) -> Feed:
        """Give what gives the batches of an epoch from a position on; to close that cancels what is in the making.

        Parameters
        ----------
        epoch : whose batches they are
        add : takes what the workers count of where their time goes; None where nobody asks
        tally : is told of reads that failed, and of holes; None for none
        """
        return partial(self._batches, epoch, add, tally)

    def close(self) -> None:
        """End the workers, and with them all runs."""
        if self._end is not None:
            self._end()

    def _batches(self, epoch: int, add: Add | None, tally: Tally | None, start: int) -> Iterator[Element]:
        crew, batch, ahead = self._started(), self._batch, self._ahead
        ordered = start // batch.n
        run = crew.begin(epoch, ordered, add, None if tally is None else tally.tell)
        try:
            for group in count(ordered):
                ordered = crew.order(run, ordered, group + (max(ahead, 1) if crew.shown else 1))
                members = crew.members(run, group)
                ordered = crew.order(run, ordered, group + 1 + ahead)
                if not members:
                    return
                if tally is not None:
                    tally.members(group, members)
                if not (batch.drop_last and len(members) < self._rows):
                    made = [batch.batch(group, members, self._ranks)]
                    members.clear()
                    yield group, made.pop()  # nothing here holds what was handed out
        finally:
            crew.leave(run)

    def _started(self) -> Crew:
        """Give workers that run, in this process."""
        with self._starting:
            if self._crew is None or self._crew.failed is not None or self._crew.pid != os.getpid():
                self.close()
                self._crew = Crew(self._plan, self._shares, self._rows, spare=self._ahead + 2)
                self._end = finalize(self, self._crew.end)
            return self._crew


def _part(source: Any, processes: int) -> Any:
    """Give one of several processes its part of the budget, and of the requests in flight."""
    if not isinstance(source, Reading):
        return source
    threads, requests = max(1, source.threads // processes), max(1, source.requests // processes)
    # They report what fails to this process, which has the ledger.
    return replace(source, threads=threads, cache=source.cache // processes, requests=requests, ledger=None)


def _pickled(plan: Plan) -> bytes:
    """Pickle what the workers are told, or say which step cannot travel."""
    for step in [*getattr(plan.source, "steps", ()), *(op.step for op in plan.each)]:
        step.check_pickles()
    try:
        return pickle.dumps(plan, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        kind = type(plan.source).__name__
        raise StepError(f"{kind} cannot travel to a worker process: {error}; load with processes=0") from error
