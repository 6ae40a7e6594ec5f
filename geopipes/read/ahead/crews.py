"""Threads that fetch for one run, and what they have fetched."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Condition, Event, Lock, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING

from geopipes.errors import GeopipesError
from geopipes.read import kept
from geopipes.read.ahead.memory import FETCHED, give_back, share_arenas
from geopipes.read.ahead.pieces import Call, Job, Key, Piece, Queue, State
from geopipes.read.failures import Asking, asking
from geopipes.threads import collecting

if TYPE_CHECKING:
    from geopipes.read.files.afar import FarFile
    from geopipes.read.kept import Store

Wanted = tuple["FarFile", int, int]
"""Bytes of a file: where they begin, and how many."""

PATIENCE = 0.3
"""Seconds that closing waits for requests that are on their way; one that is stalled ends by its own timeout."""


class Closed(GeopipesError):
    """A run ended while somebody waited for its bytes."""


class Fetching:
    """Bytes of files in stores, fetched by threads for whoever decodes them.

    Parameters
    ----------
    requests : in flight at most: as many threads
    budget : bytes held of what is fetched ahead; what somebody waits for is fetched whatever is held
    disk : where bytes are looked for before they are fetched, and kept once they were decoded; None for nowhere
    asked : how long to wait, and what is lost for good

    Attributes
    ----------
    asked : the same, without another try: what fails ahead is tried again by whoever needs it
    """

    def __init__(self, *, requests: int, budget: int, disk: Store | None = None, asked: Asking | None = None) -> None:
        asked = asked or asking.get()
        self.asked = replace(asked, policy=replace(asked.policy, retries=0))
        self._requests, self._disk = requests, disk
        self._fresh: dict[Key, memoryview] = {}  # fetched, and not decoded yet
        self._lock = Lock()
        self._work = Condition(self._lock)
        self._pieces: dict[Key, Piece] = {}
        self._queue = Queue(budget)
        self._calls: deque[Call] = deque()
        self._calling: dict[Hashable, Call] = {}  # until they have ended
        self._ended: set[Hashable] = set()  # until all are whose end somebody waits for
        self._threads: list[Thread] = []
        self._idle = self._held = 0
        self._closed = False
        self._sent = [0, 0]  # requests, bytes since they were last told
        self._come = 0  # bytes since free memory was given back

    @property
    def held(self) -> int:
        """Bytes that are on their way, or here and not taken."""
        return self._held

    @property
    def full(self) -> bool:
        """Whether there are as many calls as there may be requests."""
        return len(self._calling) >= self._requests

    def expect(self, wanted: Iterable[Wanted]) -> list[Wanted]:
        """Expect a use of each (file, offset, bytes), after all that is expected already; `begin` fetches them.

        Returns
        -------
        those that are expected
        """
        expected: list[Wanted] = []
        with self._lock:  # nobody takes bytes while it is looked which of them are needed
            for file, offset, count in wanted:
                piece = self._piece(file, offset, count)
                piece.uses += 1
                if piece.state is State.IDLE:
                    self._queue.add(piece, now=False)
                expected.append((file, offset, count))
        return expected

    def begin(self) -> None:
        """Begin to fetch what is expected: once some of it is known, as neighbours come in one request."""
        with self._lock:
            self._begin()

    def hurry(self, wanted: Iterable[Wanted]) -> None:
        """Fetch what is expected before all else, and again what is not here any more."""
        with self._lock:
            for file, offset, count in wanted:
                piece = self._piece(file, offset, count)
                if piece.state in (State.IDLE, State.QUEUED) and piece.error is None:
                    self._queue.add(piece, now=True)
            self._begin()

    def used(self, wanted: Iterable[Wanted]) -> None:
        """Count a use of each as come: what nobody expects any more is let go of."""
        with self._lock:
            for file, offset, _ in wanted:
                piece = self._pieces.get((file, offset))
                if piece is not None:
                    piece.uses -= 1
                    if piece.uses <= 0 and piece.settled is None:
                        self._drop(piece)
            self._begin()

    def take(self, file: FarFile, offset: int, count: int) -> memoryview:
        """Give bytes of a file, and let go of them; what is not here is fetched, and waited for.

        Raises
        ------
        StoreError
            they could not be had
        Closed
            the run has ended
        """
        while True:
            with self._lock:
                piece = self._piece(file, offset, count)
                if piece.state is State.HERE:
                    return self._taken(piece)
                if self._closed:
                    raise Closed("the run has ended")
                if piece.error is not None:
                    error, piece.error = piece.error, None
                    if piece.uses <= 0:
                        self._drop(piece)
                    raise error
                if piece.state in (State.IDLE, State.QUEUED):
                    self._queue.add(piece, now=True)
                    self._begin()
                settled = piece.settled = piece.settled or Event()
            settled.wait()

    def keep(self, file: FarFile, offset: int) -> None:
        """Keep bytes on disk that were taken, if they came from the store."""
        data = self._fresh.pop((file, offset), None)
        if data is not None and self._disk is not None:
            kept.keep_tile(self._disk, file.name, file.version, offset, bytes(data))

    def call(self, functions: Sequence[tuple[Hashable, Callable[[], object]]]) -> list[Event]:
        """Have functions called that wait for the network, each by its name once at a time; errors are not looked at.

        Who asks again, while some have not ended, does not have the others called again.

        Returns
        -------
        for each that has not ended, what is set when it has, or the run has
        """
        found: list[Call] = []
        with self._lock:
            for name, function in functions:
                if name in self._ended:
                    continue
                call = self._calling.get(name)
                if call is None:
                    call = self._calling[name] = Call(name, function, Event())
                    self._calls.append(call)
                found.append(call)
            if not found:
                self._ended.difference_update(name for name, _ in functions)
            if self._closed:
                self._end_calls()
            self._begin()
        return [call.done for call in found]

    @property
    def closed(self) -> bool:
        """Whether the run has ended."""
        return self._closed

    def tally(self) -> tuple[int, int]:
        """Give requests and bytes since this was last asked."""
        with self._lock:
            requests, size = self._sent
            self._sent = [0, 0]
        return requests, size

    def close(self) -> None:
        """Let nothing more be fetched, and wake whoever waits; threads end with the requests they are at."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for piece in self._pieces.values():
                piece.settle()
            self._pieces.clear()
            self._end_calls()
            self._work.notify_all()
        until = monotonic() + PATIENCE
        for thread in self._threads:
            if thread is not current_thread() and not collecting():
                thread.join(max(0.0, until - monotonic()))
        if self._come >= FETCHED // 16:  # for a window that was read alone it is not worth its time
            give_back()

    # With the lock held.

    def _end_calls(self) -> None:
        for call in self._calling.values():
            call.done.set()
        self._calling.clear()
        self._calls.clear()

    def _piece(self, file: FarFile, offset: int, count: int) -> Piece:
        piece = self._pieces.get((file, offset))
        if piece is None:
            piece = self._pieces[file, offset] = Piece(file, offset, offset + count)
        return piece

    def _begin(self) -> None:
        """Have a thread look for work, one that sleeps or a new one; that one then has the next one look."""
        if self._closed or not (self._calls or self._queue.count(self._held)):
            return
        if self._idle:
            self._work.notify()
        elif len(self._threads) < self._requests:
            share_arenas()
            thread = Thread(target=self._run, name=f"geopipes-fetch_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _taken(self, piece: Piece) -> memoryview:
        data = piece.data
        assert data is not None
        if self._disk is not None and not piece.kept:
            self._fresh[piece.file, piece.start] = data
        self._leave(piece)
        if piece.uses <= 0:
            self._pieces.pop((piece.file, piece.start), None)
        self._begin()
        return data

    def _leave(self, piece: Piece) -> None:
        """Let go of the bytes of a piece."""
        self._held -= 0 if piece.data is None else len(piece.data)
        piece.data, piece.state = None, State.IDLE

    def _drop(self, piece: Piece) -> None:
        """Let go of a piece that nobody expects; one on its way goes when it comes."""
        del self._pieces[piece.file, piece.start]
        if piece.state is State.QUEUED:
            self._queue.remove(piece)
        elif piece.state is State.HERE:
            self._leave(piece)

    # On the threads.

    def _run(self) -> None:
        asking.set(self.asked)
        while (task := self._next()) is not None:
            if isinstance(task, Call):
                with suppress(BaseException):  # whoever needs it meets it itself
                    task.function()
                with self._lock:
                    self._calling.pop(task.name, None)
                    self._ended.add(task.name)
                task.done.set()
            else:
                self._fetch(task)
            del task

    def _next(self) -> Call | Job | None:
        with self._lock:
            while not self._closed:
                task = self._calls.popleft() if self._calls else self._queue.take(self._held)
                if task is not None:
                    self._held += task.stop - task.start if isinstance(task, Job) else 0
                    self._begin()
                    return task
                self._idle += 1
                try:
                    self._work.wait()
                finally:
                    self._idle -= 1
        return None

    def _fetch(self, job: Job) -> None:
        error: BaseException | None = None
        requests = size = 0
        try:
            self._look_up(job)
            missing = [piece for piece in job.pieces if piece.data is None]
            if missing:
                start, stop = missing[0].start, max(piece.stop for piece in missing)
                requests = 1
                whole = job.file.fetch(start, stop)
                size = stop - start
                for piece in missing:
                    part = whole[piece.start - start : piece.stop - start]
                    # Copied, as the last of neighbours to be taken would hold the others'.
                    piece.data = part if len(missing) == 1 else memoryview(bytes(part))
        except BaseException as raised:
            error = raised
        with self._lock:
            self._sent[0] += requests
            self._sent[1] += size
            self._come += size
            full = self._come >= FETCHED
            self._come = 0 if full else self._come
            self._held -= job.stop - job.start
            for piece in job.pieces:
                self._arrived(piece, error)
        if full:
            give_back()

    def _look_up(self, job: Job) -> None:
        """Give pieces of a request what lies on disk."""
        if self._disk is None:
            return
        for piece in job.pieces:
            data = kept.tile(self._disk, job.file.name, job.file.version, piece.start, piece.stop - piece.start)
            piece.kept = data is not None
            piece.data = None if data is None else memoryview(data)

    def _arrived(self, piece: Piece, error: BaseException | None) -> None:
        self._held += 0 if piece.data is None else len(piece.data)
        if error is None and self._pieces.get((piece.file, piece.start)) is piece:
            piece.state, piece.error = State.HERE, None
        else:
            self._leave(piece)
            piece.error = error
        piece.settle()
