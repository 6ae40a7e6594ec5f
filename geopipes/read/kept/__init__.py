"""What was fetched from far away, kept on disk: headers of files always, their tiles where a run asks for it.

The key of a file is its href without what signs it, so that it is known again when it is signed anew. Headers lie in
the user's cache: ``$GEOPIPES_CACHE``, else ``$XDG_CACHE_HOME/geopipes``, else ``~/.cache/geopipes``; with an empty
``GEOPIPES_CACHE`` none are kept. Tiles lie, compressed as they came, in the folder of ``read(disk=...)``, within its
budget. Each is one SQLite file, beside its journal, that any number of processes of one machine share; so it must not
lie on a disk that several machines write to.

A file that is kept is held to be what it was: who reads of it and finds it changed says so by `forget_head`. Tiles
are kept for one version of a file, its ETag or else its size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from geopipes.read.hrefs import unsigned
from geopipes.read.kept.places import current, flush, headers, tiles
from geopipes.read.kept.store import Store

__all__ = ["Head", "Store", "current", "flush", "forget_head", "head", "keep_head", "keep_tile", "tile", "tiles"]


@dataclass(frozen=True)
class Head:
    """The beginning of a file, and what tells it from a later one.

    Attributes
    ----------
    data : its first bytes, or those that hold its header
    size : of the whole file, bytes
    etag : as the server gave it; None where it gives none
    """

    data: bytes
    size: int
    etag: str | None

    @property
    def version(self) -> str:
        """What tells the file from a later one of the same name."""
        return self.etag or str(self.size)


def head(href: str) -> Head | None:
    """Give what is kept of a file's header, None for nothing; never an error."""
    store = headers()
    kept = None if store is None else store.get("head", unsigned(href))
    if kept is None:
        return None
    told, _, data = kept.partition(b"\n")
    size, etag = json.loads(told)
    return Head(data, size, etag)


def keep_head(href: str, head: Head) -> None:
    """Keep a file's header, signed href or not."""
    if (store := headers()) is not None:
        store.put(json.dumps([head.size, head.etag]).encode() + b"\n" + head.data, "head", unsigned(href))


def forget_head(href: str) -> None:
    """Keep a header no longer: the file is another one now."""
    if (store := headers()) is not None:
        store.forget("head", unsigned(href))


def tile(href: str, version: str, offset: int, count: int) -> bytes | None:
    """Give bytes of a file where the run that this thread works for keeps them, None for none.

    Parameters
    ----------
    href : of the file, signed or not
    version : `Head.version`
    offset, count : which bytes
    """
    store = current.get()
    return None if store is None else store.get("tile", unsigned(href), version, offset, count)


def keep_tile(href: str, version: str, offset: int, data: bytes) -> None:
    """Keep bytes of a file, if the run that this thread works for keeps any: see `tile`."""
    if (store := current.get()) is not None:
        store.put(data, "tile", unsigned(href), version, offset, len(data))
