"""How programs end: in the middle of a run, by Ctrl-C, again and again; and what a run leaves behind: nothing."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pystac
import pytest
from forgetting import forget

import geopipes as gp
from geopipes.testing import Fault, ObjectServer, Synthetic, object_server

SHORT = int(os.environ.get("GEOPIPES_SHORT_PROGRAMS", "20"))
"""Programs that are run one after the other."""

BANDS = ["red", "nir"]


@pytest.fixture
def server(land: Synthetic) -> Iterator[ObjectServer]:
    with object_server(land.label.parent) as running:
        yield running


def moved(land: Synthetic, url: str) -> list[pystac.Item]:
    """Give the scenes with their files in a store."""
    given = []
    for item in land.items:
        item = item.clone()
        for asset in item.assets.values():
            asset.href = f"{url}/{os.path.relpath(asset.href, land.label.parent)}"
        given.append(item)
    return given


def chips(land: Synthetic, url: str | None, **options: Any) -> gp.Pipe[Any]:
    items = land.items if url is None else moved(land, url)
    cubes = gp.items(items).stack(BANDS, resolution=10, crs="utm", groupby="solar_day")
    return cubes.chip(32).shuffle(seed=0).read(threads=3, **options).tensor(image=BANDS, fill=0)


def held() -> tuple[int, int]:
    """Count threads of runs and descriptors, once requests on their way have been answered."""
    until = time.monotonic() + 30
    while (ours := _threads()) and time.monotonic() < until:
        time.sleep(0.01)
    gc.collect()
    forget()  # files are kept open for the next run
    return len(ours), len(os.listdir("/proc/self/fd"))


def _threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("geopipes-") and name != "geopipes-objects"]


def _break(batches: Any) -> None:
    for _ in batches:
        break


def _raise(batches: Any) -> None:
    try:
        for _ in batches:
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass


def _drop(batches: Any) -> None:
    iterator = iter(batches)
    next(iterator)
    del iterator


def _drop_in_a_ring(batches: Any) -> None:
    """Leave it to the garbage collector."""
    ring: dict[str, Any] = {"iterator": iter(batches)}
    ring["ring"] = ring
    next(ring["iterator"])
    del ring
    gc.collect()


def _close(batches: Any) -> None:
    iterator = iter(batches)
    next(iterator)
    iterator.close()


def _all(batches: Any) -> None:
    assert len([*batches])


@pytest.mark.parametrize("where", ["disk", "store", "store and disk"])
@pytest.mark.parametrize("leave", [_break, _raise, _drop, _drop_in_a_ring, _close, _all])
def test_a_run_that_is_left_leaves_nothing(
    land: Synthetic, server: ObjectServer, tmp_path: Path, leave: Callable[[Any], None], where: str
) -> None:
    url, disk = (None if where == "disk" else server.url), (tmp_path if where == "store and disk" else None)
    batches = chips(land, url, disk=disk).batch(4)
    leave(batches)
    leave(batches.loader(prefetch=1))
    before = held()
    for _ in range(3):
        leave(batches)
        leave(batches.loader(prefetch=2))
    after = held()
    assert before[0] == after[0] == 0
    # A connection to the server is kept open for the next request, and seen twice in this process, which is both.
    assert after[1] <= before[1] + (0 if url is None else 8)


PROGRAM = """
import sys
from tests.test_processes_ends import chips

def land():
    import pickle
    with open(sys.argv[1], "rb") as file:
        return pickle.load(file)

if __name__ == "__main__":
    url, how = sys.argv[2] or None, sys.argv[3]
    batches = chips(land(), url, **({"cache": 0} if how == "epochs" else {})).batch(4)
    print("begun", flush=True)
    if how == "loader":
        for batch in batches.loader(prefetch=2): pass
    elif how in ("processes", "epochs"):
        loader = batches.loader(processes=2)
        for _ in range(1_000 if how == "epochs" else 1):
            for batch in loader: pass
    elif how == "left":
        running = iter(batches)
        next(running)
    elif how == "loader left":
        running = iter(batches.loader(prefetch=2))
        next(running)
    else:
        for batch in batches: pass
"""


@pytest.fixture
def program(land: Synthetic, tmp_path: Path) -> list[str]:
    """Give a command that runs a program over these scenes."""
    import pickle

    (tmp_path / "land.pickle").write_bytes(pickle.dumps(land))
    (tmp_path / "program.py").write_text(PROGRAM)
    return [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "land.pickle")]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, sys.path)])}


def heeding() -> None:
    """Heed Ctrl-C, which a shell's programs in the background ignore, as do those that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(command: list[str], ready: Callable[[], bool]) -> tuple[float, int, str]:
    """Run a program, interrupt it once it is ready; give the seconds until it had ended, its code and stderr."""
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=heeding,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n", process.stderr.read() if process.stderr else ""
            until = time.monotonic() + 120
            while not ready():
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
            began = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the group
            _, errors = process.communicate(timeout=60)
            return time.monotonic() - began, process.returncode, errors
        finally:
            process.kill()


SLOW = 10.0
"""Seconds that a program may take to end on a machine that does much else: a stalled request takes 60."""


@pytest.mark.parametrize("how", ["run", "loader", "processes"])
@pytest.mark.parametrize("weather", ["stalled", "latency"])
def test_ctrl_c_ends_a_program_whose_reads_stand_still(
    server: ObjectServer, program: list[str], how: str, weather: str
) -> None:
    if weather == "stalled":
        server.faults = [Fault("stalled", times=None)]
    else:
        server.latency = 5.0
    before = len(server.requests)

    def ready() -> bool:
        if weather == "latency":
            time.sleep(1.0)
            return True
        return len(server.requests) > before

    seconds, code, errors = interrupted([*program, server.url, how], ready)
    assert code == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "Fatal" not in errors
    assert "Exception ignored" not in errors
    print(f"{how}, {weather}: {seconds:.2f} s")
    assert seconds < SLOW


def test_ctrl_c_in_a_later_epoch(server: ObjectServer, program: list[str]) -> None:
    def ready() -> bool:
        if len(server.requests) < 500:  # of which one epoch takes fewer
            return False
        server.latency = 5.0
        time.sleep(0.5)
        return True

    _, code, errors = interrupted([*program, server.url, "epochs"], ready)
    assert code == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("where", ["disk", "store"])
def test_short_programs_end_well_one_after_the_other(
    land: Synthetic, server: ObjectServer, program: list[str], where: str
) -> None:
    server.latency = 0.02
    hows = ["run", "left", "loader left"]
    for number in range(SHORT // 2):
        command = [*program, "" if where == "disk" else server.url, hows[number % 3]]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode, done.stderr) == (0, ""), f"program {number}: {hows[number % 3]}"


FORKED = """
import multiprocessing, pickle, sys
from forgetting import forget
from torch.utils.data import DataLoader
from geopipes.errors import ForkError
from geopipes.read.files import opening
from tests.test_processes_ends import chips

def child(batches):
    try:
        next(iter(batches))
    except ForkError:
        print("refused, with files open:", len(opening._entries), flush=True)

with open(sys.argv[1], "rb") as file:
    batches = chips(pickle.load(file), sys.argv[2]).batch(4)
for last in [0, 1, 2, 3]:
    forget()
    for number, _ in enumerate(batches):
        if number == last: break
    process = multiprocessing.get_context("fork").Process(target=child, args=(batches,))
    process.start()
    process.join(30)
    print("ended by", process.exitcode, flush=True)
try:
    next(iter(DataLoader(batches, batch_size=None, num_workers=2, multiprocessing_context="fork")))
except ForkError:
    print("refused")
"""


def test_a_fork_after_a_run_was_left_is_refused_before_a_file_is_opened(
    server: ObjectServer, program: list[str]
) -> None:
    """The child has the headers: it opened them side by side, in which GDAL and PROJ crashed or hung now and then."""
    server.latency = 0.05
    command = [sys.executable, "-c", FORKED, program[-1], server.url]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=180, check=False)
    assert done.stdout.splitlines() == ["refused, with files open: 0", "ended by 0"] * 4 + ["refused"], done.stderr


def _counted(url: str | None, land: Synthetic, answers: Any) -> None:
    answers.put(sum(len(batch["chip"]) for batch in chips(land, url).batch(4)))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_started_otherwise_read_after_the_network_was_used(
    land: Synthetic, server: ObjectServer, method: str
) -> None:
    expected = sum(len(batch["chip"]) for batch in chips(land, server.url).batch(4))
    context: Any = multiprocessing.get_context(method)
    answers = context.Queue()
    child = context.Process(target=_counted, args=(server.url, land, answers))
    child.start()
    assert answers.get(timeout=120) == expected
    child.join(60)
    assert child.exitcode == 0
