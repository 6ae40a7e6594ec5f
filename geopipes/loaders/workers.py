"""What runs in a worker process: rows of batches, for as many runs as there are, on threads.

The main thread takes orders and sends nothing: no order ever waits for a report to be taken, and when the pipe closes,
it sees it at once. Threads make rows in the order in which they were asked for. Each order is answered by one report,
though the run was left meanwhile: so the other side knows when nobody writes to a slot any more.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property, partial
from math import prod
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from threading import Lock, Thread
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
import numpy.typing as npt

from geopipes.errors import StepError
from geopipes.loaders import reports
from geopipes.loaders.messages import Begin, Failure, Forget, Leave, Make, Map, Plan, Report
from geopipes.loaders.ops import Each
from geopipes.loaders.runs import has_windows, keyed, ordered, read, straight
from geopipes.loaders.shares import Share
from geopipes.meters import CHIPS, Counts, Row
from geopipes.read.failures import Failure as Unread
from geopipes.read.stores import tell

if TYPE_CHECKING:
    import torch


class _EndOfSource(Exception):
    """There is no element at a position."""


def work(share: Share, orders: Connection, reports: Connection) -> None:
    """Take the plan, then orders, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a worker ends without a last word
    try:
        worker = Worker(orders.recv_bytes(), share, reports)
        while True:
            order = pickle.loads(orders.recv_bytes())
            match order:
                case Begin():
                    worker.begin(order)
                case Make():
                    worker.make(order)
                case Leave():
                    worker.leave(order)
                case Map():
                    descriptor = recv_handle(orders)
                    worker.slots[order.slot] = mmap.mmap(descriptor, order.size)
                    os.close(descriptor)
                case Forget():
                    del worker.slots[order.slot]
    except (EOFError, ConnectionError):
        os._exit(0)  # nobody waits for what the threads are at


class Worker:
    """The runs of one worker.

    Parameters
    ----------
    pickled : a `Plan`; where it cannot be had, each run fails of it
    share : of the positions
    reports : where they go
    """

    def __init__(self, pickled: bytes, share: Share, reports: Connection) -> None:
        self._pickled, self._share, self._reports = pickled, share, reports
        self._lock, self._sending = Lock(), Lock()
        self._runs: dict[int, Running | Failure] = {}
        self.slots: dict[int, mmap.mmap] = {}

    @cached_property
    def _plan(self) -> Plan:
        plan: Plan = pickle.loads(self._pickled)
        tell(plan.storage)
        if "torch" in sys.modules:
            import torch

            torch.set_num_threads(1)  # as DataLoader does: there are workers for all cores
        return plan

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        source = self._plan.source
        return ThreadPoolExecutor(source.threads if hasattr(source, "loading") else 1, "geopipes-read")

    def begin(self, order: Begin) -> None:
        """Begin a run; where that fails, all its batches do."""
        try:
            self._runs[order.run] = Running(self._plan, self._share, order)
        except BaseException as error:
            self._runs[order.run] = Failure.of(error)

    def make(self, order: Make) -> None:
        """Have the rows of a batch made."""
        run = self._runs[order.run]
        if isinstance(run, Failure):
            Thread(target=self._send, args=(Report(order.run, order.group, failures={-1: run}),)).start()
            return
        rows = run.rows(order.group)
        making = Making(order, None if order.slot is None else self.slots[order.slot], left=len(rows) + 1)
        run.making[order.group] = making
        for index, position in rows:
            self._pool.submit(self._row, run, making, index, position)
        self._pool.submit(self._made, run, making)  # of no rows, too, there is a report

    def leave(self, order: Leave) -> None:
        """End a run; its last report closes it."""
        run = self._runs.pop(order.run)
        if isinstance(run, Running):
            with self._lock:
                run.left, over = True, not run.making
            if over:
                run.close()

    def _row(self, run: Running, making: Making, index: int, position: int) -> None:
        try:
            if not run.left:
                making.put(index, run.read(position), position)
        except _EndOfSource:
            pass
        except BaseException as error:
            making.report.failures[index] = Failure.of(error)
        self._made(run, making)

    def _made(self, run: Running, making: Making) -> None:
        """Count what is made of a batch, and report the whole."""
        with self._lock:
            making.left -= 1
            if making.left:
                return
            counts, unread = run.counts(), run.unread()
        self._send(making.finished(counts, unread))
        with self._lock:
            del run.making[making.report.group]
            over = run.left and not run.making
        if over:
            run.close()

    def _send(self, report: Report) -> None:
        message = pickle.dumps(report, pickle.HIGHEST_PROTOCOL)
        with self._sending:
            self._reports.send_bytes(message)


class Running:
    """A run in this worker: the source in its order, and the batches in the making.

    It is the `geopipes.tensors.rows.Rows` of what is read straight into tensors.
    """

    def __init__(self, plan: Plan, share: Share, order: Begin) -> None:
        source = ordered(plan.source, order.epoch, pad=plan.pad)
        each = [op for op in keyed(plan.each, source) if isinstance(op, Each)]
        self._share, self._size, self._stop = share, plan.rows, sys.maxsize
        self.making: dict[int, Making] = {}
        self.left = False
        self._unread: deque[Unread] = deque()
        self._opened = ExitStack()
        self.close = self._opened.close
        self._report = reports.Report() if order.watched else None
        self._threads, self._counted = getattr(source, "threads", 0), perf_counter()
        if not hasattr(source, "loading"):
            self.read = self._watched(partial(read, _one_by_one(source), each), source, each)
            return
        self._stop = len(source)
        positions = share.positions(order.group * plan.rows * share.ranks, self._stop)
        sampler, works = straight(source, each, lambda: self)
        tell = [self._unread.append] if has_windows(source) else []
        load = self._opened.enter_context(source.loading(positions, sampler, *tell))
        first = len(each) - len(works) if sampler else 0
        self.read = self._watched(partial(read, load, works), source, each, straight=first)

    def _watched(
        self, work: Callable[[int], Any], source: Any, each: Sequence[Each], *, straight: int = 0
    ) -> Callable[[int], Any]:
        if self._report is None:
            return work
        return self._report.profile(source, each, elsewhere=True).reading(work, straight=straight)

    def counts(self) -> Mapping[Row, Counts]:
        """Give what was counted since the last time, and how long threads were there; nothing where nobody asks."""
        if self._report is None:
            return {}
        before, self._counted = self._counted, perf_counter()
        wall = self._counted - before
        return self._report.drain() | {CHIPS: Counts(wall=wall, capacity=wall * self._threads)}

    def unread(self) -> Sequence[Unread]:
        """Give the reads that failed since the last time."""
        return [self._unread.popleft() for _ in range(len(self._unread))]

    def rows(self, group: int) -> list[tuple[int, int]]:
        """Give this worker's rows of a batch, and the position of each."""
        size = self._size * self._share.ranks
        positions = self._share.positions(group * size, min((group + 1) * size, self._stop))
        return [(self._place(position)[1], position) for position in positions]

    def row(
        self, position: int, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[torch.Tensor, npt.NDArray[Any]]:
        """Give the place of a sample's tensor: see `geopipes.tensors.rows.Rows`."""
        group, index = self._place(position)
        return self.making[group].row(index, name, shape, dtype)

    def _place(self, position: int) -> tuple[int, int]:
        return divmod(position // self._share.ranks, self._size)


class Making:
    """A batch in the making: what is written to the slot, and what is not.

    Parameters
    ----------
    order : to make it
    memory : the slot's
    left : to be done
    """

    def __init__(self, order: Make, memory: mmap.mmap | None, left: int) -> None:
        self.report, self.left = Report(order.run, order.group), left
        self._tensors: dict[str, torch.Tensor] = {}
        self._addresses = range(0)
        self._seen: Callable[[], Any] = lambda: None
        if memory is not None and order.layout is not None:
            pixels = np.frombuffer(memory, np.uint8)
            self._tensors = order.layout.tensors(pixels, order.layout.rows)
            self._addresses = range(pixels.ctypes.data, pixels.ctypes.data + len(pixels))
            self._seen = ref(pixels)

    def row(
        self, index: int, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[torch.Tensor, npt.NDArray[Any]]:
        """Give a place in the slot, where it has one like this, or else another."""
        import torch

        other = torch.from_numpy(np.empty(0, dtype))
        batch = self._tensors.get(name, other)
        if batch.dtype == other.dtype and prod(batch.shape[1:]) == prod(shape) and len(batch):
            row = batch[index].view(shape)
        else:
            row = torch.from_numpy(np.empty(shape, dtype))
        return row, row.numpy()

    def put(self, index: int, element: Any, position: int) -> None:
        """Take an element into the batch."""
        try:
            if "torch" in sys.modules:
                from geopipes.loaders import slots

                rows = {name: tensor[index] for name, tensor in self._tensors.items()}
                self.report.rows[index] = slots.put(element, rows, self._addresses)
            else:
                self.report.rows[index] = pickle.dumps(element, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise StepError(
                f"element {position} ({type(element).__name__}) cannot travel from a worker process: {error}. Make it "
                "one that pickles in a step before batch(), or load with processes=0"
            ) from error

    def finished(self, counts: Mapping[Row, Counts], unread: Sequence[Unread]) -> Report:
        """Let go of the slot, and say what came of the batch, where the time went, and what could not be read."""
        self._tensors, self.report.counts, self.report.unread = {}, counts, unread
        self.report.kept = self._seen() is not None
        return self.report


def _one_by_one(source: Any) -> Callable[[int], Any]:
    """Give what goes through a source that has no positions, forwards; on one thread."""
    elements = enumerate(source)

    def load(position: int) -> Any:
        for at, element in elements:
            if at == position:
                return element
        raise _EndOfSource

    return load
