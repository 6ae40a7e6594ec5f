"""Pixels: the one place where files are opened."""

from __future__ import annotations


def reason(href: str) -> str:
    """Say how the pixels of a raster are read, and why.

    Parameters
    ----------
    href : a path, a URL or anything GDAL opens

    Returns
    -------
    ``"cog: ..."`` where tiles are read by byte ranges, ``"gdal: ..."`` where GDAL reads them, with the cause

    Raises
    ------
    NotGeoreferenced, ReadError, SourceError
        the file cannot be read
    """
    import numpy as np

    from geopipes.read import files
    from geopipes.read.headers import file_header
    from geopipes.read.hrefs import unsigned
    from geopipes.read.sources import Source

    header = file_header(href)
    source = Source(
        href=href, bands=(1,), geobox=header.geobox, dtype=header.dtypes[0], nodata=header.nodata[0],
        item=unsigned(href), collection=None, asset="raster", time=np.datetime64("NaT", "ns"),
    )  # fmt: skip
    return files.reason(source)
