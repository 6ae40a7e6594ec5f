"""The server of objects: what a store does, and each fault as it is told."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pystac
import pytest
import requests

from geopipes.errors import CatalogError
from geopipes.testing import Fault, ObjectServer, object_server

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.tif").write_bytes(CONTENT)
    return tmp_path


@pytest.fixture(params=[False, True], ids=["thread", "process"])
def server(folder: Path, request: pytest.FixtureRequest) -> Iterator[ObjectServer]:
    with object_server(folder, process=request.param) as running:
        yield running


def get(
    server: ObjectServer, start: int = 100, stop: int = 300, headers: dict[str, str] | None = None
) -> requests.Response:
    asked = {"Range": f"bytes={start}-{stop - 1}"} | (headers or {})
    return requests.get(server.href("a/b.tif"), headers=asked, timeout=2)


def test_files_and_ranges_are_given(server: ObjectServer) -> None:
    whole = requests.get(server.href("a/b.tif"), timeout=5)
    part = get(server)
    end = requests.get(server.href("a/b.tif"), headers={"Range": "bytes=-16"}, timeout=5)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert (part.status_code, part.content) == (206, CONTENT[100:300])
    assert part.headers["Content-Range"] == f"bytes 100-299/{len(CONTENT)}"
    assert end.content == CONTENT[-16:]
    assert get(server, 99_999, 100_000).status_code == 416
    assert requests.get(server.href("../b.tif"), timeout=5).status_code == 404
    assert requests.head(server.href("a/b.tif"), timeout=5).headers["Content-Length"] == str(len(CONTENT))
    assert [(each.start, each.stop) for each in server.requests[:2]] == [(None, None), (100, 300)]
    assert server.sent >= len(CONTENT) + 216


def test_a_file_written_anew_is_another(server: ObjectServer, folder: Path) -> None:
    tag = get(server).headers["ETag"]
    assert get(server, headers={"If-Match": tag}).status_code == 206
    (folder / "a" / "b.tif").write_bytes(CONTENT[1:])
    assert get(server, headers={"If-Match": tag}).status_code == 412


@pytest.mark.parametrize(
    ("kind", "status"), [("busy", 503), ("slow_down", 429), ("error", 500), ("forbidden", 403), ("missing", 404)]
)
def test_faults_that_answer_strike_as_often_as_told(server: ObjectServer, kind: str, status: int) -> None:
    server.faults = [Fault(kind, times=2, retry_after=0.5)]  # type: ignore[arg-type]
    answers = [get(server) for _ in range(3)]
    assert [each.status_code for each in answers] == [status, status, 206]
    assert ("Retry-After" in answers[0].headers) == (status in (503, 429))
    assert [each.fault for each in server.requests] == [kind, kind, None]


def test_bodies_that_are_not_what_was_asked_for(server: ObjectServer) -> None:
    server.faults = [Fault("short")]
    assert get(server).content == CONTENT[100:200]
    server.faults = [Fault("overlong")]
    assert get(server).content == CONTENT
    server.faults = [Fault("corrupt")]
    spoilt = get(server).content
    assert len(spoilt) == 200
    assert spoilt != CONTENT[100:300]
    server.faults = [Fault("truncated")]
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        get(server)
    server.faults = [Fault("refused")]
    with pytest.raises(requests.exceptions.ConnectionError):
        get(server)
    server.faults = [Fault("stalled")]
    with pytest.raises(requests.exceptions.ConnectionError, match="timed out"):
        get(server)
    assert get(server).content == CONTENT[100:300]


def test_a_share_of_ranges_is_struck_whatever_their_order(folder: Path) -> None:
    ranges = [(start, start + 10) for start in range(0, 10_000, 10)]

    def struck(order: list[tuple[int, int]]) -> set[tuple[int | None, int | None]]:
        with object_server(folder, faults=[Fault("missing", share=0.05, seed=3)]) as server:
            with requests.Session() as session:
                for start, stop in order:
                    session.get(server.href("a/b.tif"), headers={"Range": f"bytes={start}-{stop - 1}"}, timeout=5)
            return {(each.start, each.stop) for each in server.requests if each.fault}

    assert struck(ranges) == struck(ranges[::-1])
    assert 25 <= len(struck(ranges)) <= 80


def test_faults_begin_after_a_while_and_on_some_paths(folder: Path) -> None:
    (folder / "c.tif").write_bytes(CONTENT)
    with object_server(folder, faults=[Fault("forbidden", after=2, times=None, paths="a/*")]) as server:
        assert [get(server).status_code for _ in range(4)] == [206, 206, 403, 403]
        assert requests.get(server.href("c.tif"), timeout=5).status_code == 200


def test_a_token_holds_for_a_while(folder: Path) -> None:
    def signed(server: ObjectServer) -> str:
        item = pystac.Item("one", None, None, None, {"start_datetime": "2024-01-01", "end_datetime": "2024-01-02"})
        item.add_asset("b", pystac.Asset(server.href("a/b.tif")))
        return server.sign(server.sign(item)).assets["b"].href

    with object_server(folder, token_life=0.3) as server:
        assert get(server).status_code == 403
        assert requests.get(server.href("a/b.tif?token=1-1"), timeout=5).status_code == 403
        href = signed(server)
        assert href.count("token") == 1
        assert requests.get(href, timeout=5).status_code == 200
        time.sleep(0.35)
        assert requests.get(href, timeout=5).status_code == 403
        assert requests.get(signed(server), timeout=5).status_code == 200


def test_latency_is_that_of_each_request_and_many_wait_at_once(folder: Path) -> None:
    with object_server(folder, latency=0.2) as server:
        done: list[int] = []
        threads = [threading.Thread(target=lambda: done.append(get(server).status_code)) for _ in range(20)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counter(done) == {206: 20}
        assert time.monotonic() - began >= 0.2


def test_nothing_is_left_of_a_server_that_was_closed(folder: Path) -> None:
    before = threading.active_count()
    with object_server(folder, faults=[Fault("stalled")]) as server:
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(server.href("a/b.tif"), timeout=0.2)
        url = server.href("a/b.tif")
    assert threading.active_count() == before
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(url, timeout=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_ends_while_a_fork_has_its_pipe_open(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with object_server(folder, process=True) as server:
        url = server.href("a/b.tif")
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
    try:
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(url, timeout=1)
        assert child.is_alive()
    finally:
        child.kill()
        child.join()
    assert capfd.readouterr().err == ""  # no warning of how it was begun


def test_names_are_quoted(folder: Path) -> None:
    (folder / "a" / "ä #1?.tif").write_bytes(CONTENT)
    with object_server(folder) as server:
        assert requests.get(server.href("a/ä #1?.tif"), timeout=2).content == CONTENT


def test_bad_faults_and_folders_are_refused(folder: Path) -> None:
    with pytest.raises(CatalogError, match="write one of busy, slow_down"):
        Fault("nope")  # type: ignore[arg-type]
    with pytest.raises(CatalogError, match="from 0 to 1"):
        Fault("busy", share=5)
    with pytest.raises(CatalogError, match="no such folder"), object_server(folder / "gone"):
        pass
