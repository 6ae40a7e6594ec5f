"""Masks of vectors, as a cube that is joined to others: burnt block by block, and read by window."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely
import xarray as xr

from geopipes.datacubes.cube import SPATIAL, Cube, Window, widened
from geopipes.datacubes.lazies import Array, LazyVariable
from geopipes.datacubes.places import Places, assembled
from geopipes.errors import SourceError
from geopipes.labels.burning import Burn
from geopipes.labels.coding import Coding
from geopipes.labels.features import Features, Shapes, bounds_of, pixels
from geopipes.labels.keeping import Kept
from geopipes.labels.sources import Vectors
from geopipes.read.engines import dataset as laid_out
from geopipes.read.planes import counted_from
from geopipes.read.reader import Block
from geopipes.read.sources import Stack, Variable

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from shapely import Geometry

SIDE = 512
"""Pixels along each side of the blocks that are burnt, counted from the grid's corner: chips are cut from these."""

BUDGET = 128 * 2**20
"""Bytes of blocks that a process keeps of one mask."""

LARGE, BYTES = 2_000, 16
"""Points of a feature from which on it is kept, put on the pixels; and bytes of each."""


@dataclass(frozen=True)
class Rule:
    """How features become pixels.

    Attributes
    ----------
    name, dtype : of the variable
    coding : of values; None for instances
    background, nodata : where no feature lies; where it is not known which does, None for nowhere
    all_touched : whether a pixel is a feature's that is touched by it, or the one whose centre lies in it
    overlap, priority : which of several features wins, as `rasterize` takes them
    """

    name: str
    dtype: np.dtype[Any]
    coding: Coding | None
    background: float
    nodata: float | None
    all_touched: bool
    overlap: str
    priority: str | None

    def burn(self, features: Features, shapes: Any) -> tuple[Burn, Array]:
        """Put features in the order in which they are burnt, and give their numbers.

        Parameters
        ----------
        features : of a window
        shapes : theirs, in pixels of the grid
        """
        if self.coding is None:
            values, kept = features.ids + 1, np.ones(len(features.ids), bool)
        else:
            column = features.ids if self.coding.column is None else features.values[self.coding.column]
            values, kept = self.coding.encode(column)
        area = _area(shapes) if self.overlap in ("smallest", "largest") else features.ids
        turn = -1 if self.overlap in ("first", "smallest") else 1
        first = np.zeros(len(area)) if self.priority is None else features.values[self.priority].astype(float)
        order = np.lexsort((features.ids, turn * area, first))
        order = order[kept[order]]
        ranks = np.unique(first, return_inverse=True)[1] if self.overlap == "error" else np.full(len(area), -1)
        codes = np.unique(values, return_inverse=True)[1]
        return Burn(features.ids[order], shapes[order], codes[order], ranks[order]), values[order]


class Channel(NamedTuple):
    """The one channel that a mask is read to: see `geopipes.read.reader.Reader`."""

    channels: dict[str, slice]
    bands: dict[np.dtype[Any], int]


@dataclass(frozen=True, eq=False)
class MaskCube(Cube):
    """A variable (y, x) of burnt vectors on a grid."""

    vectors: Vectors
    grid: GeoBox
    rule: Rule

    @property
    def geobox(self) -> GeoBox:
        """The grid it was made for."""
        return self.grid

    @cached_property
    def stack(self) -> Stack:
        """What it looks like among stacks: one variable without time and without rasters."""
        rule = self.rule
        return Stack(self.grid, None, (Variable(rule.name, rule.dtype, rule.nodata, "nearest", None, ((),)),))

    @cached_property
    def dataset(self) -> xr.Dataset:
        """All of the mask, lazy; classes stand in its attributes."""
        arrays = {}
        for name, dtype in ((self.rule.name, self.rule.dtype), ("valid", np.dtype(bool))):

            def read(bounds: dict[str, slice], name: str = name) -> Array:
                values: Array = self.read(Window(bounds["y"], bounds["x"]))[name].values
                return values

            arrays[name] = LazyVariable(("y", "x"), tuple(self.grid.shape), dtype, read).lazy
        whole = laid_out(self.stack, arrays)
        whole[self.rule.name].attrs |= class_attributes(self.rule.coding)
        return whole

    @cached_property
    def footprint(self) -> Geometry:
        """All of the grid: where no feature lies is known too."""
        return widened(shapely.box(*self.grid.boundingbox.bbox), self.grid)

    @cached_property
    def places(self) -> Places:
        """Coordinates of windows."""
        return Places(self.dataset, self.grid)

    @cached_property
    def blocks(self) -> Kept[Array]:
        """The blocks that this process has burnt."""
        return Kept(BUDGET, lambda block: block.nbytes)

    @cached_property
    def large(self) -> Kept[Shapes]:
        """The large features that this process has put on the pixels, by id."""
        return Kept(BUDGET, lambda shapes: BYTES * int(shapely.get_num_coordinates(shapes).sum()))

    def __getstate__(self) -> dict[str, Any]:
        made = ("blocks", "large", "reader", "stack")
        return {name: value for name, value in super().__getstate__().items() if name not in made}

    @cached_property
    def reader(self) -> Channel:
        """What a stack's reader says of its channels."""
        return Channel({self.rule.name: slice(0, 1)}, {self.rule.dtype: 1})

    def read(self, window: Window, names: tuple[str, ...] | None = None) -> xr.Dataset:
        """Read a window."""
        block = self.pixels(window)
        like = self.dataset.variables
        arrays: dict[Any, xr.Variable] = {
            self.rule.name: xr.Variable(
                ("y", "x"), block.pixels[self.rule.dtype][0, 0], like[self.rule.name].attrs, fastpath=True
            ),
            "valid": xr.Variable(("y", "x"), block.valid[0], fastpath=True),
        }
        return assembled(arrays, *self.places.of(window))

    def place(self, window: Window) -> xr.Dataset:
        """Give the coordinates of a window."""
        return xr.Dataset(coords=xr.Coordinates(*self.places.of(window)))[[*SPATIAL]]

    def pixels(self, window: Window, names: tuple[str, ...] | None = None, into: Block | None = None) -> Block:
        """Read a window as arrays, (1, 1, y, x): see `StackCube.pixels`. Outside the grid nothing is valid."""
        rows, cols = window.rows, window.cols
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        outside = self.rule.background if self.rule.nodata is None else self.rule.nodata
        target = np.empty((1, 1, *shape), self.rule.dtype) if into is None else into.pixels[self.rule.dtype]
        valid = np.empty((1, *shape), bool) if into is None else into.valid
        height, width = self.grid.shape
        complete = rows.start >= 0 and cols.start >= 0 and rows.stop <= height and cols.stop <= width
        if not complete:
            target[...], valid[...] = outside, False
        for down in range(max(rows.start, 0) // SIDE, -(-min(rows.stop, height) // SIDE)):
            for across in range(max(cols.start, 0) // SIDE, -(-min(cols.stop, width) // SIDE)):
                block = self.blocks.get((down, across), lambda at=(down, across): self._burn(*at))  # type: ignore[misc]
                here = tuple(
                    slice(max(asked.start, at * SIDE, 0), min(asked.stop, (at + 1) * SIDE, length))
                    for asked, at, length in ((rows, down, height), (cols, across, width))
                )
                there = counted_from(here, (rows.start, cols.start))  # type: ignore[arg-type]  # two of them
                own = counted_from(here, (down * SIDE, across * SIDE))  # type: ignore[arg-type]
                target[0, 0][there], valid[0][there] = block[own], True
        return Block({self.rule.dtype: target}, {}, valid, complete)

    def _burn(self, down: int, across: int) -> Array:
        """Burn one block."""
        corner = (down * SIDE, across * SIDE)
        # All touched, a feature counts from the pixel's edge on; reprojected, it may lie a little beside where it was.
        rows, cols = (slice(at - 2, at + SIDE + 2) for at in corner)
        bounds = bounds_of(rows, cols, self.grid, self.vectors.wkt)
        out = np.full((SIDE, SIDE), self.rule.background, self.rule.dtype)
        if bounds is None:
            return out
        features = self.vectors.within(bounds)
        shapes = self._projected(features)
        finite = np.flatnonzero(np.isfinite(shapely.bounds(shapes)).all(axis=1))  # some are out of its CRS
        burn, values = self.rule.burn(features.take(finite), shapes[finite])
        which = burn.block(*corner, (SIDE, SIDE), all_touched=self.rule.all_touched, name=self.rule.name)
        covered = which >= 0
        out[covered] = values.astype(self.rule.dtype)[which[covered]]
        return out

    def _projected(self, features: Features) -> Shapes:
        """Put features on the pixels of the grid; large ones, which lie in many blocks, once."""
        large = shapely.get_num_coordinates(features.shapes) >= LARGE
        shapes = features.shapes.copy()
        shapes[~large] = pixels(shapes[~large], self.vectors.wkt, self.grid)
        for at in np.flatnonzero(large).tolist():
            one = partial(pixels, shapes[[at]], self.vectors.wkt, self.grid)
            shapes[at] = self.large.get(int(features.ids[at]), one)[0]
        return shapes

    def document(self) -> dict[str, Any]:
        """Say what decides the pixels, for a fingerprint."""
        rule = {name: getattr(self.rule, name) for name in ("name", "all_touched", "overlap", "priority")}
        numbers = {name: _number(getattr(self.rule, name)) for name in ("background", "nodata")}
        coding = self.rule.coding
        codes = "ids" if coding is None else [coding.column, _pairs(coding.codes), coding.rest]
        return {"rule": rule | numbers | {"dtype": str(self.rule.dtype), "codes": codes}} | self.vectors.document()


def _area(shapes: Shapes) -> Array:
    """Give areas, of what is not valid as it is burnt."""
    area = shapely.area(shapes)
    wrong = np.flatnonzero(~shapely.is_valid(shapes))
    area[wrong] = shapely.area(shapely.make_valid(shapes[wrong]))
    return np.asarray(area)


def class_attributes(coding: Coding | None) -> dict[str, Any]:
    """Give what a variable says of its classes: ``class_values``, ``class_names`` and ``class_counts`` side by side."""
    if coding is None or not coding.names:
        return {}
    values = [*coding.names]
    return {
        "class_values": values,
        "class_names": [coding.names[value] for value in values],
        "class_counts": [coding.counts[value] for value in values],
    }


def check_holds(dtype: np.dtype[Any], numbers: dict[str, Any]) -> None:
    """Raise where a dtype does not hold a number that will be written.

    Raises
    ------
    SourceError
        says which, and which dtype does
    """
    for what, number in numbers.items():
        if number is None or dtype.kind == "f":
            continue
        info = np.iinfo(dtype)
        if number != number or int(number) != number or not info.min <= number <= info.max:
            raise SourceError(
                f"rasterize(dtype={str(dtype)!r}): {what} is {number}, and {dtype} holds whole numbers from {info.min} "
                f"to {info.max}: there are too many classes for it, or the number is of another kind; use a wider dtype"
            )


def _number(number: float | None) -> float | str | None:
    return None if number is None else float(number) if np.isfinite(number) else str(number)


def _pairs(codes: Any) -> Any:
    return None if codes is None else [[repr(value), code] for value, code in codes.items()]
