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
    rank share an order in the same way
    """
    asked = job(name, world)
    windows = orders.shuffle(asked.windows, 0, exact=order == "random", lanes=asked.batch)
    needed = []
    for position in range(len(windows)):
        cube, window = windows.window(position)
        needed.append({*cube.keys(window)})
    return {str(ranks): _share(needed, ranks) for ranks in RANKS}


def _share(needed: list[set[Any]], ranks: int) -> float:
    """Give the share of tiles that more than one rank reads."""
    readers = Counter(key for rank in range(ranks) for key in set().union(*needed[rank::ranks]))
    return sum(count > 1 for count in readers.values()) / len(readers)
