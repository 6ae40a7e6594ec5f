"""Chips to samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from geopipes.errors import TensorError
from geopipes.tensors.cuts import Cut
from geopipes.tensors.dates import OF_DATES, Length, check_length, length_of, of_dates
from geopipes.tensors.detections import detections
from geopipes.tensors.stacking import named, stacked

PLACE = ("chip", "bounds", "crs", "transform", *OF_DATES)
"""Keys of a sample that no tensor may take."""


def tensor(
    chip: xr.Dataset | Mapping[str, xr.Dataset],
    /,
    *,
    fill: float | None,
    dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
    time_axis: bool = True,
    length: Length = None,
    doy: bool = False,
    columns: str | Sequence[str] = (),
    **tensors: str | Sequence[str],
) -> dict[str, Any]:
    """Make a sample of a chip: named tensors, their validity, and the chip's place.

    Parameters
    ----------
    chip : a loaded chip, or one for each input; its margin is cropped here
    fill : written into every pixel of the stack's variables that is not valid, and over NaN; None leaves
        them as they are. Joined variables (labels, elevation) are never filled in a tensor of their own; beside the
        stack's, in one list, their NaN and their own nodata are filled and not valid, too.
    dtype : of all tensors, or by name ``{"image": torch.float32}``; by default the chip's own, where
        variables differ the one that NumPy promotes them to
    time_axis : False drops the axis of time from chips of one date
    length : dates of all tensors that have time, or by name ``{"s2": 12}``: chips of fewer are padded at the end, with
        ``fill``, not valid, so that batches of chips of different dates are tensors
    doy : whether to say the day of the year of each date
    columns : of the plan, for the sample to carry: ``columns="probability"`` for weights of 1 / probability
    **tensors : the name of each tensor with its variables. A list gives a band axis, (T, C, H, W), to which a
        variable with bands gives all of them in order; a variable without time is repeated over time where
        others of the list have one, else (C, H, W). A plain string adds no axis: (T, H, W), or (H, W).
        With several inputs a keyword that is an input's name takes its variables from that input
        (``s2=["red", "nir"]``); elsewhere a variable is written "input/variable" (``label="s2/crop"``).
        Boxes, ``target="boxes"``, become a dict as torchvision's detectors take it: ``boxes`` (N, 4), float32, x0, y0,
        x1 and y1 in pixels of the chip; ``labels`` and ``ids`` (N,), int64. Batches hold a list of these.

    Returns
    -------
    dict: each tensor under its name; ``<name>_valid``, bool, (T, H, W) or (H, W), for those that hold variables
    of the stack: False where ``valid`` is, and where one of its floats is NaN or one of its joined variables its
    nodata; ``chip``, ``bounds``, ``crs``
    and ``transform`` (of the first input); ``time`` where the chip has one, with several inputs ``<name>_time``
    for each tensor that has time (int64 nanoseconds since 1970, UTC; the smallest for none); beside it ``doy``
    (int64, 1 for 1 January, 0 for none) where asked for, and with ``length`` ``time_mask`` (bool), which is True
    for dates on which the chip measured anything; and the columns asked for, numbers or text (dates as ISO text).
    A tensor of one variable shares the chip's memory where that is contiguous, of the dtype asked for, and has
    nothing to fill.

    Notes
    -----
    A variable is joined where its attribute "joined" is true, or where it has no time and ``valid`` has one.

    Raises
    ------
    TensorError
        For a name or a variable that cannot be used, several dates with ``time_axis=False``, more than ``length``, a
        fill that the
        dtype does not hold, a dtype that would change values other than by rounding, and a Dataset that is no
        chip (it needs ``valid``, ``chip``, ``spatial_ref``, and coordinates that agree with it).
    """
    names = check_names(tensors, dtype, columns)
    if not isinstance(chip, xr.Dataset | Mapping):
        raise TensorError(
            f"tensor() takes a chip, an xr.Dataset or a dict of them; the step before it gave {type(chip).__name__}"
        )
    alone = isinstance(chip, xr.Dataset)
    check_length(length, tensors, several=not alone)
    inputs: Mapping[str, xr.Dataset] = {"": chip} if isinstance(chip, xr.Dataset) else chip
    cuts = {key: Cut.of(dataset) for key, dataset in inputs.items()}
    sample: dict[str, Any] = {}
    for name, wanted in tensors.items():
        variables = [wanted] if isinstance(wanted, str) else list(wanted)
        key, variables = ("", variables) if alone else _input_of(name, variables, list(cuts))
        if len(variables) == 1 and cuts[key].holds_boxes(variables[0]):
            sample[name] = detections(cuts[key], variables[0])
            continue
        layers = [cuts[key].layer(name, variable) for variable in variables]
        as_dtype = dtype.get(name) if isinstance(dtype, Mapping) else dtype
        timed = any(layer.timed for layer in layers)
        dates = length_of(name, length) if timed else None
        pixels, valid = stacked(name, layers, cuts[key].valid(), fill=fill, dtype=as_dtype, length=dates)
        if timed and not time_axis:
            _check_one_date(name, dates=pixels.shape[0])
        date = None if timed and time_axis else 0
        band = 0 if isinstance(wanted, str) and not layers[0].banded else None
        sample |= named(name, pixels, valid, date=date, band=band)
        if timed and not alone:
            said = of_dates(cuts[key].time(), cuts[key].valid(), length=dates, doy=doy)
            sample |= {f"{name}_{one}": values for one, values in said.items()}
    first = next(iter(cuts.values()))
    if alone and "time" in first.chip.coords:
        sample |= of_dates(first.time(), first.valid(), length=length_of("", length), doy=doy)
    return sample | {name: first.column(name) for name in names} | first.place()


def check_names(
    tensors: Mapping[str, str | Sequence[str]],
    dtype: torch.dtype | Mapping[str, torch.dtype] | None,
    columns: str | Sequence[str],
) -> list[str]:
    """Raise where no chip could give these tensors and columns; give the columns as a list.

    Raises
    ------
    TensorError
        for no tensor or no variable, a name that a sample keeps for itself, a dtype that is not torch's or of a tensor
        that is not there, and a column of a tensor's name
    """
    if not tensors:
        raise TensorError('tensor(): no tensor is named; write for example image=["red", "nir"]')
    for name, variables in tensors.items():
        if not variables:
            raise TensorError(f'tensor({name}={variables!r}): no variable is named; write {name}=["red", "nir"]')
    taken = {*PLACE, *(f"{name}_{suffix}" for name in tensors for suffix in ("valid", *OF_DATES))}
    if clash := sorted(taken & tensors.keys()):
        raise TensorError(
            f"tensor({clash[0]}=...): a sample keeps the key {clash[0]!r} for itself; choose another name"
        )
    if isinstance(dtype, Mapping) and (unknown := sorted(dtype.keys() - tensors.keys())):
        raise TensorError(f"tensor(dtype=...): there is no tensor {unknown[0]!r}; the tensors are {', '.join(tensors)}")
    for given in dtype.values() if isinstance(dtype, Mapping) else [dtype]:
        if not isinstance(given, torch.dtype | None):
            raise TensorError(f"tensor(dtype={given!r}): a dtype of torch is needed; write torch.{_named(given)}")
    names = [columns] if isinstance(columns, str) else list(columns)
    if clash := [name for name in names if name in taken | tensors.keys() | {"margin"}]:
        raise TensorError(
            f"tensor(columns=...): the name {clash[0]!r} is that of a tensor, or kept for the chip's place; rename the "
            "column in the plan, .assign(other=...)"
        )
    return names


def _named(dtype: Any) -> str:
    """Give torch's name of a dtype that is NumPy's, or text."""
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = ""
    return name if isinstance(getattr(torch, name, None), torch.dtype) else "float32"


def _check_one_date(name: str, *, dates: int) -> None:
    if dates != 1:
        raise TensorError(
            f"tensor({name}=..., time_axis=False): the chip has {dates} dates, needed one; cut chips of one"
            " date with chip(time=1), make a composite of them, or keep the axis with time_axis=True"
        )


def _input_of(name: str, variables: list[str], inputs: list[str]) -> tuple[str, list[str]]:
    """Find the one input that a tensor takes its variables from, and their names there."""
    found: dict[str, list[str]] = {}
    for variable in variables:
        prefix, slash, rest = variable.partition("/")
        key, own = (prefix, rest) if slash and prefix in inputs else (name, variable)
        if key not in inputs:
            raise TensorError(
                f"tensor({name}=...): {variable!r} is in none of the inputs {', '.join(inputs)}; write"
                f' "input/variable", for example {name}="{inputs[0]}/{variable}"'
            )
        found.setdefault(key, []).append(own)
    if len(found) > 1:
        raise TensorError(
            f"tensor({name}=...): variables of several inputs ({', '.join(found)}), each with times and a"
            " resolution of its own; make a tensor of each, or join() them onto one grid before"
        )
    return next(iter(found.items()))
