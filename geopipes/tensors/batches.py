"""Samples to batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch

from geopipes.errors import TensorError
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
    numbers of one length float64 (N, length); dicts are collated in turn; all else, strings too, is a list.

    Raises
    ------
    TensorError
        For no samples, and for samples whose keys differ.
    """
    if not samples:
        raise TensorError("collate: there are no samples; a batch needs at least one")
    for position, sample in enumerate(samples):
        if different := sorted(sample.keys() ^ samples[0].keys()):
            raise TensorError(
                f"collate: samples 0 and {position} differ in {', '.join(map(repr, different))}; needed the"
                " same keys in all samples of a batch: add or drop these in a step before batch()"
            )
    return {key: _column([sample[key] for sample in samples]) for key in samples[0]}


def _column(values: list[Any]) -> Any:
    first = values[0]
    if all(isinstance(value, torch.Tensor) for value in values):
        alike = all(value.shape == first.shape and value.dtype == first.dtype for value in values)
        if not alike:
            return values
        batch = gathered(values)
        return torch.stack(values) if batch is None else batch
    if all(isinstance(value, Mapping) for value in values):
        return collate(values)
    if all(isinstance(value, Integral) for value in values):
        return torch.tensor(values, dtype=torch.int64)
    if all(isinstance(value, Real) for value in values):
        return torch.tensor(values, dtype=torch.float64)
    if all(isinstance(value, tuple) and len(value) == len(first) for value in values) and all(
        isinstance(number, Real) for value in values for number in value
    ):
        return torch.tensor(values, dtype=torch.float64)
    return values
