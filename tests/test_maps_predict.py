"""A model over chips: its answers stand with the chips they belong to; what does not fit is refused."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from map_making import CLASSES, Smooth, identity, raster, samples

import geopipes as gp
from geopipes.errors import GeopipesError, StepError, TensorError
from geopipes.maps.models import called, model_document


@pytest.fixture(scope="module")
def pipe() -> gp.Pipe[dict[str, Any]]:
    return samples(raster((64, 96), bands=2), 16)


def even(sample: dict[str, Any]) -> bool:
    return int(sample["chip"]) % 2 == 0


class Counting:
    """The identity, which notes how many chips it was asked about."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(image))
        assert torch.is_inference_mode_enabled()
        return image


def test_answers_stand_with_their_chips(pipe: gp.Pipe[dict[str, Any]]) -> None:
    found = list(pipe.predict(identity, batch=7))
    assert [sample["chip"] for sample in found] == list(range(24))
    for sample, before in zip(found, pipe, strict=True):
        assert sample.keys() == before.keys() | {"prediction", "prediction_valid"}
        assert torch.equal(sample["prediction"], before["image"])
        assert torch.equal(sample["prediction_valid"], before["image_valid"])


def test_batches_are_filled_over_what_a_filter_left_out(pipe: gp.Pipe[dict[str, Any]]) -> None:
    model = Counting()
    found = list(pipe.filter(even).predict(model, batch=5))
    assert model.sizes == [5, 5, 2]
    assert [sample["chip"] for sample in found] == list(range(0, 24, 2))
    assert len(pipe.filter(even).predict(model, batch=5)) == 24  # planned


def test_batches_are_asked_about_as_they_are(pipe: gp.Pipe[dict[str, Any]]) -> None:
    model = Counting()
    found = list(pipe.filter(even).batch(8).predict(model))
    assert model.sizes == [4, 4, 4]
    assert all(torch.equal(batch["prediction"], batch["image"]) for batch in found)
    again = list(pipe.filter(even).predict(model, batch=4).batch(8))
    assert [batch["chip"].tolist() for batch in again] == [batch["chip"].tolist() for batch in found]
    assert all(torch.equal(a["prediction"], b["prediction"]) for a, b in zip(again, found, strict=True))


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (lambda image: image.mean(1, keepdim=True), {"prediction": (1, 16, 16)}),
        (lambda image: image.mean(1), {"prediction": (16, 16)}),
        (lambda image: image.mean((1, 2, 3)), {"prediction": ()}),
        (lambda image: image.mean((2, 3)), {"prediction": (2,)}),
        (lambda image: torch.nn.functional.avg_pool2d(image, 4), {"prediction": (2, 4, 4)}),
        (lambda image: torch.nn.functional.interpolate(image, scale_factor=2), {"prediction": (2, 32, 32)}),
        (lambda image: {"out": image, "aux": image[:, 0]}, {"out": (2, 16, 16), "aux": (16, 16)}),
    ],
)
def test_answers_of_every_form(pipe: gp.Pipe[dict[str, Any]], model: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    sample = next(iter(pipe.predict(model)))
    assert {name: tuple(sample[name].shape) for name in shapes} == shapes
    assert all(sample[f"{name}_valid"].shape == (16, 16) for name in shapes)


def test_several_tensors_and_heads(pipe: gp.Pipe[dict[str, Any]]) -> None:
    def model(first: torch.Tensor, *, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return first + second, first - second

    two = samples(raster((32, 32), bands=2), 16).map(
        lambda s: s | {"other": s["image"] * 2, "other_valid": s["image_valid"] & False}
    )
    sample = next(iter(two.predict(model, on={"0": "image", "second": "other"}, name=["sum", "difference"])))
    assert torch.equal(sample["sum"], sample["image"] * 3)
    assert torch.equal(sample["difference"], -sample["image"])
    assert not sample["sum_valid"].any()  # valid where all that the model was given is

    def both(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return first * second

    sample = next(iter(two.predict(both, on=["image", "other"])))
    assert torch.equal(sample["prediction"], sample["image"] ** 2 * 2)


def test_any_date_and_other_resolutions_are_valid() -> None:
    dated = samples(raster((32, 32), dates=3, holes=0.5), 16)
    stacked = gp.cubes(raster((32, 32), dates=3, holes=0.5)).chip(16).read().tensor(image=["b0"], fill=0)
    sample = next(iter(stacked.predict(lambda image: image.mean(1))))
    assert torch.equal(sample["prediction_valid"], sample["image_valid"].any(0))
    with pytest.raises(TensorError, match="3 dates"):
        next(iter(dated))


def test_a_module_is_as_it_was_before(pipe: gp.Pipe[dict[str, Any]]) -> None:
    model = Smooth(2)
    model.train()
    model.norm.eval()  # a frozen part
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    answer = next(iter(pipe.predict(model)))["prediction"]
    assert (model.training, model.conv.training, model.norm.training) == (True, True, False)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert not answer.requires_grad
    model.eval()
    images = torch.stack([sample["image"] for sample in pipe])[:16]
    torch.testing.assert_close(answer, model(images)[0].detach())


def test_half_precision_by_choice(pipe: gp.Pipe[dict[str, Any]]) -> None:
    model = Smooth(2)
    whole = next(iter(pipe.predict(model)))["prediction"]
    half = next(iter(pipe.predict(model, autocast=torch.bfloat16, device="cpu")))["prediction"]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), whole, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (lambda image: image[:3], {}, r"is \(3, 2, 16, 16\) for 16 chips.*first axis of 16, one row for each"),
        (lambda image: image.sum(), {}, "first axis of 16"),
        (lambda image: image[..., 2:-2], {}, r"\(16, 2, 16, 12\).*needed are last axes of 16 x 16, or of a whole part"),
        (lambda image: image.numpy(), {}, "'prediction' is ndarray; needed is a tensor"),
        (lambda image: image * torch.nan, {}, "NaN at every pixel of chip 0 .16 of 16 chips"),
        (lambda image: (image, image), {}, r'gave 2 tensors, and there are 1 names; write name=\["head0", "head1"\]'),
        (lambda image: {"image": image}, {}, "the model gave 'image', which the sample has already"),
        (identity, {"on": "picture"}, "no tensor 'picture'; there are image, image_valid"),
        (identity, {"name": "chip"}, "'chip', which the sample has already"),
    ],
)  # fmt: skip
def test_answers_that_do_not_fit(
    pipe: gp.Pipe[dict[str, Any]], model: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TensorError, match=message):
        next(iter(pipe.predict(model, **options)))


def test_what_is_no_sample_is_refused(pipe: gp.Pipe[dict[str, Any]]) -> None:
    with pytest.raises(StepError, match="which have a 'chip'; found is a dict of image"):
        list(gp.Pipe([{"image": torch.zeros(2, 4, 4)}]).predict(identity))
    with pytest.raises(StepError, match="batches already, asked about as they are; leave batch=4 out"):
        list(pipe.batch(4).predict(identity, batch=4))
    with pytest.raises(StepError, match="batch=0; give a number of samples"):
        pipe.predict(identity, batch=0)
    with pytest.raises(StepError, match=r"write .chip\(...\).read\(\).predict"):
        gp.cubes(raster((8, 8))).predict(identity)  # type: ignore[misc]


def test_an_error_in_the_model_says_what_it_was_given(pipe: gp.Pipe[dict[str, Any]]) -> None:
    with pytest.raises(RuntimeError) as caught:
        list(pipe.predict(Smooth(5)))
    assert "the model was given (16, 2, 16, 16) float32" in caught.value.__notes__


def test_an_error_in_the_model_says_what_may_not_suit_it() -> None:
    inputs = {"0": torch.zeros(2, 1, 3, 8, 8, dtype=torch.uint8)}
    with pytest.raises(RuntimeError) as caught:
        called(torch.nn.Conv2d(3, 1, 1), inputs, None, None)
    (note,) = caught.value.__notes__
    assert "(2, 1, 3, 8, 8) uint8" in note
    assert "dtype=torch.float32" in note
    assert "time_axis=False" in note


def test_models_are_told_apart_by_their_weights() -> None:
    one, same, other = Smooth(seed=0), Smooth(seed=0), Smooth(seed=1)
    assert model_document(one) == model_document(same) != model_document(other)
    pairs = [(lambda image: one(image)), (lambda image: same(image)), (lambda image: other(image))]
    documents = [model_document(each) for each in pairs]
    assert documents[0]["model"]["values"] == documents[1]["model"]["values"] != documents[2]["model"]["values"]
    scope: dict[str, Any] = {"net": one}
    exec("def model(image): return net(image)", scope)
    before = model_document(scope["model"])
    scope["net"] = other
    assert before != model_document(scope["model"])
    with torch.no_grad():
        same.conv.weight[0, 0, 0, 0] += 1e-3
    assert model_document(same) != model_document(one)
    half = Smooth().to(torch.bfloat16)
    assert model_document(half) != model_document(one)
    lock = threading.Lock()
    with pytest.raises(GeopipesError, match="cannot be told"):
        model_document(lambda image: (image, lock))


def test_a_chain_with_a_model_prints(pipe: gp.Pipe[dict[str, Any]]) -> None:
    text = str(pipe.predict(Smooth(2), batch=4, autocast=torch.bfloat16))
    assert ".predict(Smooth, batch=4, autocast=torch.bfloat16)" in text
    assert "24 elements" in text.splitlines()[-1]


def test_predictions_are_profiled_and_stepped_on(pipe: gp.Pipe[dict[str, Any]]) -> None:
    chain = pipe.predict(Smooth(2), batch=8).map(lambda sample: sample | {"class": sample["prediction"].argmax(0)})
    with chain.profile() as report:
        classes = [sample["class"] for sample in chain]
    assert len(classes) == 24
    assert max(int(each.max()) for each in classes) < CLASSES
    assert "predict(Smooth, batch=8)" in str(report)
    run = iter(chain)
    next(run)
    run.close()  # type: ignore[attr-defined]  # ends what is read ahead
    assert np.isfinite([float(each.float().mean()) for each in classes]).all()
