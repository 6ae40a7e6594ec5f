"""Where hrefs lead, who asks, and what stores say: S3 as moto's server plays it, on loopback."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from affine import Affine
from forgetting import forget

import geopipes as gp
from geopipes.errors import ReadError, SourceError
from geopipes.read import reason
from geopipes.read.stores import StoreError, faults, head, located, options
from geopipes.read.stores.clients import slot
from geopipes.read.stores.gdal import gdal_name, open_raster
from geopipes.testing import Synthetic

boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin with nothing told, opened or in the environment."""
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "GS_")):
            monkeypatch.delenv(name)
    options.tell({})
    forget()
    yield
    options.tell({})


class Bucket:
    """A bucket of moto's, and who may read it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
        )
        self.client.create_bucket(Bucket="scenes")

    def items(self, land: Synthetic) -> list[pystac.Item]:
        """Put the rasters of scenes there."""
        items = [item.clone() for item in land.items]
        for item in items:
            for asset in item.assets.values():
                key = os.path.relpath(asset.href, land.label.parent)
                self.client.put_object(Bucket="scenes", Key=key, Body=Path(asset.href).read_bytes())
                asset.href = f"s3://scenes/{key}"
        return items

    @contextmanager
    def guarded(self) -> Iterator[dict[str, str]]:
        """Have keys looked at while the block lasts; gives those of one who may read."""
        iam = boto3.client(
            "iam", endpoint_url=self.url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
        )
        iam.create_user(UserName="reader")
        allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(allowed))
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        self._ask("0")
        try:
            yield {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        finally:
            self._ask("inf")

    def _ask(self, count: str) -> None:
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", data=count.encode(), method="POST")
        request.add_header("Content-Type", "text/plain")
        urllib.request.urlopen(request).close()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str) -> Iterator[Bucket]:
    yield Bucket(server)
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", data=b"", method="POST")).close()


def chips(items: Any) -> list[xr.Dataset]:
    plan = gp.items(items).stack(["red", "nir"], crs="utm", resolution=10, groupby="solar_day").chip(64)
    return [*plan.shuffle(seed=0).read(threads=4)]


def same(found: list[xr.Dataset], expected: list[xr.Dataset]) -> None:
    for one, other in zip(found, expected, strict=True):
        xr.testing.assert_identical(one.drop_vars("chip"), other.drop_vars("chip"))


def told(bucket: Bucket, **more: Any) -> None:
    gp.storage("s3://scenes", endpoint=bucket.url, region="us-east-1", **more)


def test_a_bucket_is_read_with_keys_told_and_of_the_environment(
    land: Synthetic, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = bucket.items(land)
    with bucket.guarded() as keys:
        told(bucket, credentials=keys)
        near = chips(land.items)
        forget()
        same(chips(items), near)
        assert reason(items[0].assets["red"].href).startswith("cog: ")
        forget()
        options.tell({})
        for name, value in {**keys, "AWS_ENDPOINT_URL": bucket.url, "AWS_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        same(chips(items), near)
        with open_raster(items[0].assets["red"].href) as far, open_raster(land.items[0].assets["red"].href) as file:
            np.testing.assert_array_equal(far.read(), file.read())


@pytest.mark.parametrize("who", [
    {"credentials": {"AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong"}}, {"anonymous": True},
])  # fmt: skip
def test_who_may_not_read_is_told_what_to_write(land: Synthetic, bucket: Bucket, who: dict[str, Any]) -> None:
    items = bucket.items(land)
    way = "credentials=" if "anonymous" in who else "anonymous=True"
    with bucket.guarded():
        told(bucket, **who)
        with pytest.raises(ReadError, match=rf's3://scenes answered 403 .*gp\.storage\("s3://scenes", {way}'):
            chips(items)
        location = located(items[0].assets["red"].href)
        assert location is not None
        with pytest.raises(StoreError) as refused:
            head(location)
        assert refused.value.kind == "auth"


def test_advice_that_was_followed_is_not_given_again(land: Synthetic, bucket: Bucket) -> None:
    items = bucket.items(land)
    with bucket.guarded():
        told(bucket, anonymous=True, requester_pays=True)
        with pytest.raises(ReadError, match="anonymous and requester_pays of gp") as caught:
            chips(items)
    assert "=True" not in str(caught.value)
    location = located("https://h.org/a.tif")
    assert location is not None
    assert "write gp.storage" in faults._who(location, options.Options())
    assert "write gp.storage" not in faults._who(location, options.Options(headers={"a": "b"}))
    location = located("gs://b/a.tif")
    assert location is not None
    assert "requester_pays" not in faults._who(location, options.Options())


def test_jpeg_2000_is_read_by_gdal(bucket: Bucket, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 60_000, (1, 150, 150), dtype="uint16")
    profile = {"driver": "JP2OpenJPEG", "count": 1, "height": 150, "width": 150, "dtype": "uint16"}
    profile |= {
        "crs": "EPSG:32633",
        "transform": Affine(10, 0, 5e5, 0, -10, 5e6),
        "QUALITY": "100",
        "REVERSIBLE": "YES",
    }
    with rasterio.open(tmp_path / "a.jp2", "w", **profile) as file:
        file.write(pixels)
    bucket.client.put_object(Bucket="scenes", Key="a.jp2", Body=(tmp_path / "a.jp2").read_bytes())
    told(bucket, credentials=KEYS)
    for href in ("s3://scenes/a.jp2", "/vsis3/scenes/a.jp2"):
        whole = gp.rasters(href).stack(["b1"], resolution=10).chip(150)[0].load()
        np.testing.assert_array_equal(whole["b1"].values.squeeze(), pixels[0])
        assert reason(href) == "gdal: the file is JP2OpenJPEG, not GeoTIFF"


def test_a_public_bucket_is_read_by_anyone(land: Synthetic, bucket: Bucket) -> None:
    items = bucket.items(land)
    bucket.client.put_bucket_acl(Bucket="scenes", ACL="public-read")
    for item in items:
        for asset in item.assets.values():
            key = asset.href.removeprefix("s3://scenes/")
            bucket.client.put_object_acl(Bucket="scenes", Key=key, ACL="public-read")
    told(bucket, anonymous=True)
    same(chips(items), chips(land.items))


def test_what_is_not_there_is_missing(bucket: Bucket) -> None:
    told(bucket, credentials=KEYS)
    with pytest.raises(StoreError, match=r"404 Not Found \(NoSuchKey\)") as caught:
        head(located("s3://scenes/gone.tif"))  # type: ignore[arg-type]
    assert caught.value.kind == "missing"


def test_worker_processes_are_told_too(land: Synthetic, bucket: Bucket) -> None:
    items = bucket.items(land)
    with bucket.guarded() as keys:
        told(bucket, credentials=keys)
        plan = gp.items(items).stack(["red"], crs="utm", resolution=10, groupby="solar_day").chip(64)
        with plan.read(threads=2).tensor(image=["red"], fill=0).batch(4).loader(processes=1) as loader:
            far = [batch["image"].sum().item() for batch in loader]
    plan = gp.items(land.items).stack(["red"], crs="utm", resolution=10, groupby="solar_day").chip(64)
    assert far == [batch["image"].sum().item() for batch in plan.read().tensor(image=["red"], fill=0).batch(4)]


@pytest.fixture
def asked() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Give the URL of a server that refuses all, and the headers of what it was asked."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    log: list[dict[str, str]] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            log.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as refusing:
        thread = threading.Thread(target=refusing.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{refusing.server_port}", log
        refusing.shutdown()
        thread.join()


@pytest.mark.parametrize("by", ["storage", "environment"])
def test_requester_pays_is_said_in_each_request(
    asked: tuple[str, list[dict[str, str]]], by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, log = asked
    if by == "environment":
        monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    gp.storage("s3://paid", endpoint=url, region="us-west-2", credentials=KEYS, requester_pays=by == "storage")
    with pytest.raises(StoreError, match="403"):
        head(located("s3://paid/scene.tif"))  # type: ignore[arg-type]
    assert log[-1]["x-amz-request-payer"] == "requester"
    assert "Credential=key/" in log[-1]["authorization"]
    log.clear()
    with pytest.raises(Exception, match=r"403|Access|not recognized|exist"):
        open_raster("s3://paid/scene.tif")
    assert log[-1]["x-amz-request-payer"] == "requester"
    assert "Credential=key/" in log[-1]["authorization"]


@pytest.mark.parametrize("by", ["storage", "environment"])
def test_anonymous_requests_are_not_signed(
    asked: tuple[str, list[dict[str, str]]], by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, log = asked
    if by == "environment":
        monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    gp.storage("s3://open", endpoint=url, region="us-west-2", anonymous=by == "storage")
    for ask in (lambda: head(located("s3://open/scene.tif")), lambda: open_raster("s3://open/scene.tif")):  # type: ignore[arg-type]
        log.clear()
        with pytest.raises(Exception, match=r"403|Access|not recognized|exist"):
            ask()
        assert log
        assert "authorization" not in log[-1]


def test_headers_are_sent_below_their_prefix_alone(asked: tuple[str, list[dict[str, str]]]) -> None:
    url, log = asked
    gp.storage(f"{url}/private", headers={"Authorization": "Bearer abc"})
    for path, expected in (("private/a.tif", "Bearer abc"), ("public/a.tif", None), ("privateer/a.tif", None)):
        for ask in (lambda: head(located(f"{url}/{path}")), lambda: open_raster(f"{url}/{path}")):  # type: ignore[arg-type] # noqa: B023
            log.clear()
            with pytest.raises(Exception, match=r"403|not recognized|exist"):
                ask()
            assert log[-1].get("authorization") == expected


@pytest.mark.parametrize(("href", "expected"), [
    ("s3://bucket/a/b c.tif", ("s3", "s3://bucket", "a/b c.tif", "", "/vsis3/bucket/a/b c.tif")),
    ("/vsis3/bucket/a.tif", ("s3", "s3://bucket", "a.tif", "", "/vsis3/bucket/a.tif")),
    ("gs://bucket/a.tif", ("gs", "gs://bucket", "a.tif", "", "/vsigs/bucket/a.tif")),
    ("/vsigs/bucket/a.tif", ("gs", "gs://bucket", "a.tif", "", "/vsigs/bucket/a.tif")),
    ("az://box/a.tif", ("az", "az://box", "a.tif", "", "/vsiaz/box/a.tif")),
    ("abfs://box/a.tif", ("az", "az://box", "a.tif", "", "/vsiaz/box/a.tif")),
    ("/vsiaz/box/a.tif", ("az", "az://box", "a.tif", "", "/vsiaz/box/a.tif")),
    ("https://h.org/a%20b.tif", ("http", "https://h.org", "a b.tif", "", "/vsicurl/https://h.org/a%20b.tif")),
    ("/vsicurl/http://h.org:8/a.tif", ("http", "http://h.org:8", "a.tif", "", "/vsicurl/http://h.org:8/a.tif")),
    ("https://acc.blob.core.windows.net/box/a.tif?sig=a%2Bb",
     ("http", "https://acc.blob.core.windows.net", "box/a.tif", "?sig=a%2Bb",
      "/vsicurl/https://acc.blob.core.windows.net/box/a.tif?sig=a%2Bb")),
    ("https://h.org/a//b.tif?x=1", ("http", "https://h.org/a//b.tif", "", "?x=1", "/vsicurl/https://h.org/a//b.tif?x=1")),
])  # fmt: skip
def test_hrefs_lead_to_stores(href: str, expected: tuple[str, ...]) -> None:
    location = located(href)
    assert location is not None
    assert (location.kind, location.root, location.path, location.query, gdal_name(href)) == expected


def test_azure_accounts_stand_in_hrefs_or_options() -> None:
    location = located("abfss://box@account.dfs.core.windows.net/a.tif")
    assert location is not None
    assert (location.account, location.path) == ("account", "a.tif")


@pytest.mark.parametrize("href", ["scene.tif", "/data/scene.tif", "/vsizip//vsicurl/http://h/a.zip/b",
                                  "s3://bucket", "s3://bucket/a//b.tif", "zip+https://h.org/a.zip!b.tif"])  # fmt: skip
def test_other_hrefs_lead_to_none(href: str) -> None:
    assert located(href) is None
    assert gdal_name(href) == href


def test_file_urls_lead_to_paths() -> None:
    assert located("file:///data/a.tif") is None
    for rest in ("/data/a%20b.tif", "localhost/data/a b.tif", "/data/a b.tif"):
        assert gdal_name(f"file://{rest}") == "/data/a b.tif"


@pytest.mark.parametrize(("prefix", "given", "message"), [
    ("data", {}, "write 's3://bucket'"),
    ("s3://b", {"requests": 0}, "at least one request"),
    ("https://h.org", {"anonymous": True}, "a plain web server takes headers"),
    ("gs://b", {"region": "eu"}, "requester_pays and region are of S3"),
    ("s3://b", {"credentials": ("a", "b")}, r"found is tuple, needed is a dict by the names of .*AWS_ACCESS_KEY_ID"),
    ("s3://b", {"credentials": {"AWS_ACCESS_KEY": "x"}}, "'AWS_ACCESS_KEY' is no name .* write 'AWS_ACCESS_KEY_ID'"),
    ("az://b", {"credentials": {"AZURE_SAS_TOKEN": "x"}}, "write 'AZURE_STORAGE_SAS_TOKEN'"),
    ("gs://b", {"credentials": {"nothing": "x"}}, "write 'GOOGLE_SERVICE_ACCOUNT'"),
    ("s3://b", {"credentials": {"AWS_SESSION_TOKEN": None}}, "'AWS_SESSION_TOKEN' is NoneType, needed is a text"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(prefix: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        gp.storage(prefix, **given)


def test_names_that_are_proposed_are_known() -> None:
    for kind, names in options.KNOWN.items():
        gp.storage(f"{kind}://b", credentials=dict.fromkeys(names, "x"))
    assert len(options.told()) == 3


def test_the_longest_prefix_counts_and_nothing_forgets() -> None:
    gp.storage("s3://b", region="one")
    gp.storage("s3://b/deep/", region="two")
    regions = {name: options.options_of(located(f"s3://b/{name}")).region for name in ("a.tif", "deep/a.tif", "deeper")}  # type: ignore[arg-type]
    assert regions == {"a.tif": "one", "deep/a.tif": "two", "deeper": "one"}
    gp.storage("s3://b")
    gp.storage("s3://b/deep")
    assert options.told() == {}


def test_requests_in_flight_are_bounded_for_each_host() -> None:
    gp.storage("https://h.org", requests=3)
    one, other, elsewhere = (located(href) for href in ("https://h.org/a", "https://h.org/b/c?x", "https://i.org/a"))
    assert one is not None
    assert other is not None
    assert elsewhere is not None
    bound = slot(one, options.options_of(one))
    assert bound is slot(other, options.options_of(other))
    assert bound is not slot(elsewhere, options.options_of(elsewhere))
    assert [bound.acquire(blocking=False) for _ in range(4)] == [True] * 3 + [False]


def test_errors_of_stores_travel() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(StoreError("text", kind="auth", retry_after=2.0)))
    assert (str(error), error.kind, error.retry_after, error.changed) == ("text", "auth", 2.0, False)


@pytest.mark.parametrize(
    ("href", "environment", "text"),
    [
        ("s3://bucket/a.tif", {"AWS_ACCESS_KEY_ID": "half"}, "SecretAccessKey"),
        ("gs://bucket/a.tif", {"GOOGLE_APPLICATION_CREDENTIALS": "nowhere.json"}, r"nowhere\.json"),
    ],
)
def test_what_is_asked_with_half_a_key_is_not_tried_again(
    href: str, environment: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    location = located(href)
    assert location is not None
    with pytest.raises(StoreError, match=text) as caught:
        head(location)
    assert caught.value.kind == "auth"
