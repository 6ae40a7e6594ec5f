"""Open files: one for all threads, opened anew when they changed or broke, and never wrong pixels."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.shutil import copy

import geopipes as gp
from geopipes.errors import NotGeoreferenced, ReadError, SourceError
from geopipes.read.files import Array, bycog, bygdal, close_files, opened, opening, reason, stamp
from geopipes.read.files.bygdal import DIVIDED, GROUPED, LARGEST, SMALLEST, tile_of
from geopipes.read.files.tiffs import COUNTS, OFFSETS, read_tiff
from geopipes.read.headers import file_header
from geopipes.read.nodata import usable_nodata
from geopipes.read.sources import Source

GRID = GeoBox((160, 192), Affine(10, 0, 690_000, 0, -10, 5_000_000), "EPSG:32633")
CODECS = {"cog": "deflate", "gdal": "lzw"}
KINDS = pytest.mark.parametrize("kind", CODECS)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_files()


def pixels_of(seed: int = 0, count: int = 2) -> Array:
    return np.random.default_rng(seed).integers(1, 5000, (count, *GRID.shape)).astype("uint16")


def write(path: Path, pixels: Array, kind: str = "cog", **profile: Any) -> Path:
    """Write (band, y, x) in tiles of 64 px, so that it is read by byte ranges or else by GDAL."""
    count, height, width = pixels.shape
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": CODECS[kind], "interleave": "band"}
    place = {"crs": str(GRID.crs), "transform": GRID.affine, "height": height, "width": width}
    with rasterio.open(
        path, "w", driver="GTiff", count=count, dtype=pixels.dtype, **place, **(layout | profile)
    ) as file:
        file.write(pixels)
    return path


def source_of(path: Path, **changes: Any) -> Source:
    header = file_header(str(path))
    source = Source(
        href=str(path),
        bands=(1,),
        geobox=header.geobox,
        dtype=header.dtypes[0],
        nodata=header.nodata[0],
        item="S2A_33TXL",
        collection="sentinel-2-l2a",
        asset="red",
        time=np.datetime64("2024-05-01", "ns"),
    )
    return replace(source, **changes)


def tile(source: Source, row: int = 0, col: int = 0, bands: tuple[int, ...] = (1, 2)) -> Array:
    """Read one tile, without what lies outside the level."""
    file = opened(source)
    (height, width), (rows, cols) = file.layout.levels[0].shape, file.layout.levels[0].tile
    out = np.zeros((len(bands), rows, cols), np.result_type(*(file.layout.dtypes[band - 1] for band in bands)))
    file.read(0, row, col, bands, out)
    return out[:, : height - row * rows, : width - col * cols]


def whole(source: Source, bands: tuple[int, ...] = (1, 2)) -> Array:
    level = opened(source).layout.levels[0]
    down, across = level.tiles
    return np.block([[tile(source, row, col, bands) for col in range(across)] for row in range(down)])


# ---------------------------------------------------------------------------------------- tiles


@given(st.integers(1, 6000), st.integers(1, 6000), st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_tile_is_whole_blocks_or_part_of_one(rows: int, cols: int, height: int, width: int) -> None:
    rows, cols = min(rows, height), min(cols, width)
    down, across = tile_of((rows, cols), (height, width))
    if rows * cols > LARGEST:
        assert (down, across) == (min(rows, DIVIDED), min(cols, DIVIDED))
    elif rows * cols >= SMALLEST:
        assert (down, across) == (rows, cols)
    else:
        assert down % rows == across % cols == 0
        assert down * across <= GROUPED * GROUPED
        assert down < height + rows
        assert across < width + cols


@pytest.mark.parametrize(
    ("block", "tile"),
    [((128, 128), (512, 512)), ((1, 10_980), (23, 10_980)), ((512, 512), (512, 512)), ((10_980, 10_980), (1024, 1024))],
)
def test_tiles_of_usual_blocks(block: tuple[int, int], tile: tuple[int, int]) -> None:
    assert tile_of(block, (10_980, 10_980)) == tile


@KINDS
def test_bands_of_several_dtypes_come_as_one_that_holds_them(tmp_path: Path, kind: str) -> None:
    for name, dtype in (("a", "uint16"), ("b", "int16")):
        write(tmp_path / f"{name}.tif", pixels_of(count=1).astype(dtype), kind)
    (tmp_path / "both.vrt").write_text(
        '<VRTDataset rasterXSize="192" rasterYSize="160"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>690000, 10, 0, 5000000, 0, -10</GeoTransform>"
        + "".join(
            f'<VRTRasterBand dataType="{dtype}" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">'
            f"{name}.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
            for band, name, dtype in ((1, "a", "UInt16"), (2, "b", "Int16"))
        )
        + "</VRTDataset>"
    )
    source = source_of(tmp_path / "both.vrt")
    assert opened(source).layout.dtypes == (np.dtype("uint16"), np.dtype("int16"))
    assert tile(source).dtype == np.int32
    np.testing.assert_array_equal(whole(source), pixels_of(count=1).repeat(2, axis=0))


@KINDS
def test_a_buffer_that_does_not_fit_is_refused(tmp_path: Path, kind: str) -> None:
    file = opened(source_of(write(tmp_path / "a.tif", pixels_of(), kind)))
    fits = np.zeros((1, *file.layout.levels[0].tile), "uint16")
    for out in (fits[0], fits.astype("int16"), np.zeros((2, *fits.shape[1:]), "uint16")[::2, ::-1]):
        with pytest.raises(ValueError, match=r"a buffer of .* was given; uint16 \(1, \d+, \d+\), C-contiguous, is"):
            file.read(0, 0, 0, (1,), out)
    with pytest.raises(IndexError, match=r"tile \(9, 0\); level 0 has \d x \d tiles"):
        file.read(0, 9, 0, (1,), fits)


def test_where_tiles_lie_is_what_gdal_says(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels_of(), bigtiff="yes")
    with open(path, "rb") as content:
        held = content.read()
    tiff = read_tiff(lambda offset, size: held[offset : offset + size])
    tags = tiff.directories[0].tags
    with rasterio.open(path) as file:
        for index, (band, row, col) in enumerate(np.ndindex(2, 3, 3)):
            for name, tag in (("OFFSET", OFFSETS), ("SIZE", COUNTS)):
                found = file.get_tag_item(f"BLOCK_{name}_{col}_{row}", "TIFF", bidx=band + 1)
                assert found == str(tags[tag][index])


# ---------------------------------------------------------------------------------------- one for all


@KINDS
def test_threads_share_a_file_that_is_opened_and_signed_once(tmp_path: Path, kind: str) -> None:
    signed: list[str] = []
    source = source_of(
        write(tmp_path / "a.tif", pixels_of(), kind), modifier=lambda item: signed.append(item.assets["red"].href)
    )
    together = Barrier(8)

    def read(_: int) -> tuple[int, Array]:
        together.wait()
        return id(opened(source)), whole(source)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(8)))
    assert len({file for file, _ in found}) == 1
    assert signed == [source.href]
    for _, pixels in found:
        np.testing.assert_array_equal(pixels, pixels_of())


def _read_in_child(source: Source, queue: Any) -> None:
    queue.put(whole(source))


@KINDS
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_reads_and_opens_files_of_its_own(tmp_path: Path, kind: str) -> None:
    known = source_of(write(tmp_path / "a.tif", pixels_of(), kind))
    new = source_of(write(tmp_path / "b.tif", pixels_of(1), kind))
    whole(known)
    context = multiprocessing.get_context("fork")
    for source, seed in ((known, 0), (new, 1)):
        queue = context.SimpleQueue()
        child = context.Process(target=_read_in_child, args=(source, queue))
        with opening._lock:  # as a thread of the parent may
            child.start()
        np.testing.assert_array_equal(queue.get(), pixels_of(seed))
        child.join()


@KINDS
def test_what_is_kept_open_is_bounded(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bygdal, "KEPT_OPEN", 2)
    monkeypatch.setattr(bycog, "KEPT_OPEN", 2)
    monkeypatch.setattr(opening, "KEPT", 4)
    sources = [source_of(write(tmp_path / f"{seed}.tif", pixels_of(seed), kind)) for seed in range(6)]
    before = len(os.listdir("/dev/fd"))
    for _ in range(2):
        for seed, source in enumerate(sources):
            np.testing.assert_array_equal(whole(source), pixels_of(seed))
            assert len(os.listdir("/dev/fd")) <= before + 2
            assert len(opening._entries) <= 4
    close_files()
    assert len(os.listdir("/dev/fd")) <= before


@KINDS
def test_a_file_that_was_closed_can_still_be_read(tmp_path: Path, kind: str) -> None:
    source = source_of(write(tmp_path / "a.tif", pixels_of(), kind))
    file = opened(source)
    close_files()
    out = np.zeros((1, *file.layout.levels[0].tile), "uint16")
    file.read(0, 0, 0, (2,), out)
    assert opened(source) is not file
    np.testing.assert_array_equal(out[0, :64, :64], pixels_of()[1, :64, :64])


# ---------------------------------------------------------------------------------------- opened anew


@KINDS
def test_a_rewritten_file_is_opened_anew(tmp_path: Path, kind: str) -> None:
    source = source_of(write(tmp_path / "a.tif", pixels_of(), kind))
    first, before = opened(source), stamp(source)
    assert opened(source) is first
    np.testing.assert_array_equal(whole(source), pixels_of())
    write(tmp_path / "b.tif", pixels_of(1), kind)
    (tmp_path / "b.tif").replace(tmp_path / "a.tif")
    assert stamp(source) != before
    np.testing.assert_array_equal(whole(source), pixels_of(1))
    assert opened(source) is not first


def test_a_file_rewritten_under_a_reader_is_an_error(tmp_path: Path) -> None:
    source = source_of(write(tmp_path / "a.tif", pixels_of()))
    whole(source)
    file, out = opened(source), np.zeros((1, 64, 64), "uint16")
    file.read(0, 0, 0, (1,), out)
    time.sleep(2 * bycog.LOOK)
    with open(source.href, "r+b") as there:  # in place
        there.write(write(tmp_path / "b.tif", pixels_of(1, count=3)).read_bytes())
    with pytest.raises(ReadError, match="the file was written anew while it was open"):
        file.read(0, 0, 0, (1,), out)
    np.testing.assert_array_equal(whole(source), pixels_of(1, count=3)[:2])


def test_what_stands_for_files_that_are_not_local() -> None:
    source = Source("https://a/b.tif", (1,), GRID, np.dtype("u1"), None, "i", None, "a", np.datetime64("NaT", "ns"))
    assert stamp(source) == ("https://a/b.tif",)
    assert stamp(replace(source, href="vrt://\0")) == ("vrt://\0",)


def test_file_urls_are_local(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels_of())
    source = replace(source_of(path), href=path.as_uri())
    assert len(stamp(source)) > 1
    assert reason(source) == "cog: tiled, deflate, predictor 1, uint16, band-interleaved"
    np.testing.assert_array_equal(whole(source), pixels_of())


@pytest.mark.parametrize("name", ["a b#c.tif", "a%20b.tif", "100%.tif"])
def test_file_urls_are_quoted_or_not(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, pixels_of())
    for href in (path.as_uri(), f"file://{path}", path.as_uri().replace("file://", "file://localhost")):
        found = replace(source_of(path), href=href)
        assert len(stamp(found)) > 1
        np.testing.assert_array_equal(whole(found), pixels_of())
        cube = gp.rasters(href).stack(["b1"], resolution=10, engine="odc").chip(64)[0]
        np.testing.assert_array_equal(cube.load()["b1"].values.squeeze(), pixels_of()[0, :64, :64])


# ---------------------------------------------------------------------------------------- what cannot be read


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[len(content) // 2 :]
    else:
        at = len(content) * 3 // 4
        content[at : at + 400] = bytes(255 - byte for byte in content[at : at + 400])
    path.write_bytes(content)


def failure(source: Source, row: int, col: int, expected: Array) -> str:
    """Give the text of the error that reading a tile raises, or none where it is as expected."""
    try:
        np.testing.assert_array_equal(tile(source, row, col), expected)
    except ReadError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("codec", "how"),
    [("deflate", "cut"), ("zstd", "cut"), ("none", "cut"), ("lzw", "cut"), ("deflate", "flipped")],
)
def test_damaged_tiles_raise_and_the_others_are_right(tmp_path: Path, codec: str, how: str) -> None:
    write(tmp_path / "whole.tif", pixels_of())
    path = tmp_path / "a.tif"
    options = {"overviews": "none", "compress": codec, "blocksize": 128}
    copy(tmp_path / "whole.tif", path, driver="COG", **options)  # the header stands at the beginning
    source, raised = source_of(path), 0
    damage(path, how)
    for _ in range(2):
        for row, col in np.ndindex(*opened(source).layout.levels[0].tiles):
            side = opened(source).layout.levels[0].tile[0]
            expected = pixels_of()[:, row * side : (row + 1) * side, col * side : (col + 1) * side]
            text = failure(source, row, col, expected)
            place = f"item 'S2A_33TXL', asset 'red' ({path}): tile ({row}, {col}) at level 0 could not be read: "
            assert text.startswith(place if text else "")
            assert "See previous exception" not in text
            raised += bool(text)
    assert 0 < raised <= 8
    assert raised % 2 == 0


@KINDS
def test_after_an_error_it_is_signed_and_opened_anew(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "secret.tif", pixels_of(), kind)
    good, signed = path.read_bytes(), []

    def sign(item: pystac.Item) -> None:
        signed.append(item.id)
        item.assets["red"].href = item.assets["red"].href.replace("plain", "secret")

    plain = str(tmp_path / "plain.tif")
    source = replace(source_of(path), href=plain, modifier=sign)
    damage(path, "flipped")
    failed: ReadError | None = None
    try:
        raise KeyError("an error that has nothing to do with it")
    except KeyError:
        try:
            whole(source)
        except ReadError as error:
            failed = error
    assert failed is not None
    assert plain in str(failed)
    assert "secret" not in str(failed)
    path.write_bytes(good)
    np.testing.assert_array_equal(whole(source), pixels_of())
    assert len(signed) == 2
    path.unlink()
    close_files()
    with pytest.raises(
        ReadError, match=r"asset 'red' \(.*plain\.tif\): the file could not be read: .*No such file"
    ) as e:
        opened(source)
    assert "secret" not in str(e.value)
    assert capfd.readouterr().err == ""  # GDAL would print what nobody catches


@KINDS
@pytest.mark.parametrize(
    "stated",
    [
        GeoBox((160, 193), GRID.affine, GRID.crs),
        GeoBox(GRID.shape, Affine(10, 0, 690_005, 0, -10, 5_000_000), GRID.crs),
        GeoBox(GRID.shape, GRID.affine, "EPSG:32632"),
    ],
    ids=["shape", "transform", "CRS"],
)
def test_an_item_that_misstates_its_file_is_an_error(tmp_path: Path, kind: str, stated: GeoBox) -> None:
    right = source_of(write(tmp_path / "a.tif", pixels_of(), kind))
    wrong = replace(right, geobox=stated)
    for _ in range(2):
        with pytest.raises(SourceError) as error:
            opened(wrong)
        text = str(error.value)
        assert f"item 'S2A_33TXL', asset 'red' ({right.href}): the item states {stated.crs}, transform (10.0, " in text
        assert f"shape {tuple(stated.shape)} (y, x); the file has EPSG:32633, transform (10.0, 0.0, 690000.0" in text
        assert 'Write stack(..., headers="file") to go by the files' in text
        opened(right)


@KINDS
def test_bands_and_dtypes_that_are_not_there_are_errors(tmp_path: Path, kind: str) -> None:
    source = source_of(write(tmp_path / "a.tif", pixels_of(), kind))
    for bands in ((3,), (0,), (1, 3)):
        with pytest.raises(SourceError, match=r"bands .* were asked for; the file has 1 to 2"):
            opened(replace(source, bands=bands))
    with pytest.raises(SourceError, match=r"the item states int16 pixels, the file has uint16\. Write stack"):
        opened(replace(source, dtype=np.dtype("int16")))
    assert opened(replace(source, dtype=np.dtype("float32"))).layout.dtypes[0] == np.uint16


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels_of().astype("complex64"))
    with pytest.raises(SourceError, match=r"asset 'red' .*pixels are complex64, .*write the amplitude"):
        opened(source_of(path))


def test_a_file_without_crs_is_an_error(tmp_path: Path) -> None:
    known = source_of(write(tmp_path / "a.tif", pixels_of()))
    with rasterio.open(
        tmp_path / "b.tif", "w", driver="GTiff", count=2, height=160, width=192, dtype="uint16", transform=GRID.affine
    ) as file:
        file.write(pixels_of())
    with pytest.raises(NotGeoreferenced, match=r"'red' .*: the item states EPSG:32633, .*; the file has no CRS, tran"):
        opened(replace(known, href=str(tmp_path / "b.tif")))


@pytest.mark.parametrize(
    ("nodata", "dtype", "held"),
    [
        (0, "uint8", 0),
        (-1, "uint8", None),
        (256, "uint8", None),
        (0.5, "int16", None),
        (None, "int16", None),
        (7, "f4", 7),
    ],
)
def test_nodata_as_pixels_hold_it(nodata: float | None, dtype: str, held: float | None) -> None:
    assert usable_nodata(nodata, np.dtype(dtype)) == held
    assert np.isnan(usable_nodata(None, np.dtype("f4")) or 0)
    assert np.isnan(usable_nodata(1e300, np.dtype("f4")) or 0)


@KINDS
def test_the_reason_for_a_choice_can_be_asked_for(tmp_path: Path, kind: str) -> None:
    from geopipes import read

    path = write(tmp_path / "a.tif", pixels_of(), kind)
    assert read.reason(str(path)).startswith(f"{kind}: ")
    assert ("deflate" if kind == "cog" else "lzw") in read.reason(str(path)).lower()
