"""Who asks, and how: from the environment, as the field's tools know it, and as `storage` was told."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from geopipes.errors import SourceError
from geopipes.read.stores.locations import Location, located

REQUESTS = 64
"""Requests in flight for each host, or bucket: of all threads of the process."""

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection; how long a request may take, `read` says."""

Provider = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """What `storage` was told of a prefix."""

    anonymous: bool = False
    requester_pays: bool = False
    region: str | None = None
    endpoint: str | None = None
    credentials: Mapping[str, str] | Provider | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    client: Mapping[str, Any] = field(default_factory=dict)
    requests: int = REQUESTS

    def named(self, kind: str) -> dict[str, str]:
        """Give it by the names that environment variables have."""
        found = dict(self.credentials) if isinstance(self.credentials, Mapping) else {}
        family = FAMILIES[kind]
        if self.anonymous:
            found[family.unsigned] = "YES"
        if self.requester_pays:
            found["AWS_REQUEST_PAYER"] = "requester"
        if self.region is not None:
            found["AWS_REGION"] = self.region
        if self.endpoint is not None:
            found[family.endpoint] = self.endpoint
        return found


@dataclass(frozen=True)
class Family:
    """Names of one kind of store.

    Attributes
    ----------
    unsigned, endpoint : of the variables that say so
    ours : of variables that obstore, which reads the others itself, calls otherwise: name to key
    """

    unsigned: str
    endpoint: str
    ours: Mapping[str, str]


FAMILIES = {
    "s3": Family(
        "AWS_NO_SIGN_REQUEST",
        "AWS_ENDPOINT_URL",
        {"AWS_NO_SIGN_REQUEST": "aws_skip_signature", "AWS_REQUEST_PAYER": "aws_request_payer"},
    ),
    "gs": Family(
        "GS_NO_SIGN_REQUEST",
        "CPL_GS_ENDPOINT",
        {"GS_NO_SIGN_REQUEST": "google_skip_signature", "CPL_GS_ENDPOINT": "google_base_url"},
    ),
    "az": Family(
        "AZURE_NO_SIGN_REQUEST",
        "AZURE_ENDPOINT_URL",
        {
            "AZURE_NO_SIGN_REQUEST": "azure_skip_signature",
            "AZURE_STORAGE_ACCOUNT": "azure_storage_account_name",
            "AZURE_STORAGE_ACCESS_KEY": "azure_storage_account_key",
            "AZURE_ENDPOINT_URL": "azure_endpoint",
        },
    ),
    "http": Family("NO_SIGN_REQUEST", "ENDPOINT", {}),
}

KNOWN = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    "gs": ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN"),
}
"""Names of credentials that are proposed where another one is written."""

_told: dict[str, Options] = {}


def storage(
    prefix: str,
    *,
    anonymous: bool = False,
    requester_pays: bool = False,
    region: str | None = None,
    endpoint: str | None = None,
    credentials: Mapping[str, str] | Provider | None = None,
    headers: Mapping[str, str] | None = None,
    client: Mapping[str, Any] | None = None,
    requests: int = REQUESTS,
) -> None:
    """Say how to read what lies below a prefix, from now on, in this process and in workers of its loaders.

    What is not said here is taken from the environment: ``AWS_*``, ``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_*``,
    ``AWS_NO_SIGN_REQUEST``, ``AWS_REQUEST_PAYER``, ``HTTPS_PROXY``. The longest prefix counts; to say nothing of it
    forgets what was said before.

    Parameters
    ----------
    prefix : "s3://bucket", "gs://bucket/folder", "az://container", "https://host", ...
    anonymous : read without signing requests: public buckets
    requester_pays : who reads pays for it, as for ``s3://usgs-landsat``
    region : of the bucket
    endpoint : URL of another server than the cloud's own: MinIO, Ceph
    credentials : by the names of environment variables, ``{"AWS_ACCESS_KEY_ID": ..., "AWS_SECRET_ACCESS_KEY": ...}``,
        ``{"AZURE_STORAGE_ACCOUNT": ..., "AZURE_STORAGE_SAS_TOKEN": ...}``; or a provider of obstore, as those of
        ``obstore.auth``, which GDAL cannot ask: it reads what is no tiled GeoTIFF by the environment alone
    headers : sent with each request: ``{"Authorization": "Bearer ..."}``
    client : options of obstore's HTTP client, as ``proxy_url`` and ``root_certificate``; `obstore.store.ClientConfig`
    requests : in flight at most for each host or bucket

    Raises
    ------
    SourceError
        the prefix leads to no store, or an option does not fit it
    """
    location = located(f"{prefix.rstrip('/')}/x")
    if location is None:
        raise SourceError(
            f"storage({prefix!r}): write 's3://bucket', 'gs://bucket', 'az://container' or 'https://host'"
        )
    if requests < 1:
        raise SourceError(f"storage(requests={requests}): at least one request is in flight")
    options = Options(
        anonymous, requester_pays, region, endpoint, credentials, dict(headers or {}), dict(client or {}), requests
    )
    _check(prefix, location, options)
    _told.pop(_key(prefix), None)
    if options != Options():
        _told[_key(prefix)] = options


def told() -> dict[str, Options]:
    """Give what `storage` was told in this process: it holds credentials."""
    return dict(_told)


def tell(all_of_it: Mapping[str, Options]) -> None:
    """Take over what `storage` was told in another process."""
    _told.clear()
    _told.update(all_of_it)


def options_of(location: Location) -> Options:
    """Give what was told of the longest prefix of a location."""
    if not _told:
        return NOTHING
    href = location.unsigned
    found = max((prefix for prefix in _told if f"{href}/".startswith(prefix)), key=len, default=None)
    return NOTHING if found is None else _told[found]


def config_of(location: Location, options: Options) -> dict[str, Any]:
    """Give what obstore is told of a store, beside what it takes from the environment itself."""
    family = FAMILIES[location.kind]
    named = {name: os.environ[name] for name in family.ours if name in os.environ} | options.named(location.kind)
    if location.account is not None:
        named["AZURE_STORAGE_ACCOUNT"] = location.account
    config: dict[str, Any] = {}
    for name, value in named.items():
        key = config_name(location.kind, name)
        config[key] = _yes(value) if key.endswith(("skip_signature", "request_payer")) else value
    return config


def config_name(kind: str, name: str) -> str:
    """Give obstore's name of an environment variable."""
    return FAMILIES[kind].ours.get(name, name.lower())


def gdal_options(location: Location, options: Options) -> dict[str, str]:
    """Give what GDAL is told of a location, beside what it takes from the environment itself."""
    named = options.named(location.kind)
    if location.kind == "s3" and "AWS_ENDPOINT_URL" in (every := {**os.environ, **named}):
        named.pop("AWS_ENDPOINT_URL", None)
        scheme, _, host = every["AWS_ENDPOINT_URL"].rstrip("/").partition("://")
        named |= {"AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO" if scheme == "http" else "YES"}
        named["AWS_VIRTUAL_HOSTING"] = "FALSE"
    if location.account is not None:
        named["AZURE_STORAGE_ACCOUNT"] = location.account
    if options.headers:
        named["GDAL_HTTP_HEADERS"] = "\r\n".join(f"{name}: {value}" for name, value in options.headers.items())
    if "proxy_url" in options.client:
        named["GDAL_HTTP_PROXY"] = str(options.client["proxy_url"])
    return named


NOTHING = Options()


def _key(prefix: str) -> str:
    """Give what hrefs below a prefix begin with."""
    location = located(f"{prefix.rstrip('/')}/x")
    assert location is not None  # it was looked at
    return location.unsigned.removesuffix("x")


def _check(prefix: str, location: Location, options: Options) -> None:
    """Raise where options do not fit a store."""
    if location.kind == "http":
        wrong = [name for name in ("anonymous", "requester_pays", "region", "endpoint", "credentials")
                 if getattr(options, name)]  # fmt: skip
        if wrong:
            raise SourceError(
                f"storage({prefix!r}, {wrong[0]}=...): a plain web server takes headers={{...}} and client={{...}}; "
                "write the prefix as 's3://bucket' for more"
            )
    _check_credentials(prefix, location, options)
    if location.kind != "s3" and (options.requester_pays or options.region is not None):
        raise SourceError(f"storage({prefix!r}): requester_pays and region are of S3; write a prefix as 's3://bucket'")


def _check_credentials(prefix: str, location: Location, options: Options) -> None:
    """Raise where credentials are of no kind that is known, or a name is none that the store knows."""
    given, what = options.credentials, f"storage({prefix!r}, credentials=...)"
    if given is None or callable(given):
        return
    if not isinstance(given, Mapping):
        raise SourceError(
            f"{what}: found is {type(given).__name__}, needed is a dict by the names of environment variables, "
            f"{{{KNOWN[location.kind][0]!r}: ...}}, or a provider of obstore.auth"
        )
    from geopipes.read.stores.clients import knows  # which loads obstore

    for name, value in given.items():
        if not isinstance(value, str):
            raise SourceError(f"{what}: {name!r} is {type(value).__name__}, needed is a text")
        if not (isinstance(name, str) and knows(location.kind, config_name(location.kind, name))):
            near = get_close_matches(str(name).upper(), KNOWN[location.kind], 3, 0.5) or KNOWN[location.kind]
            raise SourceError(f"{what}: {name!r} is no name that it knows; write {' or '.join(map(repr, near))}")


def _yes(value: str) -> bool:
    return value.strip().lower() in ("yes", "true", "1", "on", "requester")
