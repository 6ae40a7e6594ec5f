"""Reads that fail: what is tried again, what is masked or skipped, and the ledger that all of it stands in."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import torch
import xarray as xr
from forgetting import forget
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from torch.utils.data import DataLoader

import geopipes as gp
from geopipes.errors import ChipError, LedgerError, ReadError, StepError
from geopipes.read import failures, reason
from geopipes.read.failures import Failure, Policy, Signature, asking, classified, persist, trying
from geopipes.read.failures.asking import Asking
from geopipes.read.failures.policies import LONGEST_WAIT
from geopipes.read.failures.trying import wait
from geopipes.read.files import close_files
from geopipes.read.headers import Asset
from geopipes.read.hrefs import unsigned_within
from geopipes.read.sources import Source, Variable
from geopipes.read.tiles import shared
from geopipes.read.windows import read_variable
from geopipes.testing import Fault, ObjectServer, Synthetic, object_server, synthetic_scenes
from geopipes.threads import in_order, pause

BANDS = ["red", "nir", "scl"]


# What is done about it.


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"on_error": "ignore", "ledger": "a.jsonl"}, r"on_error='ignore'\): write 'raise', 'mask' or 'skip'"),
        ({"retries": -1}, r"retries=-1\): give a whole number, 0 or more"),
        ({"retries": 1.5}, "whole number"),
        ({"retries": True}, "whole number"),
        ({"timeout": 0}, r"timeout=0\): give seconds, more than 0"),
        ({"timeout": float("nan")}, "give seconds"),
        ({"on_error": "mask"}, r"must stand somewhere; write ledger='failures.jsonl', or ledger=gp.Ledger\(\)"),
        ({"on_error": "skip"}, "must stand somewhere"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(
    land: Synthetic, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(StepError, match=told):
        planned(land.items).read(**options)


@pytest.mark.parametrize("ledger", [3, [], object()])
def test_a_ledger_is_a_ledger_or_a_path(land: Synthetic, ledger: Any) -> None:
    with pytest.raises(LedgerError, match=r"give a gp.Ledger\(\), or the path of its file"):
        planned(land.items).read(ledger=ledger)


class Told(OSError):
    """An error that says itself what it is."""

    def __init__(self, kind: str, retry_after: float | None = None) -> None:
        super().__init__(f"it is {kind}")
        self.kind, self.retry_after = kind, retry_after


class Answered(Exception):
    """An error of a library for HTTP."""

    def __init__(self, status: int, wait: str | None = None) -> None:
        super().__init__("no")
        self.response = type("Response", (), {"status_code": status, "headers": {"Retry-After": wait}})


@pytest.mark.parametrize(
    ("error", "remote", "kind"),
    [
        (Told("auth"), False, "auth"),
        (Told("missing"), True, "missing"),
        (FileNotFoundError(errno.ENOENT, "gone"), False, "missing"),
        (PermissionError(errno.EACCES, "no"), False, "auth"),
        (OSError(errno.EIO, "disk"), False, "transient"),
        (OSError("Read error: fewer bytes"), False, "corrupt"),
        (OSError("Read error: fewer bytes"), True, "transient"),
        (OSError("ZIPDecode:Decoding error at scanline 0"), True, "corrupt"),
        (ValueError("libdeflate: bad data"), True, "corrupt"),
        (OSError("HTTP response code: 403"), True, "auth"),
        (OSError("HTTP response code: 400"), True, "auth"),
        (OSError("HTTP response code: 404"), True, "missing"),
        (OSError("HTTP response code: 410"), True, "missing"),
        (OSError("HTTP response code: 429"), True, "transient"),
        (OSError("HTTP response code: 503"), True, "transient"),
        (OSError("HTTP response code: 416"), True, "corrupt"),
        (OSError("CURL error: Could not resolve host: a.b"), True, "transient"),
        (OSError("'a.tif' does not exist in the file system"), False, "missing"),
        (OSError("a.tif: No such file or directory"), False, "missing"),
        (Answered(401), True, "auth"),
        (Answered(502), True, "transient"),
    ],
)
def test_errors_are_of_four_kinds(error: Exception, remote: bool, kind: str) -> None:
    assert classified(error, remote=remote).kind == kind
    outer = OSError("Read failed. See previous exception for details.")
    outer.__cause__ = error
    assert classified(outer, remote=remote).kind == kind


def test_how_long_a_server_asks_to_wait_is_found() -> None:
    assert classified(Told("transient", 7.5), remote=True).retry_after == 7.5
    assert classified(Answered(503, "12"), remote=True).retry_after == 12
    assert classified(Answered(503, "Wed, 21 Oct 2015 07:28:00 GMT"), remote=True).retry_after is None


@given(st.integers(1, 60), st.none() | st.floats(0, 100))
def test_waits_double_are_drawn_and_never_shorter_than_asked(number: int, asked: float | None) -> None:
    seconds = wait(number, asked)
    full = min(0.25 * 2 ** (number - 1), LONGEST_WAIT)
    assert (full / 2 <= seconds <= full) if asked is None else (asked <= seconds <= asked + full / 4)


# Trying again.


@dataclass
class Store:
    """Gives one error after another, then an answer."""

    errors: list[Exception]
    asked: int = 0

    def __call__(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "bytes"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Wait for nothing, and note how long that would have been."""
    found: list[float] = []

    def noted(seconds: float) -> bool:
        found.append(seconds)
        return False

    monkeypatch.setattr(trying, "pause", noted)
    return found


def tried(store: Store, *, retries: int = 6, href: str = "https://a.b/c.tif", modifier: Any = None) -> Any:
    told: list[Failure] = []
    token = asking.set(Asking(Policy(retries=retries), told.append, chip=3, position=5))
    try:
        signature = Signature(Asset(href, "item", "collection", "red", modifier))
        return persist(store, signature, what="a tile", errors=(OSError, ValueError)), told
    finally:
        asking.reset(token)


def test_what_passes_is_tried_again_and_told(waits: list[float]) -> None:
    store = Store([Told("transient"), Told("transient", 9.0), Told("transient")])
    answer, told = tried(store)
    assert (answer, store.asked, len(waits)) == ("bytes", 4, 3)
    assert waits[1] >= 9 > waits[2] > waits[0] / 2
    (recovered,) = told
    assert (recovered.action, recovered.attempts, recovered.chip) == ("recovered", 4, 3)
    assert (recovered.item, recovered.collection, recovered.asset) == ("item", "collection", "red")


@pytest.mark.parametrize(
    ("kind", "href", "attempts"),
    [
        ("transient", "https://a.b/c.tif", 3),
        ("missing", "https://a.b/c.tif", 1),
        ("auth", "https://a.b/c.tif", 1),  # nobody signs it
        ("corrupt", "https://a.b/c.tif", 3),
        ("corrupt", "/a/c.tif", 1),  # what a disk holds is what it holds
        ("transient", "/a/c.tif", 3),
    ],
)
def test_lasting_failures_are_not_tried_again(waits: list[float], kind: str, href: str, attempts: int) -> None:
    store = Store([Told(kind) for _ in range(9)])
    with pytest.raises(
        ReadError, match=rf"a tile: it is {kind} \({kind}; tried {attempts if attempts > 1 else 'once'}"
    ) as e:
        tried(store, retries=2, href=href)
    assert store.asked == attempts
    assert e.value.failure is not None
    assert (e.value.failure.kind, e.value.failure.attempts) == (kind, attempts)
    assert pickle.loads(pickle.dumps(e.value)).failure == e.value.failure


def test_a_server_that_asks_for_an_hour_is_down(waits: list[float]) -> None:
    store = Store([Told("transient", 3600.0)])
    with pytest.raises(ReadError, match="tried once"):
        tried(store)
    assert waits == []


def test_whoever_waits_to_try_again_is_woken_when_a_run_is_closed() -> None:
    begun = threading.Event()

    def work(position: int) -> bool:
        if position == 0:
            return False
        begun.set()
        return pause(1e6)

    running = in_order(work, range(4), 2)
    next(running)
    assert begun.wait(60)
    running.close()  # type: ignore[attr-defined]  # a generator; it waits for its threads


# Signing.


@dataclass
class Signer:
    """Signs as the Planetary Computer does: one token for all that a container holds; or each link by itself."""

    alone: bool = False
    made: int = 0
    held: bool = False

    def __hash__(self) -> int:
        return id(self)

    def __call__(self, item: pystac.Item) -> pystac.Item:
        assert not self.held, "two threads sign at once"
        self.held = True
        self.made += 1
        for asset in item.assets.values():
            asset.href += f"?token={self.made}" + (f"&link={asset.href[-7:]}" if self.alone else "")
        self.held = False
        return item


def asset(number: int, modifier: Any, collection: str = "c") -> Asset:
    return Asset(f"https://a.b/{number:03d}.tif", f"item {number}", collection, "red", modifier)


def test_a_token_of_a_container_signs_its_other_files() -> None:
    signer = Signer()
    calls: list[str] = []

    def steady(item: pystac.Item) -> pystac.Item:
        calls.append(item.id)
        signer.made = 0  # the same token twice is what tells that it holds for all
        return signer(item)

    hrefs = [Signature(asset(number, steady)).href for number in range(50)]
    assert hrefs == [f"https://a.b/{number:03d}.tif?token=1" for number in range(50)]
    assert len(calls) == 2


def test_links_signed_one_by_one_never_stand_in_for_each_other() -> None:
    signer = Signer(alone=True)
    hrefs = [Signature(asset(number, signer)).href for number in range(20)]
    assert signer.made == 20
    assert len({*hrefs}) == 20


def test_threads_that_are_refused_at_once_sign_once() -> None:
    signer = Signer()
    epoch = [1]

    def current(item: pystac.Item) -> pystac.Item:
        signer.made = epoch[0] - 1
        calls.append(1)
        return signer(item)

    calls: list[int] = []
    signatures = [Signature(asset(number, current)) for number in range(16)]
    old = [signature.href for signature in signatures]
    assert len(calls) == 2
    epoch[0] = 2
    with ThreadPoolExecutor(16) as pool:
        renewed = [*pool.map(lambda pair: pair[0].renew(pair[1]), zip(signatures, old, strict=True))]
    assert all(renewed)
    assert len(calls) == 3
    assert {signature.href.partition("?")[2] for signature in signatures} == {"token=2"}


def test_a_href_is_signed_anew_once_and_then_it_is_refused_for_good() -> None:
    signer = Signer()
    store = Store([Told("auth"), Told("auth"), Told("auth")])
    with pytest.raises(ReadError, match="tried 2 times"):
        tried(store, modifier=signer)
    assert (store.asked, signer.made) == (2, 2)
    answer, told = tried(Store([Told("auth")]), modifier=Signer())
    assert answer == "bytes"
    assert [failure.action for failure in told] == ["recovered"]


def test_who_cannot_be_asked_for_a_token_is_tried_again(waits: list[float]) -> None:
    errors = [Answered(503), Answered(503)]

    def modifier(item: pystac.Item) -> pystac.Item:
        if errors:
            raise errors.pop()
        return item

    signature = Signature(asset(0, modifier))
    assert persist(lambda: signature.href, signature, what="it", errors=(OSError,)) == "https://a.b/000.tif"
    assert len(waits) == 2
    errors.append(Answered(403))
    other = Signature(asset(1, modifier))
    with pytest.raises(ReadError, match="its href could not be signed, as the modifier failed with Answered: no"):
        persist(lambda: other.href, other, what="it", errors=(OSError,))


def forgetful(item: pystac.Item) -> None:
    raise KeyError("sas")


def test_a_mistake_in_a_modifier_is_a_read_that_failed(land: Synthetic) -> None:
    with pytest.raises(ReadError, match=r"the modifier failed with KeyError: 'sas' \(auth; tried once\)") as caught:
        tried(Store([]), modifier=forgetful)
    assert isinstance(caught.value.__cause__, OSError)
    assert isinstance(caught.value.__cause__.__cause__, KeyError)
    chips = gp.items(land.items, modifier=forgetful).stack(["red"], crs="utm", resolution=10).chip(64)
    name = land.items[0].id
    with pytest.raises(ReadError, match=rf"item '{name}', asset 'red' .*: its href could not be signed"):
        list(chips.read())
    ledger = gp.Ledger()
    assert list(chips.read(on_error="skip", ledger=ledger)) == []
    assert ledger.counts.skipped == len(chips)
    assert {*ledger.table()["kind"]} == {"auth"}


def test_a_modifier_that_fails_when_it_is_asked_anew_is_a_read_that_failed(waits: list[float]) -> None:
    answers: list[Any] = ["?token=1", Answered(503), KeyError("sas")]

    def modifier(item: pystac.Item) -> None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        item.assets["red"].href += answer

    with pytest.raises(ReadError, match=r"the modifier failed with KeyError: 'sas' \(auth; tried 2 times\)"):
        tried(Store([Told("auth")]), modifier=modifier)
    assert answers == []


def test_signatures_of_items_that_come_signed_are_shown_nowhere(land: Synthetic) -> None:
    items = [item.clone() for item in land.items]
    with object_server(root(land), faults=[Fault("forbidden", times=None)]) as server:
        items = server.served(items)
        for item in items:
            for asset in item.assets.values():
                asset.href += "?sv=2024&sp=r&sig=SECRET%3D"
        stack = gp.items(items).stack(["red"], crs="utm", resolution=10)
        ledger = gp.Ledger()
        assert list(stack.chip(64).read(on_error="skip", ledger=ledger)) == []
        with pytest.raises(ReadError) as caught:
            list(stack.chip(64).read())
        forget()
        with pytest.raises(ReadError) as header:
            gp.rasters(items[0].assets["red"].href).stack(["b1"], resolution=10).chip(64)[0]
        with pytest.raises(ReadError) as asked:
            reason(items[0].assets["red"].href)
    table = ledger.table()
    assert table["href"].str.endswith("red.tif").all()
    shown = [*map(str, (caught.value, header.value, asked.value)), *table["message"], *table["href"], *table["item"]]
    assert not [text for text in shown if "SECRET" in text or "sv=" in text]


@pytest.mark.parametrize(("text", "expected"), [
    ("(https://a.b/c.tif?sig=x%3D&se=1): no", "(https://a.b/c.tif): no"),
    ("https://a.b/c.tif?sig=x: no", "https://a.b/c.tif: no"),
    ("'/vsicurl/https://a.b/c.tif?id=7&token=x#2' no", "'/vsicurl/https://a.b/c.tif?id=7#2' no"),
    ("https://a.b/c.tif?id=7, really? yes", "https://a.b/c.tif?id=7, really? yes"),
])  # fmt: skip
def test_signatures_are_taken_out_of_texts(text: str, expected: str) -> None:
    assert unsigned_within(text) == expected


# Over a network.


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """Give scenes of four dates, 512 px a side: 1,024 chips of 32 px and one date."""
    dates = ("2024-05-03", "2024-06-07", "2024-07-12", "2024-08-16")
    return synthetic_scenes(tmp_path_factory.mktemp("fields"), dates=dates, zones=(14,), size=512)


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Hold nothing of files that other tests opened."""
    yield
    close_files()
    shared().forget()


def planned(items: Any, size: int = 32, **options: Any) -> gp.Plan[xr.Dataset]:
    return gp.items(items).stack(BANDS, resolution=10, crs="EPSG:32614").chip(size, time=1, **options)


def root(scenes: Synthetic) -> Path:
    return scenes.label.parent


def copied(scenes: Synthetic, folder: Path) -> list[pystac.Item]:
    """Copy the files of scenes into a folder, and give items of the copies."""
    shutil.copytree(root(scenes), folder, dirs_exist_ok=True)
    items = [item.clone() for item in scenes.items]
    for asset in (asset for item in items for asset in item.assets.values()):
        asset.href = str(folder / Path(asset.href).relative_to(root(scenes)))
    return items


@pytest.fixture(scope="module")
def truth(fields: Synthetic) -> dict[int, xr.Dataset]:
    return {int(chip["chip"]): chip for chip in planned(fields.items).read()}


PASSING: dict[tuple[int, str], tuple[Any, ...]] = {
    (2, "red"): ("busy", "truncated"),
    (2, "scl"): ("slow_down", "refused"),
    (3, "red"): ("error", "short"),
    (3, "nir"): ("overlong", "corrupt"),
    (3, "scl"): ("stalled",),
}
"""What each byte range of a file meets before it is served: by date and asset."""


@dataclass(frozen=True)
class Weather:
    """A server in bad weather, what it serves, and the chips that cannot be read there."""

    server: ObjectServer
    plan: gp.Plan[xr.Dataset]
    lost: frozenset[int]
    faults: list[Fault]

    def rage(self, seed: int) -> int:
        """Let everything go wrong once more; give the requests that came before."""
        self.server.faults = [replace(fault, seed=seed) for fault in self.faults]
        return len(self.server.requests)

    def check_raged(self, before: int, *, passing: bool = False) -> None:
        """Make sure that everything that can go wrong did, or what passes, after some requests."""
        kinds = {fault.kind for fault in self.server.faults if fault.times is not None or not passing}
        assert kinds <= {request.fault for request in self.server.requests[before:]}


@pytest.fixture(scope="module")
def storm(fields: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weather]:
    """Serve all that goes wrong at once: what passes, a file that is gone, one refused, a tile that is spoilt."""
    folder = tmp_path_factory.mktemp("storm")
    items = copied(fields, folder)
    names = [item.id for item in fields.items]
    spoil(folder / names[2] / "nir.tif", row=1, col=0)
    faults = [
        Fault("missing", times=None, paths=f"{names[0]}/red.tif"),
        Fault("forbidden", times=None, paths=f"{names[1]}/scl.tif"),
    ]
    for (date, asset), kinds in PASSING.items():
        faults += [Fault(kind, paths=f"{names[date]}/{asset}.tif", retry_after=0.05) for kind in kinds]
    with object_server(folder) as server:
        plan = planned(server.served(items))
        windows = plan._value.get()
        spoilt = (windows.time == 2) & (windows.row >= 256) & (windows.col < 256)
        lost = windows.ids[(windows.time < 2) | spoilt]
        yield Weather(server, plan, frozenset(lost.tolist()), faults)


def spoil(path: Path, *, row: int, col: int) -> None:
    """Write nonsense where a tile of full resolution is stored."""
    with rasterio.open(path) as raster:
        offset = int(raster.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1))
        size = int(raster.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=1))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * size)


def assert_right(chip: xr.Dataset, whole: xr.Dataset, lost: bool) -> None:
    """Compare a delivered chip with the one that was read in good weather."""
    valid = chip["valid"].values
    np.testing.assert_array_equal(valid, whole["valid"].values & (not lost))
    for band in BANDS:
        np.testing.assert_array_equal(chip[band].values[valid], whole[band].values[valid])
    if not lost:
        xr.testing.assert_identical(chip, whole)


@pytest.mark.parametrize("on_error", ["mask", "skip"])
def test_a_thousand_chips_through_all_faults_at_once(
    storm: Weather, truth: dict[int, xr.Dataset], on_error: Any
) -> None:
    before = storm.rage(["mask", "skip"].index(on_error))
    ledger = gp.Ledger()
    chips = storm.plan.shuffle(seed=0).read(on_error=on_error, ledger=ledger, timeout=1.0)
    seen = set()
    for chip in chips:
        number = int(chip["chip"])
        seen.add(number)
        assert_right(chip, truth[number], number in storm.lost)
    counts, lost = ledger.counts, len(storm.lost)
    assert len(truth) == counts.planned == 1024
    if on_error == "mask":
        assert seen == {*truth}
        assert (counts.delivered, counts.masked, counts.filtered, counts.skipped) == (1024, lost, 0, 0)
    else:
        assert seen == {*truth} - storm.lost
        assert (counts.delivered, counts.masked, counts.filtered, counts.skipped) == (1024 - lost, 0, 0, lost)
    assert {*ledger.failed} == storm.lost
    table = ledger.table()
    done = table[table["action"] != "recovered"]
    assert {*done["action"]} == {"masked" if on_error == "mask" else "skipped"}
    assert {*done["chip"]} == storm.lost
    assert {*done["kind"]} == {"missing", "auth", "corrupt"}
    assert {*zip(done["asset"], done["kind"], strict=True)} == {("red", "missing"), ("scl", "auth"), ("nir", "corrupt")}
    assert done[["item", "href", "window", "message"]].notna().all(axis=None)
    storm.check_raged(before)
    assert counts.retries == (table["attempts"] - 1).sum() > 10


def test_strict_mode_ends_at_the_first_lasting_fault(storm: Weather, truth: dict[int, xr.Dataset]) -> None:
    before = storm.rage(2)
    good = storm.plan.query([int(chip) not in storm.lost for chip in truth])
    whole = {int(chip["chip"]): chip for chip in good.read(timeout=1.0)}
    assert len(whole) == 1024 - len(storm.lost)
    for number, chip in whole.items():
        assert_right(chip, truth[number], lost=False)
    storm.check_raged(before, passing=True)
    ledger = gp.Ledger()
    with pytest.raises(ReadError) as raised:
        list(storm.plan.read(ledger=ledger, timeout=1.0))
    failure = raised.value.failure
    assert failure is not None
    assert failure.chip == min(storm.lost)
    for part in (
        f"chip {failure.chip}: item",
        "asset 'red'",
        "red.tif",
        "404",
        "missing; tried once",
        "rows ",
        "columns ",
    ):
        assert part in str(raised.value)
    assert ledger.counts.skipped == ledger.counts.masked == 0
    assert ledger.counts.delivered == min(storm.lost)
    assert "raised" in {*ledger.table()["action"]}
    assert failure.chip in ledger.failed


@pytest.mark.parametrize("kind", ["truncated", "short", "busy", "missing", "forbidden", "refused", "overlong"])
def test_a_server_that_recovers_gives_the_right_pixels_again(tmp_path: Path, kind: Any) -> None:
    """An answer that was cut off stays in GDAL's cache; LZW is read by GDAL wherever the file is."""
    pixels = np.random.default_rng(0).integers(1, 4000, (512, 512), "uint16")
    profile = {"driver": "GTiff", "count": 1, "height": 512, "width": 512, "dtype": "uint16", "crs": "EPSG:32614",
               "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 4_500_000), "tiled": True, "compress": "lzw",
               "blockxsize": 256, "blockysize": 256, "nodata": 0}  # fmt: skip
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as file:
        file.write(pixels, 1)
    with object_server(tmp_path) as server:
        chips = gp.rasters(server.href("a.tif")).stack(["data"], resolution=10, crs="EPSG:32614").chip(128)
        len(chips)
        server.faults = [Fault(kind, times=None)]
        with pytest.raises(ReadError):
            list(chips.read(retries=1, timeout=1.0))
        server.faults = []
        read = [chip["data"].values.squeeze() for chip in chips.read(retries=0)]
        np.testing.assert_array_equal(np.block([read[row : row + 4] for row in range(0, 16, 4)]), pixels)


def test_a_file_that_is_down_is_asked_once_for_each_chip(land: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return False

    monkeypatch.setattr(trying, "pause", pause)
    name = f"{land.items[0].id}/red.tif"
    with object_server(root(land)) as server:
        plan = gp.items(server.served([land.items[0]])).stack(["red"], resolution=10, crs="EPSG:32614").chip(32)
        server.faults = [Fault("error", times=None, paths=name, after=1)]
        ledger = gp.Ledger()
        assert not [*plan.read(threads=1, cache=0, on_error="skip", retries=3, ledger=ledger)]
        assert len(pauses) == 3
        assert ledger.table()["attempts"].tolist() == [4] + [1] * (len(plan) - 1)
        server.faults = []
        assert len([*plan.read(threads=1, cache=0, on_error="skip", ledger=ledger)]) == len(plan)


def test_an_expired_token_is_renewed_in_the_middle_of_a_run(fields: Synthetic, truth: dict[int, xr.Dataset]) -> None:
    with object_server(root(fields), token_life=3.0) as server:
        items = gp.items(server.served(fields.items), modifier=server.sign)
        plan = items.stack(BANDS, resolution=10, crs="EPSG:32614").chip(32, time=1)
        ledger = gp.Ledger()
        # With little memory tiles are fetched to the end.
        for chip in plan[::4].read(ledger=ledger, threads=2, cache=1 << 20):
            xr.testing.assert_identical(chip, truth[int(chip["chip"])])
            sleep(0.02)
        assert ledger.counts.delivered == 256
        assert any(request.status == 403 for request in server.requests)
        table = ledger.table()
        assert {*table["action"]} == {"recovered"}  # ahead of its chip or with it
        assert "auth" in {*table["kind"]}
        assert not table["href"].str.contains("token").any()
        assert not table["message"].str.contains("token=").any()


# Masked.


@pytest.fixture
def torn(land: Synthetic, tmp_path: Path) -> list[pystac.Item]:
    """Give copies of scenes, of which some files may be lost."""
    return copied(land, tmp_path)


def lose(item: pystac.Item, *keys: str) -> None:
    for key in keys:
        Path(item.assets[key].href).unlink()


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average", "mode"])
@pytest.mark.parametrize("crs", ["EPSG:32614", "EPSG:32615"])
def test_the_next_scene_does_not_stand_in_for_one_that_failed(
    torn: list[pystac.Item], crs: str, resampling: Any
) -> None:
    """Two zones overlap: where the first failed nothing is, beyond it the second is, and an earlier one stays."""
    options: Any = {"resolution": 10, "crs": crs, "resampling": resampling, "groupby": "solar_day"}
    plan = gp.items(torn[:2]).stack(["red", "nir"], **options).chip(64, edge="pad")
    whole = {int(chip["chip"]): chip for chip in plan.read()}
    stack = plan._value.get().cubes[0].stack
    (first, second), *_ = stack.variables[1].sources
    for lost, others in ((first, [second]), (second, [first])):
        Path(lost.href).rename(Path(lost.href).with_suffix(".gone"))
        ledger = gp.Ledger()
        masked = {int(chip["chip"]): chip for chip in plan.read(on_error="mask", ledger=ledger)}
        Path(lost.href).with_suffix(".gone").rename(lost.href)
        before = others if lost is second else []
        compared = 0
        for position, (_, window) in enumerate(map(plan._value.get().window, range(len(whole)))):
            chip, was = masked[position], whole[position]
            stays = np.zeros((64, 64), bool)
            for source in before:  # ahead of it in both bands
                stays |= alone(source, stack.geobox, window, resampling)
            free = alone(full(lost), stack.geobox, window, resampling) & ~stays
            np.testing.assert_array_equal(chip["valid"].values[0], was["valid"].values[0] & ~free)
            for band in ("red", "nir"):
                there = chip["valid"].values[0]
                np.testing.assert_array_equal(chip[band].values[0][there], was[band].values[0][there])
            compared += int(chip["valid"].values.sum())
        assert compared > 0
        assert {*ledger.table()["item"]} == {lost.item}
        assert len(ledger.failed) > 0


def alone(source: Source, grid: GeoBox, window: Any, resampling: str) -> Any:
    """Say where one raster is valid, read by itself."""
    variable = Variable("a", source.dtype, source.nodata, resampling, None, ((source,),))
    return read_variable(variable, 0, grid, window.rows, window.cols)[1][0]


def full(source: Source) -> Source:
    """Give a raster on the same grid, valid everywhere, as it is read: an independent way to a footprint."""
    height, width = source.geobox.shape
    path = Path(source.href).with_suffix(".full")
    with rasterio.open(path, "w", driver="GTiff", count=1, height=height, width=width, dtype="uint8",
                       crs=str(source.geobox.crs), transform=source.geobox.affine) as file:  # fmt: skip
        file.write(np.ones((1, height, width), "uint8"))
    return replace(source, href=str(path), dtype=np.dtype("uint8"), nodata=None, item="full")


def labelled(items: Any, label: Any) -> gp.Plan[xr.Dataset]:
    cubes = gp.items(items).stack(BANDS, resolution=10, crs="EPSG:32614")
    return cubes.join(gp.rasters(label), name="crop").chip(32, time=1)


def same(element: Any) -> Any:
    return element


def test_tensors_read_straight_are_masked_as_datasets_are(torn: list[pystac.Item]) -> None:
    items = torn[::2]
    plan = planned(items, margin=2)
    lose(items[1], "scl")

    def samples(step: bool) -> list[dict[str, Any]]:
        chips = plan.read(on_error="mask", ledger=gp.Ledger())
        chips = chips.map(same) if step else chips  # a step that asks for Datasets
        chips = chips.scale(["red", "nir"], factor=1e-4)
        return list(chips.tensor(image=["red", "nir"], classes="scl", fill=0).batch(8))

    straight, datasets = samples(step=False), samples(step=True)
    for ours, theirs in zip(straight, datasets, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(value, theirs[key], rtol=0, atol=0)
    valid = torch.cat([batch["image_valid"].flatten(1).any(1) for batch in straight])
    assert 0 < valid.sum() < len(valid)


@pytest.mark.parametrize("step", [False, True])
@pytest.mark.parametrize("states", ["nodata", "nan", "nothing"])
def test_a_label_that_fails_is_its_nodata_or_else_the_chip_is_skipped(
    land: Synthetic, tmp_path: Path, states: str, step: bool
) -> None:
    path, pixels = tmp_path / "crop.tif", {"nodata": "uint8", "nan": "float32", "nothing": "uint8"}
    with rasterio.open(land.label) as file:
        profile = file.profile | {"dtype": pixels[states], "nodata": {"nodata": 255, "nan": np.nan}.get(states)}
        with rasterio.open(path, "w", **profile) as copy:
            copy.write(file.read().astype(pixels[states]))
    plan = labelled(land.items, path)
    len(plan)
    path.unlink()
    ledger = gp.Ledger()
    chips = plan.read(on_error="mask", ledger=ledger)
    chips = chips.map(same) if step else chips
    samples = list(chips.tensor(image=["red", "nir"], label="crop", fill=0))
    assert {*ledger.table()["asset"]} == {"data"}
    assert {*ledger.failed} == set(range(len(plan)))
    if states == "nothing":
        assert samples == []
        assert (ledger.counts.skipped, ledger.counts.masked) == (len(plan), 0)
        assert {*ledger.table()["action"]} == {"masked", "skipped"}
        return
    assert ledger.counts.masked == ledger.counts.delivered == len(samples) == len(plan)
    for sample in samples:
        label = sample["label"]
        assert (label == 255).all() if states == "nodata" else label.isnan().all()
        assert sample["image_valid"].any() or not sample["image"].any()


def test_a_file_that_is_not_what_its_item_states_is_masked_or_skipped_too(torn: list[pystac.Item]) -> None:
    items = torn[::2]
    plan = planned(items)
    len(plan)
    path = Path(items[0].assets["nir"].href)
    path.write_bytes(Path(items[0].assets["scl"].href).read_bytes())
    with pytest.raises(Exception, match="nir"):
        list(plan.read())
    ledger = gp.Ledger()
    assert len(list(plan.read(on_error="skip", ledger=ledger))) == len(plan) // 2
    assert {*ledger.table()["kind"]} == {"corrupt"}


# The ledger.


def numbers(counts: Any) -> tuple[int, ...]:
    return counts.planned, counts.delivered, counts.masked, counts.filtered, counts.skipped


def bright(sample: dict[str, Any]) -> bool:
    return int(sample["chip"]) % 5 != 0


def samples(chips: gp.Pipe[Any], size: int = 8) -> gp.Pipe[Any]:
    return chips.tensor(image=["red", "nir"], fill=0).filter(bright).batch(size)


@dataclass
class Holey:
    """A plan of 72 chips of two dates; of the second, one file is lost."""

    plan: gp.Plan[xr.Dataset]
    items: list[pystac.Item]
    lost: set[int]

    @property
    def skipped(self) -> int:
        return len(self.lost)

    def mend(self) -> None:
        for path in Path(self.items[0].assets["nir"].href).parent.parent.rglob("*.gone"):
            path.rename(path.with_suffix(".tif"))


@pytest.fixture
def holey(torn: list[pystac.Item]) -> Holey:
    items = torn[::2]
    plan = planned(items)
    windows = plan._value.get()
    path = Path(items[1].assets["nir"].href)
    path.rename(path.with_suffix(".gone"))
    return Holey(plan, items, {*windows.ids[windows.time == 1].tolist()})


@pytest.mark.parametrize(("filed", "processes"), [(False, 0), (True, 0), (False, 2)])
def test_what_comes_of_all_chips_adds_up_over_epochs(holey: Holey, tmp_path: Path, filed: bool, processes: int) -> None:
    ledger = gp.Ledger(tmp_path / "a.jsonl" if filed else None)
    total = len(holey.plan)
    chips = samples(holey.plan.shuffle(seed=0).read(on_error="skip", ledger=ledger))
    kept = {chip for chip in range(total) if chip % 5 and chip not in holey.lost}
    refused = len([chip for chip in range(total) if chip % 5 == 0 and chip not in holey.lost])
    with chips.loader(processes=processes) as loader:
        for epoch in range(1, 4):
            seen = [int(chip) for batch in loader for chip in batch["chip"]]
            assert {*seen} == kept
            assert numbers(ledger.counts) == (
                epoch * total, epoch * len(kept), 0, epoch * refused, epoch * holey.skipped,
            )  # fmt: skip
    table = ledger.table()
    assert {*table["chip"]} == {*ledger.failed} == holey.lost
    assert {*table["epoch"]} == {0, 1, 2}
    assert (table["kind"] == "missing").all()
    assert (table["action"] == "skipped").all()
    if filed:
        again = gp.Ledger(tmp_path / "a.jsonl")
        assert again.counts == ledger.counts
        pd.testing.assert_frame_equal(again.table(), table)
        assert again.failed.equals(ledger.failed)
        assert str(again) == str(ledger)


def test_what_was_masked_is_counted_among_the_delivered(holey: Holey) -> None:
    ledger = gp.Ledger()
    with samples(holey.plan.read(on_error="mask", ledger=ledger)).loader() as loader:
        list(loader)
    masked = len([chip for chip in holey.lost if chip % 5])
    total = len(holey.plan)
    assert numbers(ledger.counts) == (
        total,
        len([c for c in range(total) if c % 5]),
        masked,
        total - len([c for c in range(total) if c % 5]),
        0,
    )
    assert {*ledger.failed} == holey.lost
    assert f"({masked} of them masked)" in str(ledger)


def test_a_run_that_is_left_and_resumed_adds_up_to_the_plan(holey: Holey, tmp_path: Path) -> None:
    """What is taken ahead and never delivered is counted by whoever delivers it."""
    path = tmp_path / "failures.jsonl"
    chips = samples(holey.plan.shuffle(seed=1).read(on_error="skip", ledger=path))
    state, seen = None, []
    for steps in (2, 3, 99):
        with chips.loader(prefetch=3) as loader:
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)))
            for _, batch in zip(range(steps), loader, strict=False):
                seen += batch["chip"].tolist()
                state = loader.state_dict()
    counts = gp.Ledger(path).counts
    assert counts.planned == len(holey.plan)
    assert (counts.delivered, counts.skipped) == (len(seen), holey.skipped)
    assert sorted(seen) == sorted({*seen})


def test_another_policy_is_no_other_run(holey: Holey) -> None:
    plan = holey.plan.shuffle(seed=0)
    first = samples(plan.read(on_error="skip", ledger=gp.Ledger(), retries=0)).loader()
    batches = iter(first)
    next(batches)
    state = first.state_dict()
    rest = [batch["chip"].tolist() for batch in batches]
    second = samples(plan.read(on_error="skip", ledger=gp.Ledger(), retries=9, timeout=5.0)).loader()
    second.load_state_dict(state)
    assert [batch["chip"].tolist() for batch in second] == rest


def test_ranks_share_a_file_and_add_up(holey: Holey, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for rank in range(3):
        chips = samples(holey.plan.shuffle(seed=0).read(on_error="skip", ledger=path), 36)
        list(chips.loader(rank=rank, ranks=3))
    ledger = gp.Ledger(path)
    assert ledger.counts.planned == len(holey.plan)
    assert ledger.counts.skipped == len(holey.lost)
    assert {*ledger.failed} == holey.lost


def test_workers_of_a_data_loader_write_to_the_file(holey: Holey, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    chips = samples(holey.plan.shuffle(seed=0).read(on_error="skip", ledger=path, threads=1))
    loader: Any = DataLoader(chips, batch_size=None, num_workers=2)  # type: ignore[arg-type]  # as an iterable dataset
    seen = sum(len(batch["chip"]) for batch in loader)
    ledger = gp.Ledger(path)
    assert numbers(ledger.counts) == (len(holey.plan), seen, 0, len(holey.plan) - seen - holey.skipped, holey.skipped)
    assert {*ledger.failed} == holey.lost


def test_the_failures_are_run_alone_and_then_are_none(holey: Holey, tmp_path: Path) -> None:
    ledger = gp.Ledger(tmp_path / "a.jsonl")
    whole = {int(chip["chip"]) for chip in holey.plan.read(on_error="skip", ledger=ledger)}
    assert whole == set(range(len(holey.plan))) - holey.lost
    assert len(list(holey.plan.query(ledger.failed).read(on_error="skip", ledger=ledger))) == 0
    assert {*ledger.failed} == holey.lost
    holey.mend()
    second = holey.plan.query(ledger.failed)
    assert len(second) == len(holey.lost)
    chips = {int(chip["chip"]): chip for chip in second.read(on_error="skip", ledger=ledger)}
    assert {*chips} == holey.lost
    assert len(ledger.failed) == len(gp.Ledger(tmp_path / "a.jsonl").failed) == 0
    for chip in holey.plan.read():
        if int(chip["chip"]) in chips:
            xr.testing.assert_identical(chip, chips[int(chip["chip"])])
    with pytest.raises(ChipError, match="holds for none"):
        len(holey.plan.query(ledger.failed))


def test_a_hundred_thousand_failures_are_found_in_a_plan(tmp_path: Path) -> None:
    ledger = gp.Ledger(tmp_path / "a.jsonl")
    line = json.dumps(
        {"time": "2026-01-01T00:00:00+00:00", **failures.ledgers._line(Failure("missing", "gone", chip=0))}
    )
    ledger.add(Failure("missing", "gone", chip=0))
    with (tmp_path / "a.jsonl").open("a") as file:
        file.writelines(line.replace('"chip": 0', f'"chip": {chip}') + "\n" for chip in range(1, 200_000, 2))
    assert len(ledger.failed) == 100_001
    assert len(ledger.table()) == 100_001
    ledger.count(failures.Counts(), range(100_000))
    assert len(ledger.failed) == 50_000


KILLED = """
import os, signal, sys
import geopipes as gp
plan = gp.items(sys.argv[1]).stack(["red", "nir", "scl"], resolution=10, crs="EPSG:32614").chip(32, time=1)
for number, chip in enumerate(plan.read(on_error="mask", ledger=sys.argv[2])):
    if number == 60:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_no_failure(holey: Holey, tmp_path: Path) -> None:
    items, path = tmp_path / "items.json", tmp_path / "a.jsonl"
    items.write_text(json.dumps(pystac.ItemCollection(holey.items).to_dict()))
    done = subprocess.run([sys.executable, "-c", KILLED, str(items), str(path)], timeout=240, check=False)
    assert done.returncode == -9
    with path.open("a") as file:
        file.write('{"kind": "missing", "mess')  # what a full disk leaves
    ledger = gp.Ledger(path)
    before = {*ledger.failed}
    assert 60 - 36 <= len(before) <= len(holey.lost)
    list(holey.plan.read(on_error="mask", ledger=ledger))
    assert {*gp.Ledger(path).failed} == holey.lost
    assert ledger.counts.planned >= len(holey.plan)


def test_a_file_that_is_no_ledger_is_left_alone(holey: Holey, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for text in ("mine", '{"a": 1}', "[1]", '{"ledger": "geopipes", "version": 99}'):
        path.write_text(f"{text}\n")
        with pytest.raises(LedgerError, match="choose another path"):
            holey.plan.read(on_error="skip", ledger=path)
        assert path.read_text() == f"{text}\n"
    with pytest.raises(LedgerError, match="this is a folder"):
        gp.Ledger(tmp_path)


def test_a_ledger_travels_as_its_path(tmp_path: Path) -> None:
    ledger = gp.Ledger(tmp_path / "a.jsonl")
    ledger.add(Failure("missing", "gone", chip=4))
    assert [*pickle.loads(pickle.dumps(ledger)).failed] == [4]
    memory = gp.Ledger()
    memory.add(Failure("missing", "gone", chip=4))
    assert len(pickle.loads(pickle.dumps(memory)).failed) == 0
    assert repr(memory) == "Ledger()"


# Looking on.


def test_retries_and_skips_are_shown(holey: Holey, fields: Synthetic, capsys: pytest.CaptureFixture[str]) -> None:
    chips = samples(holey.plan.shuffle(seed=0).read(on_error="skip", ledger=gp.Ledger()), 36)
    with chips.profile() as report:
        list(chips)
    lines = report.table()["refused"]
    assert lines[lines.index.str.startswith("read(")].tolist() == [holey.skipped]
    with object_server(root(fields), faults=[Fault("error")]) as server:
        chips = samples(planned(server.served(fields.items)).read(), 64)
        loader = chips.loader(progress=True)
        with loader.profile() as report:
            list(loader)
        retries = int(report.table()["calls"]["waiting to try again"])
        assert retries > 0
        assert f"{retries} retries" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_plan_tells_how_it_reads(land: Synthetic, tmp_path: Path) -> None:
    text = str(planned(land.items).read(on_error="mask", retries=2, ledger="a.jsonl"))
    assert "read(on_error='mask', retries=2, ledger='a.jsonl')" in text
    assert "on_error" not in str(planned(land.items).read())
