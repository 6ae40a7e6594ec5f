"""Rasters over HTTP, from a server on loopback that answers ranges."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import xarray as xr

import geopipes as gp
from geopipes.errors import GeopipesError
from geopipes.testing import Synthetic


class Ranges(SimpleHTTPRequestHandler):
    """Serve files, whole or by range."""

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(content[first : last + 1])

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def url(land: Synthetic) -> Iterator[str]:
    folder = partial(Ranges, directory=str(land.label.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_rasters_over_http_are_the_files(land: Synthetic, url: str) -> None:
    options = {"resolution": 30, "crs": "EPSG:32614"}
    near = next(iter(gp.rasters(land.label).stack(**options).chip(32).read()))  # type: ignore[arg-type]
    far = next(iter(gp.rasters(f"{url}/crop.tif").stack(**options).chip(32).read()))  # type: ignore[arg-type]
    xr.testing.assert_identical(near, far)


def test_a_missing_file_over_http_says_so(url: str) -> None:
    with pytest.raises(GeopipesError, match=r"gone\.tif.*404"):
        len(gp.rasters(f"{url}/gone.tif"))
