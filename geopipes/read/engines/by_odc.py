"""odc-stac reads the layers of a variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import odc.stac
import pystac
from odc.geo.crs import norm_crs_or_error
from odc.geo.geobox import GeoBox
from odc.loader import RioDriver, RioReader

from geopipes.read.engines.layers import Layer, carrier, reading
from geopipes.read.sources import Variable

if TYPE_CHECKING:
    import dask.array as da

NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Items need a datetime; this one is not looked at."""


def read(grid: GeoBox, variable: Variable, layers: Sequence[Layer], chunk: int) -> Mapping[int, da.Array]:
    """Read each step that has layers: (band, y, x) floats, NaN where no layer is valid."""
    bands = [f"b{band}" for band in range(len(layers[0].rasters))]
    # pystac takes inline rasters for relative paths: the assets hold names, and patch_url puts the rasters in.
    rasters: dict[str, str] = {}
    items = []
    for number, layer in enumerate(layers):
        item = pystac.Item(str(number), None, None, NO_TIME, {"step": layer.step})
        item.stac_extensions.append("https://stac-extensions.github.io/projection/v1.1.0/schema.json")
        for band, raster in zip(bands, layer.rasters, strict=True):
            name = f"raster:///{number}/{band}"
            rasters[name] = raster
            item.add_asset(band, pystac.Asset(name, roles=["data"], extra_fields=_one_pixel(layer, grid)))
        items.append(item)
    cube = odc.stac.load(
        items,
        bands,
        groupby="step",
        preserve_original_order=True,
        geobox=grid,
        chunks={"y": chunk, "x": chunk},
        resampling=variable.resampling,
        dtype=carrier(variable).name,
        nodata=np.nan,
        use_overviews=False,
        fail_on_error=True,
        patch_url=rasters.__getitem__,
        driver=_Driver(),
    )
    pixels = cube.to_dataarray("band").transpose("time", "band", ...).data
    return dict(zip(sorted({layer.step for layer in layers}), pixels, strict=True))


def _one_pixel(layer: Layer, grid: GeoBox) -> dict[str, Any]:
    """Say where a layer lies, as one large pixel: odc-stac reads it into the chunks that this one touches."""
    left, bottom, right, top = layer.bounds
    return {
        "proj:wkt2": norm_crs_or_error(grid.crs).to_wkt(),
        "proj:shape": [1, 1],
        "proj:transform": [right - left, 0.0, left, 0.0, bottom - top, top],
    }


class _Driver(RioDriver):
    """odc-stac's own driver, with readers that name what fails."""

    def open(self, src: Any, ctx: Any) -> RioReader:
        return _Reader(src, ctx)


class _Reader(RioReader):
    def read(self, *args: Any, **options: Any) -> Any:
        with reading(self._src.uri):
            return super().read(*args, **options)
