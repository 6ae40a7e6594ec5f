"""stackstac's dask cube, cut into chips by xbatcher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pystac
import stackstac
import xarray as xr
from odc.geo.crs import norm_crs_or_error
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from benchmarks.jobs import CHIP, Job
from benchmarks.peers import Batch
from benchmarks.peers.odc_xbatcher import by_xbatcher


def batches(job: Job, positions: Sequence[int], threads: int) -> Iterator[Batch]:
    """Read chips of a job; chunks are the chips, so that none is read for its neighbour's sake."""
    yield from by_xbatcher(job, [_cube(job, number) for number in range(len(job.grids))], positions, threads)


def _cube(job: Job, number: int) -> xr.Dataset:
    """Make the cube of one grid."""
    grid = job.grids[number]
    own = [item for item in job.items if len(job.grids) == 1 or item.properties["proj:code"] == str(grid.crs)]
    image = _stacked(own, job.bands, grid, job.resampling, "uint16", 0)
    if job.dates is not None:
        mosaic = stackstac.mosaic(image, dim="time", nodata=0, reverse=True)  # the first valid pixel wins
        image = mosaic.expand_dims("time")
    cube = {"image": image.drop_vars(list(image.coords))}
    if job.label is not None:
        label = _stacked([job.label], ["crop"], grid, "nearest", "uint8", 255)
        cube["label"] = label.isel(time=0, band=0).drop_vars(list(label.coords))
    return xr.Dataset(cube)


def _stacked(
    items: Sequence[pystac.Item], bands: Sequence[str], grid: GeoBox, resampling: str, dtype: str, fill: int
) -> xr.DataArray:
    """Stack items onto a grid."""
    stacked: xr.DataArray = stackstac.stack(
        items,
        assets=list(bands),
        epsg=norm_crs_or_error(grid.crs).to_epsg(),
        bounds=grid.boundingbox.bbox,
        resolution=grid.resolution.x,
        snap_bounds=False,
        resampling=Resampling[resampling],
        chunksize=CHIP,
        dtype=dtype,
        fill_value=np.dtype(dtype).type(fill),
        rescale=False,
        properties=False,
        band_coords=False,
        xy_coords=False,
        errors_as_nodata=(),
    )
    return stacked
