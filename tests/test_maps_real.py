"""Landsat 8 over Elkton, Virginia: learned on part of the ground, mapped on the rest, written as a COG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

import geopipes as gp
from geopipes.scores import Confusion
from geopipes.statistics import Statistics

pytestmark = pytest.mark.real

BANDS = ["B2", "B3", "B4", "B5", "B6", "B7"]
CLASSES = {0: "first", 1: "second", 2: "third"}  # the labels are numbers without a legend
BLOCK = 640  # metres; a field holds some
NONE = 255


def plans(folder: Path) -> tuple[gp.Plan[Any], ...]:
    """Plan chips of all ground on a grid of 10 m, dealt by blocks to learn from and to be mapped."""
    bands = gp.rasters(folder / "L8-B[2-7]-Elkton-VA.tiff", pattern=r"L8-(?P<band>B\d)-Elkton")
    labels = gp.rasters(folder / "L8-Labels-Elkton-VA.tiff")
    cubes = bands.stack(BANDS, resolution=10, resampling="bilinear").join(labels, name="label", nodata=NONE)
    return cubes.chip(24, overlap=8, edge="shift").split((0.5, 0.5), block=BLOCK, seed=6)


def batches(plan: gp.Plan[Any], stats: Statistics) -> gp.Pipe[Any]:
    samples = plan.read(threads=2).normalize(stats)
    return samples.tensor(image=BANDS, label="label", fill=0, time_axis=False).batch(32)


def learned(train: gp.Plan[Any], stats: Statistics) -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(len(BANDS), 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, len(CLASSES), 1))
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    labelled = [batch for batch in batches(train, stats) if (batch["label"] != NONE).any()]
    weights = 1 / torch.bincount(torch.cat([b["label"][b["label"] != NONE] for b in labelled]).long())
    for _ in range(10):
        for batch in labelled:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(
                model(batch["image"]), batch["label"].long(), weight=weights.float(), ignore_index=NONE
            )
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model


def test_the_rest_is_mapped_and_gdal_takes_it_for_a_cog(real_data: Path, tmp_path: Path) -> None:
    train, rest = plans(real_data / "landsat8_elkton")
    gp.audit(train, rest, insist=True)
    stats = train.statistics(variables=BANDS)
    predicted = batches(rest, stats).predict(learned(train, stats))
    drawn = predicted.stitch(activation="softmax", classes=True, probability=True)
    kind, sure = drawn.write(tmp_path / "elkton_{name}.tif", classes=CLASSES, colors={0: "#205020"})
    paths = [Path(item.assets["data"].href) for item in (kind, sure)]
    for path in paths:
        check_cog(path)
    labels = gp.rasters(real_data / "landsat8_elkton" / "L8-Labels-Elkton-VA.tiff")
    both = gp.items([kind]).stack({"kind": "data"}).join(labels, name="label", nodata=NONE)
    found = both.chip(256, edge="pad").read().scores("kind", "label", classes=CLASSES).whole
    assert isinstance(found, Confusion)
    commonest = found.counts.sum(axis=1).max() / found.total
    assert found.accuracy > commonest + 0.05
    kinds, probability = (read(path) for path in paths)
    mapped = ~kinds.mask
    np.testing.assert_array_equal(mapped, ~probability.mask)
    assert set(np.unique(kinds.compressed())) <= {*CLASSES}
    assert 1 / 3 <= probability.min() <= probability.max() <= 1
    with rasterio.open(paths[0]) as file:
        table = rest.table(crs=file.crs)
        ground = rasterio.features.geometry_mask(table.geometry, file.shape, file.transform, invert=True)
        assert file.res == (10, 10)
    np.testing.assert_array_equal(mapped, ground)  # as much as the chips of the rest cover, and no more


def read(path: Path) -> Any:
    with rasterio.open(path) as file:
        return file.read(1, masked=True)


def check_cog(path: Path) -> None:
    """Check what GDAL's own validator of Cloud-optimized GeoTIFFs checks of the layout."""
    with rasterio.open(path) as file:
        assert file.driver == "GTiff"
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.block_shapes == [(512, 512)]
        levels = len(file.overviews(1))
        assert levels >= 1

        def tag(name: str, level: int) -> int:
            return int(file.get_tag_item(name, "TIFF", bidx=1, **({"ovr": level - 1} if level else {})))

        directories = [tag("IFD_OFFSET", level) for level in range(levels + 1)]
        pixels = [tag("BLOCK_OFFSET_0_0", level) for level in range(levels + 1)]
        assert directories == sorted(directories)  # from the whole image to the smallest overview
        assert max(directories) < min(pixels)  # all directories before all pixels
        assert pixels == sorted(pixels, reverse=True)  # the smallest overview's first
        start = path.read_bytes()[:400]
        assert b"LAYOUT=IFDS_BEFORE_DATA" in start
        assert b"KNOWN_INCOMPATIBLE_EDITION=NO" in start
