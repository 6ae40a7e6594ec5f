"""Datasets that are read when they are looked at, and small twins of them to try steps on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

Array = np.ndarray[Any, Any]

TEMPLATE_SIDE = 8
"""Pixels a side of the small Dataset on which a step's dims and dtypes are found."""

WINDOWED = ("time", "y", "x")
"""The dims along which a window is read; others (band) are read whole."""


trying: ContextVar[bool] = ContextVar("trying", default=False)
"""Whether a step runs on a template, whose pixels say nothing: it must not refuse them."""


@contextmanager
def templates() -> Iterator[None]:
    """Let steps know that what they are given is a template."""
    token = trying.set(True)
    try:
        yield
    finally:
        trying.reset(token)


class LazyVariable(BackendArray):
    """One variable of a cube or a chip, read when xarray indexes it.

    Parameters
    ----------
    dims, shape, dtype : of the variable
    read : gives the block that a slice for each windowed dim asks for; other dims come whole
    """

    def __init__(
        self,
        dims: tuple[str, ...],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        read: Callable[[dict[str, slice]], Array],
    ) -> None:
        self.dims, self.shape, self.dtype, self._read = dims, shape, dtype, read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Read the pixels that an xarray indexer asks for."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._basic)

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        """Read the pixels that an xarray indexer asks for, on a thread: ``await cube.load_async()``."""
        return await asyncio.to_thread(self.__getitem__, key)

    def _basic(self, key: tuple[int | slice, ...]) -> Any:
        """Read the smallest block that holds what is asked for, then pick from it."""
        bounds: dict[str, slice] = {}
        picks: list[int | slice] = []
        for dim, length, index in zip(self.dims, self.shape, key, strict=True):
            if dim not in WINDOWED:
                picks.append(index)
                continue
            positions = range(length)[index]
            if isinstance(positions, int):
                bounds[dim] = slice(positions, positions + 1)
                picks.append(0)
            else:
                low, high = (min(positions), max(positions) + 1) if positions else (0, 0)
                bounds[dim] = slice(low, high)
                picks.append(slice(None, None, positions.step))
        if any(bound.start == bound.stop for bound in bounds.values()):
            block = np.empty(
                [bounds[d].stop - bounds[d].start if d in bounds else n for d, n in self._sized], self.dtype
            )
        else:
            block = self._read(bounds)
        return block[tuple(picks)]

    @property
    def _sized(self) -> Iterator[tuple[str, int]]:
        return zip(self.dims, self.shape, strict=True)

    @property
    def lazy(self) -> indexing.LazilyIndexedArray:
        """Wrap it for a Dataset: indexing stays lazy until values are asked for."""
        return indexing.LazilyIndexedArray(self)


def first(element: Any) -> xr.Dataset:
    """Give the Dataset of an element; of several inputs the first, on which windows are counted."""
    dataset: xr.Dataset = next(iter(element.values())) if isinstance(element, dict) else element
    return dataset


def template(element: Any, time: slice | None = None) -> Any:
    """Make a small loaded twin of a lazy Dataset: same dims, dtypes, dates and attributes, every pixel 1.

    Of several inputs the first alone is cut to the dates ``time``, as windows are.
    """
    if isinstance(element, dict):
        head = next(iter(element))
        return {name: template(part, time if name == head else None) for name, part in element.items()}
    cut = {"y": slice(0, TEMPLATE_SIDE), "x": slice(0, TEMPLATE_SIDE)} | ({} if time is None else {"time": time})
    small = element.isel(cut)
    ones = {name: (var.dims, np.ones(var.shape, var.dtype), var.attrs) for name, var in small.data_vars.items()}
    return xr.Dataset(ones, small.coords, small.attrs)


def spread(small: xr.Dataset, place: xr.Dataset, read: Callable[[str, dict[str, slice]], Array]) -> xr.Dataset:
    """Make a lazy Dataset: variables and dates as on a template, y and x as they are in place.

    Parameters
    ----------
    small : the template, after the steps
    place : coordinates y, x and those without dims
    read : gives the block of a variable that a slice for each windowed dim asks for
    """
    whole = {"y": place.sizes["y"], "x": place.sizes["x"]}
    variables = {}
    for name, variable in small.data_vars.items():
        dims = tuple(str(dim) for dim in variable.dims)
        shape = tuple(whole.get(str(dim), size) for dim, size in variable.sizes.items())
        lazy = LazyVariable(dims, shape, variable.dtype, partial(read, str(name))).lazy
        variables[name] = (dims, lazy, variable.attrs)
    coords = {name: coord.variable for name, coord in small.coords.items() if not set(coord.dims) & set(whole)}
    coords |= {name: coord.variable for name, coord in place.coords.items() if set(coord.dims) <= set(whole)}
    return xr.Dataset(variables, coords, small.attrs)


def cropped(element: Any, margin: int) -> Any:
    """Cut ``margin`` pixels (of the first input) off every side."""
    if margin == 0:
        return element
    if isinstance(element, dict):
        rows = first(element).sizes["y"]
        return {name: cropped(dataset, margin * dataset.sizes["y"] // rows) for name, dataset in element.items()}
    return element.isel(y=slice(margin, -margin), x=slice(margin, -margin))
