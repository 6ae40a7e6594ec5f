"""The common grid: kept pixels, minimal extent, any order, exact coordinates, outlines in other CRSs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_zeros

from geopipes import grids
from geopipes.errors import GridError, GridMismatch, ShiftedGrids
from geopipes.read.sources import Source

UTM33 = CRS("EPSG:32633")
UTM34 = CRS("EPSG:32634")
ALBERS = CRS("EPSG:3035")
LONLAT = CRS("EPSG:4326")

RESOLUTIONS = [10.0, 29.90640459139769, 0.30517578125, 1 / 3, 120.0]


def box(
    left: float, top: float, dx: float = 10.0, dy: float | None = None, shape: tuple[int, int] = (100, 120),
    crs: CRS = UTM33,
) -> GeoBox:  # fmt: skip
    return GeoBox(shape, Affine(dx, 0, left, 0, -(dx if dy is None else dy), top), crs)


def source(geobox: GeoBox, item: str = "a", day: int | None = 1) -> Source:
    time = np.datetime64("NaT", "ns") if day is None else np.datetime64(f"2024-05-{day:02}", "ns")
    return Source("a.tif", (1,), geobox, np.dtype("uint16"), 0, item, None, "red", time)


def chosen(sources: Sequence[Source], **options: Any) -> GeoBox:
    ((grid, members),) = grids.choose(sources, **options)
    assert members == tuple(range(len(sources)))
    return grid


def offset(grid: GeoBox, of: GeoBox) -> tuple[float, float]:
    """Where the corner of one grid lies among the pixels of another."""
    return (grid.affine.c - of.affine.c) / of.affine.a, (grid.affine.f - of.affine.f) / of.affine.e


@st.composite
def rasters(draw: st.DrawFn) -> GeoBox:
    dx = draw(st.sampled_from(RESOLUTIONS))
    dy = draw(st.sampled_from([dx, 29.883120236686878]))
    left, top = draw(st.floats(2e5, 8e5)), draw(st.floats(-1e6, 9e6))
    return box(left, top, dx, dy, (draw(st.integers(1, 500)), draw(st.integers(1, 500))))


@st.composite
def bounds_near(draw: st.DrawFn, raster: GeoBox) -> grids.lattices.Bounds:
    left, bottom, right, top = raster.boundingbox
    width, height = right - left, top - bottom
    x = sorted(draw(st.tuples(st.floats(-2, 2), st.floats(-2, 2)).filter(lambda each: each[0] != each[1])))
    y = sorted(draw(st.tuples(st.floats(-2, 2), st.floats(-2, 2)).filter(lambda each: each[0] != each[1])))
    x[1], y[1] = max(x[1], x[0] + 1e-3), max(y[1], y[0] + 1e-3)
    return left + x[0] * width, bottom + y[0] * height, left + x[1] * width, bottom + y[1] * height


@given(rasters())
def test_one_source_without_region_is_its_own_grid(raster: GeoBox) -> None:
    grid = chosen([source(raster)])
    assert grid.shape == raster.shape
    assert (grid.affine.a, grid.affine.e) == (raster.affine.a, raster.affine.e)
    assert max(map(abs, offset(grid, raster))) < 2e-6  # pixels, each of its own axis


@given(st.data(), rasters())
def test_pixels_are_kept_and_the_grid_holds_the_bounds_and_no_more(data: st.DataObject, raster: GeoBox) -> None:
    bounds = data.draw(bounds_near(raster))
    grid = chosen([source(raster)], bounds=bounds)
    assert grid.affine.a == raster.affine.a
    assert grid.affine.e == raster.affine.e
    # Where the source's origin is a multiple of its resolution within 1e-6 px, the grid's is one exactly.
    for at in offset(grid, raster):
        assert abs(at - round(at)) < 2e-6
    outer, dx, dy = grid.boundingbox, raster.affine.a, -raster.affine.e
    slack = 2e-6
    assert 0 - slack <= (bounds[0] - outer.left) / dx < 1 + slack
    assert 0 - slack <= (bounds[1] - outer.bottom) / dy < 1 + slack
    assert 0 - slack <= (outer.right - bounds[2]) / dx < 1 + slack
    assert 0 - slack <= (outer.top - bounds[3]) / dy < 1 + slack


@given(rasters(), st.floats(-5e-7, 5e-7), st.integers(-300, 300))
def test_a_bound_within_a_millionth_of_a_pixel_of_an_edge_is_that_edge(
    raster: GeoBox, error: float, pixels: int
) -> None:
    left, bottom, right, top = raster.boundingbox
    dx, dy = raster.affine.a, -raster.affine.e
    shift = pixels + error
    grid = chosen(
        [source(raster)],
        bounds=(left + shift * dx, bottom - shift * dy, right + shift * dx, top - shift * dy),
    )
    assert grid.shape == raster.shape
    assert tuple(map(round, offset(grid, raster))) == (pixels, pixels)


@given(
    st.lists(
        st.tuples(rasters(), st.sampled_from(["a", "b", "c"]), st.sampled_from([None, 1, 2])),
        min_size=2,
        max_size=4,
    )
)
def test_the_order_of_sources_changes_nothing(found: list[tuple[GeoBox, str, int | None]]) -> None:
    sources = [source(*each) for each in found]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShiftedGrids)
        all_grids = {chosen(list(order)) for order in permutations(sources)}
        assert len(all_grids) == 1
        assert len({chosen(list(order), resolution=20) for order in permutations(sources)}) == 1


def test_the_first_by_time_and_id_gives_the_pixels_and_shifts_are_said() -> None:
    early = source(box(500_005, 5_000_000), "b", 1)
    twin = source(box(500_000, 5_000_000), "c", 1)
    late = source(box(500_002.5, 5_000_000), "a", 2)
    timeless = source(box(500_001, 5_000_000), "0", None)
    message = r"3 of 4 sources lie up to 0\.5 px off the pixels of item 'b'"
    for order in permutations([early, twin, late, timeless]):
        with pytest.warns(ShiftedGrids, match=message):
            grid = chosen(order)
        assert grid.affine.c % 10 == 5


def test_grids_shifted_by_whole_pixels_are_one() -> None:
    assert chosen([source(box(500_000, 5_000_000)), source(box(500_010, 5_000_500))]).shape == (150, 121)


def test_the_finest_resolution_is_kept_though_it_is_not_square() -> None:
    fine = box(703_986.502389, 4_254_601.8671, 29.90640459139769, 29.883120236686878)
    grid = chosen([source(box(703_000, 4_254_000, 60)), source(fine, "b")])
    assert grid.resolution == fine.resolution
    assert max(abs(at - round(at)) for at in offset(grid, fine)) < 1e-9


def test_another_resolution_starts_at_the_first_sources_corner() -> None:
    raster = box(500_005, 5_000_005)
    grid = chosen([source(raster)], resolution=(40, 20))
    assert (grid.affine.a, grid.affine.e) == (20, -40)
    assert (grid.affine.c - 500_005) % 20 == 0
    assert (grid.affine.f - 5_000_005) % 40 == 0
    assert chosen([source(box(500_000, 5_000_000))], resolution=20).affine.c % 20 == 0


def test_in_another_crs_edges_are_multiples_of_the_resolution() -> None:
    raster = box(500_003, 5_000_007)
    grid = chosen([source(raster)], crs="EPSG:3035", resolution=10)
    assert grid.crs == ALBERS
    assert (grid.affine.c % 10, grid.affine.f % 10) == (0, 0)
    outline = grids.extent(raster, ALBERS)
    assert shapely.box(*grid.boundingbox).contains(outline)
    assert shapely.box(*grid.buffered(-10, -10).boundingbox).contains(outline) is False


def test_a_bottom_up_source_gives_a_north_up_grid_on_its_pixels() -> None:
    raster = GeoBox((10, 10), Affine(10, 0, 418_080, 0, 10, 4_423_680), "EPSG:32613")
    grid = chosen([source(raster)])
    assert grid == raster.flipy()


def test_a_rotated_source_is_enclosed() -> None:
    raster = GeoBox((100, 100), Affine(8.66, 5, 5e5, 5, -8.66, 5e6), UTM33)
    grid = chosen([source(raster)])
    assert grid.resolution.xy == pytest.approx((10, -10), rel=1e-4)
    assert shapely.box(*grid.boundingbox).buffer(1e-6).contains(grids.extent(raster, UTM33))


@given(
    st.tuples(st.floats(10, 14), st.floats(40, 44)), st.tuples(st.floats(0.01, 3), st.floats(0.01, 3)),
    st.sampled_from(["EPSG:32633", "EPSG:3035", "EPSG:4326", "EPSG:3857"]),
)  # fmt: skip
def test_the_region_searched_is_inside_the_grid_and_less_than_a_pixel_is_not(
    corner: tuple[float, float], size: tuple[float, float], crs: str
) -> None:
    region = shapely.box(*corner, corner[0] + size[0], corner[1] + size[1])
    step = 1e-4 if crs == "EPSG:4326" else 10.0
    grid = chosen([source(box(500_000, 5_000_000))], crs=crs, resolution=step, region=region)
    # An independent outline, far denser than the one the grid was made from.
    ring = shapely.get_coordinates(shapely.segmentize(region, max(size) / 4_000))
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(ring[:, 0], ring[:, 1])
    outer, slack = grid.boundingbox, 0.01 * step
    assert -slack <= x.min() - outer.left < step + slack
    assert -slack <= outer.right - x.max() < step + slack
    assert -slack <= y.min() - outer.bottom < step + slack
    assert -slack <= outer.top - y.max() < step + slack


def test_a_region_that_the_crs_cannot_show_gives_way_to_the_sources() -> None:
    raster = box(500_000, 5_000_000)
    for globe in (shapely.box(-180, -90, 180, 90), shapely.box(-180, -60, 180, 60)):
        assert chosen([source(raster)], region=globe) == raster


@given(rasters(), st.integers(-1000, 1000), st.integers(0, 1000), st.integers(-1000, 1000), st.integers(0, 1000))
def test_coordinates_equal_odc_geos_to_the_last_bit(raster: GeoBox, r: int, h: int, c: int, w: int) -> None:
    y, x = grids.coordinates(raster)
    expected = raster.coordinates
    np.testing.assert_array_equal(y, expected["y"].values)
    np.testing.assert_array_equal(x, expected["x"].values)
    rows, cols = grids.coordinates(raster, slice(r, r + h), slice(c, c + w))
    assert (rows.size, cols.size) == (h, w)
    inside = range(max(r, 0), min(r + h, raster.shape.y))
    np.testing.assert_array_equal(rows[[i - r for i in inside]], y[list(inside)])
    inside = range(max(c, 0), min(c + w, raster.shape.x))
    np.testing.assert_array_equal(cols[[i - c for i in inside]], x[list(inside)])


@pytest.mark.parametrize(
    ("raster", "crs", "pixel"),
    [
        (box(600_000, 5_100_000, 10, shape=(10980, 10980)), UTM34, 10),
        (box(4_000_000, 3_000_000, 30, shape=(20000, 20000), crs=ALBERS), UTM33, 30),
        (box(4_000_000, 3_000_000, 30, shape=(20000, 20000), crs=ALBERS), LONLAT, 30 / 111_000),
        (box(9.0, 48.0, 0.0003, shape=(20000, 20000), crs=LONLAT), UTM33, 30),
    ],
)
def test_outlines_are_exact_to_a_fraction_of_a_pixel(raster: GeoBox, crs: CRS, pixel: float) -> None:
    own = raster.crs or crs
    edge = shapely.get_coordinates(shapely.segmentize(grids.extent(raster, own), raster.affine.a * 97))
    x, y = pyproj.Transformer.from_crs(own.proj, crs.proj, always_xy=True).transform(*edge.T)
    exact = shapely.Polygon(np.stack([x, y], axis=1))
    assert grids.extent(raster, crs).area == pytest.approx(exact.area, rel=1e-6)
    off = shapely.distance(shapely.points(x, y), shapely.boundary(grids.extent(raster, crs)))
    assert off.max() < 0.03 * pixel


def test_the_globe_is_cut_to_what_utm_can_show() -> None:
    tile = shapely.box(300_000, 4_990_200, 409_800, 5_100_000)
    for left in (-180, 0):
        globe = box(left, 90, 0.5, shape=(360, 720), crs=LONLAT)
        for zone in (UTM33, CRS("EPSG:32601"), CRS("EPSG:32660"), CRS("EPSG:32733")):
            assert grids.extent(globe, zone).contains(tile)


def test_a_raster_beyond_180_degrees_is_whole_in_utm_and_torn_in_longitude() -> None:
    raster = box(570_585, 5_847_615, 100, shape=(2355, 2325), crs=CRS("EPSG:32660"))
    assert grids.extent(raster, CRS("EPSG:32601")).area == pytest.approx(2355 * 2325 * 100**2, rel=0.01)
    with pytest.raises(GridError, match=r"a raster in EPSG:32660 .* has no outline in EPSG:4326: it crosses the 180th"):
        grids.extent(raster, LONLAT)
    pole = box(-1e6, 1e6, 1000, shape=(2000, 2000), crs=CRS("EPSG:3031"))
    with pytest.raises(GridError, match="holds a pole"):
        grids.extent(pole, LONLAT)


def test_utm_gives_a_grid_for_each_zone() -> None:
    west, east = source(box(700_000, 5_000_000)), source(box(300_000, 5_000_000, crs=UTM34))
    label = source(box(15.0, 46.0, 0.01, shape=(300, 1000), crs=LONLAT), "label", None)
    far = source(box(100.0, 46.0, 0.01, crs=LONLAT), "far", None)
    for order in permutations([west, east, label, far]):
        (one, in_one), (other, in_other) = grids.choose(order, crs="utm")
        assert (one, other) == (west.geobox, east.geobox)
        assert {order[index] for index in in_one} == {west, label}
        assert {order[index] for index in in_other} == {east, label}


def test_utm_grids_are_the_region_where_the_zone_has_sources() -> None:
    west, east = source(box(700_000, 5_000_000)), source(box(300_000, 5_000_000, crs=UTM34))
    left, bottom, right, top = shapely.transform(
        shapely.box(*west.geobox.boundingbox).buffer(-100.0),
        lambda xy: np.stack(pyproj.Transformer.from_crs(32633, 4326, always_xy=True).transform(*xy.T), axis=1),
    ).bounds
    ((grid, members),) = grids.choose([west, east], crs="utm", region=shapely.box(left, bottom, right, top))
    assert grid.crs == UTM33
    assert members == (0,)
    assert grid.shape.y < 100
    with pytest.raises(GridError, match="no source touches the region searched in any UTM zone"):
        grids.choose([west, east], crs="utm", region=shapely.box(0, 0, 1, 1))


def test_zones_come_from_the_region_where_no_source_is_in_utm() -> None:
    label = source(box(4_000_000, 3_000_000, 30, shape=(30000, 30000), crs=ALBERS))
    found = grids.choose([label], crs="utm", resolution=10, region=shapely.box(11.9, 47, 12.1, 47.1))
    assert [(str(grid.crs), members) for grid, members in found] == [
        ("EPSG:32632", (0,)),
        ("EPSG:32633", (0,)),
    ]
    assert all(grid.shape.x < 1000 for grid, _ in found)
    inside = grids.choose([label], crs="utm", resolution=10, region=shapely.box(12, 47, 12.1, 47.1))
    assert [str(grid.crs) for grid, _ in inside] == ["EPSG:32633"]
    with pytest.raises(GridError, match=r"no source is in EPSG:3263\d, so that none gives a resolution; write"):
        grids.choose([label], crs="utm")


def test_a_grid_given_is_taken_as_it_is() -> None:
    grid, far = box(1, 2, 3), source(box(500_000, 5_000_000))
    assert chosen([far], geobox=grid) is grid
    assert chosen([far], like=grid) is grid
    assert chosen([], like=grid) is grid
    cube = xr_zeros(grid)
    assert chosen([far], like=cube) == grid
    assert chosen([far], like=cube.to_dataset(name="a")) == grid


NORTH_UP = box(500_000, 5_000_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"geobox": NORTH_UP, "resolution": 10},
            r"geobox= is a whole grid and leaves nothing for resolution=",
        ),
        ({"geobox": NORTH_UP, "like": NORTH_UP}, r"leaves nothing for like=; drop one or the other"),
        ({"geobox": NORTH_UP.flipy()}, r"geobox= is rotated or not north up .*write geobox=GeoBox.from_bbox"),
        ({"geobox": NORTH_UP.rotate(3)}, r"rotated or not north up"),
        ({"like": xr.DataArray([1.0, 2.0], dims="x")}, r"like= has no grid"),
        ({"geobox": GeoBox((2, 2), Affine(1, 0, 0, 0, -1, 0), None)}, r"has no CRS; give it one"),
        (
            {"crs": "utm", "bounds": (0, 0, 1, 1)},
            r"bounds= are in the grid's CRS, and crs='utm' gives several",
        ),
        ({"crs": "EPSG:1"}, r"crs='EPSG:1' is no CRS that PROJ knows; write 'EPSG:32633', say, or 'utm'"),
        (
            {"crs": "EPSG:3035"},
            r"no source is in EPSG:3035, so that none gives a resolution; write resolution=",
        ),
        ({"resolution": 0}, r"resolution=0: one positive number is needed, or a pair \(y, x\)"),
        ({"resolution": (10, float("nan"))}, r"one positive number is needed"),
        ({"bounds": (1, 1, 1, 2)}, r"bounds \(1, 1, 1, 2\) \(left, bottom, right, top\) hold no area"),
        ({"bounds": (2, 1, 1, 2)}, r"hold no area"),
        ({"bounds": (0, 0, float("inf"), 1)}, r"hold no area"),
        (
            {"bounds": (0, 0, 1e12, 10)},
            r"make a grid of 1 x 100000000000 px of 10 x 10 .* in units of EPSG:32633",
        ),
        ({"region": shapely.Point(15, 45)}, r"the region searched is a Point without area .* write bounds="),
    ],
)
def test_what_is_no_grid_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GridError, match=message):
        grids.choose([source(NORTH_UP)], **options)


def test_no_sources_and_several_crss_ask_for_a_choice() -> None:
    with pytest.raises(GridError, match="there are no sources to choose a grid from; pass geobox= or like="):
        grids.choose([])
    sources = [source(NORTH_UP), source(box(3e5, 5e6, crs=UTM34), "b"), source(box(4e5, 5e6, crs=UTM34), "c")]
    message = (
        r"the sources are in 2 CRSs: EPSG:32634 \(2\), EPSG:32633 \(1\)\. Choose one, as "
        r"crs='EPSG:32634', or a grid for each UTM zone, crs='utm'"
    )
    for order in permutations(sources):
        with pytest.raises(GridError, match=message):
            grids.choose(order)


def test_one_crs_written_in_two_ways_is_one() -> None:
    wkt = GeoBox((100, 120), NORTH_UP.affine, rasterio.crs.CRS.from_epsg(32633).to_wkt())
    assert chosen([source(NORTH_UP), source(wkt, "b")]).shape == (100, 120)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            box(500_000, 5_000_000, crs=UTM34),
            r"the label is in EPSG:32634, and EPSG:32633 is needed; put it on that",
        ),
        (box(500_000, 5_000_000, 20), r"the label has pixels of -20 x 20 \(y, x\), and -10 x 10 is needed"),
        (NORTH_UP.flipy(), r"has pixels of 10 x 10 \(y, x\), and -10 x 10 is needed"),
        (NORTH_UP.rotate(1), r"\(y, x\), rotated, and"),
        (box(500_005, 5_000_001), r"is shifted by -0\.1 px in y and 0\.5 px in x"),
        (
            box(500_010, 4_999_980),
            r"same pixels but another extent: 100 x 120 px \(y, x\) from row 2, column 1",
        ),
        (NORTH_UP[:50, :], r"another extent: 50 x 120 px .* of the grid needed, which has 100 x 120"),
    ],
)
def test_grids_that_differ_say_how(other: GeoBox, message: str) -> None:
    with pytest.raises(GridMismatch, match=message):
        grids.check_same(NORTH_UP, other, "the label")


def test_grids_that_are_one_pass() -> None:
    grids.check_same(NORTH_UP, box(500_000 + 1e-6, 5_000_000 - 1e-6), "the label")


@pytest.mark.real
def test_two_real_tiles_half_a_pixel_apart(real_data: Path) -> None:
    boxes = {}
    for tile in ("33TWL", "33TWM"):
        with rasterio.open(real_data / f"sentinel2_33T/S2A_{tile}_20230818_0_L2A/B04.tif") as file:
            boxes[tile] = GeoBox.from_rio(file)
    sources = [source(raster, tile) for tile, raster in boxes.items()]
    for order in (sources, sources[::-1]):
        with pytest.warns(ShiftedGrids, match=r"1 of 2 sources lie up to 0\.5 px off the pixels of item '33TWL'"):
            grid = chosen(order)
        assert offset(grid, boxes["33TWL"]) == (0, -175)
