"""Where a chain begins: a search, items, files, arrays; several inputs side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from geopipes.pipe.cubes import Inputs
from geopipes.pipe.lazy import Lazy, LazyModule
from geopipes.pipe.pipes import Pipe
from geopipes.pipe.plans import REQUESTS, Plan

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import pystac
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from geopipes import catalogs, chips, datacubes, orders, steps
    from geopipes.catalogs.api import HasGeoInterface, Instant
    from geopipes.catalogs.documents import ItemsLike
    from geopipes.catalogs.files import Dated, Paths
    from geopipes.chips.seeking import Bounds, Find, Stacking
    from geopipes.datacubes.elsewhere import Openable
    from geopipes.orders.audits import Apart
    from geopipes.read import stores
    from geopipes.read.sources import Modifier
else:
    catalogs, chips, datacubes, orders, steps, stores = (
        LazyModule(f"geopipes.{name}") for name in ("catalogs", "chips", "datacubes", "orders", "steps", "read.stores")
    )

HIDDEN = ("headers", "parameters")
"""Arguments that may hold a key: a printed chain, and a frozen search, shows their names alone."""


def search(
    url: str,
    *,
    collections: str | Sequence[str] | None = None,
    bbox: Sequence[float] | None = None,
    intersects: Mapping[str, Any] | HasGeoInterface | None = None,
    datetime: Instant | Sequence[Instant] = None,
    query: Mapping[str, Any] | Sequence[str] | None = None,
    filter: Mapping[str, Any] | str | None = None,
    filter_lang: Literal["cql2-json", "cql2-text"] | None = None,
    ids: str | Sequence[str] | None = None,
    sortby: str | Sequence[str] | Sequence[Mapping[str, str]] | None = None,
    fields: str | Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    max_items: int | None = None,
    limit: int | None = None,
    headers: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    modifier: Modifier | None = None,
    method: Literal["POST", "GET"] = "POST",
    timeout: float | None = 60.0,
    retries: int = 6,
) -> Pipe[pystac.Item]:
    """Search a STAC API, once, when its items are first needed: see `geopipes.catalogs.search`."""
    options: dict[str, Any] = {
        "collections": collections, "bbox": bbox, "intersects": intersects, "datetime": datetime, "query": query,
        "filter": filter, "filter_lang": filter_lang, "ids": ids, "sortby": sortby, "fields": fields,
        "max_items": max_items, "limit": limit, "headers": headers, "parameters": parameters,
        "modifier": modifier, "method": method, "timeout": timeout, "retries": retries,
    }  # fmt: skip
    return _items(catalogs.search, url, options)


def items(source: ItemsLike, *, modifier: Modifier | None = None) -> Pipe[pystac.Item]:
    """Open items that are already there: see `geopipes.catalogs.items`."""
    return _items(catalogs.items, source, {"modifier": modifier})


def rasters(
    paths: Paths,
    *,
    pattern: str | None = None,
    date_format: str = "%Y%m%d",
    datetime: Callable[[str], Dated] | None = None,
    bands: Sequence[str] | None = None,
    collection: str | None = None,
    modifier: Modifier | None = None,
) -> Pipe[pystac.Item]:
    """Make items of raster files: see `geopipes.catalogs.rasters`."""
    options: dict[str, Any] = {
        "pattern": pattern, "date_format": date_format, "datetime": datetime, "bands": bands,
        "collection": collection, "modifier": modifier,
    }  # fmt: skip
    return _items(catalogs.rasters, paths, options)


def vectors(source: str | os.PathLike[str] | gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Open vectors, whatever geopandas reads: see `geopipes.catalogs.vectors`."""
    return catalogs.vectors(source)


def cubes(sources: Openable | Sequence[Openable], *, crs: Any = None) -> Pipe[xr.Dataset]:
    """Take cubes from xarray objects, NetCDF and Zarr: see `geopipes.datacubes.from_xarray`."""
    text = "geopipes." + steps.call("cubes", sources, **({} if crs is None else {"crs": crs}))
    return Pipe._new(text, None, Lazy(lambda: datacubes.from_xarray(sources, crs=crs)), "cubes")


def inputs(**sources: Pipe[xr.Dataset]) -> Pipe[Inputs]:
    """Put several sources side by side on one footprint: see `geopipes.datacubes.inputs`.

    The element is a dict of Datasets by name, each with its own times and resolution. Chips count the pixels of the
    first.
    """
    text = "geopipes." + steps.call("inputs", **{name: steps.Text(pipe._lineage()) for name, pipe in sources.items()})
    for pipe in sources.values():
        pipe._need("cubes", "inputs(...)")
    value = Lazy(lambda: datacubes.inputs({name: pipe._value.get() for name, pipe in sources.items()}))
    return cast("Pipe[Inputs]", Pipe._new(text, None, value, "cubes"))


def storage(
    prefix: str,
    *,
    anonymous: bool = False,
    requester_pays: bool = False,
    region: str | None = None,
    endpoint: str | None = None,
    credentials: Mapping[str, str] | Callable[[], Any] | None = None,
    headers: Mapping[str, str] | None = None,
    client: Mapping[str, Any] | None = None,
    requests: int = REQUESTS,
) -> None:
    """Say how to read what lies below a prefix, as "s3://bucket": see `geopipes.read.stores.storage`."""
    stores.storage(
        prefix, anonymous=anonymous, requester_pays=requester_pays, region=region, endpoint=endpoint,
        credentials=credentials, headers=headers, client=client, requests=requests,
    )  # fmt: skip


def seek(
    points: gpd.GeoDataFrame | gpd.GeoSeries,
    size: int | tuple[int, int],
    find: Find | Callable[[Bounds, str | None], Pipe[pystac.Item]],
    stack: Stacking | Callable[[Any, GeoBox], Pipe[xr.Dataset]],
    *,
    resolution: float,
    datetime: str | None = None,
    margin: int = 0,
) -> Plan[xr.Dataset]:
    """Plan a chip around each point, anywhere on Earth, with a search for each: see `geopipes.chips.seek`.

    Here ``find`` and ``stack`` may be of pipes: ``lambda bounds, datetime: gp.search(url, bbox=bounds,
    datetime=datetime)`` and ``lambda items, geobox: items.stack(["red"], geobox=geobox)``.
    """
    options: dict[str, Any] = {"resolution": resolution, "datetime": datetime, "margin": margin}
    text = "geopipes." + steps.call("seek", points, size, find, stack, **steps.given(chips.seek, options))
    found = cast("Find", find)  # a pipe of items has a length, and is handed on to ``stack``
    return Plan._new(text, None, Lazy(lambda: chips.seek(points, size, found, Unpiped(stack), **options)), "plan")


@dataclass(frozen=True)
class Unpiped:
    """A function that may give a pipe of cubes, giving the cubes."""

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        found = self.function(*args)
        return found._value.get() if isinstance(found, Pipe) else found


def mix(
    plans: Mapping[str, Plan[xr.Dataset]], *, shares: Mapping[str, float], seed: int, n: int | None = None
) -> Plan[xr.Dataset]:
    """Make one plan of several, in shares: see `geopipes.chips.mix`."""
    shown = steps.Text(f"{{{', '.join(f'{name!r}: {plan._lineage()}' for name, plan in plans.items())}}}")
    text = "geopipes." + steps.call("mix", shown, shares=shares, seed=seed, **({} if n is None else {"n": n}))
    value = Lazy(
        lambda: chips.mix({name: plan._value.get() for name, plan in plans.items()}, shares=shares, seed=seed, n=n)
    )
    return Plan._new(text, None, value, "plan")


def audit(*plans: Plan[Any], apart: Apart = "ground", insist: bool = False) -> pd.DataFrame:
    """Measure what splits share, and refuse leaks where asked to insist: see `geopipes.orders.audit`."""
    return orders.audit(*(plan._value.get() for plan in plans), apart=apart, insist=insist)


def _items(function: Callable[..., Any], source: Any, options: dict[str, Any]) -> Pipe[pystac.Item]:
    """Open items when they are needed; keys given in headers are not shown."""
    shown = {
        name: steps.Text("...") if name in HIDDEN else value for name, value in steps.given(function, options).items()
    }
    text = "geopipes." + steps.call(function.__name__, source, **shown)
    pipe: Pipe[pystac.Item] = Pipe._new(text, None, Lazy(lambda: function(source, **options)), "items")
    pipe._modifier = options["modifier"]
    return pipe
