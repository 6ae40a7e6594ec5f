"""Terrain of a joined elevation: equal to gdaldem, exact on planes, whatever the cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from test_pixels import Step, assert_law, cubes

import geopipes as gp
from geopipes import pixels
from geopipes.errors import MarginTooSmall, StepError
from geopipes.testing import Synthetic

NODATA = -9999

HEIGHTS = np.array(
    [[81, 166, 205, 148, 278, 328, 66], [186, 69, 372, 135, 261, 200, 85], [312, 353, 242, 295, 217, 83, 200],
     [244, 365, 210, 9, 68, 191, 203], [204, 355, 235, 327, 73, NODATA, 59], [390, 232, 399, 257, 303, 368, 392]],
    np.int16,
)  # fmt: skip

# What gdaldem of GDAL 3.10.3 makes of these heights, 10 m apart; of the pixels that have eight neighbours.
NAN = np.nan
SLOPES = [
    [84.07214, 79.0068, 76.014565, 71.62504, 83.617226], [80.692825, 79.56111, 83.27471, 81.727745, 56.19363],
    [62.57565, 84.27698, 80.517654, NAN, NAN], [44.38264, 82.725975, 85.756065, NAN, NAN],
]  # fmt: skip
ASPECTS = [
    [326.4337, 352.1847, 32.79953, 204.0108, 125.66806], [358.59137, 110.772255, 153.47272, 161.23578, 141.11551],
    [136.05118, 88.564316, 100.46534, NAN, NAN], [331.79837, 38.131554, 31.419487, NAN, NAN],
]  # fmt: skip
SHADES = [[195, 176, 81, 1, 1], [158, 1, 1, 1, 1], [1, 1, 1, NAN, NAN], [250, 45, 56, NAN, NAN]]


def ground(heights: Any, *, crs: str = "EPSG:32633", pixel: tuple[float, float] = (10, 10), **attrs: Any) -> xr.Dataset:
    """Give an elevation on a grid whose pixels are so wide and high."""
    heights = np.asarray(heights)
    left, top = (500_000, 5_100_000) if crs == "EPSG:32633" else (12, 60)
    affine = rasterio.Affine(pixel[0], 0, left, 0, -pixel[1], top)
    coords = xr_coords(GeoBox(heights.shape, affine, crs), always_yx=True)
    return xr.Dataset({"dem": (("y", "x"), heights, attrs)}).assign_coords(coords)


def whole(inner: Any) -> Any:
    return np.pad(np.array(inner, float), 1, constant_values=np.nan)


def test_terrain_equals_gdaldem() -> None:
    data = ground(HEIGHTS, nodata=NODATA, joined=True)
    np.testing.assert_allclose(pixels.slope(data, "dem")["slope"], whole(SLOPES), rtol=1e-6)
    np.testing.assert_allclose(pixels.aspect(data, "dem")["aspect"], whole(ASPECTS), rtol=1e-5)
    shade = np.round(1 + 254 * pixels.hillshade(data, "dem")["hillshade"].values)
    np.testing.assert_array_equal(shade, whole(SHADES))


@pytest.mark.parametrize("pixel", [(10.0, 10.0), (30.0, 20.0)])
@pytest.mark.parametrize(("east", "north"), [(0.1, 0.0), (0.0, 0.3), (-0.2, 0.1), (0.05, -0.4)])
def test_planes_are_exact(pixel: tuple[float, float], east: float, north: float) -> None:
    rows, columns = np.mgrid[:6, :7]
    data = ground(1000 + east * columns * pixel[0] - north * rows * pixel[1], pixel=pixel)
    inside = (slice(1, -1), slice(1, -1))
    steep = np.degrees(np.arctan(np.hypot(east, north)))
    np.testing.assert_allclose(pixels.slope(data, "dem")["slope"].values[inside], steep, rtol=1e-5)
    downhill = np.degrees(np.arctan2(-east, -north)) % 360
    np.testing.assert_allclose(pixels.aspect(data, "dem")["aspect"].values[inside], downhill, rtol=1e-4)
    normal = np.array([-east, -north, 1]) / np.sqrt(1 + east**2 + north**2)
    for azimuth, altitude in ((315, 45), (90, 10), (200, 80)):
        a, h = np.radians([azimuth, altitude])
        light = max(float(normal @ [np.sin(a) * np.cos(h), np.cos(a) * np.cos(h), np.sin(h)]), 0)
        found = pixels.hillshade(data, "dem", azimuth=azimuth, altitude=altitude)["hillshade"].values[inside]
        np.testing.assert_allclose(found, light, rtol=1e-5, atol=1e-7)


def test_flat_ground_has_no_aspect() -> None:
    data = ground(np.full((4, 4), 7.0))
    assert np.isnan(pixels.aspect(data, "dem")["aspect"].values).all()
    assert (pixels.slope(data, "dem")["slope"].values[1:3, 1:3] == 0).all()


def test_degrees_are_metres_at_their_latitude() -> None:
    """A slope of 0.1 in both directions, at 60 degrees north: a second is 15.5 m wide and 30.9 m high there."""
    second = 1 / 3600
    rows, columns = np.mgrid[:5, :5]
    east = ground(0.1 * columns * 15.5029, crs="EPSG:4326", pixel=(second, second))
    north = ground(-0.1 * rows * 30.9484, crs="EPSG:4326", pixel=(second, second))
    for data in (east, north):
        found = np.tan(np.radians(pixels.slope(data, "dem")["slope"].values[2, 2]))
        assert found == pytest.approx(0.1, rel=2e-4)


def test_terrain_on_dask_is_lazy_and_the_same() -> None:
    heights = np.random.default_rng(0).normal(size=(50, 60)).astype("f4")
    data = ground(heights)
    for step in (pixels.slope, pixels.aspect, pixels.hillshade):
        lazy = step(data.chunk(y=16, x=17), "dem")
        assert lazy[step.__name__].chunks
        xr.testing.assert_identical(lazy.compute(), step(data, "dem"))


def terraced(land: Synthetic, tmp_path: Path) -> Any:
    """Join an elevation to the cubes: hills, with a hole."""
    stack = cubes(land)
    grid = next(iter(stack)).odc.geobox
    rows, columns = np.mgrid[: grid.shape.y, : grid.shape.x]
    heights = (100 + 20 * np.sin(rows / 9) + 30 * np.cos(columns / 13)).astype("f4")
    heights[60:70, 90:99] = NODATA
    path = tmp_path / "dem.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=grid.shape.y, width=grid.shape.x, count=1, dtype="float32", nodata=NODATA,
        crs=str(grid.crs), transform=grid.affine,
    ) as file:  # fmt: skip
        file.write(heights, 1)
    return stack.join(gp.rasters(path), name="dem")


STEPS: dict[str, tuple[int, Step]] = {
    "slope": (1, lambda pipe: pipe.slope("dem")),
    "aspect": (1, lambda pipe: pipe.aspect("dem", name="facing")),
    "hillshade": (1, lambda pipe: pipe.hillshade("dem", azimuth=120, altitude=30)),
    "with clouds": (4, lambda pipe: pipe.mask_clouds("scl", dilate=3).slope("dem").spectral_index("NDVI")),
}


@pytest.mark.parametrize("name", STEPS)
def test_terrain_means_the_same_wherever_it_stands(land: Synthetic, tmp_path: Path, name: str) -> None:
    margin, step = STEPS[name]
    assert_law(land, step, margin=margin, stack=terraced(land, tmp_path))


def test_terrain_in_tensors(land: Synthetic, tmp_path: Path) -> None:
    chips = terraced(land, tmp_path).chip(64, margin=1).slope("dem").read()
    sample = next(iter(chips.tensor(image=["red", "nir"], slope="slope", fill=0)))
    assert tuple(sample["slope"].shape)[-2:] == (64, 64)


def test_errors_of_terrain(land: Synthetic, tmp_path: Path) -> None:
    chips = terraced(land, tmp_path).chip(64)
    with pytest.raises(MarginTooSmall, match=r"slope\('dem'\) and the steps before it need 1 px.*margin=1"):
        len(chips.slope("dem"))
    with pytest.raises(MarginTooSmall):
        len(chips.read().hillshade("dem"))
    with pytest.raises(StepError, match="it holds uint8 of classes"):
        pixels.slope(ground(HEIGHTS.astype("u1"), categorical=True), "dem")
    with pytest.raises(StepError, match=r"slope\('dem', name='dem'\): the chip has a 'dem' already"):
        pixels.slope(ground(HEIGHTS), "dem", name="dem")
    with pytest.raises(StepError, match="stretches distances with latitude"):
        pixels.slope(ground(HEIGHTS, crs="EPSG:3857"), "dem")
    with pytest.raises(StepError, match="needs the coordinate 'spatial_ref'"):
        pixels.slope(ground(HEIGHTS).drop_vars("spatial_ref"), "dem")
    with pytest.raises(StepError, match="the sun stands 0 to 90 degrees high"):
        pixels.hillshade(ground(HEIGHTS), "dem", altitude=-5)
