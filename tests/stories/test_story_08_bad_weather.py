"""Story 8: an overnight run in bad weather, scaled to a minute: it finishes, and nothing is lost or made up.

Shown besides: a worker process is killed in the middle and another run goes on behind the last batch; a second run
reads the failures alone, once the store is well again; strict mode ends at the first lasting fault.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import active_children
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any
from urllib.request import urlopen

import pystac
import pytest
import rasterio
import torch

import geopipes as gp
from geopipes.errors import LoaderError, ReadError
from geopipes.testing import Fault, ObjectServer, Synthetic, object_server, synthetic_scenes

DATES = ("2024-05-03", "2024-06-07", "2024-07-12", "2024-08-16")

BATCH, KILLED_AT, TOKEN_LIFE = 32, 5, 5.0

Samples = dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """Give scenes of four dates: 1,024 chips of 32 px and one date."""
    return synthetic_scenes(tmp_path_factory.mktemp("store"), dates=DATES, zones=(14,), size=512)


@pytest.fixture(scope="module")
def store(scenes: Synthetic) -> Iterator[ObjectServer]:
    """Serve them with tokens that expire, 5 % of 503, one file that is gone, and one tile that is spoilt."""
    spoil(Path(scenes.items[2].assets["nir"].href), 1, 0)
    with object_server(scenes.label.parent, token_life=TOKEN_LIFE) as server:
        yield server


@dataclass(frozen=True)
class Signer:
    """Signs items with a token that it asks for, wherever it is: in worker processes too."""

    desk: str

    def __call__(self, item: pystac.Item) -> pystac.Item:
        with urlopen(self.desk, timeout=60) as answer:
            token = answer.read().decode()
        for asset in item.assets.values():
            asset.href += f"?{token}"
        return item


@pytest.fixture(scope="module")
def desk(store: ObjectServer) -> Iterator[str]:
    """Give out tokens, as the Planetary Computer does."""

    class Desk(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stub = pystac.Item("stub", None, None, datetime(2024, 1, 1, tzinfo=UTC), {})
            stub.add_asset("a", pystac.Asset(store.href("a.tif")))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(store.sign(stub).assets["a"].href.partition("?")[2].encode())

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Desk) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def spoil(path: Path, row: int, col: int) -> None:
    """Write nonsense where a tile is stored; what it was is kept beside it."""
    with rasterio.open(path) as raster:
        place = [int(raster.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")]
    path.with_suffix(".well").write_bytes(path.read_bytes())
    with path.open("r+b") as file:
        file.seek(place[0])
        file.write(b"\xa5" * place[1])


def stacked(items: list[pystac.Item], modifier: Any = None) -> gp.Plan[Any]:
    cubes = gp.items(items, modifier=modifier).stack(["red", "nir", "scl"], resolution=10, crs="EPSG:32614")
    return cubes.chip(32, time=1).shuffle(seed=0)


def dry(sample: dict[str, Any]) -> bool:
    """Refuse some chips, as a filter does."""
    return int(sample["chip"]) % 16 != 3


def training(plan: gp.Plan[Any], **options: Any) -> gp.Pipe[Any]:
    # With little memory tiles are fetched all night long.
    chips = plan.read(threads=4, cache=1 << 20, timeout=2.0, **options)
    return chips.tensor(image=["red", "nir"], classes="scl", fill=0).filter(dry)


def taken(batches: Any, seen: Samples | None = None) -> Samples:
    """Take batches apart: the tensors of each chip, by its id; what came before an error is there too."""
    seen = {} if seen is None else seen
    for batch in batches:
        for row, chip in enumerate(batch["chip"].tolist()):
            assert chip not in seen
            seen[chip] = {key: batch[key][row].clone() for key in ("image", "image_valid", "classes")}
    return seen


def assert_nothing_is_made_up(seen: Samples, truth: Samples, masked: set[int]) -> None:
    for chip, sample in seen.items():
        valid = sample["image_valid"]
        assert torch.equal(valid, truth[chip]["image_valid"] & (chip not in masked))
        assert torch.equal(sample["image"].int(), truth[chip]["image"].int() * valid[:, None])
        if chip not in masked:
            assert torch.equal(sample["classes"], truth[chip]["classes"])


def test_it_finishes_and_adds_up(scenes: Synthetic, store: ObjectServer, desk: str, tmp_path: Path) -> None:
    """Scales 10,000 chips to 1,024, and 1 % of files that are gone to one of twelve."""
    here = [item.clone() for item in scenes.items]
    well = here[2].clone()
    well.assets["nir"].href = str(Path(well.assets["nir"].href).with_suffix(".well"))
    truth = taken(training(stacked([*here[:2], well, here[3]])).batch(BATCH))
    items = store.served(scenes.items)
    plan = stacked(items, Signer(desk))
    windows = plan._value.get()
    spoilt = (windows.time == 2) & (windows.row >= 256) & (windows.col < 256)
    lost = {*windows.ids[(windows.time == 0) | spoilt].tolist()}
    gone = Fault("missing", times=None, paths=f"{items[0].id}/red.tif")
    store.faults = [gone, Fault("busy", share=0.05, times=3, retry_after=0.05)]

    path = tmp_path / "failures.jsonl"
    chips = training(plan, on_error="mask", ledger=path).batch(BATCH)
    seen: Samples = {}
    with chips.loader(processes=2) as loader:
        batches = iter(loader)
        for _ in range(KILLED_AT):
            taken([next(batches)], seen)
            sleep(TOKEN_LIFE / (KILLED_AT - 1))  # a night passes
        worker = next(child for child in active_children() if child.name.startswith("geopipes-"))
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(LoaderError, match=r"worker process \d was ended by signal 9"):
            taken(batches, seen)
        state = loader.state_dict()
    assert len(seen) < len(truth)
    with chips.loader(processes=2) as loader:
        loader.load_state_dict(state)
        taken(loader, seen)

    ledger = gp.Ledger(path)
    assert {*seen} == {*truth}
    assert_nothing_is_made_up(seen, truth, lost)
    counts = ledger.counts
    assert counts.planned == len(plan) == counts.delivered + counts.filtered + counts.skipped == 1024
    assert (counts.delivered, counts.masked) == (len(truth), len(lost & {*truth}))
    assert counts.retries > 0
    assert {"busy", "missing"} <= {request.fault for request in store.requests}
    assert any(request.status == 403 for request in store.requests)
    failed = ledger.table().query("action == 'masked'")
    assert {*failed["chip"]} == {*ledger.failed} == lost
    causes = {(row.item, row.asset, row.kind) for row in failed.itertuples()}
    assert causes == {(items[0].id, "red", "missing"), (items[2].id, "nir", "corrupt")}
    assert failed[["chip", "item", "asset", "window", "kind", "message", "attempts"]].notna().all(axis=None)
    assert not ledger.table()["href"].str.contains("token").any()

    # The second run, after somebody brought back what was lost: the failures alone.
    store.faults = []
    Path(scenes.items[2].assets["nir"].href).write_bytes(Path(well.assets["nir"].href).read_bytes())
    again = plan.query(ledger.failed)
    mended = taken(training(again, on_error="mask", ledger=path).batch(BATCH))
    assert {*mended} == lost & {*truth}
    assert_nothing_is_made_up(mended, truth, set())
    assert len(gp.Ledger(path).failed) == 0

    # Strict mode.
    store.faults = [gone]
    with pytest.raises(ReadError, match=rf"(?s)chip \d+: item '{items[0].id}', asset 'red'.*missing; tried once"):
        list(training(stacked(items, Signer(desk))))
