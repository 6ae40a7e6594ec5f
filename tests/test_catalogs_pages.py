"""Searches in bad weather: a real STAC API, with something in front of it that goes wrong."""

from __future__ import annotations

import datetime as dt
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pystac
import pytest
from shapely.geometry import box, mapping

import geopipes as gp
from geopipes.catalogs import search
from geopipes.errors import CatalogError
from geopipes.testing import serve

# The advertised class of the sort extension is older than pystac-client's; sorting works.
pytestmark = pytest.mark.filterwarnings("ignore:Server does not conform to SORT")

NAMES = [f"i{number:02}" for number in range(11)]


def item(name: str) -> pystac.Item:
    area, moment = box(8, 50, 9, 51), dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
    made = pystac.Item(name, mapping(area), list(area.bounds), moment, {}, collection="s2")
    made.add_asset("red", pystac.Asset(f"https://example.com/{name}.tif", roles=["data"]))
    return made


@dataclass
class Front:
    """What stands in front of an API.

    Attributes
    ----------
    url : of it
    pages : what becomes of each page that is asked for, in order; None, and those after, are handed through. A number
        is a status, with a text what it says of when to come back
    landing : likewise, of the landing page
    asked : the requests, as "GET /"
    """

    url: str = ""
    pages: list[Any] = field(default_factory=list)
    landing: list[Any] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextmanager
def in_front_of(url: str) -> Iterator[Front]:
    front, api = Front(), urlsplit(url).netloc

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            front.asked.append(f"{self.command} {self.path.partition('?')[0]}")
            faults = front.landing if self.path == "/" else front.pages
            fault = faults.pop(0) if faults else None
            if fault == "refused":
                self.close_connection = True
                return
            if fault is not None and fault not in ("cut", "short"):
                status, text = fault if isinstance(fault, tuple) else (fault, None)
                self.answer(status, b"a page of HTML " * 100, {} if text is None else {"Retry-After": text})
                return
            connection = http.client.HTTPConnection(api)  # which is told this address: the API's links lead here
            connection.request(self.command, self.path, body, {**self.headers, "Accept-Encoding": "identity"})
            given = connection.getresponse()
            content = given.read()
            connection.close()
            kind = {"Content-Type": given.headers["Content-Type"]}
            if fault == "cut":
                self.answer(given.status, content, kind, sent=len(content) // 2)
                self.close_connection = True
            else:
                self.answer(given.status, content[: len(content) // 2] if fault == "short" else content, kind)

        do_POST = do_GET  # noqa: N815  # named by the library

        def answer(self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[:sent])

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        front.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield front
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with serve([item(name) for name in NAMES]) as running:
        yield running.url


@pytest.fixture
def front(api: str) -> Iterator[Front]:
    with in_front_of(api) as standing:
        yield standing


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note how long a search would wait, and do not."""
    noted: list[float] = []
    monkeypatch.setattr("geopipes.catalogs.pages.time.sleep", noted.append)
    return noted


def names(front: Front, **options: Any) -> list[str]:
    return [each.id for each in search(front.url, limit=3, sortby="+id", **options)]


def searched(front: Front) -> int:
    """Count the pages that were asked for."""
    return sum(request.endswith(" /search") for request in front.asked)


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("fault", [500, 502, 503, 504, 408, 429, "refused", "cut", "short"])
def test_a_page_is_asked_for_again_and_those_before_it_are_not(
    front: Front, waits: list[float], fault: Any, method: Any
) -> None:
    front.pages = [None, None, fault, fault, None, fault]
    assert names(front, method=method) == NAMES
    assert searched(front) == 4 + 3
    assert len(waits) == 3
    assert 0.125 <= waits[0] <= 0.25
    assert 0.25 <= waits[1] <= 0.5
    assert 0.125 <= waits[2] <= 0.25


@pytest.mark.parametrize("fault", [503, 429, (503, "7"), "refused"])
def test_a_landing_page_is_asked_for_again(front: Front, waits: list[float], fault: Any) -> None:
    front.landing = [fault]
    assert names(front) == NAMES
    assert searched(front) == 4
    assert len(waits) == 1


def test_a_server_that_asks_to_wait_is_obeyed(front: Front, waits: list[float]) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100)
    front.pages = [(503, "20"), (429, "0"), (503, format_datetime(later, usegmt=True)), (503, "soon")]
    assert names(front) == NAMES
    assert 20 <= waits[0] <= 20.1
    assert waits[1] <= 0.2
    assert 90 <= waits[2] <= 101
    assert 1 <= waits[3] <= 2


def test_a_server_that_asks_for_an_hour_is_down(front: Front, waits: list[float]) -> None:
    front.pages = [None, (503, "3600")]
    with pytest.raises(CatalogError, match="page 2, after 3 items: APIError"):
        names(front)
    assert not waits


def test_an_error_names_page_and_cause_and_the_search_goes_on_there(front: Front, waits: list[float]) -> None:
    front.pages = [None, None, *[502] * 5]
    with pytest.raises(CatalogError) as caught:
        names(front, retries=4)
    text = str(caught.value)
    assert text.startswith(f"search('{front.url}'): page 3, after 6 items: APIError: a page of HTML a page")
    assert text.endswith("... (tried 5 times)")
    assert len(text) < 700
    assert len(waits) == 4
    before = searched(front)
    assert names(front) == NAMES
    assert searched(front) == before + 2  # pages 3 and 4
    assert names(front) == NAMES
    assert searched(front) == before + 2 + 4


def test_another_search_does_not_go_on_where_one_ended(front: Front, waits: list[float]) -> None:
    front.pages = [None, None, *[502] * 2]
    with pytest.raises(CatalogError, match="page 3"):
        names(front, retries=1)
    assert names(front, ids=["i03", "i07"]) == ["i03", "i07"]


@pytest.mark.parametrize("fault", [400, 401, 403, 404])
def test_what_will_not_pass_is_not_tried_again(front: Front, waits: list[float], fault: int) -> None:
    front.pages = [None, fault]
    with pytest.raises(CatalogError, match="page 2, after 3 items: APIError") as caught:
        names(front)
    assert "tried" not in str(caught.value)
    assert ("pass it by headers=" in str(caught.value)) == (fault in (401, 403))
    assert not waits
    assert names(front) == NAMES  # from the beginning
    assert searched(front) == 2 + 4


def test_nobody_at_an_address_is_said_at_once(front: Front, waits: list[float]) -> None:
    with pytest.raises(CatalogError, match="refused"):
        search("http://127.0.0.1:9")
    assert not waits


def test_retries_are_counted(front: Front, waits: list[float]) -> None:
    front.pages = [503]
    with pytest.raises(CatalogError, match="page 1: APIError"):
        names(front, retries=0)
    with pytest.raises(CatalogError, match=r"search\(retries=-1\): give a number"):
        names(front, retries=-1)


def test_the_number_of_items_is_kept_to_over_pages(front: Front) -> None:
    assert names(front, max_items=5) == NAMES[:5]
    assert searched(front) == 2
    assert names(front, max_items=6) == NAMES[:6]
    assert searched(front) == 2 + 2


def test_items_that_come_twice_over_pages_count_once_and_are_told(api: str, front: Front) -> None:
    # The catalogue grows at its beginning while it is paged through: each page begins with the last one's end.
    found = search(front.url, limit=3, sortby="+id")
    assert found.duplicates == 0
    with serve([item(name) for name in ["i00", "i01", "i01", "i02", "i02", "i03"]]) as running:
        found = search(running.url, limit=2)
        assert [each.id for each in found] == ["i00", "i01", "i02", "i03"]
        assert found.duplicates == 2
        pipe = gp.search(running.url, limit=2)
        assert len(pipe) == 4
        assert "4 items, 2 duplicates dropped" in str(pipe)


def test_a_frozen_search_needs_no_network(tmp_path: Path) -> None:
    with serve([item(name) for name in NAMES]) as running:
        url = running.url
        first = [each.to_dict() for each in gp.search(url, limit=4).freeze(tmp_path / "scenes.parquet")]
    again = gp.search(url, limit=4).freeze(tmp_path / "scenes.parquet")  # whose server is closed
    assert [each.to_dict()["id"] for each in again] == [each["id"] for each in first] == NAMES
    with pytest.raises(CatalogError, match="refused"):
        len(gp.search(url, limit=4))
