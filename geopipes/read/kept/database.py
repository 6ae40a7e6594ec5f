"""Bytes by key in one SQLite file, within a budget: what was not used for longest goes first.

Any number of processes may share the file: each change is one transaction, and a process that is killed in the middle
of one leaves the file as it was before. A file that is damaged is set aside, and a new one begun.
"""

from __future__ import annotations

import sqlite3
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import RLock
from time import monotonic, sleep
from typing import TypeVar
from zlib import crc32

from geopipes.errors import CacheWarning

T = TypeVar("T")

VERSION = 1
"""Of the tables below; a file of another version is left alone, as its number stands in its name."""

WHOSE = 0x67656F70
"""Says that a file is one of these ("geop")."""

TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL,
    crc INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS by_use ON kept (used, id);
CREATE TABLE IF NOT EXISTS stored (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS gone AFTER DELETE ON kept BEGIN DELETE FROM stored WHERE id = old.id; END;
PRAGMA application_id = {WHOSE};
PRAGMA user_version = {VERSION};
COMMIT;
"""
"""Bytes stand apart from when they were used: to note a use rewrites a few dozen bytes, not a tile."""

PAGE = 16384
"""Bytes of a page of the file. Tiles of 150 KB are written at 220 to 290 MB/s, and read at about 1 GB/s, with pages of
4 KB to 64 KB alike; these waste 8 KB a tile."""

JOURNAL = 16 * 2**20
"""Bytes of the journal beside the file, about, when nothing is being written."""

BUSY = 10.0
"""Seconds for which another process is waited for."""

SLACK, SMALLEST = 64 * PAGE, 64 * PAGE
"""Bytes by which a file may be larger than its budget, and that it has whatever its budget."""

STEP = 256
"""Tiles, and pages, that are removed in one transaction where a file is larger than that: others write in between."""

DAMAGES = {
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS,
}  # fmt: skip
"""What SQLite says of a file that is not what it wrote: an error of SQL is a table that is missing."""


class Database:
    """One file of bytes by key, for any number of threads.

    One connection reads and another writes, each under a lock: 8 or 32 threads read no faster, at 6,000 to 7,000 tiles
    of 150 KB a second, with a connection for each, and more files would be open.

    Parameters
    ----------
    path : of the file; its folder is made
    budget : bytes of disk that the file may take

    Raises
    ------
    sqlite3.Error, OSError
        if it can neither be opened nor be made
    """

    def __init__(self, path: Path, budget: int) -> None:
        self.path, self.budget = path, budget
        self._locks = {"read": RLock(), "write": RLock()}
        self._lock = RLock()  # guards what follows
        self._connections: dict[str, tuple[int, sqlite3.Connection]] = {}  # with the inode of the file each is to
        self._inode = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._safely("write", lambda connection: None)

    def get(self, key: bytes) -> bytes | None:
        """Give what is kept under a key; None for nothing, and where the bytes are no longer those that were kept."""
        row = self._safely("read", lambda connection: connection.execute(FIND, (key,)).fetchone())
        if row is None or not isinstance(row[1], bytes) or _check(key, row[1]) != row[0]:
            return None
        return row[1]

    def has(self, key: bytes) -> bool:
        """Say whether something is kept under a key, without reading it."""
        return self._safely("read", lambda connection: connection.execute(HAS, (key,)).fetchone()) is not None

    def write(self, puts: Mapping[bytes, bytes], used: Mapping[bytes, int]) -> None:
        """Keep bytes under keys, in one transaction, and note when others were used.

        Parameters
        ----------
        puts : bytes by key; what does not fit into the budget is left out
        used : by key, any numbers that grow with time
        """
        now = max(used.values(), default=0)

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(USED, ((at, key) for key, at in used.items()))
            for key, data in puts.items():
                connection.execute("DELETE FROM kept WHERE key = ?", (key,))
                if len(data) + SMALLEST <= self.budget and self._make_room(connection, len(data) + PAGE):
                    cursor = connection.execute(INSERT, (key, used.get(key, now), _check(key, data)))
                    connection.execute("INSERT INTO stored VALUES (?, ?)", (cursor.lastrowid, data))

        self._safely("write", lambda connection: _in_transaction(connection, write))
        while self._safely("write", lambda connection: _in_transaction(connection, self._shrink)):
            pass

    def forget(self, key: bytes) -> None:
        """Keep nothing under a key."""
        self._safely("write", lambda connection: connection.execute("DELETE FROM kept WHERE key = ?", (key,)))

    def close(self) -> None:
        """Close the file."""
        with self._locks["read"], self._locks["write"], self._lock:
            while self._connections:
                self._connections.popitem()[1][1].close()

    def _make_room(self, connection: sqlite3.Connection, size: int, most: int = sys.maxsize) -> bool:
        """Remove what was not used for longest, so many at most, until there is room; say whether there is."""
        while _taken(connection) + size > self.budget:
            if most == 0 or connection.execute(REMOVE).rowcount == 0:
                return False
            most -= 1
        return True

    def _shrink(self, connection: sqlite3.Connection) -> bool:
        """Take something off a file that is larger than its budget, as it was larger once; say whether it is still."""
        if _pages(connection) * PAGE <= self.budget + SLACK:
            return False
        self._make_room(connection, 0, STEP)
        connection.execute(f"PRAGMA incremental_vacuum({STEP})").fetchall()
        return _pages(connection) * PAGE > max(self.budget + SLACK, SMALLEST)

    # Connections.

    def _safely(self, kind: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work with a connection; where the file turns out to be damaged, with one to a new file."""
        with self._locks[kind]:
            try:
                return work(self._connection(kind))
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # one of this module's own has none
                if not DAMAGES & {code, code & 0xFF}:  # the first byte of a code is its kind
                    raise
                self._set_aside(kind, error)
                return work(self._connection(kind))

    def _connection(self, kind: str) -> sqlite3.Connection:
        with self._lock:
            number, connection = self._connections.get(kind, (0, None))
            if connection is not None and number == self._inode:
                return connection
        if connection is not None:
            connection.close()  # to a file that was set aside
        connection = _connected(self.path)
        with self._lock:
            self._inode = self.path.stat().st_ino
            self._connections[kind] = self._inode, connection
        return connection

    def _set_aside(self, kind: str, error: Exception) -> None:
        """Begin a new file, unless another thread or process has done so already."""
        aside = self.path.with_name(f"{self.path.name}.damaged")
        with self._lock:
            number, connection = self._connections.pop(kind, (0, None))
            with suppress(OSError):
                if number in (0, self.path.stat().st_ino):
                    for end in ("-wal", "-shm"):  # first: the new file must not take the journal for its own
                        Path(f"{self.path}{end}").unlink(missing_ok=True)
                    self.path.replace(aside)
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()
        text = f"{self.path} is damaged ({error}): it was moved to {aside.name}, and a new one begun"
        warnings.warn(CacheWarning(text), stacklevel=2)


USED = "UPDATE kept SET used = max(used, ?) WHERE key = ?"
FIND = "SELECT crc, data FROM kept JOIN stored USING (id) WHERE key = ?"
HAS = "SELECT 1 FROM kept WHERE key = ?"
INSERT = "INSERT INTO kept (key, used, crc) VALUES (?, ?, ?)"
REMOVE = "DELETE FROM kept WHERE id = (SELECT id FROM kept ORDER BY used, id LIMIT 1)"


def _connected(path: Path) -> sqlite3.Connection:
    """Open a file, and make its tables where they are missing."""
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        found = tuple(connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("user_version", "application_id"))
        if found not in ((0, 0), (VERSION, WHOSE)):
            raise sqlite3.DatabaseError("it holds something else")
        if found == (0, 0):
            connection.execute(f"PRAGMA page_size = {PAGE}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _journaled(connection)
        if found == (0, 0):
            connection.executescript(TABLES)
        connection.execute("PRAGMA synchronous = NORMAL")  # a loss of power may cost what was kept last, no more
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL}")
    except BaseException:
        connection.close()
        raise
    return connection


def _journaled(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log: SQLite does not wait for another process that is doing so just now."""
    until = monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > until:
                raise
            sleep(0.01)


def _in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return done


def _check(key: bytes, data: bytes) -> int:
    """Give what tells whether these are the bytes that were kept under this key."""
    return crc32(data, crc32(key))


def _taken(connection: sqlite3.Connection) -> int:
    """Give the bytes of a file's pages that hold something."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return (_pages(connection) - int(free)) * PAGE


def _pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA page_count").fetchone()[0])
