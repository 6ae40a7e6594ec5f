"""From a window to a chip: loaded, or lazy until it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import xarray as xr

from geopipes.chips.outlooks import Outlook
from geopipes.chips.windows import Windows
from geopipes.datacubes.lazies import Array, first, spread, template, templates
from geopipes.datacubes.stackcube import StackCube
from geopipes.errors import ReadError
from geopipes.read import ahead, kept
from geopipes.read.failures import DEFAULT, Asking, Ledger, Policy, Told, asking, nobody
from geopipes.read.tiles import shared
from geopipes.steps import Step, dataset_wanted

Loads = Callable[[Windows, int], Any]

AHEAD = 8
"""What part of the budget for decoded tiles may be held, beside them, of bytes fetched ahead: they are compressed."""


def load(windows: Windows, position: int) -> Any:
    """Read the chip at a position and take it through the plan's steps.

    Returns
    -------
    a loaded xr.Dataset (a dict of them for several inputs) with its margin, and the scalar coordinate ``chip``:
    the chip's id, with the plan's columns and ``margin`` [px] in its attributes
    """
    cube, window = windows.window(position)
    window = window.grown(windows.margin)
    if isinstance(cube, StackCube):
        chip = xr.Variable(*_identity(windows, position, windows.margin), fastpath=True)
        return stepped(windows, position, cube.read(window, chip=chip))
    return stepped(windows, position, identified(cube.read(window), windows, position))


def look(windows: Windows, position: int) -> Any:
    """Give the chip at a position, lazy: the first look at any pixel reads the whole chip, once.

    Returns
    -------
    an xr.Dataset (a dict of them for several inputs) that holds what `load` gives
    """
    cube, window = windows.window(position)
    position = range(len(windows))[position]
    grown = window.grown(windows.margin)
    with templates():
        small = stepped(windows, position, identified(template(cube.dataset, grown.time), windows, position))
    places = identified(cube.place(grown), windows, position)
    once = Once(windows, position)
    if not isinstance(small, dict):
        return spread(small, first(places), once.reader(None))
    return {name: spread(part, places.get(name, first(places)), once.reader(name)) for name, part in small.items()}


@dataclass(frozen=True)
class Reading:
    """Chips to be read by position, on any thread: what a pipe runs on after ``read``.

    Attributes
    ----------
    windows : the plan
    threads : that read
    cache : bytes of decoded tiles that are kept
    needed : pixels around each chip that steps after read need
    policy : what is to be done about reads that fail
    ledger : where these stand; None for nowhere
    requests : in flight at a time, for bytes in stores
    disk : the folder in which bytes of stores are kept; None for none
    disk_budget : bytes of disk for them
    """

    windows: Windows
    threads: int
    cache: int
    needed: int = 0
    policy: Policy = DEFAULT
    ledger: Ledger | None = None
    requests: int = ahead.REQUESTS
    disk: str | None = None
    disk_budget: int = 0

    def needing(self, step: Step) -> Reading:
        """Reckon with the margin of a step after read, and with the dates it must see.

        Raises
        ------
        MarginTooSmall
            if the steps together need more pixels than the chips carry
        StepError
            if the step must see all dates, and the chips hold some
        """
        self.windows.check_dates(step)
        needed = self.needed + step.margin
        self.windows.check_margin(step, sum(s.margin for s in self.steps) + needed)
        return replace(self, needed=needed)

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def steps(self) -> tuple[Step, ...]:
        """What happens to each chip as it is read."""
        return self.windows.steps

    @contextmanager
    def loading(self, positions: Sequence[int], loads: Loads | None = None, tell: Told = nobody) -> Iterator[Loading]:
        """Begin to read chips; what is given reads one, on any thread, or raises `Skipped`.

        Parameters
        ----------
        positions : the chips, in the order in which they will be asked for: so the cache knows what comes next
        loads : reads the chip at a position, without its margin; by default it is read to a Dataset, with it
        tell : is told of each read that failed
        """
        asked = Asking(self.policy, tell, lost={})
        margin = self.windows.margin if loads is None else 0
        loads = loads or load
        with kept.keeping(self.disk, self.disk_budget) as disk, shared(self.cache).expecting() as uses:
            fetched = ahead.Fetching(requests=self.requests, budget=self.cache // AHEAD, disk=disk, asked=asked)
            with closing(fetched):
                outlook = Outlook(self.windows, positions, uses, fetched, margin)
                yield Loading(partial(loads, self.windows), outlook, asked, self.windows)


@dataclass(frozen=True)
class Loading:
    """Reads the chip at a position, on any thread.

    Attributes
    ----------
    loads : does
    outlook : is told of it before and after
    asked : what is to be done about reads that fail
    windows : the plan
    """

    loads: Callable[[int], Any]
    outlook: Outlook
    asked: Asking
    windows: Windows

    def __call__(self, position: int) -> Any:
        """Read a chip.

        Raises
        ------
        Skipped
            it could not be read, and is to be left out
        """
        chip = self.asked.of(self.windows.id(position), position)
        token = asking.set(chip)
        try:
            return self.outlook.reading(self.loads, position)
        except ReadError as error:
            chip.ended(error)
        finally:
            asking.reset(token)

    def leave(self) -> None:
        """Wake threads that wait for bytes: nobody will take what they read."""
        self.outlook.fetched.close()


class Once:
    """A chip that is read at the first look and kept as long as it is looked at."""

    def __init__(self, windows: Windows, position: int) -> None:
        self._windows, self._position, self._lock = windows, position, Lock()
        self._chip: Any = None

    def reader(self, name: str | None) -> Callable[[str, dict[str, slice]], Array]:
        """Give what reads a block of a variable of one input."""

        def read(variable: str, bounds: dict[str, slice]) -> Array:
            with self._lock:
                if self._chip is None:
                    self._chip = load(self._windows, self._position)
            dataset = self._chip if name is None else self._chip[name]
            values: Array = dataset[variable].isel(bounds).values
            return values

        return read


def stepped(windows: Windows, position: int, element: Any) -> Any:
    """Take a chip through the plan's steps; those that draw each have random numbers of their own."""
    number = 0
    for step in windows.steps:
        key = (*windows.order.key(number), windows.id(position)) if step.draws else ()
        number += step.draws
        element = dataset_wanted(step, step(element, key), element)
    return element


def identified(element: Any, windows: Windows, position: int) -> Any:
    """Give a chip its id, and say how wide its margin is."""
    if isinstance(element, dict):
        rows = windows.size[0] + 2 * windows.margin
        return {
            name: _named(dataset, windows, position, windows.margin * dataset.sizes["y"] // rows)
            for name, dataset in element.items()
        }
    return _named(element, windows, position, windows.margin)


def known(windows: Windows, position: int) -> dict[str, Any]:
    """Give what the plan's columns say of a chip, as plain values; dates as ISO text."""
    return {name: _plain(windows.frame.column(name, position)) for name in windows.columns}


def _plain(value: Any) -> Any:
    if isinstance(value, np.datetime64):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def _named(dataset: xr.Dataset, windows: Windows, position: int, margin: int) -> xr.Dataset:
    return dataset.assign_coords(chip=_identity(windows, position, margin))


def _identity(windows: Windows, position: int, margin: int) -> tuple[tuple[()], Any, dict[str, Any]]:
    return (), np.asarray(windows.id(position)), known(windows, position) | {"margin": margin}
