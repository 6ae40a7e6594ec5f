"""How well the shuffled order mixes: means of batches beside those of a plain permutation."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.jobs import Job, job
from benchmarks.world import World
from geopipes import orders

Array = np.ndarray[Any, Any]


def mixing(world: World, *, seeds: int) -> dict[str, Any]:
    """Compare the orders by each chip's mean of the first band, where there is one.

    Returns
    -------
    variance : of the batches' means, shuffled over plain; the mean over seeds of each
    neighbours, plain_neighbours : correlation of a batch's mean with the next one's
    spread : standard deviation of the chips' means, for scale
    """
    asked = job("same-grid", world)
    values = _values(asked)
    ours, plain = (
        [_means(values[orders.shuffle(asked.windows, seed, exact=exact).ids], asked.batch) for seed in range(seeds)]
        for exact in (False, True)
    )
    return {
        "variance": float(np.mean([m.var() for m in ours]) / np.mean([m.var() for m in plain])),
        "neighbours": float(np.mean([_neighbours(m) for m in ours])),
        "plain_neighbours": float(np.mean([_neighbours(m) for m in plain])),
        "spread": float(values.std()),
    }


def _values(asked: Job) -> Array:
    """Read every chip once: its mean by id; the mean of all where it has no valid pixel."""
    values = np.full(len(asked.windows), np.nan)
    for batch in asked.part(bands=1).chain(order="sequential", threads=2):
        pixels, valid = batch["image"].numpy()[:, 0, 0], batch["image_valid"].numpy()[:, 0]
        count = valid.sum(axis=(1, 2))
        sums = pixels.astype(np.float64).sum(axis=(1, 2), where=valid)
        values[batch["chip"].numpy()] = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    return np.where(np.isnan(values), np.nanmean(values), values)


def _means(values: Array, batch: int) -> Array:
    """Give the means of whole batches."""
    whole = len(values) // batch * batch
    return np.asarray(values[:whole].reshape(-1, batch).mean(axis=1))


def _neighbours(means: Array) -> float:
    return float(np.corrcoef(means[:-1], means[1:])[0, 1])
