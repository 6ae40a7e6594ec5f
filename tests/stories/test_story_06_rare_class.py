"""Story 6, a rare class: strata, negatives beside positives, known probabilities; no image is opened to choose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import shapes

import geopipes as gp
from geopipes.testing import Synthetic, synthetic_scenes

WHEAT = 3  # winter wheat, about a twelfth of the land
SHARES = {"positive": 0.4, "negative": 0.6}
STRATA, EDGES = (0.3, 0.3, 0.4), (0.05, 0.3)  # of the negatives, by their share of corn


@pytest.fixture(scope="module")
def farmland(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    return synthetic_scenes(tmp_path_factory.mktemp("farmland"), dates=("2024-05-03", "2024-06-07"), size=256)


@pytest.fixture(scope="module")
def wheat(farmland: Synthetic) -> gpd.GeoDataFrame:
    """Give the fields of winter wheat, as a survey would."""
    with rasterio.open(farmland.label) as file:
        cover = file.read(1)
        found = [shapely.geometry.shape(shape) for shape, _ in shapes(cover, cover == WHEAT, transform=file.transform)]
        fields = gpd.GeoDataFrame(geometry=found, crs=file.crs)
    return fields[fields.area > 20_000]


@contextmanager
def images_away(farmland: Synthetic) -> Iterator[None]:
    """Take the folders of all images away; the label stays where it is."""
    folders = {Path(asset.href).parent for item in farmland.items for asset in item.assets.values()}
    for folder in folders:
        folder.rename(folder.with_suffix(".away"))
    try:
        yield
    finally:
        for folder in folders:
            folder.with_suffix(".away").rename(folder)


def parts(farmland: Synthetic, wheat: gpd.GeoDataFrame, folder: Path) -> dict[str, gp.Plan[Any]]:
    """Draw positives inside the fields, and negatives near them, by strata of another class."""
    grid: dict[str, Any] = {"crs": "utm", "resolution": 10}
    labels = gp.rasters(farmland.label)
    cubes = gp.items(farmland.items).stack(["red", "nir"], groupby="solar_day", **grid)
    cover = labels.stack({"crop": "data"}, **grid)
    cubes = cubes.join(labels, name="crop", nodata=255)
    positive = cubes.inside(wheat, 16, n=60, seed=0).measure(folder / "positive.parquet", share="crop", on=cover)
    negative = (
        cubes.draw(16, n=2_000, seed=1)
        .away(wheat, 20, within=1_500)  # metres
        .away(positive, 0)
        .measure(folder / "negative.parquet", share="crop", on=cover)
        .stratify(90, by="share_1", edges=EDGES, shares=STRATA, seed=2)
    )
    return {"positive": positive, "negative": negative}


def chosen(plans: dict[str, gp.Plan[Any]]) -> gp.Plan[Any]:
    return gp.mix(plans, shares=SHARES, n=100, seed=3).shuffle(seed=4)


def test_classes_are_chosen_without_an_image(farmland: Synthetic, wheat: gpd.GeoDataFrame, tmp_path: Path) -> None:
    with images_away(farmland):
        plans = parts(farmland, wheat, tmp_path)
        plan = chosen(plans)
        rows = plan.table(crs="EPSG:5070")
        assert gp.audit(plans["positive"], plans["negative"], insist=True)["overlap"].tolist() == [0]
        with pytest.raises(gp.errors.ReadError):
            next(iter(plan.read()))
    # Shares: as asked, and as the pixels say.
    assert rows.source.value_counts().to_dict() == {name: 100 * share for name, share in SHARES.items()}
    strata = plans["negative"].table().stratum.value_counts(normalize=True).sort_index()
    np.testing.assert_allclose(strata, STRATA, atol=0.5 / 90)
    batches = plan.read(threads=2).tensor(
        image=["red", "nir"], label="crop", fill=0, columns=["probability", "source", "share_1"]
    )
    seen = 0
    for batch in batches.batch(20):
        own = rows.loc[batch["chip"].tolist()]
        corn = (batch["label"] == 1).double().mean(dim=(1, 2))
        np.testing.assert_allclose(batch["share_1"], corn, atol=1e-12)
        np.testing.assert_array_equal(batch["probability"], own.probability)
        assert batch["source"] == own.source.tolist()
        rare = (batch["label"] == WHEAT).flatten(1).any(dim=1).numpy()
        assert rare[own.source == "positive"].mean() > 0.9
        seen += len(rare)
    assert seen == 100
    # No negative overlaps a positive, nor comes near to a field.
    sides = [rows[rows.source == name].geometry.union_all() for name in SHARES]
    assert sides[0].intersection(sides[1]).area < 1e-3  # m2
    far = rows[rows.source == "negative"].distance(wheat.to_crs(5070).union_all())
    assert far.min() >= 19.9
    assert far.max() <= 1_510


def test_each_negative_stands_for_those_that_were_not_chosen(
    farmland: Synthetic, wheat: gpd.GeoDataFrame, tmp_path: Path
) -> None:
    """1 / p counts the places of a chip that negatives were drawn from, stratum by stratum."""
    negative = parts(farmland, wheat, tmp_path)["negative"]
    chosen, drawn = negative.table(), negative._parent.table()  # type: ignore[union-attr]  # after the strata, before
    every = (1 / drawn.probability).groupby(np.digitize(drawn.share_1, EDGES)).sum()
    weighed = (1 / chosen.probability).groupby(chosen.stratum).sum()
    np.testing.assert_allclose(weighed, every, rtol=2e-3)  # UTM's pixels are not all of one area
    assert len(chosen) == 90 < len(drawn)
