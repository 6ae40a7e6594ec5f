"""Calling a model: as it stands, on its device, without gradients; and what tells it from another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import FunctionType
from typing import Any

import torch

from geopipes.fingerprints import Document, value_document

Model = Callable[..., Any]


def called(model: Model, inputs: Mapping[str, torch.Tensor], device: Any, autocast: torch.dtype | None) -> Any:
    """Call a model without gradients, a module as it is for evaluation.

    Parameters
    ----------
    model : any callable; a module's training flags are afterwards as they were
    inputs : by name; names that are no keywords, ``"0"``, ``"1"``, ..., are given by place
    device : where the model is; None for that of a module's first parameter, else that of the inputs
    autocast : in which precision torch may compute; None for that of the inputs

    Returns
    -------
    what the model gave
    """
    place = _device(model, device)
    moved = {name: tensor if place is None else tensor.to(place) for name, tensor in inputs.items()}
    args = [tensor for name, tensor in moved.items() if name.isdigit()]
    kwargs = {name: tensor for name, tensor in moved.items() if not name.isdigit()}
    kind = next(iter(moved.values())).device.type
    precision = nullcontext() if autocast is None else torch.autocast(kind, autocast)
    try:
        with torch.inference_mode(), precision, _evaluating(model):
            return model(*args, **kwargs)
    except Exception as error:
        given = ", ".join(f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}" for tensor in inputs.values())
        error.add_note(f"the model was given {given}{_hints(inputs)}")
        raise


def _hints(inputs: Mapping[str, torch.Tensor]) -> str:
    """Say what may not suit a model in what it was given."""
    hints = ""
    if any(not tensor.is_floating_point() for tensor in inputs.values()):
        hints += "; where it takes floats write tensor(..., dtype=torch.float32)"
    if any(tensor.ndim == 5 for tensor in inputs.values()):
        hints += "; where it takes (N, C, H, W), no axis of time, write tensor(..., time_axis=False)"
    return hints


def _device(model: Model, device: Any) -> torch.device | None:
    """Give the device that a model computes on, where it is known; a module that is told one goes there."""
    if isinstance(model, torch.nn.Module):
        if device is not None:
            model.to(device)
        first = next(model.parameters(), None)
        if first is not None:
            return first.device
    return None if device is None else torch.device(device)


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    """Let a module behave as in evaluation, each of its parts afterwards as before."""
    training = [part for part in model.modules() if part.training] if isinstance(model, torch.nn.Module) else []
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


def model_document(model: Model) -> Document:
    """Describe a model so that it can be told from another: its code's name, its weights as a hash.

    Returns
    -------
    what JSON can hold. Of a function, modules that it closes over, is bound to or names as globals count with their
    weights; code that is imported by name counts by its name

    Raises
    ------
    StepError
        if the model can neither be taken apart nor pickled
    """
    names = model.__code__.co_names if isinstance(model, FunctionType) else ()
    used = {name: model.__globals__.get(name) for name in names} if isinstance(model, FunctionType) else {}
    weights = {name: value_document(part) for name, part in used.items() if hasattr(part, "state_dict")}
    return {"model": value_document(model), "weights": weights}
