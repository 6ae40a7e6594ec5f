"""How many tiles more than one rank reads, in an epoch that they share: told by the plan, nothing decoded."""

from __future__ import annotations

from collections import Counter
from typing import Any

from benchmarks.jobs import job
from benchmarks.world import World
from geopipes import orders

RANKS = (1, 2, 4)


def shared(world: World, *, name: str, order: str) -> dict[str, Any]:
    """Deal the chips of an epoch to ranks as the loader does, and count the tiles that each needs.

    Returns
    -------
    for each number of ranks, ``"2"``, the share of tiles that more than one of them reads; worker processes of one
    rank share an order in the same way. ``"2 workers"``: of torch's DataLoader, which have whole batches in turn
    """
    asked = job(name, world)
    windows = orders.shuffle(asked.windows, 0, exact=order == "random", lanes=asked.batch)
    needed = []
    for position in range(len(windows)):
        cube, window = windows.window(position)
        needed.append({*cube.keys(window)})
    lanes = {str(ranks): _share(needed, ranks, 1) for ranks in RANKS}
    return lanes | {f"{workers} workers": _share(needed, workers, asked.batch) for workers in RANKS}


def _share(needed: list[set[Any]], number: int, block: int) -> float:
    """Give the share of tiles that more than one reader needs, who take blocks of chips in turn."""
    own = [[tiles for p, tiles in enumerate(needed) if p // block % number == reader] for reader in range(number)]
    readers = Counter(key for chips in own for key in set().union(*chips))
    return sum(count > 1 for count in readers.values()) / len(readers)
