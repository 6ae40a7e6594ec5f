"""Who loads which positions of the one order: ranks, their worker processes, torch's workers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

Mine = Callable[[int], bool]
"""Says whether a position is one's own."""


@dataclass(frozen=True)
class Share:
    """The positions that one process loads: of those of its rank, every ``processes``-th.

    Position p belongs to rank ``p % ranks``, and there to process ``p // ranks % processes``: so each owns lanes of
    the order (`geopipes.orders.shuffle`), and each batch has rows of all.

    Attributes
    ----------
    rank, ranks : this rank, of how many
    process, processes : this process of the rank's, of how many
    """

    rank: int = 0
    ranks: int = 1
    process: int = 0
    processes: int = 1

    def positions(self, start: int, stop: int) -> range:
        """Give the positions of this process from one that begins a batch, up to another one."""
        skipped = (self.process - start // self.ranks) % self.processes
        return range(start + self.rank + skipped * self.ranks, stop, self.ranks * self.processes)

    def owns(self, position: int) -> bool:
        """Say whether a position belongs to this process."""
        return position % self.ranks == self.rank and position // self.ranks % self.processes == self.process


def torch_worker() -> tuple[int, int]:
    """Give this process's number among the workers of a torch DataLoader, and how many there are; (0, 1) outside."""
    if "torch" not in sys.modules:
        return 0, 1
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)
