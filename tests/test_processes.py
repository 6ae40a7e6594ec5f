"""Batches of worker processes are those of one process; whatever happens, nothing is left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import geopipes as gp
from geopipes.errors import EmptyBatch, LoaderError, StepError
from geopipes.loaders import Batch, Each, Op, Run, Share, Take
from geopipes.loaders import slots as slots_of
from geopipes.loaders.processes import Processes
from geopipes.loaders.runs import ordered
from geopipes.steps import Step
from geopipes.testing import Synthetic

RAISES, RAISES_ODDLY, CANNOT_TRAVEL, LAST = 50, 52, 56, 62


def same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    elif isinstance(expected, xr.Dataset):
        xr.testing.assert_identical(found, expected)
    elif isinstance(expected, dict):
        assert [*found] == [*expected]
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, list):
        for a, b in zip(found, expected, strict=True):
            same(a, b)
    else:
        assert found == expected


class Countless:
    """Starts again, and has no length."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(LAST))


class OddError(Exception):
    """Pickles, but not back."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def sample(i: int) -> dict[str, Any]:
    image = torch.arange(6, dtype=torch.int32).reshape(2, 3).add(i).to(torch.uint16)
    return {"image": image, "chip": i, "crs": f"EPSG:{i}", "bounds": (0.5, i), "half": image.to(torch.bfloat16)}


def element(i: int) -> Any:
    """Give whatever may be an element, four of a kind."""
    match i // 4:
        case 2:
            return sample(i) | {"image": torch.full((3,), i / 7)}
        case 4:
            return sample(i) | {"points": torch.ones(i % 3, 2), "crs": torch.ones(i % 2)}
        case 5:
            return [None, "text", i, (1, None)][i % 4]
        case 6:
            return xr.Dataset({"red": (("y", "x"), np.full((2, 2), i))}, attrs={"i": i})
        case 7:
            wide = torch.arange(20.0).reshape(4, 5) + i
            return {
                "view": wide[1:3].T,
                "number": wide[0, 0],
                "none": wide[:0],
                "deep": {"a": wide[:, 1]},
                "z": 1j * wide,
            }
        case 8:
            return sample(i) | {"refused": i % 4 in (0, 2)}
        case 9:
            return {"refused": True}
        case 10:
            return sample(i) if i % 2 else {"list": [torch.ones(i % 4)]}
    if i == RAISES:
        raise ValueError("no such thing")
    if i == RAISES_ODDLY:
        raise OddError("never", "back")
    return (lambda: None) if i == CANNOT_TRAVEL else sample(i)


def wanted(element: Any) -> bool:
    return not (isinstance(element, dict) and element.get("refused"))


ANYTHING: tuple[Op, ...] = (
    Each(Step("map(element)", element)), Each(Step("filter(wanted)", wanted), keeps=True), Batch(4),
)  # fmt: skip


@pytest.fixture(scope="module")
def anything() -> Iterator[Processes]:
    processes = Processes(Countless(), ANYTHING, share=Share(), processes=2, ahead=2)
    yield processes
    processes.close()


def run(processes: Processes | None, start: int = 0) -> Run:
    return Run(Countless(), ANYTHING, start=start, feed=None if processes is None else processes.feed(0))


def pids() -> set[int | None]:
    return {child.pid for child in multiprocessing.active_children() if child.name.startswith("geopipes")}


def held() -> tuple[int, int, int, int]:
    """Count what a process may leave behind: descriptors, threads, children, mapped slots."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().count("geopipes-batch")
    return len(os.listdir("/proc/self/fd")), threading.active_count(), len(pids()), maps


@pytest.mark.parametrize("start", [*range(0, 36, 4), 40, 44, 60])
def test_any_elements_make_the_batch_of_one_process(anything: Processes, start: int) -> None:
    found, expected = run(anything, start), run(None, start)
    for _ in range(2 if start < 32 else 1):
        same(next(found), next(expected))
        assert found.position == expected.position
    found.close()


def test_holes_stay_holes_and_the_end_is_the_end(anything: Processes) -> None:
    found = run(anything, 32)
    assert next(found)["chip"].tolist() == [33, 35]
    with pytest.warns(EmptyBatch, match="all elements of a batch were refused"):
        same(next(found), next(run(None, 40)))
    found.close()
    assert [batch["chip"].tolist() for batch in run(anything, 60)] == [[60, 61]]
    assert [*run(anything, 64)] == []


def test_an_error_is_that_of_the_step_and_ends_its_run_alone(anything: Processes) -> None:
    other, found = run(anything), run(anything, 44)
    next(other)
    before = pids()
    same(next(found), next(run(None, 44)))
    with pytest.raises(ValueError, match="no such thing") as caught:
        next(found)
    assert caught.value.__notes__ == ["in step map(element)", f"at element {RAISES}", "in worker process 0"]
    assert 'raise ValueError("no such thing")' in str(caught.value.__cause__)
    with pytest.raises(StepError, match="this run ended with an error"):
        next(found)
    same(next(other), next(run(None, 4)))
    other.close()
    assert pids() == before


def test_what_cannot_travel_is_named(anything: Processes) -> None:
    with pytest.raises(StepError, match="OddError: never back") as odd:
        next(run(anything, 52))
    assert odd.value.__notes__ == ["in step map(element)", f"at element {RAISES_ODDLY}", "in worker process 0"]
    with pytest.raises(StepError, match=r"element 56 \(function\) cannot travel .*processes=0"):
        next(run(anything, 56))


def test_loops_over_one_pipe_do_not_disturb_each_other(anything: Processes) -> None:
    first, second, expected = run(anything), run(anything, 8), [*islice(run(None), 8)]
    for k in range(6):
        same(next(first), expected[k])
        same(next(second), expected[k + 2])
    results: dict[int, list[Any]] = {}
    threads = [
        threading.Thread(target=lambda k=k: results.update({k: [*islice(run(anything, 4 * k), 4)]})) for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, found in results.items():
        same(found, expected[k : k + 4])
    first.close()
    second.close()


def test_leaving_200_loops_leaves_nothing_behind(anything: Processes) -> None:
    def leave(loops: int) -> None:
        for k in range(loops):
            left = run(anything, 4 * (k % 7))
            next(left)
            if k % 2:
                left.close()

    leave(20)
    before, workers = held(), pids()
    leave(200)
    after = held()
    assert after[1:3] == before[1:3]
    assert after[0] <= before[0] + 8  # slots in the making when it was counted
    assert pids() == workers


def test_a_batch_is_shared_memory_and_kept_as_long_as_any_view_of_it(anything: Processes) -> None:
    views: list[Any] = []
    addresses = []
    for _ in range(15):
        batches = run(anything)
        next(batches)
        image = next(batches)["image"]
        assert image._base is not None  # a view of the slot, not a copy
        addresses.append(image.data_ptr())
        if len(views) < 3:
            views.append([image[1:, :, 1], image.numpy()[2], image.detach().mT][len(views)])
        batches.close()
        del image
    assert len({*addresses}) < len(addresses)
    expected = torch.stack([sample(i)["image"] for i in range(4, 8)])
    for view, right in zip(views, [expected[1:, :, 1], expected.numpy()[2], expected.mT], strict=True):
        np.testing.assert_array_equal(np.asarray(view), np.asarray(right))


def test_a_fork_leaves_the_workers_alone(anything: Processes) -> None:
    batches = run(anything)
    next(batches)
    child = multiprocessing.get_context("fork").Process(target=_drop, args=([batches], anything))
    child.start()
    child.join()
    assert child.exitcode == 0
    same(next(batches), next(run(None, 4)))
    batches.close()


def _drop(batches: list[Run], processes: Processes) -> None:
    with pytest.raises(LoaderError, match="begun in the process that was forked"):
        next(batches[0])
    batches.pop().close()
    processes.close()
    gc.collect()


def test_a_worker_that_dies_ends_all_runs_and_the_next_has_new_ones(anything: Processes) -> None:
    batches, other = run(anything), run(anything)
    next(batches), next(other)
    before = pids()
    os.kill(max(pid for pid in before if pid), signal.SIGKILL)
    with pytest.raises(LoaderError, match=r"worker process [01] was ended by signal 9 \(SIGKILL\), as the kernel"):
        list(batches)
    with pytest.raises(LoaderError, match=r"the worker processes of this run have ended: .*SIGKILL"):
        list(other)
    assert not pids()
    same(next(run(anything)), next(run(None)))
    assert pids()
    assert not pids() & before


def test_closing_ends_all_but_what_is_held(anything: Processes) -> None:
    batches = run(anything)
    kept = [next(batches), next(batches)][1]["image"]
    anything.close()
    assert not pids()
    with pytest.raises(LoaderError, match="the loader was closed"):
        list(batches)
    assert held()[3] == 1
    np.testing.assert_array_equal(kept.numpy(), torch.stack([sample(i)["image"] for i in range(4, 8)]).numpy())
    del kept
    assert held()[3] == 0


# Chips.


def entangled(sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Give views of what was read, under names whose places they are not in; dates too, so that they may be ragged."""
    image, valid = sample["image"], sample["image_valid"]
    flipped = torch.from_numpy(image.numpy()[..., ::-1].copy())
    mixed = {"image": flipped, "before": image, "turned": image.mT, "image_valid": valid.flip(-1), "was": valid}
    others = {"random": rng.random(3).tolist(), "first": image[:1], "when": sample["time"]}
    return {name: value for name, value in (sample | mixed | others).items() if name != "time"}


def mostly(sample: dict[str, Any]) -> bool:
    return bool(sample["chip"] % 5)


def chips(land: Synthetic) -> gp.Plan[Any]:
    stack = gp.items(land.items).stack(["red", "nir"], resolution=10, crs="utm", groupby="solar_day")
    return stack.join(gp.rasters(land.label), name="crop", nodata=255).chip(32).shuffle(seed=0)


def test_chips_of_two_zones_in_every_epoch(land: Synthetic) -> None:
    read = chips(land).read(threads=2)
    pipe = read.tensor(image=["red", "nir"], label="crop", fill=0).filter(mostly)
    source = pipe._value.get()
    ops = (*pipe._ops, Each(Step("map(entangled)", entangled, draws=True)), Batch(4, drop_last=True), Batch(2))
    others = pids()
    processes = Processes(source, ops, share=Share(), processes=2, ahead=1, pad=3)
    for epoch, start in ((0, 0), (1, 0), (0, 16)):
        there = ordered(source, epoch, pad=3)
        expected = [*Run(there, ops, start=start)]
        found = [*Run(there, ops, start=start, feed=processes.feed(epoch))]  # all held, so that slots must be added
        assert len(expected) > 3
        same(found, expected)
    workers = pids() - others
    del processes
    gc.collect()
    assert len(workers) == 2
    assert pids() == others


def test_each_rank_has_its_rows(land: Synthetic) -> None:
    pipe = chips(land).read(threads=2).tensor(image=["red", "nir"], fill=0)
    source, ops, share = ordered(pipe._value.get(), 0), (*pipe._ops, Batch(8)), Share(1, 2)
    processes = Processes(source, ops, share=share, processes=2, ahead=0)
    expected = [*Run(source, ops, share=share)]
    addresses = set()
    for batch, right in zip(Run(source, ops, share=share, feed=processes.feed(0)), expected, strict=True):
        same(batch, right)
        addresses.add(batch["image"].data_ptr())
    assert len(expected) > len(addresses)
    processes.close()


def as_it_is(chip: Any) -> Any:
    """Give what is given: a step that takes a Dataset."""
    return chip


@pytest.mark.parametrize("dataset", [False, True])
def test_steps_write_to_the_rows_of_a_worker(land: Synthetic, dataset: bool) -> None:
    read = chips(land).read(threads=2)
    read = (read.map(as_it_is) if dataset else read).scale(["red", "nir"], factor=1e-4)
    pipe = read.normalized_difference("nir", "red", name="NDVI").tensor(image=["red", "NDVI"], label="crop", fill=0)
    source, ops = ordered(pipe._value.get(), 0), (*pipe._ops, Batch(4))
    processes = Processes(source, ops, share=Share(), processes=2, ahead=1)
    same([*Run(source, ops, feed=processes.feed(0))], [*Run(source, ops)])
    processes.close()


SEEN: list[tuple[torch.Tensor, torch.Tensor]] = []


def remembered(sample: dict[str, Any]) -> dict[str, Any]:
    """Hold what was seen, and look whether it is what it was."""
    assert all(torch.equal(image, copy) for image, copy in SEEN)
    SEEN.append((sample["image"], sample["image"].clone()))
    return sample


def test_what_a_step_holds_is_not_written_to(land: Synthetic) -> None:
    pipe = chips(land).read(threads=1).tensor(image=["red", "nir"], fill=0).map(remembered)
    source, ops = pipe._value.get(), (*pipe._ops, Batch(2))
    processes = Processes(source, ops, share=Share(), processes=1, ahead=1)
    batches = [batch["chip"].tolist() for _ in range(2) for batch in Run(source, ops, feed=processes.feed(0))]
    assert len(batches) > 20
    processes.close()


# Refused, and ended from outside.


class Stuck:
    """Cannot be had in another process."""

    def __iter__(self) -> Iterator[int]:
        return iter([1])

    def __setstate__(self, state: Any) -> None:
        raise ImportError("no module named elsewhere")

    def __reduce__(self) -> Any:
        return Stuck, (), {}


def test_what_cannot_work_is_refused_before_a_process_starts() -> None:
    others = pids()

    def made(*ops: Op, source: Any = (1, 2)) -> Processes:
        return Processes(source, ops, share=Share(), processes=1, ahead=1)

    with pytest.raises(StepError, match=r"map\(f\) cannot travel to another process"):
        made(Each(Step("map(f)", lambda x: x)), Batch(2))
    with pytest.raises(StepError, match="list cannot travel to a worker process"):
        made(Batch(2), source=[lambda: None])
    with pytest.raises(StepError, match=r"after them stands take\(2\); write .batch\(n\) there"):
        made(Take(2), Batch(2))
    with pytest.raises(StepError, match="after them stands nothing"):
        made()
    assert pids() == others


def test_a_plan_that_cannot_be_had_and_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes(Stuck(), (Batch(2),), share=Share(), processes=1, ahead=1)
    with pytest.raises(ImportError, match="no module named elsewhere") as caught:
        [*Run(Stuck(), (Batch(2),), feed=processes.feed(0))]
    assert caught.value.__notes__ == ["in worker process 0"]
    processes.close()
    monkeypatch.setattr(slots_of, "_room", lambda: 1_000_000)
    with pytest.raises(LoaderError, match=r"needs 2 MB, and 1 MB are free; write a smaller .batch\(n\)"):
        slots_of.allocated(2_000_000)


SCRIPT = """
import os, signal, sys
from geopipes.loaders import Batch, Each, Run, Share
from geopipes.loaders.processes import Processes
from geopipes.steps import Step
from test_processes import sample

if __name__ == "__main__":
    ops = (Each(Step("map(sample)", sample)), Batch(2))
    processes = Processes(range(100), ops, share=Share(), processes=1, ahead=2)
    batches = Run(range(100), ops, feed=processes.feed(0))
    next(batches), next(batches)
    print(processes._crew._workers[0].process.pid, flush=True)
    sys.stdin.read(1)
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no descriptors of processes here")
@pytest.mark.parametrize("how", ["killed", "ends"])
def test_workers_end_with_their_parent(tmp_path: Path, how: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    command = [sys.executable, str(script), how]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, text=True, **pipes) as parent:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        _, errors = parent.communicate("x")
    assert select.select([worker], [], [], 60)[0]  # readable once it has ended
    os.close(worker)
    assert errors == ""
    assert parent.returncode == (-signal.SIGKILL if how == "killed" else 0)


def test_messages_are_small() -> None:
    layout = slots_of.Layout(32).grown([sample(0)])
    assert len(pickle.dumps(layout)) < 400
    assert [name for name, *_ in layout.columns] == ["image", "half"]
