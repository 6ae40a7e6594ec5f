"""Real imagery through the public chain, as a user would write it, held against rasterio and exact projections."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import odc.geo.xr  # noqa: F401  (gives xarray objects their .odc)
import pyproj
import pytest
import rasterio
import torch
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

import geopipes as gp
from geopipes.errors import ShiftedGrids, SourceError
from geopipes.testing import serve

pytestmark = pytest.mark.real

Array = npt.NDArray[Any]

CLOUDS = (8, 9, 10)  # of Sentinel-2's SCL: medium and high probability, thin cirrus
HALF_SHIFTED = r"lie up to 0\.5 px off the pixels of item 'S2B_33TWM_20230813_0_L2A', which the grid keeps"
TM, TL = "33TWM", "33TWL"  # the northern tile, seen first on each day, and the southern one
TIE = 1e-3
"""Pixels: within which of an edge a nearest pixel may be either; places are rounded to 2^-12 px."""

UNCERTAIN = 0.125
"""Pixels: how far GDAL's approximate transformer may be off, by default."""


def stored(path: Path, band: int = 1) -> Array:
    """Read one band as it is in the file."""
    with rasterio.open(path) as file:
        pixels: Array = file.read(band)
    return pixels


def stored_within(path: Path, bounds: tuple[float, ...]) -> Array:
    """Read what a file holds within bounds along its own pixels, 0 outside of it."""
    around = 512
    with rasterio.open(path) as file:
        pixels, at = np.pad(file.read(1), around), file.transform
    left, bottom, right, top = bounds
    first, last = (round((y - at.f) / at.e) + around for y in (top, bottom))
    begin, end = (round((x - at.c) / at.a) + around for x in (left, right))
    return pixels[first:last, begin:end]


def positions(grid: GeoBox, raster: GeoBox) -> tuple[Array, Array]:
    """Give where the centres of a grid's pixels are in a raster, (row, column) of pixels, by exact projection."""
    rows, columns = np.mgrid[: grid.shape.y, : grid.shape.x] + 0.5
    project = pyproj.Transformer.from_crs(str(grid.crs), str(raster.crs), always_xy=True)
    x, y = ~raster.affine @ project.transform(*(grid.affine @ (columns, rows)))
    return np.asarray(y), np.asarray(x)


def nearest(pixels: Array, row: Array, column: Array) -> tuple[Array, Array]:
    """Take the pixels that hold positions; say which positions are inside."""
    height, width = pixels.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    picked = pixels[np.floor(row).astype(int).clip(0, height - 1), np.floor(column).astype(int).clip(0, width - 1)]
    return picked, inside


def from_edge(row: Array, column: Array) -> Array:
    """Give how far positions are from the nearest edge of a pixel: what is uncertain there may be its neighbour."""
    distance: Array = np.minimum(np.abs(row - np.rint(row)), np.abs(column - np.rint(column)))
    return distance


def only(pipe: gp.Pipe[xr.Dataset]) -> xr.Dataset:
    (cube,) = pipe
    return cube


# Sentinel-2: two tiles whose grids differ by half a pixel, a clear and a cloudy day.


@pytest.fixture(scope="module")
def scenes(real_data: Path) -> Iterator[gp.Pipe[Any]]:
    folder = real_data / "sentinel2_33T"
    items = [json.loads(path.read_text()) for path in sorted(folder.glob("S2*.json"))]
    with serve(items, root=folder) as api:
        yield gp.search(
            api.url, collections=["sentinel-2-l2a"], bbox=(15.9, 45.8, 16.2, 46.2), datetime="2023-08-01/2023-08-31"
        )


def test_sentinel_2_goes_from_search_to_batches(real_data: Path, scenes: gp.Pipe[Any]) -> None:
    batches = (
        scenes.stack(["red", "nir", "scl"], groupby="solar_day")
        .chip(64)
        .read(threads=2)
        .tensor(image=["red", "nir"], scl="scl", fill=0)
        .batch(4)
    )
    with pytest.warns(ShiftedGrids, match=HALF_SHIFTED):
        assert len(batches) == 4
    found = list(batches)
    assert [len(batch["chip"]) for batch in found] == [4, 4, 4, 3]
    assert torch.cat([batch["chip"] for batch in found]).tolist() == list(range(15))
    clouds, seen, alone = np.zeros(2), np.zeros(2), 0
    for batch in found:
        assert batch["image"].shape[1:] == (2, 2, 64, 64)
        assert (batch["image"].dtype, batch["scl"].dtype) == (torch.uint16, torch.uint8)
        assert set(batch["crs"]) == {"EPSG:32633"}
        for i, bounds in enumerate(batch["bounds"].tolist()):
            image, scl, valid = (batch[name][i].numpy() for name in ("image", "scl", "image_valid"))
            alone += check_against_the_northern_tile(real_data, tuple(bounds), image, scl, valid)
            clouds += (np.isin(scl, CLOUDS) & valid).sum(axis=(1, 2))
            seen += valid.sum(axis=(1, 2))
            assert not image[~np.stack([valid, valid], axis=1)].any()  # filled
    assert alone == 6  # chips that the northern tile alone can fill: two rows of three
    assert (seen / (15 * 64 * 64) > 0.95).all()
    clear, cloudy = clouds / seen
    assert clear < 0.05 < 0.25 < cloudy


def check_against_the_northern_tile(
    real_data: Path, bounds: tuple[float, ...], image: Array, scl: Array, valid: Array
) -> bool:
    """Hold a sample against the files of the tile that gave the grid; say whether no other tile touches it."""
    alone = bounds[1] >= 5_100_000  # the top of the southern tile
    for day, satellite in enumerate(("S2B_33TWM_20230813", "S2A_33TWM_20230818")):
        folder = real_data / "sentinel2_33T" / f"{satellite}_0_L2A"
        red, nir, classes = (stored_within(folder / f"{name}.tif", bounds) for name in ("B04", "B08", "SCL"))
        measured = (red != 0) & (nir != 0) & (classes != 0)
        assert valid[day][measured].all()
        for got, wanted in ((image[day, 0], red), (image[day, 1], nir), (scl[day], classes)):
            np.testing.assert_array_equal(got[measured], wanted[measured])
        if alone:
            np.testing.assert_array_equal(valid[day], measured)
    return alone


def test_sentinel_2_clouds_are_masked_and_fields_are_green(scenes: gp.Pipe[Any]) -> None:
    samples = (
        scenes.stack(["red", "nir", "scl"], groupby="solar_day")
        .mask_values("scl", [3, *CLOUDS])
        .chip(128)
        .read(threads=2)
        .normalized_difference("nir", "red", name="NDVI")
        .tensor(ndvi="NDVI", fill=math.nan)
    )
    with pytest.warns(ShiftedGrids, match=HALF_SHIFTED):
        found = list(samples)
    ndvi = torch.stack([sample["ndvi"] for sample in found], dim=1).flatten(1)
    valid = torch.stack([sample["ndvi_valid"] for sample in found], dim=1).flatten(1)
    assert torch.equal(ndvi.isnan(), ~valid)
    clear, cloudy = valid.float().mean(dim=1).tolist()
    assert cloudy < 0.7 < 0.9 < clear
    assert 0.4 < ndvi[0].nanmedian() < 0.9  # fields and woods in August


@pytest.mark.filterwarnings(
    "ignore:The 'shapely.ops.transform:DeprecationWarning",  # odc-geo 0.5.3, called by odc-stac
    "ignore:Use `@` matmul:PendingDeprecationWarning",  # rasterio and odc-geo multiply affines by *
    # rasterio.warp.reproject, called by odc-stac, says so of the array it writes to
    "ignore:Dataset has no geotransform:rasterio.errors.NotGeoreferencedWarning",
)
def test_the_three_engines_give_one_cube(scenes: gp.Pipe[Any]) -> None:
    # A quarter of a pixel off both tiles, in x and y: nearest has no ties. It reaches beyond them on all sides.
    grid = GeoBox((470, 300), Affine(120, 0, 565_050, 0, -120, 5_122_530), "EPSG:32633")

    def cube(engine: Literal["window", "odc", "stackstac"]) -> xr.Dataset:
        return only(scenes.stack(["red", "nir", "scl"], geobox=grid, groupby="solar_day", engine=engine)).load()

    own = cube("window")
    assert own.valid.dims == ("time", "y", "x")
    assert own.sizes == {"time": 2, "y": 470, "x": 300}
    assert 0.5 < float(own.valid.mean()) < 0.9
    for engine in ("odc", "stackstac"):
        xr.testing.assert_identical(cube(engine), own)


# Items that name neither a projection nor a collection, their bands in one asset under a key of its own.


def test_items_without_projection_go_from_search_to_batches(real_data: Path) -> None:
    folder = real_data / "sentinel2_items_without_proj/docker/local_batch_job/example_stac_catalog"
    paths = sorted(folder.glob("openEO_*.tif.json"))
    items = [json.loads(path.read_text()) | {"collection": "openeo"} for path in paths]  # the API wants one
    with serve(items, root=folder) as api:
        found = gp.search(api.url, collections=["openeo"])
        by_name = found.stack(["B04", "B03", "B02"])
        by_key = found.stack({"rgb": "openEO_*"})
        named = only(by_name)
        assert [len(item.assets) for item in found] == [1, 1, 1]
        assert len({key for item in found for key in item.assets}) == 3
    rgb = only(by_key).load()
    assert rgb["rgb"].dims == ("time", "band", "y", "x")
    assert rgb.sizes == {"time": 3, "band": 3, "y": 58, "x": 73}
    assert rgb["band"].values.tolist() == list(named.data_vars)[:3] == ["B04", "B03", "B02"]
    for day, path in enumerate(paths):
        with rasterio.open(path.with_suffix("")) as file:
            pixels = file.read()
            assert rgb.odc.geobox == GeoBox.from_rio(file)
        np.testing.assert_array_equal(rgb["rgb"][day], pixels)
        np.testing.assert_array_equal(rgb["valid"][day], (pixels != -32768).all(axis=0))
    (batch,) = by_name.chip(29).read().tensor(image=["B04", "B03", "B02"], fill=0).batch(4)
    (twin,) = by_key.chip(29).read().tensor(image="rgb", fill=0).batch(4)
    assert batch["image"].shape == (4, 3, 3, 29, 29)
    assert batch["image"].dtype == torch.int16
    assert torch.equal(batch["image"], twin["image"])
    assert torch.equal(batch["image_valid"], twin["image_valid"])
    assert batch["image_valid"].float().mean() > 0.9


# Landsat 8.


def test_a_raster_in_degrees_is_aligned_with_its_twin_in_utm(real_data: Path) -> None:
    folder = real_data / "landsat8_elkton"
    utm = gp.rasters(folder / "L8-B4-Elkton-VA.tiff").stack({"red": "data"})
    degrees = gp.rasters(folder / "L8-B4-Elkton-VA-4326.tiff")
    joined = only(utm.join(degrees, name="twin", resampling="bilinear")).load()
    stacked = only(degrees.stack({"twin": "data"}, like=only(utm), resampling="bilinear")).load()
    np.testing.assert_array_equal(stacked["twin"][0], joined["twin"])
    np.testing.assert_array_equal(joined["red"][0], stored(folder / "L8-B4-Elkton-VA.tiff"))
    assert joined["valid"].all()
    with rasterio.open(folder / "L8-B4-Elkton-VA.tiff") as file:
        assert joined.odc.geobox == GeoBox.from_rio(file)  # of 29.91 x 29.88 m

    red, twin = joined["red"][0].values.astype(float), joined["twin"].values.astype(float)
    height, width = red.shape
    correlations = {}
    for down, right in product((-1, 0, 1), repeat=2):
        moved = twin[1 + down : height - 1 + down, 1 + right : width - 1 + right]
        seen = moved > 0
        assert seen.mean() > 0.99
        correlations[down, right] = np.corrcoef(red[1:-1, 1:-1][seen], moved[seen])[0, 1]
    aligned = correlations.pop((0, 0))
    assert aligned >= 0.95
    assert max(correlations.values()) < 0.9


def test_sparse_labels_agree_with_their_raster(real_data: Path) -> None:
    folder = real_data / "landsat8_elkton"
    bands = gp.rasters(folder / "L8-B[45]-Elkton-VA.tiff", pattern=r"L8-(?P<band>B\d)-Elkton")
    labels = gp.rasters(folder / "L8-Labels-Elkton-VA.tiff")
    samples = list(
        bands.stack(["B4", "B5"])
        .join(labels, name="label")
        .chip(48, edge="shift")
        .read(threads=2)
        .tensor(image=["B4", "B5"], label="label", fill=0)
    )
    assert len(samples) == 16
    covered = np.zeros((169, 186), bool)
    for sample in samples:
        dx, _, left, _, dy, top = sample["transform"]
        assert (dx, dy) == pytest.approx((29.9064046, -29.8831202))
        row, column = round((4254601.8671 - top) / -dy), round((left - 703986.502389) / dx)
        part = slice(row, row + 48), slice(column, column + 48)
        assert sample["label"].dtype == torch.uint8
        np.testing.assert_array_equal(sample["label"], stored(folder / "L8-Labels-Elkton-VA.tiff")[part])
        np.testing.assert_array_equal(sample["image"][0, 1], stored(folder / "L8-B5-Elkton-VA.tiff")[part])
        assert sample["image_valid"].all()  # that most labels are 255, no label, says nothing of the image
        covered[part] = True
    assert covered.all()


NEW_YORK = r"^LC08_L1TP_\d{6}_(?P<date>\d{8})_(?P<band>B\d+)\.TIF$"


def test_splits_of_sparse_labels_have_the_classes_that_lie_in_their_chips(real_data: Path) -> None:
    folder = real_data / "landsat8_elkton"
    bands = gp.rasters(folder / "L8-B4-Elkton-VA.tiff").stack({"red": "data"})
    plan = bands.join(gp.rasters(folder / "L8-Labels-Elkton-VA.tiff"), name="label", nodata=255).chip(13)
    parts = plan.split((0.6, 0.4), block=1_000, buffer=100, seed=0)  # metres
    assert gp.audit(*parts, insist=True)["distance"].iloc[0] >= 99.9
    labels = stored(folder / "L8-Labels-Elkton-VA.tiff")
    seen = 0
    for part in parts:
        rows = part.table()
        inside = [labels[row : row + 13, col : col + 13] for row, col in zip(rows.row, rows.col, strict=True)]
        values, counts = np.unique(inside, return_counts=True)
        counted = {int(value): int(count) for value, count in zip(values, counts, strict=True) if value != 255}
        found = part.statistics(variables="label", classes="label")["label"]
        assert found.classes == counted
        assert found.pixels == 13 * 13 * len(part)
        seen += sum(counted.values())
    assert 0 < seen <= (labels != 255).sum()


def test_a_year_of_landsat_on_grids_that_all_differ(real_data: Path) -> None:
    folder = real_data / "landsat8_newyork_2018"
    found = gp.rasters(folder / "*" / "*_B[45].TIF", pattern=NEW_YORK)
    assert len(found) == 19
    series = found.stack(["B4", "B5"], nodata=0)
    cube = only(series).load()
    days = cube["time"].values.astype("datetime64[D]").astype(str).tolist()
    assert days == sorted(set(days))
    assert len(days) == 17  # two days have two scenes

    finest = folder / "LC08_L1TP_014031_20180530_20180614_01_T1" / "LC08_L1TP_014031_20180530_B4.TIF"
    other = folder / "LC08_L1TP_013032_20180131_20180207_01_T1" / "LC08_L1TP_013032_20180131_B4.TIF"
    grid = cube.odc.geobox
    for path in (finest, other):
        with rasterio.open(path) as file:
            raster = GeoBox.from_rio(file)
        row, column = positions(grid, raster)
        wanted, inside = nearest(stored(path), row, column)
        certain = from_edge(row, column) > 1e-3
        day = days.index(f"{path.stem[17:21]}-{path.stem[21:23]}-{path.stem[23:25]}")
        seen = inside & (wanted != 0) & certain
        assert seen.sum() > 3000
        np.testing.assert_array_equal(cube["B4"][day].values[seen], wanted[seen])
        assert not cube["valid"][day].values[certain & ~(inside & (wanted != 0))].any()
        if path == finest:
            assert grid.resolution == raster.resolution
            assert certain.all()  # its pixels are kept

    batches = list(series.chip(16).shuffle(seed=0).read(threads=2).tensor(image=["B4", "B5"], fill=0).batch(8))
    assert sum(len(batch["chip"]) for batch in batches) == len(series.chip(16)) >= 20
    for batch in batches:
        assert batch["image"].shape[1:] == (17, 2, 16, 16)
        assert 0.1 < batch["image_valid"].float().mean() < 0.9  # a scene covers a part of the series' area
        assert torch.equal(batch["image_valid"], (batch["image"] != 0).all(dim=2))


def test_grids_of_one_resolution_that_are_shifted_are_said(real_data: Path) -> None:
    folder = real_data / "landsat8_newyork_2018"
    found = gp.rasters(folder / "*" / "*_B4.TIF", pattern=NEW_YORK)
    first = "LC08_L1TP_014031_20180106"
    with rasterio.open(folder / f"{first}_20180119_01_T1" / f"{first}_B4.TIF") as file:
        width, height = file.res
    with pytest.warns(ShiftedGrids, match=rf"1 of 2 sources lie up to 0\.\d+ px off the pixels of item '{first}'"):
        cube = only(found.stack(["B4"], resolution=(height, width), nodata=0))
    assert cube.sizes["time"] == 17


# Labels of another year and CRS, embeddings, arrays from elsewhere.


def test_a_label_of_2021_joins_images_of_2024(real_data: Path, tmp_path: Path) -> None:
    tile = real_data / "cropland_data_layer/tiles/2021_30m_cdls_-91095_1807575_15000.tif"
    with rasterio.open(tile) as file:
        raster = GeoBox.from_rio(file)
    middle = raster.affine @ (250, 250)
    east, north = pyproj.Transformer.from_crs(5070, 32614, always_xy=True).transform(*middle)
    grid = GeoBox((200, 240), Affine(20, 0, round(east) - 2400, 0, -20, round(north) + 2000), "EPSG:32614")
    for date, value in (("20240503", 700), ("20240607", 900)):
        write(tmp_path / f"red_{date}.tif", np.full(grid.shape, value, "uint16"), grid, nodata=0)
    images = gp.rasters(tmp_path / "red_*.tif", pattern=r"(?P<band>red)_(?P<date>\d{8})").stack(["red"])
    label = gp.rasters(tile, pattern=r"(?P<date>\d{4})_30m_cdls", date_format="%Y")
    cube = only(images.join(label, name="crop"))
    assert cube["time"].values.astype("datetime64[D]").astype(str).tolist() == ["2024-05-03", "2024-06-07"]
    assert cube["crop"].dims == ("y", "x")
    assert cube["crop"].dtype == np.uint8
    row, column = positions(grid, raster)
    wanted, inside = nearest(stored(tile), row, column)
    certain = from_edge(row, column) > TIE
    assert inside.all()
    assert certain.mean() > 0.99
    np.testing.assert_array_equal(cube["crop"].values[certain], wanted[certain])

    (batch,) = images.join(label, name="crop").chip(100).read().tensor(image=["red"], label="crop", fill=0).batch(8)
    assert batch["label"].shape == (4, 100, 100)
    assert batch["label"].dtype == torch.uint8
    np.testing.assert_array_equal(batch["label"][3], cube["crop"][100:, 100:200])
    assert batch["image"][:, :, 0, 50, 50].tolist() == [[700, 900]] * 4


def test_a_label_without_nodata_must_cover_the_chip(real_data: Path, tmp_path: Path) -> None:
    tile = real_data / "cropland_data_layer/tiles/2021_30m_cdls_-91095_1807575_15000.tif"
    corner = GeoBox((64, 64), Affine(30, 0, -91_095 - 960, 0, -30, 1_807_605), "EPSG:5070")  # half beyond it
    write(tmp_path / "red.tif", np.ones(corner.shape, "uint16"), corner)
    images = gp.rasters(tmp_path / "red.tif").stack({"red": "data"})
    joined = images.join(gp.rasters(tile), name="crop").chip(64, coverage="any")
    with pytest.raises(SourceError, match=r"'crop' states no nodata and does not cover rows 0\.\.64, .*nodata=255"):
        list(joined.read())
    (chip,) = images.join(gp.rasters(tile), name="crop", nodata=255).chip(64, coverage="any").read()
    assert (chip["crop"][:, :32] == 255).all()
    np.testing.assert_array_equal(chip["crop"][:, 32:], stored(tile)[:64, :32])


def dequantized(chip: xr.Dataset) -> xr.Dataset:
    """Turn stored embeddings into unit vectors: sign(v) * (v / 127.5) ** 2."""
    v = chip["embedding"].astype("float32")
    return chip.assign(embedding=(v * abs(v) / 127.5**2).where(chip["valid"]))


def test_embeddings_are_unit_vectors_north_up(real_data: Path) -> None:
    path = real_data / "alphaearth_embeddings/model_transformation.tif"
    stack = gp.rasters(path).stack({"embedding": "data"})
    cube = only(stack)
    assert cube["embedding"].dims == ("time", "band", "y", "x")
    assert cube["embedding"].dtype == np.int8
    assert cube["embedding"].attrs["nodata"] == -128
    assert cube["band"].values.tolist() == [f"A{number:02}" for number in range(64)]
    assert (np.diff(cube["y"]) == -10).all()
    with rasterio.open(path) as file:
        assert file.transform.e == 10  # bottom-up
        np.testing.assert_array_equal(cube["embedding"][0], file.read()[:, ::-1])
    assert cube["valid"].all()
    (sample,) = stack.chip(10).map(dequantized).read().tensor(embedding="embedding", fill=math.nan, time_axis=False)
    assert sample["embedding"].shape == (64, 10, 10)
    norm = sample["embedding"].norm(dim=0)
    assert norm.numpy() == pytest.approx(1, abs=0.0045)


SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"


def test_a_modis_cube_is_reprojected_as_published(real_data: Path) -> None:
    folder = real_data / "modis_reproject_expected"
    published = xr.open_dataset(folder / "compare/MODIS_ARRAY_UTM_GDAL361.nc", decode_coords="all").load()
    grid = GeoBox(published.odc.geobox.shape, published.odc.geobox.affine, "EPSG:32615")
    cubes = gp.cubes(folder / "input/MODIS_ARRAY.nc", crs=SINUSOIDAL)
    source = only(cubes).load()
    name = next(iter(published.data_vars))
    got = only(cubes.reproject(grid, resampling="nearest")).load()
    np.testing.assert_allclose(got["x"], published["x"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(got["y"], published["y"], rtol=0, atol=1e-6)

    row, column = positions(grid, source.odc.geobox)
    pixels, inside = nearest(source[name].values, row, column)
    wanted = np.where(inside, pixels, np.nan)
    no_tie = from_edge(row, column) > TIE
    np.testing.assert_array_equal(got[name].values[no_tie], wanted[no_tie])
    np.testing.assert_array_equal(got["valid"].values[no_tie], ~np.isnan(wanted)[no_tie])

    # The published result comes from GDAL's approximate transformer: it may take the neighbour of a pixel whose
    # centre lies within 0.125 px of an edge. Pixels without data it left out of the source, and of the result.
    certain = from_edge(row, column) > UNCERTAIN
    both = certain & got["valid"].values
    assert both.sum() > 7000
    np.testing.assert_array_equal(got[name].values[both], published[name].values[both])
    assert (np.isnan(published[name].values) == ~got["valid"].values)[certain].all()


def write(path: Path, pixels: Array, geobox: GeoBox, **profile: Any) -> None:
    height, width = pixels.shape
    profile |= {"count": 1, "height": height, "width": width, "dtype": pixels.dtype, "driver": "GTiff"}
    with rasterio.open(path, "w", crs=str(geobox.crs), transform=geobox.affine, **profile) as file:
        file.write(pixels, 1)
