"""What a forecast tells is what a run then does, for files at hand and for those in a store."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forgetting import forget

import geopipes as gp
from geopipes.errors import StepError
from geopipes.forecasts import Forecast
from geopipes.forecasts.values import megabytes
from geopipes.meters import AFAR, DECODING, FETCHING
from geopipes.read.tiles import shared
from geopipes.testing import ObjectServer, Synthetic, object_server, synthetic_scenes

BANDS = ["red", "green", "nir"]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """Give scenes of several tiles: two dates in two zones."""
    return synthetic_scenes(tmp_path_factory.mktemp("wide"), size=1024, dates=["2024-06-07", "2024-07-01"])


@pytest.fixture
def server(wide: Synthetic) -> Iterator[ObjectServer]:
    with object_server(wide.label.parent) as running:
        yield running


def cubes(items: Any) -> gp.Pipe[Any]:
    return gp.items(items).stack(BANDS, crs="utm", resolution=10, groupby="solar_day")


def batches(plan: Any, **options: Any) -> gp.Pipe[Any]:
    return plan.read(threads=2, **options).tensor(image=BANDS, fill=0).batch(16)  # type: ignore[no-any-return]


ORDERS: dict[str, Any] = {
    "as cut": lambda plan: plan,
    "shuffled": lambda plan: plan.shuffle(seed=0),
    "at random": lambda plan: plan.shuffle(seed=0, exact=True),
}


@pytest.mark.parametrize("cache", [5 * 10**6, 10**7, 10**9])
@pytest.mark.parametrize("order", ORDERS)
def test_of_files_at_hand_it_is_what_a_run_does(wide: Synthetic, order: str, cache: int) -> None:
    pipe = batches(ORDERS[order](cubes(wide.items).chip(64)), cache=cache)
    forecast = pipe.explain()
    forget()
    with pipe.profile() as report:
        assert sum(len(batch["chip"]) for batch in pipe) == forecast.chips
    counts = report.counts
    assert forecast.elements == len(pipe)
    assert forecast.needs.tiles == pytest.approx(counts[DECODING].calls, rel=0.04)
    assert forecast.needs.requests == pytest.approx(counts[FETCHING].calls, rel=0.04)
    assert forecast.needs.fetched == pytest.approx(counts[FETCHING].fetched, rel=0.04)
    assert forecast.needs.decoded == pytest.approx(counts[DECODING].decoded, rel=0.04)
    assert forecast.needs.again == pytest.approx(counts[DECODING].again / counts[DECODING].calls, abs=0.04)
    assert (forecast.unshuffled is None) == (order == "as cut")
    assert forecast.memory.tiles <= cache
    assert shared().counts.held <= forecast.memory.tiles * 1.05 + 10**6


def test_a_shuffle_is_held_against_the_order_as_cut(wide: Synthetic) -> None:
    plan = cubes(wide.items).chip(64)
    cut = batches(plan, cache=5 * 10**6).explain().needs
    shuffled = batches(plan.shuffle(seed=0, exact=True), cache=5 * 10**6).explain()
    assert shuffled.unshuffled == cut
    assert shuffled.needs.requests > 2 * cut.requests
    assert shuffled.needs.again > 0.5


@pytest.mark.parametrize("order", ORDERS)
def test_of_files_in_a_store_it_is_what_the_store_is_asked(wide: Synthetic, server: ObjectServer, order: str) -> None:
    items = server.served(wide.items)
    pipe = batches(ORDERS[order](cubes(items).chip(64)), cache=10**8)
    forget()
    before = len(server.requests)
    forecast = pipe.explain()
    asked = server.requests[before:]
    assert len(asked) == forecast.known  # a header of each kind, and no pixel
    assert all(request.start == 0 for request in asked)
    assert forecast.known + forecast.assumed == forecast.files == 12
    assert forecast.far == 12
    assert forecast.headers == 12 - forecast.known
    assert "taken to be stored like those" in str(forecast)

    before, sent = len(server.requests), server.sent
    with pipe.profile() as report:
        assert len([*pipe]) == forecast.elements
    asked = server.requests[before:]
    headers = sum(request.start == 0 for request in asked)
    assert headers == forecast.headers
    assert forecast.needs.tiles == pytest.approx(report.counts[DECODING].calls, rel=0.04)
    # Neighbours that wait together go together: how many do is chance, and the forecast counts none of them.
    assert 0.4 * forecast.needs.requests <= len(asked) - headers <= 1.05 * forecast.needs.requests
    assert forecast.needs.fetched == pytest.approx(report.counts[AFAR].fetched, rel=0.06)
    assert forecast.needs.fetched == pytest.approx(server.sent - sent, rel=0.06 + 0.02 * headers)


def test_what_the_disk_holds_is_not_fetched(wide: Synthetic, server: ObjectServer, tmp_path: Path) -> None:
    cut = cubes(server.served(wide.items)).chip(64)
    plan, cache = cut.shuffle(seed=0), 5 * 10**6  # tiles are decoded again
    fetched = batches(plan, cache=cache).explain().needs
    assert fetched.kept == 0
    assert "on disk" not in str(batches(plan, cache=cache).explain())
    pipe = batches(plan, cache=cache, disk=tmp_path)
    forget()
    first = pipe.explain().needs
    assert first.fetched < fetched.fetched == pytest.approx(first.fetched + first.kept, rel=0.1)

    assert len([*batches(cut[: len(cut) // 2], cache=cache, disk=tmp_path)])
    half = pipe.explain()
    (line,) = [line for line in str(half).splitlines() if line.startswith("found on disk")]
    assert megabytes(half.needs.kept) in line
    assert 0 < half.needs.fetched < 0.7 * first.fetched
    with pipe.profile() as report:
        assert len([*pipe]) == half.elements
    counts = report.counts
    assert half.needs.fetched == pytest.approx(counts[AFAR].fetched, rel=0.06)

    sent = server.sent
    again = pipe.explain().needs
    assert (again.fetched, again.requests) == (0, 0)
    assert again.kept == pytest.approx(first.fetched + first.kept, rel=0.06)
    assert server.sent == sent


def test_a_disk_that_is_too_small_is_not_counted_on(wide: Synthetic, server: ObjectServer, tmp_path: Path) -> None:
    plan = cubes(server.served(wide.items)).chip(64).shuffle(seed=0, exact=True)
    large, small = (
        batches(plan, cache=5 * 10**6, disk=tmp_path, disk_budget=size).explain().needs for size in (10**9, 10**6)
    )
    assert small.fetched > 2 * large.fetched


def test_a_part_of_a_long_plan_tells_of_all_of_it(wide: Synthetic) -> None:
    pipe = batches(cubes(wide.items).chip(32).shuffle(seed=0), cache=10**9)
    whole, part = pipe.explain(), pipe.explain(sample=len(pipe) * 16 // 2)
    assert part.looked_at < whole.looked_at == whole.chips == part.chips
    assert part.needs.requests == pytest.approx(whole.needs.requests, rel=0.25)
    assert part.unshuffled is not None
    assert whole.unshuffled is not None
    assert part.unshuffled.requests == pytest.approx(whole.unshuffled.requests, rel=0.25)
    assert f"the first {part.looked_at:,} chips of each order were looked at" in str(part)
    assert "looked at" not in str(whole)


def test_cubes_and_plans_and_several_inputs(wide: Synthetic) -> None:
    lazy = cubes(wide.items)
    whole = lazy.explain()
    assert whole.scenes == 4
    assert whole.files == 12
    assert whole.needs.again == 0
    assert not whole.batched
    plan = lazy.join(gp.rasters(wide.label), name="crop", nodata=255).chip(64, margin=8).shuffle(seed=0)
    assert plan.explain().files == 13
    assert plan.explain().needs == plan.read().explain().needs
    stack: dict[str, Any] = {"crs": "EPSG:32615", "resolution": 10, "groupby": "solar_day"}
    side = gp.inputs(a=gp.items(wide.items).stack(["red"], **stack), b=gp.items(wide.items).stack(["nir"], **stack))
    assert side.chip(64, coverage="any").explain().files == 8
    pairs = lazy.chip(64, time=1).pairs(months=0.5, seed=0)
    assert pairs.explain().needs.requests > 0


def test_memory_is_that_of_chips_and_batches(wide: Synthetic) -> None:
    plan = cubes(wide.items).chip(64)
    chip = 2 * 64 * 64 * (3 * 2 + 1)  # two dates, three bands of 16 bits, valid
    memory = plan.read(threads=3, cache=10**7).batch(4).explain().memory
    assert memory.batch == 4 * chip
    assert memory.chips == (2 * 3 + 4) * chip
    assert memory.fetched == 0
    assert memory.total == memory.tiles + memory.chips + 2 * memory.batch


def test_a_probe_tells_seconds_and_what_bounds(wide: Synthetic) -> None:
    pipe = batches(cubes(wide.items).chip(64).shuffle(seed=0))
    forecast = pipe.explain(probe=0.2)
    assert forecast.probe is not None
    assert forecast.probe.elements >= 2
    assert forecast.probe.seconds > 0
    assert forecast.probe.bound in ("disk", "decoding", "resampling", "copying", "steps", "python")
    assert 0 < forecast.probe.share <= 1
    assert f"probe of {forecast.probe.elements}: " in str(forecast)
    assert "s for each batch" in str(forecast)


def test_a_probe_blames_a_store_far_away(wide: Synthetic, server: ObjectServer) -> None:
    pipe = batches(cubes(server.served(wide.items)).chip(64), requests=1)
    assert len([*pipe])  # compiles the kernels
    forget()
    server.latency = 0.1
    probe = pipe.explain(probe=1).probe
    assert probe is not None
    assert probe.bound == "network"


def test_a_probe_blames_slow_steps(wide: Synthetic) -> None:
    pipe = cubes(wide.items).chip(64).read(threads=2).map(slow).batch(4)
    probe = pipe.explain(probe=1).probe
    assert probe is not None
    assert probe.bound == "steps"


def slow(chip: Any) -> Any:
    """Take much longer than to read a chip."""
    for _ in range(20):
        chip = chip.assign(red=chip.red.rolling(y=5, min_periods=1).mean())
    return chip


def test_it_prints_as_documentation(wide: Synthetic) -> None:
    text = str(batches(cubes(wide.items).chip(64).shuffle(seed=0), cache=10**7).explain())
    lines = text.splitlines()
    assert lines[0] == "416 chips of 64 x 64 px in 26 batches, from 12 files of 4 scenes"
    assert lines[2].split() == ["as", "shuffled", "as", "cut"]
    assert [line[:14].strip() for line in lines[3:9]] == [
        "requests", "bytes fetched", "tiles decoded", "bytes decoded", "decoded again", "found decoded",
    ]  # fmt: skip
    assert lines[10].startswith("memory: ")
    assert max(map(len, lines)) <= 100


def test_it_is_a_value_and_refuses_what_it_cannot_tell(wide: Synthetic) -> None:
    forecast = cubes(wide.items).chip(64).explain(sample=10)
    assert isinstance(forecast, Forecast)
    assert dataclasses.replace(forecast, probe=None) == forecast
    with pytest.raises(dataclasses.FrozenInstanceError):
        forecast.chips = 3  # type: ignore[misc]
    with pytest.raises(StepError, match=r"explain\(sample=0\)"):
        cubes(wide.items).chip(64).explain(sample=0)
    with pytest.raises(StepError, match="elements come from list"):
        gp.Pipe([1, 2]).explain()
    with pytest.raises(StepError, match=r"explain\(\) works on cubes"):
        gp.items(wide.items).explain()
    with pytest.raises(StepError, match="1 elements came"):
        cubes(wide.items).chip(64).take(4).read().batch(4).explain(probe=1)
