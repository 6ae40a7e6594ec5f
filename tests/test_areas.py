"""Areas with intervals: the published example, the sample's design, and what is no probability sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import odc.geo.xr
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geopipes.errors import ScoreError
from geopipes.scores import area_estimates, estimates, sample_size, stratified_sample

CHANGE = {1: "deforestation", 2: "forest gain", 3: "stable forest", 4: "stable non-forest"}
OLOFSSON = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])


def land(pixels: npt.NDArray[Any], crs: str = "EPSG:32633", side: float = 30) -> xr.DataArray:
    transform = (
        Affine(side, 0, 500_000, 0, -side, 5_000_000) if crs != "EPSG:4326" else Affine(side, 0, 8, 0, -side, 60)
    )
    array: xr.DataArray = odc.geo.xr.wrap_xr(pixels, GeoBox(pixels.shape, transform, crs))
    return array


def test_the_published_example() -> None:
    """Olofsson et al. (2014), section 5.2: the figures of the text and of table 9."""
    found = estimates(OLOFSSON, PIXELS * 900.0, classes=CHANGE)
    table = found.table("ha")
    assert round(found.area_m2[0] / 900) == 235_086
    assert round(table.area_ha[1]) == 21_158
    assert round(table.area_interval_ha[1]) == 6_158
    assert (round(found.accuracy, 2), round(found.z * found.accuracy_error, 2)) == (0.95, 0.02)
    assert table.users.round(2).tolist() == [0.88, 0.73, 0.93, 0.96]
    assert table.users_interval.round(2).tolist() == [0.07, 0.10, 0.04, 0.02]
    assert table.producers.round(2).tolist() == [0.75, 0.85, 0.93, 0.96]
    # By eq. 7, which the next test holds against a simulation.
    assert table.producers_interval.round(2).tolist() == [0.21, 0.25, 0.03, 0.02]
    assert found.area_m2.sum() == pytest.approx(PIXELS.sum() * 900)
    assert "21,158 ± 6,158 ha (mapped 18,000 ha), user's accuracy 0.88 ± 0.07" in str(found)


def test_standard_errors_are_those_of_samples_drawn_again_and_again() -> None:
    """Samples of the published design, from a land whose classes are as the published sample found them."""
    found = estimates(OLOFSSON, PIXELS * 900.0)
    rng = np.random.default_rng(0)
    drawn = np.array(OLOFSSON)
    samples = np.stack(
        [rng.multinomial(row.sum(), row / row.sum(), size=20_000) for row in drawn], axis=1
    )  # (sample, map, reference)
    shares = PIXELS[:, None] / PIXELS.sum() * samples / drawn.sum(axis=1)[:, None]
    right = np.diagonal(shares, axis1=1, axis2=2)
    np.testing.assert_allclose(shares.sum(axis=1).std(axis=0) * PIXELS.sum() * 900, found.area_error_m2, rtol=0.03)
    np.testing.assert_allclose(right.sum(axis=1).std(), found.accuracy_error, rtol=0.03)
    np.testing.assert_allclose((right / shares.sum(axis=2)).std(axis=0), found.users_error, rtol=0.03)
    # Ratios: the formula is that of small errors, and those of the rare classes are not so small.
    np.testing.assert_allclose((right / shares.sum(axis=1)).std(axis=0), found.producers_error, rtol=0.08)


def test_the_published_sample_size() -> None:
    """Olofsson et al. (2014), section 5.1.1."""
    areas = dict(zip(CHANGE, PIXELS.tolist(), strict=True))
    assert sample_size(areas, {1: 0.70, 2: 0.60, 3: 0.90, 4: 0.95}, standard_error=0.01) == 641
    with pytest.raises(ScoreError, match="each class"):
        sample_size(areas, {1: 0.7}, standard_error=0.01)


def test_units_are_named() -> None:
    found = estimates(OLOFSSON, PIXELS * 900.0, confidence=0.9)
    table = found.table("km2")
    np.testing.assert_allclose(table.area_km2 * 100, found.table("ha").area_ha)
    np.testing.assert_allclose(table.area_km2 * 1e6, found.table("m2").area_m2)
    assert found.z == pytest.approx(1.6449, abs=1e-4)
    with pytest.raises(ScoreError, match="m2, ha, km2"):
        found.table("acres")  # type: ignore[arg-type]


@given(seed=st.integers(0, 1_000), strip=st.integers(1, 50))
def test_a_sample_is_drawn_as_it_says(seed: int, strip: int) -> None:
    pixels = np.random.default_rng(seed).choice([1, 2, 7, 255], (40, 60), p=[0.1, 0.6, 0.25, 0.05]).astype(np.uint8)
    chart = land(pixels).assign_attrs(_FillValue=255)
    places = stratified_sample(chart, 200, seed=seed, least=40, strip=strip)
    assert len(places) == 200
    assert places.drop_duplicates("geometry").index.size == 200
    counts = places.groupby("stratum").size()
    assert counts.index.tolist() == [1, 2, 7]
    assert (counts >= 40).all()
    col, row = ~chart.odc.geobox.transform @ (places.geometry.x.to_numpy(), places.geometry.y.to_numpy())
    np.testing.assert_allclose(np.r_[col % 1, row % 1], 0.5, atol=1e-6)
    assert (pixels[row.astype(int), col.astype(int)] == places.stratum).all()
    for value, group in places.groupby("stratum"):
        inside = int((pixels == value).sum())
        assert group.stratum_pixels.unique().tolist() == [inside]
        np.testing.assert_allclose(group.probability, len(group) / inside)
        np.testing.assert_allclose(group.stratum_m2, inside * 900, rtol=1e-3)
    again, other = (stratified_sample(chart, 200, seed=seed + more, least=40) for more in (0, 1))
    assert places.geometry.equals(again.geometry)
    assert not places.geometry.equals(other.geometry)


def test_every_pixel_of_a_stratum_has_its_chance() -> None:
    pixels = np.repeat(np.array([[1, 2]], np.uint8), [6, 18], axis=1)
    drawn = np.zeros((1, 24))
    for seed in range(600):
        places = stratified_sample(land(pixels), {1: 3, 2: 6}, seed=seed)
        drawn[0, ((places.geometry.x - 500_000) // 30).astype(int)] += 1
    np.testing.assert_allclose(drawn[0, :6] / 600, 3 / 6, atol=0.09)  # four deviations of a share of 600
    np.testing.assert_allclose(drawn[0, 6:] / 600, 6 / 18, atol=0.09)


def test_intervals_hold_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((120, 120)) < 0.2).astype(np.uint8) + 1
    chart = np.where(rng.random(truth.shape) < 0.15, 3 - truth, truth).astype(np.uint8)
    area = (truth == 2).sum() * 900
    held = 0
    for seed in range(200):
        places = stratified_sample(land(chart), 300, seed=seed)
        col, row = ((places.geometry.x - 500_000) // 30, (5_000_000 - places.geometry.y) // 30)
        found = area_estimates(places.assign(reference=truth[row.astype(int), col.astype(int)]))
        held += (
            abs(found.area_m2[1] / found.mapped_m2.sum() * truth.size * 900 - area) <= found.z * found.area_error_m2[1]
        )
    assert 0.90 <= held / 200 <= 0.99


def test_a_sample_that_went_through_a_file(tmp_path: Path) -> None:
    chart = land(np.random.default_rng(0).integers(1, 3, (50, 50)).astype(np.int32))
    places = stratified_sample(chart, 120, seed=0, classes={1: "crop", 2: "water"})
    looked = places.assign(reference=np.where(places.index % 10 == 0, 3, places.stratum))
    expected = area_estimates(looked)
    assert expected.classes == {1: "crop", 2: "water", 3: "3"}
    assert expected.mapped_m2[2] == 0
    assert np.isnan(expected.users[2])
    assert expected.producers[2] == 0
    assert area_estimates(looked, classes={1: "a", 2: "b", 3: "c"}).classes == {1: "a", 2: "b", 3: "c"}
    for suffix in ("parquet", "geojson", "csv"):
        path = tmp_path / f"places.{suffix}"
        if suffix == "parquet":
            looked.to_parquet(path)
            kept = gpd.read_parquet(path)
        elif suffix == "geojson":
            looked.to_file(path)
            kept = gpd.read_file(path)
        else:
            looked.drop(columns="geometry").to_csv(path)
            kept = gpd.pd.read_csv(path)
        assert area_estimates(kept).area_m2 == pytest.approx(expected.area_m2)


def test_no_interval_without_a_probability_sample() -> None:
    places = stratified_sample(land(np.tile([[1, 2]], (40, 40)).astype(np.uint8)), 100, seed=0)
    looked = places.assign(reference=places.stratum)
    for sample, words in [
        (looked.drop(columns="probability"), "not known how its places were chosen"),
        (places, "has no such column"),
        (looked.assign(reference=looked.reference.where(looked.index > 2)), "3 of 100 places have no 'reference'"),
        (looked.iloc[5:], "left out or added"),
        (looked.assign(probability=np.linspace(0.01, 0.1, 100)), "differ in their probabilities"),
    ]:
        with pytest.raises(ScoreError, match=words):
            area_estimates(sample)
    with pytest.raises(ScoreError, match="two or more places"):
        estimates([[1, 0], [0, 5]], [10, 20])
    with pytest.raises(ScoreError, match="square matrix"):
        estimates([[1, 0]], [10])


def test_samples_that_cannot_be_drawn() -> None:
    chart = land(np.tile([[1, 2]], (40, 40)).astype(np.uint8))
    for n, options, words in [
        (99, {}, "2 classes need 100 places"),
        ({1: 5}, {}, "2 or more places of each class"),
        ({1: 5, 2: 5_000}, {}, "no more than its pixels"),
        (10, {"classes": [9]}, "no pixel of a class"),
    ]:
        with pytest.raises(ScoreError, match=words):
            stratified_sample(chart, n, seed=0, **options)  # type: ignore[arg-type]
    with pytest.raises(ScoreError, match="float32"):
        stratified_sample(chart.astype("float32"), 10, seed=0)
    with pytest.raises(ScoreError, match="equal-area or UTM"):
        stratified_sample(land(np.ones((60, 60), np.uint8), "EPSG:4326", 0.05), 10, seed=0)
