"""What is kept on disk: found again, within its budget, by any number of threads and processes, whatever happens."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from forgetting import forget

import geopipes as gp
from geopipes.errors import CacheWarning, StepError
from geopipes.read import kept
from geopipes.read.hrefs import unsigned
from geopipes.read.kept import Head, Store, database, places
from geopipes.read.kept.database import PAGE, SLACK, Database
from geopipes.testing import Fault, ObjectServer, object_server, synthetic_scenes

MB = 2**20


def data(number: int, size: int = 50_000) -> bytes:
    """Make bytes that say which they are."""
    return random.Random(number).randbytes(size + number % 7)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "geopipes-kept"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "cache" / "tiles.sqlite", 100 * MB)
    yield made
    made.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep headers in a folder of the test's own."""
    monkeypatch.setenv("GEOPIPES_CACHE", str(tmp_path / "home"))
    return tmp_path / "home"


# Names.


@pytest.mark.parametrize(
    ("signed", "plain"),
    [
        ("https://a.blob.core.windows.net/c/b.tif?st=2024&se=2025&sp=rl&sv=2&sr=c&sig=x%3D", ""),
        ("https://b.s3.amazonaws.com/c/b.tif?X-Amz-Date=1&X-Amz-Expires=9&X-Amz-Signature=2", ""),
        ("https://storage.googleapis.com/c/b.tif?X-Goog-Date=1&X-Goog-Signature=2", ""),
        ("https://d.cloudfront.net/b.tif?Expires=1&Signature=a&Key-Pair-Id=K", ""),
        ("https://a/b.tif?token=secret", ""),
        ("https://a/tile?url=b.tif&band=3&sig=x&se=4", "?url=b.tif&band=3"),
        ("https://a/tile?url=b.tif&se=4", "?url=b.tif&se=4"),
        ("https://a/tile?expires=&policy=b", "?expires=&policy=b"),
        ("/data/what?.tif", "?.tif"),
    ],
)
def test_a_file_has_one_name_however_it_is_signed(signed: str, plain: str) -> None:
    assert unsigned(signed) == signed.partition("?")[0] + plain


# Headers.


def test_headers_are_found_again_in_another_process(cache: Path) -> None:
    here = Head(b"II*\0" + data(1), 12345, '"etag"', ((70_000, data(2)), (200_000, b"")))
    assert kept.head("https://a/b.tif") is None
    kept.keep_head("https://a/b.tif?token=1", here)
    assert kept.head("https://a/b.tif?token=2") == here
    kept.keep_head("https://a/c.tif", Head(b"", 0, None))
    kept.flush()
    assert not threads()
    code = (
        "from geopipes.read import kept\n"
        "head = kept.head('https://a/b.tif?sig=new')\n"
        "print(head.size, head.etag, len(head.data), kept.head('https://a/c.tif'), kept.head('https://a/d.tif'))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == f"12345 \"etag\" {len(here.data)} Head(data=b'', size=0, etag=None, more=(), kept=True) None\n"
    assert out.stderr == ""
    kept.forget_head("https://a/b.tif")
    assert kept.head("https://a/b.tif") is None
    assert kept.head("https://a/c.tif") is not None
    assert [name for name in files(cache) if not name.endswith(("-wal", "-shm"))] == ["headers-1.sqlite"]
    assert b"b.tif" not in (cache / "headers-1.sqlite").read_bytes()


def test_a_version_is_the_etag_or_else_the_size() -> None:
    assert Head(b"", 7, '"e"').version == '"e"'
    assert Head(b"", 7, None).version == "7"


def test_where_headers_are_kept_is_said_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOPIPES_CACHE", "")
    kept.keep_head("https://a/b.tif", Head(b"x", 1, None))
    assert kept.head("https://a/b.tif") is None
    kept.forget_head("https://a/b.tif")
    monkeypatch.setenv("GEOPIPES_CACHE", "~/here")
    assert places.folder() == Path.home() / "here"
    monkeypatch.delenv("GEOPIPES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert places.folder() == tmp_path / "geopipes"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert places.folder() == Path.home() / ".cache" / "geopipes"


def test_headers_that_cannot_be_kept_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GEOPIPES_CACHE", str(tmp_path / "file"))
    with pytest.warns(CacheWarning, match="headers cannot be kept in .*set GEOPIPES_CACHE to another folder"):
        assert kept.head("https://a/b.tif") is None
    kept.keep_head("https://a/b.tif", Head(b"x", 1, None))  # said once
    assert kept.head("https://a/b.tif") is None


# Tiles.


def test_tiles_are_kept_where_a_run_says_so(tmp_path: Path) -> None:
    def run(folder: Path, expected: bytes | None) -> None:
        with kept.tiles(folder, 10 * MB) as store:
            assert kept.tile(store, "https://a/b.tif", "v", 100, 5) == expected
            kept.keep_tile(store, "https://a/b.tif?token=1", "v", 100, b"bytes")
            assert kept.tile(store, "https://a/b.tif?token=2", "v", 100, 5) == b"bytes"
            assert kept.tile(store, "https://a/b.tif", "w", 100, 5) is None
            assert kept.tile(store, "https://a/b.tif", "v", 101, 5) is None

    run(tmp_path / "one", None)
    run(tmp_path / "one", b"bytes")
    run(tmp_path / "two", None)
    assert files(tmp_path / "one") == ["tiles-1.sqlite"]
    assert not threads()


def test_a_folder_that_cannot_be_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(StepError, match=r"read\(disk='.*file'\): nothing can be kept there"),
        kept.tiles(tmp_path / "file", MB),
    ):
        pass


def test_runs_share_a_file_and_the_last_closes_it(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with kept.tiles(tmp_path, 10 * MB) as first:
        with kept.tiles(tmp_path, 20 * MB) as second:
            assert second is first
            assert first.budget == 20 * MB
        first.put(b"still open", "name")
        assert first.get("name") == b"still open"
    assert len(os.listdir("/proc/self/fd")) == before
    assert not threads()


# The file.


def test_what_was_put_is_found_and_put_anew(store: Store) -> None:
    for number in range(50):
        store.put(data(number), "tile", number)
    assert all(store.get("tile", number) == data(number) for number in range(50))  # written or not
    store.flush()
    assert all(store.get("tile", number) == data(number) for number in range(50))
    assert store.get("tile", 50) is None
    store.put(b"another", "tile", 3)
    store.flush()
    assert store.get("tile", 3) == b"another"
    store.forget("tile", 3)
    assert store.get("tile", 3) is None


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    one = Database(tmp_path / "a.sqlite", 4 * MB)
    for number in range(40):
        one.write({b"%d" % number: data(number)}, {b"%d" % number: number})
    one.write({}, {b"0": 100, b"5": 101})
    for number in range(40, 90):
        one.write({b"%d" % number: data(number)}, {b"%d" % number: 2 * number})
    there = [number for number in range(90) if one.get(b"%d" % number) is not None]
    assert 70 <= len(there) <= 84
    assert there[:2] == [0, 5]
    assert there[2:] == [*range(90 - len(there) + 2, 90)]
    assert one.path.stat().st_size <= 4 * MB + SLACK
    one.close()


def test_a_file_shrinks_to_a_smaller_budget(tmp_path: Path) -> None:
    large = Store(tmp_path / "a.sqlite", 100 * MB)
    for number in range(600):
        large.put(data(number), number)
    large.close()
    assert (tmp_path / "a.sqlite").stat().st_size > 25 * MB
    small = Store(tmp_path / "a.sqlite", 5 * MB)
    small.put(b"new", "name")
    small.close()
    assert (tmp_path / "a.sqlite").stat().st_size <= 5 * MB + SLACK
    small = Store(tmp_path / "a.sqlite", 5 * MB)
    assert small.get("name") == b"new"
    assert small.get(599) == data(599)
    assert small.get(0) is None
    small.close()


@pytest.mark.parametrize("budget", [0, PAGE, 2 * MB])
def test_what_does_not_fit_is_left_out(tmp_path: Path, budget: int) -> None:
    small = Store(tmp_path / "a.sqlite", budget)
    small.put(b"little", "little")
    small.put(bytes(3 * MB), "much")
    small.flush()
    assert small.get("much") is None
    assert small.get("little") == (b"little" if budget == 2 * MB else None)
    small.close()


def test_threads_read_and_write_side_by_side(store: Store) -> None:
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for number in random.Random(seed).choices(range(60), k=80):
            found = store.get(number)
            if found is None:
                store.put(data(number), number)
            elif found != data(number):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    store.flush()
    assert not threads()
    assert sum(store.get(number) == data(number) for number in range(60)) == 60


# Damage.


def test_wrong_bytes_are_never_given(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    one = Store(path, 10 * MB)
    for number in range(20):
        one.put(data(number), number)
    one.close()
    content = bytearray(path.read_bytes())
    middle = content.index(data(7)[20_000:20_100]) + 50
    content[middle] ^= 1
    path.write_bytes(content)
    two = Store(path, 10 * MB)
    assert two.get(7) is None
    assert two.get(8) == data(8)
    two.put(data(7), 7)
    two.flush()
    assert two.get(7) == data(7)
    two.close()


def _text(path: Path) -> None:
    path.write_text("this is no database" * 1000)


def _ended(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 5 * PAGE + 100])


def _torn(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for start in range(PAGE, len(content), PAGE):
        content[start : start + 64] = os.urandom(64)
    path.write_bytes(content)


def _emptied(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE stored")
    connection.commit()
    connection.close()


def _of_others(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("damage", [_text, _ended, _torn, _emptied, _of_others])
def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "a.sqlite"
    for _ in range(2):  # the second takes the place of the first
        one = Store(path, 10 * MB)
        for number in range(20):
            one.put(data(number), number)
        one.close()
        damage(path)
        with pytest.warns(CacheWarning, match=r"a\.sqlite is damaged \(.*\): it was moved to a\.sqlite\.damaged"):
            found = _searched(path)
        two = Store(path, 10 * MB)
        assert all(bytes_ in (None, data(number)) for number, bytes_ in enumerate(found))
        assert two.get(3) == data(3)
        two.close()
        assert files(tmp_path) == ["a.sqlite", "a.sqlite.damaged"]


def _searched(path: Path) -> list[bytes | None]:
    """Look for all that was kept, and keep one anew."""
    store = Store(path, 10 * MB)
    found = [store.get(number) for number in range(20)]
    store.put(data(3), 3)
    store.close()
    return found


def _kept(store: Store, data: bytes, name: str) -> None:
    store.put(data, name)
    store.flush()


def _read_and_kept(store: Store) -> None:
    for number in range(100):
        assert store.get(number) in (None, data(number))
        store.put(data(number), number)
    store.flush()


def test_damage_in_the_middle_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    one = Store(path, 10 * MB)
    for number in range(100):
        one.put(data(number), number)
    one.flush()
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    _torn(path)
    with pytest.warns(CacheWarning, match="is damaged"):
        _read_and_kept(one)
    assert all(one.get(number) == data(number) for number in range(90, 100))
    one.close()


def test_a_disk_that_is_full_is_said_once_and_reading_goes_on(tmp_path: Path) -> None:
    code = f"""
import resource, signal, warnings
from pathlib import Path
from geopipes.read.kept import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(Path({str(tmp_path / "a.sqlite")!r}), 2**30)
store.put(b"first", "first")
store.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for number in range(100):
        store.put(bytes(100_000), number)
    store.flush()
print(len(caught), caught[0].category.__name__, store.get("first"), store.get(99))
store.close()
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (out.stdout, out.stderr) == ("1 CacheWarning b'first' None\n", "")


# Processes.


def _hammer(path: str, seed: int, seconds: float, answers: Any) -> None:
    store, until, chosen = Store(Path(path), 3 * MB), time.monotonic() + seconds, random.Random(seed)
    hits = wrong = 0
    while time.monotonic() < until:
        number = int(chosen.triangular(0, 200, 0))
        found = store.get(number)
        if found is None:
            store.put(data(number), number)
        hits += found is not None
        wrong += found not in (None, data(number))
    store.close()
    answers.put((hits, wrong))


def test_two_processes_share_a_file_with_eviction(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    path = tmp_path / "a.sqlite"
    workers = [context.Process(target=_hammer, args=(str(path), seed, 3.0, answers)) for seed in (0, 1)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert all(hits > 20 and wrong == 0 for hits, wrong in found)
    assert files(tmp_path) == ["a.sqlite"]
    assert path.stat().st_size <= 3 * MB + SLACK
    assert _whole(path)


def test_a_kill_in_the_middle_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    code = "import sys; from test_kept import _hammer; _hammer(sys.argv[1], int(sys.argv[2]), 60, None)"
    chosen = random.Random(0)
    for seed in range(6):
        command = [sys.executable, "-c", code, str(path), str(seed)]
        with subprocess.Popen(command, cwd=Path(__file__).parent) as process:
            until = time.monotonic() + 60
            while not path.exists() and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.2 + chosen.random())
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert _whole(path)
    store = Store(path, 3 * MB)
    found = {number: store.get(number) for number in range(200)}
    assert sum(value is not None for value in found.values()) > 20
    assert all(value in (None, data(number)) for number, value in found.items())
    store.close()
    assert files(tmp_path) == ["a.sqlite"]


def _whole(path: Path) -> bool:
    """Say whether SQLite finds nothing wrong, and all bytes have their line."""
    connection = sqlite3.connect(path)
    (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    alone = connection.execute("SELECT count(*) FROM stored WHERE id NOT IN (SELECT id FROM kept)").fetchone()
    connection.close()
    return (verdict, alone) == ("ok", (0,))


def test_a_forked_process_has_files_of_its_own(cache: Path, tmp_path: Path) -> None:
    kept.keep_head("https://a/b.tif", Head(b"x", 1, None))
    kept.flush()
    with kept.tiles(tmp_path / "disk", 10 * MB) as store:
        store.put(b"y", "name")
        store.flush()
        child = multiprocessing.get_context("fork").Process(target=_in_fork, args=(str(tmp_path / "disk"),))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert store.get("name") == b"y"
        assert store.get("other") == b"z"
    assert kept.head("https://a/c.tif") == Head(b"x", 1, None)


def _in_fork(disk: str) -> None:
    assert kept.head("https://a/b.tif") == Head(b"x", 1, None)
    kept.keep_head("https://a/c.tif", Head(b"x", 1, None))
    kept.flush()
    with kept.tiles(disk, 10 * MB) as store:
        assert store.get("name") == b"y"
        store.put(b"z", "other")


def test_what_is_pending_is_written_when_a_program_ends(cache: Path) -> None:
    code = "from geopipes.read import kept; kept.keep_head('https://a/b.tif', kept.Head(b'x', 1, None))"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True)
        assert kept.head("https://a/b.tif") == Head(b"x", 1, None)
        kept.forget_head("https://a/b.tif")


def test_processes_that_begin_at_once_make_one_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from geopipes.read.kept import Store\n"
        "store = Store(Path(sys.argv[1]), 10**7); store.put(b'x', sys.argv[2]); store.close()"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "a.sqlite")]
    begun = [subprocess.Popen([*command, str(number)]) for number in range(4)]
    assert [process.wait(120) for process in begun] == [0] * 4
    store = Store(tmp_path / "a.sqlite", 10**7)
    assert [store.get(str(number)) for number in range(4)] == [b"x"] * 4
    store.close()
    assert files(tmp_path) == ["a.sqlite"]


def test_another_process_that_writes_for_long_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY", 0.05)
    store = Store(tmp_path / "a.sqlite", 10 * MB)
    store.put(b"x", "name")
    store.flush()
    other = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store.get("name") == b"x"
    with pytest.warns(CacheWarning, match="database is locked.*nothing more is kept there"):
        _kept(store, b"y", "other")
    other.execute("COMMIT")
    other.close()
    assert (store.get("name"), store.get("other")) == (b"x", None)
    store.close()


# Plugged in: files in a store.


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    """Make a folder with one tiled raster."""
    (tmp_path / "store").mkdir()
    _written(tmp_path / "store" / "a.tif", seed=0)
    return tmp_path / "store" / "a.tif"


def _written(path: Path, seed: int) -> Any:
    pixels = np.random.default_rng(seed).integers(1, 3000, (1, 256, 256), "uint16")
    profile = {
        "driver": "GTiff", "width": 256, "height": 256, "count": 1, "dtype": "uint16", "crs": "EPSG:32633",
        "transform": Affine(10, 0, 500_000, 0, -10, 5_500_000), "tiled": True, "blockxsize": 64, "blockysize": 64,
        "compress": "deflate", "nodata": 0,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
    return pixels[0]


def _pixels(url: str, disk: Path, chips: slice = slice(None)) -> dict[int, Any]:
    """Read chips of the raster, as another program would."""
    forget()
    plan = gp.rasters(f"{url}/a.tif").stack(resolution=10).chip(64)
    return {int(chip.chip): chip["data"].values.squeeze() for chip in plan[chips].read(threads=2, disk=disk)}


def _cut(whole: Any, number: int) -> Any:
    row, col = divmod(number, 4)
    return whole[64 * row : 64 * row + 64, 64 * col : 64 * col + 64]


def _clear_up(server: ObjectServer) -> None:
    """End the faults once one was met."""
    while not any(request.fault for request in server.requests):
        time.sleep(0.002)
    server.faults = []


def test_bytes_that_made_no_sense_are_not_kept(raster: Path, cache: Path, tmp_path: Path) -> None:
    with rasterio.open(raster) as file:
        whole = file.read(1)
    with object_server(raster.parent, faults=[Fault("corrupt", after=1)]) as server:
        clearing = threading.Thread(
            target=_clear_up, args=(server,)
        )  # before a tile is damaged more often than asked for
        clearing.start()
        found = _pixels(server.url, tmp_path / "disk")
        clearing.join()
        assert any(request.fault == "corrupt" for request in server.requests)
        assert all(np.array_equal(pixels, _cut(whole, number)) for number, pixels in found.items())
        before = len(server.requests)
        again = _pixels(server.url, tmp_path / "disk")
        assert len(server.requests) == before
    assert len(again) == 16
    assert all(np.array_equal(pixels, found[number]) for number, pixels in again.items())


def test_a_file_that_was_replaced_is_noticed_with_the_next_byte(raster: Path, cache: Path, tmp_path: Path) -> None:
    with object_server(raster.parent) as server:
        _pixels(server.url, tmp_path / "disk", slice(0, 3))
        before = len(server.requests)
        whole = _written(raster, seed=1)
        old = _pixels(server.url, tmp_path / "disk", slice(0, 3))
        assert len(server.requests) == before  # as README says
        assert not np.array_equal(old[0], _cut(whole, 0))
        found = _pixels(server.url, tmp_path / "disk", slice(3, 16))
        assert all(np.array_equal(pixels, _cut(whole, number)) for number, pixels in found.items())
        found = _pixels(server.url, tmp_path / "disk")
        assert all(np.array_equal(pixels, _cut(whole, number)) for number, pixels in found.items())
        before = len(server.requests)
        assert len(_pixels(server.url, tmp_path / "disk")) == 16
        assert len(server.requests) == before


def test_read_refuses_a_budget_below_nothing() -> None:
    with pytest.raises(StepError, match=r"read\(disk_budget=-1\): give bytes of disk"):
        gp.rasters("a.tif").stack().chip(64).read(disk="tiles", disk_budget=-1)


@pytest.mark.usefixtures("cache")
def test_a_kept_header_that_is_not_what_the_item_states_is_asked_for_anew(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    with object_server(tmp_path / "scenes") as server:
        for size in (192, 128):  # written anew under the same names, by another program
            scenes = synthetic_scenes(tmp_path / "scenes", dates=["2024-05-03"], size=size)
            forget()
            near, far = (
                next(iter(gp.items(items).stack(["red"], crs="EPSG:32614", resolution=10).chip(64).read()))
                for items in (scenes.items, server.served(scenes.items))
            )
            np.testing.assert_array_equal(far["red"], near["red"])
