"""A database whose writing nobody waits for: a thread writes what has come together, and goes when there is no more."""

from __future__ import annotations

import sqlite3
import warnings
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from threading import Condition, Thread
from time import time_ns

from geopipes.errors import CacheWarning
from geopipes.read.kept.database import Database

PENDING = 32 * 2**20
"""Bytes that wait to be written; whoever brings more waits, as a disk that is slower than the network would make the
memory grow."""

NOTED = 4096
"""Uses that are noted before they are written without anything else."""


class Store:
    """Bytes by name, kept on disk within a budget; any number of threads and processes.

    What the file cannot do, it does not: a disk that is full or a file that stays locked is said once, and no more is
    kept. Nothing of it is ever raised.

    Parameters
    ----------
    path : of the file
    budget : bytes of disk that it may take

    Raises
    ------
    sqlite3.Error, OSError
        if there can be no such file
    """

    def __init__(self, path: Path, budget: int) -> None:
        self._database = Database(path, budget)
        self._changed = Condition()
        self._pending: dict[bytes, bytes] = {}
        self._size = 0  # of what is pending
        self._used: dict[bytes, int] = {}
        self._thread: Thread | None = None
        self._off = False

    @property
    def budget(self) -> int:
        """Bytes of disk that the file may take."""
        return self._database.budget

    @budget.setter
    def budget(self, budget: int) -> None:
        self._database.budget = budget

    def get(self, *name: object) -> bytes | None:
        """Give what is kept under a name, None for nothing."""
        key = _key(name)
        with self._changed:
            data = self._pending.get(key)
        if data is None:
            try:
                data = self._database.get(key)
            except (sqlite3.Error, OSError):  # locked, or gone: as if nothing were kept
                return None
        if data is not None:
            self._note(key)
        return data

    def has(self, *name: object) -> bool:
        """Say whether something is kept under a name; it does not count as a use."""
        key = _key(name)
        with suppress(sqlite3.Error, OSError):  # locked, or gone: as if nothing were kept
            return key in self._pending or self._database.has(key)
        return False

    def put(self, data: bytes, *name: object) -> None:
        """Keep bytes under a name; other bytes that were kept under it go."""
        key = _key(name)
        with self._changed:
            self._changed.wait_for(lambda: self._off or not self._pending or self._size + len(data) <= PENDING)
            if self._off:
                return
            self._size += len(data) - len(self._pending.get(key, b""))
            self._pending[key] = data
            self._used[key] = _now()
            self._begin()

    def forget(self, *name: object) -> None:
        """Keep nothing under a name."""
        self.flush()
        with suppress(sqlite3.Error, OSError):
            self._database.forget(_key(name))

    def flush(self) -> None:
        """Wait until all is written."""
        with self._changed:
            if self._used:
                self._begin()
            self._changed.wait_for(lambda: self._thread is None)

    def close(self) -> None:
        """Write what is pending, and close the file; whoever asks it again opens it again."""
        self.flush()
        self._database.close()

    def _note(self, key: bytes) -> None:
        with self._changed:
            self._used[key] = _now()
            if len(self._used) >= NOTED:
                self._begin()

    def _begin(self) -> None:
        """Let a thread write, unless one does; with the lock held."""
        if self._thread is None and not self._off:
            self._thread = Thread(target=self._run, name="geopipes-kept", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is ending
                self._stop()

    def _run(self) -> None:
        """Write until there is nothing left to write."""
        try:
            while work := self._next():
                self._database.write(*work)
                self._done(work[0])
        except Exception as error:  # whatever it is, nobody may wait for this thread any more
            with self._changed:
                self._stop()
            text = f"{self._database.path} cannot be written ({error}); nothing more is kept there"
            warnings.warn(CacheWarning(text), stacklevel=2)

    def _next(self) -> tuple[dict[bytes, bytes], dict[bytes, int]] | None:
        """Give what is to be written; None, and no thread any more, where there is nothing."""
        with self._changed:
            puts, used = dict(self._pending), self._used
            self._used = {}
            if puts or used:
                return puts, used
            self._thread = None
            self._changed.notify_all()
            return None

    def _done(self, puts: dict[bytes, bytes]) -> None:
        with self._changed:
            for key, data in puts.items():
                if self._pending.get(key) is data:
                    self._size -= len(self._pending.pop(key))
            self._changed.notify_all()

    def _stop(self) -> None:
        """Keep no more; with the lock held."""
        self._off, self._thread, self._size = True, None, 0
        self._pending.clear()
        self._used.clear()
        self._changed.notify_all()


def _key(name: tuple[object, ...]) -> bytes:
    """Give what stands for a name in the file: no names of the user's files stand there."""
    return blake2b(repr(name).encode(), digest_size=16).digest()


def _now() -> int:
    return time_ns() // 1000
