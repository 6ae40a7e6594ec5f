from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry import box

from geopipes.errors import GridError
from geopipes.testing import CLASSES, Synthetic, synthetic_scenes, world
from geopipes.testing.views import View

VALUES = {entry.name: entry.value for entry in CLASSES}
CLOUDS = (8, 9)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    return synthetic_scenes(tmp_path_factory.mktemp("scenes"), seed=3, size=192)


def read(item: pystac.Item, asset: str) -> NDArray[Any]:
    with rasterio.open(item.assets[asset].href) as file:
        return np.asarray(file.read(1))


def read_at(path: str | Path, x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """The pixels that hold some places of EPSG:5070; 0 outside the file."""
    with rasterio.open(path) as file:
        there = Transformer.from_crs("EPSG:5070", file.crs, always_xy=True).transform(x, y)
        rows, columns = (np.asarray(at) for at in rasterio.transform.rowcol(file.transform, *there))
        inside = (rows >= 0) & (rows < file.height) & (columns >= 0) & (columns < file.width)
        return np.where(inside, file.read(1)[rows * inside, columns * inside], 0)


def label_places(scenes: Synthetic) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """x, y and class of every label pixel's middle."""
    with rasterio.open(scenes.label) as file:
        rows, columns = (index.ravel() for index in np.indices(file.shape))
        x, y = rasterio.transform.xy(file.transform, rows, columns)
        return np.asarray(x), np.asarray(y), file.read(1).ravel()


def footprint(item: pystac.Item, crs: Any = "EPSG:4326") -> shapely.Polygon:
    """An item's geometry in another CRS."""
    assert item.geometry is not None
    to = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    corners = np.array(item.geometry["coordinates"][0])
    return shapely.Polygon(np.stack(to.transform(*corners.T), axis=1))


def pixels_and_json(folder: Path, **options: Any) -> tuple[list[NDArray[Any]], str]:
    made = synthetic_scenes(folder, **options)
    pixels = [read(item, asset) for item in made.items for asset in sorted(item.assets)]
    with rasterio.open(made.label) as file:
        pixels.append(file.read(1))
    return pixels, json.dumps(made.items.to_dict()).replace(str(folder), "FOLDER")


# The world


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), cut=st.integers(1, 39), east=st.floats(-50_000, 50_000))
def test_land_depends_on_the_place_alone(seed: int, cut: int, east: float) -> None:
    x, y = np.meshgrid(east + np.arange(40) * 37.0, 2_040_000 + np.arange(30) * 41.0)
    whole = world.land(x, y, seed=seed)
    for part in (np.s_[:, :cut], np.s_[:, cut:], np.s_[::-3, ::2]):
        alone = world.land(x[part], y[part], seed=seed)
        for name in ("cover", "leaf_lag", "brightness", "vigour"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(whole, name)[part])


@given(seed=st.integers(0, 2**31), scale=st.floats(20, 5_000), octaves=st.integers(1, 5))
def test_noise_is_smooth_and_between_0_and_1(seed: int, scale: float, octaves: int) -> None:
    x = np.linspace(-3 * scale, 3 * scale, 5_000)
    noise = world.smooth_noise(x, np.zeros_like(x), seed=seed, layer="any", scale=scale, octaves=octaves)
    assert noise.min() >= 0
    assert noise.max() < 1
    steepest = 1.5 * octaves / (2 - 0.5 ** (octaves - 1)) / scale  # each octave: half the weight, twice the slope
    assert np.abs(np.diff(noise)).max() <= steepest * (x[1] - x[0]) * 1.001


# The scenes


def test_the_same_seed_gives_the_same_scenes_and_another_gives_others(tmp_path: Path) -> None:
    small: dict[str, Any] = {"size": 64, "dates": ["2024-06-07"]}
    pixels, items = pixels_and_json(tmp_path / "a", seed=5, **small)
    again, items_again = pixels_and_json(tmp_path / "b", seed=5, **small)
    others, _ = pixels_and_json(tmp_path / "c", seed=6, **small)
    assert items == items_again
    for one, same, other in zip(pixels, again, others, strict=True):
        np.testing.assert_array_equal(one, same)
        assert (one.shape != other.shape) or (one != other).any()


def test_items_say_what_their_files_are(scenes: Synthetic) -> None:
    assert len(scenes.items) == 6
    assert len({item.datetime for item in scenes.items}) == 6
    assert [item.collection_id for item in scenes.items] == [scenes.collection.id] * 6
    for item in scenes.items:
        for name, asset in item.assets.items():
            with rasterio.open(asset.href) as file:
                assert file.crs.to_string() == item.properties["proj:code"]
                assert list(file.shape) == asset.extra_fields["proj:shape"]
                assert list(file.transform)[:6] == asset.extra_fields["proj:transform"]
                assert file.transform.c % 60 == file.transform.f % 60 == 0
                assert file.res == ((20, 20) if name == "scl" else (10, 10))
                (band,) = asset.extra_fields["raster:bands"]
                assert (file.nodata, file.dtypes[0]) == (band["nodata"], band["data_type"])
                structure = file.tags(ns="IMAGE_STRUCTURE")
                assert (structure["LAYOUT"], structure["COMPRESSION"]) == ("COG", "DEFLATE")
                assert structure["PREDICTOR"] == "2"
                assert file.block_shapes == [(256, 256)]
                assert file.overviews(1) == [2, 4]


def test_footprints_hold_what_was_seen(scenes: Synthetic) -> None:
    slanted = 0
    for item in scenes.items:
        seen = read(item, "scl") != 0
        bands = np.stack([read(item, band) for band in world.BANDS])
        np.testing.assert_array_equal((bands > 0).all(axis=0), seen.repeat(2, 0).repeat(2, 1))
        np.testing.assert_array_equal((bands > 0).any(axis=0), seen.repeat(2, 0).repeat(2, 1))
        assert item.properties["s2:nodata_pixel_percentage"] == pytest.approx(100 * (~seen).mean(), abs=1e-3)
        with rasterio.open(item.assets["scl"].href) as file:
            outline = footprint(item, file.crs)
            assert outline.area / box(*file.bounds).area == pytest.approx(seen.mean(), abs=0.01)
            rows, columns = np.nonzero(seen)
            x, y = rasterio.transform.xy(file.transform, rows, columns)
            assert shapely.contains_xy(outline.buffer(5), x, y).all()
        assert footprint(item).exterior.is_ccw
        assert item.bbox == list(footprint(item).bounds)
        slanted += bool((~seen).any())
    assert slanted == 2
    assert scenes.bbox == tuple(shapely.union_all([footprint(item) for item in scenes.items]).bounds)


def test_scl_names_clouds_and_shadows_truly(scenes: Synthetic) -> None:
    brighter, darker = [], []
    for item in scenes.items:
        scl = read(item, "scl")
        fine = scl.repeat(2, 0).repeat(2, 1)
        assert set(np.unique(scl)) <= {0, 3, 4, 5, 6, 8, 9}
        cloudy = np.isin(scl[scl != 0], CLOUDS)
        assert item.properties["eo:cloud_cover"] == pytest.approx(100 * cloudy.mean(), abs=1e-3)

        assert item.datetime is not None
        view = View.of(int(item.properties["proj:code"][-2:]), size=192, seed=3)
        leaves = world.leaf_cover(view.ground, item.datetime.date())
        truth = dict(zip(world.BANDS, world.reflectance(view.ground, leaves), strict=True))
        blue, nir = (read(item, band) - truth[band] for band in ("blue", "nir"))
        # What no cloud and no shadow touches is the land itself but for the instrument's noise, sigma 35.
        clear = np.isin(fine, (4, 5, 6))
        assert np.abs(blue[clear]).max() < 6 * 35
        assert np.abs(nir[clear]).max() < 6 * 35
        brighter.append(blue[fine == 9])
        darker.append(nir[(fine == 3) & (view.ground.cover != world.WATER)])
    assert (np.concatenate(brighter) > 3_000).mean() > 0.9
    assert (np.concatenate(darker) < -200).mean() > 0.7
    shares = [item.properties["eo:cloud_cover"] for item in scenes.items]
    assert min(shares) < 10 < max(shares) < 70


def test_both_zones_see_the_same_land(scenes: Synthetic) -> None:
    x, y, _ = label_places(scenes)
    items = list(scenes.items)
    for west, east in zip(items[::2], items[1::2], strict=True):
        assert (west.properties["proj:code"], east.properties["proj:code"]) == ("EPSG:32614", "EPSG:32615")
        scl = [read_at(item.assets["scl"].href, x, y) for item in (west, east)]
        clear = np.isin(scl, (4, 5, 6)).all(axis=0)
        assert clear.sum() > 200
        # Pixels of 20 m whose middles are up to 14 m apart: fields' borders fall to one or the other.
        assert (scl[0][clear] == scl[1][clear]).mean() > 0.93
        nir = [read_at(item.assets["nir"].href, x[clear], y[clear]) for item in (west, east)]
        assert np.corrcoef(nir)[0, 1] > 0.9


def test_the_label_agrees_with_the_scenes(scenes: Synthetic) -> None:
    x, y, label = label_places(scenes)
    greenness = {}
    for month, item in zip((5, 6, 7), list(scenes.items)[::2], strict=True):
        scl, red, nir = (read_at(item.assets[name].href, x, y).astype(float) for name in ("scl", "red", "nir"))
        clear = np.isin(scl, (4, 5, 6))
        ndvi = (nir - red)[clear] / (nir + red)[clear]
        greenness[month] = {value: np.median(ndvi[label[clear] == value]) for value in np.unique(label[clear])}
        water = label[clear] == VALUES["water"]
        assert (scl[clear][water] == 6).mean() > 0.85
        assert (scl[clear][~water] == 6).mean() < 0.05
    corn, wheat, forest, bare = (VALUES[name] for name in ("corn", "winter wheat", "forest", "bare"))
    assert greenness[5][corn] < 0.3 < 0.6 < greenness[7][corn]
    assert greenness[7][wheat] < 0.3 < 0.6 < greenness[5][wheat]
    assert greenness[7][bare] < 0.3 < 0.7 < greenness[7][forest]


def test_the_label_covers_all_scenes_and_bears_its_colours(scenes: Synthetic) -> None:
    with rasterio.open(scenes.label) as file:
        assert (file.crs.to_string(), file.res, file.nodata) == ("EPSG:5070", (30, 30), 255)
        assert file.dtypes == ("uint8",)
        assert [file.colormap(1)[entry.value][:3] for entry in scenes.classes] == [c.colour for c in CLASSES]
        label = file.read(1)
        extent = box(*file.bounds)
        for item in scenes.items:
            assert extent.contains(footprint(item, file.crs))
    assert set(np.unique(label)) <= set(VALUES.values())
    assert len(np.unique(label)) > 5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 65}, r"size=65: scenes have pixels of 20 m too; write an even size of 32 or more"),
        ({"size": 16}, r"size=16: .* even size of 32 or more"),
        ({"zones": (31,)}, r"zones=\(31,\): the land lies in zones 14 and 15; write \(14, 15\)"),
        ({"dates": ()}, r"dates=\(\): there is no scene without a date; write one"),
    ],
)
def test_what_cannot_be_made_is_refused(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(GridError, match=text):
        synthetic_scenes(tmp_path, **options)
    assert not list(tmp_path.iterdir())
