"""What GDAL raises, and what began it."""

from __future__ import annotations

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""What rasterio raises; some errors of GDAL reach the caller unwrapped."""


def cause(error: BaseException) -> str:
    """Give the text of the error that began it: rasterio's own says only that one came before."""
    while isinstance(before := error.__cause__ or error.__context__, GDAL_ERRORS):
        error = before
    return str(error)
