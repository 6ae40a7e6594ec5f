"""Catalogues as they are: recorded API traffic, odd items, real files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import vcr
from vcr.serializers import yamlserializer

from geopipes.catalogs import Scenes, freeze, items, rasters, search, vectors
from geopipes.errors import CatalogError, NotGeoreferenced

pytestmark = pytest.mark.real

EARTH_SEARCH = "https://earth-search.aws.element84.com/v1"
PLANETARY_COMPUTER = "https://planetarycomputer.microsoft.com/api/stac/v1"
POINT = {"type": "Point", "coordinates": [-105.1019, 40.1672]}

# How many items each file holds, or what the error says.
HELD: dict[str, int | str] = {
    "api_responses/earthsearch_copdem_fields_no_proj.json": 10,
    "api_responses/earthsearch_empty_result.json": 0,
    "api_responses/earthsearch_mixed_s1_s2_filter.json": 10,
    "api_responses/earthsearch_mixed_s2_filter.json": 10,
    "api_responses/earthsearch_s2-l2a_plus_landsat-c2-l2.json": 2,
    "api_responses/earthsearch_s2_fields_no_assets.json": 10,
    "api_responses/earthsearch_v0_s2_cogs.json": 1,
    "api_responses/eoapi_wildfires_la_2025.json": 10,
    "api_responses/mlhub_ref_african_crops_kenya_02_source_page1.json": 10,
    "api_responses/pc_aster-l1t_3.json": 3,
    "api_responses/pc_landsat-8-c2-l2_search_10of250.json": (
        "feature 0: item 'LC08_L2SR_066091_20220318_02_T1': its asset 'ST_QA' has no href"
    ),
    "api_responses/pc_naip_page1.json": 10,
    "api_responses/pc_naip_page2.json": 10,
    "api_responses/pc_naip_query_12.json": 12,
    "api_responses/pc_sentinel-2-l2a_search_15of33.json": 15,
    "odc_items/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json": 1,
    "odc_items/LC08_L2SR_081119_20200101_20200823_02_T2.json": 1,
    "odc_items/LE07_L2SP_044033_20210329_20210424_02_T1_SR.json": 1,
    "odc_items/S2A_28QCH_20200714_0_L2A.json": 1,
    "odc_items/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json": 1,
    "odc_items/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531_raster_ext.json": 1,
    "odc_items/ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json": 1,
    "odc_items/lidar_dem.json": 1,
    "odc_items/only_crs_proj.json": 1,
    "odc_items/sentinel-2-l2a.collection.json": "'sentinel-2-l2a' gives its items through an API; write search(",
    "odc_items/site1-20200606-tall-strip-africa.geojson": 9,
    "odc_items/site2-2020_jun_jul-35MNM.geojson": 13,
    "geoparquet/100-sentinel-2-items.parquet": 100,
    "geoparquet/sentinel-1-global-mosaics.parquet": 4,
    "label_extension/examples/multidataset/catalog.json": 5,
    "label_extension/examples/multidataset/spacenet-buildings/collection.json": 3,
    "label_extension/examples/multidataset/zanzibar/collection.json": 2,
    "label_extension/examples/spacenet-roads/roads_collection.json": 1,
    "label_extension/examples/spacenet-roads/roads_source.json": 1,
    "label_extension/examples/spacenet-roads/spacenetroads_AOI_3_Paris_img101.geojson": (
        "item '(without id)' is no STAC item: needed are type 'Feature', id and stac_version"
    ),
    "mlm_extension/examples/item_basic.json": 1,
    "mlm_extension/examples/item_pytorch_geo_unet.json": 1,
}
ODDITIES = [
    "stac", "stac-proj-titiler-issue1074", "stac_alternate", "stac_bands", "stac_bands_v1", "stac_grib",
    "stac_headers", "stac_netcdf", "stac_no_ext", "stac_proj", "stac_proj_2_0", "stac_proj_2_0_assets",
    "stac_raster", "stac_raster_v1", "stac_relative", "stac_wrong_stats",
]  # fmt: skip
HELD |= {f"item_oddities/{name}.json": 1 for name in ODDITIES}


@pytest.fixture
def stac(real_data: Path) -> Path:
    return real_data / "stac"


@pytest.mark.parametrize(("name", "held"), HELD.items())
def test_real_documents_are_opened_or_refused(stac: Path, name: str, held: int | str) -> None:
    if isinstance(held, str):
        with pytest.raises(CatalogError) as caught:
            items(stac / name)
        assert held in str(caught.value)
        return
    found = items(stac / name)
    assert (len(found), found.duplicates) == (held, 0)
    for each in found:
        assert all(asset.href.startswith(("/", "http", "s3://")) for asset in each.assets.values())


def test_no_real_document_is_left_out(stac: Path) -> None:
    folders = ("api_responses", "odc_items", "item_oddities", "geoparquet")
    assert {f"{folder}/{path.name}" for folder in folders for path in (stac / folder).iterdir()} <= set(HELD)


def test_duplicates_of_a_real_catalogue_are_counted(stac: Path) -> None:
    # Four of its nine examples bear one id.
    found = items(stac / "mlm_extension/examples/collection.json")
    assert (len(found), found.duplicates) == (5, 4)


def test_real_items_survive_freezing(stac: Path, tmp_path: Path) -> None:
    names = [name for name, held in HELD.items() if isinstance(held, int) and held and "oddities" not in name]
    found = items([stac / name for name in names])
    json_kept = freeze(lambda: found, tmp_path / "all.json", key="all")
    assert [each.id for each in json_kept] == [each.id for each in found]
    collections = ("sentinel-2-l2a", "sentinel-1-grd", "naip", "aster-l1t", "sentinel-1-global-mosaics")
    usual = Scenes(tuple(each for each in found if each.collection_id in collections and each.geometry))
    kept = freeze(lambda: usual, tmp_path / "usual.parquet", key="usual")
    assert [each.id for each in kept] == [each.id for each in usual]
    assert [each.datetime for each in kept] == [each.datetime for each in usual]
    with pytest.raises(CatalogError, match=r"choose a path that ends in \.json"):
        freeze(lambda: found, tmp_path / "all.parquet", key="all")


def test_relative_hrefs_of_real_items_lead_to_their_files(real_data: Path) -> None:
    folder = real_data / "sentinel2_items_without_proj"
    documents = [
        *sorted((real_data / "sentinel2_33T").glob("*.json")),
        folder / "docker/local_batch_job/example_stac_catalog/collection.json",
        folder / "tests/data/stac/issue648-pixel-shift/collection.json",
    ]
    found = items(documents)
    assert (len(found), found.duplicates) == (8, 4)
    assert all(Path(asset.href).is_file() for each in found for asset in each.assets.values())


# Searches, as they were recorded


@contextmanager
def recorded(stac: Path, name: str, *, landing: Path | None = None) -> Iterator[Any]:
    """Replay a recording; what is asked must be what was asked then, the body included."""
    path = stac / "api_cassettes" / f"{name}.yaml"
    matched = ["method", "uri", "body"]
    with vcr.use_cassette(str(landing or path), record_mode="none", match_on=matched) as cassette:
        yield cassette


@pytest.mark.parametrize(
    ("name", "url", "filters", "held"),
    [
        (
            "test_cli/TestCLISearch.test_fields[inprocess]",
            EARTH_SEARCH,
            {
                "collections": "cop-dem-glo-30",
                "fields": {"include": [], "exclude": ["geometry", "assets"]},
            },
            10,
        ),
        (
            "test_cli/TestCLISearch.test_matched_not_available[inprocess]",
            PLANETARY_COMPUTER,
            {"collections": ["naip"], "limit": 1},
            1,
        ),
        ("test_client/test_get_items_without_ids", "https://stac.eoapi.dev/", {}, 10),
    ],
)
def test_recorded_searches_replay(stac: Path, name: str, url: str, filters: dict[str, Any], held: int) -> None:
    with recorded(stac, name):
        assert len(search(url, max_items=held, **filters)) == held


def test_an_old_api_that_declares_nothing_is_searched_all_the_same(stac: Path) -> None:
    with (
        recorded(stac, "test_cli/TestCLISearch.test_non_conformant_can_be_fixed[inprocess]"),
        pytest.warns(UserWarning, match="does not advertise any conformance classes"),
        pytest.warns(UserWarning, match="'POST' is not advertised"),
    ):
        found = search(
            "https://earth-search.aws.element84.com/v0", collections=["sentinel-s2-l2a-cogs"], max_items=1, limit=1
        )
    assert [each.collection_id for each in found] == ["sentinel-s2-l2a-cogs"]


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("test_client/TestQueryables.test_get_queryables", "https://stac.sage.uvt.ro/"),
        ("test_collection_client/TestCollectionClient.test_get_queryables", PLANETARY_COMPUTER),
    ],
)
def test_recordings_without_a_search_open_and_then_say_what_failed(stac: Path, name: str, url: str) -> None:
    with recorded(stac, name), pytest.raises(CatalogError, match=rf"{url}.*APIError"):
        search(url)


@pytest.mark.parametrize(
    ("name", "url", "filters", "held"),
    [
        (
            "TestItemSearch.test_result_paging",
            PLANETARY_COMPUTER,
            {"bbox": (-73.21, 43.99, -73.12, 44.05), "collections": "naip", "limit": 10, "max_items": 20},
            20,
        ),
        (
            "TestItemSearch.test_result_paging_max_items",
            PLANETARY_COMPUTER,
            {"collections": "naip", "limit": 10, "max_items": 25},
            25,
        ),
        (
            "test_fields",
            EARTH_SEARCH,
            {
                "collections": ["sentinel-2-c1-l2a"],
                "intersects": POINT,
                "fields": {"include": [], "exclude": ["geometry", "assets", "links"]},
                "max_items": 10,
            },
            10,
        ),
        (
            "test_multiple_collections",
            EARTH_SEARCH,
            {
                "collections": ["sentinel-2-l2a", "landsat-c2-l2"],
                "intersects": POINT,
                "datetime": "2023-10-08",
            },
            2,
        ),
    ],
)
def test_recordings_without_a_landing_page_replay_with_one(
    stac: Path, tmp_path: Path, name: str, url: str, filters: dict[str, Any], held: int
) -> None:
    classes = ("core", "item-search", "item-search#fields")
    landing = {
        "type": "Catalog",
        "id": "landing",
        "description": "by hand",
        "stac_version": "1.0.0",
        "conformsTo": [f"https://api.stacspec.org/v1.0.0/{each}" for each in classes],
        "links": [
            {"rel": "search", "href": f"{url}/search", "type": "application/geo+json", "method": "POST"},
        ],
    }
    cassette = yamlserializer.deserialize((stac / "api_cassettes" / "test_item_search" / f"{name}.yaml").read_text())
    cassette["interactions"].append(
        {
            "request": {"method": "GET", "uri": url, "body": None, "headers": {}},
            "response": {
                "status": {"code": 200, "message": "OK"},
                "headers": {},
                "body": {"string": json.dumps(landing)},
            },
        }
    )
    path = tmp_path / "cassette.yaml"
    path.write_text(yamlserializer.serialize(cassette))
    with recorded(stac, name, landing=path) as played:
        found = search(url, **filters)
        assert played.all_played
    assert (len(found), found.duplicates) == (held, 0)
    assert (found.region is None) == (not {"bbox", "intersects"} & filters.keys())


# Files


def test_landsat_files_become_scenes(real_data: Path, tmp_path: Path) -> None:
    found = rasters(
        real_data / "landsat8_newyork_2018" / "*" / "*.TIF",
        pattern=r"^LC08_L1TP_\d{6}_(?P<date>\d{8})_(?P<band>B\w+)\.TIF$",
    )
    folders = sorted(path.name for path in (real_data / "landsat8_newyork_2018").iterdir())
    assert len(found) == len(folders) == 19
    for each, folder in zip(found, folders, strict=True):
        assert folder.startswith(each.id)
        assert each.datetime is not None
        assert each.datetime.strftime("%Y%m%d") in folder
        assert set(each.assets) == {*(f"B{number}" for number in range(1, 12)), "BQA"}
        assert {asset.extra_fields["proj:code"] for asset in each.assets.values()} == {"EPSG:32618"}
    for suffix in (".parquet", ".json"):
        kept = freeze(lambda: found, tmp_path / f"landsat{suffix}", key="landsat")
        assert [each.assets["B4"].extra_fields["proj:transform"] for each in kept] == [
            each.assets["B4"].extra_fields["proj:transform"] for each in found
        ]


def test_elkton_files_become_one_item_and_its_twin(real_data: Path) -> None:
    folder = real_data / "landsat8_elkton"
    (bands,) = rasters(folder / "L8-B*-Elkton-VA.tiff", pattern=r"L8-(?P<band>B\w+)-Elkton")
    assert list(bands.assets) == ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "BQA"]
    transforms = {band: asset.extra_fields["proj:transform"] for band, asset in bands.assets.items()}
    assert transforms["B8"][0] < 16 < 29 < transforms["B4"][0] < 30
    (twin,) = rasters(folder / "L8-B4-Elkton-VA-4326.tiff")
    assert twin.assets["data"].extra_fields["proj:code"] == "EPSG:4326"
    assert twin.bbox == pytest.approx(bands.bbox, abs=0.01)
    assert vectors(folder / "L8-Labels-Elkton-VA.geojson").crs == "EPSG:4326"


def test_ground_control_points_are_no_grid(real_data: Path) -> None:
    with pytest.raises(NotGeoreferenced, match=r"au-gcp\.tif.*ground control points.*gdalwarp"):
        rasters(real_data / "odd_tiffs" / "au-gcp.tif")


def test_a_rotated_and_a_dateline_raster_have_footprints(real_data: Path) -> None:
    rotated, dateline = rasters(
        [real_data / "odd_tiffs" / name for name in ("au-3577-rotated.tif", "cog_dateline.tif")]
    )
    assert rotated.geometry is not None
    assert dateline.geometry is not None
    assert (rotated.geometry["type"], dateline.geometry["type"]) == ("Polygon", "MultiPolygon")
