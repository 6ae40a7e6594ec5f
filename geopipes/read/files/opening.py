"""Open files: one of each for all threads of a process, opened once, checked against what the items state."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geopipes.errors import NotGeoreferenced, SourceError
from geopipes.meters import OPENING, holding, timed
from geopipes.read.failures import Signature, check_lost, persist
from geopipes.read.files.afar import FarFile
from geopipes.read.files.bycog import CogFile, identity
from geopipes.read.files.bygdal import GdalFile, alpha_band, close_rasters, layout_of, levels_of
from geopipes.read.files.checks import check_bands, check_header
from geopipes.read.files.fitting import Unfit, fit, fit_path
from geopipes.read.files.layouts import File, Layout, named
from geopipes.read.gdal import GDAL_ERRORS, cause
from geopipes.read.sources import Source
from geopipes.read.stores import Head, Location, head, known, located
from geopipes.read.stores import forget as forget_head
from geopipes.read.stores.gdal import as_file, forget, open_raster
from geopipes.read.stores.locations import local_path

KEPT = 4096
"""Files whose headers a process keeps: for 10,980 px a side in tiles of 512 px 11 KB each, all together 45 MB."""

CHECKED = 64
"""Sources of one file that are known to agree with it: its bands, and what a few pipes state of them."""


class _Entry:
    """One file, the stamp it was opened under, and what it was checked against; the lock is held to open it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.file: File | None = None
        self.stamp: tuple[object, ...] = ()
        self.checked: dict[int, Source] = {}  # by id: comparing grids takes longer than the rest of `opened`


assuming: ContextVar[Callable[[Source], File] | None] = ContextVar("assuming", default=None)
"""What stands for open files, where somebody asks what would be read; None where it is read."""

_lock = threading.Lock()
_entries: OrderedDict[tuple[Hashable, ...], _Entry] = OrderedDict()


def opened(source: Source) -> File:
    """Open what a source names, or give the file opened before.

    A local file that was rewritten since, and one of which a read failed, is opened anew, and signed anew.

    Parameters
    ----------
    source : whose href is signed by its modifier when it is opened

    Raises
    ------
    SourceError
        the file's header is not what the item states, it lacks a band, or its pixels are complex
    NotGeoreferenced
        the file has no CRS
    ReadError
        it could not be opened
    """
    if (assume := assuming.get()) is not None:
        return assume(source)
    entry, now = _entry(source), stamp(source)
    with holding(entry.lock):
        if entry.file is None or entry.file.broken or entry.stamp != now:
            if entry.file is not None:
                entry.file.close()
            entry.file, entry.stamp = None, now
            entry.checked.clear()
            entry.file = _open(source)
        if id(source) not in entry.checked:
            check_header(entry.file.layout, source)
            check_bands(entry.file.layout, source)
            if len(entry.checked) == CHECKED:
                entry.checked.clear()
            entry.checked[id(source)] = source
        return entry.file


def at_hand(source: Source) -> bool:
    """Say whether opening a source takes no request to a store: it is local, open, or its header is kept."""
    location = located(source.href)
    with _lock:
        entry = _entries.get(_key(source))
    return location is None or (entry is not None and entry.file is not None) or known(location)


def reason(source: Source) -> str:
    """Say how a source is read and why: "cog: tiled, deflate, predictor 2, uint16"."""
    file = opened(source)
    return f"{file.kind}: {file.reason}"


def stamp(source: Source) -> tuple[object, ...]:
    """Give what tells the pixels of a source's file from others: its href, and where it is local its state on disk.

    The state is that of the file itself: what a VRT refers to may change unseen.
    """
    try:
        return (source.href, *identity(os.stat(local_path(source.href))))
    except (OSError, ValueError):  # not a local path, or one that cannot be: opening it says so
        return (source.href,)


def close_files() -> None:
    """Close every file of this process, save what other threads have open through GDAL; each may be opened anew."""
    with _lock:
        entries = [*_entries.values()]
        _entries.clear()
    for entry in entries:
        with entry.lock:
            if entry.file is not None:
                entry.file.close()
    close_rasters()


def _key(source: Source) -> tuple[Hashable, ...]:
    """Name a file, and who signs for it: nobody reads by the signature of another pipe's modifier."""
    signs = source.modifier if isinstance(source.modifier, Hashable) else id(source.modifier)
    return source.href, source.item, source.asset, signs


def _entry(source: Source) -> _Entry:
    key = _key(source)
    with _lock:
        entry = _entries.get(key) or _entries.setdefault(key, _Entry())
        _entries.move_to_end(key)
        old = _entries.popitem(last=False)[1].file if len(_entries) > KEPT else None
    if old is not None:
        old.close()
    return entry


def _open(source: Source) -> File:
    signature, what = Signature(source), f"{named(source)}: the file could not be read"
    errors = (OSError, *GDAL_ERRORS)

    def work() -> File:
        return _chosen(source, signature.href)

    check_lost(what)
    try:
        with timed(OPENING):
            return persist(work, signature, what=what, errors=errors, text=cause, mend=forget)
    except NotGeoreferencedWarning as warning:  # an error where warnings are
        raise NotGeoreferenced(f"{named(source)}: the file has neither CRS nor affine transform") from warning


def _chosen(source: Source, signed: str) -> File:
    """Open by byte ranges where that is proven, else by GDAL."""
    location = located(signed)
    if location is not None:
        with suppress(_Unread):
            return _far(source, signed, location)
    raster = open_raster(signed)
    try:
        layout, path = _checked(raster, source), local_path(signed)
        try:
            found = fit_path(raster, path, layout)
        except Unfit as unfit:
            return _by_gdal(source, signed, str(unfit), raster, signed).opened(raster)
    except BaseException:
        raster.close()
        raise
    layout = layout_of(raster, found.levels)
    raster.close()
    return CogFile(source, signed, layout, found.reason, path=path, tiles=found.tiles)


def _checked(raster: rasterio.DatasetReader, source: Source) -> Layout:
    """Give what GDAL says of a raster, without its levels, if that is what its item states."""
    layout = layout_of(raster, ())
    check_header(layout, source)
    check_bands(layout, source)
    return layout


def _by_gdal(source: Source, signed: str, reason: str, raster: rasterio.DatasetReader, name: str) -> GdalFile:
    """Give a file that GDAL reads; ``name`` is what the raster was opened as."""
    layout = layout_of(raster, levels_of(raster, name))
    return GdalFile(source, signed, layout, reason, alpha_band(raster))


def _far(source: Source, signed: str, location: Location) -> File:
    """Open a TIFF in a store by its header, asked for anew where one that was kept is not what the item states.

    Raises
    ------
    _Unread
        a header is not all there is to know
    """
    header = head(location)
    try:
        return _by_header(source, signed, location, header)
    except SourceError:
        if not header.kept:
            raise
        forget_head(location)
        return _by_header(source, signed, location, head(location))


def _by_header(source: Source, signed: str, location: Location, header: Head) -> File:
    """Open a TIFF by its header, of which GDAL says what it means: it holds the GIL where it waits."""
    with as_file(header) as name, _opened_header(name) as raster:
        layout = _checked(raster, source)
        try:
            found = fit(raster, header.read, layout, name)
        except Unfit as unfit:
            return _by_gdal(source, signed, str(unfit), raster, name)
        layout = layout_of(raster, found.levels)
    return FarFile(source, signed, layout, found.reason, location=location, head=header, tiles=found.tiles)


class _Unread(Exception):
    """A file whose header alone tells too little: no TIFF, or without a CRS, which a file beside it may hold."""


@contextmanager
def _opened_header(name: str) -> Iterator[rasterio.DatasetReader]:
    """Open a header as a file of GDAL's own."""
    try:
        raster = rasterio.open(name)
    except RasterioError as error:
        raise _Unread from error
    with raster:
        if raster.crs is None:
            raise _Unread
        yield raster


def _forget() -> None:
    """Begin anew in a forked process: a lock that another thread held would never be released there."""
    global _lock
    _lock = threading.Lock()
    _entries.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
