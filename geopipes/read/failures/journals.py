"""A file that grows by whole lines, from any number of processes of one machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from geopipes.errors import LedgerError

Line = dict[str, Any]

VERSION = 1
"""Of the lines; another number is another meaning."""

FIRST: Line = {"ledger": "geopipes", "version": VERSION}
"""The first line of a ledger."""


class Journal:
    """Lines of JSON in a file, appended one by one: each is there whole, whatever becomes of the process.

    Parameters
    ----------
    path : of the file, which is made with the first line

    Raises
    ------
    LedgerError
        if the file holds something else
    """

    def __init__(self, path: Path) -> None:
        self.path, self._offset = path, 0
        self.anew()
        if path.is_dir():
            raise LedgerError(f"ledger {path}: this is a folder; give the path of a file, 'failures.jsonl'")
        if path.exists() and path.stat().st_size:
            self._check()

    def anew(self) -> None:
        """Have a lock that nobody holds."""
        self._lock = Lock()

    def _check(self) -> None:
        with self.path.open("rb") as file:
            line = file.readline(4096)
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("ledger") != "geopipes":
            raise LedgerError(f"ledger {self.path}: the file holds no ledger; choose another path")
        if found.get("version") != VERSION:
            raise LedgerError(
                f"ledger {self.path}: it is of version {found.get('version')}, needed is {VERSION}; choose another path"
            )

    def append(self, line: Line) -> None:
        """Add a line; one call of the system, so that lines of several processes stay apart."""
        text = f"{json.dumps(line)}\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            try:
                os.write(descriptor, f"{self._before(descriptor)}{text}".encode())
            finally:
                os.close(descriptor)

    @staticmethod
    def _before(descriptor: int) -> str:
        """Give what must stand before the next line: the first one, or the end of a line that was cut off."""
        size = os.fstat(descriptor).st_size
        if size == 0:
            return f"{json.dumps(FIRST)}\n"
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        return "" if os.read(descriptor, 1) == b"\n" else "\n"

    def added(self) -> Iterator[Line]:
        """Give the lines that are new since the last call, of all processes; those cut off are passed over."""
        with self._lock:
            if not self.path.exists():
                return
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self._offset += whole
        for line in data[:whole].splitlines():
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and "ledger" not in found:
                yield found
