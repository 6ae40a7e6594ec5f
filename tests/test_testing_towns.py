from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize

import geopipes as gp
from geopipes.errors import GridError
from geopipes.testing import Town, synthetic_town
from geopipes.testing.bodies import Building, Tree
from geopipes.testing.streets import Streets

SMALL: dict[str, Any] = {"size": 192, "tiles": 1}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return synthetic_town(tmp_path_factory.mktemp("town"), seed=3, size=384)


def image(town: Town) -> NDArray[Any]:
    """(band, y, x), all tiles together."""
    tiles = []
    for item in town.items:
        with rasterio.open(item.assets["image"].href) as file:
            tiles.append(file.read())
    side = round(len(tiles) ** 0.5)
    return np.block([[tiles[row * side + column] for column in range(side)] for row in range(side)])


def label(town: Town) -> NDArray[Any]:
    with rasterio.open(town.label) as file:
        return np.asarray(file.read(1))


def files(town: Town) -> list[bytes]:
    return [path.read_bytes() for path in sorted(town.label.parent.iterdir())]


def test_the_same_seed_gives_the_same_files_and_another_gives_others(tmp_path: Path) -> None:
    towns = [synthetic_town(tmp_path / name, seed=seed, **SMALL) for name, seed in (("a", 5), ("b", 5), ("c", 6))]
    one, same, other = towns
    assert files(one) == files(same)
    assert all(left != right for left, right in zip(files(one), files(other), strict=True))
    documents = [json.dumps(made.items.to_dict()).replace(str(made.label.parent), "FOLDER") for made in towns]
    assert documents[0] == documents[1] == documents[2]  # where they lie is not the seed's


def test_a_place_is_the_same_however_much_of_the_town_is_seen(town: Town, tmp_path: Path) -> None:
    less = synthetic_town(tmp_path, seed=3, **SMALL)
    middle = slice(96, 288)
    np.testing.assert_array_equal(image(town)[:, middle, middle], image(less))
    np.testing.assert_array_equal(label(town)[middle, middle], label(less))
    left, right = (gpd.read_parquet(each.buildings) for each in (town, less))
    whole = right[right.within(shapely.box(*less.geobox.boundingbox).buffer(-0.1))]
    assert len(whole) > 10
    assert whole.geometry.isin(left.geometry).all()


def test_items_say_what_their_files_are(town: Town) -> None:
    assert [item.id for item in town.items] == ["town_0_0", "town_0_1", "town_1_0", "town_1_1"]
    for item in town.items:
        asset = item.assets["image"]
        with rasterio.open(asset.href) as file:
            assert file.crs.to_string() == item.properties["proj:code"]
            assert list(file.shape) == asset.extra_fields["proj:shape"] == [192, 192]
            assert list(file.transform)[:6] == asset.extra_fields["proj:transform"]
            assert file.descriptions == ("red", "green", "blue", "nir")
            assert file.nodata == 0
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            bounds = gpd.GeoSeries([shapely.box(*file.bounds)], crs=file.crs).to_crs(4326)
            assert bounds[0].hausdorff_distance(shapely.geometry.shape(item.geometry or {})) < 1e-7
    assert image(town).min() > 0
    cube = next(iter(gp.items(town.items).stack(["red", "nir"], groupby="solar_day")))
    assert cube["red"].shape == (1, 384, 384)
    np.testing.assert_array_equal(cube["nir"].load()[0], image(town)[3])


def test_footprints_are_the_label(town: Town) -> None:
    table = gpd.read_parquet(town.buildings)
    assert table.crs == town.geobox.crs
    assert table.geometry.is_valid.all()
    assert set(table.geom_type) == {"Polygon"}
    assert table.within(shapely.box(*town.geobox.boundingbox).buffer(1e-6)).all()
    np.testing.assert_allclose(table["area"], table.geometry.area)
    burnt = rasterize(table.geometry, town.geobox.shape, transform=town.geobox.affine, dtype="uint8")
    np.testing.assert_array_equal(label(town), burnt)
    assert label(town).sum() == pytest.approx(table["area"].sum(), rel=0.02)  # pixels of a square metre
    sizes = table.groupby("use")["area"].median()
    assert 15 < sizes["garage"] < 35 < 60 < sizes["home"] < 200 < sizes["shop"]


def test_roofs_cover_their_footprints_and_shadows_fall_away_from_the_sun() -> None:
    blocks = [Streets(0).block(column, row) for column in range(4) for row in range(4)]
    bodies: list[Building | Tree] = []
    for block in blocks:
        bodies += [*block.buildings, *block.trees]
        for building in block.buildings:
            roof = shapely.union_all([face for face, _ in building.roof])
            outline = building.footprint
            assert outline.symmetric_difference(roof).area == pytest.approx(roof.difference(outline).area, abs=1e-6)
            assert roof.difference(outline).area < 0.02 * outline.area  # what stands at the edge of a flat roof
    assert len(bodies) > 300
    for body in bodies:
        shade = body.shadow()
        away = np.subtract(shade.centroid.coords[0], _middle(body))
        assert away == pytest.approx(np.array([-0.25, 0.435]) * body.height, abs=0.25 * np.sqrt(shade.area))


def _middle(body: Building | Tree) -> tuple[float, float]:
    middle = body.footprint.centroid if isinstance(body, Building) else shapely.Point(body.x, body.y)
    return middle.x, middle.y


def test_no_colour_alone_tells_buildings(town: Town) -> None:
    """The best single threshold on any band, or on the vegetation index, finds less than half of what it should."""
    bands, truth = image(town).astype(float), label(town) == 1
    index = (bands[3] - bands[0]) / (bands[3] + bands[0])
    for layer in (*bands, *-bands, index, -index):
        best = max(_iou(layer > cut, truth) for cut in np.quantile(layer, np.linspace(0.05, 0.95, 46)))
        assert best < 0.5


def _iou(answer: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((answer & truth).sum() / (answer | truth).sum())


@pytest.mark.parametrize("options", [{"size": 100, "tiles": 3}, {"size": 60, "tiles": 2}, {"tiles": 0}])
def test_what_cannot_be_made_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(
        GridError, match=r"tiles have 32 px or more and share the size evenly; write size=1024, tiles=2"
    ):
        synthetic_town(tmp_path, **options)
    assert not list(tmp_path.iterdir())
