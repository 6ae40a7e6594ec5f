"""Windows drawn at random, around points, inside polygons, from tables: where they lie and how likely each was."""

from __future__ import annotations

from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

import geopipes as gp
from geopipes import chips, datacubes
from geopipes.chips.drawing import draw, inside
from geopipes.chips.fields import fields
from geopipes.chips.pointing import around, at
from geopipes.chips.windows import boxes
from geopipes.datacubes import Cubes
from geopipes.datacubes.stackcube import StackCube
from geopipes.errors import ChipError, ChipTooLarge, GridMismatch
from geopipes.read.sources import Source, Stack, Variable
from geopipes.testing import Synthetic

Counts = npt.NDArray[np.int64]

CHI_SQUARE_SIGMAS = 4.9
"""A chi-square of many cells is nearly normal, with variance 2 x cells: 4.9 standard deviations are passed once in a
million runs; seeds are fixed, so a test that passes goes on passing."""


def cube_of(grid: GeoBox, rasters: list[GeoBox], days: list[str] | None = None) -> Cubes:
    """Make a cube of rasters without files, all of them at each date."""
    uint8 = np.dtype("uint8")
    times = tuple(np.datetime64(day, "ns") for day in days or ["2024-05-01"])
    steps = tuple(
        tuple(Source(f"{t}{k}.tif", (1,), box, uint8, None, f"{t}{k}", None, "v", t) for k, box in enumerate(rasters))
        for t in times
    )
    return Cubes([StackCube(Stack(grid, times, (Variable("v", uint8, None, "nearest", None, steps),)))])


def grid(height: int, width: int, *, left: float = 5e5, top: float = 5e6, crs: str = "EPSG:32632") -> GeoBox:
    return GeoBox((height, width), Affine(10, 0, left, 0, -10, top), crs)


def ell(days: list[str] | None = None) -> Cubes:
    """Make a cube of 120 x 160 px whose lower right part, 60 x 100 px, no raster covers."""
    return cube_of(grid(120, 160), [grid(60, 160), grid(120, 60)], days)


def expected(height: int, width: int, size: int) -> npt.NDArray[np.bool_]:
    """Say where windows of the cube above can begin."""
    row, col = np.mgrid[: height - size + 1, : width - size + 1]
    ok: npt.NDArray[np.bool_] = (row + size <= 60) | (col + size <= 60)
    return ok


def too_even_or_uneven(counts: npt.NDArray[Any], means: npt.NDArray[Any]) -> bool:
    """Say whether counts are hardly those of independent draws with these means (of at least 5)."""
    statistic = float(((counts - means) ** 2 / means).sum())
    return bool(abs(statistic - counts.size) > CHI_SQUARE_SIGMAS * (2 * counts.size) ** 0.5)


def test_every_position_that_fits_is_as_likely_and_no_other_is_drawn() -> None:
    ok = expected(120, 160, 32)
    windows = draw(ell(), 32, n=20 * int(ok.sum()), seed=0)
    counts = np.zeros(ok.shape, np.int64)
    np.add.at(counts, (windows.row, windows.col), 1)
    assert counts[~ok].sum() == 0
    assert not too_even_or_uneven(counts[ok], np.full(int(ok.sum()), len(windows) / ok.sum()))


@pytest.mark.parametrize("asked", [{"n": 40}, {"density": 40.0}], ids=["n", "density"])
def test_probabilities_reweight_to_unbiased_estimates(asked: dict[str, Any]) -> None:
    cubes, ok = ell(["2024-05-01", "2024-05-11"]), expected(120, 160, 32)
    value = np.add.outer(np.arange(ok.shape[0]) ** 2, np.arange(ok.shape[1])).astype(float)
    truth = 2 * np.array([ok.sum(), value[ok].sum()])  # each place on two dates
    estimates = []
    for seed in range(600):
        windows = draw(cubes, 32, seed=seed, time=1, **asked)
        weight = 1 / windows.columns["probability"]
        estimates.append((weight.sum(), (weight * value[windows.row, windows.col]).sum()))
    error = np.std(estimates, axis=0) / len(estimates) ** 0.5
    # 5 standard errors: passed by chance in less than one of a million runs.
    assert (np.abs(np.mean(estimates, axis=0) - truth) < 5 * error).all()
    assert (error < 0.02 * truth).all()


def test_ground_counts_and_not_degrees() -> None:
    box = GeoBox((600, 100), Affine(0.1, 0, 0, 0, -0.1, 65), "EPSG:4326")  # 65 N to 5 N
    windows = draw(cube_of(box, [box]), 2, n=50_000, seed=1)
    middle = 65 - 0.1 * (windows.row + 1)
    bands = np.histogram(middle, np.arange(6, 65, 2.0))[0]
    geod = pyproj.Geod(ellps="WGS84")
    edges = np.arange(6, 65, 2.0)
    rows = [shapely.box(0, south, 10, south + 2) for south in edges[:-1]]
    areas = np.array([abs(geod.geometry_area_perimeter(shapely.segmentize(row, 0.1))[0]) for row in rows])
    assert not too_even_or_uneven(bands, bands.sum() * areas / areas.sum())


def test_places_of_two_zones_count_once(land: Synthetic) -> None:
    cubes = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day")._value.get()
    windows = draw(cubes, 16, n=6000, seed=0)
    merged = chips.chip(cubes, 16, coverage="any")
    assert len(windows) == 6000
    assert len(set(windows.cube)) == 2
    for zone, cube in enumerate(cubes.cubes):
        own = boxes(windows, windows.cube == zone)
        assert shapely.covers(cube.footprint, own).all()
        to = pyproj.Transformer.from_crs(cube.crs.to_wkt(), 4326, always_xy=True)
        lon, _ = to.transform(shapely.get_x(shapely.centroid(own)), shapely.get_y(shapely.centroid(own)))
        assert ((lon < -96) == (cube.crs.proj.utm_zone == "14N")).all()
    # As many for the area on both sides of the border; the grid's chips say how large each is, within a tenth.
    shares = [np.bincount(plan.cube, minlength=2) / len(plan) for plan in (windows, merged)]
    assert abs(shares[0][0] - shares[1][0]) < 0.1


def test_a_density_is_met_and_its_probability_is_known() -> None:
    windows = draw(ell(), 32, density=2e4, seed=3)  # a pixel is 1e-4 km², so two for each position
    expectation = 2 * expected(120, 160, 32).sum()
    assert abs(len(windows) - expectation) < 5 * expectation**0.5
    np.testing.assert_allclose(windows.columns["probability"], 2, rtol=2e-3)  # UTM's pixels are not quite 100 m²


def test_a_region_holds_the_windows_in_any_crs() -> None:
    corner = shapely.box(5e5 + 100, 5e6 - 900, 5e5 + 700, 5e6 - 200)  # columns 10..70, rows 20..90
    frame = geopandas.GeoDataFrame(geometry=[corner], crs="EPSG:32632")
    windows = draw(ell(), 20, n=3000, seed=0, region=frame)
    assert windows.row.min() == 20
    assert windows.col.min() == 10
    assert windows.row.max() + 20 <= 90
    assert windows.col.max() + 20 <= 70
    degrees = frame.to_crs(4326)
    again = draw(ell(), 20, n=300, seed=0, region=degrees.geometry.iloc[0])
    assert shapely.covers(corner.buffer(0.1), boxes(again, np.ones(300, bool))).all()
    halves = [shapely.box(5e5, 5e6 - 1200, 5e5 + 300, 5e6), shapely.box(5e5 + 300, 5e6 - 1200, 5e5 + 600, 5e6)]
    both = draw(ell(), 40, n=10, seed=0, region=geopandas.GeoSeries(halves, crs="EPSG:32632"))
    assert len(both) == 10  # of two polygons that touch


def test_the_same_seed_gives_the_same_windows() -> None:
    one, two, other = (draw(ell(["2024-05-01", "2024-05-11"]), 20, n=50, seed=seed, time=1) for seed in (1, 1, 2))
    for name in ("cube", "time", "row", "col"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert (one.row != other.row).any()
    np.testing.assert_array_equal(one.ids, np.arange(50))
    assert {*one.time} == {0, 1}


def test_dates_of_a_period() -> None:
    cubes = ell(["2024-04-01", "2024-05-01", "2024-05-31", "2024-06-01"])
    assert {*draw(cubes, 20, n=99, seed=0, time=1, period=("2024-05", "2024-05")).time} == {1, 2}
    every = draw(cubes, 20, n=9, seed=0, period=("2024-05-02", "2024-06"))
    assert every.dates == 2
    assert {*every.time} == {2}
    assert draw(cubes, 20, n=9, seed=0).dates is None
    with pytest.raises(ChipError, match=r"\[0\] dates in it"):
        draw(cubes, 20, n=9, seed=0, time=1, period=("2023", "2023"))
    with pytest.raises(ChipTooLarge, match="the cube has 4 dates"):
        draw(cubes, 20, n=9, seed=0, time=5)


def test_sizes_in_units_of_the_crs() -> None:
    assert draw(ell(), (200, 300), units="crs", n=5, seed=0).size == (20, 30)
    with pytest.raises(ChipError, match=r"20\.5 x 20\.5 px of 10 x 10"):
        draw(ell(), 205, units="crs", n=5, seed=0)


def test_windows_of_several_inputs_cut_no_pixel(land: Synthetic) -> None:
    items = gp.items(land.items)
    options: dict[str, Any] = {"crs": "EPSG:32615", "groupby": "solar_day"}
    s2, scl = (items.stack([b], resolution=r, **options)._value.get() for b, r in (("red", 10), ("scl", 20)))
    both = datacubes.inputs({"s2": s2, "scl": scl})
    assert {*draw(both, 8, n=200, seed=0).row % 2} == {0}
    assert fields(both, (8, 8), "draw()", margin=0, time=None)[0][0].stride == (2, 2)
    with pytest.raises(GridMismatch, match="use multiples of 2"):
        draw(both, 9, n=1, seed=0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "one of n= .* and density="),
        ({"n": 5, "density": 1.0}, "one of n= .* and density="),
        ({"n": 0}, "above 0"),
        ({"n": 5, "region": shapely.box(20, 20, 21, 21)}, "the region misses the data"),
        ({"n": 5, "size": 130}, "use a smaller size"),
        ({"n": 5, "coverage": "half"}, "use 'full' or 'any'"),
        ({"density": 1e-9}, "0 of 0 random windows fit"),
        ({"n": 5, "margin": -1}, "margin at least 0"),
        ({"n": 5, "units": "m"}, "use 'px' or 'crs'"),
    ],
)
def test_what_cannot_be_drawn(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ChipError, match=text):
        draw(ell(), **{"size": 20, "seed": 0, **options})


def test_where_windows_hardly_fit_it_is_said() -> None:
    thin = shapely.Polygon([(5e5, 5e6), (5e5 + 1, 5e6), (5e5 + 1600, 5e6 - 1199), (5e5 + 1600, 5e6 - 1200)])
    with pytest.raises(ChipError, match=r"0 of .* random windows fit"):
        draw(ell(), 20, n=1, seed=0, region=geopandas.GeoSeries([thin], crs="EPSG:32632"))


# Inside polygons.


def polygons() -> geopandas.GeoDataFrame:
    shapes = [shapely.box(5e5 + 200, 5e6 - 400, 5e5 + 400, 5e6 - 200), shapely.Point(5e5 + 900, 5e6 - 300).buffer(150)]
    frame = geopandas.GeoDataFrame({"crop": ["maize", "wheat"], "id": [7, 8]}, geometry=shapes, crs="EPSG:32632")
    return frame.set_index(np.array([70, 80]))


def test_centres_lie_inside_polygons_uniformly_over_their_area() -> None:
    frame = polygons()
    windows = inside(ell(), frame.to_crs(4326), 16, n=4000, seed=0)
    assert {*windows.columns} == {"polygon", "crop", "polygon_id", "probability"}
    centres = shapely.centroid(boxes(windows, np.ones(len(windows), bool)))
    owner = windows.columns["polygon"]
    for label, row in frame.iterrows():
        mine = owner == label
        assert shapely.covers(row.geometry.buffer(0.2), centres[mine]).all()
        assert {*windows.columns["crop"][mine]} == {row.crop}
        share = row.geometry.area / frame.area.sum()
        assert abs(mine.mean() - share) < 5 * (share * (1 - share) / len(windows)) ** 0.5 + 0.01  # 5 sigmas, and pixels
    # Each weight stands for the pixels of the polygons.
    assert (1 / windows.columns["probability"]).sum() == pytest.approx(frame.area.sum() / 100, rel=0.05)


def test_polygons_off_the_data_are_refused() -> None:
    away = polygons().set_geometry(polygons().translate(0, 9e4))
    with pytest.raises(ChipError, match="no polygon meets the data"):
        inside(ell(), away, 16, n=10, seed=0)
    with pytest.raises(ChipError, match=r"set_crs\('EPSG:4326'\)"):
        inside(ell(), polygons().set_crs(None, allow_override=True), 16, n=10, seed=0)


# Around points, and tables.


def points() -> geopandas.GeoDataFrame:
    x, y = 5e5 + np.array([205, 503, 1300.0]), 5e6 - np.array([205, 1003, 1003.0])
    day = np.array(["2024-05-02", "2024-05-28", "2024-05-01"], "M8[ns]")
    frame = geopandas.GeoDataFrame({"crop": [1, 2, 3], "day": day}, geometry=shapely.points(x, y), crs="EPSG:32632")
    return frame.set_index(np.array(["a", "b", "c"]))


def test_a_window_around_each_point() -> None:
    windows = around(ell(), points()[:2].to_crs(3857), 9)
    np.testing.assert_array_equal(windows.row, [16, 96])  # of the pixels 20 and 100
    np.testing.assert_array_equal(windows.col, [16, 46])
    assert [*windows.columns["point"]] == ["a", "b"]
    assert [*windows.columns["crop"]] == [1, 2]
    with pytest.raises(ChipError, match=r"without a window within the data: 1 of 3.* in EPSG:32632; .*'leave out'"):
        around(ell(), points().set_crs(points().crs.to_wkt(), allow_override=True), 9)
    some = around(ell(), points(), 9, outside="leave out")
    assert (len(some), some.left_out) == (2, 1)
    assert len(around(ell(), points(), 9, coverage="any")) == 3
    with pytest.raises(ChipError, match="other shapes than points"):
        around(ell(), polygons(), 9)


def test_dates_of_points() -> None:
    cubes = ell(["2024-05-01", "2024-05-11", "2024-05-21", "2024-05-31"])
    product = around(cubes, points()[:2], 9, time=2)
    np.testing.assert_array_equal(product.time, [0, 2, 0, 2])
    assert [*product.columns["point"]] == ["a", "a", "b", "b"]
    np.testing.assert_array_equal(around(cubes, points()[:2], 9, time=1, when="day").time, [0, 3])
    np.testing.assert_array_equal(around(cubes, points()[:2], 9, time=2, when="day").time, [0, 2])
    with pytest.raises(ChipError, match="needs time="):
        around(cubes, points(), 9, when="day")


def test_a_point_in_two_zones_has_one_window(land: Synthetic) -> None:
    cubes = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day")._value.get()
    west, south, east, north = land.bbox
    lon = np.linspace(west, east, 50)
    frame = geopandas.GeoSeries(shapely.points(lon, (south + north) / 2), crs=4326)
    windows = around(cubes, frame, 8, outside="leave out")
    assert len(windows) + windows.left_out == 50
    assert len({*windows.columns["point"]}) == len(windows) > 30
    zone = np.array([cube.crs.proj.utm_zone == "14N" for cube in cubes.cubes])[windows.cube]
    np.testing.assert_array_equal(zone, lon[windows.columns["point"]] < -96)


def test_windows_made_before_come_back() -> None:
    cubes = ell(["2024-05-01", "2024-05-11"])
    plan = draw(cubes, 12, n=30, seed=0, time=1).take([3, 1, 2])
    frame = xr.Dataset({name: ("i", getattr(plan, name)) for name in ("cube", "time", "row", "col")}).to_dataframe()
    frame["id"], frame["note"] = plan.ids, ["x", "y", "z"]
    again = at(cubes, frame, 12, time=1)
    for name in ("ids", "cube", "time", "row", "col"):
        np.testing.assert_array_equal(getattr(again, name), getattr(plan, name))
    assert [*again.columns["note"]] == ["x", "y", "z"]
    footprints = geopandas.GeoDataFrame({"id": plan.ids}, geometry=boxes(plan, np.ones(3, bool)), crs="EPSG:32632")
    back = at(cubes, footprints.to_crs(4326), 12)
    np.testing.assert_array_equal(back.row, plan.row)
    np.testing.assert_array_equal(back.col, plan.col)
    np.testing.assert_array_equal(back.ids, plan.ids)
    with pytest.raises(ChipError, match="area of a window of 8 x 8 px"):
        at(cubes, footprints, 8)
    with pytest.raises(ChipError, match=r"1 of 3 windows lie off the 1 cubes, the first in line 0.*row 500"):
        at(cubes, frame.assign(row=[500, 1, 2]), 12, time=1)
    with pytest.raises(ChipError, match="whole numbers are needed"):
        at(cubes, frame.assign(row=[0.5, 1, 2]), 12, time=1)
    with pytest.raises(ChipError, match="more than once"):
        at(cubes, frame.assign(id=1), 12, time=1)
