"""Sources as both engines take them: one band each, floats, NaN where nothing was measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from odc.geo.crs import norm_crs_or_error
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio._path import _parse_path
from rasterio.errors import RasterioError

from geopipes.errors import ReadError, SourceError
from geopipes.read.failures import Signature, SigningError, shown
from geopipes.read.files import named
from geopipes.read.hrefs import unsigned_within
from geopipes.read.placing import placement
from geopipes.read.sources import Source, Variable
from geopipes.read.stores.locations import local_path


@dataclass(frozen=True)
class Layer:
    """One source of one step.

    Attributes
    ----------
    step : index of the time step
    rasters : its bands, each as GDAL opens it
    bounds : where in the grid it may lie: left, bottom, right, top in the grid's CRS
    """

    step: int
    rasters: tuple[str, ...]
    bounds: tuple[float, float, float, float]


def layers(variable: Variable, grid: GeoBox) -> Iterator[Layer]:
    """Describe the sources that may touch the grid: step by step, the first choice first, hrefs signed.

    Raises
    ------
    ReadError
        a modifier failed
    """
    dtype = carrier(variable)
    for step, sources in enumerate(variable.sources):
        for source in sources:
            bounds = bounds_within(grid, source.geobox)
            if bounds is not None:
                try:
                    href = Signature(source).href
                except SigningError as error:
                    raise ReadError(f"{named(source)}: {unsigned_within(str(error))}") from shown(error)
                rasters = tuple(single_band(source, href, band, dtype) for band in source.bands)
                yield Layer(step, rasters, bounds)


def carrier(variable: Variable) -> np.dtype[Any]:
    """Choose the float that holds a variable's pixels and its sources' exactly, with NaN to spare.

    Raises
    ------
    SourceError : integers of 64 bits, complex numbers
    """
    stored = {variable.dtype, *(source.dtype for step in variable.sources for source in step)}
    for dtype in stored:
        if dtype.kind not in "iuf" or (dtype.kind in "iu" and dtype.itemsize > 4):
            raise SourceError(
                f"{variable.name!r} holds {dtype}, and the dask engines carry pixels as floats, exact for"
                " integers of at most 32 bits; leave engine= out to read it"
            )
    return np.result_type(np.float32, *stored)


def bounds_within(grid: GeoBox, raster: GeoBox) -> tuple[float, float, float, float] | None:
    """Find where in a grid a raster may lie: left, bottom, right, top in the grid's CRS; None where nowhere."""
    height, width = grid.shape
    first_row, last_row, first_column, last_column = placement(raster, grid).bounds
    rows, columns = (max(first_row, 0), min(last_row, height)), (max(first_column, 0), min(last_column, width))
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        return None
    left, right = (grid.affine.c + grid.affine.a * column for column in columns)
    top, bottom = (grid.affine.f + grid.affine.e * row for row in rows)
    return left, bottom, right, top


def single_band(source: Source, href: str, band: int, dtype: np.dtype[Any]) -> str:
    """Describe one band of a source as a raster of floats, scaled, NaN where nothing was measured: an inline VRT.

    It serves where ``vrt://href?bands=k`` does not: hrefs with a query of their own (signed ones), a nodata
    value that only the item states, masks and alpha bands. And GDAL lends a file's handle to one reader at a
    time (``shared="0"``), whatever thread it was opened in: stackstac reads in other threads than it opens in.

    Parameters
    ----------
    source : whose band it is
    href : where to read it, signed where need be
    band : within the file, from 1
    dtype : float32 or float64

    Returns
    -------
    XML that GDAL opens as a dataset on the source's own grid: https://gdal.org/drivers/raster/vrt.html
    """
    height, width = source.geobox.shape
    extent = f'xOff="0" yOff="0" xSize="{width}" ySize="{height}"'
    nodata = "" if source.nodata is None else f"<NODATA>{float(source.nodata)!r}</NODATA>"
    scaled = ""
    if source.scale is not None:  # in float64, as our own reader does, and of what is measured alone
        scaled = f"<ScaleOffset>{source.scale[1]!r}</ScaleOffset><ScaleRatio>{source.scale[0]!r}</ScaleRatio>"
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
        f"<SRS>{escape(norm_crs_or_error(source.geobox.crs).to_wkt())}</SRS>"
        f"<GeoTransform>{', '.join(map(repr, source.geobox.affine.to_gdal()))}</GeoTransform>"
        f'<VRTRasterBand dataType="{dtype.name.capitalize()}" band="1">'
        f"<Description>{escape(named(source))}</Description><NoDataValue>nan</NoDataValue>"
        # The path as rasterio gives it to GDAL: of a plain https:// GDAL would download the whole file.
        f'<ComplexSource><SourceFilename shared="0">{escape(_parse_path(local_path(href)).as_vsi())}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand><SrcRect {extent}/><DstRect {extent}/>"
        f"{scaled}{nodata}<UseMaskBand>true</UseMaskBand></ComplexSource></VRTRasterBand></VRTDataset>"
    )


@contextmanager
def reading(raster: str) -> Iterator[None]:
    """Read from what `single_band` gave: whatever fails meanwhile becomes a ReadError that names the raster."""
    described = ET.fromstring(raster)
    name, path = (described.findtext(f".//{tag}", "") for tag in ("Description", "SourceFilename"))
    # A sidecar file may hold a local file's mask; to list a remote folder for one costs more than a chunk.
    listing = "EMPTY_DIR" if path.startswith("/vsi") else "FALSE"
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=listing):
            yield
    except (RasterioError, CPLE_BaseError, RuntimeError) as error:
        cause: BaseException = error
        while (before := cause.__cause__ or cause.__context__) is not None:
            cause = before  # the first one says what happened, and the others that something did
        below = None if "?" in path else error  # whose text may hold the raster, and so its signature
        raise ReadError(f"{name} could not be read: {str(cause).replace(path, 'the file')}") from below
