"""Tiles of every layout that is read by byte ranges, pixel for pixel as rasterio reads them; the rest by GDAL."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, Resampling
from rasterio.shutil import copy

from geopipes.errors import GeopipesError
from geopipes.read.files import Array, close_files, opened, reason
from geopipes.read.headers import file_header
from geopipes.read.sources import Source

SHAPE = (80, 96)
GRID = GeoBox(SHAPE, Affine(10, 0, 690_000, 0, -10, 5_000_000), "EPSG:32633")
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float32", "float64")
NAMES = {"none": "no compression", "deflate": "deflate", "zstd": "zstd"}

STORED = [
    pytest.param(dtype, codec, predictor, interleave, order, id=f"{dtype}-{codec}-{predictor}-{interleave}-{order}")
    for dtype, codec, predictor, interleave, order in product(
        INTEGERS + FLOATS, NAMES, (1, 2, 3), ("band", "pixel"), ("little", "big")
    )
    if (predictor < 3 or dtype in FLOATS) and (predictor == 1 or codec != "none")
]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_files()


def pixels_of(dtype: str, count: int = 3, shape: tuple[int, int] = SHAPE) -> Array:
    """Smooth fields with noise and the extremes of the dtype; NaN and infinity among floats."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    noise = np.random.default_rng(0).normal(0, 4, (count, *shape))
    pixels: Array = (60 + 30 * np.sin(x / 17) + 20 * np.cos(y / 13) + noise).astype(dtype)
    least, most = (-np.inf, np.inf) if dtype in FLOATS else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    pixels[:, 5:9, 10:20:2] = most
    pixels[:, 5:9, 11:20:2] = least
    if dtype in FLOATS:
        pixels[:, 20:30, 40:60] = np.nan
        pixels[:, 31:32, ::3] = -1e-30
    return pixels


def write(path: Path, pixels: Array, **profile: Any) -> Path:
    """Write (band, y, x) as a GeoTIFF in tiles of 32 px."""
    count, height, width = pixels.shape
    layout = {"tiled": True, "blockxsize": 32, "blockysize": 32, "dtype": pixels.dtype} | profile
    place = {"crs": str(GRID.crs), "transform": GRID.affine}
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, **place, **layout) as file:
        file.write(pixels)
    return path


def source_of(path: Path, bands: tuple[int, ...] = (1,)) -> Source:
    header = file_header(str(path))
    dtype, nodata = header.dtypes[bands[0] - 1], header.nodata[bands[0] - 1]
    return Source(str(path), bands, header.geobox, dtype, nodata, "odd", None, "data", np.datetime64("NaT", "ns"))


def put_together(source: Source, level: int, bands: tuple[int, ...], *, mask: bool = False) -> Array:
    """Read a level tile by tile."""
    file = opened(source)
    (height, width), (rows, cols) = file.layout.levels[level].shape, file.layout.levels[level].tile
    down, across = file.layout.levels[level].tiles
    dtype = np.uint8 if mask else np.result_type(*(file.layout.dtypes[band - 1] for band in bands))
    whole = np.zeros((1 if mask else len(bands), down * rows, across * cols), dtype)
    for row, col in np.ndindex(down, across):
        out = np.full((whole.shape[0], rows, cols), 77, dtype)
        if mask:
            file.read_mask(level, row, col, out[0])
        else:
            file.read(level, row, col, bands, out)
        whole[:, row * rows : (row + 1) * rows, col * cols : (col + 1) * cols] = out
    return whole[:, :height, :width]


def assert_as_rasterio(path: Path, *bands: tuple[int, ...]) -> None:
    """Compare every level with rasterio's, for each choice of bands."""
    with rasterio.open(path) as file:
        overviews, wanted = len(file.overviews(1)), bands or (tuple(file.indexes), (file.count,))
    source = source_of(path)
    assert len(opened(source).layout.levels) == overviews + 1
    for level in range(overviews + 1):
        with rasterio.open(path, **({"overview_level": level - 1} if level else {})) as file:
            assert opened(source).layout.levels[level].shape == file.shape
            for some in wanted:
                found, expected = put_together(source, level, some), file.read(some)
                np.testing.assert_array_equal(found, expected)
                assert found.tobytes() == expected.tobytes()  # tells -0.0 from 0.0 too
            if opened(source).layout.masked:
                shown = put_together(source, level, (1,), mask=True)[0]
                np.testing.assert_array_equal(shown > 0, valid_of(path, level))


def valid_of(path: Path, level: int) -> Array:
    """Give what rasterio takes for valid by an alpha band or a mask."""
    with rasterio.open(path, **({"overview_level": level - 1} if level else {})) as file:
        alpha = [band for band in file.indexes if file.colorinterp[band - 1] == ColorInterp.alpha]
        valid: Array = (file.read(alpha[0]) if alpha else file.read_masks(1)) > 0
        return valid


# ---------------------------------------------------------------------------------------- by byte ranges


@pytest.mark.parametrize(("dtype", "codec", "predictor", "interleave", "order"), STORED)
def test_every_way_to_store_a_tile(
    tmp_path: Path, dtype: str, codec: str, predictor: int, interleave: str, order: str
) -> None:
    predicted = {"predictor": predictor} if predictor > 1 else {}
    path = write(
        tmp_path / "a.tif", pixels_of(dtype), compress=codec, interleave=interleave, endianness=order, **predicted
    )
    assert_as_rasterio(path, (1, 2, 3), (3, 1), (2,))
    swapped = ", the other byte order" if order == "big" and dtype not in ("uint8", "int8") else ""
    expected = f"cog: tiled, {NAMES[codec]}, predictor {predictor}, {dtype}, {interleave}-interleaved{swapped}"
    assert reason(source_of(path)) == expected


@settings(max_examples=15)
@given(data=st.data())
def test_every_size_of_image_and_tile(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    count, height, width = (data.draw(st.integers(1, most)) for most in (4, 150, 150))
    dtype, predictor = data.draw(st.sampled_from([("uint8", 1), ("uint16", 2), ("float32", 3)]))
    layout = {
        "blockxsize": 16 * data.draw(st.integers(1, 6)),
        "blockysize": 16 * data.draw(st.integers(1, 6)),
        "interleave": data.draw(st.sampled_from(["band", "pixel"])),
        "compress": data.draw(st.sampled_from(["deflate", "zstd"])),
        "bigtiff": data.draw(st.sampled_from(["yes", "no"])),
        "endianness": data.draw(st.sampled_from(["little", "big"])),
    }
    path = tmp_path_factory.mktemp("sizes") / "a.tif"
    write(path, pixels_of(dtype, count, (height, width)), predictor=predictor, photometric="minisblack", **layout)
    with rasterio.open(path) as file:
        alpha = ColorInterp.alpha in file.colorinterp
    bands = tuple(data.draw(st.lists(st.integers(1, count), min_size=1, max_size=4)))
    assert_as_rasterio(path, bands)
    assert opened(source_of(path)).kind == ("gdal" if alpha else "cog")


@pytest.mark.parametrize("nodata", [None, 0, 7, 65535])
@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_absent_tiles_are_nodata_or_else_zeros(tmp_path: Path, interleave: str, nodata: float | None) -> None:
    pixels = np.zeros((2, *SHAPE), "uint16") if nodata is None else np.full((2, *SHAPE), nodata, "uint16")
    pixels[0, 40:60, 40:60] = 5
    path = write(
        tmp_path / "a.tif",
        pixels,
        compress="deflate",
        predictor=2,
        sparse_ok=True,
        nodata=nodata,
        interleave=interleave,
    )
    assert_as_rasterio(path, (1, 2), (2,))
    assert opened(source_of(path)).kind == "cog"
    assert (put_together(source_of(path), 0, (2, 1))[0] == (nodata or 0)).all()


@pytest.mark.parametrize(("dtype", "nodata"), [("float32", np.nan), ("float64", -1e300), ("int16", -9999)])
def test_absent_tiles_of_other_dtypes(tmp_path: Path, dtype: str, nodata: float) -> None:
    path = tmp_path / "a.tif"
    profile = {"count": 1, "height": 80, "width": 96, "dtype": dtype, "nodata": nodata, "sparse_ok": True}
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32, "crs": "EPSG:32633", "transform": GRID.affine}
    with rasterio.open(path, "w", driver="GTiff", **profile, **tiles) as file:
        file.write(np.ones((1, 32, 32), dtype), window=((32, 64), (32, 64)))
    assert_as_rasterio(path)
    assert opened(source_of(path)).kind == "cog"


@pytest.mark.parametrize("bigtiff", ["yes", "no"])
@pytest.mark.parametrize("order", ["little", "big"])
def test_overviews(tmp_path: Path, order: str, bigtiff: str) -> None:
    path = write(
        tmp_path / "a.tif",
        pixels_of("uint16", 3, (300, 410)),
        compress="deflate",
        predictor=2,
        endianness=order,
        bigtiff=bigtiff,
    )
    with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=64), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8], Resampling.average)
    assert_as_rasterio(path)
    file = opened(source_of(path))
    assert file.kind == "cog"
    assert [level.tile for level in file.layout.levels] == [(32, 32)] + 3 * [(64, 64)]


@pytest.mark.parametrize("options", [{}, {"overviews": "none"}, {"interleave": "band"}, {"compress": "zstd"}])
def test_cloud_optimised_geotiffs(tmp_path: Path, options: dict[str, Any]) -> None:
    write(tmp_path / "a.tif", pixels_of("float32", 3, (300, 410)))
    path = tmp_path / "cog.tif"
    copy(tmp_path / "a.tif", path, driver="COG", **{"compress": "deflate", "predictor": 3, "blocksize": 128} | options)
    assert_as_rasterio(path)
    assert opened(source_of(path)).kind == "cog"


def test_colours_scales_and_statistics_change_no_pixel(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels_of("uint8", 1), compress="deflate", photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {value: (value, 0, 0, 255) for value in range(256)})
    scaled = write(tmp_path / "b.tif", pixels_of("int16", 2), compress="deflate", nodata=-1)
    with rasterio.open(scaled, "r+") as file:
        file.scales, file.offsets = (0.1, 0.2), (5, 6)
    (tmp_path / "b.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">1</MDI></Metadata>'
        "</PAMRasterBand></PAMDataset>"
    )
    for each in (path, scaled):
        assert_as_rasterio(each)
        assert opened(source_of(each)).kind == "cog"


# ---------------------------------------------------------------------------------------- by GDAL


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ({"compress": "lzw", "predictor": 2}, "the compression is LZW"),
        ({"compress": "lerc"}, "the compression is LERC"),
        ({"compress": "packbits"}, "the compression is PackBits"),
        ({"compress": "lzma"}, "the compression is LZMA"),
        ({"compress": "jpeg", "dtype": "uint8"}, "the compression is JPEG"),
        ({"compress": "jpeg", "dtype": "uint8", "photometric": "ycbcr"}, "the compression is JPEG"),
        ({"compress": "webp", "dtype": "uint8"}, "the compression is WebP"),
        ({"compress": "deflate", "tiled": False, "blockxsize": None, "blockysize": 8}, "the file is in strips, not in"),
        ({"compress": "deflate", "nbits": 12}, "pixels of 12 bits are read as uint16"),
        ({"compress": "deflate", "dtype": "float32", "nbits": 16}, "pixels of 16 bits are read as float32"),
        ({"compress": "deflate", "alpha": "yes"}, "the file has a mask or an alpha band"),
    ],
)
def test_what_is_left_to_gdal(tmp_path: Path, profile: dict[str, Any], why: str) -> None:
    dtype = profile.get("dtype", "uint16")
    pixels = pixels_of(dtype)
    if "nbits" in profile:
        pixels = np.clip(np.nan_to_num(pixels), 0, 4095).astype(dtype)
    path = write(tmp_path / "a.tif", pixels, **{"photometric": "rgb" if dtype == "uint8" else "minisblack"} | profile)
    assert_as_rasterio(path)
    assert reason(source_of(path)).startswith(f"gdal: {why}")


@pytest.mark.parametrize("overviews", [False, True])
@pytest.mark.parametrize("kind", ["alpha", "internal mask", "mask beside"])
def test_masks(tmp_path: Path, kind: str, overviews: bool) -> None:
    shown = np.zeros((300, 410), "uint8")
    shown[20:200, 30:350] = 255
    pixels = pixels_of("uint8", 2, (300, 410))
    pixels[1] = shown if kind == "alpha" else pixels[1]
    path = write(tmp_path / "a.tif", pixels, compress="deflate", alpha="yes" if kind == "alpha" else "no")
    internal = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "internal mask")
    if kind != "alpha":
        with internal, rasterio.open(path, "r+") as file:
            file.write_mask(shown)
    if overviews:
        with internal, rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4], Resampling.nearest)
    assert_as_rasterio(path)
    file = opened(source_of(path))
    assert (file.kind, file.layout.masked) == ("gdal", True)
    beside, inside = "a.tif.msk lies beside the file", "the file has a mask or an alpha band"
    assert file.reason == (beside if kind == "mask beside" else inside)
    np.testing.assert_array_equal(put_together(source_of(path), 0, (1,), mask=True)[0] > 0, shown > 0)


def test_overviews_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels_of("uint8", 1, (300, 410)), compress="deflate")
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.nearest)
    assert_as_rasterio(path)
    assert reason(source_of(path)) == "gdal: a.tif.ovr lies beside the file"


@pytest.mark.parametrize("nodata", [-9999, 300, 0.5, np.nan])
def test_absent_tiles_whose_nodata_the_pixels_cannot_hold(tmp_path: Path, nodata: float) -> None:
    path = tmp_path / "a.tif"
    write(path, np.zeros((1, *SHAPE), "uint8"), sparse_ok=True)
    with rasterio.open(path, "r+") as file:
        file.write(np.full((1, 32, 32), 9, "uint8"), window=((0, 32), (0, 32)))
    (tmp_path / "a.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><NoDataValue>{nodata}</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    assert_as_rasterio(path)


def test_other_drivers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels_of("uint8", 1), compress="deflate")
    copy(path, tmp_path / "a.vrt", driver="VRT")
    copy(path, tmp_path / "a.img", driver="HFA")
    for name, driver in (("a.vrt", "VRT"), ("a.img", "HFA")):
        assert_as_rasterio(tmp_path / name)
        assert reason(source_of(tmp_path / name)) == f"gdal: the file is {driver}, not GeoTIFF"


# ---------------------------------------------------------------------------------------- found in the wild

REFUSED = ("au-gcp", "truncated", "tiled_bad_offset")
BROKEN = ("corrupt", "byte_truncated", "byte_zstd_corrupted", "cfloat32", "cint16")
LARGE = ("sparse",)  # 20,480 px a side


@pytest.mark.real
def test_odd_files_are_as_rasterio_reads_them_or_refused(real_data: Path) -> None:
    kinds: dict[str, list[str]] = {"cog": [], "gdal": []}
    for path in sorted((real_data / "odd_tiffs").iterdir()):
        if path.stem in REFUSED + BROKEN:
            with pytest.raises(GeopipesError):
                put_together(source_of(path), 0, (1,))
        elif path.stem not in LARGE:
            assert_as_rasterio(path)
            kinds[opened(source_of(path)).kind].append(path.stem)
    assert "rgbsmall_ZSTD_tiled_separate" in kinds["cog"]
    assert "rgbsmall_JPEG_tiled" in kinds["gdal"]
    assert min(map(len, kinds.values())) >= 7


@pytest.mark.real
def test_a_real_sparse_file(real_data: Path) -> None:
    path = real_data / "odd_tiffs" / "sparse.tiff"
    file = opened(source_of(path))
    for row, col in ((0, 0), (20, 20), (39, 39)):
        window = ((row * 512, row * 512 + 512), (col * 512, col * 512 + 512))
        out, shown = np.zeros((3, 512, 512), "uint8"), np.zeros((512, 512), "uint8")
        file.read(0, row, col, (1, 2, 3), out)
        file.read_mask(0, row, col, shown)
        with rasterio.open(path) as expected:
            np.testing.assert_array_equal(out, expected.read((1, 2, 3), window=window))
            np.testing.assert_array_equal(shown > 0, expected.read(4, window=window) > 0)
