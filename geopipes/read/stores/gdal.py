"""GDAL and files in stores: a header as a file of GDAL's own, and the network as GDAL is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from math import ceil
from threading import Lock

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.session import Session

from geopipes.read.failures import timeout
from geopipes.read.gdal import GDAL_ERRORS
from geopipes.read.kept import Head
from geopipes.read.stores.clients import check_fork
from geopipes.read.stores.heads import head
from geopipes.read.stores.locations import local_path, located
from geopipes.read.stores.options import CONNECT_TIMEOUT, gdal_options, options_of
from geopipes.threads import afar

SANE = {
    # Listing a remote folder for sidecar files costs more than a chip.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # A GET of the first bytes tells what a HEAD does, and signatures are often for GET alone.
    "CPL_VSIL_CURL_USE_HEAD": "NO",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    # Whoever reads tries again, or does not.
    "GDAL_HTTP_MAX_RETRY": "0",
    # A transfer that stands still ends; one that is slow does not.
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
}
"""What GDAL is told for all it reads over a network."""

SIDECARS = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
"""Ask for each sidecar file by its name: a JPEG 2000 file may have its CRS in one."""


_doubted: dict[str, int] = {}
_lock = Lock()


class _Told(Session):  # type: ignore[misc]  # rasterio ships no types
    """What `storage` was told, as rasterio takes it: credentials it takes from a session alone."""

    def __init__(self, options: dict[str, str]) -> None:
        self._options = options
        self.credentials = options

    def get_credential_options(self) -> dict[str, str]:
        """Give GDAL's configuration options."""
        return self._options


def gdal_name(href: str) -> str:
    """Give what GDAL calls a href."""
    location = located(href)
    if location is None:
        return local_path(href)
    number = _doubted.get(location.gdal)
    return location.gdal if number is None else f"{location.gdal}#{number}"


def far(href: str) -> bool:
    """Say whether GDAL reads a href over the network."""
    return located(href) is not None or ("://" in href and not href.startswith("file://"))


def open_raster(signed: str, level: int = 0) -> rasterio.DatasetReader:
    """Open a raster at full resolution, or as its overview of a level from 1."""
    overview = {} if level == 0 else {"overview_level": level - 1}
    with network(signed):
        raster = rasterio.open(gdal_name(signed), **overview)
    if raster.crs is None and far(signed):
        raster.close()
        with network(signed, **SIDECARS):
            raster = rasterio.open(gdal_name(signed), **overview)
    return raster


@contextmanager
def open_header(signed: str) -> Iterator[rasterio.DatasetReader]:
    """Open a raster to look at its header; that of a TIFF in a store is read by one request or two, and kept.

    Raises
    ------
    StoreError
        the store did not give it
    """
    location = located(signed)
    with ExitStack() as opened:
        raster = None
        if location is not None:
            name = opened.enter_context(as_file(head(location)))
            with suppress(RasterioError):  # it is no TIFF
                raster = opened.enter_context(rasterio.open(name))
        if raster is None or raster.crs is None:  # which a file beside it may hold
            raster = opened.enter_context(open_raster(signed))
        yield raster


def network(href: str, **more: str) -> AbstractContextManager[object]:
    """Have GDAL read a href with sane settings, and as `storage` was told; a path is read as always.

    Parameters
    ----------
    more : options of GDAL that count instead

    Raises
    ------
    ForkError
        this process is a fork of one that used the network
    """
    return _network(href, more) if far(href) else nullcontext()


@contextmanager
def _network(href: str, more: dict[str, str]) -> Iterator[None]:
    location, options, told = located(href), SANE | _patience() | more, dict[str, str]()
    if location is not None:
        check_fork()
        told = gdal_options(location, options_of(location))
    with afar(), rasterio.Env(_Told(told), **options):
        yield


def _patience() -> dict[str, str]:
    """Say how long GDAL waits; it knows whole seconds."""
    seconds = ceil(timeout())
    connection = min(seconds, CONNECT_TIMEOUT)
    return {"GDAL_HTTP_CONNECTTIMEOUT": f"{connection:.0f}", "GDAL_HTTP_LOW_SPEED_TIME": f"{seconds}"}


def forget(signed: str) -> None:
    """Have GDAL ask anew for a remote file, of which it hands out a cut-off answer, or a 503, over and over.

    A URL gets another fragment, which no server sees: to drop what is held would break what other threads are reading.
    Names of buckets have none: what is opened without a cache is dropped as it is closed, opened or not.
    """
    location = located(signed)
    if location is not None and location.kind == "http":
        with _lock:
            _doubted[location.gdal] = _doubted.get(location.gdal, 0) + 1
    elif far(signed):
        name = gdal_name(signed)
        with network(signed, CPL_VSIL_CURL_NON_CACHED=name), suppress(*GDAL_ERRORS):
            rasterio.open(name).close()


@contextmanager
def as_file(head: Head) -> Iterator[str]:
    """Give GDAL's name of a file that is a header, and zeros where its pixels are: GDAL opens it all the same."""
    with MemoryFile(head.data) as first:
        files = [(0, len(head.data), first.name)]
        more = [(offset, len(data), MemoryFile(data)) for offset, data in head.more]
        files += [(offset, count, file.name) for offset, count, file in more]
        regions = "".join(
            f"<SubfileRegion><Filename>{name}</Filename><DestinationOffset>{offset}</DestinationOffset>"
            f"<SourceOffset>0</SourceOffset><RegionLength>{count}</RegionLength></SubfileRegion>"
            for offset, count, name in files
        )
        xml = f"<VSISparseFile><Length>{head.size}</Length>{regions}</VSISparseFile>"
        try:
            with MemoryFile(xml.encode()) as file:
                yield f"/vsisparse/{file.name}"
        finally:
            for _, _, each in more:
                each.close()
