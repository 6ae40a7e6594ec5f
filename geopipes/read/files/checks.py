"""Whether a file is what its item states."""

from __future__ import annotations

import numpy as np

from geopipes.errors import NotGeoreferenced, SourceError
from geopipes.read.files.layouts import Layout, named
from geopipes.read.placing import applied
from geopipes.read.sources import Source

HEADER_SLACK = 0.01
"""Pixels by which item and file may differ: items print rounded numbers, and resampling does not show it."""


def check_header(layout: Layout, source: Source) -> None:
    """Raise where a file's grid is not the one that its item states.

    Raises
    ------
    NotGeoreferenced
        the file has no CRS
    SourceError
        CRS, transform or shape are others
    """
    stated, found = source.geobox, layout.geobox
    kind: type[SourceError] = NotGeoreferenced
    if found.crs is not None:
        height, width = found.shape
        x, y = np.array([0, width, 0, width]), np.array([0, 0, height, height])
        at_x, at_y = applied(~stated.affine, *applied(found.affine, x, y))
        off = max(np.abs(at_x - x).max(), np.abs(at_y - y).max())
        if found.shape == stated.shape and off < HEADER_SLACK and found.crs == stated.crs:
            return
        kind = SourceError
    raise kind(
        f"{named(source)}: the item states {stated.crs}, transform {tuple(stated.affine[:6])}, shape "
        f"{tuple(stated.shape)} (y, x); the file has {found.crs or 'no CRS'}, transform {tuple(found.affine[:6])}, "
        f'shape {tuple(found.shape)}. Write stack(..., headers="file") to go by the files'
    )


def check_bands(layout: Layout, source: Source) -> None:
    """Raise where a file lacks a band, or its pixels do not fit the dtype that is stated.

    Raises
    ------
    SourceError
        says what the file has instead
    """
    if min(source.bands) < 1 or max(source.bands) > layout.count:
        raise SourceError(
            f"{named(source)}: bands {source.bands} were asked for; the file has 1 to {layout.count}. "
            'Write stack(..., headers="file") to go by the files'
        )
    for dtype in {layout.dtypes[band - 1] for band in source.bands}:
        if dtype.kind == "c":
            raise SourceError(
                f"{named(source)}: pixels are {dtype}, and real numbers are needed: write the amplitude, or the "
                "two parts as two bands, to a file of its own"
            )
        if not np.can_cast(dtype, source.dtype, "safe"):
            raise SourceError(
                f"{named(source)}: the item states {source.dtype} pixels, the file has {dtype}. "
                'Write stack(..., headers="file") to go by the files'
            )
