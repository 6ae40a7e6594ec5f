"""For which chip this thread reads just now, and what is to be done where that fails."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import NoReturn

from geopipes.errors import ReadError, SourceError
from geopipes.read.failures.policies import DEFAULT, Policy
from geopipes.read.failures.records import Action, Failure, Span
from geopipes.read.failures.signing import Asset

Told = Callable[[Failure], None]
"""Is told of a failure, on any thread."""


def nobody(failure: Failure) -> None:
    """Tell nobody."""


class Skipped(Exception):
    """A chip that is left out, as the policy says: not an error of the run."""


@dataclass(eq=False)
class Asking:
    """A chip in the reading.

    Attributes
    ----------
    policy : what is to be done about reads that fail
    tell : takes down what failed
    lost : what could not be read for a lasting reason, for all chips of a run: it is not asked for once more for each.
        None to remember nothing
    down : files that failed in all their tries, and until when no read of them is tried again
    chip, position : its id, and its place in the order; None for what is read without a plan
    masked : what was made not valid so far
    """

    policy: Policy = DEFAULT
    tell: Told = nobody
    lost: dict[str, Failure] | None = None
    down: dict[str, float] = field(default_factory=dict)
    chip: int | None = None
    position: int | None = None
    masked: list[Failure] = field(default_factory=list)

    def of(self, chip: int, position: int) -> Asking:
        """Give the same for a chip."""
        return Asking(self.policy, self.tell, self.lost, self.down, chip, position)

    def took(self, action: Action, failure: Failure) -> Failure:
        """Take down what was done about a failure."""
        failure = replace(failure, chip=self.chip, position=self.position, action=action)
        self.tell(failure)
        return failure

    def unread(self, error: ReadError | SourceError, source: Asset, window: Span) -> None:
        """Note that a file could not be drawn, where that may be masked; else raise what ends the chip.

        Parameters
        ----------
        error : that says so
        source : the file; the error may name another one of its item
        window : of the grid, that it was needed for
        """
        failure = getattr(error, "failure", None) or Failure.of(source, "corrupt", str(error))
        failure = replace(failure, window=window)
        if self.policy.on_error == "mask":
            self.masked.append(self.took("masked", failure))
            return
        if self.policy.on_error == "raise" and not isinstance(error, ReadError):
            raise error
        raised = ReadError(f"{error} (needed for {asked_for(window)})")
        raised.failure = failure
        raise raised from error

    def ended(self, error: ReadError) -> NoReturn:
        """End a chip that could not be read: it is left out, or the run ends."""
        failure = error.failure or Failure("corrupt", str(error))
        if self.policy.on_error != "raise":
            self.took("skipped", failure)
            raise Skipped from error
        raised = ReadError(f"chip {self.chip}: {error}")
        raised.failure = self.took("raised", failure)
        raise raised from error

    def check_masked(self, what: str) -> None:
        """Leave the chip out where something was masked in it and no value would tell that.

        Raises
        ------
        ReadError
            which leaves the chip out
        """
        if self.masked:
            failure = self.masked[-1]
            error = ReadError(f"{what}, and no value tells what could not be read: {failure.message}")
            error.failure = failure
            raise error


def asked_for(window: Span) -> str:
    """Write a window."""
    return f"rows {window[0]}..{window[1]}, columns {window[2]}..{window[3]} of the grid"


asking: ContextVar[Asking] = ContextVar("asking", default=Asking())  # noqa: B039  # nothing is masked by it
"""What this thread reads for."""


def timeout() -> float:
    """Give the seconds that one request over a network may take."""
    return asking.get().policy.timeout
