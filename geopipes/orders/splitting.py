"""Split: plans that share no ground, and the one way in which all splits leave a buffer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from geopipes.chips import Windows
from geopipes.chips.places import ground as ground  # the name by which it was known here
from geopipes.chips.rows import SORTED_AT_ONCE, chunks, gathered, where
from geopipes.chips.windows import check_some
from geopipes.errors import ChipError
from geopipes.orders.closeness import Mask
from geopipes.orders.grounds import Ground, near

FRACTION_SLACK = 1e-6
"""By how much the fractions of a split may miss 1."""

Owner = npt.NDArray[np.int16]
"""(n,) the number of the split that each chip is in; -1 for none."""

ROOM = "use smaller blocks, a smaller buffer, or a larger area"


def split(
    windows: Windows, fractions: Sequence[float], *, block: float, buffer: float = 0.0, seed: int
) -> tuple[Windows, ...]:
    """Split a plan by random square blocks of ground, so that neighbours stand in one split.

    Every chip goes with the block that holds its centre; all dates of a place stay together. Chips of an earlier
    split that overlap a chip of a later one, or come nearer than ``buffer``, are left out: a training split,
    named first, makes room for the splits that judge it.

    Parameters
    ----------
    windows : (n,) a plan
    fractions : of the chips in each split, summing to 1; met as nearly as whole blocks allow, before the buffer
    block : side of the blocks [m], laid on one equal-area plane over all zones
    buffer : least distance between the chips of two splits [m]
    seed : of numpy's PCG64

    Returns
    -------
    one plan for each fraction; chips keep their ids and order, and the column ``split`` says 0, 1, ...

    Raises
    ------
    ChipError
        if the fractions do not sum to 1, the buffer is wider than a block, or a split stays empty
    """
    shares = np.asarray(fractions, float)
    if shares.ndim != 1 or len(shares) < 2 or not (shares > 0).all() or abs(shares.sum() - 1) > FRACTION_SLACK:
        raise ChipError(f"split({fractions!r}): give two or more positive fractions that sum to 1, as (0.8, 0.2)")
    what = f"split({tuple(shares.tolist())}, block={block:g}, buffer={buffer:g})"
    ground, owner, count = dealt(windows, shares, block=block, buffer=buffer, seed=seed, what=what)
    return apart(ground, owner, range(len(shares)), buffer=buffer, what=f"{what}: {count} blocks", mend=ROOM)


def dealt(
    windows: Windows, shares: npt.NDArray[np.float64], *, block: float, buffer: float, seed: int, what: str
) -> tuple[Ground, Owner, int]:
    """Deal random blocks of ground to splits.

    Returns
    -------
    (ground, owner, count) : the plan's ground, the split of each chip, and how many blocks there are
    """
    if not block > 0 or not buffer >= 0:
        raise ChipError(f"{what}: both are metres; block above 0, buffer at least 0")
    if buffer > block:
        raise ChipError(f"{what}: the buffer is wider than a block; use a smaller buffer, or larger blocks")
    ground = laid(windows, what)
    member, counts = blocks(ground, block)
    return ground, gathered(deal(counts, shares, seed), member), len(counts)


def laid(windows: Windows, what: str) -> Ground:
    """Lay a plan on the plane."""
    check_some(windows, what)
    return Ground.of(windows)


def blocks(ground: Ground, side: float) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Lay square blocks.

    Returns
    -------
    (member, counts) : the block that holds each chip's centre (of a group that of its first member), numbered by
        place, and the chips in each
    """
    x, y = ground.centres[0]
    member = np.empty(len(x), np.int32)
    codes = []
    for at in chunks(len(x), SORTED_AT_ONCE):
        column, row = (np.floor(axis[at].astype(float) / side).astype(np.int64) for axis in (x, y))
        found, which = np.unique((column << 32) + row, return_inverse=True)
        member[at] = which
        codes.append(found)
    every = np.unique(np.concatenate(codes))
    counts = np.zeros(len(every), np.int64)
    for at, found in zip(chunks(len(x), SORTED_AT_ONCE), codes, strict=True):
        member[at] = np.searchsorted(every, found)[member[at]]
        counts += np.bincount(member[at], minlength=len(every))
    return member, counts


def deal(counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], seed: int) -> Owner:
    """Deal blocks in random order, each to the split that is furthest behind its share."""
    owner = np.empty(len(counts), np.int16)
    behind = (shares * counts.sum()).tolist()
    order = np.random.default_rng(seed).permutation(len(counts))
    for at in chunks(len(order), SORTED_AT_ONCE):
        owners = []
        for count in counts[order[at]].tolist():  # plain numbers: 0.2 s for a million blocks
            most = behind.index(max(behind))
            behind[most] -= count
            owners.append(most)
        owner[order[at]] = owners
    return owner


def apart(
    ground: Ground, owner: Owner, names: Sequence[Any], *, buffer: float, what: str, mend: str
) -> tuple[Windows, ...]:
    """Leave room between splits: chips of an earlier one that come near a later one are left out.

    Parameters
    ----------
    ground : of a plan of n chips
    owner : (n,) the split of each chip, by number; -1 for none
    names : of the splits, for the column ``split``
    buffer : least distance between the chips of two splits [m]
    what, mend : the call, and how to do better, for errors

    Returns
    -------
    one plan for each name

    Raises
    ------
    ChipError
        if one stays empty
    """
    kept: list[Mask] = []
    for number in range(len(names)):
        own, later = owner == number, owner > number
        if own.any() and later.any():
            own &= ~near(ground.only(own), ground.only(later), buffer)
        kept.append(own)
    held = [int(np.count_nonzero(mask)) for mask in kept]
    if 0 in held:
        raise ChipError(f"{what} give splits of {held} chips; {mend}")
    return tuple(named(ground.windows.take(where(mask)), n) for mask, n in zip(kept, names, strict=True))


def named(windows: Windows, name: Any) -> Windows:
    """Write a split's name beside each of its chips."""
    dtype = np.int16 if isinstance(name, int | np.integer) else None
    return windows.with_columns({"split": np.asarray(name, dtype)})
