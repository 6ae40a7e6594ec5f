"""Both dask engines against plain numpy, exact pyproj, GDAL at its most exact, and each other."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from xarray.backends import BackendArray
from xarray.core.indexing import LazilyIndexedArray

from geopipes.errors import GridError, ReadError, SourceError
from geopipes.read.engines import dataset, load_odc, load_stackstac
from geopipes.read.engines.layers import bounds_within, single_band
from geopipes.read.headers import sources
from geopipes.read.sources import Source, Stack, Variable
from geopipes.read.windows import read_variable

pytestmark = [
    # rasterio.warp.reproject, which odc-stac calls, says so of the array it writes to
    pytest.mark.filterwarnings("ignore:Dataset has no geotransform:rasterio.errors.NotGeoreferencedWarning"),
    # odc-geo 0.5.3 calls shapely.ops.transform
    pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning"),
    # rasterio and odc-geo multiply affines by *
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
]

Pixels = npt.NDArray[Any]
Load = Callable[..., xr.Dataset]
ENGINES = [pytest.param(load_odc, id="odc"), pytest.param(load_stackstac, id="stackstac")]
DAYS = tuple(np.datetime64(f"2024-05-{day:02}", "ns") for day in (3, 8, 13))
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)
UNCERTAIN = 0.125  # px: how far GDAL's approximate transformer may be off, by default


def written(path: Path, pixels: Pixels, geobox: GeoBox, nodata: float | None = None, **options: Any) -> Source:
    """Write a GeoTIFF of (band, y, x) or (y, x), and say what it is."""
    planes = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    profile = {"driver": "GTiff", "dtype": pixels.dtype, "crs": str(geobox.crs), "transform": geobox.affine}
    profile |= {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate", "nodata": nodata}
    count, height, width = planes.shape
    with rasterio.open(path, "w", count=count, height=height, width=width, **profile, **options) as file:
        file.write(planes)
    bands = tuple(range(1, count + 1))
    return Source(str(path), bands, geobox, pixels.dtype, nodata, path.stem, None, "data", DAYS[0])


def smooth(height: int, width: int, phase: float = 0.0) -> Pixels:
    """Make a field whose steepest step is 61 DN a pixel, and which no shift of a pixel leaves alike."""
    y, x = np.mgrid[:height, :width]
    return np.asarray(2000 + 600 * np.sin(x / 17 + phase) + 600 * np.cos(y / 23))


def variable(steps: Sequence[Sequence[Source]], **changes: Any) -> Variable:
    first = steps[0][0]
    labels = None if len(first.bands) == 1 else tuple(f"b{band}" for band in first.bands)
    made = Variable("red", first.dtype, first.nodata, "nearest", labels, tuple(map(tuple, steps)))
    return dataclasses.replace(made, **changes)


def stack(geobox: GeoBox, *variables: Variable) -> Stack:
    return Stack(geobox, DAYS[: len(variables[0].sources)], variables)


def both(cube: Stack, *, chunk: int = 100, ties: Sequence[str] = ()) -> xr.Dataset:
    """Compute a stack by both engines, and hold them identical save for variables that are all ties."""
    first, second = (load(cube, chunk=chunk).compute() for load in (load_odc, load_stackstac))
    xr.testing.assert_identical(first.drop_vars(ties), second.drop_vars(ties))
    return first


def exact(source: Source, geobox: GeoBox) -> tuple[Pixels, Pixels, Pixels]:
    """Find what nearest means by pyproj alone: pixels (y, x), which are valid, which are away from ties."""
    rows, columns = np.mgrid[: geobox.shape.y, : geobox.shape.x] + 0.5
    to_source = Transformer.from_crs(str(geobox.crs), str(source.geobox.crs), always_xy=True)
    x, y = ~source.geobox.affine @ to_source.transform(*(geobox.affine @ (columns, rows)))
    height, width = source.geobox.shape
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    with rasterio.open(source.href) as file:
        stored = file.read(source.bands[0])
    pixels = stored[np.floor(y).astype(int).clip(0, height - 1), np.floor(x).astype(int).clip(0, width - 1)]
    certain = (np.abs(x - np.rint(x)) > UNCERTAIN) & (np.abs(y - np.rint(y)) > UNCERTAIN)
    return pixels, inside & (pixels != source.nodata) & ~np.isnan(pixels), certain


@pytest.fixture(scope="module")
def zones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Source]:
    """Two rasters of neighbouring UTM zones that overlap, the first with holes, the second without nodata."""
    folder = tmp_path_factory.mktemp("zones")
    holes = smooth(330, 300).astype("uint16")
    holes[40:90, 60:150] = 0
    here = written(folder / "here.tif", holes, GeoBox(holes.shape, NORTH_UP, "EPSG:32633"), nodata=0)
    east, north = Transformer.from_crs(32633, 32632, always_xy=True).transform(502_000, 4_998_500)
    place = Affine(10, 0, round(east, -1) - 1500, 0, -10, round(north, -1) + 1500)
    other = smooth(300, 310, phase=1.0).astype("uint16")
    there = written(folder / "there.tif", other, GeoBox(other.shape, place, "EPSG:32632"))
    return here, there


WIDE = GeoBox((420, 400), Affine(10, 0, 499_600, 0, -10, 5_000_300), "EPSG:32633")  # beyond both, all around


@given(
    top=st.integers(-30, 60),
    left=st.integers(-30, 60),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    chunk=st.integers(16, 100),
    seed=st.integers(0, 99),
)
@settings(max_examples=8)
def test_on_the_files_own_grid_the_first_valid_pixel_wins_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    top: int,
    left: int,
    size: tuple[int, int],
    chunk: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(seed)
    files = random.integers(0, 4, (3, 64, 70), dtype="uint8")  # a quarter of the pixels is nodata
    own = GeoBox((64, 70), NORTH_UP, "EPSG:32633")
    first, second, third = (written(folder / f"{n}.tif", file, own, nodata=0) for n, file in enumerate(files))
    grid = GeoBox(size, NORTH_UP @ Affine.translation(left, top), "EPSG:32633")
    cube = both(stack(grid, variable([[first, second, third], [third, second], []])), chunk=chunk)

    mosaics = [np.zeros((64, 70), "uint8") for _ in range(3)]
    for mosaic, order in zip(mosaics, ([2, 1, 0], [1, 2], []), strict=True):
        for number in order:
            np.copyto(mosaic, files[number], where=files[number] != 0)
    padded = np.pad(np.stack(mosaics), ((0, 0), (150, 150), (150, 150)))
    expected = padded[:, 150 + top : 150 + top + size[0], 150 + left : 150 + left + size[1]]
    np.testing.assert_array_equal(cube.red, expected)
    np.testing.assert_array_equal(cube.valid, expected != 0)


@given(
    code=st.sampled_from(["EPSG:32633", "EPSG:32632", "EPSG:4326", "EPSG:3035", "EPSG:3857", "ESRI:54008"]),
    shift=st.tuples(st.floats(-2e5, 2e5), st.floats(-2e5, 2e5)),
    degrees=st.floats(0, 360),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_bounds_hold_every_pixel_of_a_raster_that_lies_in_the_grid(
    code: str, shift: tuple[float, float], degrees: float, seed: int
) -> None:
    grid = GeoBox((1000, 1000), Affine(100, 0, 450_000, 0, -100, 5_050_000), "EPSG:32633")
    to_code = Transformer.from_crs("EPSG:32633", code, always_xy=True)
    x, y = to_code.transform(500_000 + shift[0], 5_000_000 + shift[1])
    pixel = 0.001 if code == "EPSG:4326" else 100.0
    turned = Affine.translation(x, y) @ Affine.rotation(degrees) @ Affine.scale(pixel, -pixel)
    raster = GeoBox((1500, 1500), turned, code)
    share = np.random.default_rng(seed).random((2, 4000))
    share[:, :2000] = np.rint(share[:, :2000] * [[1], [40]]) / [[1], [40]]  # many on the edge
    x, y = turned @ (share[0] * 1500, share[1] * 1500)
    x, y = to_code.transform(x, y, direction="INVERSE")
    inside = (x > 450_000) & (x < 550_000) & (y > 4_950_000) & (y < 5_050_000)
    bounds = bounds_within(grid, raster)
    if inside.any():
        assert bounds is not None
        left, bottom, right, top = bounds
        rounding = 1e-6
        assert ((x > left - rounding) & (x < right + rounding))[inside].all()
        assert ((y > bottom - rounding) & (y < top + rounding))[inside].all()


def test_bounds_of_a_globe_hold_the_grid_and_of_a_far_raster_nothing() -> None:
    globe = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    assert bounds_within(WIDE, globe) == WIDE.boundingbox.bbox
    assert bounds_within(WIDE, GeoBox((9, 9), Affine(1, 0, 16, 0, -1, 40), "EPSG:4326")) is None


@pytest.mark.parametrize("load", ENGINES)
def test_across_zones_nearest_is_exact_away_from_ties(load: Load, zones: tuple[Source, Source]) -> None:
    steps = [[zones[0], zones[1]], [zones[1], zones[0]], [zones[1]]]
    cube = load(stack(WIDE, variable(steps)), chunk=150).compute()
    for step, order in enumerate(steps):
        expected, valid, certain = np.zeros(WIDE.shape, "uint16"), *np.zeros((2, *WIDE.shape), bool)
        certain[:] = True
        for source in order:
            pixels, there, sure = exact(source, WIDE)
            np.copyto(expected, pixels, where=there & ~valid)
            valid |= there
            certain &= sure | (source.geobox.crs == WIDE.crs)
        assert certain.mean() > 0.5
        assert 0.3 < valid.mean() < 0.95
        np.testing.assert_array_equal(cube.valid[step].values[certain], valid[certain])
        np.testing.assert_array_equal(cube.red[step].values[certain], expected[certain])


@pytest.mark.parametrize("load", ENGINES)
def test_across_zones_bilinear_is_what_gdals_approximation_explains(load: Load, zones: tuple[Source, Source]) -> None:
    there = zones[1]
    cube = load(stack(WIDE, variable([[there]], resampling="bilinear")), chunk=150).compute()
    shape = {"height": WIDE.shape.y, "width": WIDE.shape.x, "transform": WIDE.affine, "crs": str(WIDE.crs)}
    options = {"resampling": Resampling.bilinear, "tolerance": 1e-6, "XSCALE": 1, "YSCALE": 1}
    with rasterio.open(there.href) as file, WarpedVRT(file, **shape, **options) as warped:
        expected = warped.read(1).astype(float)
    _, valid, certain = exact(there, WIDE)
    np.testing.assert_array_equal(cube.valid[0].values[certain], valid[certain])
    inner = valid.copy()  # at the raster's edge half of the neighbours is missing
    for axis in (0, 1):
        inner &= np.roll(valid, 2, axis) & np.roll(valid, -2, axis)
    steepness = sum(np.abs(slope) for slope in np.gradient(expected))
    off = np.abs(cube.red[0].values - expected)
    assert (off <= UNCERTAIN * steepness + 1)[inner].all()
    assert off[inner].mean() < 1


@pytest.mark.parametrize(
    ("crs", "place"),
    [
        ("EPSG:32633", Affine.translation(500_900, 4_999_000) @ Affine.rotation(33) @ Affine.scale(10, -10)),
        ("EPSG:32633", Affine(13, 0, 500_200, 0, 13, 4_996_500)),
        (
            "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs",
            Affine(14, 0, 1_178_500, 0, -14, 5_020_000),
        ),
        ("EPSG:4326", Affine(0.00011, 0, 15.001, 0, -0.00008, 45.153)),
    ],
    ids=["rotated", "bottom-up", "without EPSG code", "geographic"],
)
def test_any_affine_source_grid_is_read_where_it_lies(crs: str, place: Affine, tmp_path: Path) -> None:
    own = GeoBox((280, 300), place, crs)
    source = written(tmp_path / "odd.tif", smooth(280, 300).astype("int16"), own, nodata=-1)
    pixels, valid, certain = exact(source, WIDE)
    assert 0.2 < valid.mean() < 0.9
    for load in (load_odc, load_stackstac):
        cube = load(stack(WIDE, variable([[source]])), chunk=300).compute()
        np.testing.assert_array_equal(cube.valid[0].values[certain], valid[certain])
        np.testing.assert_array_equal(cube.red[0].values[certain & valid], pixels[certain & valid])
        assert (cube.red[0].values[certain & ~valid] == -1).all()


SMALL = GeoBox((60, 70), NORTH_UP, "EPSG:32633")


def test_what_is_not_valid_is_known_however_the_file_says_it(tmp_path: Path) -> None:
    marked = np.arange(4200).reshape(60, 70) % 7 == 0
    pixels = np.where(marked, 9, np.arange(4200).reshape(60, 70) % 5).astype("uint8")  # 0 is a class like others
    stated = dataclasses.replace(written(tmp_path / "stated.tif", pixels, SMALL), nodata=9.0)  # by the item alone
    header = dataclasses.replace(written(tmp_path / "header.tif", pixels, SMALL, nodata=9), nodata=None)
    opaque = np.where(marked, 0, 255).astype("uint8")
    rgba = np.stack([pixels, pixels, pixels, opaque])
    alpha = written(tmp_path / "alpha.tif", rgba, SMALL, photometric="RGB", alpha="yes")
    masked = written(tmp_path / "masked.tif", pixels, SMALL)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked.href, "r+") as file:
        file.write_mask(~marked)
    sidecar = written(tmp_path / "sidecar.tif", pixels, SMALL)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(sidecar.href, "r+") as file:
        file.write_mask(~marked)
    floats = written(tmp_path / "floats.tif", np.where(marked, np.nan, pixels).astype("float32"), SMALL)
    plain = written(tmp_path / "plain.tif", pixels, SMALL)
    grid = GeoBox((80, 90), NORTH_UP @ Affine.translation(-10, -10), "EPSG:32633")
    green = dataclasses.replace(alpha, bands=(2,))
    for source in (stated, header, green, masked, sidecar, floats, plain):
        cube = both(stack(grid, variable([[source]])))
        inside = cube.isel(time=0, y=slice(10, 70), x=slice(10, 80))
        valid = np.full_like(marked, True) if source is plain else ~marked
        np.testing.assert_array_equal(inside.valid, valid)
        assert cube.valid.sum() == valid.sum()  # and nothing outside
        np.testing.assert_array_equal(inside.red.values[valid], pixels[valid])
        assert cube.red.dtype == source.dtype
        if source is floats:
            np.testing.assert_array_equal(np.isnan(cube.red), ~cube.valid)
        else:
            assert (cube.red.values[~cube.valid] == (source.nodata or 0)).all()


def test_valid_is_what_all_variables_and_bands_have(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    cut = random.random((3, 60, 70)) < 0.2
    many = written(tmp_path / "many.tif", np.where(cut, np.nan, random.random((3, 60, 70))).astype("f4"), SMALL)
    classes = written(tmp_path / "classes.tif", random.integers(0, 3, (60, 70), dtype="uint8"), SMALL, nodata=0)
    some = variable([[many], [many]], name="some", labels=("B4", "B2"), dtype=np.dtype("float32"))
    some = dataclasses.replace(some, sources=tuple((dataclasses.replace(many, bands=(3, 1)),) for _ in range(2)))
    scl = variable([[classes], []], name="scl", nodata=255.0)
    cube = both(stack(SMALL, scl, some))
    assert list(cube.data_vars) == ["scl", "some", "valid"]
    assert cube.some.dims == ("time", "band", "y", "x")
    assert cube.band.values.tolist() == ["B4", "B2"]
    with rasterio.open(many.href) as file, rasterio.open(classes.href) as other:
        third, first, scl_pixels = file.read(3), file.read(1), other.read(1)
    valid = ~np.isnan(third) & ~np.isnan(first) & (scl_pixels != 0)
    np.testing.assert_array_equal(cube.valid, [valid, np.zeros_like(valid)])  # the second date has no classes
    np.testing.assert_array_equal(cube.some[0], np.where(valid, [third, first], np.nan))
    np.testing.assert_array_equal(cube.scl, [np.where(scl_pixels == 0, 255, scl_pixels), np.full((60, 70), 255)])


@pytest.mark.parametrize("load", ENGINES)
def test_average_is_the_mean_of_a_block_rounded_half_up(load: Load, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 60_000, (60, 72), dtype="uint16")
    source = written(tmp_path / "fine.tif", pixels, GeoBox((60, 72), NORTH_UP, "EPSG:32633"))
    coarse = GeoBox((20, 24), NORTH_UP @ Affine.scale(3), "EPSG:32633")
    cube = load(stack(coarse, variable([[source]], resampling="average"))).compute()
    np.testing.assert_array_equal(cube.red[0], np.floor(pixels.reshape(20, 3, 24, 3).mean(axis=(1, 3)) + 0.5))
    assert cube.valid.all()


def test_the_layout_reads_nothing_and_its_coordinates_are_the_grids(tmp_path: Path) -> None:
    class Unread(BackendArray):
        def __init__(self, *shape: int) -> None:
            self.shape, self.dtype = shape, np.dtype("uint16")

        def __getitem__(self, key: object) -> Pixels:
            raise AssertionError("read")

    def unread(*shape: int) -> LazilyIndexedArray:
        return LazilyIndexedArray(Unread(*shape))

    grid = GeoBox((40, 50), Affine(0.1, 0, 8.3, 0, -0.3, 50.7), "EPSG:4326")
    one = Variable("one", np.dtype("uint16"), 7.0, "nearest", None, ((), ()))
    ab = dataclasses.replace(one, name="ab", labels=("a", "b"), nodata=None)
    cd = dataclasses.replace(ab, name="cd", labels=("c", "d"))
    arrays = {"one": unread(2, 40, 50), "valid": unread(2, 40, 50), "ab": unread(2, 2, 40, 50)}
    cube = dataset(stack(grid, one, ab, cd), arrays | {"cd": arrays["ab"]}).isel(time=[1])
    assert dict(cube.sizes) == {"time": 1, "y": 40, "x": 50, "ab_band": 2, "cd_band": 2}
    assert dataset(stack(grid, one, ab), arrays).ab.dims == ("time", "band", "y", "x")
    for name, axis in zip(("y", "x"), grid.coordinates.values(), strict=True):
        np.testing.assert_array_equal(cube[name], axis.values, strict=True)
    assert cube.odc.geobox == grid
    assert cube.attrs == {}
    assert (cube.one.attrs, cube.ab.attrs) == ({"nodata": 7.0}, {})
    assert cube.one.encoding["grid_mapping"] == "spatial_ref"
    assert cube.time.dtype == "datetime64[ns]"

    label = written(tmp_path / "label.tif", np.ones((60, 70), "uint8"), SMALL)
    timeless = both(dataclasses.replace(stack(SMALL, variable([[label]])), times=None))
    assert timeless.red.dims == timeless.valid.dims == ("y", "x")
    assert "time" not in timeless.coords
    assert (timeless.red == 1).all()


@pytest.mark.parametrize("load", ENGINES)
def test_hrefs_are_signed_whatever_the_signature_holds(load: Load, tmp_path: Path) -> None:
    source = written(tmp_path / "red.tif?sig=a&b=<c>", np.ones((60, 70), "uint8"), SMALL)

    def sign(item: pystac.Item) -> None:
        assert (item.id, item.collection_id, list(item.assets)) == ("scene", "s2", ["B04"])
        item.assets["B04"].href += "?sig=a&b=<c>"

    signed = dataclasses.replace(
        source, href=str(tmp_path / "red.tif"), item="scene", collection="s2", asset="B04", modifier=sign
    )
    assert load(stack(SMALL, variable([[signed]]))).red.compute().all()


@pytest.mark.parametrize("load", ENGINES)
def test_a_modifier_that_fails_is_a_read_that_failed(load: Load, tmp_path: Path) -> None:
    def sign(item: pystac.Item) -> None:
        raise KeyError("sas")

    source = dataclasses.replace(written(tmp_path / "red.tif", np.ones((60, 70), "uint8"), SMALL), modifier=sign)
    with pytest.raises(ReadError, match=r"asset 'data' \(.*the modifier failed with KeyError"):
        load(stack(SMALL, variable([[source]])))


def test_a_url_is_read_in_ranges_not_downloaded_whole(tmp_path: Path) -> None:
    source = written(tmp_path / "red.tif", np.ones((60, 70), "uint8"), SMALL)
    inline = single_band(source, "https://example.com/red.tif?a=1&b=2", 1, np.dtype("float32"))
    assert ">/vsicurl/https://example.com/red.tif?a=1&amp;b=2</SourceFilename>" in inline
    assert ">/vsis3/bucket/red.tif<" in single_band(source, "s3://bucket/red.tif", 1, np.dtype("float32"))


@pytest.mark.parametrize("load", ENGINES)
def test_a_file_that_cannot_be_read_is_named_when_computed(load: Load, tmp_path: Path) -> None:
    own = GeoBox((300, 300), NORTH_UP, "EPSG:32633")
    cut = written(tmp_path / "cut.tif", smooth(300, 300).astype("uint16"), own)
    Path(cut.href).write_bytes(Path(cut.href).read_bytes()[:12_000])
    gone = dataclasses.replace(cut, item="gone", href=str(tmp_path / "gone.tif"))
    for grid in (own, WIDE.zoom_out(1.3)):  # as it is stored, and resampled
        for source, cause in ((cut, ".*(?i:read error|cannot read)"), (gone, "the file: No such file or directory")):
            text = rf"^item '{source.item}', asset 'data' \({source.href}\) could not be read: {cause}"
            with pytest.raises(ReadError, match=text):
                load(stack(grid, variable([[source]]))).red.compute()


@pytest.mark.parametrize("load", ENGINES)
def test_what_floats_cannot_carry_is_refused(load: Load, tmp_path: Path) -> None:
    source = written(tmp_path / "wide.tif", np.ones((60, 70), "int64"), SMALL)
    with pytest.raises(SourceError, match=r"'red' holds int64.* leave engine= out to read it"):
        load(stack(SMALL, variable([[source]])))
    largest = np.full((60, 70), np.iinfo("uint32").max, "uint32")
    kept = written(tmp_path / "uint32.tif", largest, SMALL)
    np.testing.assert_array_equal(load(stack(SMALL, variable([[kept]]))).red[0], largest)


def test_stackstac_refuses_a_grid_without_epsg_code_and_odc_reads_it(zones: tuple[Source, Source]) -> None:
    albers = GeoBox((40, 40), Affine(30, 0, 0, 0, -30, 0), "+proj=aea +lat_1=40 +lat_2=50 +lat_0=45.14 +lon_0=15")
    cube = stack(albers, variable([[zones[1]]]))
    with pytest.raises(GridError, match=r"EPSG code, and the CRS '.*' has none; write stack.*engine='odc'"):
        load_stackstac(cube)
    assert load_odc(cube).valid.any()


@pytest.mark.parametrize(
    ("load", "engine", "missing"),
    [(load_odc, "by_odc", "odc.stac"), (load_stackstac, "by_stackstac", "stackstac"), (load_odc, "", "dask.array")],
)
def test_a_missing_library_is_named(load: Load, engine: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"geopipes.read.engines.{engine}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"pip install 'geopipes\[dask\]' \(.*{missing}"):
        load(Stack(WIDE, (), ()))


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_the_default_reader_gives_the_same_cube(resampling: str, zones: tuple[Source, Source]) -> None:
    made = variable([[zones[0], zones[1]], [zones[1]]], resampling=resampling)
    edges = slice(0, WIDE.shape.y), slice(0, WIDE.shape.x)
    inner = np.ones((2, *WIDE.shape), bool)
    for source in zones:
        _, valid, certain = exact(source, WIDE)
        near = np.abs(np.gradient(valid.astype(float))).sum(axis=0) > 0  # half the neighbours are missing
        inner &= (certain | (source.geobox.crs == WIDE.crs)) & ~near
    assert inner.mean() > 0.5
    for load in (load_odc, load_stackstac):
        cube = load(stack(WIDE, made), chunk=150).compute()
        for step in (0, 1):
            pixels, valid = (array[0] for array in read_variable(made, step, WIDE, *edges))
            np.testing.assert_array_equal(cube.valid[step].values[inner[step]], valid[inner[step]])
            off = np.abs(cube.red[step].values.astype(float) - pixels)[inner[step]]
            steepest = 600 / 17 + 600 / 23
            assert off.max() <= (0 if resampling == "nearest" else UNCERTAIN * steepest + 1)


@pytest.mark.real
def test_real_sentinel_2_scenes_are_mosaicked_alike(real_data: Path) -> None:
    items = []
    for scene in ("S2B_33TWL_20230813", "S2B_33TWM_20230813", "S2A_33TWL_20230818", "S2A_33TWM_20230818"):
        item = pystac.Item.from_file(real_data / "sentinel2_33T" / f"{scene}_0_L2A.json")
        item.make_asset_hrefs_absolute()
        items.append(item)
    red, scl = ([*band.sources] for band in sources(items, ["red", "scl"]))
    for first, second in ((0, 1), (1, 0)):  # each tile's grid in turn; the other is shifted by half a pixel
        steps = [[first, second], [first + 2, second + 2]]
        grid = red[first].geobox.pad(40)
        cube = both(
            stack(
                grid,
                variable([[red[at] for at in step] for step in steps], resampling="bilinear"),
                variable([[scl[at] for at in step] for step in steps], name="scl"),
            ),
            ties=["scl"],
        )
        for at, step in enumerate(steps):
            valid = np.ones(red[first].geobox.shape, bool)
            for name, source in (("red", red[step[0]]), ("scl", scl[step[0]])):
                with rasterio.open(source.href) as file:
                    stored = file.read(1)
                own = stored != source.nodata
                np.testing.assert_array_equal(cube[name][at, 40:-40, 40:-40].values[own], stored[own])
                valid &= own
            assert valid.mean() > 0.5
            assert cube.valid[at, 40:-40, 40:-40].values[valid].all()
            assert cube.valid[at].sum() > valid.sum()  # the other tile goes on where this one ends
