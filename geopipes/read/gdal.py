"""What GDAL raises, how it opens remote files, and how it is made to forget what it holds of one."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio._path import _parse_path
from rasterio.errors import RasterioError

from geopipes.read.failures import is_remote, timeout

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""What rasterio raises; some errors of GDAL reach the caller unwrapped."""


def cause(error: BaseException) -> str:
    """Give the text of the error that began it: rasterio's own says only that one came before."""
    while isinstance(before := error.__cause__ or error.__context__, GDAL_ERRORS):
        error = before
    return str(error)


def from_afar(**options: str) -> AbstractContextManager[object]:
    """Open remote files in this block; what is opened keeps to these settings."""
    seconds = str(timeout())
    # Listing a remote folder for sidecar files costs more than a chip.
    settings = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_HTTP_TIMEOUT": seconds}
    environment: AbstractContextManager[object] = rasterio.Env(**settings, GDAL_HTTP_CONNECTTIMEOUT=seconds, **options)
    return environment


def forget(signed: str) -> None:
    """Have GDAL forget what it holds of a remote file: it hands out a cut-off answer, or a 503, over and over."""
    if not is_remote(signed):
        return
    # What is opened so is forgotten as it is closed, whether it could be opened or not.
    with from_afar(CPL_VSIL_CURL_NON_CACHED=_parse_path(signed).as_vsi()), suppress(*GDAL_ERRORS):
        rasterio.open(signed).close()
