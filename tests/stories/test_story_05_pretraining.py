"""Story 5, self-supervised pretraining: pairs, triplets and sequences of years of imagery, on ranks and workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
import torch
from torch.utils.data import DataLoader

import geopipes as gp
from geopipes.testing import Synthetic, synthetic_scenes

DATES = ("2023-02-10", "2023-05-14", "2023-08-23", "2023-11-09", "2024-02-19", "2024-05-03", "2024-08-11")
RANKS, BATCH = 2, 8


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    return synthetic_scenes(tmp_path_factory.mktemp("years"), dates=DATES, size=192)


def views(years: Synthetic) -> gp.Plan[Any]:
    """Plan a chip for each date of a place."""
    cubes = gp.items(years.items).stack(["red", "nir"], resolution=10, crs="utm", groupby="solar_day")
    return cubes.chip(32, time=1)


def seasons(years: Synthetic) -> gp.Plan[Any]:
    """Pair each chip with one of its place in another season."""
    return views(years).pairs(months=2, seed=0).shuffle(seed=0)


def batches(plan: gp.Plan[Any], *members: str) -> gp.Pipe[Any]:
    tensors: dict[str, Any] = {name: ["red", "nir"] for name in members}
    columns = [f"{name}_id" for name in members]
    return plan.read(threads=2).tensor(fill=0, time_axis=False, columns=columns, **tensors).batch(BATCH)


def month(time: torch.Tensor) -> np.ndarray[Any, Any]:
    """Give where in the year times lie, [months]."""
    days = time.numpy().astype("M8[ns]").astype("M8[D]").ravel()
    whole = days.astype("M8[M]")
    where: np.ndarray[Any, Any] = whole.astype(int) % 12 + (days - whole).astype(int) / 30.5
    return where


def test_pairs_are_of_one_place_in_two_seasons(years: Synthetic) -> None:
    plan, rows = seasons(years), views(years).table()
    seen = 0
    for batch in batches(plan, "anchor", "other"):
        apart = np.abs(month(batch["anchor_time"]) - month(batch["other_time"]))
        assert (np.minimum(apart, 12 - apart) >= 1.95).all()  # months of 28 to 31 days
        anchor, other = (rows.loc[batch[f"{name}_id"].tolist()] for name in ("anchor", "other"))
        assert (anchor[["cube", "row", "col"]].to_numpy() == other[["cube", "row", "col"]].to_numpy()).all()
        np.testing.assert_array_equal(
            batch["anchor_time"].ravel().numpy(), anchor.start.to_numpy().astype("M8[ns]").astype(int)
        )
        assert (batch["anchor"] != batch["other"]).flatten(1).any(dim=1).all()
        seen += len(batch["chip"])
    assert seen == len(plan) > 200


def test_triplets_are_near_and_far(years: Synthetic) -> None:
    plan = views(years).triplets(near=500, far=1_500, n=64, seed=0)
    rows = views(years).table(crs="EPSG:5070")  # Albers, equal in area; scale within 0.5% here
    middles = shapely.centroid(rows.geometry.to_numpy())
    for batch in batches(plan, "anchor", "neighbour", "distant"):
        anchor, neighbour, distant = (batch[f"{name}_id"].numpy() for name in ("anchor", "neighbour", "distant"))
        near, far = (shapely.distance(middles[anchor], middles[other]) for other in (neighbour, distant))
        assert ((near > 0) & (near <= 503)).all()
        assert (far >= 1_490).all()
        scenes = rows[["cube", "time"]].to_numpy()
        assert (scenes[anchor] == scenes[neighbour]).all()
        assert batch["anchor"].shape == batch["distant"].shape == (BATCH, 2, 32, 32)


def test_a_sequence_has_one_crop_at_all_its_dates(years: Synthetic) -> None:
    """Places drawn at random, each with a date of each season of some year: dates times space."""
    cubes = gp.items(years.items).stack(["red", "nir"], resolution=10, crs="utm", groupby="solar_day")
    drawn = cubes.draw(32, n=40, seed=0)
    plan = drawn.sequences(4, kind="period", every="quarter", stride=4, seed=0).shuffle(seed=0)
    assert len(plan) == 40  # 2023 has a date in each quarter, and 2024 in three
    places = drawn.table().set_index(["cube", "row", "col"])
    for batch in plan.read(threads=2).tensor(image=["red", "nir"], fill=0, columns="probability").batch(BATCH):
        assert batch["image"].shape[1:] == (4, 2, 32, 32)
        quarters = batch["time"].numpy().astype("M8[ns]").astype("M8[M]").astype(int) // 3
        assert (np.diff(quarters, axis=1) == 1).all()
        own = plan.table().loc[batch["chip"].tolist()].set_index(["cube", "row", "col"])
        np.testing.assert_allclose(batch["probability"], places.loc[own.index].probability.to_numpy())


def test_batches_span_scenes(years: Synthetic) -> None:
    rows = seasons(years).table()
    scenes = [
        rows.loc[batch["chip"].tolist(), ["cube", "time"]].drop_duplicates()
        for batch in batches(seasons(years), "anchor")
    ]
    assert all(len(found) > 1 for found in scenes)
    assert np.mean([len(found) for found in scenes]) > BATCH / 2


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")  # on two cores, all the better
def test_an_epoch_is_exact_for_any_number_of_workers_and_ranks(years: Synthetic) -> None:
    plan = seasons(years)
    delivered: list[int] = []
    for rank in range(RANKS):
        part = batches(plan.shard(rank, RANKS), "anchor", "other")
        wanted = [batch["chip"].tolist() for batch in part]
        for workers in (0, 1, 2, 4) if rank == 0 else (4,):
            context = "spawn" if workers else None
            options: Any = {"num_workers": workers, "multiprocessing_context": context}
            loader = DataLoader(part, batch_size=None, **options)  # type: ignore[arg-type,var-annotated]
            assert [batch["chip"].tolist() for batch in loader] == wanted
        delivered += [chip for batch in wanted for chip in batch]
    assert sorted(delivered) == sorted(plan.table().id)
    assert len({*delivered}) == len(delivered)
