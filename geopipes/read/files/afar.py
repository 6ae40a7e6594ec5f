"""Tiles of GeoTIFFs in stores, by their byte ranges."""

from __future__ import annotations

import imagecodecs
import numpy as np

from geopipes.meters import AFAR, timed
from geopipes.read.ahead import current, fetching
from geopipes.read.files.bycog import CogFile, Tiles
from geopipes.read.files.layouts import Array, File, Layout
from geopipes.read.sources import Source
from geopipes.read.stores import Head, Location, StoreError, forget, get, located, name_of
from geopipes.read.stores.faults import CHANGED


class FarFile(CogFile):
    """A tiled GeoTIFF in a store; what it reads, `geopipes.read.ahead` may have fetched before.

    Attributes
    ----------
    location : where it lies, signed
    name, version : by which its bytes are kept on disk
    """

    afar = True
    failures = (OSError, imagecodecs.DeflateError, imagecodecs.ZstdError)

    def __init__(
        self, source: Source, signed: str, layout: Layout, reason: str, *,
        location: Location, head: Head, tiles: tuple[Tiles, ...],
    ) -> None:  # fmt: skip
        File.__init__(self, source, signed, layout, reason)
        self._tiles, self._located, self._size = tiles, (signed, location), head.size
        self._etag, self._kept = head.etag, head.kept
        self.version, self.name = head.version, name_of(location)

    @property
    def location(self) -> Location:
        """Where it lies, by the href as it is signed now."""
        signed, found = self._located
        if signed != (now := self._signed) and (other := located(now)) is not None:
            self._located, found = (now, other), other
        return found

    def close(self) -> None:
        """Nothing is held open."""

    def fetch(self, start: int, stop: int) -> memoryview:
        """Get bytes of the file from its store, in one request.

        Raises
        ------
        StoreError
            they could not be had, or the file is another one than when its header was read
        """
        # A weak ETag never matches (RFC 9110, 13.1.1): it is compared here.
        strong = self._etag if self._etag and not self._etag.startswith("W/") else None
        try:
            data, meta = get(self.location, start, stop, etag=strong)
            if meta["size"] != self._size or (self._etag and meta["e_tag"] and meta["e_tag"] != self._etag):
                raise StoreError(CHANGED, kind="corrupt", changed=True)
        except StoreError as error:
            if error.changed:  # to wait is of no use: it is to be opened anew
                forget(self.location)
                anew = StoreError(str(error), kind="corrupt", changed=True)
                anew.outdated = self._kept
                raise anew from None
            raise
        return memoryview(data)

    def _read_stored(self, tiles: Tiles, index: int, wanted: list[tuple[int, int]], out: Array) -> None:
        super()._read_stored(tiles, index, wanted, out)
        if (fetched := current.get()) is not None:
            fetched.keep(self, int(tiles.offsets[index]))  # as its bytes made sense

    def _fetch(self, offset: int, count: int) -> Array | None:
        if count == 0:
            return None
        if offset == 0 or offset + count > self._size:
            raise StoreError(f"{count} bytes at {offset}, of a file of {self._size}", kind="corrupt")
        with timed(AFAR, calls=0) as counts, fetching() as fetched:
            try:
                return np.frombuffer(fetched.take(self, offset, count), np.uint8)
            finally:
                if counts is not None:
                    requests, size = fetched.tally()
                    counts.calls += requests
                    counts.fetched += size
