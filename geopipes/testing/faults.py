"""What goes wrong at a server of objects, told beforehand and the same in whatever order requests come."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from threading import Lock
from typing import Literal, get_args
from zlib import crc32

from geopipes.errors import CatalogError

Kind = Literal[
    "busy", "slow_down", "error", "forbidden", "missing", "truncated", "short", "overlong", "stalled", "corrupt",
    "refused",
]  # fmt: skip

STATUS: dict[Kind, int] = {"busy": 503, "slow_down": 429, "error": 500, "forbidden": 403, "missing": 404}
"""Faults that are an answer of their own."""

Range = tuple[int, int] | None
"""Bytes of a file, the second excluded; None for all of it."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes
    ----------
    kind : "busy" (503), "slow_down" (429), both with Retry-After; "error" (500), "forbidden" (403), "missing" (404);
        "truncated": the body ends early, and with it the connection; "short": fewer bytes than were asked for, and a
        Content-Length that agrees with them; "overlong": the range is ignored, all of the file is sent; "stalled":
        half of the body, then nothing; "corrupt": bytes of the body are changed; "refused": no answer at all
    share : of the (path, range) pairs that it strikes, by their hash
    times : how often each of them is struck, before it is served; None for always
    paths : of the files that it strikes, a pattern as of a shell, such as ``"*/B04.tif"``
    seed : another one strikes other pairs
    after : requests that the server has answered before the first is struck
    retry_after : seconds that "busy" and "slow_down" ask to wait
    """

    kind: Kind
    share: float = 1.0
    times: int | None = 1
    paths: str = "*"
    seed: int = 0
    after: int = 0
    retry_after: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a fault that is none."""
        if self.kind not in get_args(Kind):
            raise CatalogError(f"Fault({self.kind!r}): write one of {', '.join(get_args(Kind))}")
        if not 0 <= self.share <= 1:
            raise CatalogError(f"Fault(share={self.share}): give a share of the requests, from 0 to 1")

    def meets(self, path: str, wanted: Range) -> bool:
        """Say whether the fault lies on a range of a file."""
        if not fnmatchcase(path, self.paths):
            return False
        drawn = crc32(f"{self.seed} {self.kind} {path} {wanted}".encode())
        return drawn < self.share * 2**32


class Weather:
    """Which request meets which fault; each is counted.

    Attributes
    ----------
    faults : the first that strikes is met; they may be set anew at any time
    """

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        self._lock = Lock()
        self._struck: dict[tuple[Fault, str, Range], int] = {}
        self._seen = 0

    def strike(self, path: str, wanted: Range) -> Fault | None:
        """Give the fault that a request meets."""
        with self._lock:
            self._seen += 1
            for fault in self.faults:
                if self._seen <= fault.after or not fault.meets(path, wanted):
                    continue
                met = self._struck.get((fault, path, wanted), 0)
                if fault.times is None or met < fault.times:
                    self._struck[fault, path, wanted] = met + 1
                    return fault
        return None
