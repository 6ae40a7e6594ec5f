"""Headers of files in stores: read once, in one request or two, and kept, in this process and on disk."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from contextlib import suppress
from threading import Lock
from typing import Any

from geopipes.read import kept
from geopipes.read.hrefs import unsigned
from geopipes.read.kept import Head
from geopipes.read.stores.clients import check_fork, get
from geopipes.read.stores.faults import StoreError
from geopipes.read.stores.locations import Location
from geopipes.read.stores.options import options_of

FIRST = 32 * 1024
"""Bytes asked for first: the whole header of most Cloud-optimized GeoTIFFs."""

AROUND = 16 * 1024
"""Bytes before and after a place elsewhere in the file: libtiff writes a directory's values on either side of it."""

NEAR = 1024 * 1024
"""Bytes between what is there and what is needed that are read rather than left out."""

MOST_REQUESTS = 64
"""Requests after which a header is no header."""

KEPT = 64 * 2**20
"""Bytes of headers that a process keeps, until their files are opened and after."""


_lock = Lock()
_heads: OrderedDict[str, Head] = OrderedDict()
_held = 0


WHERE = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_ENDPOINT_URL",
    "CPL_GS_ENDPOINT",
)  # fmt: skip
"""What says on whose server a bucket lies, beside its name."""


def name_of(location: Location) -> str:
    """Name a file, whoever signs it: for what is kept of it."""
    if location.kind == "http":
        return unsigned(f"{location.unsigned}{location.query}")
    told = {**os.environ, **options_of(location).named(location.kind)}
    where = [location.account or "", *(told.get(name, "") for name in WHERE)]
    return " ".join([location.unsigned, *filter(None, where)])


def head(location: Location) -> Head:
    """Give the header of a file; read from its store where neither this process has it nor the disk.

    Raises
    ------
    StoreError
        it could not be read
    ForkError
        this process is a fork of one that used the network
    """
    check_fork()  # first: what is refused must not depend on what lies here or on disk
    with _lock:
        found = _heads.get(name_of(location))
    if found is None:
        found = kept.head(name_of(location))
        if found is None:
            found = read_head(location)
            kept.keep_head(name_of(location), found)
        keep(location, found)
    return found


def known(location: Location) -> bool:
    """Say whether a header is here, in this process or on disk."""
    with _lock:
        if name_of(location) in _heads:
            return True
    found = kept.head(name_of(location))
    if found is not None:
        keep(location, found)
    return found is not None


def keep(location: Location, found: Head) -> None:
    """Keep a header."""
    global _held
    with _lock:
        _drop(name_of(location))
        _heads[name_of(location)] = found
        _held += _size(found)
        while _held > KEPT:
            _drop(next(iter(_heads)))


def forget(location: Location) -> None:
    """Let go of a header: the file is another one now."""
    with _lock:
        _drop(name_of(location))
    kept.forget_head(name_of(location))


def forget_all() -> None:
    """Let go of all headers."""
    with _lock:
        for name in [*_heads]:
            _drop(name)


def read_head(location: Location) -> Head:
    """Read a header from its store: all of it, if it is a TIFF's.

    Raises
    ------
    StoreError
        as `geopipes.read.stores.clients.get`
    """
    from geopipes.read.files.tiffs import read_tiff  # which is read after stores

    reading = _Reading(location)
    with suppress(ValueError):  # it is no TIFF, or an odd one: whoever opens it says so
        read_tiff(reading.read, whole=True)
    return reading.head()


class _Reading:
    """A header while it is read: bytes come as they are asked for."""

    def __init__(self, location: Location) -> None:
        self._location, self._etag, self._requests = location, None, 0
        self._needed = 0  # bytes of the beginning that were asked for
        data, meta = self._get(0, FIRST)
        self._size, self._etag = int(meta["size"]), meta["e_tag"]
        self._parts: list[tuple[int, bytes]] = [(0, bytes(data))]  # ascending, apart

    def read(self, offset: int, count: int) -> bytes:
        """Give bytes, from the store where they are not there."""
        if offset < 0 or offset + count > self._size:
            raise ValueError(f"{count} bytes at {offset} are pointed to, the file has {self._size}")
        start, data = self._parts[at := bisect_right(self._parts, offset, key=lambda part: part[0]) - 1]
        if offset + count > start + len(data):
            at = self._more(at, offset, offset + count)
            start, data = self._parts[at]
        if at == 0:
            self._needed = max(self._needed, offset + count)
        return data[offset - start : offset - start + count]

    def head(self) -> Head:
        """Give what was read, without what nobody asked for."""
        (_, first), *more = self._parts
        return Head(first[: max(self._needed, 16)], self._size, self._etag, tuple(more))

    def _more(self, at: int, start: int, stop: int) -> int:
        """Read on from a part, or else around a place; give the part that holds it."""
        begin, data = self._parts[at]
        end = begin + len(data)
        if start - end <= NEAR:
            # Twice as much each time: a header of a megabyte takes 6 requests.
            got, _ = self._get(end, min(self._size, max(stop, end + max(len(data), FIRST))))
            self._parts[at] = (begin, data + bytes(got))
        else:
            first = max(end, start - AROUND)
            got, _ = self._get(first, min(self._size, max(stop, start + AROUND)))
            at += 1
            self._parts.insert(at, (first, bytes(got)))
        if at + 1 < len(self._parts):  # parts may overlap now
            start_at = self._parts[at][0] + len(self._parts[at][1])
            self._parts[at + 1 :] = [part for part in self._parts[at + 1 :] if part[0] >= start_at]
        return at

    def _get(self, start: int, stop: int) -> tuple[Any, dict[str, Any]]:
        self._requests += 1
        if self._requests > MOST_REQUESTS:
            raise ValueError(f"its header is in more than {MOST_REQUESTS} parts")
        try:
            return get(self._location, start, stop, etag=self._etag)
        except StoreError as error:
            if error.changed:
                forget(self._location)
            raise


def _drop(name: str) -> None:
    global _held
    found = _heads.pop(name, None)
    if found is not None:
        _held -= _size(found)


def _size(found: Head) -> int:
    return len(found.data) + sum(len(data) for _, data in found.more)


def _after_fork() -> None:
    """Begin with a lock that nobody holds."""
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
