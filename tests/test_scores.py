"""Scores: hand formulas, parts that add up to the whole, what is not counted, regions and seeds."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geopipes.errors import ScoreError
from geopipes.scores import Confusion, Regression, Scores, across_seeds, scores

CLASSES = {1: "crop", 2: "water", 7: "bare"}
VALUES = hnp.arrays(np.uint8, st.integers(0, 60), elements=st.sampled_from([1, 2, 7, 255]))
NUMBERS = hnp.arrays(np.float64, st.integers(2, 60), elements=st.floats(-1e3, 1e3))


def pair(values: npt.NDArray[Any], seed: int = 0) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).permutation(values)


@given(label=VALUES, cut=st.integers(0, 60))
def test_parts_add_up_to_the_whole_and_match_the_formulas(label: npt.NDArray[np.uint8], cut: int) -> None:
    prediction = pair(label)
    whole = Confusion.of(prediction, label, classes=CLASSES, ignore=[255])
    parts = [
        Confusion.of(prediction[at], label[at], classes=CLASSES, ignore=[255]) for at in (slice(cut), slice(cut, None))
    ]
    assert (sum(parts).counts == whole.counts).all()  # type: ignore[union-attr]
    there = (label != 255) & (prediction != 255)
    assert whole.total == there.sum()
    for at, value in enumerate(CLASSES):
        both = np.sum(there & (label == value) & (prediction == value))
        labelled, predicted = (np.sum(there & (values == value)) for values in (label, prediction))
        for found, part, of in [
            (whole.recall, both, labelled),
            (whole.precision, both, predicted),
            (whole.iou, both, labelled + predicted - both),
            (whole.f1, 2 * both, labelled + predicted),
        ]:
            np.testing.assert_allclose(found[at], part / of if of else np.nan)
    if whole.total:
        assert whole.accuracy == pytest.approx((label == prediction)[there].mean())
        assert whole.mean_iou == pytest.approx(np.nanmean(whole.iou))


@given(label=NUMBERS, cut=st.integers(0, 60))
def test_errors_of_parts_are_those_of_the_whole(label: npt.NDArray[np.float64], cut: int) -> None:
    prediction = pair(label) + 3
    parts = [Regression.of(prediction[at], label[at]) for at in (slice(cut), slice(cut, None))]
    found, error = sum(parts), prediction - label
    assert isinstance(found, Regression)
    assert found.count == len(label)
    assert found.rmse == pytest.approx(np.sqrt((error**2).mean()))
    assert found.mae == pytest.approx(abs(error).mean())
    assert found.bias == pytest.approx(error.mean(), abs=1e-9)
    spread = ((label - label.mean()) ** 2).sum()
    if spread > 1e-3:
        assert found.r2 == pytest.approx(1 - (error**2).sum() / spread, rel=1e-6)


def test_what_is_not_valid_is_not_counted() -> None:
    label = np.array([[1, 2, 2], [7, 255, 1]])
    prediction = np.array([[1, 2, 1], [7, 1, 2]])
    valid = np.array([[True, True, True], [True, True, False]])
    found = Confusion.of(prediction, label, classes=CLASSES, valid=valid, ignore=[255])
    assert found.counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    numbers = Regression.of(np.array([1.0, np.nan, 3, 9]), np.array([2.0, 1, np.nan, -99]), ignore=[-99])
    assert (numbers.count, numbers.bias) == (1, -1)
    assert np.isnan(Regression.of([], []).rmse)
    assert np.isnan(Regression.of([1, 2], [5, 5]).r2)


def test_batches_of_tensors_and_regions() -> None:
    label = torch.tensor([[[1, 2], [7, 1]], [[2, 2], [255, 7]], [[7, 7], [1, 1]]])
    logits = torch.nn.functional.one_hot(torch.tensor([0, 1, 2])[(label == 2).long() + 2 * (label == 7).long()], 3)
    logits = logits.permute(0, 3, 1, 2).to(torch.bfloat16)  # channels in the order of the classes
    batch = {
        "prediction": logits, "label": label[:, None], "chip": torch.tensor([4, 5, 6]), "region": ["a", "b", "a"],
        "image_valid": torch.tensor([True, True, True])[:, None, None, None].expand(3, 2, 2, 2).clone(),
    }  # fmt: skip
    batch["image_valid"][2, :, 0, 0] = False  # type: ignore[index] # on both dates
    batch["image_valid"][0, 0] = False  # type: ignore[index] # on one of two
    found = scores([batch, batch], classes=CLASSES, by="region", ignore=[255])
    assert isinstance(found.whole, Confusion)
    assert found.whole.accuracy == 1
    assert found.whole.total == 2 * (12 - 1 - 1)
    assert {name: part.summary()["count"] for name, part in found.regions.items()} == {"a": 14, "b": 6}
    assert found["b"].summary()["accuracy"] == 1
    table = found.table()
    assert table.index.names == ["region", "class"]
    assert table.loc[("a", 7), "labelled"] == 4
    assert found.summary().index.tolist() == ["a", "b", "all"]
    assert "crop" in str(found)
    assert "all" in str(found)
    sample = {"prediction": logits[0], "label": label[0], "chip": 4, "region": "a"}
    assert scores([sample], classes=CLASSES, by="region")["a"].summary()["count"] == 4


def test_quantities_of_whole_chips_and_pairs_of_arrays() -> None:
    batch = {"prediction": torch.tensor([[1.0], [2.0]]), "biomass": torch.tensor([2.0, 2.0]), "chip": torch.arange(2)}
    found = scores([batch], label="biomass")
    assert found.whole == Regression(2, 2.0, 0.0, -1.0, 1.0, 1.0)
    assert found.table().rmse.tolist() == pytest.approx([np.sqrt(0.5)])
    pairs = [(np.array([1, 2]), np.array([1, 1])), (np.array([2]), np.array([2]))]
    assert scores(pairs, classes=[1, 2]).summary().accuracy.tolist() == pytest.approx([2 / 3])


def test_chips_with_a_map_and_joined_labels() -> None:
    label = np.array([[9, 9, 9], [9, 1, 255], [9, 9, 9]], np.uint8)
    chip = xr.Dataset(
        {
            "map": (("time", "y", "x"), np.array([[[1, 1, 2], [2, 1, 2], [1, 1, 1]]], np.uint8)),
            "label": (("y", "x"), label, {"nodata": 255, "joined": True}),
            "valid": (("time", "y", "x"), np.ones((1, 3, 3), bool)),
        },
        coords={"chip": ((), 3, {"margin": 1, "split": "test"})},
    )
    found = scores([chip], "map", "label", classes=[1, 2], by="split")
    assert found["test"].summary()["count"] == 1
    with pytest.raises(ScoreError, match="nothing to compare"):
        scores([chip.assign(valid=~chip.valid)], "map", "label", classes=[1, 2])


def test_scores_add_up_over_ranks_and_travel() -> None:
    rng = np.random.default_rng(0)
    batches = [
        {
            "prediction": rng.integers(1, 3, (4, 5)),
            "label": rng.integers(1, 3, (4, 5)),
            "chip": np.arange(4),
            "at": list("abca"),
        }
        for _ in range(6)
    ]
    whole = scores(batches, classes=[1, 2], by="at")
    ranks = [pickle.loads(pickle.dumps(scores(batches[rank::3], classes=[1, 2], by="at"))) for rank in range(3)]
    pd.testing.assert_frame_equal(sum(ranks).table(), whole.table())
    pd.testing.assert_frame_equal(sum(ranks).summary(), whole.summary())
    assert repr(whole) == "<Scores of 120 pixels>"
    with pytest.raises(ScoreError, match="another kind"):
        whole + scores(batches, by="at")
    with pytest.raises(ScoreError, match="other classes"):
        whole + scores(batches, classes=[1, 2, 3], by="at")
    with pytest.raises(ScoreError, match=r"regions \['a', 'b', 'c'\]"):
        whole["d"]


def test_mean_and_deviation_over_seeds() -> None:
    def run(right: int) -> Scores:
        return scores([(np.r_[np.ones(right), np.zeros(10 - right)], np.ones(10))], classes=[0, 1])

    table = across_seeds([run(6), run(8), run(10)])
    assert table.loc["all", ("accuracy", "mean")] == pytest.approx(0.8)
    assert table.loc["all", ("accuracy", "std")] == pytest.approx(0.2)
    with pytest.raises(ScoreError, match="at least two"):
        across_seeds([run(6)])


def test_bad_input_is_named() -> None:
    batch = {"prediction": np.ones((2, 3, 4, 4)), "label": np.ones((2, 4, 4), int), "chip": np.arange(2)}
    for batches, options, words in [
        ([batch], {"classes": [0, 1]}, "3 on the axis of classes; needed are the 2"),
        ([batch], {"classes": [0, 1], "label": "crop"}, "there is no 'crop' in an element that has prediction"),
        ([batch], {"classes": [0, 1, 2], "by": "region"}, "no chip carries that column"),
        ([batch], {}, r"the prediction is \(2, 3, 4, 4\)"),
        ([batch], {"classes": []}, "give their values"),
        ([batch], {"classes": [0.5]}, "give their values"),
        ([3], {}, "an element is int"),
        ([], {}, "nothing to compare"),
        (
            [(np.array([1, 9]), np.array([1, 1]))],
            {"classes": [1]},
            "the prediction holds 9, which is none of the classes",
        ),
        ([(np.array([1, 0.5]), np.array([1, 1]))], {"classes": [1]}, "the prediction holds 0.5"),
    ]:
        with pytest.raises(ScoreError, match=words):
            scores(batches, **options)  # type: ignore[arg-type]
