"""How long a server that is busy asks to wait: obstore shows no header of an error, so that it is asked once more."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException
from threading import Lock
from time import monotonic
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from geopipes.read.stores.locations import Location
from geopipes.threads import afar

AGAIN = 1.0
"""Seconds before the same server is asked again: what it has said holds for all meanwhile."""

TIMEOUT = 5.0
"""Seconds that its answer may take."""

_lock = Lock()
_told: dict[str, tuple[float, float | None]] = {}


def asked_wait(location: Location, headers: Mapping[str, str]) -> float | None:
    """Give the seconds that a server asks to wait, by a HEAD of an object that it did not give.

    Parameters
    ----------
    location : of the object
    headers : that `geopipes.storage` was told to send

    Returns
    -------
    None for a store that is no plain server of HTTP, and where the answer has no Retry-After in seconds
    """
    if location.kind != "http":
        return None
    with _lock:
        at, seconds = _told.get(location.root, (0.0, None))
        if location.root in _told and monotonic() - at < AGAIN:
            return seconds
        _told[location.root] = monotonic(), None  # of many that are refused at once, one asks
    seconds = None
    request = Request(location.unsigned + location.query, headers=dict(headers), method="HEAD")
    with afar(), suppress(OSError, HTTPException, ValueError):
        try:
            urlopen(request, timeout=TIMEOUT).close()
        except HTTPError as error:
            with error:
                seconds = float(error.headers.get("Retry-After", ""))
    with _lock:
        _told[location.root] = monotonic(), seconds
    return seconds


def _begin_anew() -> None:
    """Leave the lock to the parent: a thread that does not exist here may hold it."""
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
