"""Why a read failed, as one of four kinds: what is to be done depends on that alone."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal, NamedTuple, get_args

Kind = Literal["auth", "transient", "missing", "corrupt"]
"""Not allowed; worth another try; not there; there, and not what it should be."""

KINDS: tuple[Kind, ...] = get_args(Kind)

HTTP_CODE = re.compile(r"HTTP response code: ?(\d{3})")
"""How GDAL tells the answer of a server, where it does: of an opened file that is read it says no more than bytes."""

DAMAGED = re.compile(r"decod|inflat|checksum|corrupt|bad.data|not recognized as being in a supported", re.IGNORECASE)
"""What decoders say of bytes that came whole and make no sense."""

ABSENT = re.compile(r"No such file or directory|does not exist in the file system")

FORBIDDEN = re.compile(r"Permission denied|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken")

CODES: dict[int, Kind] = {400: "auth", 401: "auth", 403: "auth", 407: "auth", 404: "missing", 410: "missing",
                          408: "transient", 425: "transient", 429: "transient"}  # fmt: skip
"""Answers of servers; from 500 on they are transient. S3 says 400 of a token that has expired."""

ERRNOS: dict[int, Kind] = {
    errno.ENOENT: "missing", errno.ENOTDIR: "missing", errno.EISDIR: "missing",
    errno.EACCES: "auth", errno.EPERM: "auth",
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT,
                     errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE), "transient"),
}  # fmt: skip
"""Errors of the system: those of a disk behind a network come and go."""


class Cause(NamedTuple):
    """Why a read failed.

    Attributes
    ----------
    kind : one of four
    retry_after : seconds that the server asks to wait; None where it does not
    """

    kind: Kind
    retry_after: float | None = None


def is_remote(href: str) -> bool:
    """Say whether a href leads over a network."""
    return ("://" in href and not href.startswith("file://")) or href.startswith("/vsi")


def classified(error: BaseException, *, remote: bool) -> Cause:
    """Tell why a read failed.

    An exception that says so itself, by ``kind`` and ``retry_after``, is believed; else the answer of the server
    counts, then the number of the system's error, then what GDAL and decoders write.

    Parameters
    ----------
    error : what was raised, with what caused it
    remote : whether the bytes came over a network, where most that is strange is gone a moment later
    """
    chain = [*_chain(error)]
    for one in chain:
        kind = getattr(one, "kind", None)
        if kind in KINDS:
            return Cause(kind, getattr(one, "retry_after", None))
    for one in chain:
        if (code := _code(one)) is not None:
            return Cause("transient" if code >= 500 else CODES.get(code, "corrupt"), _retry_after(one))
    for one in chain:
        if isinstance(one, OSError) and one.errno in ERRNOS:
            return Cause(ERRNOS[one.errno])
    text = "\n".join(map(str, chain))
    if FORBIDDEN.search(text):
        return Cause("auth")
    if not remote:
        return Cause("missing" if ABSENT.search(text) else "corrupt")
    damaged = DAMAGED.search(text) or not any(isinstance(one, OSError) for one in chain)
    return Cause("corrupt" if damaged else "transient")


def replaced(error: BaseException) -> bool:
    """Say whether a read failed as the file is another one than when its header was read."""
    return any(getattr(one, "changed", False) for one in _chain(error))


def outdated(error: BaseException) -> bool:
    """Say whether that header was kept from an earlier program: then it is no wonder, and the file is opened anew."""
    return any(getattr(one, "outdated", False) for one in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error, what caused it, and so on; some of rasterio's go in circles."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _code(error: BaseException) -> int | None:
    """Give the HTTP status that an error tells, as GDAL, requests or urllib write it."""
    if (found := HTTP_CODE.search(str(error))) is not None:
        return int(found[1])
    code = getattr(getattr(error, "response", None), "status_code", getattr(error, "code", None))
    return code if isinstance(code, int) and code >= 400 else None


def _retry_after(error: BaseException) -> float | None:
    """Give the seconds of a Retry-After header; a date in it is left aside, as clocks differ."""
    headers: Any = getattr(getattr(error, "response", error), "headers", None) or {}
    with suppress(TypeError, ValueError, AttributeError):
        return float(headers.get("Retry-After"))
    return None
