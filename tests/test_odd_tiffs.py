"""Odd files as they are found in the wild: read as GDAL reads them, or refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from geopipes.errors import NotGeoreferenced, ReadError, SourceError
from geopipes.read.files import Array, close_files
from geopipes.read.placing import applied
from geopipes.read.sources import Source
from geopipes.read.windows import read_source

pytestmark = pytest.mark.real

RESAMPLINGS = ("nearest", "bilinear", "cubic", "average", "mode")
UTM11 = GeoBox((20, 20), Affine(60, 0, 440_720, 0, -60, 3_751_320), "EPSG:26711")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_files()


@pytest.fixture
def folder(real_data: Path) -> Path:
    return real_data / "odd_tiffs"


def opened(path: Path, *, bands: tuple[int, ...] = (1,)) -> Source:
    """Describe a file as its own header does."""
    with rasterio.open(path) as file:
        return Source(
            href=str(path),
            bands=bands,
            geobox=GeoBox(file.shape, file.transform, str(file.crs)),
            dtype=np.dtype("complex64" if "complex" in file.dtypes[0] else file.dtypes[0]),
            nodata=file.nodatavals[bands[0] - 1],
            item="odd",
            collection=None,
            asset="data",
            time=np.datetime64("NaT", "ns"),
        )


def shifted(geobox: GeoBox, shape: tuple[int, int] | None = None) -> GeoBox:
    """Give a north-up grid of about the same pixels that do not coincide."""
    a, b, c, d, e, f, *_ = geobox.affine
    return GeoBox(shape or geobox.shape, Affine(a, b, c + 0.3 * a + 0.3 * b, d, e, f + 0.3 * d + 0.3 * e), geobox.crs)


def whole(source: Source, grid: GeoBox, resampling: str = "nearest") -> tuple[Array, Array]:
    return read_source(source, grid, slice(0, grid.shape.y), slice(0, grid.shape.x), resampling)


def exact_nearest(source: Source, grid: GeoBox) -> tuple[Array, Array, Array]:
    """Compute nearest with PROJ alone: pixels, which lie inside, and which are no ties within 0.001 px."""
    with rasterio.open(source.href) as file:
        pixels = file.read(source.bands[0])
    rows, cols = np.mgrid[: grid.shape.y, : grid.shape.x] + 0.5
    to_raster = pyproj.Transformer.from_crs(str(grid.crs), str(source.geobox.crs), always_xy=True)
    x, y = to_raster.transform(*applied(grid.affine, cols, rows))
    col, row = applied(~source.geobox.affine, x, y)
    clear = (np.abs(col - np.rint(col)) > 1e-3) & (np.abs(row - np.rint(row)) > 1e-3)
    inside = (col >= 0) & (col < pixels.shape[1]) & (row >= 0) & (row < pixels.shape[0])
    found = np.zeros(grid.shape, pixels.dtype)
    found[inside] = pixels[np.floor(row[inside]).astype(int), np.floor(col[inside]).astype(int)]
    return found, inside, clear


def assert_exact(source: Source, grid: GeoBox) -> None:
    data, valid = whole(source, grid)
    expected, inside, clear = exact_nearest(source, grid)
    measured = inside & (expected == expected) & (expected != source.nodata)  # NaN is no measurement
    assert measured.any()
    np.testing.assert_array_equal(valid[0][clear], measured[clear])
    np.testing.assert_array_equal(data[0][clear & measured], expected[clear & measured])


# ---------------------------------------------------------------------------------------- broken files


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("corrupt.tif", "JPEG|[Rr]ead"),
        ("byte_truncated.tif", "[Rr]ead"),
        ("byte_zstd_corrupted.tif", "ZSTD|[Dd]ata"),
    ],
)
def test_broken_files_are_errors_copied_and_warped(folder: Path, name: str, cause: str, resampling: str) -> None:
    source = opened(folder / name)
    for grid in (source.geobox, shifted(source.geobox)):
        for _ in range(2):  # what failed once is not remembered as zeros
            with pytest.raises(ReadError, match=cause) as error:
                whole(source, grid, resampling)
            assert f"item 'odd', asset 'data' ({folder / name}): tile (" in str(error.value)
            place = f"(needed for rows 0..{grid.shape.y}, columns 0..{grid.shape.x} of the grid)"
            assert str(error.value).endswith(place)
            assert "See previous exception" not in str(error.value)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", ["truncated.tiff", "tiled_bad_offset.tif"])
def test_broken_files_without_a_place_are_errors_too(folder: Path, tmp_path: Path, name: str) -> None:
    with rasterio.open(folder / name) as file:
        (height, width), kind = file.shape, {"uint8": "Byte", "float64": "Float64"}[file.dtypes[0]]
    stated = replace(opened(folder / "int10.tif"), href=str(folder / name), geobox=UTM11)
    with pytest.raises(NotGeoreferenced, match=r"the item states EPSG:26711.*; the file has no CRS"):
        whole(stated, UTM11)
    # Given a place, their pixels cannot be read either.
    placed = tmp_path / "placed.vrt"
    placed.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>EPSG:26711</SRS>'
        "<GeoTransform>440720, 60, 0, 3751320, 0, -60</GeoTransform>"
        f'<VRTRasterBand dataType="{kind}" band="1"><SimpleSource><SourceFilename>{folder / name}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    source = opened(placed)
    for grid in (source.geobox, shifted(source.geobox)):
        with pytest.raises(ReadError, match="could not be read: "):
            whole(source, grid)


def test_ground_control_points_alone_are_no_place(folder: Path) -> None:
    stated = GeoBox((124, 133), Affine(10, 0, 690_000, 0, -10, 5_000_000), "EPSG:32633")
    source = replace(opened(folder / "int10.tif"), href=str(folder / "au-gcp.tif"), geobox=stated)
    with pytest.raises(NotGeoreferenced, match=r'the file has no CRS, transform \(1\.0, .*headers="file"'):
        whole(source, stated)


# ---------------------------------------------------------------------------------------- odd places


def test_a_rotated_raster(folder: Path) -> None:
    source = opened(folder / "au-3577-rotated.tif")
    grid = GeoBox((200, 260), Affine(20_000, 0, -2_400_000, 0, -20_000, -900_000), "EPSG:3577")
    assert_exact(source, grid)
    assert_exact(source, GeoBox((150, 200), Affine(0.2, 0, 110, 0, -0.2, -10), "EPSG:4326"))


def test_a_bottom_up_raster(folder: Path) -> None:
    source = opened(folder / "inverted_lat.tif")
    assert source.geobox.affine.e > 0
    north_up = GeoBox((360, 720), Affine(0.5, 0, -180, 0, -0.5, 90), "EPSG:4326")
    data, valid = whole(source, north_up)
    with rasterio.open(source.href) as file:
        expected = file.read(1)[::-1]
    np.testing.assert_array_equal(valid[0], (expected != source.nodata) & ~np.isnan(expected))
    np.testing.assert_array_equal(data[valid], expected[valid[0]])


@pytest.mark.parametrize(
    "grid",
    [
        GeoBox((250, 250), Affine(1000, 0, 570_000, 0, -1000, 5_850_000), "EPSG:32660"),
        GeoBox((250, 250), Affine(1000, 0, 100_000, 0, -1000, 5_850_000), "EPSG:32601"),
        GeoBox((250, 250), Affine(2000, 0, 3_200_000, 0, -2000, 6_950_000), "EPSG:3832"),
    ],
    ids=["its own CRS", "the zone across", "a CRS of the Pacific"],
)
def test_a_raster_across_the_180th_meridian(folder: Path, grid: GeoBox) -> None:
    assert_exact(opened(folder / "cog_dateline.tif"), grid)


def test_scale_and_offset_are_left_to_a_step(folder: Path) -> None:
    source = opened(folder / "cog_scale.tif", bands=(1, 2))
    data, valid = whole(source, source.geobox)
    with rasterio.open(source.href) as file:
        assert file.scales != (1.0, 1.0)
        np.testing.assert_array_equal(data, file.read())
    np.testing.assert_array_equal(valid, data != 0)
    assert_exact(replace(source, bands=(1,)), shifted(source.geobox))


# ---------------------------------------------------------------------------------------- odd pixels

READABLE = ["int10", "int12", "int24", "float16"]
CODECS = [
    f"rgbsmall_{codec}{layout}"
    for codec in ("DEFLATE", "LZW", "ZSTD", "JPEG")
    for layout in ("", "_separate", "_tiled", "_tiled_separate")
] + ["rgbsmall_JPEG_ycbcr", "rgbsmall_WEBP", "rgbsmall_WEBP_tiled"]


@pytest.mark.parametrize("name", READABLE + CODECS)
def test_codecs_layouts_and_widths_read_as_rasterio_reads_them(folder: Path, name: str) -> None:
    path = folder / f"{name}.tif"
    with rasterio.open(path) as file:
        expected, bands = file.read(), file.indexes
    source = opened(path, bands=bands)
    data, valid = whole(source, source.geobox)
    np.testing.assert_array_equal(data, expected)
    assert valid.all()
    data, valid = whole(source, shifted(source.geobox))  # 0.3 px right and down: the same pixels
    np.testing.assert_array_equal(data, expected)
    assert valid.all()


@pytest.mark.parametrize("name", ["cint16", "cfloat32"])
def test_complex_pixels_are_refused(folder: Path, name: str) -> None:
    source = opened(folder / f"{name}.tif")
    for grid in (source.geobox, shifted(source.geobox)):
        with pytest.raises(SourceError, match=r"asset 'data' .*pixels are complex.*write the amplitude"):
            whole(source, grid)


@pytest.mark.parametrize("bands", [(1, 2, 3), (2,), (4,)])
def test_an_alpha_band_says_what_is_valid(folder: Path, bands: tuple[int, ...]) -> None:
    source = opened(folder / "rgbsmall_WEBP_RGBA_alpha_omitted.tif", bands=bands)
    with rasterio.open(source.href) as file:
        expected, alpha = file.read(bands), file.read(4)
    for grid in (source.geobox, shifted(source.geobox)):
        data, valid = whole(source, grid)
        np.testing.assert_array_equal(valid, np.broadcast_to(alpha > 0, valid.shape))
        np.testing.assert_array_equal(data[valid], expected[valid])


def test_absent_tiles_are_what_gdal_says_they_are(folder: Path) -> None:
    source = opened(folder / "sparse.tiff", bands=(1, 2, 3))
    some = 0
    with rasterio.open(source.href) as file:
        for row, col in ((0, 0), (10_000, 10_000), (20_000, 20_000)):
            rows, cols = slice(row, row + 300), slice(col, col + 300)
            window = ((rows.start, rows.stop), (cols.start, cols.stop))
            expected, alpha = file.read((1, 2, 3), window=window), file.read(4, window=window)
            for grid in (source.geobox, shifted(source.geobox)):
                data, valid = read_source(source, grid, rows, cols, "nearest")
                np.testing.assert_array_equal(valid, np.broadcast_to(alpha > 0, valid.shape))
                np.testing.assert_array_equal(data[valid], expected[valid])
            some += int((alpha == 0).sum())
    assert some > 0
