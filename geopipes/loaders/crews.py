"""Worker processes, the orders they were given and what they made of them: see `geopipes.loaders.processes`."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import send_handle
from threading import Lock
from typing import TYPE_CHECKING, Any

from geopipes.errors import LoaderError
from geopipes.loaders.messages import Begin, Failure, Forget, Leave, Make, Map, Report
from geopipes.loaders.profiles import Add
from geopipes.loaders.shares import Share
from geopipes.loaders.workers import work
from geopipes.read.failures import Told
from geopipes.threads import waiting

if TYPE_CHECKING:
    from geopipes.loaders.slots import Layout, Slot, Slots

GLANCE = 0.1
"""Seconds after which whoever waits for reports looks whether its run was left."""


@dataclass(frozen=True, eq=False)
class _Worker:
    number: int
    process: SpawnProcess
    orders: Connection
    reports: Connection

    def send(self, message: bytes) -> None:
        with suppress(OSError):  # it has ended, which whoever waits for its reports is told
            self.orders.send_bytes(message)


@dataclass(eq=False)
class _Parts:
    """What there is of a batch.

    Attributes
    ----------
    slot, layout : that its rows are in
    waiting : workers that have not reported
    rows : what is not in the slot, pickled, by row
    failures : with the worker's number, by row
    left : whether nobody wants the batch any more
    """

    slot: Slot | None
    layout: Layout | None
    waiting: int
    rows: dict[int, bytes] = field(default_factory=dict)
    failures: dict[int, tuple[int, Failure]] = field(default_factory=dict)
    left: bool = False


class Crew:
    """Workers that run, for any number of runs on any thread.

    Parameters
    ----------
    plan : a pickled `geopipes.loaders.messages.Plan`
    shares : of the workers
    rows : in a batch
    spare : slots that are kept while nobody uses them

    Attributes
    ----------
    pid : of the process they work for; its forks leave them alone
    shown : whether a batch has shown what may lie in a slot
    failed : why they are no more
    """

    def __init__(self, plan: bytes, shares: Sequence[Share], rows: int, spare: int) -> None:
        self.pid, self.shown = os.getpid(), False
        self.failed: BaseException | None = None
        self._rows, self._spare, self._lock, self._runs = rows, spare, Lock(), count()
        self._begun: set[int] = set()
        self._leaving: deque[int] = deque()
        self._parts: dict[tuple[int, int], _Parts] = {}
        self._adds: dict[int, Add] = {}
        self._tells: dict[int, Told] = {}
        self._layout: Layout | None = None
        self._slots: Slots | None = None
        self._workers: list[_Worker] = []
        with self._held():
            for share in shares:
                self._workers.append(_worker(share))
            for worker in self._workers:  # all begin side by side
                worker.send(plan)

    def begin(self, epoch: int, group: int, add: Add | None = None, tell: Told | None = None) -> int:
        """Begin a run of an epoch at a batch; give its number. Who asks gets what workers count, and what failed."""
        with self._held():
            run = next(self._runs)
            self._begun.add(run)
            if add is not None:
                self._adds[run] = add
            if tell is not None:
                self._tells[run] = tell
            self._tell(Begin(run, epoch, group, add is not None))
            return run

    def order(self, run: int, start: int, stop: int) -> int:
        """Order batches to be made; give the first one that is not.

        Raises
        ------
        LoaderError
            if there is no memory for another slot
        """
        with self._held():
            for group in range(start, stop) if run in self._begun else ():  # else it was left meanwhile
                layout, slot = self._layout, self._slot()
                self._parts[run, group] = _Parts(slot, layout, len(self._workers))
                self._tell(Make(run, group, None if slot is None else slot.number, layout))
        return max(start, stop)

    def members(self, run: int, group: int) -> list[Any]:
        """Wait for a batch that was ordered; give its elements, samples as rows of shared memory.

        None of them where the run is left meanwhile.

        Raises
        ------
        LoaderError
            if a worker ends
        Exception
            what a step raised in a worker
        """
        with self._held(), waiting(partial(self.leave, run)):
            parts = self._parts[run, group]
            while parts.waiting:
                if run in self._leaving:
                    return []
                self._receive()
            del self._parts[run, group]
        if parts.failures:
            self._back(parts)
            number, failure = parts.failures[min(parts.failures)]
            raise failure.error(f"in worker process {number}")
        tensors = {}
        if parts.slot is not None and parts.layout is not None and self._slots is not None:
            tensors = parts.layout.tensors(self._slots.lent(parts.slot), len(parts.rows))
        members = [pickle.loads(parts.rows.pop(index)) for index in range(len(parts.rows))]
        if "torch" in sys.modules:
            from geopipes.loaders import slots

            if slots.placed(members, tensors):
                self._layout = (self._layout or slots.Layout(self._rows)).grown(members)
        self.shown = True
        return members

    def leave(self, run: int) -> None:
        """End a run; what workers are making of it is finished and dropped, the rest is not begun."""
        self._leaving.append(run)
        if self.failed is None and self.pid == os.getpid() and self._lock.acquire(blocking=False):
            try:
                self._let_leave()
            finally:
                self._lock.release()

    def end(self) -> None:
        """End the workers."""
        if self.pid == os.getpid():
            self.failed = self.failed or LoaderError("the loader was closed")
            for worker in [*self._workers]:
                with suppress(ValueError):  # it has ended meanwhile
                    worker.process.terminate()  # so that whoever waits for it, and holds the lock, is woken
            with self._lock:
                self._end()

    # With the lock held.

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the lock; an error ends the workers, as it may have cut a message in two."""
        if self.pid != os.getpid():
            raise LoaderError("this loop was begun in the process that was forked; begin another one here")
        with self._lock:
            if self.failed is not None:
                raise LoaderError(f"the worker processes of this run have ended: {self.failed}") from self.failed
            try:
                self._let_leave()
                yield
            except BaseException as error:
                self.failed = self.failed or error
                self._end()
                raise

    def _let_leave(self) -> None:
        while self._leaving:
            run = self._leaving.popleft()
            if run not in self._begun:  # left by two: whoever stopped waiting, and its end
                continue
            self._begun.remove(run)
            self._tell(Leave(run))
            self._adds.pop(run, None)
            self._tells.pop(run, None)
            for key, parts in [*self._parts.items()]:
                if key[0] == run:
                    parts.left = True
                    if not parts.waiting:
                        self._back(self._parts.pop(key))

    def _receive(self) -> None:
        """Wait for reports a while, and take them in; a worker that has ended is an error."""
        handles = [handle for worker in self._workers for handle in (worker.reports, worker.process.sentinel)]
        if not (ready := wait(handles, GLANCE)):
            return
        reporting = [worker for worker in self._workers if worker.reports in ready]
        for worker in reporting:
            try:
                report = pickle.loads(worker.reports.recv_bytes())
            except (EOFError, OSError):
                raise _ended(worker) from None
            self._take(report, worker.number)
        if not reporting:
            raise _ended(next(worker for worker in self._workers if worker.process.sentinel in ready))

    def _take(self, report: Report, number: int) -> None:
        key = report.run, report.group
        if report.counts and (add := self._adds.get(report.run)) is not None:
            add(report.counts)
        if report.unread and (tell := self._tells.get(report.run)) is not None:
            for unread in report.unread:
                tell(unread)
        parts = self._parts[key]
        parts.waiting -= 1
        parts.rows |= report.rows
        parts.failures |= {row: (number, failure) for row, failure in report.failures.items()}
        if parts.slot is not None:
            parts.slot.kept |= report.kept
        if parts.left and not parts.waiting:
            self._back(self._parts.pop(key))

    def _slot(self) -> Slot | None:
        """Give a slot that nobody uses, where batches have something to lie in it."""
        if self._layout is None or not self._layout.columns:
            return None
        if self._slots is None:
            from geopipes.loaders.slots import Slots

            self._slots = Slots(self._spare, self._map, lambda slot: self._tell(Forget(slot.number)))
        return self._slots.take(self._layout.size)

    def _map(self, slot: Slot, descriptor: int) -> None:
        self._tell(Map(slot.number, len(slot.memory)))
        for worker in self._workers:
            with suppress(OSError):  # as in `_Worker.send`
                send_handle(worker.orders, descriptor, worker.process.pid)

    def _back(self, parts: _Parts) -> None:
        if parts.slot is not None and self._slots is not None:
            self._slots.back(parts.slot)

    def _tell(self, order: Any) -> None:
        message = pickle.dumps(order, pickle.HIGHEST_PROTOCOL)
        for worker in self._workers:
            worker.send(message)

    def _end(self) -> None:
        """End the workers, and let go of all but what somebody holds."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()
            worker.process.close()
            worker.orders.close()
            worker.reports.close()
        self._parts.clear()
        if self._slots is not None:
            self._slots.close()


def _worker(share: Share) -> _Worker:
    """Start a worker."""
    context = get_context("spawn")
    orders, taken = context.Pipe()  # two ways, so a socket: descriptors go over it
    reports, given = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(share, taken, given), name=f"geopipes-{share.process}", daemon=True)
    with taken, given, _without_interrupts():  # this side of the pipes: so the other one sees when this one is no more
        process.start()
    return _Worker(share.process, process, orders, reports)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let what is started here never see Ctrl-C, which goes to all processes of a terminal: the parent ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which lets interrupts through once it has started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ended(worker: _Worker) -> LoaderError:
    """Say how a worker ended."""
    worker.process.join()
    code = worker.process.exitcode or 0
    if code >= 0:
        how = f"ended with exit code {code}; what it wrote to stderr says why"
        how += ". A script that uses processes must run under if __name__ == '__main__':"
    else:
        how = f"was ended by signal {-code} ({signal.Signals(-code).name})"
        if -code == signal.SIGKILL:
            how += ", as the kernel does where memory is short: use fewer processes, or smaller batches"
    return LoaderError(f"loader: worker process {worker.number} {how}")
