"""Windows of single rasters and variables, read onto a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from geopipes.errors import GridError
from geopipes.read.nodata import usable_nodata
from geopipes.read.reader import Reader
from geopipes.read.sources import Source, Stack, Variable

Array = np.ndarray[Any, Any]


def read_source(source: Source, geobox: GeoBox, rows: slice, cols: slice, resampling: str) -> tuple[Array, Array]:
    """Read a window of one raster onto a grid.

    Parameters
    ----------
    source : the raster
    geobox : the whole grid, which pixels are anchored to
    rows, cols : pixel ranges inside the grid
    resampling : "nearest", "bilinear", "cubic", "average" or "mode"; a raster on the same grid is copied

    Returns
    -------
    pixels : (band, y, x), of the source's dtype; of no meaning where not valid
    valid : (band, y, x), bool

    Raises
    ------
    SourceError
        the file is not what its item states, or lacks a band
    ReadError
        the pixels could not be read: names item, asset, href, window and cause
    """
    height, width = geobox.shape
    if not 0 <= rows.start <= rows.stop <= height or not 0 <= cols.start <= cols.stop <= width:
        asked = f"rows {rows.start}..{rows.stop}, columns {cols.start}..{cols.stop} of the grid"
        raise GridError(f"{asked}: the grid has {height} x {width} px (y, x)")
    labels = tuple(str(band) for band in source.bands)
    nodata = usable_nodata(source.nodata, source.dtype)
    variable = Variable(source.asset, source.dtype, nodata, resampling, labels, ((source,),))
    return read_variable(variable, 0, geobox, rows, cols)


def read_variable(variable: Variable, step: int, geobox: GeoBox, rows: slice, cols: slice) -> tuple[Array, Array]:
    """Read a window of a variable at one time step: in each band and pixel the first valid source wins.

    Parameters
    ----------
    variable : what to read; rasters that do not touch the window are never opened
    step : the time step
    geobox : the whole grid
    rows, cols : pixel ranges of the grid, which may reach outside; there nothing is valid

    Returns
    -------
    pixels : (band, y, x), of the variable's dtype; where not valid NaN for floats, else its nodata, else 0
    valid : (band, y, x), bool

    Raises
    ------
    SourceError, ReadError
        as `read_source`
    """
    block = Reader(Stack(geobox, None, (variable,))).read(rows, cols, [step])
    return block.pixels[variable.dtype][0], block.shown(variable.dtype)[0]
