"""Epochs and shards: which chip stands where, in the order of another epoch, for one of several ranks."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from geopipes.chips import Windows
from geopipes.errors import ChipError

Tail = Literal["drop", "pad"]


def epoch(windows: Windows, number: int) -> Windows:
    """Give a plan in the order of another epoch.

    Parameters
    ----------
    windows : (n,) a plan; one that no verb has put in a random order has one order for all epochs
    number : of the epoch, from 0

    Returns
    -------
    the same chips, by a function of the chips, the seed and the epoch alone. Of a plan whose chips were chosen after
    they were shuffled this is the order of the chosen ones, which for epoch 0 too need not be the one they stand in

    Raises
    ------
    ChipError
        for a number below 0, and for one rank's part of an order, of which no other part can be told
    """
    order = windows.order
    if number < 0:
        raise ChipError(f"epoch({number}): epochs are counted from 0")
    if order.again is None:
        return replace(windows, order=replace(order, epoch=number))
    if order.stands and order.epoch == number:
        return windows
    if order.share is not None:
        rank, ranks = order.share
        raise ChipError(
            f"epoch({number}) of one rank's part: write .epoch({number}).shard({rank}, {ranks}), or leave shard "
            "out and write loader(rank=..., ranks=...), which does both"
        )
    return order.again(windows, epoch=number)


def shard(windows: Windows, rank: int, ranks: int, *, tail: Tail | None = None) -> Windows:
    """Give one rank's part of an order: every ``ranks``-th chip.

    So the batches of all ranks, put together, are those of one rank whose batches are ``ranks`` times as large; and
    the ranks decode few of the same tiles, if they divide the lanes of `geopipes.orders.shuffle`. All have as many
    chips. `geopipes.loaders.loader` shards by itself: this is for loops and loaders of others.

    Parameters
    ----------
    windows : (n,) a plan
    rank : of this process, from 0
    ranks : processes that share the plan
    tail : what becomes of chips left over where the ranks do not divide them: ``"drop"`` leaves the last ones out,
        ``"pad"`` gives the first ones of the order once more

    Returns
    -------
    the chips of this rank, with their ids

    Raises
    ------
    ChipError
        if there is no such rank, chips are left over and tail says nothing of them, or no chip is left
    """
    call = f"shard({rank}, {ranks})"
    if not 0 <= rank < ranks:
        raise ChipError(f"{call}: ranks are counted from 0, {ranks} of them")
    if tail not in (None, "drop", "pad"):
        raise ChipError(f"{call}: tail={tail!r}; write 'drop' or 'pad'")
    over = len(windows) % ranks
    if over and tail is None:
        raise ChipError(
            f"{call}: {len(windows)} chips over {ranks} ranks leave {over}; write tail='drop', which leaves the last "
            f"{over} out, or tail='pad', which gives the first {ranks - over} once more"
        )
    count = len(windows) // ranks + (over > 0 and tail == "pad")
    if count == 0:
        raise ChipError(f"{call}: the plan has {len(windows)} chips, fewer than ranks; write tail='pad'")
    part = windows.take(np.arange(rank, count * ranks, ranks) % len(windows))
    return replace(part, order=replace(windows.order, share=(rank, ranks)))
