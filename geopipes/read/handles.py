"""Open rasters, kept by each thread: opened once, checked against what the item states, closed in time."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geopipes.errors import NotGeoreferenced, ReadError, SourceError
from geopipes.read.headers import signed_href
from geopipes.read.sources import Source

Array = np.ndarray[Any, Any]

KEPT_OPEN = 48
"""Rasters a thread keeps open: with 16 threads 768, of the 1,024 files that Linux lets a process open."""

TOLERANCE = 1e-6
"""Source pixels by which GDAL may approximate a coordinate: no nearest pixel changes but at a tie."""

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""What rasterio raises; some errors of GDAL reach the caller unwrapped."""

HEADER_SLACK = 0.01
"""Pixels by which item and file may differ: items print rounded numbers, and resampling does not show it."""


@dataclass(frozen=True)
class Warp:
    """The grid that a raster is warped onto, whole, and how.

    Attributes
    ----------
    geobox : all of the cube's grid, never a chip's
    resampling : "nearest", "bilinear", "cubic", "average" or "mode"
    scale : target pixels for one source pixel, along the source's (y, x); below 1 GDAL widens its kernel
    """

    geobox: GeoBox
    resampling: str
    scale: tuple[float, float]


@dataclass(frozen=True)
class Handle:
    """An open raster, plain or warped, and what tells its valid pixels.

    Attributes
    ----------
    files : the file as it is stored, then its warps, each of the one before; the last is what is read
    nodata : the value that is no measurement in what is read; NaN never is one
    alpha : the band of what is read that is 0 where there is no measurement
    masked : whether what is read has a mask beside its bands
    """

    files: tuple[rasterio.DatasetReader | WarpedVRT, ...]
    nodata: float | None
    alpha: int | None
    masked: bool

    def read(self, bands: tuple[int, ...], dtype: np.dtype[Any], window: Window) -> tuple[Array, Array]:
        """Read a window that lies inside: pixels and validity, both (band, y, x)."""
        alpha = [] if self.alpha is None else [self.alpha]
        data = self.files[-1].read([*bands, *alpha], window=window, out_dtype=dtype)
        valid = np.ones(data.shape, bool) if dtype.kind != "f" else ~np.isnan(data)
        if self.nodata is not None:
            valid &= data != self.nodata
        if alpha:
            valid &= data[-1] > 0
        if self.masked:
            valid &= self.files[-1].read_masks([*bands], window=window) > 0
        return data[: len(bands)], valid[: len(bands)]

    def close(self) -> None:
        """Close the warps, then the file below them."""
        for file in reversed(self.files):
            file.close()


class _Kept(threading.local):
    """The open handles of one thread, the one used last at the end: GDAL's are not to be shared."""

    def __init__(self) -> None:
        self.handles: OrderedDict[tuple[object, ...], Handle] = OrderedDict()


_kept = _Kept()


@contextmanager
def opened(source: Source, warp: Warp | None, what: str) -> Iterator[Handle]:
    """Give this thread's handle of a raster; what fails meanwhile says which raster and what was read.

    Parameters
    ----------
    source : the raster
    warp : the grid it is warped onto; None to read it as it is stored
    what : the window, for the error

    Raises
    ------
    SourceError
        the file's header is not what the item states, or it lacks a band
    NotGeoreferenced
        the file has no CRS
    ReadError
        GDAL could not open or read it; the handle is dropped, so that the next attempt signs and opens anew
    """
    key = _key(source, warp)
    signed = source.href
    # GDAL warps anchored blocks of 512 x 128 px into its cache, save where it is asked for more at once: then
    # it warps just that, approximates along it, and pixels would depend on the window.
    options = {"GDAL_VRT_WARP_USE_DATASET_RASTERIO": "NO"}
    if "://" in source.href:
        # Listing a remote folder for sidecar files costs more than a chip.
        options["GDAL_DISABLE_READDIR_ON_OPEN"] = "EMPTY_DIR"
    try:
        with rasterio.Env(**options):
            if key not in _kept.handles:
                signed = _signed(source)
                _keep(key, _open(source, signed, warp))
            _kept.handles.move_to_end(key)
            handle = _kept.handles[key]
            signed = handle.files[0].name
            check_bands(handle.files[0], source)
            yield handle
    except GDAL_ERRORS as error:
        if key in _kept.handles:
            _kept.handles.pop(key).close()
        cause = str(_first_cause(error)).replace(signed, source.href)
        raise ReadError(f"{named(source)}: {what} could not be read: {cause}") from error


def close_handles() -> None:
    """Close every raster that the current thread keeps open."""
    while _kept.handles:
        _kept.handles.popitem()[1].close()


def named(source: Source) -> str:
    """Name a raster in an error."""
    return f"item {source.item!r}, asset {source.asset!r} ({source.href})"


def cheap_key(geobox: GeoBox) -> tuple[object, ...]:
    """Give what tells grids apart; hashing a GeoBox writes out its CRS as WKT, at the cost of a small read."""
    return (*geobox.shape, geobox.affine, str(geobox.crs))


def applied(affine: Affine, x: Array, y: Array) -> tuple[Array, Array]:
    """Take points through an affine transform; multiplying is spelled otherwise from affine 3 on."""
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def check_header(file: rasterio.DatasetReader, source: Source) -> None:
    """Raise where a file's grid is not the one that its item states."""
    stated = source.geobox
    found = "no CRS" if file.crs is None else str(file.crs)
    kind: type[SourceError] = NotGeoreferenced
    if file.crs is not None:
        height, width = file.shape
        x, y = np.array([0, width, 0, width]), np.array([0, 0, height, height])
        at_x, at_y = applied(~stated.affine, *applied(file.transform, x, y))
        off = max(np.abs(at_x - x).max(), np.abs(at_y - y).max())
        if file.shape == tuple(stated.shape) and off < HEADER_SLACK and CRS(file.crs) == stated.crs:
            return
        kind = SourceError
    raise kind(
        f"{named(source)}: the item states {stated.crs}, transform {tuple(stated.affine[:6])}, shape "
        f"{tuple(stated.shape)} (y, x); the file has {found}, transform {tuple(file.transform[:6])}, shape "
        f'{file.shape}. Write stack(..., headers="file") to go by the files'
    )


def check_bands(file: rasterio.DatasetReader, source: Source) -> None:
    """Raise where a file lacks a band, or its pixels do not fit the dtype that is stated."""
    if min(source.bands) < 1 or max(source.bands) > file.count:
        raise SourceError(
            f"{named(source)}: bands {source.bands} were asked for; the file has 1 to {file.count}. "
            'Write stack(..., headers="file") to go by the files'
        )
    for dtype in {file.dtypes[band - 1] for band in source.bands}:
        if dtype.startswith("complex"):
            raise SourceError(
                f"{named(source)}: pixels are {dtype}, and real numbers are needed: write the amplitude, or the "
                "two parts as two bands, to a file of its own"
            )
        if not np.can_cast(dtype, source.dtype, "safe"):
            raise SourceError(
                f"{named(source)}: the item states {source.dtype} pixels, the file has {dtype}. "
                'Write stack(..., headers="file") to go by the files'
            )


def usable_nodata(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """Give nodata as pixels of a dtype hold it; None where they cannot: GDAL would clamp it to one they can."""
    if dtype.kind == "f":
        if nodata is None or np.isnan(nodata):
            return float("nan")
        with np.errstate(over="ignore"):
            held = float(dtype.type(nodata))
        return held if np.isfinite(held) or np.isinf(nodata) else float("nan")
    if nodata is None or not float(nodata).is_integer():
        return None
    bounds = np.iinfo(dtype)
    return int(nodata) if bounds.min <= nodata <= bounds.max else None


def _key(source: Source, warp: Warp | None) -> tuple[object, ...]:
    """Give what tells handles apart; bands of one file share a handle, and GDAL's cache below it."""
    onto = None if warp is None else (cheap_key(warp.geobox), warp.resampling)
    # By process: a fork would share the file's position with its parent.
    return (
        os.getpid(),
        source.href,
        source.item,
        source.asset,
        cheap_key(source.geobox),
        str(source.nodata),  # NaN is not equal to itself
        source.dtype,
        onto,
    )


def _signed(source: Source) -> str:
    return signed_href(
        source.href,
        item=source.item,
        collection=source.collection,
        asset=source.asset,
        modifier=source.modifier,
    )


def _keep(key: tuple[object, ...], handle: Handle) -> None:
    """Keep a handle, and close the one that was not used for longest where there are too many."""
    _kept.handles[key] = handle
    while len(_kept.handles) > KEPT_OPEN:
        _kept.handles.popitem(last=False)[1].close()


def _open(source: Source, signed: str, warp: Warp | None) -> Handle:
    try:
        file = rasterio.open(signed)
    except NotGeoreferencedWarning as warning:  # an error where warnings are
        raise NotGeoreferenced(f"{named(source)}: the file has neither CRS nor affine transform") from warning
    try:
        check_header(file, source)
        check_bands(file, source)
        return _handle(file, source, warp)
    except BaseException:
        file.close()
        raise


def _handle(file: rasterio.DatasetReader, source: Source, warp: Warp | None) -> Handle:
    """Settle what tells valid pixels: nodata, and the file's alpha band or mask, where there are any."""
    first = source.bands[0] - 1
    dtype = np.dtype(file.dtypes[first])
    nodata = usable_nodata(file.nodatavals[first] if source.nodata is None else source.nodata, dtype)
    alpha = next((band for band in file.indexes if file.colorinterp[band - 1] == ColorInterp.alpha), None)
    masked = alpha is None and MaskFlags.per_dataset in file.mask_flag_enums[first]
    if warp is None:
        return Handle((file,), nodata, alpha, masked)
    files: tuple[rasterio.DatasetReader | WarpedVRT, ...] = (file,)
    if masked:
        # A warp of one band heeds either nodata or a mask, but alpha beside both: a copy in place has alpha.
        files += (_warped(file, GeoBox(file.shape, file.transform, CRS(file.crs)), add_alpha=True),)
        alpha = file.count + 1
    # GDAL marks what is not valid by nodata, float pixels by NaN; where no value can be spared, by alpha.
    fill = float("nan") if dtype.kind == "f" else nodata
    vrt = _warped(
        files[-1],
        warp.geobox,
        src_nodata=nodata,
        nodata=fill,
        add_alpha=nodata is None and alpha is None,
        resampling=Resampling[warp.resampling],
        tolerance=TOLERANCE,
        UNIFIED_SRC_NODATA="NO",  # each band is valid for itself
        XSCALE=warp.scale[1],
        YSCALE=warp.scale[0],
    )
    alpha = (alpha or file.count + 1) if nodata is None else None
    return Handle((*files, vrt), fill, alpha, masked=False)


def _warped(file: rasterio.DatasetReader | WarpedVRT, geobox: GeoBox, **options: Any) -> WarpedVRT:
    height, width = geobox.shape
    place = {"crs": str(geobox.crs), "transform": geobox.affine, "height": height, "width": width}
    return WarpedVRT(file, **({"src_nodata": None, "nodata": None} | place | options))


def _first_cause(error: BaseException) -> BaseException:
    """Give GDAL's error that began it: rasterio's own says no more than that one came before."""
    while isinstance(before := error.__cause__ or error.__context__, GDAL_ERRORS):
        error = before
    return error
