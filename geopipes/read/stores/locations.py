"""Where a href leads: a store, and a path in it; as our own reader names them, and as GDAL does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

SCHEMES: dict[str, Literal["http", "s3", "gs", "az"]] = {
    "http": "http", "https": "http", "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs",
    "az": "az", "azure": "az", "abfs": "az", "abfss": "az",
}  # fmt: skip

FOLDERS = {"/vsicurl/": "", "/vsis3/": "s3://", "/vsigs/": "gs://", "/vsiaz/": "az://"}
"""GDAL's names of network file systems, and what stands for them in a URL."""

GDAL = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}


@dataclass(frozen=True)
class Location:
    """An object in a store.

    Attributes
    ----------
    kind : of the store
    root : what a store is opened for: "https://host:port", "s3://bucket", "gs://bucket", "az://container"
    path : of the object in it, as it is called, without percent signs of a URL; "" where the root is the object
    query : the signature and whatever else stands behind the "?" of a URL, with it
    account : of Azure, where the href names it
    fragment : what stands behind the "#" of a URL, which no server is told
    """

    kind: Literal["http", "s3", "gs", "az"]
    root: str
    path: str
    query: str = ""
    account: str | None = None
    fragment: str = ""

    @property
    def unsigned(self) -> str:
        """The URL without its signature."""
        if self.kind != "http":
            return f"{self.root}/{self.path}"
        return f"{self.root}/{quote(self.path, safe=SAFE)}" if self.path else self.root

    @property
    def gdal(self) -> str:
        """What GDAL calls it."""
        if self.kind == "http":
            return f"/vsicurl/{self.unsigned}{self.query}"
        return f"{GDAL[self.kind]}{self.root.partition('://')[2]}/{self.path}"


SAFE = "/!$&'()*+,;=:@~"
"""What a path of a URL holds as it is (RFC 3986)."""


@lru_cache(maxsize=65536)
def located(href: str) -> Location | None:
    """Find where a href leads; None for a path, and for what is GDAL's own, as "/vsizip//vsicurl/..."."""
    for folder, url in FOLDERS.items():
        if href.startswith(folder):
            return _of_url(url + href.removeprefix(folder))
    return _of_url(href)


def local_path(href: str) -> str:
    """Give the path that a href names, without percent signs of a file URL (RFC 8089); what is no path stays as it is.

    A file that is called as the URL writes it comes first: many join "file://" and a path without quoting it.
    """
    if not href.startswith("file://"):
        return href
    path = href.removeprefix("file://").removeprefix("localhost")
    return path if "%" not in path or os.path.exists(path) else unquote(path)


def _of_url(url: str) -> Location | None:
    scheme, mark, rest = url.partition("://")
    kind = SCHEMES.get(scheme.lower())
    if not mark or kind is None:
        return None
    if kind == "http":
        return _of_http(url)
    bucket, _, path = rest.partition("/")
    container, at, host = bucket.partition("@")  # abfs://container@account.dfs.core.windows.net/path
    if not container or not _plain(path):
        return None
    return Location(kind, f"{kind}://{container}", path, account=host.partition(".")[0] if at else None)


def _of_http(url: str) -> Location | None:
    parts = urlsplit(url)
    if not parts.netloc:
        return None
    root, query = f"{parts.scheme.lower()}://{parts.netloc}", f"?{parts.query}" if parts.query else ""
    path = unquote(parts.path.removeprefix("/"))
    if not _plain(path) or "%2f" in parts.path.lower():  # obstore would write it otherwise
        root, path = root + parts.path, ""
    return Location("http", root, path, query, fragment=parts.fragment)


def _plain(path: str) -> bool:
    """Say whether obstore takes a path as it is: it knows no empty parts."""
    return bool(path) and not {"", ".", ".."} & {*path.split("/")}
