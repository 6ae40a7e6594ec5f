"""Trying again: reads that failed for a passing reason, after a while; those that were refused, signed anew, once."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from geopipes.errors import GeopipesError
from geopipes.meters import RETRYING, timed
from geopipes.read.failures.asking import asking
from geopipes.read.failures.causes import Cause, classified, is_remote, outdated, replaced
from geopipes.read.failures.policies import FIRST_WAIT, LONGEST_ASKED, LONGEST_WAIT
from geopipes.read.failures.records import Failure, shown, unsigned_text
from geopipes.read.failures.signing import Signature
from geopipes.read.hrefs import unsigned
from geopipes.threads import pause

R = TypeVar("R")

DAMAGED_RETRIES = 2
"""Tries after the first for bytes that made no sense and came from afar: on the way they are rarely damaged twice."""

DOWN = 300.0
"""Seconds for which a file that failed in all its tries is asked once for each chip: else each would wait as long."""

Mend = Callable[[str], None]
"""Makes ready for another try of a signed href that failed."""


def ready(href: str) -> None:
    """Have nothing to make ready."""


def persist(
    work: Callable[[], R],
    signature: Signature,
    *,
    what: str,
    errors: tuple[type[BaseException], ...],
    text: Callable[[BaseException], str] = str,
    mend: Mend = ready,
) -> R:
    """Do what reads, again where that may help, as the policy says for which this thread reads.

    Parameters
    ----------
    work : reads
    signature : of the file's href, by which ``work`` reads
    what : could not be read, for errors; names it in a run
    errors : that count as reads that failed
    text : gives what an error says
    mend : makes ready for another try

    Raises
    ------
    ReadError
        with its ``failure``, when no try is left
    """
    attempts, source = 0, signature.source
    tries = _Tries(signature, mend)
    while True:
        attempts, href = attempts + 1, ""
        try:
            href = signature.href
            result = work()
        except errors as error:
            if isinstance(error, GeopipesError) and not hasattr(error, "kind"):
                raise  # it says what is wrong with the file, which another try would not change
            cause = classified(error, remote=tries.remote)
            message = f"{what}: {unsigned_text(text(error), href, source.href)}"
            failure = Failure.of(source, cause.kind, message, attempts)
            if replaced(error) or not tries.again(cause, href):
                mend(href)  # for whoever reads it later
                if not outdated(error):
                    _remember(what, failure)
                raise failure.error() from shown(error, href, source.href)
            continue
        if attempts > 1:
            asking.get().took("recovered", Failure.of(source, cause.kind, message, attempts))
        return result


def _remember(what: str, failure: Failure) -> None:
    """Let a run know what is lost, and which file is down: not by what is looked for ahead, and asked once."""
    asked = asking.get()
    if asked.lost is not None and failure.kind != "transient":
        asked.lost[what] = failure
    elif asked.lost is not None and asked.policy.retries:
        asked.down[str(failure.href)] = monotonic() + DOWN


def check_lost(what: str) -> None:
    """Raise again what could not be read before in this run, for a lasting reason."""
    lost = asking.get().lost
    if lost and (known := lost.get(what)) is not None:
        raise known.error()


class _Tries:
    """The tries that one read has."""

    def __init__(self, signature: Signature, mend: Mend) -> None:
        self.remote, self._signature, self._mend = is_remote(signature.source.href), signature, mend
        self._waited = self._damaged = 0
        self._renewed = False

    def again(self, cause: Cause, href: str) -> bool:
        """Say whether there is another try, wait for it, and make it ready.

        Parameters
        ----------
        cause : of the failure
        href : that failed, signed
        """
        asked = asking.get()
        retries = 0 if monotonic() < asked.down.get(unsigned(self._signature.source.href), 0) else asked.policy.retries
        match cause.kind:
            case "auth" if self.remote and href and not self._renewed:
                there = self._signature.renew(href)
                self._renewed = not self._signature.shared  # another file's may have run out too
            case "corrupt" if self.remote and self._damaged < min(retries, DAMAGED_RETRIES):
                self._damaged += 1
                there = True
            case "transient" if self._waited < retries and (cause.retry_after or 0) <= LONGEST_ASKED:
                self._waited += 1
                with timed(RETRYING):
                    there = not pause(wait(self._waited, cause.retry_after))
            case _:
                return False
        if there:
            self._mend(href)
        return there


def wait(number: int, asked: float | None = None) -> float:
    """Give the seconds to wait before a try, the first after a failure being 1: drawn, so that not all come at once.

    Parameters
    ----------
    number : of the try
    asked : by the server, the least
    """
    full = min(FIRST_WAIT * 2.0 ** (number - 1), LONGEST_WAIT)
    if asked is not None:
        return asked + full * random.random() / 4
    return full * (1 + random.random()) / 2
