"""Story 3, field boundaries: two seasons, overlapping chips, a blended map, one polygon for each field, a STAC item."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from shapely.geometry import shape
from torch import Tensor, nn

import geopipes as gp
from geopipes.errors import MapError
from geopipes.maps import Model
from geopipes.testing import Synthetic, synthetic_scenes

BANDS = ["red", "nir"]
CLOUDS = (3, 8, 9)  # of the scene classification: shadow, and clouds of medium and high probability
DATES = ("2024-05-03", "2024-07-12")  # winter crops are green at the first alone, summer crops at the second
CLASSES = {0: "other", 1: "winter crop", 2: "summer crop"}
SIZE, OVERLAP = 48, 16  # pixels


class Seasons(nn.Module):
    """Scores classes, (N, class, y, x), by how the NDVI changes from one window to the other: (N, date, band, y, x)."""

    def forward(self, image: Tensor) -> Tensor:
        red, nir = image[:, :, 0], image[:, :, 1]
        ndvi = (nir - red) / (nir + red).clamp(min=1e-6)
        rise = ndvi[:, 1] - ndvi[:, 0]
        return torch.stack([torch.full_like(rise, 0.25), -rise, rise], dim=1)


class Constant(nn.Module):
    """Answers 0.7 everywhere, whatever it sees."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.full((len(image), *image.shape[-2:]), 0.7)


class Moody(nn.Module):
    """Answers a chip's own mean at all its pixels: neighbours differ as much as they can."""

    def forward(self, image: Tensor) -> Tensor:
        return image[:, 0, 1].mean(dim=(1, 2))[:, None, None].expand(-1, *image.shape[-2:])


@pytest.fixture(scope="module")
def seasons(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    return synthetic_scenes(tmp_path_factory.mktemp("seasons"), dates=DATES, zones=(14,), size=256)


def cubes(seasons: Synthetic, **grid: Any) -> gp.Pipe[Any]:
    stacked = gp.items(seasons.items).stack([*BANDS, "scl"], resolution=10, groupby="solar_day", **grid)
    return stacked.mask_values("scl", CLOUDS).scale(BANDS, factor=1e-4)


def samples(plan: gp.Plan[Any], cache: int = 10_000_000) -> gp.Pipe[Any]:
    return plan.read(threads=2, cache=cache).tensor(image=BANDS, fill=0).map(seen_twice)


def seen_twice(sample: dict[str, Any]) -> dict[str, Any]:
    """Take a pixel for known where both dates saw it; one date alone tells no change."""
    return sample | {"image_valid": sample["image_valid"].all(dim=0)}


def chips(seasons: Synthetic) -> gp.Plan[Any]:
    return cubes(seasons).chip(SIZE, overlap=OVERLAP, edge="shift")


def test_fields_come_out_whole_and_are_published(seasons: Synthetic, tmp_path: Path) -> None:
    drawn = samples(chips(seasons)).predict(Seasons(), batch=8).stitch(activation="softmax", classes=True)
    chart = drawn.write(tmp_path / "crops.tif", classes=CLASSES, colors={1: "#e0b000", 2: "#2e8b57"})
    with rasterio.open(tmp_path / "crops.tif") as file:
        crops, transform = file.read(1), file.transform
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"

    # No seam: overlapping chips give what the whole area gives at once, and what is not seen is nodata.
    whole = next(iter(samples(cubes(seasons).chip(256))))
    valid = whole["image_valid"].numpy()
    at_once = Seasons()(whole["image"][None]).argmax(dim=1)[0].numpy()
    assert 0 < valid.sum() < valid.size
    np.testing.assert_array_equal(crops, np.where(valid, at_once, 255))

    # A field over four tiles is one polygon: what all tiles hold of it.
    exact = chart.polygonize(classes=[1, 2])
    boxes, pieces = cut(crops, transform, exact.crs)
    spread = exact[[shapely.intersects(boxes, field.buffer(-1)).sum() >= 4 for field in exact.geometry]]
    assert len(spread) > 5
    for value, field in zip(spread["class"], spread.geometry, strict=True):
        own = pieces[(pieces["class"] == value) & pieces.representative_point().within(field)]
        assert len(own) >= 4
        assert own.union_all().symmetric_difference(field).area < 1e-6

    # Cleaned, and kept.
    options: dict[str, Any] = {"classes": {1: "winter crop", 2: "summer crop"}, "smallest": 2_000, "holes": 1_000}
    fields = chart.polygonize(tmp_path / "fields.parquet", simplify=10, **options)
    assert fields.area_m2.min() >= 2_000
    assert 10 < len(fields) < len(exact) / 2  # what was small is gone

    kept = gpd.read_parquet(tmp_path / "fields.parquet")
    assert kept.geometry.geom_equals(fields.geometry).all()
    assert kept.name.tolist() == fields.name.tolist()
    publish(seasons, chart, str(drawn), tmp_path)


def cut(crops: NDArray[Any], transform: Affine, crs: Any) -> tuple[list[shapely.Polygon], gpd.GeoDataFrame]:
    """Give the outlines of the tiles without their overlap, and the polygons that each makes by itself."""
    step = SIZE - OVERLAP
    boxes, rows = [], []
    for row in range(0, len(crops), step):
        for col in range(0, len(crops), step):
            tile, place = crops[row : row + step, col : col + step].copy(), transform @ Affine.translation(col, row)
            boxes.append(shapely.box(*rasterio.transform.array_bounds(*tile.shape, place)))
            rows += [(value, shape(found)) for found, value in shapes(tile, np.isin(tile, (1, 2)), transform=place)]
    return boxes, gpd.GeoDataFrame(rows, columns=["class", "geometry"], geometry="geometry", crs=crs)


def publish(seasons: Synthetic, chart: gp.Pipe[Any], lineage: str, folder: Path) -> None:
    """Describe the map, and read the description as another would."""
    axes = ("batch", "time", "bands", "height", "width")
    seen, told = (-1, 2, len(BANDS), SIZE, SIZE), (-1, len(CLASSES), SIZE, SIZE)
    model = Model("seasons", "NDVI of two windows", ["semantic-segmentation"], BANDS, seen, told, input_axes=axes)
    chart.stac_item(folder / "crops.json", classes=CLASSES, model=model, lineage=lineage, derived_from=seasons.items)
    item = pystac.Item.from_file(str(folder / "crops.json"))
    assert [item.properties[f"{end}_datetime"][:10] for end in ("start", "end")] == list(DATES)
    assert ".predict(Seasons, batch=8)" in item.properties["processing:lineage"]
    assert "Seasons" in json.dumps(item.to_dict())
    cube = next(iter(gp.items([item]).stack({"crop": "data"})))
    with rasterio.open(folder / "crops.tif") as file:
        np.testing.assert_array_equal(cube["crop"].load()[0], file.read(1))


@pytest.mark.parametrize("blend", ["hann", "gaussian", "linear", "mean", "crop"])
def test_a_constant_model_gives_a_constant_map(seasons: Synthetic, blend: Any) -> None:
    drawn = samples(chips(seasons)).predict(Constant()).stitch(blend=blend).load()
    values = drawn["prediction"].values
    assert values.shape == (256, 256)
    np.testing.assert_array_equal(values[drawn["valid"].values], np.float32(0.7))
    assert np.isnan(values[~drawn["valid"].values]).all()


def test_blending_leaves_no_seam_where_chips_disagree(seasons: Synthetic) -> None:
    """Steps between pixels beside each other: over a chip's edge at once, or spread over what chips share."""

    def steepest(overlap: int, blend: Any) -> float:
        plan = cubes(seasons).chip(SIZE, overlap=overlap, edge="shift")
        values = samples(plan).predict(Moody()).stitch(blend=blend).load()["prediction"].values
        return float(np.nanmax([np.nanmax(np.abs(np.diff(values, axis=axis))) for axis in (0, 1)]))

    plain = steepest(SIZE // 2, "crop")
    assert steepest(SIZE // 2, "hann") < 0.2 * plain
    assert steepest(0, "hann") > plain / 2


def test_memory_is_flat_as_the_area_grows_fourfold(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The area grows southwards: a map in the making is one row of chips, whatever is above and below.

    What is counted are Python's and numpy's allocations. No decoded tile is kept, and so none counts. How many chips
    wait at the fullest moment is chance, up to a quarter; three classes' scores of the whole area would be 3 MB of 4.
    """
    large = synthetic_scenes(tmp_path_factory.mktemp("large"), dates=DATES, zones=(14,), size=1024)
    folder = tmp_path_factory.mktemp("maps")
    whole = next(iter(cubes(large))).odc.geobox.boundingbox
    peaks: list[int] = []
    strips: list[int] = []
    for height in (256, 256, 256, 1024):  # pixels; at first, much is imported, compiled and kept
        bounds = (whole.left, whole.top - 10 * height, whole.left + 10 * 256, whole.top)
        plan = cubes(large, bounds=bounds).chip(96, overlap=32, edge="shift")
        drawn = samples(plan, cache=0).predict(Seasons(), batch=1).stitch(activation="softmax")
        tracemalloc.start()
        drawn.write(folder / f"{len(peaks)}.tif")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        strips.append(max(strip.sizes["y"] for strip in drawn))
    assert max(strips) <= 96
    assert peaks[3] < 1.4 * max(peaks[1:3])
    assert not list(folder.glob("*.partial"))


def test_chips_in_another_order_are_refused(seasons: Synthetic) -> None:
    with pytest.raises(MapError, match="from top to bottom"):
        samples(chips(seasons).shuffle(seed=0)).predict(Constant()).stitch().load()
