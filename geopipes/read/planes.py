"""Planes: the bands of several files side by side, decoded tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate, pairwise
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from geopipes.read.files import File, Level
from geopipes.read.tiles import Tiles, Uses, Wanted

Array = np.ndarray[Any, Any]
Box = tuple[slice, slice]

BLOCK = 2048
"""Pixels a side that are read at once of a large window: bounds the tiles held, and the maps."""


@dataclass(frozen=True, eq=False)
class Planes:
    """Bands of files that share grid, tiles and dtype: a tile of all of them is one buffer (plane, y, x).

    Attributes
    ----------
    files : at least one; a file with a mask of its own stands alone
    bands : of each file, numbers from 1; its planes, in this order, follow those of the file before
    """

    files: tuple[File, ...]
    bands: tuple[tuple[int, ...], ...]

    @cached_property
    def parts(self) -> tuple[slice, ...]:
        """The planes of each file."""
        ends = accumulate(map(len, self.bands), initial=0)
        return tuple(slice(*pair) for pair in pairwise(ends))

    @cached_property
    def count(self) -> int:
        """How many planes there are."""
        return sum(map(len, self.bands))

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The resolutions at hand, finest first."""
        return self.files[0].layout.levels

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The pixels' dtype, as decoded."""
        return band_dtype(self.files[0], self.bands[0])

    @cached_property
    def masked(self) -> bool:
        """Whether a mask beside nodata tells which pixels are valid."""
        return self.files[0].layout.masked

    def geobox(self, level: int) -> GeoBox:
        """Give the grid of a level."""
        whole, shape = self.files[0].layout.geobox, self.levels[level].shape
        if level == 0:
            return whole
        zoom = Affine.scale(whole.shape.x / shape[1], whole.shape.y / shape[0])
        return GeoBox(shape, whole.affine @ zoom, whole.crs)

    def level(self, scale: tuple[float, float]) -> int:
        """Choose the coarsest level whose pixels are no larger than the grid's.

        Parameters
        ----------
        scale : the grid's pixels for one of full resolution, (y, x)
        """
        height, width = self.levels[0].shape
        fine = [
            i
            for i, level in enumerate(self.levels)
            if height / level.shape[0] * scale[0] <= 1 + LEVEL_SLACK
            and width / level.shape[1] * scale[1] <= 1 + LEVEL_SLACK
        ]
        return max(fine, default=0)

    def tiles(self, level: int, box: Box) -> list[tuple[int, int]]:
        """Give the (row, column) of the tiles that hold some pixels."""
        (rows, cols), (height, width) = box, self.levels[level].tile
        across = range(cols.start // width, -(-cols.stop // width))
        return [(row, col) for row in range(rows.start // height, -(-rows.stop // height)) for col in across]

    @cached_property
    def afar(self) -> bool:
        """Whether some of the files lie in stores."""
        return any(file.afar for file in self.files)

    def stored(self, level: int, row: int, col: int, tiles: Tiles) -> list[tuple[File, int, int]]:
        """Give (file, offset, bytes) of what has to be fetched from stores before a tile can be decoded."""
        return [
            (file, *where)
            for part, (file, bands) in enumerate(zip(self.files, self.bands, strict=True))
            if file.afar and not tiles.there((self, level, row, col), part)
            for where in file.stored(level, row, col, bands)
        ]

    def keys(self, level: int, places: Sequence[tuple[int, int]]) -> list[tuple[Any, ...]]:
        """Name what `held` holds."""
        keys: list[tuple[Any, ...]] = [(self, level, *place) for place in places]
        return keys + [(*key, "mask") for key in keys] if self.masked else keys

    @contextmanager
    def held(
        self, level: int, places: Sequence[tuple[int, int]], parts: tuple[int, ...], tiles: Tiles, uses: Uses | None
    ) -> Iterator[Held]:
        """Hold some tiles, decoded in the files of these parts."""
        height, width = self.levels[level].tile
        kinds = [(self.count, self.dtype, parts, self._decode)]
        if self.masked:
            kinds.append((1, MASK, parts, self._decode_mask))
        keys = iter(self.keys(level, places))
        wanted = [
            Wanted(next(keys), (count, height, width), dtype, parts, partial(decode, level, place))
            for count, dtype, parts, decode in kinds
            for place in places
        ]
        with tiles.hold(wanted, uses) as buffers:
            yield Held(buffers[: len(places)], buffers[len(places) :] or None)

    def _decode(self, level: int, place: tuple[int, int], part: int, pixels: Array) -> None:
        self.files[part].read(level, *place, self.bands[part], pixels[self.parts[part]])

    def _decode_mask(self, level: int, place: tuple[int, int], part: int, pixels: Array) -> None:
        self.files[part].read_mask(level, *place, pixels[0])


@dataclass(frozen=True)
class Held:
    """Decoded tiles: pixels (plane, y, x) of each, and masks (1, y, x) where there are any."""

    pixels: list[Array]
    masks: list[Array] | None


MASK = np.dtype("uint8")

LEVEL_SLACK = 1e-3
"""By how much a level's pixels may be larger than the grid's: overviews of odd sizes are so by rounding."""

_known: WeakValueDictionary[tuple[Any, ...], Planes] = WeakValueDictionary()
_lock = Lock()


def planes(files: Sequence[File], bands: Sequence[tuple[int, ...]]) -> Planes:
    """Put bands of files side by side; the same ones are the same planes, so that cubes share their tiles."""
    key = (tuple(files), tuple(bands))
    with _lock:
        found = _known.get(key)
        if found is None:
            found = _known[key] = Planes(*key)
        return found


def band_dtype(file: File, bands: tuple[int, ...]) -> np.dtype[Any]:
    """Give the dtype in which bands of a file are decoded."""
    return np.result_type(*(file.layout.dtypes[band - 1] for band in bands))


def blocks(rows: slice, cols: slice) -> Iterator[Box]:
    """Cut a large window into blocks."""
    for row in range(rows.start, rows.stop, BLOCK):
        for col in range(cols.start, cols.stop, BLOCK):
            yield slice(row, min(row + BLOCK, rows.stop)), slice(col, min(col + BLOCK, cols.stop))


def cut_to(shape: tuple[int, int], window: Box) -> Box | None:
    """Cut a window to a grid of that shape; None where nothing is left."""
    rows, cols = window
    top, bottom, left, right = (
        max(rows.start, 0),
        min(rows.stop, shape[0]),
        max(cols.start, 0),
        min(cols.stop, shape[1]),
    )
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def counted_from(window: Box, start: tuple[int, int]) -> Box:
    """Count a window from another's first pixel."""
    rows, cols = (slice(w.start - first, w.stop - first) for w, first in zip(window, start, strict=True))
    return rows, cols
