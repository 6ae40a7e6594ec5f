"""What a reader is told of an open file: its levels, tiles and pixels, and how a tile is decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from odc.geo.geobox import GeoBox

from geopipes.errors import ReadError
from geopipes.meters import DECODING, Row, timed
from geopipes.read.failures import Signature, check_lost, persist
from geopipes.read.gdal import cause
from geopipes.read.hrefs import unsigned
from geopipes.read.sources import Source

Array = np.ndarray[Any, Any]
Dtype = np.dtype[Any]


@dataclass(frozen=True)
class Level:
    """One resolution of a file, and how it is cut into tiles.

    Attributes
    ----------
    shape : (y, x) of the level, px
    tile : (y, x) of its tiles, px; tile (row, col) covers rows from ``row * tile[0]`` on, and the last of a row
        or column may reach outside the level
    """

    shape: tuple[int, int]
    tile: tuple[int, int]

    @property
    def tiles(self) -> tuple[int, int]:
        """Number of tiles (down, across)."""
        return -(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1])


@dataclass(frozen=True)
class Layout:
    """What a file states of itself.

    Attributes
    ----------
    geobox : of the full resolution; its CRS is None where the file has none
    levels : finest first; the first is the full resolution
    count : number of bands
    dtypes : one for each band, as they are read
    nodata : one for each band, None where the file states none
    masked : whether a mask or an alpha band tells validity beside nodata
    interleaved : whether decoding one band decodes all
    """

    geobox: GeoBox
    levels: tuple[Level, ...]
    count: int
    dtypes: tuple[Dtype, ...]
    nodata: tuple[float | None, ...]
    masked: bool
    interleaved: bool


class File(ABC):
    """An open file, whose tiles any thread may decode.

    Attributes
    ----------
    layout : what it states of itself
    kind : "gdal" or "cog", how it is read
    reason : why it is read that way
    afar : whether its tiles are fetched from a store
    broken : whether a read of it failed: `geopipes.read.files.opened` then opens it anew
    part : of a profile, that counts its tiles
    """

    kind: ClassVar[str]
    afar: ClassVar[bool] = False
    failures: ClassVar[tuple[type[BaseException], ...]]

    def __init__(self, source: Source, signed: str, layout: Layout, reason: str) -> None:
        self.layout = layout
        self.reason = reason
        self.broken = False
        self.part: Row = DECODING
        self._name, self._signature = named(source), Signature(source, signed)

    def read(self, level: int, row: int, col: int, bands: tuple[int, ...], out: Array) -> None:
        """Decode one tile of some bands; the GIL is released meanwhile.

        Parameters
        ----------
        level : index into ``layout.levels``
        row, col : of the tile
        bands : band numbers, from 1
        out : (band, y, x) of the level's tile, C-contiguous, of the smallest dtype that holds all these bands'.
            Pixels outside the level are left as they come. An absent tile is nodata, or 0 without nodata.

        Raises
        ------
        ReadError
            the tile could not be read whole: names item, asset, href and cause
        """
        dtype = np.result_type(*(self.layout.dtypes[band - 1] for band in bands))
        self._check(level, row, col, out, (len(bands), *self.layout.levels[level].tile), dtype)
        what = f"tile ({row}, {col}) at level {level}"
        self._persist(what, partial(self._read, level, row, col, bands, out), out.nbytes)

    def read_mask(self, level: int, row: int, col: int, out: Array) -> None:
        """Decode the mask of one tile, for all bands; only where ``layout.masked``.

        Parameters
        ----------
        level, row, col : as `read`
        out : (y, x) of the level's tile, uint8, C-contiguous; becomes 0 where there is no measurement

        Raises
        ------
        ReadError
            as `read`
        """
        self._check(level, row, col, out, self.layout.levels[level].tile, np.dtype("uint8"))
        what = f"the mask of tile ({row}, {col}) at level {level}"
        self._persist(what, partial(self._read_mask, level, row, col, out), out.nbytes)

    def stored(self, level: int, row: int, col: int, bands: tuple[int, ...]) -> list[tuple[int, int]]:
        """Give (offset, bytes) of what a tile of some bands is stored in; nothing where only GDAL knows."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Give back what the system lends for it; a later read asks for it again."""

    @abstractmethod
    def _read(self, level: int, row: int, col: int, bands: tuple[int, ...], out: Array) -> None: ...

    @abstractmethod
    def _read_mask(self, level: int, row: int, col: int, out: Array) -> None: ...

    def _check(self, level: int, row: int, col: int, out: Array, shape: tuple[int, ...], dtype: Dtype) -> None:
        """Raise before a buffer is filled with bytes that it takes for other pixels."""
        down, across = self.layout.levels[level].tiles
        if not (0 <= row < down and 0 <= col < across):
            raise IndexError(f"{self._name}: tile ({row}, {col}); level {level} has {down} x {across} tiles")
        if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"{self._name}: a buffer of {out.dtype} {out.shape} was given; {dtype} {shape}, C-contiguous, is needed"
            )

    @property
    def href(self) -> str:
        """The href, unsigned."""
        return self._signature.source.href

    @property
    def _signed(self) -> str:
        """The href, signed; another one after it was refused."""
        return self._signature.href

    def _persist(self, what: str, read: Callable[[], None], size: int) -> None:
        """Read a tile, again where that may help; else the file is opened anew when it is asked for next."""

        def work() -> None:
            with timed(self.part, decoded=size):
                read()

        what = f"{self._name}: {what} could not be read"
        check_lost(what)
        try:
            persist(work, self._signature, what=what, errors=self.failures, text=cause, mend=self._mend)
        except ReadError:
            self.broken = True
            raise

    def _mend(self, href: str) -> None:
        """Make ready for another try of a signed href that failed."""
        self.close()


def named(source: Source) -> str:
    """Name a raster in an error."""
    return f"item {source.item!r}, asset {source.asset!r} ({unsigned(source.href)})"
