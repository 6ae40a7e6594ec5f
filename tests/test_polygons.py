"""Polygons of maps: those of the whole raster, whatever the strips; areas on the ellipsoid; files whole or absent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import odc.geo.xr
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odc.geo.geobox import GeoBox
from pyproj import Geod
from rasterio.features import shapes
from shapely.geometry import box, shape

import geopipes as gp
from geopipes.errors import GridMismatch, ReadError, SourceError
from geopipes.maps import area_statistics, polygonize

UTM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2))


def raster(pixels: npt.ArrayLike, crs: str = "EPSG:32633", transform: Affine = UTM, nodata: Any = None) -> xr.DataArray:
    pixels = np.asarray(pixels)
    array: xr.DataArray = odc.geo.xr.wrap_xr(pixels, GeoBox(pixels.shape, transform, crs))
    return array if nodata is None else array.assign_attrs(_FillValue=nodata)


def outlines(frame: gpd.GeoDataFrame) -> list[tuple[int, bytes]]:
    shown = zip(frame["class"], shapely.normalize(frame.geometry.values), strict=True)
    return sorted((int(value), shapely.to_wkb(geometry)) for value, geometry in shown)


def share_no_ground(frame: gpd.GeoDataFrame) -> bool:
    whole = shapely.union_all(frame.geometry.values)
    return bool(frame.is_valid.all()) and bool(np.isclose(whole.area, frame.geometry.area.sum(), rtol=1e-12))


@given(pixels=MAPS, strip=st.integers(1, 13), connectivity=st.sampled_from([4, 8]))
def test_polygons_of_strips_are_those_of_the_whole_raster(
    pixels: npt.NDArray[np.uint8], strip: int, connectivity: Literal[4, 8]
) -> None:
    found = polygonize(raster(pixels), strip=strip, connectivity=connectivity)
    expected = [
        (int(value), shapely.to_wkb(shapely.normalize(shapely.make_valid(shape(geometry)))))
        for geometry, value in shapes(pixels, connectivity=connectivity, transform=UTM)
    ]
    assert outlines(found) == sorted(expected)
    assert share_no_ground(found)
    assert found.area_m2.sum() == pytest.approx(found.attrs["land_m2"], rel=1e-12)


@given(pixels=MAPS, strip=st.integers(1, 13), connectivity=st.sampled_from([4, 8]), simplify=st.floats(0, 60))
def test_simplified_neighbours_keep_their_border(
    pixels: npt.NDArray[np.uint8], strip: int, connectivity: Literal[4, 8], simplify: float
) -> None:
    whole = polygonize(raster(pixels), strip=strip, connectivity=connectivity)
    simple = polygonize(raster(pixels), strip=strip, connectivity=connectivity, simplify=simplify)
    assert share_no_ground(simple)
    assert not simple.is_empty.any()
    assert simple["class"].tolist() == whole["class"].tolist()
    assert simple.area_m2.tolist() == whole.area_m2.tolist()
    assert shapely.coverage_is_valid(simple.geometry.values)


@given(
    pixels=MAPS, strip=st.integers(1, 13), connectivity=st.sampled_from([4, 8]), holes=st.sampled_from([150, 450, 1e9])
)
def test_filled_holes_leave_no_ground_to_two_objects(
    pixels: npt.NDArray[np.uint8], strip: int, connectivity: Literal[4, 8], holes: float
) -> None:
    whole = polygonize(raster(pixels), strip=strip, connectivity=connectivity)
    filled = polygonize(raster(pixels), strip=strip, connectivity=connectivity, holes=holes)
    assert share_no_ground(filled)
    assert filled.area_m2.sum() == pytest.approx(whole.area_m2.sum(), rel=1e-9)
    if connectivity == 4:
        rings = shapely.get_rings(filled.geometry.values)
        inner = len(rings) - len(filled)
        assert inner == sum(polygon.area >= holes * 0.99 for geometry in filled.geometry for polygon in
                            map(shapely.Polygon, geometry.interiors))  # fmt: skip


def test_an_object_over_all_strips_is_one_polygon() -> None:
    pixels = np.zeros((60, 40), np.uint8)
    pixels[:, 3] = pixels[59, 3:30] = pixels[:, 29] = 1  # a U: two arms that meet in the last row
    found = polygonize(raster(pixels, nodata=0), strip=7)
    assert len(found) == 1
    assert found.geometry[0].equals(polygonize(raster(pixels, nodata=0)).geometry[0])
    assert len(found.geometry[0].exterior.coords) == 9  # eight corners: none where strips meet


def test_holes_small_objects_and_nodata() -> None:
    pixels = np.ones((20, 20), np.uint8)
    pixels[5, 5] = 2  # in a hole of one pixel
    pixels[8:12, 8:12] = 0  # nodata
    pixels[:, 15] = 2
    pixels[3, 18] = 2
    land = raster(pixels, nodata=0)
    assert polygonize(land)["class"].tolist() == [1, 2, 1, 2, 2]
    large = polygonize(land, smallest=200)
    assert large["class"].tolist() == [1, 2, 1]
    assert [len(geometry.interiors) for geometry in large.geometry] == [2, 0, 1]
    filled = polygonize(land, smallest=200, holes=1_000)
    assert [len(geometry.interiors) for geometry in filled.geometry] == [1, 0, 0]
    assert filled.geometry.area.tolist() == [(300 - 16) * 100, 2_000, 8_000]
    assert filled.attrs["land_m2"] == pytest.approx(384 * 100, rel=1e-3)
    np.testing.assert_allclose(filled.area_m2, filled.geometry.area, rtol=1e-3)  # UTM's scale: 0.9996


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", Affine(10, 0, 760_000, 0, -10, 6_500_000)),
        ("EPSG:32633", Affine(1_000, 0, 300_000, 0, -1_000, 8_000_000)),
        ("EPSG:4326", Affine(0.05, 0, 8, 0, -0.05, 61)),
        ("EPSG:3857", Affine(30, 0, 1_000_000, 0, -30, 9_000_000)),
        ("EPSG:3031", Affine(500, 0, -10_000, 0, -500, 10_000)),  # the South Pole in the middle
    ],
)
def test_areas_are_those_of_the_ellipsoid(crs: str, transform: Affine) -> None:
    pixels = np.zeros((40, 40), np.uint8)
    pixels[5:35, 3:20] = 1
    found = polygonize(raster(pixels, crs, transform), classes=[1])
    dense = gpd.GeoSeries(shapely.segmentize(found.geometry.values, abs(transform.a)), crs=crs).to_crs(4326)
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(dense[0])
    assert found.area_m2[0] == pytest.approx(abs(area), rel=2e-5)


def test_areas_do_not_depend_on_strips() -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (150, 90)).astype(np.uint8)
    land = raster(pixels, "EPSG:4326", Affine(0.01, 0, 179, 0, -0.01, 66))
    once, often = polygonize(land), polygonize(land, strip=11)
    np.testing.assert_allclose(once.area_m2, often.area_m2, rtol=1e-12)


def test_thresholds_and_mean_probability() -> None:
    probability = np.array([[0.9, 0.7, 0.1], [0.2, np.nan, 0.1], [0.5, 0.3, 0.6]], np.float32)
    found = polygonize(raster(probability), threshold=0.5)
    assert found.probability.tolist() == pytest.approx([0.8, 0.5, 0.6])
    assert found["class"].tolist() == [1, 1, 1]
    assert found.attrs["land_m2"] == pytest.approx(800, rel=1e-2)
    classes = raster(np.array([[1, 1, 2], [1, 1, 2], [1, 2, 2]], np.uint8))
    named = polygonize(classes, classes={1: "crop", 2: "water"}, probability=raster(probability), strip=2)
    assert named.name.tolist() == ["crop", "water"]
    assert named.probability.tolist() == pytest.approx([(0.9 + 0.7 + 0.2 + 0.5) / 4, (0.1 + 0.1 + 0.3 + 0.6) / 4])
    assert polygonize(classes, classes=[2], probability=raster(probability))["class"].tolist() == [2]


def test_files_items_and_arrays_give_the_same(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4, (70, 50)).astype(np.int16)
    path = tmp_path / "map.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=70, width=50, count=2, dtype="int16", crs="EPSG:32633", transform=UTM,
        nodata=3, tiled=True, blockxsize=16, blockysize=16,
    ) as file:  # fmt: skip
        file.write(np.stack([pixels, pixels * 10]))
    expected = outlines(polygonize(raster(pixels, nodata=3), strip=9))
    assert outlines(polygonize(path)) == expected
    assert outlines(polygonize(gp.rasters(str(path)), strip=5)) == expected
    assert outlines(polygonize(next(iter(gp.rasters(str(path)))))) == expected
    assert str(polygonize(path).crs) == str(polygonize(raster(pixels)).crs) == "EPSG:32633"
    weighed = polygonize(path, probability=2)
    np.testing.assert_allclose(weighed.probability, weighed["class"] * 10)


def test_an_empty_map_gives_an_empty_frame(tmp_path: Path) -> None:
    for suffix in ("parquet", "geojson", "fgb"):
        path = tmp_path / f"none.{suffix}"
        found = polygonize(raster(np.zeros((5, 5), np.uint8)), path, classes={7: "x"}, simplify=1, holes=100)
        assert len(found) == 0
        assert found.columns.tolist() == ["class", "name", "area_m2", "geometry"]
        assert len(gp.vectors(path)) == 0


@pytest.mark.parametrize("suffix", ["parquet", "geojson", "fgb"])
def test_written_polygons_are_those_given(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 3, (20, 20)).astype(np.uint8)
    path = tmp_path / "deep" / f"fields.{suffix}"
    found = polygonize(raster(pixels), path, classes={1: "crop", 2: "water"})
    kept = gp.vectors(path)
    assert kept.crs == ("EPSG:4326" if suffix == "geojson" else "EPSG:32633")
    if suffix == "fgb":  # which lays features along a curve
        kept, found = (frame.sort_values(["area_m2", "class"]).reset_index(drop=True) for frame in (kept, found))
    assert sorted(kept.name) == sorted(found.name)
    np.testing.assert_allclose(kept.area_m2, found.area_m2)
    assert kept.to_crs(32633).geometry.area.sum() == pytest.approx(found.geometry.area.sum(), rel=1e-4)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    polygonize(raster(pixels), path, classes=[1])
    assert (gp.vectors(path)["class"] == 1).all()


def test_geojson_is_cut_at_the_antimeridian(tmp_path: Path) -> None:
    east = Affine(1_000, 0, 480_000, 0, -1_000, 1_000_000)
    polygonize(raster(np.ones((5, 400), np.uint8), "EPSG:32660", east), tmp_path / "date.geojson")
    geometry = json.loads((tmp_path / "date.geojson").read_text())["features"][0]["geometry"]
    assert geometry["type"] == "MultiPolygon"
    west, east_part = sorted(shapely.get_parts(shape(geometry)), key=lambda part: part.bounds[0])
    assert (west.bounds[0], east_part.bounds[2]) == (-180, 180)
    assert east_part.exterior.is_ccw


def test_area_statistics() -> None:
    pixels = np.full((10, 10), 9, np.uint8)
    pixels[0:2, 0:5] = pixels[4, 0] = 1
    pixels[6:, 6:] = 2
    pixels[:, 9] = 255
    found = polygonize(raster(pixels, nodata=255), classes={1: "crop", 2: "water"})
    table = area_statistics(found)
    assert table.index.tolist() == [1, 2]
    assert table.name.tolist() == ["crop", "water"]
    assert table["count"].tolist() == [2, 1]
    np.testing.assert_allclose(table.share, [11 / 90, 12 / 90], rtol=1e-5)
    np.testing.assert_allclose(table.area_ha * 10_000, table.area_m2)
    np.testing.assert_allclose(table.mean_m2, [550, 1_200], rtol=2e-3)
    np.testing.assert_allclose(table.median_m2, [550, 1_200], rtol=2e-3)
    assert area_statistics(found, land_m2=1e6).share.tolist() == (table.area_m2 / 1e6).tolist()
    loose = found.copy()
    loose.attrs.clear()
    with pytest.raises(SourceError, match="land_m2="):
        area_statistics(loose)
    with pytest.raises(SourceError, match="area_m2"):
        area_statistics(gpd.GeoDataFrame({"class": [1]}, geometry=[box(0, 0, 1, 1)], crs=32633), land_m2=1)


def test_bad_input_is_named(tmp_path: Path) -> None:
    floats, classes = raster(np.ones((4, 4), np.float32)), raster(np.ones((4, 4), np.uint8))
    for options, words in [
        ({}, "float32, which is no class; write threshold="),
        ({"threshold": 0.5, "classes": [1]}, "give one of them"),
        ({"classes": [0.5]}, "whole numbers"),
        ({"classes": []}, "whole numbers"),
        ({"threshold": 0.5, "connectivity": 6}, "write 4 or 8"),
        ({"threshold": 0.5, "smallest": -1}, "0 or more"),
        ({"threshold": 0.5, "strip": 0}, "at least 1"),
        ({"threshold": 0.5, "band": 2}, "no layer 2"),
        ({"threshold": 0.5, "path": tmp_path / "fields.shp"}, r"\.parquet.*\.geojson.*\.fgb"),
    ]:
        with pytest.raises(SourceError, match=words):
            polygonize(floats, **options)  # type: ignore[arg-type]
    with pytest.raises(GridMismatch, match="write both on one grid"):
        polygonize(classes, probability=raster(np.ones((5, 4), np.float32)))
    with pytest.raises(SourceError, match="assign_crs"):
        polygonize(xr.DataArray(np.ones((4, 4), np.uint8), dims=("y", "x")))
    with pytest.raises(SourceError, match="found is int"):
        polygonize(3)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="found are 0"):
        polygonize([])
    with pytest.raises(ReadError):
        polygonize(tmp_path / "missing.tif")


FULL_DISK = """
import resource, signal, sys
import geopandas as gpd, numpy as np, shapely
from pathlib import Path
from geopipes.errors import SourceError
from geopipes.maps.vectors import write_vectors

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that grows too large is an error then, as a full disk is
x = np.arange(200)
boxes = gpd.GeoDataFrame({"class": x}, geometry=shapely.box(x, 0, x + 1, 1), crs=32633)
for suffix in ("parquet", "geojson", "fgb"):
    place = Path(sys.argv[1]) / f"boxes.{suffix}"
    size = write_vectors(boxes, place).stat().st_size
    place.unlink()
    for missing in (1, 20, 500, size - 10):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, resource.RLIM_INFINITY))
        try:
            write_vectors(boxes, place)
        except SourceError as error:
            print("refused", error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a file's size are those of POSIX")
def test_a_full_disk_is_an_error_up_to_the_last_byte(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.count("refused") == 12
    assert "too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fields.parquet"
    path.write_text("what was there")

    def full(self: gpd.GeoDataFrame, draft: Path) -> None:
        Path(draft).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gpd.GeoDataFrame, "to_parquet", full)
    with pytest.raises(SourceError, match="No space left"):
        polygonize(raster(np.ones((4, 4), np.uint8)), path)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [(path.name, "what was there")]


@pytest.mark.real
def test_polygons_of_real_labels_are_those_that_were_drawn(real_data: Path) -> None:
    """Elkton's labels, drawn as polygons and burnt onto 30 m pixels: back, to the width of a pixel's edge."""
    folder = real_data / "landsat8_elkton"
    found = polygonize(folder / "L8-Labels-Elkton-VA.tiff", strip=10)
    drawn = gp.vectors(folder / "L8-Labels-Elkton-VA.geojson").to_crs(found.crs)
    assert found["class"].tolist() == drawn.id.tolist()
    off = found.geometry.symmetric_difference(drawn.geometry, align=False).area
    assert (off <= drawn.geometry.length * 30 / 2).all()
    dense = gpd.GeoSeries(shapely.segmentize(drawn.geometry.values, 30), crs=found.crs).to_crs(4326)
    areas = [abs(Geod(ellps="WGS84").geometry_area_perimeter(polygon)[0]) for polygon in dense]
    np.testing.assert_allclose(found.area_m2, areas, rtol=0.03)
    planar = found.geometry.area / found.area_m2  # 206 km from the central meridian: 0.9996 ^ 2 and a little more
    np.testing.assert_allclose(planar, 1.00024, atol=5e-5)
