"""A real STAC API on loopback, for tests and examples: stac-fastapi over items in memory."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pystac
from pystac.utils import is_absolute_href, make_absolute_href

from geopipes.errors import CatalogError

Json = dict[str, Any]


@dataclass(frozen=True)
class LocalAPI:
    """A STAC API that runs.

    Attributes
    ----------
    url : of the landing page
    requests : what was asked so far, in order, as "GET /" or "POST /search"; it grows while the API runs
    """

    url: str
    requests: list[str] = field(default_factory=list)

    @property
    def searches(self) -> int:
        """How many pages of search results were asked for."""
        return sum(request.endswith(" /search") for request in self.requests)


@contextmanager
def serve(
    items: Iterable[pystac.Item | Mapping[str, Any]],
    *,
    collections: Iterable[pystac.Collection | Mapping[str, Any]] | None = None,
    root: str | os.PathLike[str] | None = None,
    port: int = 0,
) -> Iterator[LocalAPI]:
    """Serve items through a STAC API on 127.0.0.1 until the block ends.

    It searches by ids, collections, bbox, intersects, datetime, query, CQL2 filter and sortby, over GET and
    POST, and hands out pages by token. Paths of files are served as file:// hrefs.

    Parameters
    ----------
    items : as pystac items, or as JSON, which is served word for word (pystac rewrites old items as it reads)
    collections : those that are not given are made from the names that the items bear, with an open extent
    root : the folder or URL against which relative hrefs are resolved; by default the item's own self link
    port : 0 takes a free one

    Yields
    ------
    LocalAPI

    Raises
    ------
    CatalogError
        for a relative href without a base to resolve it against
    ModuleNotFoundError
        where the extra ``demo`` is not installed
    """
    # stac-fastapi warns on import that its title is the default one, before anyone could set it.
    logging.getLogger("stac_fastapi.types.config").setLevel(logging.ERROR)
    try:
        import uvicorn

        from geopipes.testing.routes import application
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"serve() runs a STAC API and needs {error.name}: pip install 'geopipes[demo]'", name=error.name
        ) from error
    served = [_served(item, None if root is None else os.fspath(root)) for item in items]
    named = [_plain(collection) for collection in collections or ()]
    with socket.create_server(("127.0.0.1", port)) as listener:
        api = LocalAPI(f"http://127.0.0.1:{listener.getsockname()[1]}")
        app = application(served, named, log=api.requests)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), name="geopipes-stac-api", daemon=True)
        thread.start()
        try:
            _wait_for(server, thread)
            yield api
        finally:
            server.should_exit = True
            thread.join()


def _wait_for(server: Any, thread: threading.Thread) -> None:
    """Return once the server answers; stopped before that, it would leave its sockets open."""
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the STAC API stopped before it answered; its thread's traceback says why")
        time.sleep(0.01)


def _plain(value: pystac.STACObject | Mapping[str, Any]) -> Json:
    """Give JSON without links: those of the API take their place."""
    given = value.to_dict(transform_hrefs=False) if isinstance(value, pystac.STACObject) else dict(value)
    return given | {"links": []}


def _served(item: pystac.Item | Mapping[str, Any], root: str | None) -> Json:
    """Give an item as it is served: without links of its own, its hrefs absolute."""
    given = _plain(item)
    if root is not None:
        base = root
    elif isinstance(item, pystac.Item):
        base = item.get_self_href() or ""
    else:
        links = item.get("links", ())
        base = next((link["href"] for link in links if link.get("rel") == "self"), "")
    assets = {}
    for key, asset in given.get("assets", {}).items():
        href = asset["href"]
        if not is_absolute_href(href):
            if not base:
                raise CatalogError(
                    f"item {given['id']!r}, asset {key!r}: the href {href!r} is relative and the item has no "
                    "self link to resolve it against; write serve(items, root=<its folder or URL>)"
                )
            href = make_absolute_href(href, base, start_is_dir=root is not None)
        if href.startswith("/") and not href.startswith("/vsi"):
            # A path alone would be taken for one on the API's own host; rasterio decodes no %20, so none is written.
            href = f"file://{href}"
        assets[key] = asset | {"href": href}
    return given | {"assets": assets}
