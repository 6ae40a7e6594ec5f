"""Story 7: stream from a store far away; the profile blames the network; keep what comes; read it from disk.

Pass: identical tensors; goes on after a kill; only three of the twelve bands are read; a bounded number of files.
"""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import torch
from affine import Affine
from shapely.geometry import box, mapping

import geopipes as gp
from geopipes.read import files
from geopipes.read.stores import heads
from geopipes.read.tiles import shared
from geopipes.testing import ObjectServer, object_server

BANDS = [f"B{number:02}" for number in range(1, 13)]
ASKED = ["B02", "B03", "B08"]
SIDE, TILE, SCENES = 512, 128, 3
TRANSFORM = Affine(10, 0, 500_000, 0, -10, 5_500_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make scenes of twelve bands, each a file."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    profile = {
        "driver": "GTiff", "width": SIDE, "height": SIDE, "count": 1, "dtype": "uint16", "crs": "EPSG:32633",
        "transform": TRANSFORM, "tiled": True, "blockxsize": TILE, "blockysize": TILE,
        "compress": "deflate", "predictor": 2, "nodata": 0,
    }  # fmt: skip
    for scene in range(SCENES):
        for band in BANDS:
            with rasterio.open(folder / f"scene{scene}_{band}.tif", "w", **profile) as file:
                file.write(rng.integers(1, 3000, (1, SIDE, SIDE), "uint16"))
    return folder


@pytest.fixture
def server(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    monkeypatch.setenv("GEOPIPES_CACHE", str(tmp_path / "home"))
    with object_server(folder) as running:
        yield running


def scenes(url: str) -> list[pystac.Item]:
    """Give items as a catalogue has them: they state what their files are."""
    grid = {"proj:code": "EPSG:32633", "proj:shape": [SIDE, SIDE], "proj:transform": [*TRANSFORM[:6]]}
    fields = {"raster:bands": [{"data_type": "uint16", "nodata": 0}]}
    area = box(14.99, 49.6, 15.08, 49.66)
    made = []
    for scene in range(SCENES):
        moment = dt.datetime(2024, 5, 1 + 5 * scene, 10, tzinfo=dt.UTC)
        item = pystac.Item(f"scene{scene}", mapping(area), list(area.bounds), moment, grid, collection="s2")
        for band in BANDS:
            href = f"{url}/scene{scene}_{band}.tif"
            item.add_asset(band, pystac.Asset(href, media_type=pystac.MediaType.COG, extra_fields=fields))
        made.append(item)
    return made


def chain(url: str, disk: str | Path | None = None) -> Any:
    """Give the chain: the disk is all that differs."""
    return (
        gp.items(scenes(url))
        .stack(ASKED, resolution=10)
        .chip(64)
        .shuffle(seed=0)
        .read(threads=4, disk=disk)
        .scale(ASKED, factor=1e-4)
        .tensor(image=ASKED, fill=0)
        .batch(8)
    )


def another_program() -> None:
    """Forget what this process knows: what another one would not know either."""
    shared().forget()
    files.close_files()
    heads.forget_all()


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected) == 8
    for batch, right in zip(found, expected, strict=True):
        for name in ("image", "image_valid", "chip"):
            torch.testing.assert_close(batch[name], right[name], rtol=0, atol=0)


def test_stream_then_keep(server: ObjectServer, tmp_path: Path) -> None:
    [*chain(server.url)]  # compiles the kernels
    another_program()
    server.latency, before = 0.5, len(server.requests)
    streamed = chain(server.url)
    with streamed.profile() as report:
        expected = [*streamed]
    assert report.bound is not None
    assert "waits for the network" in report.bound.why, report
    server.latency = 0.0

    asked = server.requests[:before]
    assert {request.path.rpartition("_")[2] for request in asked} == {f"{band}.tif" for band in ASKED}
    headers = sum(request.start == 0 for request in asked)
    assert headers == SCENES * len(ASKED)

    another_program()
    kept = chain(server.url, tmp_path / "tiles")
    same([*kept], expected)
    first = len(server.requests)
    assert not [request for request in server.requests[before:] if request.start == 0]  # headers are on disk

    another_program()
    same([*kept], expected)
    same([*kept], expected)
    assert len(server.requests) == first  # all is
    assert sorted(path.name for path in (tmp_path / "tiles").iterdir()) == ["tiles-1.sqlite"]
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in (tmp_path / "home").iterdir()} == {
        "headers-1.sqlite"
    }


KILLED = """
import os, signal, sys
from tests.stories.test_story_07_stream_then_keep import chain
for number, batch in enumerate(chain(*sys.argv[1:])):
    if number == 4:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_goes_on_after_a_kill(server: ObjectServer, tmp_path: Path) -> None:
    expected = [*chain(server.url)]
    everything = sum((request.stop or 0) - (request.start or 0) for request in server.requests)
    before = len(server.requests)
    command = [sys.executable, "-c", KILLED, server.url, str(tmp_path / "tiles")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    killed = len(server.requests)
    assert killed > before
    another_program()
    kept = chain(server.url, tmp_path / "tiles")
    same([*kept], expected)
    rest = sum((request.stop or 0) - (request.start or 0) for request in server.requests[killed:])
    assert 0 <= rest < everything
    another_program()
    done = len(server.requests)
    same([*kept], expected)
    assert len(server.requests) == done
