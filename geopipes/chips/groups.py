"""Groups of windows: several that are read together, and dates that need not follow each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import xarray as xr

from geopipes.chips.frames import Frame
from geopipes.chips.loading import load, look
from geopipes.chips.rows import ALL, At
from geopipes.chips.windows import Indices, Windows
from geopipes.datacubes.cube import SPATIAL, Cube, Window
from geopipes.datacubes.lazies import first

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from shapely import Geometry


@dataclass(frozen=True, eq=False)
class Groups(Windows):
    """A plan of groups: each chip is a dict of the chips of its members.

    The place of a group is that of its first member, and so is its order in `shuffle`; its footprint is that of all
    of them (`geopipes.chips.ground`), so that a split keeps every member out of the others. A group has an id of
    its own; columns such as ``anchor_id`` hold those of its members.

    Attributes
    ----------
    members : by name, (n,) windows each; what was recorded on them happens to each member, before the steps of
        the group, which take the dict
    """

    members: Mapping[str, Windows] = field(default_factory=dict)

    @classmethod
    def together(cls, members: Mapping[str, Windows], *, left_out: int = 0) -> Groups:
        """Make groups of plans of one length: group i holds the window i of each."""
        head = next(iter(members.values()))
        ids = {f"{name}_id": member.values("id") for name, member in members.items()}
        own = head.with_columns(ids).numbered()
        return cls(head.cubes, head.size, head.margin, head.dates, own.frame, left_out=left_out, members=members)

    def take(self, positions: npt.ArrayLike) -> Self:
        """Give the groups of these positions, in this order."""
        members = {name: member.take(positions) for name, member in self.members.items()}
        return replace(super().take(positions), members=members)

    def window(self, position: int) -> tuple[Cube, Window]:
        """Give the group at a position as a cube, and all of it as the window."""
        super().window(position)  # which knows the positions there are
        height, width = self.size
        members = {name: replace(member, order=self.order) for name, member in self.members.items()}
        return Group(members, position), Window(slice(0, height), slice(0, width))


@dataclass(frozen=True, eq=False)
class Group(Cube):
    """Windows that lie apart, side by side like inputs; a group is read whole, with the margin of its plan."""

    members: Mapping[str, Windows]
    position: int

    @property
    def geobox(self) -> GeoBox:
        """The grid of the first member."""
        return self._windows[0][0].geobox

    @cached_property
    def dataset(self) -> dict[str, xr.Dataset]:
        """The members' chips, lazy."""
        return _flat({name: look(member, self.position) for name, member in self.members.items()})

    @cached_property
    def footprint(self) -> Geometry:
        """That of the cube of the first member."""
        return self._windows[0][0].footprint

    def read(self, window: Window, names: tuple[str, ...] | None = None) -> dict[str, xr.Dataset]:
        """Read every member and take it through the steps that were recorded on it."""
        return _flat({name: load(member, self.position) for name, member in self.members.items()})

    def keys(self, window: Window) -> list[Any]:
        """Ask every member's cube."""
        margin = next(iter(self.members.values())).margin
        return [key for cube, own in self._windows for key in cube.keys(own.grown(margin))]

    def place(self, window: Window) -> dict[str, xr.Dataset]:
        """Give the coordinates of every member."""
        return {name: xr.Dataset(coords=part.coords)[[*SPATIAL]] for name, part in self.dataset.items()}

    @property
    def _windows(self) -> list[tuple[Cube, Window]]:
        return [member.window(self.position) for member in self.members.values()]


def _flat(chips: dict[str, Any]) -> dict[str, xr.Dataset]:
    """Name the chips of a group; inputs side by side are named by both, ``anchor_s2``."""
    flat: dict[str, xr.Dataset] = {}
    for name, chip in chips.items():
        flat |= (
            {f"{name}_{part}": dataset for part, dataset in chip.items()} if isinstance(chip, dict) else {name: chip}
        )
    return flat


@dataclass(frozen=True, eq=False)
class Sequences(Windows):
    """A plan whose chips hold several dates each, which need not follow each other: one Dataset, dates in order.

    Attributes
    ----------
    dated : (n,) with the column ``when``, (n, dates): the dates of each chip, by their place in its cube; ``time`` is
        the first of them
    """

    dated: Frame = field(default_factory=lambda: Frame(0))

    @property
    def when(self) -> Indices:
        """The dates of each chip, by their place in its cube: (n, dates)."""
        whole: Indices = self.moments()
        return whole

    def moments(self, at: At = ALL) -> Any:
        """Give the dates of some chips, by default of all: (n, dates)."""
        return self.dated.column("when", at).astype(np.int64, copy=False)

    def with_dates(self, when: Indices) -> Self:
        """Give the chips other dates, (n, dates)."""
        return replace(self.placed(time=when[:, 0]), dated=Frame.of(len(self), {"when": when.astype(np.int32)}))

    def take(self, positions: npt.ArrayLike) -> Self:
        """Give the sequences of these positions, in this order."""
        return replace(super().take(positions), dated=self.dated.take(positions))

    def deciding(self) -> Iterator[Indices]:
        """Give what decides the pixels of the sequences."""
        yield from super().deciding()
        yield self.when

    def window(self, position: int) -> tuple[Cube, Window]:
        """Give the cube with the dates of the chip at a position, and the chip's window."""
        cube, window = super().window(position)
        return Dated(cube, tuple(self.moments(position).tolist())), Window(window.rows, window.cols)


@dataclass(frozen=True, eq=False)
class Dated(Cube):
    """A cube with some of its dates; of several inputs the first alone has dates chosen."""

    base: Cube
    when: tuple[int, ...]

    @property
    def geobox(self) -> GeoBox:
        """The base's grid."""
        return self.base.geobox

    @cached_property
    def dataset(self) -> Any:
        """The base's, lazy."""
        whole = self.base.dataset
        some = first(whole).isel(time=list(self.when))
        return {**whole, next(iter(whole)): some} if isinstance(whole, dict) else some

    @cached_property
    def footprint(self) -> Geometry:
        """Where every source has pixels, over all dates."""
        return self.base.footprint

    def read(self, window: Window, names: tuple[str, ...] | None = None) -> Any:
        """Read the dates, those that follow each other at once."""
        parts = [self.base.read(part, names) for part in self._parts(window)]
        if len(parts) == 1:
            return parts[0]
        whole = xr.concat(
            [first(part) for part in parts],
            "time", data_vars="minimal", coords="minimal", compat="override", join="override", combine_attrs="override",
        )  # fmt: skip
        return {**parts[0], next(iter(parts[0])): whole} if isinstance(parts[0], dict) else whole

    def keys(self, window: Window) -> list[Any]:
        """Ask the base for the windows that `read` reads."""
        return [key for part in self._parts(window) for key in self.base.keys(part)]

    def place(self, window: Window) -> Any:
        """Ask the base."""
        return self.base.place(window)

    def _parts(self, window: Window) -> list[Window]:
        """Give a window for each run of dates that follow each other."""
        when = np.array(self.when)[window.time or slice(None)]
        runs = np.split(when, np.flatnonzero(np.diff(when) != 1) + 1)
        return [Window(window.rows, window.cols, slice(int(run[0]), int(run[-1]) + 1)) for run in runs]
