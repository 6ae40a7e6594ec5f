"""Items of maps and models: what the specification and the extensions require of them."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from affine import Affine
from shapely.geometry import box, shape

import geopipes as gp
from geopipes.errors import SourceError
from geopipes.maps import Model, model_item, stac_item

CLASSES = {1: "winter wheat", 2: "water"}
UNET = Model(
    "fields of Hesse", "U-Net", ("semantic-segmentation",), ("red", "nir"), (-1, 2, 256, 256), (-1, 2, 256, 256),
    framework_version="2.9.0",
)  # fmt: skip


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    path = tmp_path / "maps" / "crops.tif"
    path.parent.mkdir()
    with rasterio.open(
        path, "w", driver="COG", height=64, width=48, count=1, dtype="uint8", crs="EPSG:32633", nodata=0,
        transform=Affine(10, 0, 500_000, 0, -10, 5_000_000),
    ) as file:  # fmt: skip
        file.write(np.ones((1, 64, 48), np.uint8))
        file.write_colormap(1, {0: (0, 0, 0), 1: (250, 200, 10), 2: (0, 0, 255)})
    return path


def imagery(name: str, date: str, href: str | None = None) -> pystac.Item:
    area = box(15, 45, 15.01, 45.01)
    item = pystac.Item(name, area.__geo_interface__, list(area.bounds), dt.datetime.fromisoformat(date), {})
    if href is not None:
        item.set_self_href(href)
    return item


def test_an_item_says_where_when_and_how(chart: Path, tmp_path: Path) -> None:
    sources = [
        imagery("late", "2024-07-01T10:00:00+00:00", "https://example.com/late.json"),
        imagery("early", "2024-05-01T10:00:00+00:00"),
    ]
    item = stac_item(
        chart, datetime=None, classes=CLASSES, model=UNET, lineage="search(...).stack(...)", derived_from=sources
    )
    assert item.id == "crops"
    assert item.datetime is None
    assert item.properties["start_datetime"] == "2024-05-01T10:00:00Z"
    assert item.properties["end_datetime"] == "2024-07-01T10:00:00Z"
    assert item.geometry is not None
    assert shape(item.geometry).contains(box(15.001, 45.149, 15.005, 45.1495))
    assert item.bbox == pytest.approx(shape(item.geometry).bounds)
    asset = item.assets["data"]
    assert asset.media_type == pystac.MediaType.COG
    assert asset.extra_fields["proj:code"] == "EPSG:32633"
    assert asset.extra_fields["proj:shape"] == [64, 48]
    assert asset.extra_fields["raster:bands"][0]["nodata"] == 0
    assert asset.extra_fields["classification:classes"] == [
        {"value": 1, "name": "winter-wheat", "title": "winter wheat", "color_hint": "FAC80A"},
        {"value": 2, "name": "water", "title": "water", "color_hint": "0000FF"},
    ]
    assert item.properties["processing:level"] == "L4"
    assert item.properties["processing:software"] == {"geopipes": gp.__version__, "PyTorch": "2.9.0"}
    assert item.properties["processing:lineage"].splitlines() == [
        "search(...).stack(...)", "model: fields of Hesse (U-Net; semantic-segmentation) of red, nir",
    ]  # fmt: skip
    assert [(link.rel, link.href, link.title) for link in item.links] == [
        ("derived_from", "https://example.com/late.json", "late")
    ]
    assert not any(key.startswith("mlm:") for key in item.properties)  # which would make it a model's
    document(item)


def document(item: pystac.Item) -> dict[str, object]:
    """Check what the STAC item specification 1.1 requires, and give the JSON."""
    found: dict[str, object] = json.loads(json.dumps(item.to_dict(), allow_nan=False))
    assert found["type"] == "Feature"
    assert found["stac_version"] == "1.1.0"
    assert {"id", "geometry", "properties", "links", "assets"} <= found.keys()
    assert (found["geometry"] is None) == ("bbox" not in found)
    assert "datetime" in item.properties or item.datetime is not None
    assert item.datetime is not None or {"start_datetime", "end_datetime"} <= item.properties.keys()
    declared = {url.split("/")[3] for url in item.stac_extensions}
    assert all(
        re.fullmatch(r"https://stac-extensions\.github\.io/[a-z]+/v[0-9.]+/schema\.json", url)
        for url in item.stac_extensions
    )
    names = {"proj": "projection"}
    fields = [*item.properties, *(key for asset in item.assets.values() for key in asset.extra_fields)]
    prefixes = {names.get(prefix, prefix) for prefix, colon, _ in (key.partition(":") for key in fields) if colon}
    assert prefixes <= declared
    return found


def test_a_model_has_an_item_that_maps_refer_to(chart: Path, tmp_path: Path) -> None:
    weights = tmp_path / "unet.pt"
    weights.write_bytes(b"weights")
    item = model_item(UNET, weights, tmp_path / "unet.json", classes=CLASSES, created="2024-08-01")
    properties = item.properties
    assert {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"} <= properties.keys()
    bands = item.assets["model"].extra_fields["raster:bands"]
    assert bands == [{"name": "red"}, {"name": "nir"}]  # which mlm:input refers to
    assert properties["mlm:input"][0]["bands"] == ["red", "nir"]
    assert properties["mlm:input"][0]["input"]["dim_order"] == ["batch", "bands", "height", "width"]
    assert properties["mlm:output"][0]["classification:classes"][0]["name"] == "winter-wheat"
    assert "mlm:model" in (item.assets["model"].roles or [])
    document(item)
    kept = pystac.Item.from_file(tmp_path / "unet.json")
    assert kept.assets["model"].href == "./unet.pt"
    known = Model(**{**vars(UNET), "item": str(tmp_path / "unet.json")})
    made = stac_item(chart, datetime="2024-06-01", model=known)
    (link,) = made.links
    assert (link.rel, link.href, link.extra_fields["mlm:name"]) == ("derived_from", known.item, UNET.name)
    assert made.properties["processing:expression"] == {"format": "stac-mlm", "expression": known.item}
    assert made.datetime == dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
    document(made)


def test_a_written_item_lies_beside_its_map_and_replays(chart: Path, tmp_path: Path) -> None:
    place = chart.parent / "crops.json"
    stac_item(gp.rasters(str(chart)), place, datetime=("2024-04-01", "2024-10-01"))
    assert sorted(entry.name for entry in chart.parent.iterdir()) == ["crops.json", "crops.tif"]
    assert json.loads(place.read_text())["assets"]["data"]["href"] == "./crops.tif"
    moved = chart.parent.rename(tmp_path / "elsewhere")
    cubes = gp.items(str(moved / "crops.json")).stack()
    (chip,) = cubes.chip((64, 48)).read()
    assert (chip["data"] == 1).all()


def test_what_the_raster_s_own_item_says_of_its_time_counts(chart: Path) -> None:
    late = imagery("late", "2024-07-01T10:00:00+00:00")
    dated = gp.rasters(str(chart), datetime=lambda path: "2024-06-09")
    assert dated.stac_item(derived_from=[late]).datetime == dt.datetime(2024, 6, 9, tzinfo=dt.UTC)
    assert gp.rasters(str(chart)).stac_item(derived_from=[late]).datetime == late.datetime


def test_bands_and_files_of_several(tmp_path: Path) -> None:
    path = tmp_path / "two.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=4, width=4, count=2, dtype="uint8", crs="EPSG:32633",
        transform=Affine(10, 0, 500_000, 0, -10, 5_000_000),
    ) as file:  # fmt: skip
        file.write(np.ones((2, 4, 4), np.uint8))
    item = stac_item(path, datetime="2024-06-01", classes=CLASSES, band=2)
    bands = item.assets["data"].extra_fields["raster:bands"]
    assert ["classification:classes" in band for band in bands] == [False, True]
    assert item.assets["data"].media_type == pystac.MediaType.GEOTIFF


def test_bad_input_is_named(chart: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not known; write datetime="):
        stac_item(chart)
    with pytest.raises(SourceError, match="write it as '2024-06-01'"):
        stac_item(chart, datetime="last summer")
    with pytest.raises(SourceError, match="no place to be found at"):
        stac_item(xr.DataArray(np.ones((2, 2))), datetime="2024-06-01")
    with pytest.raises(SourceError, match="counted from 1"):
        stac_item(chart, datetime="2024-06-01", classes=CLASSES, band=2)
    with pytest.raises(SourceError, match="an axis for each number"):
        model_item(Model("a", "b", ("regression",), ("red",), (-1, 1), (-1, 1)), tmp_path / "w.pt")
    with pytest.raises(SourceError, match="name both"):
        model_item(Model("a", "b", ("regression",), (), (-1, 1, 4, 4), (-1, 1, 4, 4)), tmp_path / "w.pt")
