"""What the public chain says of bad input: what was found, what was needed, what to write instead."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC

import geopipes as gp
from geopipes.errors import (
    ChipError,
    ChipTooLarge,
    EmptySearch,
    GridError,
    MarginTooSmall,
    NotGeoreferenced,
    ReadError,
    SourceError,
    StepError,
    TensorError,
    UnknownBand,
)
from geopipes.testing import Synthetic, serve, synthetic_scenes

T = TypeVar("T")
Items = gp.Pipe[pystac.Item]
Cubes = gp.Pipe[xr.Dataset]
Chips = gp.Plan[xr.Dataset]


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """Make one date in two UTM zones, 128 px a side."""
    return synthetic_scenes(tmp_path_factory.mktemp("fields"), size=128, dates=("2024-05-03",))


@pytest.fixture
def scene(fields: Synthetic) -> Items:
    """Give the one scene of zone 14, in items that a test may change."""
    return gp.items([item.clone() for item in fields.items if "_14TQL_" in item.id])


@pytest.fixture
def cubes(scene: Items) -> Cubes:
    return scene.stack(["red", "nir", "scl"])


def unchanged(element: T) -> T:
    return element


# Items and grids.


def test_an_empty_search_says_so_when_it_is_stacked(fields: Synthetic) -> None:
    with serve(fields.items) as api:
        nothing = gp.search(api.url, collections=["synthetic-s2-l2a"], bbox=(0, 0, 1, 1))
        assert len(nothing) == 0
        with pytest.raises(EmptySearch, match=r"there are no items; widen the search's region, dates or filter"):
            list(nothing.stack(["red"], resolution=10))


def test_nothing_to_join_says_so(cubes: Cubes) -> None:
    with pytest.raises(EmptySearch, match="join: there are no items to join; widen their search"):
        list(cubes.join(gp.items([]), name="crop"))


def test_an_unknown_band_names_those_there_are(scene: Items) -> None:
    there = r"item 'S2._14TQL_20240503_0_L2A' has no band 'swir'; there are: blue, green, red, nir, scl$"
    with pytest.raises(UnknownBand, match=there):
        list(scene.stack(["red", "swir"]))
    with pytest.raises(UnknownBand, match=r"no band 'B11 or swir'; there are: blue, green, red, nir, scl$"):
        list(scene.stack({"swir": ["B11", "swir"]}))


def test_sources_in_two_crss_ask_for_a_choice(fields: Synthetic) -> None:
    both = gp.items(fields.items)
    with pytest.raises(
        GridError,
        match=r"in 2 CRSs: EPSG:32614 \(1\), EPSG:32615 \(1\)\. Choose one, as crs='EPSG:32614', or .* crs='utm'",
    ):
        list(both.stack(["red"]))
    assert len(both.stack(["red"], crs="utm")) == 2


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"bands": "red"}, SourceError, r"bands='red': a list is needed; write bands=\['red'\]"),
        ({"resolution": 0}, GridError, r"resolution=0: one positive number is needed"),
        ({"crs": "EPSG:0"}, GridError, r"crs='EPSG:0' is no CRS .* write 'EPSG:32633'"),
        ({"bounds": (0, 0, 100, 100)}, GridError, r"none of the 1 items touches .* in EPSG:32614; check bounds"),
        ({"resampling": "sinc"}, SourceError, r"resampling='sinc' for 'red': use one of nearest, bilinear"),
        ({"groupby": "orbit"}, SourceError, r"groupby='orbit'.* has no such property; use 'time', 'solar_day'"),
        ({"engine": "gdal"}, SourceError, r"engine='gdal'\): use 'window', 'odc' or 'stackstac'"),
    ],
)
def test_options_that_make_no_stack(scene: Items, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        list(scene.stack(**{"bands": ["red"], **options}))


def gcps() -> list[GroundControlPoint]:
    corners = [(0, 0), (0, 8), (8, 0), (8, 8)]
    return [GroundControlPoint(row, col, 15 + col / 100, 46 - row / 100) for row, col in corners]


def rpcs() -> RPC:
    cubic = [1.0] + [0.0] * 19
    return RPC(
        height_off=0, height_scale=1, lat_off=46, lat_scale=1, line_den_coeff=cubic, line_num_coeff=cubic, line_off=4,
        line_scale=4, long_off=15, long_scale=1, samp_den_coeff=cubic, samp_num_coeff=cubic, samp_off=4, samp_scale=4,
    )  # fmt: skip


NOWHERE = [
    pytest.param(
        {"gcps": gcps(), "crs": CRS.from_epsg(4326)},
        r"has 4 ground control points \(GCPs\) only; .* needed\. Georeference it first: gdalwarp -tps -t_srs EPSG:",
        id="GCPs",
    ),
    pytest.param(
        {"rpcs": rpcs()},
        r"has rational polynomial coefficients \(RPCs\) only; .* needed\. Georeference it first: gdalwarp -rpc",
        id="RPCs",
    ),
    pytest.param(
        {},
        r"has no affine transform, no ground control points \(GCPs\) and no RPCs; .* needed\. .* gdal_translate -a_srs",
        id="nothing",
    ),
]


@pytest.mark.parametrize(("profile", "text"), NOWHERE)
def test_a_file_without_a_grid_says_what_it_has_and_how_to_mend_it(
    tmp_path: Path, scene: Items, profile: dict[str, Any], text: str
) -> None:
    path = tmp_path / "nowhere.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", count=1, height=8, width=8, dtype="uint8", **profile) as file:
            file.write(np.ones((1, 8, 8), "uint8"))
    with pytest.raises(NotGeoreferenced, match=rf"nowhere\.tif: {text}"):
        list(gp.rasters(path))

    (item,) = scene
    item = pystac.Item("unknown", item.geometry, item.bbox, item.datetime, {})  # states no projection
    item.add_asset("red", pystac.Asset(str(path), media_type=pystac.MediaType.GEOTIFF))
    with pytest.raises(NotGeoreferenced, match=rf"item 'unknown', asset 'red': .*nowhere\.tif: {text}"):
        list(gp.items([item]).stack(["red"]))


# Chips, splits, and methods at the wrong place.


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda cubes: cubes.chip(256),
            ChipTooLarge,
            r"size=256 x 256\): the cube is 128 x 128 px \(y, x\); use a smaller size or edge='pad'",
        ),
        (lambda cubes: cubes.chip(64, time=2), ChipTooLarge, r"time=2\): the cube has 1 dates; use a smaller"),
        (lambda cubes: cubes.chip(64, edge="wrap"), ChipError, r"edge='wrap'\): use 'drop', 'pad' or 'shift'"),
        (lambda cubes: cubes.chip(64, overlap=64), ChipError, r"overlap at least 0 and less than size"),
        (lambda cubes: cubes.chip(6.4), ChipError, r"size=6\.4\): give whole pixels, one number or \(y, x\)"),
        (
            lambda cubes: cubes.chip(64, margin=2).map(unchanged, margin=1).map(unchanged, margin=3),
            MarginTooSmall,
            r"map\(unchanged, margin=3\) and .* need 4 px .*, which carries 2: write chip\(\.\.\., margin=4\)",
        ),
        (
            lambda cubes: cubes.chip(32).split((0.8, 0.3), block=300, seed=0)[0],
            ChipError,
            r"split\(\(0\.8, 0\.3\)\): give two or more positive fractions that sum to 1, as \(0\.8, 0\.2\)",
        ),
        (
            lambda cubes: cubes.chip(64).split((0.5, 0.5), block=640, buffer=640, seed=0)[0],
            ChipError,
            r"give splits of \[0, 2\] chips; use smaller blocks, a smaller buffer, or a larger area",
        ),
        (
            lambda cubes: cubes.chip(64).split((0.5, 0.5), block=1, buffer=5000, seed=0)[0],
            ChipError,
            r"the buffer is wider than a block; use a smaller buffer, or larger blocks",
        ),
        (lambda cubes: cubes.chip(64).split((0.5, 0.5), block=0, seed=0)[0], ChipError, r"block above 0"),
    ],
)
def test_plans_that_cannot_be_made(
    cubes: Cubes, make: Callable[[Cubes], Chips], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        len(make(cubes))


def test_a_generator_is_refused_with_the_reason() -> None:
    with pytest.raises(StepError, match=r"Pipe\(generator\): .* runs once, and a pipe starts again .*; give a list"):
        gp.Pipe(number for number in range(3))
    with pytest.raises(StepError, match=r"Pipe\(int\): a source is something to iterate over"):
        gp.Pipe(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda items: items.chip(64), r"chip\(64\) works on cubes \(stack, .*\); before it stands items \(gp\.search"),
        (lambda items: items.scale("red", factor=1e-4), r"scale\('red', factor=0\.0001\) works on cubes"),
        (lambda items: items.join(items, name="crop"), r"join\(.*\) works on cubes"),
        (lambda items: items.stack(["red"]).stack(["red"]), r"stack\(\['red'\]\) works on items .* stands cubes"),
        (lambda items: items.stack(["red"]).chip(64).chip(32), r"chip\(32\) works on cubes .* stands a plan of chips"),
        (
            lambda items: items.stack(["red"]).chip(64).filter(bool),
            r"filter\(bool\) looks at pixels, which are not read yet: write \.read\(\)\.filter\(bool\)",
        ),
        (
            lambda items: items.stack(["red"]).chip(64).tensor(image=["red"], fill=0),
            r"tensor\(.*\) works on elements that are read or .*; before it stands a plan of chips \(chip\)",
        ),
        (lambda items: items.stack(["red"]).chip(64).read().chip(32), r"chip\(32\) works on cubes .* elements that"),
        (lambda items: items.union(items.stack(["red"])), r"union\(.*\) takes pipes of items, or pipes of cubes"),
        (lambda items: items.stack(["red"]).chip(64).read(threads=0), r"threads=0\): at least one thread reads"),
    ],
)
def test_a_method_at_the_wrong_place_says_where_it_belongs(
    scene: Items, make: Callable[[Items], Any], text: str
) -> None:
    with pytest.raises(StepError, match=text):
        make(scene)


# Steps.


@pytest.mark.parametrize("place", ["before chip", "after chip"])
@pytest.mark.parametrize(
    ("step", "text"),
    [
        (lambda chip: chip["red"], r"gave DataArray; before read\(\) it must give an xr\.Dataset"),
        (
            lambda chip: chip.isel(x=slice(None, None, 2)),
            r"changed x from \d+ to \d+ px; .* keeps the window: use marg",
        ),
        (lambda chip: chip[["red"]].isel(time=0), r"dropped 'valid' and changed its dims .*: give .* 'valid' of its"),
    ],
)
def test_a_step_before_read_gives_a_dataset_of_the_same_window(
    cubes: Cubes, place: str, step: Callable[[Any], Any], text: str
) -> None:
    mapped = cubes.map(step).chip(64) if place == "before chip" else cubes.chip(64).map(step)
    with pytest.raises(StepError, match=rf"map\(<lambda>\) {text}"):
        list(mapped.read(threads=1))


def test_a_step_that_loses_valid_gets_it_back_or_is_named(cubes: Cubes) -> None:
    def flattened(chip: xr.Dataset) -> xr.Dataset:
        return chip[["red"]].max("time")

    chips = cubes.chip(64).read(threads=1)
    for whole, part in zip(chips, chips.map(lambda chip: chip[["red"]]), strict=True):
        xr.testing.assert_identical(part["valid"], whole["valid"])
    with pytest.raises(StepError, match=r"map\(flattened\) dropped 'valid' .* boolean 'valid' of its own") as caught:
        list(chips.map(flattened))
    assert caught.value.__notes__ == ["in step map(flattened)", "at element 0 (chip 0)"]


def test_what_a_users_function_raises_names_the_step_and_the_chip(cubes: Cubes) -> None:
    def divided(chip: xr.Dataset) -> xr.Dataset:
        raise ZeroDivisionError(f"no pixel is {chip['chip'].item()}")

    read = cubes.chip(64)[2:].read(threads=1)
    with pytest.raises(ZeroDivisionError, match="no pixel is 2") as caught:
        list(read.map(unchanged).map(divided))
    assert caught.value.__notes__ == ["in step map(divided)", "at element 0 (chip 2)"]


def test_a_pixel_step_names_the_variables_there_are(cubes: Cubes) -> None:
    with pytest.raises(UnknownBand, match=r"no variable \['swir'\].*: there are \['red', 'nir', 'scl', 'valid'\]"):
        list(cubes.normalized_difference("nir", "swir", name="NDMI"))


# Tensors.


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"image": ["red", "blue"], "fill": 0}, r"no variable 'blue'; there are red, nir, scl, valid"),
        ({"fill": 0}, r"no tensor is named; write for example image="),
        ({"image": [], "fill": 0}, r"no variable is named; write image="),
        ({"image": ["red"], "fill": -1}, r"fill=-1\): image is uint16, .* 0 to 65535; choose a fill that fits"),
        ({"chip": ["red"], "fill": 0}, r"keeps the key 'chip' for itself; choose another name"),
    ],
)
def test_tensors_that_cannot_be_made(cubes: Cubes, options: dict[str, Any], text: str) -> None:
    with pytest.raises(TensorError, match=text) as caught:
        list(cubes.chip(64).read(threads=1).tensor(**options))
    assert caught.value.__notes__[-1] == "at element 0 (chip 0)"


def test_a_step_that_loses_what_a_chip_is_cannot_become_a_tensor(cubes: Cubes) -> None:
    half = cubes.chip(64).read(threads=1).map(lambda chip: chip.isel(x=slice(0, 32)).isel(x=slice(None, None, 2)))
    with pytest.raises(TensorError, match=r"coordinate x runs from .* but spatial_ref states 16 px of 10"):
        list(half.tensor(image=["red"], fill=0))


# Files that are missing or damaged: a run raises, and never delivers zeros that the file does not say.


def test_a_missing_file_is_named_with_item_asset_window_and_cause(scene: Items, tmp_path: Path) -> None:
    (item,) = scene
    item.assets["nir"].href = str(tmp_path / "gone.tif")
    plan = gp.items([item]).stack(["red", "nir"]).chip(64)  # the item states all that is needed up to here
    with pytest.raises(
        ReadError,
        match=rf"item '{item.id}', asset 'nir' \(.*gone\.tif\): the file could not be read: .*gone\.tif: No such file"
        r".*\(needed for rows 0\.\.64, columns 64\.\.128 of the grid\)",
    ) as caught:
        list(plan[1:2].read())
    assert caught.value.__notes__ == ["while reading element 0"]
    with pytest.raises(ReadError, match="could not be read"):
        plan[1].load()

    with pytest.raises(
        ReadError, match=rf"item '{item.id}', asset 'nir': .*gone\.tif: the header could not be read: .*No such file"
    ):
        list(gp.items([item]).stack(["red", "nir"], headers="file"))
    with pytest.raises(ReadError, match=r"gone\.tif: the header could not be read: .*No such file"):
        list(gp.rasters(tmp_path / "gone.tif"))


def test_an_item_that_misstates_its_file_is_refused_when_it_is_read(scene: Items) -> None:
    (item,) = scene
    fields = item.assets["red"].extra_fields
    a, b, left, *rest = fields["proj:transform"]
    item.assets["red"].extra_fields = {**fields, "proj:transform": [a, b, left + 30, *rest]}
    with pytest.raises(SourceError, match=r'the item states .*; the file has .*\. Write stack\(\.\.\., headers="file"'):
        list(gp.items([item]).stack(["red"]).chip(64).read())


def cog(path: Path) -> Any:
    """Write a COG of four tiles, all of whose pixels are above 0, without nodata."""
    y, x = np.mgrid[:256, :256]
    pixels = (1000 + 3 * y + 2 * x + np.random.default_rng(0).integers(0, 50, (256, 256))).astype("uint16")
    grid = GeoBox(pixels.shape, Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")
    profile = {"driver": "COG", "count": 1, "height": 256, "width": 256, "dtype": "uint16"}
    with rasterio.open(
        path, "w", **profile, crs=str(grid.crs), transform=grid.affine, blocksize=128, compress="deflate"
    ) as file:
        file.write(pixels, 1)
    return pixels


def cut(content: bytearray) -> None:
    """Lose the second half, as a broken download does; a COG's header stands at its beginning."""
    del content[len(content) // 2 :]


def garbled(content: bytearray) -> None:
    """Turn over 200 bytes within a tile."""
    at = len(content) * 3 // 4
    content[at : at + 200] = bytes(255 - byte for byte in content[at : at + 200])


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:32632"])
@pytest.mark.parametrize("damage", [cut, garbled])
def test_damaged_files_raise_and_never_deliver_what_they_do_not_hold(
    tmp_path: Path, damage: Callable[[bytearray], None], crs: str
) -> None:
    def plan_of(folder: str) -> Chips:
        files = gp.rasters(tmp_path / folder / "red.tif")
        return files.stack({"red": "data"}, crs=crs, resolution=10, resampling="bilinear").chip(64)

    for folder in ("whole", "damaged"):
        (tmp_path / folder).mkdir()
    pixels = cog(tmp_path / "whole" / "red.tif")
    before = [chip.load() for chip in plan_of("whole")]
    content = bytearray((tmp_path / "whole" / "red.tif").read_bytes())
    damage(content)
    (tmp_path / "damaged" / "red.tif").write_bytes(content)
    plan = plan_of("damaged")
    with pytest.raises(ReadError, match=r"item 'red', asset 'data' \(.*red\.tif\): tile .* could not be read: "):
        list(plan.read(threads=2))
    raised = 0
    for wanted, chip in zip(before, plan, strict=True):
        try:
            xr.testing.assert_identical(chip.load(), wanted)
        except ReadError:
            raised += 1
    assert raised > 0
    if crs == "EPSG:32633":  # elsewhere each warped block needs all tiles
        np.testing.assert_array_equal(before[5]["red"][0], pixels[64:128, 64:128])
        assert raised < len(plan)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "size", "error", "text"),
    [
        (
            "corrupt.tif",
            512,
            ReadError,
            r"item 'corrupt', asset 'data' \(.*\): tile .*: T.*rows 512\.\.1024, columns 512\.\.1024 of the grid",
        ),
        (
            "byte_truncated.tif",
            10,
            ReadError,
            r"item 'byte_truncated', asset 'data' \(.*\): tile .*Read error.* rows 0\.\.10, ",
        ),
        (
            "byte_zstd_corrupted.tif",
            10,
            ReadError,
            r"could not be read: ZSTD.* rows 0\.\.10, columns 0\.\.10 of the grid",
        ),
        ("truncated.tiff", 16, NotGeoreferenced, r"truncated\.tiff: has no affine transform, .* gdal_translate -a_srs"),
        ("tiled_bad_offset.tif", 16, NotGeoreferenced, r"has no affine transform, .* gdal_translate -a_srs"),
        ("au-gcp.tif", 16, NotGeoreferenced, r"has 24 ground control points \(GCPs\) only; .* gdalwarp -tps -t_srs"),
    ],
)
def test_real_damaged_files_are_never_delivered(
    real_data: Path, name: str, size: int, error: type[Exception], text: str
) -> None:
    chips = gp.rasters(real_data / "odd_tiffs" / name).stack().chip(size).read(threads=1)
    with pytest.raises(error, match=text):
        list(chips)


@pytest.mark.real
def test_a_real_corrupt_file_raises_where_its_broken_part_is_needed(real_data: Path) -> None:
    # Its overviews are whole, and serve averages; nearest takes pixels of full resolution, which is not.
    def chips(resampling: str) -> list[xr.Dataset]:
        coarse = gp.rasters(real_data / "odd_tiffs" / "corrupt.tif").stack(resolution=9.6, resampling=resampling)
        return list(coarse.chip(32, coverage="any").read(threads=1))

    with pytest.raises(ReadError, match=r"item 'corrupt', asset 'data'"):
        chips("nearest")
    assert all(chip["valid"].any() for chip in chips("average"))
