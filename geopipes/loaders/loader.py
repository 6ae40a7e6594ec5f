"""The loader: epochs of one pipe, one after the other, for one of several ranks; and where it stands."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self
from weakref import ReferenceType, WeakSet, ref

from geopipes.errors import StepError
from geopipes.loaders import states
from geopipes.loaders.ops import Batch, Op, planned
from geopipes.loaders.passes import Pass
from geopipes.loaders.processes import Processes
from geopipes.loaders.reports import Report, profiling
from geopipes.loaders.runs import Run, ordered, tally_of
from geopipes.loaders.shares import Share

if TYPE_CHECKING:
    import torch


RUNNING = ("_passes", "_latest", "_report", "_processes")
"""What of a loader does not travel."""


@dataclass(frozen=True)
class Options:
    """How a loader loads; none of it decides what comes at which step.

    Attributes
    ----------
    prefetch : batches that are ready ahead of the one delivered
    processes : that load, beside this one; 0 for threads of this one
    device : to which batches are copied; None for none
    rank, ranks : which process this is, of how many that train together; None for those of torch.distributed
    pad : whether the last batch of an epoch is filled with the first chips of its order
    progress : whether a bar on stderr shows how far an epoch is
    """

    prefetch: int = 2
    processes: int = 0
    device: str | torch.device | None = None
    rank: int | None = None
    ranks: int | None = None
    pad: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.prefetch < 0 or self.processes < 0:
            raise StepError(f"loader(prefetch={self.prefetch}, processes={self.processes}): give 0 or more of each")
        if (self.rank is None) != (self.ranks is None) or not 0 <= (self.rank or 0) < (self.ranks or 1):
            raise StepError(f"loader(rank={self.rank}, ranks={self.ranks}): give both; ranks are counted from 0")

    def share(self) -> Share:
        """Give this process's rank, and how many there are: as told, or as torch.distributed says once it runs."""
        if self.rank is not None and self.ranks is not None:
            return Share(self.rank, self.ranks)
        distributed = sys.modules.get("torch.distributed")
        if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
            return Share()
        return Share(distributed.get_rank(), distributed.get_world_size())


class Loader:
    """Gives the batches of a pipe, epoch after epoch: each ``for`` loop over it is one.

    The chain says what comes when: the order of an epoch, and which elements make a batch. The loader says who loads
    it. With several ranks, ``.batch(24)`` of the chain is the batch of all of them together, of which each gets its
    24 / ranks rows, every ranks-th chip. So the batches are the same for any number of ranks that divides them, and a
    run goes on with another number exactly where it stood. All ranks take equal steps.

    A loop that was left in the middle has had its epoch: the next loop is the next one. `load_state_dict` and
    `set_epoch` say otherwise.

    Parameters
    ----------
    source, ops : of the pipe
    options : how to load
    text : the chain, for printing
    """

    def __init__(self, source: Any, ops: Sequence[Op], options: Options, text: str = "") -> None:
        self._source, self._ops, self._options, self._text = source, tuple(ops), options, text
        if options.processes and not any(isinstance(op, Batch) for op in ops):
            raise StepError(f"loader(processes={options.processes}) hands over batches: write .batch(n).loader(...)")
        self._report: Report | None = None
        self._processes: Processes | None = None
        self._at = (states.order_of(source).epoch, 0)
        self._begun = self._placed = False
        self._passes: WeakSet[Pass] = WeakSet()
        self._latest: ReferenceType[Pass] | None = None

    @property
    def epoch(self) -> int:
        """The epoch that goes on, or comes next."""
        return self._at[0]

    def set_epoch(self, epoch: int) -> None:
        """Let the next loop be an epoch, from its beginning."""
        if epoch < 0:
            raise StepError(f"set_epoch({epoch}): epochs are counted from 0")
        self._at, self._begun, self._placed, self._latest = (epoch, 0), False, True, None

    @property
    def batch_sampler(self) -> Epochs:
        """Where Lightning looks for a sampler, to tell it the epoch."""
        return Epochs(self)

    def __iter__(self) -> Pass:
        """Begin an epoch, or go on from a state that was loaded."""
        share = self._options.share()
        self._check(share)
        if self._begun:
            self._at, self._begun = (self.epoch + 1, 0), False
        (epoch, start), placed = self._at, self._placed
        latest = Pass(self, self._run(share, epoch, start), epoch, movable=not placed)
        self._placed = False
        self._passes.add(latest)
        self._latest = ref(latest)
        return latest

    def _run(self, share: Share, epoch: int, start: int) -> Run:
        pad = self._padded_to(share)
        add = None if self._report is None else self._report.merge
        source = ordered(self._source, epoch, pad=pad)
        tally = tally_of(source, share, states.block(self._ops))
        feed = self._workers(share, pad).feed(epoch, add, tally) if self._options.processes else None
        return Run(source, self._ops, share=share, start=start, feed=feed, report=self._report, tally=tally)

    def _workers(self, share: Share, pad: int) -> Processes:
        """Give the processes that load, begun at the first loop and kept for those that follow."""
        if self._processes is not None and self._processes.share != share:  # torch.distributed has begun since
            self._processes.close()
            self._processes = None
        if self._processes is None:
            options = self._options
            self._processes = Processes(
                self._source, self._ops, share=share, processes=options.processes, ahead=options.prefetch, pad=pad
            )
        return self._processes

    def profile(self) -> AbstractContextManager[Report]:
        """Show where the time goes, of the loops inside the with block: see `geopipes.loaders.reports.profiling`."""
        return profiling(self)

    def __len__(self) -> int:
        """Give the steps of an epoch; those whose elements were refused are counted."""
        return planned(self._length, self._ops)

    @property
    def _length(self) -> int:
        """The positions of an epoch."""
        length = len(self._source)
        return states.usable(length + -length % self._padded_to(self._options.share()), self._ops)

    def _padded_to(self, share: Share) -> int:
        return states.together(self._ops, share.ranks) if self._options.pad else 1

    def _check(self, share: Share) -> None:
        """Raise where ranks would get different numbers of rows, or take different numbers of steps."""
        if share.ranks == 1:
            return
        first = next((op for op in self._ops if isinstance(op, Batch)), None)
        if first is not None and first.n % share.ranks:
            raise StepError(
                f"{first} is the batch of all {share.ranks} ranks together, which cannot share it evenly; write a "
                f"multiple of {share.ranks}"
            )
        over = self._length % states.together(self._ops, share.ranks)
        if over % share.ranks:
            leave = f"write .batch({first.n}, drop_last=True), which leaves them out, or " if first else "write "
            raise StepError(
                f"loader: {self._length} elements leave {over} over, which {share.ranks} ranks cannot share evenly; "
                f"{leave}loader(pad=True), which gives the first ones of the order once more"
            )

    @cached_property
    def _fingerprint(self) -> states.Document:
        return states.fingerprint(self._source, self._ops)

    def state_dict(self) -> dict[str, Any]:
        """Say where the latest loop stands: behind the last batch that was delivered.

        Returns
        -------
        what JSON can hold: ``version``, ``fingerprint`` (of plan, order and steps), ``epoch`` and ``position``, which
        counts the elements that all ranks together have had of the epoch

        Raises
        ------
        StateError
            if no position tells what comes next: take(n) after read()
        """
        if (ledger := getattr(self._source, "ledger", None)) is not None:
            ledger.flush()
        return states.state(self._fingerprint, *self._at, self._length)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next loop go on where another loader of the same chain stood.

        Parameters
        ----------
        state : what `state_dict` gave, on any rank; numbers of ranks, processes and threads may differ

        Raises
        ------
        StateError
            if it is of another plan, order or chain, with what differs; or no batch begins at its position
        """
        self.set_epoch(0)
        self._at = states.checked(state, self._fingerprint, self._ops, self._options.share().ranks)

    def close(self) -> None:
        """End all loops over this loader, and what loads for them; a new loop begins it anew."""
        for running in [*self._passes]:
            running.close()
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    def __enter__(self) -> Self:
        """Close the loader at the end of a with block."""
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Travel without what is running."""
        return {name: value for name, value in self.__dict__.items() if name not in RUNNING}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _passes=WeakSet(), **dict.fromkeys(RUNNING[1:]))

    def __str__(self) -> str:
        share = self._options.share()
        notes = [f"{len(self):,} steps an epoch"] if hasattr(self._source, "__len__") else []
        if share.ranks > 1:
            notes.append(f"rank {share.rank} of {share.ranks}")
        if notes and (padded := self._length - len(self._source)) > 0:
            notes.append(f"{padded} chips twice to fill the last one")
        return f"{self._text}  # {', '.join(notes)}"

    __repr__ = __str__


class Epochs:
    """What Lightning tells the epoch, as the sampler of a DataLoader, once a loop has begun.

    A loader counts its epochs by itself. Only where Lightning goes on from a checkpoint of the end of an epoch it loads
    no state, and its loop has begun with the loader's next epoch: that one, of which nothing was delivered, becomes the
    one that Lightning is at. `Loader.set_epoch` and `Loader.load_state_dict` stand above it.

    Parameters
    ----------
    loader : whose epochs
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    @property
    def sampler(self) -> Epochs:
        """Itself."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Let a loop that has begun, and that nobody has placed, be an epoch that a trainer goes on with."""
        loader = self._loader
        latest = None if loader._latest is None else loader._latest()
        if epoch and latest is not None and latest.movable:
            epoch += states.order_of(loader._source).epoch
            latest.begin(loader._run(loader._options.share(), epoch, 0), epoch)
            loader._at = (epoch, 0)
