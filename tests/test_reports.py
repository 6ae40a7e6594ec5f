"""Where the time goes: what a profile counts, the step that bounds the rest, and the bar."""

from __future__ import annotations

import io
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import astuple
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from test_http import Ranges

import geopipes as gp
from geopipes.errors import StepError
from geopipes.loaders import Batch, Each, Element, Op, Report, Run, weight
from geopipes.loaders.bounds import bound
from geopipes.meters import AFAR, CHIPS, DECODING, FETCHING, FROM_AFAR, LOOP, Counts, Row, Stage, metering
from geopipes.progress import Bar
from geopipes.steps import Step
from geopipes.testing import Synthetic
from geopipes.threads import Ahead

LONG = 0.25
"""Seconds that outlast everything else by far: chips here are read in some milliseconds."""

READ = Row(Stage.READ, 0, "read(threads=2)")


def chips(land: Synthetic, threads: int = 2, **options: Any) -> gp.Pipe[xr.Dataset]:
    stack = gp.items(land.items).stack(["red", "nir"], resolution=10, crs="utm", groupby="solar_day")
    return stack.scale(["red", "nir"], factor=1e-4).chip(48).shuffle(seed=0).read(threads=threads, **options)


def batches(land: Synthetic) -> gp.Pipe[Any]:
    return chips(land).filter(in_three).tensor(image=["red", "nir"], fill=0).batch(4).map(same)


def same(element: Any) -> Any:
    return element


def slowly(element: Any) -> Any:
    time.sleep(LONG)
    return element


def in_three(chip: xr.Dataset) -> bool:
    return bool(int(chip["chip"]) % 3)


def by_name(report: Report) -> dict[str, Counts]:
    return {row.name: counts for row, counts in report.counts.items()}


# What is counted.


def test_calls_are_exact(land: Synthetic) -> None:
    pipe = batches(land)
    count = len(chips(land))
    refused = sum(i % 3 == 0 for i in range(count))
    with pipe.profile() as report:
        delivered = list(pipe)
    lines = by_name(report)
    assert [*lines][-6:] == [
        "filter(in_three)",
        "tensor(fill=0, image=['red', 'nir'])",
        "waiting for chips",
        "batch(4)",
        "map(same)",
        "your loop",
    ]
    assert lines["read(threads=2)"].calls == lines["scale(['red', 'nir'], factor=0.0001)"].calls == count
    assert (lines["filter(in_three)"].calls, lines["filter(in_three)"].refused) == (count, refused)
    assert lines["tensor(fill=0, image=['red', 'nir'])"].calls == count - refused
    assert lines["batch(4)"].calls == lines["map(same)"].calls == lines["your loop"].calls == len(delivered)


def test_self_times_fit_into_the_time_of_the_threads(land: Synthetic) -> None:
    pipe = batches(land)
    began = perf_counter()
    with pipe.profile() as report:
        for _ in pipe:
            time.sleep(0.001)
    wall = perf_counter() - began
    stages = {stage: sum(c.seconds for row, c in report.counts.items() if row.stage == stage) for stage in Stage}
    assert 0 < stages[Stage.READ] + stages[Stage.PART] + stages[Stage.CHIP] <= 2 * wall
    assert 0 < stages[Stage.STREAM] + stages[Stage.LOOP] <= wall
    assert all(counts.cpu <= counts.seconds + 0.01 for counts in report.counts.values())
    loop = report.counts[LOOP]
    assert loop.seconds + loop.waiting <= wall


def test_runs_add_up_and_other_pipes_are_not_mixed_in(land: Synthetic) -> None:
    pipe, other = batches(land), batches(land)
    with pipe.profile() as report:
        assert report.bound is None
        assert str(report) == "profile: nothing has run yet"
        list(other)
        list(pipe.take(1))
        assert not report.counts
        list(pipe)
        once = by_name(report)
        list(pipe)
    twice = by_name(report)
    assert [2 * counts.calls for counts in once.values()][-5:] == [counts.calls for counts in twice.values()][-5:]
    list(pipe)
    assert by_name(report) == twice


def test_steps_that_look_alike_and_steps_of_groups_have_lines_of_their_own(land: Synthetic) -> None:
    plan = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day").chip(48, time=1)
    pipe = plan.map(same).map(same).pairs(seed=0, gap=(1, 365)).read(threads=2).map(same)
    with pipe.profile() as report:
        count = len(list(pipe))
    mapped = [(row.stage, counts.calls) for row, counts in report.counts.items() if row.name == "map(same)"]
    assert mapped == [(Stage.CHIP, 2 * count), (Stage.CHIP, 2 * count), (Stage.CHIP, count)]


def test_chips_read_straight_into_batches(land: Synthetic) -> None:
    plan = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day").chip(48)
    pipe = plan.read(threads=2).tensor(image=["red"], fill=0).batch(4)
    with pipe.profile() as report:
        count = sum(len(batch["chip"]) for batch in pipe)
    assert by_name(report)["read(threads=2).tensor(...)"].calls == count


def test_steps_done_as_chips_are_read(land: Synthetic) -> None:
    plan = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day").chip(48)
    pipe = plan.read(threads=2).scale("red", factor=1e-4).tensor(image=["red"], fill=0).batch(4)
    with pipe.profile() as report:
        count = sum(len(batch["chip"]) for batch in pipe)
    assert by_name(report)["read(threads=2).scale(...).tensor(...)"].calls == count
    assert by_name(report)["steps on pixels"].calls == count


def test_bytes_and_tiles(land: Synthetic) -> None:
    pipe = chips(land, cache=0)
    with pipe.profile() as report:
        list(pipe)
        first = report.counts
        list(pipe)
    second = report.counts
    tiles = first[DECODING].calls
    assert first[FETCHING].calls == tiles
    files = {asset.href for item in land.items for name, asset in item.assets.items() if name in ("red", "nir")}
    size = sum(Path(file.removeprefix("file://")).stat().st_size for file in files)
    assert 0 < first[FETCHING].fetched < size * tiles
    assert first[DECODING].decoded % tiles == 0
    assert second[DECODING].again - first[DECODING].again == second[DECODING].calls - tiles  # each for a second time
    assert first[DECODING].hits < first[DECODING].tiles


def test_what_is_cached_is_not_read(land: Synthetic) -> None:
    pipe = chips(land)
    list(pipe)
    with pipe.profile() as report:
        list(pipe)
    table = report.table()
    read = table.loc["read(threads=2)"]
    assert (read["cached"], read["read MB"], read["decoded MB"]) == (1, 0, 0)
    assert table.loc["scale(['red', 'nir'], factor=0.0001)", ["read MB", "cached", "waiting s"]].isna().all()


def test_a_source_from_elsewhere() -> None:
    pipe = gp.Pipe([1, 2, 3, 4, 5]).map(same).filter(bool).batch(2)
    with pipe.profile() as report:
        assert list(pipe) == [[1, 2], [3, 4], [5]]
    assert [(row.name, counts.calls) for row, counts in report.counts.items()] == [
        ("Pipe(list)", 5), ("map(same)", 5), ("filter(bool)", 5), ("batch(2)", 3), ("your loop", 3),
    ]  # fmt: skip


def test_a_run_that_is_watched_does_what_others_do(land: Synthetic) -> None:
    pipe = batches(land)
    with pipe.profile() as report:
        run: Any = iter(pipe)
        first = next(run)
        state = run.state_dict()
        run.close()
        again: Any = iter(pipe)
        again.load_state_dict(state)
        rest = list(again)
    whole = list(pipe)
    assert [batch["chip"].tolist() for batch in [first, *rest]] == [batch["chip"].tolist() for batch in whole]
    assert not any(thread.name.startswith("geopipes-read") for thread in threading.enumerate())
    assert report.counts[LOOP].calls == len(whole)


def test_a_loop_over_what_is_made_ahead(land: Synthetic) -> None:
    pipe, report = batches(land), Report()
    run = Run(pipe._value.get(), pipe._ops, report=report)
    watched = report.watched(Ahead(run, 2), ready=lambda: 1)
    count = len(list(watched))
    watched.close()
    loop, lines = report.counts[LOOP], by_name(report)
    assert loop.calls == lines["batch(4)"].calls == count
    assert loop.ready == loop.asked == count + 1
    assert report.table().loc["your loop", "queue"] == 1


def test_batches_of_other_processes() -> None:
    ops: list[Op] = [Each(Step("map(same)", same)), Batch(2), Each(Step("map(same)", same))]
    report = Report()

    def feed(position: int) -> Iterator[Element]:
        return iter([(0, [1, 2]), (1, [3, 4])])

    assert list(Run([1, 2, 3, 4], ops, feed=feed, report=report)) == [[1, 2], [3, 4]]
    report.merge({CHIPS: Counts(calls=4, seconds=9.0), Row(Stage.STREAM, 2, "batch(2)"): Counts(calls=2, seconds=1.0)})
    lines = by_name(report)
    assert lines["waiting for worker processes"].calls == lines["map(same)"].calls == lines["batch(2)"].calls == 2
    assert list(report.table().index) == ["batch(2)", "map(same)"]
    assert report.table()["waiting s"]["batch(2)"] >= 9


def test_leaving_a_watched_loop_leaves_nothing_behind(land: Synthetic) -> None:
    pipe = chips(land)
    with pipe.profile():
        for _ in range(20):
            for _ in pipe:
                break
    assert not any(thread.name.startswith("geopipes-read") for thread in threading.enumerate())


def test_an_error_passes_through() -> None:
    pipe = gp.Pipe([1, 0]).map(lambda n: 1 // n)
    with pipe.profile() as report, pytest.raises(ZeroDivisionError) as caught:
        list(pipe)
    assert caught.value.__notes__ == ["in step map(<lambda>)", "at element 1"]
    assert report.counts[LOOP].calls == 1


def test_nothing_is_measured_where_no_profile_is_asked_for(land: Synthetic) -> None:
    meters: list[Any] = []
    pipe = chips(land).map(lambda chip: meters.append(metering.get()))
    list(pipe)
    assert set(meters) == {None}
    with pipe.profile():
        list(pipe)
    assert meters[-1] is not None
    assert metering.get() is None


def test_what_cannot_be_profiled_says_so(land: Synthetic) -> None:
    plan = gp.items(land.items).stack(["red"], resolution=10, crs="utm").chip(48)
    with pytest.raises(StepError, match=r"profile\(\) works on elements that are read.*write .read\(\).profile\(\)"):
        plan.profile()
    pipe = gp.Pipe([1])
    with pipe.profile(), pytest.raises(StepError, match="profiled already; end that block first"), pipe.profile():
        pass
    with pipe.profile() as report:
        list(pipe)
    assert report.counts


def test_counts_travel_and_add_up() -> None:
    counts = {READ: Counts(calls=2, seconds=1.0, decoded=3), LOOP: Counts(calls=1)}
    report = Report()
    report.merge(pickle.loads(pickle.dumps(counts)))
    report.merge(counts)
    assert report.counts[READ] == Counts(calls=4, seconds=2.0, decoded=6)
    assert report.drain() == {READ: Counts(calls=4, seconds=2.0, decoded=6), LOOP: Counts(calls=2)}
    assert not report.counts
    assert astuple(Counts() + Counts()) == astuple(Counts())


# How it is printed.


WORKED: dict[Row, Counts] = {
    READ: Counts(calls=2000, seconds=8.8, cpu=8.0),
    FETCHING: Counts(calls=5180, seconds=12.0, cpu=1.2, fetched=1_050_000_000),
    DECODING: Counts(calls=5180, seconds=20.1, cpu=19.0, decoded=2_590_000_000, tiles=9000, hits=3820, again=3000),
    Row(Stage.CHIP, -1, "scale(['red', 'nir'], factor=0.0001)"): Counts(calls=2000, seconds=3.2, cpu=3.1),
    Row(Stage.CHIP, 1, "filter(clear)"): Counts(calls=2000, refused=12, seconds=0.04, cpu=0.04),
    CHIPS: Counts(calls=2000, seconds=21.0, asked=2000, ready=840, wall=23.0, capacity=46.0),
    Row(Stage.STREAM, 2, "batch(32)"): Counts(calls=63, seconds=0.3, cpu=0.3),
    LOOP: Counts(calls=63, seconds=1.7, cpu=1.6, waiting=21.3),
}

PRINTED = """\
2,000 chips in 23.0 s, 87.0 a second; read 45.7 MB/s; decoded 113 MB/s; reading threads busy 96%

step                                  calls  self s  on cpu  waiting s  queue  refused  read MB  decoded MB  cached
read(threads=2)                       2,000    40.9     69%        0.0   0.42             1,050       2,590     42%
  fetching bytes                      5,180    12.0     10%
  decoding tiles                      5,180    20.1     95%
  all else                                      8.8     91%
scale(['red', 'nir'], factor=0.0001)  2,000     3.2     97%
filter(clear)                         2,000     0.0    100%                         12
batch(32)                                63     0.3    100%       21.0
your loop                                63     1.7     94%       21.3

read(threads=2) bounds the rest: it takes 93% of the reading threads' time, decoding tiles alone
46%; 58% of the tiles had been decoded before: shuffle(seed) without exact=True, or a larger
read(cache=...), decodes each about once.
"""


def test_the_table_prints() -> None:
    report = Report()
    report.merge(WORKED)
    assert f"{report}\n" == PRINTED


# The step that bounds the rest.


def test_a_slow_loop_bounds_the_rest(land: Synthetic) -> None:
    pipe = chips(land).take(4)
    list(pipe)
    with pipe.profile() as report:
        for _ in pipe:
            time.sleep(LONG)
    assert report.bound is not None
    assert report.bound.step == "your loop"
    assert "the pipe waits for it" in str(report.bound)


def test_a_slow_step_bounds_the_rest(land: Synthetic) -> None:
    pipe = gp.items(land.items).stack(["red"], resolution=10, crs="utm").chip(48).take(4).read(threads=1).map(slowly)
    list(pipe)
    with pipe.profile() as report:
        list(pipe)
    assert report.bound is not None
    assert report.bound.step == "map(slowly)"
    assert "read(threads=2) waits for more at a time" in str(report.bound)


def test_a_slow_step_on_batches_bounds_the_rest(land: Synthetic) -> None:
    plan = gp.items(land.items).stack(["red"], resolution=10, crs="utm").chip(48).take(4)
    pipe = plan.read(threads=2).batch(1).map(slowly)  # all four are in flight while the first one's batch is made
    list(pipe)
    with pipe.profile() as report:
        list(pipe)
    assert report.bound is not None
    assert report.bound.step == "map(slowly)"
    assert "written before batch(...), it runs on the reading threads" in str(report.bound)


class Afar(Ranges):
    """Answers late."""

    def send_response(self, code: int, message: str | None = None) -> None:
        time.sleep(LONG / 5)
        super().send_response(code, message)


@pytest.fixture(params=["deflate", "lzw"])
def afar(land: Synthetic, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the href of a raster of 1 MB, of which each range comes late; with LZW GDAL reads it."""
    with rasterio.open(land.label) as label:
        tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": request.param}
        profile = label.profile | {"width": 1024, "height": 1024} | tiles
    with rasterio.open(tmp_path / "noise.tif", "w", **profile) as noise:
        noise.write(np.random.default_rng(0).integers(0, 255, (1, 1024, 1024), np.uint8))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Afar, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/noise.tif?{request.param}"
        server.shutdown()
        thread.join()


def test_a_slow_network_bounds_the_rest(land: Synthetic, afar: str) -> None:
    list(gp.rasters(land.label).stack().chip(32).read())  # all is compiled
    pipe = gp.rasters(afar).stack().chip(256).read(threads=2)
    with pipe.profile() as report:
        assert len(list(pipe)) == 16
    by_gdal = afar.endswith("lzw")
    assert (FROM_AFAR if by_gdal else AFAR) in report.counts
    assert report.table()["read MB"].isna().all() == by_gdal  # which does not tell
    assert report.bound is not None
    assert report.bound.step == "read(threads=2)"
    advice = "bytes from afar: read(threads=4)" if by_gdal else "the network: read(requests=...)"
    assert f"waits for {advice}" in str(report.bound)


def test_python_that_holds_the_gil_is_told_from_what_waits_for_it() -> None:
    augment = Row(Stage.CHIP, 1, "map(augment)")
    counts = {
        READ: Counts(calls=100, seconds=21.0, cpu=3.0),
        augment: Counts(calls=100, seconds=18.0, cpu=6.8),
        CHIPS: Counts(calls=100, seconds=9.9, wall=10.0, capacity=40.0),
        LOOP: Counts(calls=100, seconds=0.1, waiting=9.9),
    }
    found = bound(counts)
    assert found is not None
    assert found.step == "map(augment)"
    assert "holds the GIL: loader(processes=2)" in found.why
    counts[augment].cpu = 0.1
    found = bound(counts)
    assert found is not None
    assert found.step == READ.name


def test_turns_that_should_overlap() -> None:
    counts = {
        READ: Counts(calls=100, seconds=22.0, cpu=20.0),
        CHIPS: Counts(calls=100, seconds=5.5, wall=10.0, capacity=40.0),
        LOOP: Counts(calls=4, seconds=4.5, waiting=5.5),
    }
    assert "the threads are idle for 45% of the time, as your loop works; not with loader(prefetch=2)" in str(
        bound(counts)
    )
    counts[LOOP].asked = 4
    assert "loader(prefetch=2)" not in str(bound(counts))


# The bar.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_counts_chips_bytes_and_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("geopipes.progress.monotonic", lambda: now[0])
    for out, end in ((Terminal(), "\x1b[K\r"), (io.StringIO(), "\n")):
        bar = Bar(2000, "train", done=400, unit="chips", stream=out)
        bar.add(32, size=0)
        assert out.getvalue() == ""  # too soon
        now[0] += 31
        bar.add(365, size=1_395_000_000, skipped=3)
        full = "train [############..................]  40% 800/2000 12.8 chips/s, 45 MB/s, 3 skipped, 93 s left"
        assert out.getvalue() == full + end
        bar.close()
        assert out.getvalue().endswith("\n")


def test_a_batch_is_weighed() -> None:
    chip = {"image": torch.zeros(3, 4), "chip": torch.tensor(7), "name": "a"}
    batch = {"image": torch.zeros(2, 3, 4), "chip": torch.tensor([7, 8])}
    assert weight(chip) == (1, 48 + 8)
    assert weight(batch) == (2, 96 + 16)
    assert weight([chip, chip]) == (2, 2 * 56)
    assert weight(xr.Dataset({"a": ("x", np.zeros(4))})) == (1, 32)
    assert weight(7) == (1, 0)


def test_worker_processes_tell_where_their_time_goes(land: Synthetic) -> None:
    pipe = batches(land)
    with pipe.loader(processes=2) as loader:
        with loader.profile() as report:
            count = sum(len(batch["chip"]) for batch in loader)
        unwatched = list(loader)
    lines, table = by_name(report), report.table()
    name = next(name for name in lines if name.startswith("read(threads="))
    assert lines[name].calls == len(chips(land))
    assert lines[next(name for name in lines if name.startswith("tensor("))].calls == count
    assert sum(len(batch["chip"]) for batch in unwatched) == count
    assert lines["decoding tiles"].tiles >= lines["decoding tiles"].calls > 0
    assert lines["copying pixels"].calls > 0
    assert lines["waiting for worker processes"].calls == lines["your loop"].calls == len(unwatched)
    assert lines["waiting for chips"].capacity > 0
    assert table["decoded MB"][name] > 0
    assert f"{len(chips(land))} chips in" in str(report)
    assert report.bound is not None


def test_worker_processes_tell_of_steps_on_anything() -> None:
    with gp.Pipe([1, 2, 3, 4]).map(same).batch(2).loader(processes=2) as loader, loader.profile() as report:
        assert list(loader) == [[1, 2], [3, 4]]
    assert by_name(report)["map(same)"].calls == by_name(report)["Pipe(list)"].calls == 4
    assert str(report).startswith("2 elements in")  # those of your loop: batches
