"""Pixels to Cloud-optimized GeoTIFFs, for the synthetic worlds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox


def write_cog(
    path: Path,
    pixels: NDArray[Any],
    geobox: GeoBox,
    *,
    nodata: int,
    overviews: str,
    colours: Mapping[int, tuple[int, int, int]] | None = None,
    names: Sequence[str] = (),
) -> None:
    """Write (y, x) or (band, y, x) pixels as a Cloud-optimized GeoTIFF with overviews of factors 2 and 4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = pixels.reshape(-1, *geobox.shape)
    profile = {
        "driver": "COG",
        "count": len(bands),
        "height": geobox.shape[0],
        "width": geobox.shape[1],
        "dtype": pixels.dtype.name,
        "crs": str(geobox.crs),
        "transform": geobox.affine,
        "nodata": nodata,
        "compress": "deflate",
        "predictor": "standard",  # horizontal differencing, TIFF's predictor 2
        "blocksize": 256,
        "overview_count": 2,  # of itself GDAL makes none for files of 512 px and less
        "overview_resampling": overviews,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)
        if colours is not None:
            file.write_colormap(1, colours)
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
