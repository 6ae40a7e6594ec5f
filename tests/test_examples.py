"""The examples and the README do what they say: the quickstart learns, the chains build without a network."""

from __future__ import annotations

import ast
import importlib.util
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import geopandas as gpd
import numpy as np
import pystac_client
import pytest
import torch

import geopipes as gp
from geopipes.testing import serve, synthetic_scenes

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
ONLINE = ("05_earth_search", "06_planetary_computer")

# planetary_computer 1.0.0 defines a model in the way that pydantic 2 means to retire.
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:planetary_computer")


def run(script: Path | str, *options: object) -> str:
    """What a program prints; where it fails, what it said."""
    done = subprocess.run([sys.executable, str(script), *map(str, options)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def figure(pattern: str, text: str) -> tuple[float, ...]:
    """The numbers of a line."""
    found = re.search(pattern, text)
    assert found is not None, text
    return tuple(map(float, found.groups()))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every name that is looked up, every connection and every search an error."""

    def refused(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a chain that is built asks for nothing: {args}")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(pystac_client.Client, "open", refused)


def names_of_calls(chain: gp.Pipe[Any]) -> list[str]:
    """The methods of a printed chain; what is known of its elements, once looked up, would follow a '#'."""
    text = str(chain)
    assert "  # " not in text
    return re.findall(r"^(?:geopipes| {4})\.(\w+)", text, flags=re.MULTILINE)


def test_the_quickstart_learns_and_draws_what_it_learnt(tmp_path: Path) -> None:
    text = run(ROOT / "examples" / "01_quickstart.py", "--size", 256, "--steps", 20, "--out", tmp_path)
    assert text.startswith("geopipes.search('http://127.0.0.1:")
    assert "EPSG:32614 at 10" in text
    assert "2 cubes, the first: " in text  # one for each zone
    assert "'image': (8, 4, 4, 64, 64)" in text
    before, after = figure(r"loss: ([\d.]+) before, ([\d.]+) after 20 steps", text)
    assert 0 < after < before
    accuracy, majority = figure(r"held-out accuracy: ([\d.]+); answering the most common class: ([\d.]+)", text)
    assert 0 < accuracy <= 1
    assert 1 / 9 < majority < 1  # the most common of nine classes
    assert (tmp_path / "quickstart.png").read_bytes().startswith(b"\x89PNG")


def test_the_audit_finds_the_leak_and_the_map_is_drawn(tmp_path: Path) -> None:
    text = run(ROOT / "examples" / "02_split_and_audit.py", "--size", 384, "--out", tmp_path)
    (leak,) = figure(r"chip by chip:\n.*\n *train +test +0\.0 +([\d.e+]+) .*True", text)
    assert leak > 1e6  # m2
    assert figure(r"by blocks:\n.*\n *train +test +([\d.]+) +0\.0 .*False", text)[0] >= 160
    assert "Statistics of 100 chips\n  red " in text
    assert (tmp_path / "split_and_audit.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("step", [4, 6])  # in the middle of an epoch, and at its end
def test_lightning_goes_on_from_a_checkpoint(tmp_path: Path, step: int) -> None:
    options = ("--size", 256, "--epochs", 3, "--step", step, "--out", tmp_path)
    text = run(ROOT / "examples" / "03_lightning.py", *options)
    before, after = figure(r"loss: ([\d.]+) at the first step, ([\d.]+) at step 9", text)
    assert 0 < after < before
    assert "3 steps an epoch" in text
    assert f"{9 - step} steps from the checkpoint of step {step}; losses as without a break: True" in text


def test_two_ranks_train_and_one_goes_on(tmp_path: Path) -> None:
    script, options = ROOT / "examples" / "04_ddp.py", ("--size", 256, "--out", tmp_path)
    single = steps(run(script, "--steps", 3, "--size", 256, "--out", tmp_path / "single"))
    assert {rank for _, rank, _ in single} == {0}
    both = steps(
        run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, "--steps", 1, *options)
    )
    then = steps(run(script, "--steps", 3, *options))
    whole = [chips for _, _, chips in single]
    assert sorted((rank, chips) for _, rank, chips in both) == [(0, whole[0][::2]), (1, whole[0][1::2])]
    assert [chips for _, _, chips in then] == whole[1:]


def steps(text: str) -> list[tuple[int, int, list[int]]]:
    """What the ranks said of each step: its number, the rank, its chips."""
    found = re.findall(r"^step (\d+), rank (\d+) of \d+: loss [\d.]+, chips \[(.*)\]$", text, flags=re.MULTILINE)
    return [(int(step), int(rank), [int(chip) for chip in chips.split(", ")]) for step, rank, chips in found]


def test_buildings_are_learned_mapped_and_drawn(tmp_path: Path) -> None:
    options = ["--size", 640, "--steps", 30, "--width", 16, "--out", tmp_path]
    text = run(ROOT / "examples" / "07_buildings.py", *options)
    before, after = figure(r"loss: ([\d.]+) before, ([\d.]+) after 30 steps", text)
    assert 0 < after < before
    found = gpd.read_parquet(tmp_path / "buildings.parquet")
    assert figure(r"found: (\d+) buildings", text) == (len(found),)
    assert found.area_m2.min() >= 12
    assert found.probability.between(0.5, 1).all()
    (accuracy,) = figure(r"pixels, accuracy ([\d.]+), mean IoU", text)
    assert accuracy > 0.8
    assert (tmp_path / "buildings.png").read_bytes().startswith(b"\x89PNG")


def test_augmented_chips_are_the_same_when_read_again(tmp_path: Path) -> None:
    text = run(ROOT / "examples" / "08_augmentation.py", "--size", 192, "--out", tmp_path)
    assert "the same when read again: True" in text
    assert (tmp_path / "augmentation.png").read_bytes().startswith(b"\x89PNG")


def test_a_series_its_masks_and_the_label_are_transformed_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    augmented = example("08_augmentation").augmented
    label = torch.zeros(48, 48, dtype=torch.uint8)
    label[8:30, 10:20] = 1
    label[30:40, 5:15] = 255
    image = (label == 1).float().expand(3, 2, -1, -1) * 0.5
    sample = {"image": image.clone(), "image_valid": (label != 255).expand(3, -1, -1), "label": label}
    states = []
    for seed in range(8):
        found = augmented(sample, np.random.default_rng(seed))
        states.append(found["image"])
        assert all(torch.equal(found["image"][0], date) for date in found["image"])
        assert all(torch.equal(found["image_valid"][0], date) for date in found["image_valid"])
        there = found["image_valid"][0]
        assert torch.equal(there, found["label"] != 255)
        bright = found["image"][0, 0] > 0.25  # by bilinear weights: edges aside the label's ones
        assert ((bright == (found["label"] == 1)) | ~there).float().mean() > 0.97
        again = augmented(sample, np.random.default_rng(seed))
        assert all(torch.equal(found[name], again[name]) for name in sample)
    assert len({image.numpy().tobytes() for image in states}) == 8


def test_the_encoder_takes_weights_by_torchvision_s_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    network = example("resnet_unet")
    for depths, parameters in (((2, 2, 2, 2), 11_176_512), ((3, 4, 6, 3), 21_284_672)):  # ResNet-18 and 34, without fc
        encoder = network.ResNet(3, depths=depths)
        assert sum(weights.numel() for weights in encoder.parameters()) == parameters
        assert set(encoder.state_dict()) == torchvision_names(depths)
    torch.manual_seed(0)
    trained = network.ResNet(3, width=8).eval()
    kept = {name: value for name, value in trained.state_dict().items() if "num_batches" not in name}  # as older files
    torch.save(kept | {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}, tmp_path / "weights.pth")
    grey = torch.rand(1, 1, 64, 64)
    wanted = trained(grey.expand(-1, 3, -1, -1))
    for bands in (3, 4, 6):  # grey looks the same, however many bands see it
        encoder = network.ResNetUNet(bands, 2, width=8).encoder.eval()
        encoder.load_weights(tmp_path / "weights.pth")
        torch.testing.assert_close(encoder(grey.expand(-1, bands, -1, -1)), wanted, rtol=1e-3, atol=1e-4)
    with pytest.raises(RuntimeError, match="size mismatch for layer4"):
        network.ResNet(3, width=16).load_weights(tmp_path / "weights.pth")
    assert network.ResNetUNet(4, 2, width=8)(torch.zeros(2, 4, 75, 100)).shape == (2, 2, 75, 100)


def torchvision_names(depths: tuple[int, ...]) -> set[str]:
    """The names of a ResNet's weights in torchvision, but for the classifier's."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"conv1.weight", *(f"bn1.{part}" for part in norm)}
    for level, depth in enumerate(depths, 1):
        for number in range(depth):
            block = f"layer{level}.{number}"
            names |= {f"{block}.conv{n}.weight" for n in (1, 2)} | {
                f"{block}.bn{n}.{part}" for n in (1, 2) for part in norm
            }
            if level > 1 and number == 0:
                names |= {f"{block}.downsample.0.weight", *(f"{block}.downsample.1.{part}" for part in norm)}
    return names


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 80


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ONLINE)
def test_the_chains_against_real_catalogues_build_without_a_network(name: str) -> None:
    calls = names_of_calls(example(name).chain())
    assert calls == [
        "search", "stack", "join", "chip", "shuffle", "take", "read",
        "mask_clouds", "spectral_index", "tensor", "batch",
    ]  # fmt: skip


@pytest.mark.network
@pytest.mark.parametrize("name", ONLINE)
def test_the_chains_against_real_catalogues_run(name: str) -> None:
    text = run(ROOT / "examples" / f"{name}.py")
    assert text.count("256, 256)") > 0
    assert "2 batches" in text


@pytest.mark.usefixtures("offline")
def test_the_readme_s_chains_build_without_a_network() -> None:
    namespace: dict[str, Any] = {}
    for block in BLOCKS[:2]:
        # What a loop asks for needs the internet; all that stands before it does not.
        built = [line for line in ast.parse(block).body if not isinstance(line, ast.For)]
        exec(compile(ast.Module(built, []), "README.md", "exec"), namespace)
    wanted = ["search", "stack", "join", "chip", "shuffle", "read", "mask_clouds", "spectral_index", "tensor", "batch"]
    assert names_of_calls(namespace["batches"]) == wanted
    assert names_of_calls(namespace["cubes"]) == ["search", "stack"]


def test_the_readme_s_other_code_runs(tmp_path: Path) -> None:
    loader, choosing, _, mapping, _, profile = BLOCKS[2:8]
    script = tmp_path / "readme.py"
    script.write_text(loader, encoding="utf-8")
    chips, batches = figure(r"(\d+) chips in (\d+) batches", run(script))
    assert 0 < chips <= 2 * batches
    script.write_text(choosing, encoding="utf-8")
    assert figure(r"(\d+) chips to be read", run(script)) == (16,)
    script.write_text(mapping, encoding="utf-8")
    assert re.search(r"geopipes.rasters\('.*/map.tif'\)", run(script))
    script.write_text(profile, encoding="utf-8")
    assert "bounds the rest" in run(script)


def test_the_readme_s_failures_are_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "readme.py"
    script.write_text(next(block for block in BLOCKS if "gp.Ledger(" in block), encoding="utf-8")
    text = run(script)
    delivered, skipped, planned = figure(r"(\d+) delivered \+ 0 filtered \+ (\d+) skipped = (\d+) planned", text)
    assert 0 < skipped < delivered + skipped == planned
    assert figure(r"(\d+) chips more, (\d+) still to be read", text) == (skipped, 0)


def test_the_readme_s_map_is_judged(tmp_path: Path) -> None:
    script = tmp_path / "readme.py"
    script.write_text(next(block for block in BLOCKS if "area_estimates(" in block), encoding="utf-8")
    text = run(script)
    assert figure(r"(\d+) places; overall accuracy (0\.\d+)", text)[0] == 200
    assert "water" in text


def test_the_readme_s_verbs_choose_chips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    small = BLOCKS[4].replace("chip(64", "chip(16").replace("stratify(500", "stratify(45")  # for scenes of 2 km
    exec(compile(small, "README.md", "exec"), names)
    land = synthetic_scenes(tmp_path, dates=("2024-06-07", "2024-08-21", "2024-12-02"), size=192)
    grid: dict[str, Any] = {"crs": "utm", "resolution": 10}
    cubes = gp.items(land.items).stack(["red", "nir"], groupby="solar_day", **grid)
    plan = names["rare"](cubes, gp.rasters(land.label).stack({"crop": "data"}, **grid))
    shares = plan.table().source.value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"water": 0.3, "other": 0.7}, abs=0.02)
    sample = next(iter(names["seasons"](cubes).read().tensor(anchor=["red"], other=["red"], fill=0)))
    assert sample["anchor"].shape == sample["other"].shape == (1, 1, 16, 16)
    points = gpd.GeoDataFrame(geometry=gpd.points_from_xy([-96.004, 151.2], [41.4, -33.9]), crs=4326)
    with serve(land.items, collections=[land.collection]) as api:
        monkeypatch.setattr(gp, "search", partial(within, gp.search, land.collection.id))
        assert len(names["anywhere"](api.url, points)) == 1


def within(search: Any, collection: str, url: str, **options: Any) -> Any:
    """Search the collection there is."""
    return search(url, **options | {"collections": [collection]})


def test_the_readme_speaks_of_what_is_there() -> None:
    modules = re.findall(r"^\| `(\w+(?:/|\.py))`", README, flags=re.MULTILINE)
    there = {path.name + "/" * path.is_dir() for path in (ROOT / "geopipes").iterdir()}
    private = {"__init__.py", "__pycache__/", "py.typed"}
    assert sorted(modules) == sorted(there - private)
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
    for target in re.findall(r"^ {4}make (\w+)", README, flags=re.MULTILINE):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
