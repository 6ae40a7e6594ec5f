"""The server of objects itself: files of a folder over HTTP/1.1 as a store gives them, and the faults on the way."""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import secrets
import threading
import time
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from geopipes.testing.faults import STATUS, Fault, Range, Weather

RANGE = re.compile(r"bytes=(\d*)-(\d*)")

Headers = dict[str, str]


@dataclass(frozen=True)
class Request:
    """What was asked, and what was answered.

    Attributes
    ----------
    method, path : such as "GET", "a/b.tif"
    start, stop : the bytes asked for, ``stop`` excluded; None where all are
    status : of the answer; 0 for none
    fault : the kind of fault that it met; None for none
    """

    method: str
    path: str
    start: int | None
    stop: int | None
    status: int
    fault: str | None


@dataclass(frozen=True)
class Answer:
    """What goes back: of the body, as many bytes as are told, whatever the headers say.

    Attributes
    ----------
    status, headers, body : as HTTP has them
    after : what follows: "go on", "hang up" or "hang"
    """

    status: int
    headers: Headers
    body: bytes = b""
    after: str = "go on"


class Answers:
    """Serves files on 127.0.0.1 from a thread of its own.

    Attributes
    ----------
    latency : seconds before each answer
    weather : its faults
    requests, sent : the requests so far, and the bytes of their bodies
    """

    def __init__(self, folder: Path, *, latency: float, faults: tuple[Fault, ...], token_life: float | None) -> None:
        self.latency, self.weather = latency, Weather(faults)
        self.requests: list[Request] = []
        self.sent = 0
        self._folder, self._life, self._secret = folder.resolve(), token_life, secrets.token_bytes(16)
        self._loop = asyncio.new_event_loop()
        started: threading.Event = threading.Event()
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, args=(started,), name="geopipes-objects", daemon=True)
        self._thread.start()
        started.wait()

    def close(self) -> None:
        """Hang up on everybody."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def token(self) -> str:
        """Give a token for as long as tokens hold."""
        until = f"{time.time() + (self._life or 0):.3f}"
        return f"{until}-{self._mark(until)}"

    def _mark(self, until: str) -> str:
        return hmac.new(self._secret, until.encode(), "sha256").hexdigest()[:16]

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1024)
        self.port: int = server.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._converse(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after the other until either side hangs up."""
        try:
            while await self._answered(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the other side has gone
        finally:
            writer.transport.abort()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        parts = urlsplit(target)
        path = unquote(parts.path).lstrip("/")
        wanted = RANGE.fullmatch(headers.get("range", ""))
        allowed = self._life is None or self._allowed(parse_qs(parts.query).get("token", [""])[0])
        if self.latency:
            await asyncio.sleep(self.latency)
        start, stop, fault, answer = self._answer(method, path, wanted, headers, allowed)
        self.requests.append(Request(method, path, start, stop, answer.status, fault.kind if fault else None))
        if answer.status:
            head = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
            writer.write(head.encode("latin-1") + b"\r\n")
            if method != "HEAD":
                self.sent += len(answer.body)
                writer.write(answer.body)
            await writer.drain()
        if answer.after == "hang":
            await reader.read()  # until the other side gives up
        elif answer.after == "hang up" and answer.status:
            writer.close()
            await writer.wait_closed()
        return answer.after == "go on"

    def _allowed(self, token: str) -> bool:
        until, _, mark = token.partition("-")
        return bool(until) and hmac.compare_digest(mark, self._mark(until)) and float(until) > time.time()

    def _answer(
        self, method: str, path: str, wanted: re.Match[str] | None, headers: Headers, allowed: bool
    ) -> tuple[int | None, int | None, Fault | None, Answer]:
        """Give (start, stop, fault, answer): what was asked for, and what comes back."""
        file = (self._folder / path).resolve()
        if not allowed:
            return None, None, None, _plain(403, "the token is missing, or does not hold any more")
        if method not in ("GET", "HEAD"):
            return None, None, None, _plain(405, "files are only read here")
        if not file.is_relative_to(self._folder) or not file.is_file():
            return None, None, self.weather.strike(path, None), _plain(404, f"there is no {path}")
        status = file.stat()
        bounds = None if wanted is None else _bounds(wanted, status.st_size)
        start, stop = bounds or (None, None)
        fault = self.weather.strike(path, bounds)
        stated = {
            "ETag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
            "Accept-Ranges": "bytes",
        }
        if headers.get("if-match", stated["ETag"]) not in (stated["ETag"], "*"):
            return start, stop, None, _plain(412, "the file is another one now")
        if wanted is not None and bounds is None:
            return start, stop, None, _plain(416, f"the file has {status.st_size} bytes")
        if fault is not None and fault.kind == "overlong":
            bounds = None
        return start, stop, fault, _struck(fault, _given(file, status.st_size, bounds, stated))


def _bounds(wanted: re.Match[str], size: int) -> Range:
    """Give the bytes that a Range header means; None where the file has none of them."""
    first, last = wanted.groups()
    if first:
        start, stop = int(first), min(int(last) + 1 if last else size, size)
    else:
        start, stop = max(0, size - int(last or 0)), size
    return (start, stop) if start < stop else None


def _given(file: Path, size: int, bounds: Range, stated: Headers) -> Answer:
    start, stop = bounds or (0, size)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        body = os.pread(descriptor, stop - start, start)
    finally:
        os.close(descriptor)
    headers = stated | {"Content-Length": str(len(body)), "Content-Type": "image/tiff"}
    if bounds is None:
        return Answer(200, headers, body)
    return Answer(206, headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}, body)


def _struck(fault: Fault | None, answer: Answer) -> Answer:
    """Give what a fault leaves of an answer."""
    body = answer.body
    half = len(body) // 2
    match fault and fault.kind:
        case "truncated":
            return Answer(answer.status, answer.headers, body[:half], "hang up")
        case "stalled":
            return Answer(answer.status, answer.headers, body[:half], "hang")
        case "short":
            return Answer(answer.status, answer.headers | {"Content-Length": str(half)}, body[:half])
        case "corrupt":
            spoilt = bytes(byte ^ 0xA5 for byte in body[half : half + 64])
            return Answer(answer.status, answer.headers, body[:half] + spoilt + body[half + 64 :])
        case "refused":
            return Answer(0, {}, after="hang up")
        case None | "overlong":
            return answer
    assert fault is not None
    waits = {"Retry-After": f"{fault.retry_after:g}"} if fault.kind in ("busy", "slow_down") else {}
    return _plain(STATUS[fault.kind], f"a fault of kind {fault.kind}", waits)


def _plain(status: int, text: str, headers: Headers | None = None) -> Answer:
    body = text.encode()
    return Answer(status, (headers or {}) | {"Content-Length": str(len(body)), "Content-Type": "text/plain"}, body)
