"""Items from files that no catalogue knows."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from shapely.geometry import Point, box, shape

from geopipes.catalogs import items, rasters, vectors
from geopipes.errors import CatalogError, EmptySearch, NotGeoreferenced, ReadError
from geopipes.read.headers import sources

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(name: str, *, count: int = 1, left: float = 500_000, size: float = 10, **profile: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptions = profile.pop("descriptions", ())
        whole = {
            "driver": "GTiff", "count": count, "height": 20, "width": 30, "dtype": "uint16",
            "crs": "EPSG:32633", "transform": Affine(size, 0, left, 0, -size, 5_000_000), **profile,
        }  # fmt: skip
        with rasterio.open(path, "w", **whole) as file:
            file.write(np.ones((count, 20, 30), whole["dtype"]))
            for number, text in enumerate(descriptions, 1):
                file.set_band_description(number, text)
        return path

    return make


def test_files_alike_but_for_the_band_are_one_item(make: Make, tmp_path: Path) -> None:
    for date in ("20180131", "20180405"):
        for band, size in (("B4", 30), ("B8", 15)):
            make(f"LC08_013032_{date}_{band}.TIF", size=size, nodata=0)
    found = rasters(tmp_path / "*.TIF", pattern=r"_(?P<date>\d{8})_(?P<band>B\d+)\.TIF", collection="l8")
    assert [each.id for each in found] == ["LC08_013032_20180131", "LC08_013032_20180405"]
    assert found[0].datetime == dt.datetime(2018, 1, 31, tzinfo=dt.UTC)
    assert [each.collection_id for each in found] == ["l8", "l8"]
    assert list(found[0].assets) == ["B4", "B8"]
    asset = found[1].assets["B8"]
    assert asset.href == str(tmp_path / "LC08_013032_20180405_B8.TIF")
    assert asset.extra_fields["proj:code"] == "EPSG:32633"
    assert asset.extra_fields["proj:shape"] == [20, 30]
    assert asset.extra_fields["proj:transform"] == [15, 0, 500_000, 0, -15, 5_000_000]
    assert asset.extra_fields["raster:bands"] == [{"name": "b1", "data_type": "uint16", "nodata": 0}]
    # The larger of the two bands, in degrees.
    assert shape(found[0].geometry or {}).area == pytest.approx(600 * 900 / 78_850 / 111_130, rel=1e-2)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "complex64"])
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:5070", "+proj=sinu +R=6371007.181 +units=m"])
def test_items_state_what_the_headers_say(make: Make, dtype: str, crs: str) -> None:
    nodata = float("nan") if dtype == "float32" else None
    path = make("x.tif", count=3, dtype=dtype, crs=crs, left=1_000_000, nodata=nodata)
    found = rasters(path)
    stated, opened = (sources(found, ["data"], headers=headers)[0].sources[0] for headers in ("item", "file"))
    assert stated.geobox == opened.geobox
    assert stated.dtype == opened.dtype
    assert stated.bands == opened.bands
    np.testing.assert_equal(stated.nodata, opened.nodata)
    again = items([each.to_dict() for each in found])
    assert [each.to_dict() for each in again] == [each.to_dict() for each in found]


def test_bands_are_named_by_the_user_or_the_file_or_their_number(make: Make) -> None:
    def named(path: Path, **options: Any) -> list[str]:
        (found,) = rasters(path, **options)
        return [band["name"] for band in found.assets["data"].extra_fields["raster:bands"]]

    described = make("described.tif", count=2, descriptions=["red", "nir"])
    assert named(described) == ["red", "nir"]
    assert named(described, bands=["one", "two"]) == ["one", "two"]
    assert named(make("half.tif", count=2, descriptions=["red"])) == ["b1", "b2"]
    with pytest.raises(CatalogError, match=r"bands=\['one'\].*described\.tif has 2 bands, not 1"):
        rasters(described, bands=["one"])


def test_dates_come_from_a_function_too(make: Make) -> None:
    paths = [make("2024-05-01/red.tif"), make("2024-06-01/red.tif")]

    def folder(path: str) -> str:
        return os.path.basename(os.path.dirname(path))

    found = rasters(paths, datetime=folder)
    assert [each.id for each in found] == ["2024-05-01/red", "2024-06-01/red"], "ids differ by their folders"
    assert [each.datetime and each.datetime.month for each in found] == [5, 6]
    noon = dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    for given, time in ((noon, noon), (dt.date(2024, 5, 1), noon.replace(hour=0, tzinfo=dt.UTC)), (None, None)):
        assert rasters(paths[0], datetime=dict.fromkeys([str(paths[0])], given).get)[0].datetime == time


def test_a_raster_without_a_date_has_none(make: Make) -> None:
    (found,) = rasters(make("crop.tif"))
    assert found.datetime is None
    assert found.id == "crop"
    assert pystac.Item.from_dict(found.to_dict()).properties["start_datetime"] is None


def test_headers_are_read_signed_and_hrefs_stay_unsigned(make: Make, tmp_path: Path) -> None:
    make("signed/x.tif")

    def sign(each: pystac.Item) -> None:
        for asset in each.assets.values():
            asset.href = asset.href.replace("x.tif", "signed/x.tif")

    found = rasters(tmp_path / "x.tif", modifier=sign)
    assert found[0].assets["data"].href == str(tmp_path / "x.tif")
    assert found.modifier is sign


def test_a_path_given_twice_counts_as_a_duplicate(make: Make, tmp_path: Path) -> None:
    path = make("deep/er/x.tif")
    found = rasters([path, str(tmp_path / "**" / "*.tif")])
    assert (len(found), found.duplicates) == (1, 1)
    odd = make("[a] 1.tif")
    assert rasters(odd)[0].id == "[a] 1", "a file that exists is no glob"


def test_the_footprint_is_cut_at_the_antimeridian(make: Make) -> None:
    (found,) = rasters(make("x.tif", crs="EPSG:32660", left=720_000, size=2_000))
    area = shape(found.geometry or {})
    assert area.geom_type == "MultiPolygon"
    assert area.area < 1.5
    assert area.within(box(-180, 44, 180, 46))


def test_what_is_no_raster_on_a_grid_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(EmptySearch, match=r"\*\.jp2.*no file fits"):
        rasters(tmp_path / "*.jp2")
    with pytest.raises(EmptySearch, match="empty"):
        rasters([])
    with pytest.raises(CatalogError, match=r"is a folder; write rasters\('.*\*\*/\*\.tif'\)"):
        rasters(tmp_path)
    with pytest.raises(CatalogError, match=r"write rasters\(list\(\.\.\.\)\)"):
        rasters(tmp_path.glob("*.tif"))
    with pytest.raises(ReadError, match=r"missing\.tif.*No such file"):
        rasters(tmp_path / "missing.tif")
    path = make("a_20240132.tif")
    with pytest.raises(CatalogError, match=r"the date of 'a_20240132\.tif' cannot be read: unconverted data"):
        rasters(path, pattern=r"(?P<date>\d{8})")
    with pytest.raises(CatalogError, match=r"'a_20240132\.tif': it does not fit"):
        rasters(path, pattern=r"B(?P<band>\d)")
    with pytest.raises(CatalogError, match=r"needed is a group \(\?P<date>"):
        rasters(path, pattern=r"\d{8}")
    pair = [make("x_B1.tif"), make("x_B2.tif")]
    with pytest.raises(CatalogError, match=r"item 'x' have several dates"):
        rasters(pair, pattern=r"(?P<band>B\d)", datetime=lambda href: f"2024-01-0{href[-5]}")


def test_a_file_without_georeference_says_how_to_mend_it(make: Make) -> None:
    with pytest.raises(NotGeoreferenced, match=r"no CRS.*gdal_translate -a_srs EPSG:"):
        rasters(make("plain.tif", crs=None))
    corners = [(0, 0, 500_000, 5e6), (0, 30, 500_300, 5e6), (20, 0, 500_000, 4_999_800)]
    points = [GroundControlPoint(*corner) for corner in corners]
    with pytest.raises(NotGeoreferenced, match=r"3 ground control points.*gdalwarp -tps"):
        rasters(make("gcp.tif", transform=None, gcps=points))


# Vectors


def test_vectors_are_what_geopandas_reads(tmp_path: Path) -> None:
    frame = gpd.GeoDataFrame({"name": ["a"]}, geometry=[Point(1, 2)], crs=4326)
    assert vectors(frame) is frame
    frame.to_file(tmp_path / "x.gpkg")
    frame.to_parquet(tmp_path / "x.parquet")
    for name in ("x.gpkg", "x.parquet"):
        assert vectors(tmp_path / name).equals(frame)


def test_vectors_without_a_crs_are_refused(tmp_path: Path) -> None:
    frame = gpd.GeoDataFrame(geometry=[Point(1, 2)])
    with pytest.raises(CatalogError, match=r"has no CRS; write .*set_crs"):
        vectors(frame)
    with pytest.raises(CatalogError, match=r"nowhere\.gpkg.*No such file"):
        vectors(tmp_path / "nowhere.gpkg")


def test_what_is_no_path_is_refused() -> None:
    item = pystac.Item("a", None, None, dt.datetime(2024, 6, 7, tzinfo=dt.UTC), {})
    with pytest.raises(CatalogError, match=r"rasters\(Item\): a path is needed; write items\(\[item\]\)"):
        rasters(item)  # type: ignore[arg-type]
    with pytest.raises(CatalogError, match="rasters\\(int\\): a path is needed; write a path, a URL, or several"):
        rasters(3)  # type: ignore[arg-type]
