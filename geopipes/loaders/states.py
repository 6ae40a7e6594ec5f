"""Where a run stands, as a few numbers; and whether another pipe can go on from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from geopipes import fingerprints
from geopipes.chips.windows import Order, Windows
from geopipes.errors import SourceError, StateError
from geopipes.loaders.ops import Batch, Each, Op, Take, planned
from geopipes.steps import call

VERSION = 1
"""Of a state; another number is another meaning."""

KEYS = ("version", "fingerprint", "epoch", "position")

Document = fingerprints.Document


def order_of(source: Any) -> Order:
    """Give the order that a source stands in; elements from elsewhere have one alone."""
    windows = getattr(source, "windows", None)
    return windows.order if isinstance(windows, Windows) else Order()


def state(fingerprint: Document, epoch: int, position: int, length: int | None) -> dict[str, Any]:
    """Say where a run stands.

    Parameters
    ----------
    fingerprint : of its pipe
    epoch, position : of the one order, over all ranks, where it goes on
    length : positions of an epoch; None where nobody knows

    Returns
    -------
    what JSON can hold: ``version``, ``fingerprint``, ``epoch``, ``position``. The end of an epoch is the beginning of
    the next
    """
    if length is not None and position >= length:
        epoch, position = epoch + 1, 0
    return dict(zip(KEYS, (VERSION, fingerprint, epoch, position), strict=True))


def checked(state: Mapping[str, Any], fingerprint: Document, ops: Sequence[Op], ranks: int = 1) -> tuple[int, int]:
    """Take up a state.

    Returns
    -------
    (epoch, position)

    Raises
    ------
    StateError
        if it is none, of another version, or of another plan, order or chain; and if no batch begins at its position
    """
    if not isinstance(state, Mapping) or set(state) != {*KEYS}:
        found = sorted(state) if isinstance(state, Mapping) else type(state).__name__
        raise StateError(f"load_state_dict: {found} is no state; give what state_dict() gave, with {[*KEYS]}")
    if state["version"] != VERSION:
        raise StateError(f"load_state_dict: the state is of version {state['version']}, needed is {VERSION}")
    if lines := fingerprints.differences(state["fingerprint"], fingerprint):
        raise StateError(
            "load_state_dict: the state is of another plan or chain; write it as it was, or begin anew. What differs:\n"
            + "\n".join(f"  {line}" for line in lines)
        )
    epoch, position = int(state["epoch"]), int(state["position"])
    step = together(ops, ranks)
    if epoch < 0 or position < 0 or position % step:
        raise StateError(
            f"load_state_dict: epoch {epoch}, position {position}: a step of {ranks} ranks takes {step} elements, "
            "which must divide the position; write ranks that do"
        )
    return epoch, position


def block(ops: Sequence[Op]) -> int:
    """Give the elements that one of those that come out at the end is made of."""
    return prod(op.n for op in ops if isinstance(op, Batch))


def usable(length: int, ops: Sequence[Op]) -> int:
    """Give the positions of an epoch of so many elements, without those that ``drop_last=True`` leaves out."""
    return min(length, planned(length, ops) * block(ops))


def together(ops: Sequence[Op], ranks: int) -> int:
    """Give the elements that all ranks together take in a step: those of a batch, or else one each."""
    return block(ops) if block(ops) > 1 else ranks


def fingerprint(source: Any, ops: Sequence[Op]) -> Document:
    """Describe what decides which element comes at which position of which epoch.

    Returns
    -------
    what JSON can hold: ``plan``, hashes of its cubes and of its chips in any order; ``order``, the verb that put them
    in one; ``steps``. Ranks, processes and threads do not count

    Raises
    ------
    StateError
        if elements are counted after they are read, so that no position tells how many have been
    """
    if any(isinstance(op, Take) for op in ops):
        raise StateError("state_dict: take(n) after read() counts what comes by, and no position tells; take chips "
                         "of the plan, .take(n).read()")  # fmt: skip
    windows = getattr(source, "windows", None)
    steps = [_op(op) for op in ops]
    if not isinstance(windows, Windows):
        return {"source": type(source).__name__, "steps": steps}
    recorded: list[Document] = [fingerprints.step_document(step) for step in windows.steps]
    return {"plan": _plan(windows), "order": _order(windows.order), "steps": [*map(_brief, recorded), *steps]}


def _plan(windows: Windows) -> Document:
    """Describe the chips, whatever order they stand in."""
    bare = replace(windows, steps=())
    try:
        cubes = fingerprints.fingerprint(bare, chips=False)
    except SourceError:  # arrays that name no file: their chips must do
        cubes = "unknown"
    chips = fingerprints.describe(replace(bare.take(np.argsort(bare.ids, kind="stable")), cubes=()))["chips"]
    return {"cubes": cubes, "chips": chips["count"], "places": chips["sha256"]}


def _order(order: Order) -> str:
    """Write the verb that put chips in order."""
    if not isinstance(order.again, partial):
        return "as planned"
    options = {name: value for name, value in order.again.keywords.items() if value is not None and value is not False}
    return call(order.again.func.__name__, **options)


def _op(op: Op) -> Document:
    """Describe what happens after read."""
    if not isinstance(op, Each):
        return {"text": str(op)}
    return _brief(fingerprints.step_document(op.step)) | ({"keeps": True} if op.keeps else {})


def _brief(step: Document) -> Document:
    """Shorten the description of a step to its text and a hash."""
    return {"text": step["text"], "sha256": fingerprints.digest(step)}
