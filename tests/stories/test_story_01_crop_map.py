"""Story 1, a crop map: a season's search, clouds out, composites, labels of another CRS, splits that share no ground.

The second run of the same program is another process, in which the API is gone: it gives the same bytes.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pystac
import pytest
import torch
from torch.utils.data import DataLoader

import geopipes as gp
from geopipes.testing import Synthetic, serve, synthetic_scenes

DATES = [f"2024-{month:02d}-{day:02d}" for month in range(4, 11) for day in (5, 19)]
BANDS = ["red", "green", "nir"]
IMAGE = [*BANDS, "NDVI"]
SEASON = "2024-04-01/2024-10-31"


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    return synthetic_scenes(tmp_path_factory.mktemp("season"), size=256, dates=DATES)


def prepared(chips: gp.Pipe[Any]) -> gp.Pipe[Any]:
    return chips.mask_clouds("scl").scale(BANDS, factor=1e-4).composite("14D", "median").spectral_index("NDVI")


def splits(url: str, folder: Path, label: Path) -> tuple[gp.Plan[Any], ...]:
    cubes = (
        gp.search(url, collections=["synthetic-s2-l2a"], datetime=SEASON)
        .freeze(folder / "scenes.parquet")
        .stack([*BANDS, "scl"], crs="utm", resolution=10, groupby="solar_day")
        .join(gp.rasters(label), name="crop", nodata=255)
    )
    chips = cubes.chip(32).measure(folder / "valid.parquet", valid=True).query("valid >= 0.8")
    return chips.split((0.7, 0.3), block=640, buffer=100, seed=0)


def batches(plan: gp.Plan[Any], stats: Any) -> gp.Pipe[Any]:
    samples = plan.shuffle(seed=0).read(threads=2).pipe(prepared).normalize(stats)
    return samples.tensor(image=IMAGE, crop="crop", fill=0, dtype={"image": torch.float32}).batch(4)


def digest(url: str, folder: Path, label: Path) -> str:
    """Hash all that a run delivers: places, images, validity, labels, dates."""
    train, _ = splits(url, folder, label)
    stats = train.pipe(prepared).statistics(variables=IMAGE, sample=20, seed=0)
    found = hashlib.sha256(str(stats).encode())
    for batch in batches(train, stats):
        for name in ("chip", "image", "image_valid", "crop", "time"):
            found.update(batch[name].numpy().tobytes())
    return found.hexdigest()


def test_the_second_run_is_the_same_and_needs_no_network(land: Synthetic, tmp_path: Path) -> None:
    with serve(land.items, collections=[land.collection]) as api:
        first = digest(api.url, tmp_path, land.label)
        asked = api.searches
    assert asked > 0
    again = [sys.executable, __file__, api.url, str(tmp_path), str(land.label)]
    done = subprocess.run(again, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == first


def test_chips_share_a_transform_with_their_labels_and_splits_share_no_ground(land: Synthetic, tmp_path: Path) -> None:
    with serve(land.items, collections=[land.collection]) as api:
        train, test = splits(api.url, tmp_path, land.label)
        audit = gp.audit(train, test, insist=True)
    assert not audit["leak"].any()
    assert (audit["distance"] >= 100).all()
    assert (train.table()["valid"] >= 0.8).all()
    chip = prepared(train.read())
    dataset = next(iter(chip))
    assert dataset["NDVI"].odc.geobox == dataset["crop"].odc.geobox
    assert dataset.sizes["time"] == 16  # fortnights of the range searched, of which one at least has no scene
    assert dataset["valid"].dims == ("time", "y", "x")
    assert "scl" not in dataset
    assert float(dataset["red"].max()) < 1


def test_a_network_learns_from_a_dataloader(land: Synthetic, tmp_path: Path) -> None:
    with serve(land.items, collections=[land.collection]) as api:
        train, _ = splits(api.url, tmp_path, land.label)
        stats = train.pipe(prepared).statistics(variables=IMAGE)
    loader: Any = DataLoader(cast(Any, batches(train, stats)), batch_size=None)
    torch.manual_seed(0)
    dates = 16
    model = torch.nn.Sequential(torch.nn.Conv2d(dates * len(IMAGE), 32, 1), torch.nn.ReLU(), torch.nn.Conv2d(32, 9, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(4):
        for batch in loader:
            optimizer.zero_grad()
            target = batch["crop"].long()
            loss = torch.nn.functional.cross_entropy(model(batch["image"].flatten(1, 2)), target, ignore_index=255)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::geopipes.errors.ShiftedGrids")  # the tiles lie half a pixel apart
def test_clouds_of_18_august_leave_a_real_composite(real_data: Path) -> None:
    """Tiles 33TWL and 33TWM, clear on 13 August and cloudy on the 18th."""
    folder = real_data / "sentinel2_33T"
    items = [pystac.Item.from_file(path) for path in sorted(folder.glob("*.json")) if path.name.startswith("S2")]
    cubes = gp.items(items).stack(["red", "nir", "scl"], resolution=120, groupby="solar_day")
    chips = [*cubes.chip(64, coverage="any").read().mask_clouds("scl")]
    clear, cloudy = (sum(int(chip["valid"][date].sum()) for chip in chips) for date in (0, 1))
    assert cloudy < 0.7 * clear
    composites = [*cubes.chip(64, coverage="any").read().mask_clouds("scl").composite("all", "first")]
    for chip, composite in zip(chips, composites, strict=True):
        valid = composite["valid"][0].values
        np.testing.assert_array_equal(valid, chip["valid"].any("time").values)
        cloud = ~chip["valid"][1].values & chip["valid"][0].values
        np.testing.assert_array_equal(composite["red"][0].values[cloud], chip["red"][0].values[cloud])


if __name__ == "__main__":
    print(digest(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
