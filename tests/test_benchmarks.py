"""The benchmark on a tiny world: it runs, its counters are right, and the peers deliver the same pixels."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bars, measures, needs, run, worker
from benchmarks import world as worlds
from benchmarks.epochs import geopipes
from benchmarks.found import Bar
from benchmarks.jobs import Job, job
from benchmarks.training import trained
from benchmarks.world import TINY, World
from geopipes.read.tiles import shared

PEERS = ("rasterio_threads", "odc_each", "odc_xbatcher", "stackstac_xbatcher")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


@pytest.fixture(scope="module")
def world(folder: Path) -> World:
    return worlds.world(folder, TINY, threads=1)


@pytest.fixture(autouse=True)
def cache() -> Iterator[None]:
    """Give the process its cache back as it was."""
    budget = shared().budget
    yield
    shared(budget).clear()


def test_a_world_is_written_once(folder: Path, world: World) -> None:
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    assert worlds.world(folder, TINY, threads=1).bands == world.bands
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == written


def test_files_compress_as_imagery_does(world: World) -> None:
    asset = world.scenes[0].assets["B1"]
    assert 1.5 < TINY.pixels**2 * 2 / Path(asset.href).stat().st_size < 2.5


def delivered(asked: Job, peer: str | None) -> dict[int, dict[str, Any]]:
    """Give the first chips of the plan by position."""
    positions = list(range(min(6, len(asked.windows))))
    if peer is None:
        batches = asked.chain(order="sequential", threads=2)
    else:
        batches = importlib.import_module(f"benchmarks.peers.{peer}").batches(asked, positions, 2)
    found: dict[int, dict[str, Any]] = {}
    for batch in batches:
        for number in range(len(batch["image"])):
            if len(found) < len(positions):
                found[len(found)] = {name: batch[name][number].numpy() for name in ("image", "label") if name in batch}
    return found


@pytest.mark.parametrize("name", ["same-grid", "warped", "series"])
def test_peers_deliver_the_same_pixels(world: World, name: str) -> None:
    asked = job(name, world)
    expected = delivered(asked, None)
    for peer in PEERS:
        found = delivered(asked, peer)
        assert found.keys() == expected.keys()
        for position, chip in expected.items():
            image, wanted = (each["image"].astype(float) for each in (found[position], chip))
            assert image.shape == wanted.shape
            if asked.resampling == "nearest":
                np.testing.assert_array_equal(image, wanted)
            else:
                # GDAL's default errs by an eighth of a pixel, where neighbours differ by tens to hundreds.
                inner = (image > 0) & (wanted > 0)
                assert inner.mean() > 0.98 * (wanted > 0).mean()
                assert np.abs(image - wanted)[inner].mean() < 0.02 * wanted[inner].std()
            if asked.label is not None:
                assert (found[position]["label"] != chip["label"]).mean() < 0.01


def test_counters_are_those_of_needed_tiles(world: World) -> None:
    asked = job("same-grid", world)
    result = geopipes(world, name="same-grid", order="sequential", threads=2, cache=asked.decoded_bytes * 2)
    assert result["chips"] == result["planned"] == len(asked.windows)
    assert result["needed"] == needs.unique(asked, TINY.tile)
    assert result["needed"] <= result["decoded"] <= 1.05 * result["needed"]


@pytest.mark.parametrize("processes", [0, 1])
def test_a_network_is_trained_and_waits_are_counted(world: World, processes: int) -> None:
    few: dict[str, Any] = {"layers": 26, "steps": 2, "threads": 1, "processes": processes, "repeats": 1, "batch": 1}
    found = trained(world, device="cpu", **few)
    assert found["alone"] > 0
    assert found["batches"] > 0
    assert found["both"] > 0
    assert 0 <= found["waits"] <= 1


def test_a_run_prints_a_table_and_writes_json(
    folder: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_this_process(place: worker.Place, task: str, *, cache: int | None, **parameters: Any) -> dict[str, Any]:
        return worker.done(place.folder, place.size, task, parameters)

    monkeypatch.setattr(run, "QUICK", TINY)
    monkeypatch.setattr(run, "measured", in_this_process)
    out = tmp_path / "out" / "results.json"
    rows = "floors,same-grid,mixing,ranks,hand-over,scaling,choosing,overhead,steps,mapping"
    absent = tmp_path / "python"
    run.main(
        [
            "--quick",
            "--chips",
            "4",
            "--only",
            rows,
            "--world",
            str(folder),
            "--out",
            str(out),
            "--torchgeo",
            str(absent),
        ]
    )
    document = json.loads(out.read_text())
    assert document["parameters"]["size"] == asdict(TINY)
    assert f"no {absent}" in document["missing"]["torchgeo_random same-grid"]
    assert document["machine"]["versions"]["rasterio"]
    got = {(line["row"], line["what"]): line["got"] for line in document["bars"]}
    assert got["same-grid", "decodes per unique tile, sequential"] > 0
    assert got["same-grid", "shuffled: times faster than TorchGeo, 2 workers"] is None
    assert got["mixing", "batch-mean variance / that of a permutation"] is not None or len(got) > 10
    assert got["overhead", "map, then tensor: CPU ms a chip of 8 bands beyond reading"] is not None
    assert got["steps", "mask_clouds: ms a chip of 6 dates, 8 bands, 256 x 256 px"] > 0
    assert got["hand-over", "uint16: times faster than DataLoader's worker, spawn"] > 0
    assert {what for row, what in got if row == "mapping" and got[row, what]} == {
        "stitched / model and reader alone", "written / model and reader alone",
        "peak RSS, an area 16 times as high / the smaller",
    }  # fmt: skip
    choosing = {what: value for (row, what), value in got.items() if row == "choosing"}
    assert len(choosing) == 7
    assert choosing["xbatcher's BatchGenerator: seconds to list 2,401 windows"] > 0
    assert choosing["TorchGeo's GridGeoSampler: seconds to list 0 windows"] is None
    assert "wall time / F_pixels, shuffled, threads 2" in capsys.readouterr().out


def test_a_failure_stands_in_the_table_with_its_reason(folder: Path, world: World) -> None:
    place = worker.Place(str(folder), asdict(TINY))
    failed = worker.measured(place, "epochs:geopipes", name="no-job", order="random", threads=1)
    assert "no-job" in failed["failed"]
    lines = bars.bars({"geopipes same-grid sequential 2": [failed]}, {}, threads=2)
    assert lines[0].got is None
    assert "no-job" in lines[0].note
    assert "left out" in run.table(lines)[1]


def test_bars_are_met_or_not() -> None:
    assert Bar("", "", 1.5, "<= 1.5").met is True
    assert Bar("", "", 1.51, "<= 1.5").met is False
    assert Bar("", "", 5.9, ">= 6").met is False
    assert Bar("", "", 5.9).met is None
    assert Bar("", "", None, ">= 6").met is None


def test_medians_are_taken_for_a_chip() -> None:
    ours = [{"seconds": seconds, "chips": 10, "decoded": 4, "needed": 4, "planned": 10} for seconds in (1.0, 9.0, 2.0)]
    peer = [{"seconds": 6.0, "chips": 3}]
    results = {"geopipes warped shuffled 2": ours, "rasterio_threads warped": peer}
    lines = {line.what: line for line in bars.bars(results, {}, threads=2)}
    assert lines["shuffled: times faster than rasterio threads"].got == pytest.approx(10)
    assert lines["shuffled: times faster than rasterio threads"].met is True


def test_every_row_can_be_chosen_alone() -> None:
    for row in measures.ROWS:
        chosen = list(measures.measures([row], threads=2, chips=8, marks=(1, 2), quick=False))
        assert chosen
        assert len({one.key for one in chosen}) == len(chosen)


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--only", "speed"])
    assert "'speed' is no row; the rows are kernels, floors" in capsys.readouterr().err


def test_the_cache_is_a_tenth_of_the_decoded_pixels(world: World) -> None:
    asked = job("same-grid", world)
    assert asked.cache == 64 * 10**6  # too small a world for a tenth
    large = replace(asked, items=asked.items * 100)
    assert large.cache == large.decoded_bytes // 10
    assert replace(asked, items=asked.items * 2000).cache == 10**9
