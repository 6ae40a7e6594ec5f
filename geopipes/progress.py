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

ERASE = "\x1b[K"
"""Clears a terminal's line behind the bar: a longer one may have stood there."""


class Bar:
    """A line that says how far something is: ``train [####......]  40% 800/2000 123 chips/s, 45 MB/s, 12 s left``.

    Parameters
    ----------
    total : how many there will be; None where nobody knows
    name : of what is done
    done : how many were done before, which count for no speed
    unit : of what is counted; empty for none
    stream : another place than stderr
    """

    def __init__(
        self, total: int | None = None, name: str = "", *, done: int = 0, unit: str = "", stream: TextIO | None = None
    ) -> None:
        self._total, self._name, self._unit, self._out = total, name, unit, stream or sys.stderr
        self._live = self._out.isatty()
        self._pause = TERMINAL_PAUSE if self._live else FILE_PAUSE
        self._before = self._done = done
        self._bytes = self._skipped = self._retries = 0
        self._start = self._shown = monotonic()

    def add(self, done: int = 1, *, size: int = 0, skipped: int | None = None, retries: int = 0) -> None:
        """Count what was done, and show it if the last picture is old enough.

        Parameters
        ----------
        done : how many more; those skipped do not count
        size : their bytes
        skipped : how many were skipped so far, in all; None for as many as before
        retries : how often reads were tried again so far, in all
        """
        self._done += done
        self._bytes += size
        self._skipped = self._skipped if skipped is None else skipped
        self._retries = max(self._retries, retries)
        now = monotonic()
        if now - self._shown >= self._pause:
            self._shown = now
            self._show("\r" if self._live else "\n")

    def close(self) -> None:
        """Show where it ended."""
        self._show("\n")

    def _show(self, end: str) -> None:
        self._out.write(f"{self._drawn(monotonic() - self._start)}{ERASE if self._live else ''}{end}")
        self._out.flush()

    def _drawn(self, seconds: float) -> str:
        """Draw the bar after so many seconds."""
        come = self._done + self._skipped
        pace = (come - self._before) / seconds if seconds else 0.0
        speed = (self._done - self._before) / seconds if seconds else 0.0
        words = [f"{speed:,.{int(speed < 100)}f} {self._unit}/s" if self._unit else f"{speed:.1f}/s"]
        if self._bytes and seconds:
            words.append(f"{self._bytes / seconds / 1e6:,.0f} MB/s")
        if self._skipped:
            words.append(f"{self._skipped:,} skipped")
        if self._retries:
            words.append(f"{self._retries:,} retries")
        if not self._total:
            return f"{self._name} {come} {', '.join(words)}"
        if pace and come < self._total:
            words.append(f"{(self._total - come) / pace:.0f} s left")
        share = min(come / self._total, 1.0)
        full = round(share * WIDTH)
        bar = f"[{'#' * full}{'.' * (WIDTH - full)}]"
        return f"{self._name} {bar} {share:4.0%} {come}/{self._total} {', '.join(words)}"


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
    bar = Bar(total, name, stream=stream)
    try:
        for element in elements:
            yield element
            bar.add()
    finally:
        bar.close()
