"""What a band's name means, item by item."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pystac
import pytest

from geopipes.errors import SourceError, UnknownBand
from geopipes.read.bands import Place, data, find, wanted

TIFF = pystac.MediaType.COG


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


SENTINEL = item(
    {
        "visual": asset(roles=["data"], eo_bands=[{"name": "B04", "common_name": "red"}, {"name": "B03"}]),
        "overview": asset(eo_bands=[{"name": "B04", "common_name": "red"}]),
        "B04-jp2": asset(media_type="image/jp2", eo_bands=[{"name": "B04", "common_name": "red"}]),
        "r": asset(eo_bands=[{"name": "B04", "common_name": "red"}]),
        "re1": asset(eo_bands=[{"name": "B05", "common_name": "rededge"}]),
        "re2": asset(bands=[{"name": "B06", "eo:common_name": "rededge"}]),
        "stack": asset(raster_bands=[{"name": "vv"}, {"name": "vh"}, {"name": "angle"}]),
        "B03": asset(roles=["data"]),
        "meta": asset(media_type="application/xml", eo_bands=[{"name": "secret"}]),
    }
)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("visual", Place("visual")),
        ("B03", Place("B03")),  # the key comes before the band name in visual
        ("B04", Place("r", 1)),  # one band before many, not the overview, not the JPEG 2000 twin
        ("red", Place("r", 1)),
        ("B06", Place("re2", 1)),
        ("vh", Place("stack", 2)),
        ("stack#3", Place("stack", 3)),
        ("st*", Place("stack")),
        ("st?ck#2", Place("stack", 2)),
        ("meta", Place("meta")),  # by its key alone
    ],
)
def test_a_name_means_a_place(name: str, place: Place) -> None:
    assert find(SENTINEL, name) == place


@pytest.mark.parametrize("name", ["nothing", "secret", "nothing#1", "stack#0", "#1", "B06#1", "x*"])
def test_an_unknown_band_says_which_there_are(name: str) -> None:
    with pytest.raises(
        UnknownBand, match=r"item 'scene' has no band '.*'; there are: visual \(B04, B03, red\), "
    ) as info:
        find(SENTINEL, name)
    assert "stack (vv, vh, angle)" in str(info.value)
    assert "meta" not in str(info.value)


@pytest.mark.parametrize(("name", "meant"), [("RED", "red"), ("gren", "green"), ("B04", "red"), ("B8A", "nir08")])
def test_an_unknown_band_says_which_may_be_meant(name: str, meant: str) -> None:
    bands = item({key: asset() for key in ("red", "green", "nir08")}, platform="sentinel-2b")
    with pytest.raises(UnknownBand, match=rf"there are: red, green, nir08; did you mean '{meant}'\?$"):
        find(bands, name)
    with pytest.raises(UnknownBand, match=r"there are: red, green, nir08$"):  # B04 of another platform
        find(item({key: asset() for key in ("red", "green", "nir08")}, platform="landsat-8"), "B04")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rededge", r"item 'scene': 'rededge' may mean 're1#1', 're2#1'; write one of these"),
        ("re*", r"'re\*' may mean 're1', 're2'; write one of these"),
    ],
)
def test_an_ambiguous_name_says_what_it_may_mean(name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        find(SENTINEL, name)


def test_a_mapping_renames_and_tries_alternatives_item_by_item() -> None:
    bands = {"red": ["B04", "SR_B4"], "scl": "SCL"}
    a, b = item({"B04": asset(), "SCL": asset()}), item({"SR_B4": asset(), "SCL": asset()})
    assert wanted(a, bands) == {"red": Place("B04"), "scl": Place("SCL")}
    assert wanted(b, bands) == {"red": Place("SR_B4"), "scl": Place("SCL")}
    with pytest.raises(UnknownBand, match=r"has no band 'B04 or SR_B4'; there are: SCL"):
        wanted(item({"SCL": asset()}), bands)
    with pytest.raises(SourceError, match=r"bands='red': a list is needed; write bands=\['red'\]"):
        wanted(a, "red")


def test_all_data_is_what_is_not_there_to_be_looked_at() -> None:
    found = data(
        item(
            {
                "red": asset(roles=["data", "reflectance"], eo_bands=[{"name": "B04"}]),
                "red-jp2": asset(media_type="image/jp2", roles=["data"], eo_bands=[{"name": "B04"}]),
                "image": asset(eo_bands=[{"name": "Green"}, {"name": "Blue"}]),
                "embeddings": asset(raster_bands=[{"data_type": "int8"}] * 64),
                "qa": asset(roles=["cloud"]),
                "plain": asset("a.TIF?sig=1", media_type=None),
                "visual": asset(roles=["data"]),
                "rgb": asset(roles=["visual"]),
                "browse": asset(roles=["overview"]),
                "mtl": asset(roles=["metadata"]),
                "html": asset(media_type="text/html"),
                "png": asset("a.png", media_type=None),
            }
        )
    )
    assert found == {
        "red": Place("red"),
        "Green": Place("image", 1),
        "Blue": Place("image", 2),
        "embeddings": Place("embeddings"),
        "qa": Place("qa"),
        "plain": Place("plain"),
    }


def test_all_data_with_one_name_twice_asks_which() -> None:
    twice = item({"a": asset(eo_bands=[{"name": "x"}, {"name": "y"}]), "y": asset()})
    with pytest.raises(
        SourceError, match=r"'y' is in asset 'a' and in 'y'; write bands=\['a#2', \.\.\.\] to say which"
    ):
        data(twice)
