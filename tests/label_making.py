"""What tests of labels share: cubes, features on their pixels, and masks put together of chips."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

import geopipes as gp

UTM = "EPSG:32633"
LEFT, TOP = 500_000.0, 5_000_000.0


def grid(shape: tuple[int, int] = (40, 56), resolution: float = 10.0, crs: str = UTM) -> GeoBox:
    return GeoBox(shape, Affine(resolution, 0, LEFT, 0, -resolution, TOP), crs)


def told(of: GeoBox) -> GeoBox:
    """The grid as the coordinates of a cube tell it: thirds are rounded."""
    whole: GeoBox = cubes(of)._value.get().cubes[0].geobox
    return whole


def cubes(of: GeoBox) -> gp.Pipe[xr.Dataset]:
    place = {str(name): values.values for name, values in of.coordinates.items()}
    return gp.cubes(xr.Dataset({"image": (("y", "x"), np.zeros(of.shape, "uint8"))}, place), crs=str(of.crs))


def frame(shapes: Any, of: GeoBox | None = None, **columns: Any) -> gpd.GeoDataFrame:
    """Shapes in pixels of the grid (x, y down) as features in its CRS."""
    of = of or grid()
    a, _, c, _, e, f = of.affine[:6]
    moved = shapely.transform(np.array(shapes, object), lambda xy: xy * (a, e) + (c, f))
    return gpd.GeoDataFrame(columns, geometry=moved, crs=str(of.crs))


def mask(pipe: gp.Pipe[xr.Dataset], name: str = "label") -> xr.DataArray:
    (whole,) = pipe
    return whole[name].load()


def put_together(pipe: gp.Pipe[xr.Dataset], size: int, name: str = "label", **options: Any) -> npt.NDArray[Any]:
    """The whole, of its chips."""
    (whole,) = pipe
    out = np.full(whole[name].shape, 254, whole[name].dtype)
    plan = pipe.chip(size, **options)
    margin = options.get("margin", 0)
    for row, chip in zip(plan.table().itertuples(), plan.read(threads=2), strict=True):
        pixels = chip[name].values[margin : margin + size, margin : margin + size]
        out[row.row : row.row + size, row.col : row.col + size] = pixels[
            : out.shape[0] - row.row, : out.shape[1] - row.col
        ]
    return out
