"""A bar on stderr for what takes long."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TextIO, TypeVar

T = TypeVar("T")

WIDTH = 30
"""Characters of the bar."""

TERMINAL_PAUSE, FILE_PAUSE = 0.2, 30.0
"""Seconds between two pictures of the bar: on a terminal, where each takes the other's place, and in a file."""


def progressing(
    elements: Iterable[T], total: int | None = None, name: str = "", *, stream: TextIO | None = None
) -> Iterator[T]:
    """Give elements on, and show on stderr how many have come by.

    Parameters
    ----------
    elements : what is counted
    total : how many there will be; None where nobody knows
    name : of what is done
    stream : another place than stderr
    """
    out = stream or sys.stderr
    live = out.isatty()
    pause = TERMINAL_PAUSE if live else FILE_PAUSE
    start = shown = monotonic()
    done = 0
    try:
        for element in elements:
            yield element
            done += 1
            now = monotonic()
            if now - shown >= pause:
                shown = now
                out.write(f"{_bar(name, done, total, now - start)}{chr(13) if live else chr(10)}")
                out.flush()
    finally:
        out.write(f"{_bar(name, done, total, monotonic() - start)}\n")
        out.flush()


def _bar(name: str, done: int, total: int | None, seconds: float) -> str:
    """Draw the bar: ``statistics [####......]  40% 800/2000 12.3/s, 98 s left``."""
    speed = done / seconds if seconds else 0.0
    if not total:
        return f"{name} {done} {speed:.1f}/s"
    share = min(done / total, 1.0)
    full = round(share * WIDTH)
    left = f", {(total - done) / speed:.0f} s left" if speed and done < total else ""
    return f"{name} [{'#' * full}{'.' * (WIDTH - full)}] {share:4.0%} {done}/{total} {speed:.1f}/s{left}"
