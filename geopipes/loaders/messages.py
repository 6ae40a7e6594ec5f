"""What this process and its workers say to each other."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from geopipes.errors import StepError
from geopipes.loaders.ops import Each
from geopipes.meters import Counts, Row
from geopipes.read.failures import Failure as Unread
from geopipes.read.stores.options import Options

if TYPE_CHECKING:
    from geopipes.loaders.slots import Layout


class Plan(NamedTuple):
    """What workers work on, told once.

    Attributes
    ----------
    source, each : of the pipe, and the steps to each element
    rows : in a batch of this rank's
    pad : the positions of an epoch are filled up to a multiple of it
    storage : what `geopipes.storage` was told
    """

    source: Any
    each: Sequence[Each]
    rows: int
    pad: int
    storage: Mapping[str, Options]


class Begin(NamedTuple):
    """Begin a run of an epoch, at a batch; watched where somebody asks where its time goes."""

    run: int
    epoch: int
    group: int
    watched: bool


class Make(NamedTuple):
    """Make the rows of a batch, in a slot where there is one."""

    run: int
    group: int
    slot: int | None
    layout: Layout | None


class Leave(NamedTuple):
    """End a run: what was not begun is not made."""

    run: int


class Map(NamedTuple):
    """Map a new slot, whose descriptor follows."""

    slot: int
    size: int


class Forget(NamedTuple):
    """Let go of a slot."""

    slot: int


@dataclass
class Report:
    """The answer to `Make`.

    Attributes
    ----------
    run, group : of the batch
    rows : what is not in the slot, pickled, by row; a row behind the end of the plan is not there
    failures : by row
    kept : whether a step holds what it saw of the slot
    counts : where the time went since the last report, of a run that is watched
    unread : reads that failed since the last report
    """

    run: int
    group: int
    rows: dict[int, bytes] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    kept: bool = False
    counts: Mapping[Row, Counts] = field(default_factory=dict)
    unread: Sequence[Unread] = ()


class Failure(NamedTuple):
    """An exception on its way: pickled, where it can be, and as text."""

    pickled: bytes
    text: str
    notes: list[str]
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Take down an exception."""
        try:
            pickled = pickle.dumps(error)
        except Exception:  # whatever a class of somebody else's raises then: its text must do
            pickled = b""
        notes, trace = getattr(error, "__notes__", []), "".join(traceback.format_exception(error))
        return cls(pickled, f"{type(error).__qualname__}: {error}", notes, trace)

    def error(self, where: str) -> BaseException:
        """Give the exception as it was; one that cannot travel is a `StepError` that says as much.

        Parameters
        ----------
        where : it was raised, added to its notes
        """
        try:
            error: BaseException = pickle.loads(self.pickled)
        except Exception:  # as above
            error = StepError(self.text)
            error.__notes__ = [*self.notes]
        error.add_note(where)
        error.__cause__ = _Elsewhere(f"\n\n{self.trace}")
        return error


class _Elsewhere(Exception):
    """Shows the traceback of another process as what caused an error."""
