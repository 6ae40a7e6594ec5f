"""Signed hrefs: signed when a file is opened, anew once it is refused, by one thread for all."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from time import monotonic
from typing import Protocol
from urllib.parse import urlsplit

from geopipes.read.failures.causes import Kind, classified
from geopipes.read.sources import Modifier

FRESH = 60.0
"""Seconds for which the token of a container signs its other files; then the modifier is asked, which knows its end."""

AZURE = ".blob.core.windows.net"
"""Where hrefs of the Planetary Computer lead."""

KEPT = 1024
"""Containers whose tokens are kept."""


@dataclass(eq=False)
class _Tokens:
    """What a modifier added to the hrefs of one container and collection.

    Attributes
    ----------
    modifier : kept, as its id names it
    query : it added to two different files alike, so that it holds for all; None while that is not known
    seen : the last href and what was added to it
    made : when, on the clock that never stands still
    """

    modifier: Modifier
    lock: Lock = field(default_factory=Lock)
    query: str | None = None
    seen: tuple[str, str] = ("", "")
    made: float = 0.0

    def added(self, href: str, signed: str) -> None:
        """Learn from a href that was signed."""
        if not signed.startswith(href) or signed[len(href) : len(href) + 1] not in ("?", "&"):
            return
        query = signed[len(href) :]
        alike = self.query is not None or (self.seen[1] == query and self.seen[0] != href)
        self.query, self.seen, self.made = (query if alike else None), (href, query), monotonic()

    def known(self, href: str, refused: str | None) -> str | None:
        """Give a href signed by the container's token, unless that is old, or was refused."""
        if self.query is None or monotonic() - self.made > FRESH:
            return None
        signed = f"{href}{self.query}"
        return None if signed == refused or ("?" in href and self.query.startswith("?")) else signed


_lock = Lock()
_tokens: OrderedDict[Hashable, _Tokens] = OrderedDict()


class Asset(Protocol):
    """A file of an item: a `geopipes.read.sources.Source` is one."""

    @property
    def href(self) -> str: ...  # noqa: D102
    @property
    def item(self) -> str: ...  # noqa: D102
    @property
    def collection(self) -> str | None: ...  # noqa: D102
    @property
    def asset(self) -> str: ...  # noqa: D102
    @property
    def modifier(self) -> Modifier | None: ...  # noqa: D102


class SigningError(OSError):
    """A modifier failed: whoever gives out tokens could not be asked, or refused; or there is a mistake in it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"its href could not be signed, as the modifier failed with {type(error).__name__}: {error}")
        self.kind: Kind = "auth"
        self.retry_after: float | None = None
        if isinstance(error, OSError) or hasattr(error, "response") or hasattr(error, "code"):  # a request of its own
            self.kind, self.retry_after = classified(error, remote=True)


class Signature:
    """The href of a source as it is signed now: for all threads that read it.

    Parameters
    ----------
    source : whose href it is
    signed : the href, where it is signed already

    Attributes
    ----------
    shared : whether the last signature was made for another file of the same container
    """

    def __init__(self, source: Asset, signed: str | None = None) -> None:
        self.source, self._signed, self._lock = source, signed, Lock()
        self._refused: str | None = None
        self.shared = False

    @property
    def href(self) -> str:
        """The href, signed at the first look."""
        with self._lock:
            if self._signed is None:
                self._signed = self._sign(self._refused)
            return self._signed

    def renew(self, refused: str) -> bool:
        """Sign anew a href that was refused, unless another thread has; say whether that made another one.

        Where the modifier fails, the next look at the href asks it again, and raises what it raises.
        """
        with self._lock:
            if self._signed == refused:
                self._refused, self._signed = refused, None
                with suppress(SigningError):
                    self._signed = self._sign(refused)
            return self._signed != refused

    def _sign(self, refused: str | None) -> str:
        its = self.source
        href, self.shared = _signed(its.href, its.item, its.collection, its.asset, its.modifier, refused)
        return href


def signed_href(href: str, *, item: str, collection: str | None, asset: str, modifier: Modifier | None) -> str:
    """Sign one href by a modifier of items, which is given an item that holds this asset alone.

    A modifier is called by one thread at a time for a container and collection. Where it adds the same query to two
    files there, that is the container's token, and signs the others too, for a minute: so a thousand files ask for one
    token, and threads that are refused at once have one made anew. Links that are signed one by one differ, and never
    stand in for each other.

    Parameters
    ----------
    href : without its signature
    item, collection, asset : whose href it is
    modifier : signs; None for none

    Raises
    ------
    SigningError
        the modifier failed
    """
    return _signed(href, item, collection, asset, modifier, None)[0]


def _signed(
    href: str, item: str, collection: str | None, asset: str, modifier: Modifier | None, refused: str | None
) -> tuple[str, bool]:
    """Sign one href, as `signed_href`, otherwise than it was refused; say whether by what was made for another one."""
    if modifier is None:
        return href, False
    tokens = _of(modifier, href, collection)
    with tokens.lock:
        known = tokens.known(href, refused)
        if known is not None:
            return known, True
        import pystac

        stub = pystac.Item(item, None, None, datetime(1970, 1, 1, tzinfo=UTC), {}, collection=collection)
        stub.add_asset(asset, pystac.Asset(href))
        try:
            signed = modifier(stub)
            found = (signed if isinstance(signed, pystac.Item) else stub).assets[asset].href
        except Exception as error:  # of whatever library
            raise SigningError(error) from error
        tokens.added(href, found)
        return found, False


def _of(modifier: Modifier, href: str, collection: str | None) -> _Tokens:
    """Give what is known of a modifier's tokens for one host; Azure gives them for containers, first in the path."""
    parts = urlsplit(href)
    container = parts.path.lstrip("/").partition("/")[0] if parts.netloc.endswith(AZURE) else ""
    named = modifier if isinstance(modifier, Hashable) else id(modifier)
    key = named, parts.scheme, parts.netloc, container, collection
    with _lock:
        tokens = _tokens.get(key) or _tokens.setdefault(key, _Tokens(modifier))
        _tokens.move_to_end(key)
        if len(_tokens) > KEPT:
            _tokens.popitem(last=False)
        return tokens


def _forget() -> None:
    """Begin anew in a forked process, where a lock that another thread held would never be released."""
    global _lock
    _lock = Lock()
    _tokens.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
