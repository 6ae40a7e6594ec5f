"""Where headers and tiles are kept: headers always, in the user's cache; tiles where a run says so."""

from __future__ import annotations

import atexit
import os
import sqlite3
import sys
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from geopipes.errors import CacheWarning, StepError
from geopipes.read.kept.database import VERSION
from geopipes.read.kept.store import Store
from geopipes.threads import collecting

VARIABLE = "GEOPIPES_CACHE"
"""The environment's variable that says where headers are kept; empty, they are not."""

HEADS = 2**30
"""Bytes of disk for headers: 40,000 files or so."""

_lock = Lock()
_heads: dict[Path, Store | None] = {}
_tiles: dict[Path, tuple[Store, list[object]]] = {}  # with the runs that use each
_ended: deque[tuple[Path, object]] = deque()  # runs that were left while garbage was collected
_left: list[object] = []  # a parent's, in a process that was forked: not to be touched, nor closed


def folder() -> Path | None:
    """Give the folder in which headers are kept, None for none."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named).expanduser() if named else None
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else None)
    return Path(base or "~/.cache").expanduser() / "geopipes"


def headers() -> Store | None:
    """Give the store of headers, None where there is none."""
    place = folder()
    if place is None:
        return None
    path = place / f"headers-{VERSION}.sqlite"
    with _lock:
        if path not in _heads:
            _heads[path] = _tried(path)
        return _heads[path]


@contextmanager
def tiles(disk: str | os.PathLike[str], budget: int) -> Iterator[Store]:
    """Keep tiles in a folder while a run lasts.

    Parameters
    ----------
    disk : the folder
    budget : bytes of disk

    Raises
    ------
    StepError
        if nothing can be kept there
    """
    path, run = Path(disk).expanduser().absolute() / f"tiles-{VERSION}.sqlite", object()
    store = _begun(path, budget, run)
    try:
        yield store
    finally:
        _ended.append((path, run))
        if not collecting():  # who collects garbage may hold any lock
            _end()


@contextmanager
def keeping(disk: str | os.PathLike[str] | None, budget: int) -> Iterator[Store | None]:
    """Keep headers while a run lasts, and tiles where it says so; at its end all is written.

    Parameters
    ----------
    disk, budget : as `tiles` takes them; None to keep no tiles
    """
    try:
        if disk is None:
            yield None
        else:
            with tiles(disk, budget) as store:
                yield store
    finally:
        if not collecting():
            flush()


def flush() -> None:
    """Wait until all headers that are kept are written."""
    for store in [*_heads.values()]:
        if store is not None:
            store.flush()


def _begun(path: Path, budget: int, run: object) -> Store:
    _end()
    with _lock:
        if path not in _tiles:
            try:
                _tiles[path] = Store(path, budget), []
            except (sqlite3.Error, OSError) as error:
                raise StepError(f"read(disk={str(path.parent)!r}): nothing can be kept there: {error}") from error
        store, runs = _tiles[path]
        store.budget = budget
        runs.append(run)
        return store


def _end() -> None:
    """Close what no run uses any more."""
    with _lock:
        while _ended:
            path, run = _ended.popleft()
            store, runs = _tiles[path]
            runs.remove(run)
            if not runs:
                del _tiles[path]
                store.close()


def _end_all() -> None:
    """Write all that is pending before the interpreter ends."""
    _end()
    flush()
    for store, _ in [*_tiles.values()]:
        store.flush()


def _leave() -> None:
    """Begin anew in a forked process: the parent's files are open here too, and SQLite's locks are not."""
    global _lock
    _lock = Lock()
    _left.extend((*_heads.values(), *_tiles.values()))
    _heads.clear()
    _tiles.clear()
    _ended.clear()


def _tried(path: Path) -> Store | None:
    """Open the store of headers; a run that cannot have it goes on without."""
    try:
        return Store(path, HEADS)
    except (sqlite3.Error, OSError) as error:
        text = f"headers cannot be kept in {path.parent} ({error}); set {VARIABLE} to another folder, or to nothing"
        warnings.warn(CacheWarning(text), stacklevel=2)
        return None


atexit.register(_end_all)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)
