"""Files as they would be opened: those in stores are taken for others of their kind, which were."""

from __future__ import annotations

import copy
import os
from contextlib import suppress
from dataclasses import replace
from typing import Any

from geopipes.read.files import File, assuming, at_hand, opened
from geopipes.read.planes import Planes
from geopipes.read.sources import Source
from geopipes.read.stores.locations import local_path

COMPRESSED = 0.5
"""Stored bytes for one byte of pixels, where nothing is known of the file: deflate makes 0.3 to 0.8 of them."""

PYRAMID = 4 / 3
"""Pixels of a file with overviews for one of full resolution."""


class Files:
    """Gives open files for sources, without a request for each.

    A file that is at hand is opened as always. Of the others one of each kind is (collection, asset, shape, dtype), and
    the rest are taken to be stored as it is, each on its own grid.

    Attributes
    ----------
    known, assumed : how many files were opened, and how many taken for others
    """

    def __init__(self) -> None:
        self.known = self.assumed = 0
        self._files: dict[tuple[str, str, str], File] = {}
        self._kinds: dict[Any, File] = {}
        self._hrefs: dict[File, str] = {}
        self._sizes: dict[File, float] = {}

    def __call__(self, source: Source) -> File:
        """Give the file of a source."""
        name = (source.href, source.item, source.asset)
        if name not in self._files:
            self._files[name] = self._made(source)
        return self._files[name]

    def _made(self, source: Source) -> File:
        kind = (source.collection, source.asset, tuple(source.geobox.shape), source.dtype)
        if kind in self._kinds and not at_hand(source):
            twin = copy.copy(self._kinds[kind])
            twin.layout = replace(twin.layout, geobox=source.geobox)
            self.assumed += 1
            return twin
        token = assuming.set(None)
        try:
            file = self._kinds[kind] = opened(source)
        finally:
            assuming.reset(token)
        self.known += 1
        self._hrefs[file] = source.href
        return file

    def opened(self, file: File) -> bool:
        """Say whether a file was opened, and not taken for another."""
        return file in self._hrefs

    def stored(self, planes: Planes, level: int, row: int, col: int) -> list[tuple[File, int, int]]:
        """Give (file, offset, bytes) of what a tile is stored in; offsets are -1 where only GDAL knows them."""
        found: list[tuple[File, int, int]] = []
        for file, bands in zip(planes.files, planes.bands, strict=True):
            if file.kind == "cog":
                found += [(file, *where) for where in file.stored(level, row, col, bands)]
            else:
                height, width = planes.levels[level].tile
                found.append((file, -1, round(height * width * len(bands) * self._each_pixel(file))))
        return found

    def _each_pixel(self, file: File) -> float:
        """Estimate the bytes in which a file stores one pixel of one band."""
        if file not in self._sizes:
            height, width = file.layout.levels[0].shape
            size = COMPRESSED * file.layout.dtypes[0].itemsize
            with suppress(OSError, ValueError):  # it is no local file
                whole = os.stat(local_path(self._hrefs.get(file, ""))).st_size
                size = whole / (height * width * file.layout.count * (PYRAMID if len(file.layout.levels) > 1 else 1))
            self._sizes[file] = size
        return self._sizes[file]
