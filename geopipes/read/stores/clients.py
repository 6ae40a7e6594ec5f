"""Stores as this process has them open: one for each host or bucket and who asks, and so many requests for each."""

from __future__ import annotations

import os
from collections import OrderedDict
from datetime import timedelta
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError, UnknownConfigurationKeyError
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from geopipes.errors import ForkError, GeopipesError
from geopipes.read.failures import timeout
from geopipes.read.stores.faults import StoreError, classified
from geopipes.read.stores.locations import Location
from geopipes.read.stores.options import CONNECT_TIMEOUT, Options, config_of, options_of
from geopipes.read.stores.waits import asked_wait
from geopipes.threads import afar

if TYPE_CHECKING:
    from obstore import GetOptions

KEPT = 64
"""Stores that are kept open: each holds connections, and a signature of its own is a store of its own."""

BUCKETS: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}

_lock = Lock()
_stores: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
_slots: dict[tuple[str, int], BoundedSemaphore] = {}
_used = _forked = False


def get(location: Location, start: int, stop: int, *, etag: str | None = None) -> tuple[Any, dict[str, Any]]:
    """Get bytes of an object, all of them, in one request; what waits for it can wait for ``timeout`` seconds.

    Parameters
    ----------
    start, stop : bytes, stop excluded; fewer come only where the object ends before
    etag : of the object whose bytes they are; None for whatever there is

    Returns
    -------
    the bytes, as a buffer, and what the store says of the object: ``size``, ``e_tag``

    Raises
    ------
    StoreError
        says of which kind
    ForkError
        this process is a fork of one that used the network
    """
    options = options_of(location)
    asked: GetOptions = {"range": (start, stop)}
    if etag is not None:
        asked["if_match"] = etag
    try:
        store = opened(location, options)
        with afar(), slot(location, options):
            answer = obstore.get(store, location.path, options=asked)
            meta: dict[str, Any] = {**answer.meta}
            data = answer.bytes()
    except GeopipesError:
        raise
    except (BaseError, OSError, ValueError) as error:
        found = classified(error, location, options)
        if found.busy:
            found.retry_after = asked_wait(location, options.headers)
        raise found from None  # whose text holds the signature
    wanted = min(stop, meta["size"]) - start
    if len(data) != wanted:
        how = "fewer" if len(data) < wanted else "more"
        raise StoreError(f"{len(data)} bytes came, {how} than the {wanted} asked for", kind="transient")
    return data, meta


def opened(location: Location, options: Options) -> Any:
    """Give the store of a location, open."""
    check_fork()
    config, headers, client = config_of(location, options), options.headers, options.client
    key = (
        location.root,
        location.query,
        *(_frozen(each) for each in (config, headers, client)),
        id(options.credentials),
        timeout(),
    )
    with _lock:
        store = _stores.get(key)
        if store is None:
            store = _stores[key] = _open(location, options, config)
            while len(_stores) > KEPT:
                _stores.popitem(last=False)
        _stores.move_to_end(key)
        return store


def slot(location: Location, options: Options) -> BoundedSemaphore:
    """Give what bounds the requests in flight for a host or bucket; hold it for as long as one lasts."""
    host = "/".join(location.root.split("/", 3)[:3])
    with _lock:
        return _slots.setdefault((host, options.requests), BoundedSemaphore(options.requests))


def check_fork() -> None:
    """Note that this process uses the network, and raise where it is a fork of one that did.

    Raises
    ------
    ForkError
        says what to write instead
    """
    global _used
    if _forked:
        raise ForkError(
            "this process was forked from one that had read from the network, whose connections do not outlive a fork: "
            'it would hang. Start it otherwise: DataLoader(..., multiprocessing_context="spawn"), '
            'multiprocessing.get_context("forkserver"), or pipe.loader(processes=2)'
        )
    _used = True


def _open(location: Location, options: Options, config: dict[str, Any]) -> Any:
    seconds, plain = timedelta(seconds=timeout()), location.root.startswith("http://")
    plain = plain or str(config.get("aws_endpoint_url", os.environ.get("AWS_ENDPOINT_URL", ""))).startswith("http://")
    connection = min(seconds, timedelta(seconds=CONNECT_TIMEOUT))
    client: dict[str, Any] = {
        "timeout": seconds, "read_timeout": seconds, "connect_timeout": connection,
        **({"allow_http": True} if plain else {}),
        **({"default_headers": dict(options.headers)} if options.headers else {}),
        **options.client,
    }  # fmt: skip
    shared: dict[str, Any] = {"client_options": client, "retry_config": {"max_retries": 0}}
    try:
        if location.kind == "http":
            return HTTPStore.from_url(f"{location.root}{location.query}", **shared)
        if callable(options.credentials):
            shared["credential_provider"] = options.credentials
        return BUCKETS[location.kind](location.root.partition("://")[2], config=config, **shared)
    except BaseError as error:  # nothing was asked yet: it is what stands in the options or in the environment
        text = str(error).partition("\n\nDebug source")[0]
        raise StoreError(f"{location.root} cannot be asked: {text}", kind="auth") from None


def knows(kind: str, key: str) -> bool:
    """Say whether the stores of a kind know a key of their configuration."""
    try:
        BUCKETS[kind]("x", config={key: ""})
    except BaseError as error:
        return not isinstance(error, UnknownConfigurationKeyError)
    return True


def _frozen(mapping: Any) -> tuple[Any, ...]:
    return tuple(sorted((name, str(value)) for name, value in mapping.items()))


def _after_fork() -> None:
    """Begin anew: locks may be held by threads that are not here, and what the parent used is not to be touched."""
    global _lock, _forked
    _lock, _forked = Lock(), _used
    _slots.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
