"""What is to be done about reads that fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from geopipes.errors import StepError

OnError = Literal["raise", "mask", "skip"]

RETRIES = 6
"""Tries after the first: with the waits between them 16 to 32 seconds, which outlast most of a store's bad moments."""

TIMEOUT = 60.0
"""Seconds that one request may take: 16 MB at 2 Mbit/s."""

FIRST_WAIT, LONGEST_WAIT = 0.25, 30.0
"""Seconds before the second try, doubled for each that follows, and the most of them."""

LONGEST_ASKED = 300.0
"""Seconds up to which a server's Retry-After is obeyed; who asks for more is taken to be down."""


@dataclass(frozen=True)
class Policy:
    """What is to be done about reads that fail; none of it changes a pixel that could be read.

    Attributes
    ----------
    on_error : "raise" ends the run, "mask" makes what could not be read not valid, "skip" leaves the chip out
    retries : how often a read is tried again that failed for a passing reason
    timeout : seconds that one request over a network may take

    Raises
    ------
    StepError
        for another word, and for numbers that make no sense
    """

    on_error: OnError = "raise"
    retries: int = RETRIES
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        words = get_args(OnError)
        if self.on_error not in words:
            raise StepError(
                f"read(on_error={self.on_error!r}): write {', '.join(map(repr, words[:-1]))} or {words[-1]!r}"
            )
        if not isinstance(self.retries, int) or isinstance(self.retries, bool) or self.retries < 0:
            raise StepError(f"read(retries={self.retries!r}): give a whole number, 0 or more")
        if not isinstance(self.timeout, int | float) or isinstance(self.timeout, bool) or not 0 < self.timeout < 1e6:
            raise StepError(f"read(timeout={self.timeout!r}): give seconds, more than 0")


DEFAULT = Policy()
"""Where nobody said."""
