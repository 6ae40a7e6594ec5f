"""Pages of a search, one after the other; each is asked for again where that may help."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from pystac import Link
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests import ConnectionError as NotConnected
from requests import Response, Timeout
from urllib3.exceptions import MaxRetryError, NewConnectionError

from geopipes.read.failures.policies import LONGEST_ASKED
from geopipes.read.failures.trying import wait

T = TypeVar("T")

Json = dict[str, Any]

PASSING = (408, 425, 429)
"""Answers that may be others later, beside those from 500 on."""

UNFINISHED = 8
"""Searches that ended in the middle, of which a process remembers where."""


class Asker:
    """Asks an API, and asks again where it may answer later.

    Parameters
    ----------
    io : asks once; the asker waits between its tries
    retries : how often each request is tried again
    """

    def __init__(self, io: StacApiIO, retries: int) -> None:
        self._io, self._retries = io, retries
        self._answered = False
        self._asked_to_wait: float | None = None
        io.session.hooks["response"].append(self._note)

    def ask(self, call: Callable[[], T]) -> T:
        """Call what sends a request; what it raises in the end says how often it was tried.

        An address at which nobody ever answered is not asked again: it is more often wrong than not there yet.
        """
        number = 0
        while True:
            number, self._asked_to_wait = number + 1, None
            try:
                return call()
            except Exception as error:
                passing = self.passing(error) and (self._asked_to_wait or 0) <= LONGEST_ASKED
                if number > self._retries or not passing:
                    if number > 1:
                        error.add_note(f"tried {number} times")
                    raise
                time.sleep(wait(number, self._asked_to_wait))

    def passing(self, error: BaseException) -> bool:
        """Say whether an error may be gone a moment later."""
        if isinstance(error, json.JSONDecodeError):
            return self._answered  # else this is no API
        if not isinstance(error, APIError):
            return False
        status = getattr(error, "status_code", None)
        if status is not None:
            return status in PASSING or status >= 500
        return self._answered or not _nobody_there(error.__context__)

    def _note(self, response: Response, **_: Any) -> None:
        self._asked_to_wait = retry_after(response.headers)
        self._answered = self._answered or (response.ok and "json" in response.headers.get("Content-Type", "json"))


def _nobody_there(error: BaseException | None) -> bool:
    """Say whether no connection could be made at all."""
    if not isinstance(error, NotConnected) or isinstance(error, Timeout):
        return False
    reason = error.args[0] if error.args else None
    return isinstance(reason, MaxRetryError) and isinstance(reason.reason, NewConnectionError)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Give the seconds that a server asks to wait, as a number or until a date (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "")
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


@dataclass
class Found:
    """What a search has found so far.

    Attributes
    ----------
    features : of the pages so far
    pages : how many these are
    following : leads to the next page; None before the first
    """

    features: list[Json] = field(default_factory=list)
    pages: int = 0
    following: Link | None = None


_unfinished: OrderedDict[str, Found] = OrderedDict()


class PageError(Exception):
    """A page that could not be had; says which one."""


def paged(asker: Asker, io: StacApiIO, url: str, method: str, parameters: Json, *, most: int | None) -> list[Json]:
    """Take all pages of a search.

    A search that ended because a server was busy goes on at that page where the same is searched again.

    Parameters
    ----------
    asker, io : ask the API
    url, method, parameters : of the search
    most : items in all; None for all there are

    Raises
    ------
    PageError
        names the page, and is raised from its cause
    """
    key = json.dumps([url, method, parameters], sort_keys=True, default=str)
    found = _unfinished.pop(key, None) or Found()
    while True:
        try:
            page = asker.ask(lambda: _page(io, found, url, method, parameters))
        except Exception as error:
            if found.pages and asker.passing(error):
                _unfinished[key] = found
                while len(_unfinished) > UNFINISHED:
                    _unfinished.popitem(last=False)
            after = f", after {len(found.features):,} items" if found.pages else ""
            raise PageError(f"page {found.pages + 1}{after}") from error
        features = page.get("features") or []
        found.features += features
        found.pages += 1
        link = next((link for link in page.get("links", []) if link.get("rel") == "next"), None)
        if not features or link is None or len(found.features) >= (most or len(found.features) + 1):
            return found.features[:most]
        found.following = Link.from_dict(link)


def _page(io: StacApiIO, found: Found, url: str, method: str, parameters: Json) -> Json:
    """Ask for the next page, as pystac-client does."""
    if found.following is not None:
        return io.read_json(found.following, parameters=parameters)
    return io.read_json(url, method=method, parameters=parameters)
