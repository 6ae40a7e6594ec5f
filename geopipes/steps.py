"""Steps: what happens to each element, recorded when it is typed and applied chip by chip.

A `Step` is a function with its arguments, printed as it was typed. The rules that hold for every step on a
Dataset stand here once: it gives a Dataset again, keeps the chip's identity and place, and never loses `valid`.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
import xarray as xr

from geopipes.errors import StepError
from geopipes.kinds import STALE
from geopipes.meters import metering

IDENTITY = ("spatial_ref", "chip")
"""Scalar coordinates that say where and which a chip is; a step that drops them gets them back."""

ADDRESS = " object at 0x"
"""What Python prints of objects that have no text of their own."""

LONGEST_ARGUMENT = 60
"""Characters of an argument that a printed chain shows; longer ones are cut in the middle."""


@dataclass(frozen=True)
class Step:
    """A function of one element, with its arguments.

    Attributes
    ----------
    text : as it was typed, ``scale(['red'], factor=0.0001)``
    function : takes the element first
    args, kwargs : the other arguments
    margin : pixels beyond the window that the function needs on every side, in pixels of the (first) input
    local_in_time : whether each date of the result depends on that date alone
    all_dates : whether the function must see all dates of a cube, and never some of them
    draws : whether the function takes random numbers, as ``rng=``
    """

    text: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    margin: int = 0
    local_in_time: bool = False
    all_dates: bool = False
    draws: bool = False

    def __str__(self) -> str:
        """Give the step as it was typed."""
        return self.text

    def __call__(self, element: Any, key: Sequence[int] = ()) -> Any:
        """Apply the step; what identifies a Dataset and its `valid` are inherited, errors name the step.

        Parameters
        ----------
        element : what the function takes first
        key : of the random numbers that it draws: the same numbers for the same key
        """
        if (meter := metering.get()) is None:
            return self._applied(element, key)
        with meter.timing(meter.row_of(self)):
            return self._applied(element, key)

    def _applied(self, element: Any, key: Sequence[int]) -> Any:
        drawn = {"rng": np.random.default_rng(key)} if self.draws else {}
        try:
            return self._inherited(element, self.function(element, *self.args, **self.kwargs, **drawn))
        except Exception as error:
            error.add_note(f"in step {self}")
            raise

    def _inherited(self, element: Any, result: Any) -> Any:
        if isinstance(element, xr.Dataset) and isinstance(result, xr.Dataset):
            return inherit(element, result, self)
        if isinstance(element, dict) and isinstance(result, dict):
            pairs = {name: (element.get(name), after) for name, after in result.items()}
            return {
                name: inherit(before, after, self)
                if isinstance(before, xr.Dataset) and isinstance(after, xr.Dataset)
                else after
                for name, (before, after) in pairs.items()
            }
        return result

    def check_pickles(self) -> None:
        """Raise where the function cannot travel to another process.

        Raises
        ------
        StepError
            for a lambda or a function defined inside another one
        """
        try:
            pickle.dumps((self.function, self.args, dict(self.kwargs)))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise StepError(
                f"{self} cannot travel to another process: {error}. "
                "Define its function at the top level of a module, or use num_workers=0"
            ) from error


def inherit(before: xr.Dataset, after: xr.Dataset, step: object) -> xr.Dataset:
    """Give the result of a step what every chip carries.

    What identifies the chip and ``valid`` come back where the step dropped them. Whole numbers that became fractions
    lose the attributes of stored pixels, unless they were joined: these keep their own nodata.

    Raises
    ------
    StepError
        if the step dropped ``valid`` and changed the dims it stood on, or made it something else than booleans on time,
        y and x
    """
    if after is not before:
        lost = {name: before[name].variable for name in IDENTITY if name in before.coords and name not in after.coords}
        if lost:
            after = after.assign_coords(lost)
    if "valid" in before and "valid" not in after:
        sizes = dict(before["valid"].sizes)
        if any(after.sizes.get(dim) != size for dim, size in sizes.items()):
            raise StepError(
                f"{step} dropped 'valid' and changed its dims from {sizes} to {dict(after.sizes)}: "
                "give the result a boolean 'valid' of its own"
            )
        after = after.assign(valid=before["valid"].variable)
    if "valid" in after.data_vars:
        valid = after.variables["valid"]
        if valid.dtype != bool or not set(valid.dims) <= {"time", "y", "x"}:
            raise StepError(
                f"{step} made 'valid' {valid.dtype} {valid.dims}: it stays boolean, on time, y and x. where() and "
                "arithmetic on a whole Dataset change it too; pick the bands, or declare pixels not valid by "
                ".mask(lambda chip: ...)"
            )
    return _unstored(before, after)


def _unstored(before: xr.Dataset, after: xr.Dataset) -> xr.Dataset:
    """Take the attributes of stored pixels from what is stored no more."""
    if after is before:
        return after
    changed, earlier = {}, before.variables
    for name, variable in after.variables.items():
        was = earlier.get(name)
        if was is None or was is variable or was.dtype.kind not in "iu" or variable.dtype.kind != "f":
            continue
        if variable.attrs.get("joined"):
            continue
        kept = {key: value for key, value in variable.attrs.items() if key not in STALE}
        if len(kept) < len(variable.attrs):
            changed[name] = variable.copy(deep=False)
            changed[name].attrs = kept
    return after.assign(changed) if changed else after


def dataset_wanted(step: Step, result: Any, like: Any) -> Any:
    """Refuse a step before `read` whose result is not what the next step takes: a Dataset of the same window.

    Raises
    ------
    StepError
        if the type, or the y and x sizes, are not those of ``like``
    """
    if isinstance(like, dict):
        if not isinstance(result, dict) or not all(isinstance(value, xr.Dataset) for value in result.values()):
            raise StepError(f"{step} gave {type(result).__name__}; before read() it must give a dict of Datasets")
        for name in result:
            dataset_wanted(step, result[name], like.get(name, result[name]))
        return result
    if not isinstance(result, xr.Dataset):
        raise StepError(f"{step} gave {type(result).__name__}; before read() it must give an xr.Dataset")
    for dim in ("y", "x"):
        if result.sizes.get(dim) != like.sizes[dim]:
            raise StepError(
                f"{step} changed {dim} from {like.sizes[dim]} to {result.sizes.get(dim)} px; before read() a step "
                "keeps the window: use margin= for neighbours and stack(resolution=...) for another pixel size"
            )
    return result


def call(name: str, /, *args: Any, **kwargs: Any) -> str:
    """Write a call as one would type it, long arguments cut: ``scale(['red'], factor=0.0001)``."""
    words = [argument(value) for value in args if value is not None]
    words += [f"{key}={argument(value)}" for key, value in kwargs.items()]
    return f"{name}({', '.join(words)})"


def needs_rng(function: Callable[..., Any]) -> bool:
    """Say whether a function cannot be called without ``rng=`` beside its element."""
    try:
        beside = [*signature(function).parameters.values()][1:]
    except (TypeError, ValueError):  # of builtins
        return False
    return any(one.name == "rng" and one.default is one.empty for one in beside)


class Text(str):
    """A word of a chain that stands for itself, as another chain does."""

    __slots__ = ()


def given(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options that differ from a function's defaults: those one would type."""
    parameters = signature(function).parameters
    defaults = {name: parameters[name].default for name in options if name in parameters}
    return {name: value for name, value in options.items() if not _plainly_equal(value, defaults.get(name, options))}


def _plainly_equal(value: Any, default: Any) -> bool:
    """Compare an argument with its default; arrays and geometries are never a default."""
    return value is default or (
        type(value) is type(default) and isinstance(value, str | int | float) and value == default
    )


def argument(value: Any) -> str:
    """Write one argument on one line."""
    if isinstance(value, Text):
        return str(value)
    if callable(value):
        text = getattr(value, "__qualname__", type(value).__name__).split(".")[-1]
    elif isinstance(value, os.PathLike):
        text = repr(os.fspath(value))
    else:
        text = repr(value) if not isinstance(value, xr.Dataset) else "<xr.Dataset>"
        if ADDRESS in text:  # of an object that does not print itself: it says nothing, and changes from run to run
            text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    if len(text) > LONGEST_ARGUMENT:
        half = LONGEST_ARGUMENT // 2
        text = f"{text[:half]}...{text[-half:]}"
    return text
