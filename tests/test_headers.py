"""Items to sources: what items state, what files say, what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.loader.types import RasterSource
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC

from geopipes.errors import EmptySearch, NotGeoreferenced, ReadError, SourceError, UnknownBand
from geopipes.read.failures import signed_href
from geopipes.read.headers import Band, file_header, sources
from geopipes.read.stated import stated_bands, stated_geobox, stated_header

GRID: dict[str, Any] = {
    "proj:code": "EPSG:32633",
    "proj:transform": [10.0, 0.0, 600_000.0, 0.0, -10.0, 5_100_000.0],
    "proj:shape": [4, 6],
}
TIFF = pystac.MediaType.COG
GEOBOX = GeoBox((4, 6), Affine(10, 0, 600_000, 0, -10, 5_100_000), "EPSG:32633")


def asset(
    href: str = "nowhere.tif", *, media_type: str | None = TIFF, roles: list[str] | None = None, **fields: Any
) -> pystac.Asset:
    named = {key.replace("_", ":", 1): value for key, value in fields.items()}
    return pystac.Asset(href, media_type=media_type, roles=roles, extra_fields=named)


def item(assets: Mapping[str, pystac.Asset], id: str = "scene", **properties: Any) -> pystac.Item:
    made = pystac.Item(id, None, None, datetime(2024, 5, 1, 10, tzinfo=UTC), properties, collection="s2")
    for key, each in assets.items():
        made.add_asset(key, each)
    return made


def write(path: Path, *, count: int = 1, dtype: str = "uint16", **profile: Any) -> str:
    """Write a raster on GEOBOX; returns its href."""
    place = {"crs": CRS.from_epsg(32633), "transform": GEOBOX.affine} | profile
    descriptions = place.pop("descriptions", None)
    with rasterio.open(path, "w", driver="GTiff", height=4, width=6, count=count, dtype=dtype, **place) as file:
        file.write(np.ones((count, 4, 6), dtype))
        if descriptions:
            file.descriptions = descriptions
    return str(path)


def only(items: Sequence[pystac.Item], bands: Any, **options: Any) -> Band:
    (band,) = sources(items, bands, **options)
    return band


# What items state.


@pytest.mark.parametrize(
    ("fields", "properties", "stated"),
    [
        ({}, {}, []),
        ({"eo:bands": [{"name": "a"}, {"name": "b"}]}, {}, [{"name": "a"}, {"name": "b"}]),
        ({"eo:bands": [{"name": "a"}], "raster:bands": [{"nodata": 0}, {}]}, {}, [{"name": "a", "nodata": 0}, {}]),
        ({"bands": [{"eo:common_name": "red"}]}, {}, [{"eo:common_name": "red", "common_name": "red"}]),
        ({"data_type": "uint8"}, {"nodata": 7}, [{"data_type": "uint8", "nodata": 7}]),
        ({"bands": [{}, {"nodata": 1}], "nodata": 0}, {"nodata": 9}, [{"nodata": 0}, {"nodata": 1}]),
        ({"eo:bands": [3]}, {}, [{}]),
        ({"raster:bands": [{"nodata": "-inf"}]}, {}, [{"nodata": -np.inf}]),
        ({"raster:bands": [{"nodata": None}]}, {}, [{"nodata": None}]),
        ({"raster:bands": [{"nodata": "none"}]}, {}, [{}]),
    ],
)  # fmt: skip
def test_what_is_stated_of_bands(fields: Any, properties: Any, stated: Any) -> None:
    made = item({"a": pystac.Asset("a.tif", extra_fields=fields)}, **properties)
    assert stated_bands(made, made.assets["a"]) == stated


def test_nan_is_a_nodata() -> None:
    made = item({"a": asset(raster_bands=[{"nodata": "nan", "data_type": "float32"}], **GRID)})
    (band,) = sources([made], ["a"])
    assert band.sources[0].nodata is not None
    assert np.isnan(band.sources[0].nodata)


@pytest.mark.parametrize(
    "crs",
    [
        {"proj:code": "EPSG:32633"},
        {"proj:epsg": 32633},
        {"proj:code": None, "proj:epsg": None, "proj:wkt2": CRS.from_epsg(32633).to_wkt()},
        {"proj:projjson": CRS.from_epsg(32633).to_dict(projjson=True)},
    ],
)
def test_every_way_to_state_a_crs_gives_one_grid(crs: dict[str, Any]) -> None:
    grid = GRID | {"proj:transform": [*GRID["proj:transform"], 0, 0, 1]}
    del grid["proj:code"]
    on_asset = item({"a": pystac.Asset("a.tif", extra_fields=grid | crs)})
    on_item = item({"a": pystac.Asset("a.tif", extra_fields=grid)}, **crs)
    all_on_item = item({"a": asset()}, **grid, **crs)
    for made in (on_asset, on_item, all_on_item):
        found = stated_geobox(made, made.assets["a"])
        assert found == GEOBOX
        assert hash(found) == hash(GEOBOX)


def test_an_assets_own_grid_comes_before_its_items() -> None:
    finer = {"proj:transform": [5, 0, 600_000, 0, -5, 5_100_000], "proj:shape": [8, 12]}
    made = item({"a": pystac.Asset("a.tif", extra_fields=finer)}, **GRID)
    assert stated_geobox(made, made.assets["a"]) == GEOBOX.zoom_to((8, 12))
    shape_alone = item({"a": pystac.Asset("a.tif", extra_fields={"proj:shape": [8, 12]})}, **GRID)
    assert stated_geobox(shape_alone, shape_alone.assets["a"]) is None


def test_an_unknown_crs_is_refused() -> None:
    made = item({"a": asset()}, **(GRID | {"proj:code": "IAU:1"}))
    with pytest.raises(
        SourceError, match=r"item 'scene' states a CRS that PROJ does not know: 'IAU:1'; write headers='file'"
    ):
        sources([made], ["a"])


COMPLETE: dict[str, Any] = GRID | {"raster:bands": [{"data_type": "uint16", "nodata": 0}]}


def test_no_file_is_opened_where_an_item_states_all() -> None:
    for null in (0, None):
        fields = GRID | {"raster:bands": [{"data_type": "uint16", "nodata": null}]}
        made = item({"red": pystac.Asset("nowhere.tif", extra_fields=fields)})
        (source,) = only([made], ["red"]).sources
        assert (source.geobox, source.dtype, source.nodata, source.bands) == (GEOBOX, np.dtype("uint16"), null, (1,))
        assert (source.item, source.collection, source.asset, source.href) == ("scene", "s2", "red", "nowhere.tif")
        with pytest.raises(ReadError, match="nowhere"):
            sources([made], ["red"], headers="file")


@pytest.mark.parametrize(
    "missing", ["proj:code", "proj:transform", "proj:shape", "data_type", "nodata", "raster:bands"]
)
def test_the_file_is_opened_where_something_is_missing(tmp_path: Path, missing: str) -> None:
    href = write(tmp_path / "a.tif", nodata=0)
    fields = {key: value for key, value in COMPLETE.items() if key != missing}
    if missing in ("data_type", "nodata"):
        band = {"data_type": "uint16", "nodata": 0}
        del band[missing]
        fields["raster:bands"] = [band]
    (opened,) = only([item({"red": pystac.Asset(href, extra_fields=fields)})], ["red"]).sources
    (stated,) = only([item({"red": pystac.Asset(href, extra_fields=COMPLETE)})], ["red"]).sources
    assert opened == stated
    absent = item({"red": pystac.Asset(str(tmp_path / "absent.tif"), extra_fields=fields)})
    with pytest.raises(
        ReadError, match=r"item 'scene', asset 'red': .*absent\.tif: the header could not be read: .*No such"
    ):
        sources([absent], ["red"])


@given(
    st.sampled_from(["uint8", "int16", "uint16", "float32", "float64", "complex64"]), st.integers(1, 4),
    st.sampled_from([None, 0, 7]), st.sampled_from([32633, 4326, 5070]),
    st.tuples(st.floats(1, 100), st.floats(-80, 80), st.floats(1e-4, 10), st.floats(-3, 3)),
)  # fmt: skip
def test_items_that_state_what_is_true_give_what_the_files_give(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, count: int, nodata: int | None, epsg: int,
    place: tuple[float, float, float, float],
) -> None:  # fmt: skip
    left, top, size, skew = place
    affine = Affine(size, skew, left, 0, -size, top)
    path = tmp_path_factory.mktemp("files") / "a.tif"
    names = [f"band {number}" for number in range(count)]
    href = write(
        path, count=count, dtype=dtype, nodata=nodata, crs=CRS.from_epsg(epsg), transform=affine, descriptions=names
    )
    band = {"data_type": {"complex64": "cfloat32"}.get(dtype, dtype), "nodata": nodata}
    fields = {
        "proj:epsg": epsg,
        "proj:transform": list(affine[:6]),
        "proj:shape": [4, 6],
        "raster:bands": [band | {"name": name} for name in names],
    }
    made = item({"a": pystac.Asset(href, extra_fields=fields)})
    assert stated_header(made, made.assets["a"]) == file_header(href)
    assert sources([made], ["a"]) == sources([made], ["a"], headers="file")


# What becomes of bands.


def test_an_asset_of_several_bands_has_a_band_dimension(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.tif", count=3)
    described = write(tmp_path / "described.tif", count=3, descriptions=["A00", "A01", "A02"])
    names = [{"name": name} for name in "xyz"]
    cases: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
        (plain, {}, ("b1", "b2", "b3")),
        (described, {}, ("A00", "A01", "A02")),
        (described, {"eo:bands": names}, ("x", "y", "z")),
        (described, GRID | {"raster:bands": [{"data_type": "uint16", "nodata": 0}] * 3}, ("A00", "A01", "A02")),
    ]
    for href, fields, labels in cases:
        band = only([item({"image": pystac.Asset(href, extra_fields=fields)})], {"emb": "image"})
        assert (band.name, band.labels, band.sources[0].bands) == ("emb", labels, (1, 2, 3))
    one = only([item({"image": pystac.Asset(plain)})], ["image#2"])
    assert (one.name, one.labels, one.sources[0].bands) == ("image#2", None, (2,))
    with pytest.raises(UnknownBand, match=r"has no band 'image#4'"):
        sources([item({"image": asset(plain)})], ["image#4"])


def test_variables_that_differ_from_item_to_item_are_refused(tmp_path: Path) -> None:
    one, three = write(tmp_path / "one.tif"), write(tmp_path / "three.tif", count=3)
    items = [item({"a": asset(three)}, "x"), item({"a": asset(one)}, "y")]
    message = r"variable 'a': item 'x' has the bands \('b1', 'b2', 'b3'\), item 'y' has one; ask .* as 'a#1'"
    with pytest.raises(SourceError, match=message):
        sources(items, ["a"])
    mixed = item(
        {
            "a": asset(
                raster_bands=[
                    {"name": "p", "data_type": "uint8", "nodata": 0},
                    {"name": "q", "data_type": "int8", "nodata": 0},
                ],
                **GRID,
            )
        }
    )
    with pytest.raises(SourceError, match=r"of several kinds \(int8 with nodata 0\.0, uint8 with nodata 0\.0\)"):
        sources([mixed], ["a"])
    assert only([mixed], ["a#2"]).sources[0].dtype == np.dtype("int8")


def test_the_file_says_nodata_and_else_the_item(tmp_path: Path) -> None:
    silent, speaks = write(tmp_path / "silent.tif"), write(tmp_path / "speaks.tif", nodata=9)
    fields = {"raster:bands": [{"nodata": 5}]}
    for href, headers, nodata in [
        (silent, "item", 5),
        (speaks, "item", 9),
        (silent, "file", None),
        (speaks, "file", 9),
    ]:
        made = item({"a": pystac.Asset(href, extra_fields=fields)})
        assert only([made], ["a"], headers=headers).sources[0].nodata == nodata


def test_an_asset_that_some_items_lack_is_refused_when_all_are_asked_for() -> None:
    items = [item({"a": pystac.Asset("a.tif", extra_fields=COMPLETE)}), item({"b": asset()}, "other")]
    with pytest.raises(UnknownBand, match=r"has no band"):
        sources(items, None)
    with pytest.raises(SourceError, match=r"item 'scene' has no raster data; write bands=\[\.\.\.\]"):
        sources([item({"html": asset(media_type="text/html")})], None)
    with pytest.raises(EmptySearch, match="there are no items"):
        sources([], ["red"])
    with pytest.raises(SourceError, match="headers='both': write 'item' or 'file'"):
        sources(items, ["a"], headers="both")  # type: ignore[arg-type]


def test_time_is_the_items_or_its_start_or_none() -> None:
    made = item({"a": pystac.Asset("a.tif", extra_fields=COMPLETE)})
    assert only([made], ["a"]).sources[0].time == np.datetime64("2024-05-01T10:00:00", "ns")
    made.datetime = datetime.fromisoformat("2024-05-01T10:00:00.123456+02:00")
    assert only([made], ["a"]).sources[0].time == np.datetime64("2024-05-01T08:00:00.123456", "ns")
    made.datetime = None
    made.properties["start_datetime"] = "2012-01-01T00:00:00Z"
    assert only([made], ["a"]).sources[0].time == np.datetime64("2012-01-01", "ns")
    del made.properties["start_datetime"]
    assert np.isnat(only([made], ["a"]).sources[0].time)


# Signing, and files that cannot be used.


def test_hrefs_are_signed_when_opened_and_stored_unsigned(tmp_path: Path) -> None:
    write(tmp_path / "a.tif")
    seen: list[tuple[str, str | None, tuple[str, ...]]] = []

    def in_place(stub: pystac.Item) -> None:
        seen.append((stub.id, stub.collection_id, tuple(stub.assets)))
        for each in stub.assets.values():
            each.href = each.href.replace("signed://", f"{tmp_path}/")

    def as_new(stub: pystac.Item) -> pystac.Item:
        other = stub.clone()
        in_place(other)
        return other

    items = [item({"a": asset("signed://a.tif"), "b": asset("signed://a.tif")}, id) for id in ("x", "y")]
    for modifier in (in_place, as_new):
        seen.clear()
        found = sources(items, ["a", "b", "a#1"], modifier=modifier)
        assert {source.href for band in found for source in band.sources} == {"signed://a.tif"}
        assert {source.modifier for band in found for source in band.sources} == {modifier}
        assert sorted(seen) == [(id, "s2", (key,)) for id in "xy" for key in "ab"]  # each file once
        assert all(source.geobox == GEOBOX for band in found for source in band.sources)
    absent = item({"a": asset("signed://absent.tif")})
    with pytest.raises(ReadError, match=r"asset 'a': signed://absent\.tif: the header could not be read") as info:
        sources([absent], ["a"], modifier=in_place)
    assert str(tmp_path) not in str(info.value)
    assert signed_href("a.tif", item="x", collection=None, asset="a", modifier=None) == "a.tif"


def gcps() -> list[GroundControlPoint]:
    corners = [(0, 0), (0, 6), (4, 0), (4, 6)]
    return [GroundControlPoint(row, col, 15 + col / 100, 46 - row / 100) for row, col in corners]


def rpcs() -> RPC:
    cubic = [1.0] + [0.0] * 19
    return RPC(
        height_off=0, height_scale=1, lat_off=46, lat_scale=1, line_den_coeff=cubic, line_num_coeff=cubic, line_off=2,
        line_scale=2, long_off=15, long_scale=1, samp_den_coeff=cubic, samp_num_coeff=cubic, samp_off=3, samp_scale=3,
    )  # fmt: skip


NOWHERE: dict[str, Any] = {"crs": None, "transform": None}


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (
            {"gcps": gcps(), "crs": CRS.from_epsg(4326)},
            r"has 4 ground control points \(GCPs\) only; .* first: gdalwarp -tps -t_srs EPSG:\.\.\. IN OUT",
        ),
        ({"rpcs": rpcs()}, r"has rational polynomial coefficients \(RPCs\) only; .* gdalwarp -rpc -t_srs EPSG:"),
        ({}, r"has no affine transform, .* gdal_translate -a_srs EPSG:\.\.\. -a_ullr LEFT TOP RIGHT BOTTOM"),
        ({"crs": CRS.from_epsg(32633)}, r"has no affine transform, .* gdal_translate -a_srs"),
        ({"transform": GEOBOX.affine}, r"has no CRS; a CRS and an affine transform are needed"),
    ],
)
@pytest.mark.parametrize("warn", ["error", "ignore"])
def test_what_is_not_georeferenced_is_refused_and_says_how_to_mend_it(
    tmp_path: Path, profile: dict[str, Any], message: str, warn: Literal["error", "ignore"]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        href = write(tmp_path / "a.tif", **(NOWHERE | profile))
        warnings.simplefilter(warn, NotGeoreferencedWarning)
        with pytest.raises(NotGeoreferenced, match=rf"item 'scene', asset 'red': .*a\.tif: {message}"):
            sources([item({"red": asset(href)})], ["red"])


def test_a_file_that_is_no_raster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"not a raster")
    with pytest.raises(ReadError, match=r"a\.tif: the header could not be read: .*not recognized"):
        file_header(str(tmp_path / "a.tif"))


# Real items and files.


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "grids"),
    [
        ("LC08_L2SP_028030_20200114_20200824_02_T1_SR", 10),
        ("LE07_L2SP_044033_20210329_20210424_02_T1_SR", 10),
        ("S2A_28QCH_20200714_0_L2A", 17),
        ("S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531", 16),
        ("S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531_raster_ext", 16),
        ("ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item", 22),
        ("lidar_dem", 1),
        ("only_crs_proj", 0),  # a CRS and nothing else: odc-stac gives no grid, and here the header is needed
    ],
)
def test_grids_equal_odc_stacs(real_data: Path, name: str, grids: int) -> None:
    made = pystac.Item.from_file(real_data / f"stac/odc_items/{name}.json")
    (parsed,) = odc.stac.parse_items([made])
    rasters = {key: source for (key, _), source in parsed.bands.items() if isinstance(source, RasterSource)}
    expected = {key: raster.geobox for key, raster in rasters.items() if raster.geobox is not None}
    found = {key: stated_geobox(made, made.assets[key]) for key in expected}
    assert found == expected
    assert len(found) == grids


@pytest.mark.real
def test_real_items_that_state_all_need_no_file(real_data: Path) -> None:
    name = "S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531_raster_ext"
    made = pystac.Item.from_file(real_data / f"stac/odc_items/{name}.json")
    (parsed,) = odc.stac.parse_items([made])
    complete = [key for key, each in made.assets.items() if stated_header(made, each) is not None]
    assert complete == ["B01", "B02", "B03", "B04", "B05", "B07", "B08", "B09", "B11", "B12", "B8A", "SCL"]
    for band in sources([made], complete):
        (source,), theirs = band.sources, parsed.bands[band.name, 1]
        assert isinstance(theirs, RasterSource)
        assert theirs.meta is not None
        assert source.geobox == theirs.geobox
        assert (source.dtype.name, source.nodata) == (theirs.meta.data_type, theirs.meta.nodata)


@pytest.mark.real
def test_real_landsat_over_antarctica_is_understood_where_odc_stac_fails(real_data: Path) -> None:
    made = pystac.Item.from_file(real_data / "stac/odc_items/LC08_L2SR_081119_20200101_20200823_02_T2.json")
    found = stated_geobox(made, made.assets["SR_B2.TIF"])
    assert found is not None
    assert found == GeoBox((200, 200), Affine(1164.15, 0, 857_085, 0, -1150.6499999999999, -127_485), "EPSG:3031")


@pytest.mark.real
def test_real_sentinel_2_items_state_what_their_files_hold(real_data: Path) -> None:
    items = [pystac.Item.from_file(path) for path in sorted((real_data / "sentinel2_33T").glob("S2*.json"))]
    stated = sources(items, None)
    assert [(band.name, band.labels, len(band.sources)) for band in stated] == [
        ("red", None, 4), ("nir", None, 4), ("scl", None, 4),
    ]  # fmt: skip
    assert stated == sources(items, ["red", "nir", "scl"], headers="file")
    assert {source.dtype.name for source in stated[2].sources} == {"uint8"}
    assert all(Path(source.href).is_file() for band in stated for source in band.sources)


@pytest.mark.real
def test_real_items_without_proj_whose_asset_keys_differ(real_data: Path) -> None:
    folder = real_data / "sentinel2_items_without_proj/docker/local_batch_job/example_stac_catalog"
    items = [pystac.Item.from_file(path) for path in sorted(folder.glob("*.tif.json"))]
    grid = GeoBox((58, 73), Affine(10, 0, 644_550, 0, -10, 5_676_350), "EPSG:32631")
    by_name = sources(items, {"red": "B04", "green": "B03", "blue": "B02"})
    assert [band.name for band in by_name] == ["red", "green", "blue"]
    for number, band in enumerate(by_name, 1):
        assert len({source.asset for source in band.sources}) == 3
        for source in band.sources:
            assert (source.geobox, source.bands, source.dtype.name) == (grid, (number,), "int16")
            assert (source.nodata, source.collection) == (-32768, None)
    assert [band.sources for band in sources(items, ["openEO_*#1"])] == [by_name[0].sources]
    assert only(items, {"image": "openEO_*"}).labels == ("B04", "B03", "B02")
    assert [band.name for band in sources(items, None)] == ["B04", "B03", "B02"]


@pytest.mark.real
def test_real_embeddings_are_one_variable_of_64_bands_bottom_up(real_data: Path) -> None:
    href = str(real_data / "alphaearth_embeddings/model_transformation.tif")
    band = only([item({"embedding": asset(href)})], None)
    assert band.labels == tuple(f"A{number:02}" for number in range(64))
    (source,) = band.sources
    assert (source.bands, source.dtype, source.nodata) == (tuple(range(1, 65)), np.dtype("int8"), -128)
    assert source.geobox.affine.e == 10


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "message"),
    [("au-gcp.tif", r"24 ground control points"), ("truncated.tiff", "no affine transform")],
)
def test_real_files_without_georeference_are_refused(real_data: Path, name: str, message: str) -> None:
    with pytest.raises(NotGeoreferenced, match=message):
        file_header(str(real_data / "odd_tiffs" / name))


@pytest.mark.real
def test_real_odd_files_have_headers_that_equal_rasterios(real_data: Path) -> None:
    for name in (
        "au-3577-rotated.tif",
        "inverted_lat.tif",
        "cog_dateline.tif",
        "cint16.tif",
        "int12.tif",
        "cog_scale.tif",
    ):
        header = file_header(str(real_data / "odd_tiffs" / name))
        with rasterio.open(real_data / "odd_tiffs" / name) as file:
            assert (header.geobox.affine, header.geobox.shape) == (file.transform, file.shape)
            assert (header.count, header.nodata) == (file.count, file.nodatavals)
            assert header.dtypes[0] == file.read(1).dtype
            assert header.geobox.crs == file.crs
