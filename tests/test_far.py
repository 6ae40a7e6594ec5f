"""Files in stores: pixels equal to those of local files, few requests, nothing left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from traceback import format_exception
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from forgetting import forget
from odc.geo.geobox import GeoBox

import geopipes as gp
from geopipes.errors import ForkError, GeopipesError, ReadError, StepError
from geopipes.read import files, reason
from geopipes.read.ahead import Fetching
from geopipes.read.headers import file_header
from geopipes.read.sources import Source
from geopipes.read.stores import StoreError, heads, located
from geopipes.read.tiles import shared
from geopipes.testing import Fault, ObjectServer, Synthetic, object_server
from geopipes.testing.answers import Request

BANDS = ["red", "green", "nir"]

TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "predictor": 2}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Begin without files, headers and tiles of tests before, and end without threads."""
    forget()
    yield
    assert not left()


@pytest.fixture
def server(land: Synthetic) -> Iterator[ObjectServer]:
    with object_server(folder(land)) as server:
        yield server


def size(request: Request) -> int:
    """Count the bytes that were asked for."""
    assert request.start is not None
    assert request.stop is not None
    return request.stop - request.start


def left() -> list[str]:
    """Name the threads that read or fetch."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("geopipes-read", "geopipes-fetch", "geopipes-ahead"))]


def folder(land: Synthetic) -> Path:
    return land.label.parent


def plan(items: Any, **options: Any) -> gp.Plan[xr.Dataset]:
    return gp.items(items, **options).stack(BANDS, crs="utm", resolution=10, groupby="solar_day").chip(64)


def chips(plan: gp.Plan[xr.Dataset], **options: Any) -> list[xr.Dataset]:
    return [*plan.read(threads=4, **options)]


def same(found: list[xr.Dataset], expected: list[xr.Dataset]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        xr.testing.assert_identical(one.drop_vars("chip"), other.drop_vars("chip"))


def source(href: str, **options: Any) -> Source:
    header = file_header(href)
    return Source(
        href=href, bands=(1,), geobox=header.geobox, dtype=header.dtypes[0], nodata=header.nodata[0],
        item="it", collection=None, asset="raster", time=np.datetime64("NaT", "ns"), **options,
    )  # fmt: skip


def written(path: Path, pixels: Any, **options: Any) -> Path:
    """Write (band, y, x) pixels as a raster."""
    geobox = GeoBox.from_bbox((500_000, 5_000_000, 500_000 + 10 * pixels.shape[2], 5_000_000 + 10 * pixels.shape[1]),
                              "EPSG:32633", resolution=10)  # fmt: skip
    profile = {
        "driver": "GTiff", "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2],
        "dtype": pixels.dtype.name, "crs": str(geobox.crs), "transform": geobox.affine, **options,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
    return path


def noise(count: int, size: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 60_000, (count, size, size), dtype="uint16")


@pytest.mark.parametrize("exact", [False, True])
def test_chips_of_a_store_are_those_of_the_disk(land: Synthetic, server: ObjectServer, exact: bool) -> None:
    near = chips(plan(land.items).shuffle(seed=1, exact=exact))
    forget()
    same(chips(plan(server.served(land.items)).shuffle(seed=1, exact=exact)), near)


def test_a_chip_that_is_looked_at_alone(land: Synthetic, server: ObjectServer) -> None:
    near, far = plan(land.items), plan(server.served(land.items))
    for position in (0, len(near) - 1):
        xr.testing.assert_identical(far[position].load(), near[position].load())


def test_reason_says_that_byte_ranges_are_read(land: Synthetic, server: ObjectServer) -> None:
    href = server.served(land.items)[0].assets["red"].href
    assert reason(href).startswith("cog: tiled, deflate, predictor 2")


def test_a_cold_file_takes_one_request(land: Synthetic, server: ObjectServer) -> None:
    href = server.served(land.items)[0].assets["red"].href
    files.opened(source(href))
    assert [(request.method, request.start, request.stop) for request in server.requests] == [("GET", 0, 32768)]


def test_a_run_asks_for_each_byte_once_and_for_neighbours_together(land: Synthetic, server: ObjectServer) -> None:
    chips(plan(server.served(land.items)).shuffle(seed=0))
    tiles = [request for request in server.requests if request.start]
    assert len({(request.path, request.start) for request in tiles}) == len(tiles)
    stored = sum(path.stat().st_size for path in folder(land).rglob("*.tif"))
    assert sum(map(size, tiles)) < stored
    assert len(tiles) <= len({request.path for request in tiles}) * 2


@pytest.mark.parametrize("threads", [1, 2])
def test_files_of_chips_ahead_are_opened_and_fetched_while_others_are_read(
    land: Synthetic, server: ObjectServer, threads: int
) -> None:
    far = plan(server.served(land.items))
    second = {item.id for item in land.items if item.id.split("_")[1].startswith("15")}
    assert 0 < len(second) < len(land.items)
    forget()
    asked = len(server.requests)
    run: Any = iter(far.read(threads=threads))
    with closing(run):
        for _ in range(3 - threads + 1):  # with those ahead, none of the second zone is begun
            next(run)
            time.sleep(0.3)
        fetched = {request.path.split("/")[-2] for request in server.requests[asked:] if request.start}
    assert second <= fetched


def test_bands_and_dates_of_a_chip_are_asked_for_side_by_side(land: Synthetic, tmp_path: Path) -> None:
    with object_server(folder(land), latency=0.2) as server:
        far = plan(server.served(land.items))
        began = time.monotonic()
        far[0].load()
        took = time.monotonic() - began
        asked = len(server.requests)
    assert asked >= 2 * len(BANDS)  # headers and tiles
    assert took < asked * 0.2  # one after the other would take that at least


@pytest.mark.parametrize("options", [
    {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "predictor": 2},
    {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "zstd", "interleave": "pixel"},
    {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "lzw"},
    {"compress": "deflate"},
    {"tiled": True, "blockxsize": 64, "blockysize": 64, "BIGTIFF": "YES"},
    {"driver": "COG", "compress": "deflate", "blocksize": 128},
])  # fmt: skip
def test_formats_are_read_as_from_the_disk(tmp_path: Path, options: dict[str, Any]) -> None:
    path = written(tmp_path / "raster.tif", noise(2, 300), **options)
    with object_server(tmp_path) as server:
        href = server.href("raster.tif")
        near, far = (gp.rasters(where).stack(resolution=10, crs="EPSG:32633").chip(100) for where in (path, href))
        same(chips(far), chips(near))
        assert reason(href) == reason(str(path)) or reason(href).startswith("gdal: ")


@pytest.mark.parametrize(("name", "options"), [
    ("a.jp2", {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}), ("a b#.png", {"driver": "PNG"}),
    ("a.img", {"driver": "HFA"}),
])  # fmt: skip
def test_what_is_no_tiff_is_read_by_gdal(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    path = written(tmp_path / name, noise(1, 150), **options)
    near = chips(gp.rasters(path, bands=["b1"]).stack(["b1"], resolution=10).chip(64))
    np.testing.assert_array_equal(near[0]["b1"].values.squeeze(), noise(1, 150)[0, :64, :64])
    with object_server(tmp_path, process=True) as server:  # GDAL asks for sidecars with the GIL held
        for href in (server.href(name), f"/vsicurl/{server.href(name)}"):
            same(chips(gp.rasters(href, bands=["b1"]).stack(["b1"], resolution=10).chip(64)), near)
            assert reason(href) == f"gdal: the file is {options['driver']}, not GeoTIFF"


def test_directories_at_the_end_of_a_file_are_found(tmp_path: Path) -> None:
    options = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    path = written(tmp_path / "end.tif", noise(1, 1500), **options)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
        file.nodata = 7
        file.update_tags(LONG="x" * 5000)  # is written anew, at the end
    with object_server(tmp_path) as server:
        href = server.href("end.tif")
        assert file_header(href) == file_header(str(path))
        assert reason(href) == reason(str(path))
        assert reason(href).startswith("cog: ")
        assert len(server.requests) <= 5  # of one read of the header, for all three
        near, far = (gp.rasters(where).stack(resolution=40, resampling="average").chip(64) for where in (path, href))
        same(chips(far), chips(near))


@pytest.mark.real
def test_headers_of_real_files_are_what_gdal_says(real_data: Path) -> None:
    found = [*real_data.rglob("*.tif"), *real_data.rglob("*.tiff")]
    kinds = set()
    # In a process of its own: where a file beside the raster is asked for, rasterio holds the GIL meanwhile.
    with object_server(real_data, process=True) as server:
        for path in found:
            href = server.href(path.relative_to(real_data).as_posix())
            near, far = (_told(where) for where in (str(path), href))
            assert far == near, path
            kinds.add(str(near[1])[:4])
    assert {"cog:", "gdal"} <= kinds


def _told(href: str) -> tuple[Any, ...]:
    try:
        header, told = file_header(href), reason(href)
    except GeopipesError as error:
        return type(error), str(error).replace(href, "")[:40]
    return header, told.replace("the file is not a local one", ""), href.rpartition("/")[2]


def test_a_missing_file_says_so(server: ObjectServer) -> None:
    with pytest.raises(ReadError, match=r"gone\.tif.*404") as caught:
        file_header(server.href("gone.tif"))
    assert isinstance(caught.value.__cause__, StoreError)
    assert caught.value.__cause__.kind == "missing"


def test_a_mark_that_ends_a_url_is_told_of(tmp_path: Path) -> None:
    written(tmp_path / "a#b.tif", noise(1, 64), **TILED)
    with object_server(tmp_path) as server:
        assert reason(server.href("a#b.tif")).startswith("cog: ")
        with pytest.raises(ReadError, match='404 Not Found; write %23 for a "#" in a name'):
            file_header(f"{server.url}/a#b.tif")


def test_signatures_are_used_and_never_shown(land: Synthetic) -> None:
    with object_server(folder(land), token_life=60) as server:
        far = plan(server.served(land.items), modifier=server.sign)
        same(chips(far), chips(plan(land.items)))
        forget()
        with pytest.raises(ReadError, match="403 Forbidden: its URL is not signed: have modifier=") as caught:
            chips(plan(server.served(land.items)))
        assert "token" not in str(caught.value)
        href = f"{server.served(land.items)[0].assets['red'].href}?token=SECRET"
        with pytest.raises(StoreError, match="signature has run out") as refused:
            heads.head(located(href))  # type: ignore[arg-type]
        assert refused.value.kind == "auth"
        assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(("kind", "expected"), [
    ("busy", "transient"), ("slow_down", "transient"), ("error", "transient"), ("forbidden", "auth"),
    ("missing", "missing"), ("truncated", "transient"), ("short", "transient"), ("overlong", "transient"),
    ("refused", "transient"),
])  # fmt: skip
def test_faults_are_of_their_kind(land: Synthetic, kind: Any, expected: str) -> None:
    with object_server(folder(land), faults=[Fault(kind, times=None)]) as server:
        location = located(server.served(land.items)[0].assets["red"].href)
        assert location is not None
        with pytest.raises(StoreError) as caught:
            heads.head(location)
    assert caught.value.kind == expected
    assert "Debug source" not in str(caught.value)
    assert caught.value.retry_after == (1 if kind in ("busy", "slow_down") else None)  # asked for by a HEAD


def test_what_fails_ahead_is_told_to_whoever_needs_it_and_then_fetched(tmp_path: Path) -> None:
    path = written(tmp_path / "raster.tif", noise(1, 300), **TILED)
    with object_server(tmp_path) as server, closing(Fetching(requests=2, budget=10**7)) as fetched:
        file: Any = files.opened(source(server.href("raster.tif")))
        (tile,) = file.stored(0, 0, 0, (1,))
        server.faults = [Fault("busy")]
        fetched.expect([(file, *tile)])
        fetched.begin()
        while len(server.requests) < 2:
            time.sleep(0.01)
        with pytest.raises(StoreError, match="503"):  # who waits before it asks again
            fetched.take(file, *tile)
        assert fetched.take(file, *tile) == path.read_bytes()[tile[0] : sum(tile)]
        assert [request.status for request in server.requests if request.method == "GET"] == [206, 503, 206]


SIGNED = "?sp=r&se=2026&sig=SECRET%3D"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tiled.tif", {}),
        ("strips.tif", {}),
        ("junk.tif", {}),
        ("tiled.tif", {"engine": "odc"}),
        ("tiled.tif", {"engine": "stackstac"}),
    ],
)
def test_no_traceback_shows_a_signature(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    written(tmp_path / "tiled.tif", noise(1, 200), **TILED)
    written(tmp_path / "strips.tif", noise(1, 200), compress="lzw")
    (tmp_path / "junk.tif").write_bytes(b"no TIFF" * 1000)
    with object_server(tmp_path, process=True) as server:
        far = gp.rasters(server.href(name) + SIGNED).stack(resolution=10, **options).chip(100)
        if name != "junk.tif":
            assert len(far) == 4  # for which the header is read
            (tmp_path / name).unlink()
        with pytest.raises(ReadError) as caught:
            chips(far, retries=0)
    shown = "".join(format_exception(caught.value))
    assert server.href(name) in shown
    assert "SECRET" not in shown


def test_tracebacks_show_what_a_modifier_raised_but_for_a_signature(land: Synthetic) -> None:
    def refused(item: pystac.Item, query: str) -> None:
        raise OSError(f"403 for {next(iter(item.assets.values())).href}{query}")

    for query, is_shown in (("", True), (SIGNED, False)):
        with pytest.raises(ReadError, match="could not be signed, as the modifier failed with OSError: 403") as caught:
            chips(plan(land.items, modifier=partial(refused, query=query)), retries=0)
        shown = "".join(format_exception(caught.value))
        assert ("in refused" in shown) == is_shown
        assert "SECRET" not in shown


def test_a_pipe_reads_by_no_other_pipes_signature(land: Synthetic) -> None:
    with object_server(folder(land), token_life=60) as server:
        chips(plan(server.served(land.items), modifier=server.sign)[:2])
        shared().forget()
        with pytest.raises(ReadError, match="403"):
            chips(plan(server.served(land.items))[:2])


def test_a_busy_server_is_asked_once_how_long_to_wait(land: Synthetic) -> None:
    with object_server(folder(land), faults=[Fault("busy", times=None, retry_after=7)]) as server:
        for item in server.served(land.items)[:3]:
            location = located(item.assets["red"].href)
            assert location is not None
            with pytest.raises(StoreError) as caught:
                heads.head(location)
            assert caught.value.retry_after == 7
        assert [request.method for request in server.requests].count("HEAD") == 1


def test_neighbours_come_in_one_request_and_are_let_go_of(tmp_path: Path) -> None:
    path = written(tmp_path / "raster.tif", noise(1, 640), **TILED)
    with object_server(tmp_path) as server, closing(Fetching(requests=1, budget=10**7)) as fetched:
        file: Any = files.opened(source(server.href("raster.tif")))
        tiles = [(file, *file.stored(0, row, col, (1,))[0]) for row in range(3) for col in range(3)]
        fetched.expect(tiles)
        fetched.begin()
        for _, offset, count in tiles[:8]:
            assert fetched.take(file, offset, count) == path.read_bytes()[offset : offset + count]
        assert fetched.held == tiles[8][2]  # neighbours that were taken are let go of, whatever came with them
        fetched.used(tiles)
        assert fetched.held == 0
        assert len(server.requests) == 2  # a header, and all tiles: gaps of seven are short here
        assert fetched.tally() == (1, sum(map(size, server.requests[1:])))


def test_a_fault_that_stays_is_an_error_with_its_cause(land: Synthetic, server: ObjectServer) -> None:
    far = plan(server.served(land.items))
    chips(far[:1])
    shared().forget()
    server.faults = [Fault("busy", times=None)]
    with pytest.raises(ReadError, match=r"tile \(.*503") as caught:
        chips(far[:1], retries=0)
    cause: Any = caught.value.__cause__
    while not isinstance(cause, StoreError):
        cause = cause.__cause__
    assert cause.kind == "transient"


def test_a_file_that_was_written_anew_is_opened_anew(tmp_path: Path) -> None:
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    path = written(tmp_path / "raster.tif", noise(1, 200), **options)
    with object_server(tmp_path) as server:
        far = gp.rasters(server.href("raster.tif")).stack(resolution=10).chip(100)
        chips(far)
        shared().forget()
        written(path, noise(1, 200, seed=1), **options)
        with pytest.raises(ReadError, match="another one than when its header was read"):
            chips(far, retries=0)
        same(chips(far), chips(gp.rasters(path).stack(resolution=10).chip(100)))


def test_gdal_reads_again_after_a_body_that_ended_early(tmp_path: Path) -> None:
    path = written(tmp_path / "strips.tif", noise(1, 400), compress="lzw")
    with object_server(tmp_path, process=True) as server:  # as above
        far = gp.rasters(server.href("strips.tif")).stack(resolution=10).chip(100)
        assert len(far) == 16
        assert reason(server.href("strips.tif")).startswith("gdal: ")
        shared().forget()
        server.faults = [Fault("truncated", times=None)]
        with pytest.raises(ReadError):
            chips(far, retries=0)
        server.faults = []
        same(chips(far), chips(gp.rasters(path).stack(resolution=10).chip(100)))


def test_a_run_that_is_left_leaves_nothing_behind(land: Synthetic) -> None:
    with object_server(folder(land), latency=0.05) as server:
        run = iter(plan(server.served(land.items)).shuffle(seed=0).read(threads=2))
        next(run)
        run.close()  # type: ignore[attr-defined]
        assert not left()
        time.sleep(0.1)
        asked = len(server.requests)
        time.sleep(0.2)
        assert len(server.requests) == asked


def test_bounds_that_make_no_sense_are_refused(land: Synthetic) -> None:
    with pytest.raises(StepError, match=r"read\(requests=0\)"):
        plan(land.items).read(requests=0)


def test_little_room_and_one_request_give_the_same(land: Synthetic, server: ObjectServer) -> None:
    near = chips(plan(land.items).shuffle(seed=1))
    forget()
    same(chips(plan(server.served(land.items)).shuffle(seed=1), cache=0, requests=1), near)


def test_profiles_count_requests_and_bytes(land: Synthetic, server: ObjectServer) -> None:
    pipe = plan(server.served(land.items)).shuffle(seed=0).read(threads=2)
    with pipe.profile() as report:
        assert sum(1 for _ in pipe)
    line = report.table().loc["bytes from afar"]
    assert 0 < line["calls"] <= len(server.requests)
    assert "bytes from afar" in str(report)


FORKED = """
import multiprocessing, sys
import geopipes as gp
from geopipes.errors import ForkError
from geopipes.read.headers import file_header

def child(href):
    try:
        file_header(href)
    except ForkError as error:
        print("refused:", error)

file_header(sys.argv[1])
process = multiprocessing.get_context("fork").Process(target=child, args=(sys.argv[2],))
process.start()
process.join(20)
print("hangs" if process.is_alive() else "ended")
"""


def test_a_fork_after_the_network_was_used_is_refused(land: Synthetic, server: ObjectServer) -> None:
    hrefs = [server.served(land.items)[0].assets[band].href for band in ("red", "nir")]
    out = subprocess.run([sys.executable, "-c", FORKED, *hrefs], capture_output=True, text=True, timeout=60)
    assert 'multiprocessing_context="spawn"' in out.stdout, out.stderr
    assert out.stdout.endswith("ended\n")
    assert issubclass(ForkError, GeopipesError)


PROGRAM = """
import sys, pystac, geopipes as gp
items = pystac.ItemCollection.from_file(sys.argv[1])
chips = gp.items(items).stack(["red"], crs="utm", resolution=10, groupby="solar_day").chip(64).shuffle(seed=0)
run = iter(chips.read(threads=2))
print(int(next(run).red.sum() > 0))
"""


def program(items: list[pystac.Item], tmp_path: Path, code: str = PROGRAM) -> list[str]:
    path = tmp_path / "items.json"
    pystac.ItemCollection(items).save_object(str(path))
    return [sys.executable, "-c", code, str(path)]


LIGHT = """
import sys
from geopipes.read.ahead import Fetching
from geopipes.read.stores import located

class File:
    broken = False
    def fetch(self, start, stop):
        from geopipes.read.stores import get
        return memoryview(get(located(sys.argv[1]), start, stop)[0])

fetched = Fetching(requests=8, budget=10**6)
file = File()
fetched.expect([(file, offset, 1000) for offset in range(0, 10_000, 1000)])
fetched.begin()
print(len(fetched.take(file, 4000, 1000)))
"""


def test_short_programs_end_cleanly(land: Synthetic, server: ObjectServer, tmp_path: Path) -> None:
    """With threads and requests under way as they end: Python that comes back to an end of its own would abort."""
    server.latency = 0.01
    light = [sys.executable, "-c", LIGHT, server.served(land.items)[0].assets["red"].href]
    for command, out in [*[(light, "1000\n")] * 19, (program(server.served(land.items), tmp_path), "1\n")]:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, out, "")


INTERRUPTED = PROGRAM.replace("print(", 'print("begun", flush=True)\nfor _ in run: pass\nprint(')


@pytest.mark.parametrize("kind", [None, "stalled"])
def test_ctrl_c_ends_a_run(land: Synthetic, tmp_path: Path, kind: Any) -> None:
    faults = [] if kind is None else [Fault(kind, times=None, paths="*red.tif", after=2)]
    with object_server(folder(land), latency=0.3, faults=faults) as server:
        command = program(server.served(land.items), tmp_path, INTERRUPTED)
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in a shell's background ignores it
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, err = running.communicate(timeout=30)
        assert time.monotonic() - began < 10  # it is a second on a machine at rest
    assert "KeyboardInterrupt" in err
    assert running.returncode == -signal.SIGINT
