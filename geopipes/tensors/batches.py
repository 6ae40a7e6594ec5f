"""Samples to batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from numbers import Integral, Real
from typing import Any

import torch

from geopipes.errors import TensorError
from geopipes.tensors.detections import Detections
from geopipes.tensors.rows import gathered


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make a batch of samples.

    Parameters
    ----------
    samples : at least one, all with the same keys

    Returns
    -------
    dict with the samples' keys: tensors of one shape and dtype are stacked on a new first axis, others
    (ragged ones) stay a list; integers become an int64 tensor (N,), other numbers float64 (N,), tuples of
    numbers of one length float64 (N, length); dicts are collated in turn, but for those of boxes, which stay a list
    as detectors take it; all else, strings too, is a list.

    Raises
    ------
    TensorError
        For no samples, for samples whose keys differ, and for series of different lengths.
    """
    if not samples:
        raise TensorError("collate: there are no samples; a batch needs at least one")
    names = samples[0].keys()
    for position, sample in enumerate(samples):
        if sample.keys() != names:
            different = sorted(sample.keys() ^ names)
            raise TensorError(
                f"collate: samples 0 and {position} differ in {', '.join(map(repr, different))}; needed the"
                " same keys in all samples of a batch: add or drop these in a step before batch()"
            )
    _check_dates(samples)
    return {key: _column([sample[key] for sample in samples]) for key in samples[0]}


def _check_dates(samples: Sequence[Mapping[str, Any]]) -> None:
    """Raise where tensors of samples have other dates than each other: a list of them would go unnoticed for long."""
    for key in samples[0]:
        if key != "time" and key.removesuffix("_time") not in samples[0].keys() - {key}:
            continue
        lengths = [len(sample[key]) for sample in samples if isinstance(sample[key], torch.Tensor)]
        if len({*lengths}) > 1:
            other = next(i for i, dates in enumerate(lengths) if dates != lengths[0])
            raise TensorError(
                f"collate: {key!r} has {lengths[0]} dates in sample 0, and {lengths[other]} in sample {other}: write "
                f"tensor(..., length={max(lengths)}, fill=0), which pads and says what is there in 'time_mask', or "
                "composite(...) before"
            )


def _column(values: list[Any]) -> Any:
    first = values[0]
    if _all(values, torch.Tensor):
        alike = all(value.shape == first.shape and value.dtype == first.dtype for value in values)
        if not alike:
            return values
        batch = gathered(values)
        return torch.stack(values) if batch is None else batch
    if _all(values, Detections):
        return values
    if _all(values, Mapping):
        return collate(values)
    if _all(values, Integral):
        return torch.tensor(values, dtype=torch.int64)
    if _all(values, Real):
        return torch.tensor(values, dtype=torch.float64)
    if _all(values, tuple) and len({*map(len, values)}) == 1 and _all(chain.from_iterable(values), Real):
        return torch.tensor(values, dtype=torch.float64)
    return values


def _all(values: Iterable[Any], kind: type) -> bool:
    """Say whether all values are of a kind; each type is asked once, as abstract ones answer slowly."""
    return all(issubclass(one, kind) for one in {*map(type, values)})
