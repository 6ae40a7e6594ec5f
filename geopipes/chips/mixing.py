"""Plans in one, and batches of one scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from geopipes.chips.choosing import SLACK, allotted, sample, shared_out
from geopipes.chips.rows import shuffled
from geopipes.chips.windows import Order, Windows, check_some
from geopipes.errors import ChipError


def mix(plans: Mapping[str, Windows], *, shares: Mapping[str, float], seed: int, n: int | None = None) -> Windows:
    """Mix plans: so many windows of each, at random, in one.

    Parameters
    ----------
    plans : by name; of one size, margin, number of dates and steps; their cubes may differ
    shares : of each plan among the windows, by name, summing to 1
    seed : of numpy's PCG64
    n : windows in all; None for as many as the shares allow

    Returns
    -------
    the windows chosen, plan by plan (`geopipes.orders.shuffle` mixes them), with new ids. Columns: those of all
    plans, without value (NaN) where a plan has none; ``source``, the plan's name; ``source_id``, the id there;
    ``probability``, multiplied by chosen / all of the plan

    Raises
    ------
    ChipError
        if the plans differ, are groups, or have fewer windows than their shares ask for
    """
    call = f"mix({', '.join(plans)})"
    if plans.keys() != shares.keys() or not plans:
        raise ChipError(f"{call}: shares={dict(shares)} must name each plan")
    head = next(iter(plans.values()))
    for name, plan in plans.items():
        if type(plan) is not Windows:
            raise ChipError(f"{call}: {name!r} is a plan of {type(plan).__name__}; mix plans before they are grouped")
        for what in ("size", "margin", "dates", "steps"):
            if getattr(plan, what) != getattr(head, what):
                raise ChipError(
                    f"{call}: {what} of {name!r} is {getattr(plan, what)}, of the first {getattr(head, what)}"
                )
    part = shared_out(shares, np.array([*plans]), np.array([len(plan) for plan in plans.values()]), call)
    if n is None:
        n = int(min(len(plan) / share for plan, share in zip(plans.values(), part, strict=True) if share > 0) + SLACK)
    wanted = dict(zip(plans, allotted(n, part, call), strict=True))
    if short := [f"{name}: {wanted[name]} of {len(plan)}" for name, plan in plans.items() if wanted[name] > len(plan)]:
        raise ChipError(f"{call}: more windows are asked for than there are ({', '.join(short)}); use a smaller n")
    seeds = np.random.default_rng(seed).integers(1 << 32, size=len(plans))
    chosen = {
        name: sample(plan, wanted[name], seed=int(own))
        for (name, plan), own in zip(plans.items(), seeds, strict=True)
        if wanted[name] > 0
    }
    return _one(chosen)


def _one(plans: Mapping[str, Windows]) -> Windows:
    """Put plans one after the other; cubes that are the same stand once."""
    cubes = {id(cube): cube for plan in plans.values() for cube in plan.cubes}
    number = {key: i for i, key in enumerate(cubes)}
    cube = [np.array([number[id(cube)] for cube in plan.cubes])[plan.cube] for plan in plans.values()]
    place: dict[str, Any] = {
        name: np.concatenate([plan.values(name) for plan in plans.values()]) for name in ("time", "row", "col")
    }
    columns = {
        "source": np.repeat([*plans], [len(plan) for plan in plans.values()]),
        "source_id": np.concatenate([plan.ids for plan in plans.values()]),
    }
    tables = [pd.DataFrame(dict(plan.columns), index=range(len(plan))) for plan in plans.values()]
    joined = pd.concat(tables, ignore_index=True)
    columns |= {str(name): joined[name].to_numpy() for name in joined.columns if name not in columns}
    head = next(iter(plans.values()))
    whole = Windows.of(tuple(cubes.values()), head.size, cube=np.concatenate(cube), **place, columns=columns)
    return replace(whole, margin=head.margin, dates=head.dates, steps=head.steps)


def by_scene(windows: Windows, batch: int, *, seed: int, epoch: int = 0) -> Windows:
    """Put the windows in a random order in which each batch is of one scene: of one cube's date.

    Parameters
    ----------
    windows : (N,) a plan
    batch : windows in a batch; the plan's order gives batches by ``.batch(batch)``
    seed : of numpy's PCG64
    epoch : another one is another order; `geopipes.orders.epoch` gives that of the windows chosen here

    Returns
    -------
    batches in random order, the windows of a scene dealt to its batches at random, each at most once. The windows of
    a scene that fill no batch, others for another seed, are left out: `Windows.left_out` counts them

    Raises
    ------
    ChipError
        if no scene has enough windows for a batch
    """
    check_some(windows, f"by_scene({batch})")
    if batch < 1:
        raise ChipError(f"by_scene({batch}): give the windows in a batch, at least 1")
    rng = np.random.default_rng((seed, epoch))
    windows, every = windows.take(np.argsort(windows.ids, kind="stable")), len(windows)
    time = windows.time
    scene = windows.cube * (int(time.max(initial=0)) + 1) + time
    del time
    scene = pd.factorize(scene)[0]
    held = np.bincount(scene)
    scene = scene.astype(np.min_scalar_type(len(held)))
    order = shuffled(len(scene), rng)
    order = order[np.argsort(scene[order], kind="stable")]
    whole = held // batch * batch
    starts = np.cumsum(held) - held
    firsts = np.concatenate([np.arange(s, s + w, batch) for s, w in zip(starts, whole, strict=True)])
    if len(firsts) == 0:
        raise ChipError(f"by_scene({batch}): the {len(held)} scenes have at most {held.max(initial=0)} windows each")
    chosen = order[(rng.permutation(firsts)[:, None] + np.arange(batch)).ravel()]
    again = partial(by_scene, batch=batch, seed=seed)
    return replace(windows.take(chosen), left_out=every - len(chosen), order=Order(seed, epoch, again))
