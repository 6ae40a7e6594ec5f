"""Work for each chip when there is twice as much: counters, which no other load on the machine changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.jobs import Job, job
from benchmarks.world import World

EPOCHS = 2
"""Orders of a few thousand chips differ by some percent in their decodes."""


def scaling(world: World, *, order: str, threads: int) -> dict[str, Any]:
    """Count tiles decoded for each chip and band: half the scenes and bands, then twice of one thing each.

    The images of the job on their own grid, without the label, whose tiles are no multiple of theirs. The cache
    grows with the bands, as the tiles of a place do.

    Returns
    -------
    decodes for each chip and band, under base, scenes, bands and chips (twice the epochs); growth : the largest
    change, relative to the base
    """
    whole = replace(job("same-grid", world), label=None)
    scenes, bands = len(whole.items) // 2, len(whole.bands) // 2
    cache = whole.cache // len(whole.bands)
    counted = {
        "base": _decodes(whole.part(items=scenes, bands=bands), order, threads, cache * bands),
        "scenes": _decodes(whole.part(bands=bands), order, threads, cache * bands),
        "bands": _decodes(whole.part(items=scenes, bands=2 * bands), order, threads, cache * 2 * bands),
        "chips": _decodes(whole.part(items=scenes, bands=bands), order, threads, cache * bands, epochs=2 * EPOCHS),
    }
    base = counted["base"]
    return {**counted, "growth": max(abs(value / base - 1) for value in counted.values())}


def _decodes(asked: Job, order: str, threads: int, cache: int, *, epochs: int = EPOCHS) -> float:
    """Count decodes for each chip and band, over epochs that begin without any tile."""
    from geopipes.read.tiles import shared

    before, chips = shared().counts.decoded, 0
    for epoch in range(epochs):
        shared().forget()
        for batch in asked.chain(order=order, threads=threads, cache=cache, seed=epoch):
            chips += len(batch["image"])
    return (shared().counts.decoded - before) / chips / len(asked.bands)
