"""One loop over a loader: batches made ahead, on their device, counted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from weakref import finalize

from geopipes.loaders.ops import weight
from geopipes.loaders.runs import Run
from geopipes.progress import Bar
from geopipes.threads import Ahead

if TYPE_CHECKING:
    from geopipes.loaders.loader import Loader


class Pass(Iterator[Any]):
    """One loop over a loader.

    Parameters
    ----------
    loader : told of each batch that is delivered
    run : of the pipe
    epoch : that this is
    movable : whether it may become another epoch, until a batch is delivered
    """

    def __init__(self, loader: Loader, run: Run, epoch: int, *, movable: bool = False) -> None:
        self._loader, self.movable = loader, movable
        self._bar: _Counting | None = None
        self._batches: Any = None
        self.begin(run, epoch)

    def begin(self, run: Run, epoch: int) -> None:
        """Be an epoch from now on."""
        if self._batches is not None:
            self.close()
        loader, self.epoch = self._loader, epoch
        options = loader._options
        batches: Iterator[Any] = run
        if options.device is not None:
            import torch

            from geopipes.loaders.devices import Moving

            batches = Moving(run, torch.device(options.device))
        placed = _Placed(run, batches)
        ahead = Ahead(placed, options.prefetch) if options.prefetch else None
        self._batches = placed if ahead is None else ahead
        if loader._report is not None:
            self._batches = loader._report.watched(self._batches, ready=(lambda: 0) if ahead is None else ahead.ready)
        self._tally = run.tally
        self._bar = _Counting(loader, run, epoch) if options.progress else None

    def __next__(self) -> Any:
        """Give the next batch, and let the loader know."""
        self.movable = False
        try:
            position, batch = next(self._batches)
        except BaseException as error:
            if isinstance(error, StopIteration):
                self._tell((self.epoch + 1, 0), begun=False)
                self._settle(sys.maxsize)
            self._flush()
            if self._bar is not None:
                self._bar.close()
            raise
        self._tell((self.epoch, position), begun=True)
        self._settle(position)
        batch = batch.get() if self._loader._options.device is not None else batch
        if self._bar is not None:
            self._bar.count(position, batch)
        return batch

    def _settle(self, position: int) -> None:
        """Count what was delivered."""
        if self._tally is not None:
            self._tally.settle(position)

    def _flush(self) -> None:
        if self._tally is not None:
            self._tally.flush()

    def _tell(self, at: tuple[int, int], *, begun: bool) -> None:
        """Say how far this loop is, unless a later one has begun or the loader was put elsewhere."""
        loader = self._loader
        if loader._latest is not None and loader._latest() is self:
            loader._at, loader._begun = at, begun

    def state_dict(self) -> dict[str, Any]:
        """Give the loader's state."""
        return self._loader.state_dict()

    def close(self) -> None:
        """End the loop."""
        self._batches.close()
        self._flush()
        if self._bar is not None:
            self._bar.close()


class _Counting:
    """The bar of an epoch: chips of this rank, and those that were skipped."""

    def __init__(self, loader: Loader, run: Run, epoch: int) -> None:
        ranks, start, self._tally = loader._options.share().ranks, run.position, run.tally
        self._start, self._stop, self._ranks, self._come = start, loader._length, ranks, 0
        self._bar = Bar(self._stop // ranks, f"epoch {epoch}", done=start // ranks, unit="chips")
        self.close = finalize(self, self._bar.close)  # once, of a loop that is dropped too

    def count(self, position: int, batch: Any) -> None:
        """Count a batch, behind which is a position."""
        chips, size = weight(batch)
        self._come += chips
        passed = (min(position, self._stop) - self._start) // self._ranks
        self._bar.add(
            chips, size=size, skipped=passed - self._come, retries=self._tally.counts.retries if self._tally else 0
        )


class _Placed(Iterator[tuple[int, Any]]):
    """The batches of a run with the position behind each."""

    def __init__(self, run: Run, batches: Iterator[Any]) -> None:
        self._run, self._batches = run, batches

    def __next__(self) -> tuple[int, Any]:
        batch = next(self._batches)
        return self._run.position, batch

    def close(self) -> None:
        self._batches.close()  # type: ignore[attr-defined]  # a run, or what copies its batches
