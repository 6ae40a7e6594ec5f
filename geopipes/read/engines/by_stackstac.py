"""stackstac reads the layers of a variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import stackstac
from odc.geo.crs import norm_crs_or_error
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from stackstac.rio_reader import AutoParallelRioReader

from geopipes.read.engines.layers import Layer, carrier, reading
from geopipes.read.sources import Variable

if TYPE_CHECKING:
    import dask.array as da

NO_TIME = "1970-01-01T00:00:00Z"
"""Items need a datetime; this one is not looked at."""


def read(grid: GeoBox, variable: Variable, layers: Sequence[Layer], chunk: int) -> Mapping[int, da.Array]:
    """Read each step that has layers: (band, y, x) floats, NaN where no layer is valid."""
    dtype = carrier(variable)
    epsg = norm_crs_or_error(grid.crs).to_epsg()
    items = [
        {
            "id": str(number),
            "properties": {"datetime": NO_TIME, "proj:epsg": epsg, "proj:bbox": layer.bounds},
            "assets": {f"b{band}": {"href": raster} for band, raster in enumerate(layer.rasters)},
        }
        for number, layer in enumerate(layers)
    ]
    cube = stackstac.stack(
        items,
        assets=[f"b{band}" for band in range(len(layers[0].rasters))],
        epsg=epsg,
        bounds=grid.boundingbox.bbox,
        resolution=(grid.resolution.x, -grid.resolution.y),
        snap_bounds=False,
        resampling=Resampling[variable.resampling],
        chunksize=chunk,
        dtype=dtype,
        fill_value=dtype.type(np.nan),
        rescale=False,
        sortby_date=False,
        xy_coords=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),  # a file that is not there raises; stackstac's default makes it nodata
        gdal_env=stackstac.LayeredEnv(always={}, open={"VSI_CACHE": True}, read={"VSI_CACHE": False}),
        reader=_Reader,
    )
    steps = np.array([layer.step for layer in layers])  # ascending
    filled = {}
    for step in np.unique(steps):
        first, last = np.searchsorted(steps, [step, step + 1])
        # reverse: by default the last valid pixel wins.
        filled[int(step)] = stackstac.mosaic(cube[first:last], axis=0, reverse=True).data
    return filled


class _Reader(AutoParallelRioReader):  # type: ignore[misc]  # stackstac has no types
    """stackstac's own reader, which names what fails."""

    def read(self, *args: Any, **options: Any) -> Any:
        with reading(self.url):
            return super().read(*args, **options)
