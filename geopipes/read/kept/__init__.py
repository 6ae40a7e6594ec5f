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
from dataclasses import dataclass, field

from geopipes.read.hrefs import unsigned
from geopipes.read.kept.places import flush, headers, keeping, tiles
from geopipes.read.kept.store import Store

__all__ = [
    "Head",
    "Store",
    "flush",
    "forget_head",
    "has_tile",
    "head",
    "keep_head",
    "keep_tile",
    "keeping",
    "tile",
    "tiles",
]


@dataclass(frozen=True)
class Head:
    """The header of a file.

    Attributes
    ----------
    data : the beginning of the file, all of its header where that lies there; of what is no TIFF some bytes
    size : of the file, bytes
    etag : tells this file from another in its place; None where the store gives none
    more : (offset, bytes) of parts of the header that lie elsewhere, ascending
    kept : whether it was read by an earlier program, and lay on disk since
    """

    data: bytes
    size: int
    etag: str | None
    more: tuple[tuple[int, bytes], ...] = ()
    kept: bool = field(default=False, compare=False)

    @property
    def version(self) -> str:
        """What tells the file from a later one of the same name."""
        return self.etag or str(self.size)

    def read(self, offset: int, count: int) -> bytes:
        """Give bytes of the header.

        Raises
        ------
        ValueError
            these are not there
        """
        for start, data in ((0, self.data), *self.more):
            if start <= offset and offset + count <= start + len(data):
                return data[offset - start : offset - start + count]
        raise ValueError(f"{count} bytes at {offset} are pointed to, the header holds none")


def head(href: str) -> Head | None:
    """Give what is kept of a file's header, None for nothing; never an error.

    Parameters
    ----------
    href : of the file, signed or not
    """
    store = headers()
    kept = None if store is None else store.get("head", unsigned(href))
    if kept is None:
        return None
    told, _, data = kept.partition(b"\n")
    size, etag, first, *more = json.loads(told)
    parts, at = [], first
    for offset, count in more:
        parts.append((offset, data[at : at + count]))
        at += count
    return Head(data[:first], size, etag, tuple(parts), kept=True)


def keep_head(href: str, head: Head) -> None:
    """Keep a file's header."""
    if (store := headers()) is not None:
        told = [head.size, head.etag, len(head.data), *((offset, len(data)) for offset, data in head.more)]
        data = b"".join([head.data, *(data for _, data in head.more)])
        store.put(json.dumps(told).encode() + b"\n" + data, "head", unsigned(href))


def forget_head(href: str) -> None:
    """Keep a header no longer: the file is another one now."""
    if (store := headers()) is not None:
        store.forget("head", unsigned(href))


def tile(store: Store, href: str, version: str, offset: int, count: int) -> bytes | None:
    """Give bytes of a file that are kept, None for none.

    Parameters
    ----------
    store : of `tiles`
    href : of the file, signed or not
    version : `Head.version`
    offset, count : which bytes
    """
    return store.get("tile", unsigned(href), version, offset, count)


def has_tile(store: Store, href: str, version: str, offset: int, count: int) -> bool:
    """Say whether bytes of a file are kept: see `tile`."""
    return store.has("tile", unsigned(href), version, offset, count)


def keep_tile(store: Store, href: str, version: str, offset: int, data: bytes) -> None:
    """Keep bytes of a file: see `tile`."""
    store.put(data, "tile", unsigned(href), version, offset, len(data))
