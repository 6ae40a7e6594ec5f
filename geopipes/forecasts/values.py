"""A forecast as a value, and how it prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

WIDTH = 100
"""Characters of a line in words."""


@dataclass(frozen=True)
class Needs:
    """What reading chips in one order needs.

    Attributes
    ----------
    requests : ranges of files that are asked for, from stores (at most) or disks, without headers
    fetched : their bytes
    kept : bytes that are taken from the disk of ``read(disk=...)`` instead
    tiles : parts of tiles decoded, one part being the bands of one file
    decoded : their bytes
    again : share of them that had been decoded before
    cached : share of the tiles asked for that were there, decoded
    """

    requests: int
    fetched: int
    kept: int
    tiles: int
    decoded: int
    again: float
    cached: float


@dataclass(frozen=True)
class Memory:
    """What is held at most while a pipe runs [bytes].

    Attributes
    ----------
    tiles : decoded ones, in the cache
    fetched : bytes of stores, fetched ahead
    chips : read, or being read, and not taken yet
    batch : one of them; 0 where elements are not batched
    """

    tiles: int
    fetched: int
    chips: int
    batch: int

    @property
    def total(self) -> int:
        """All of it; what Python and its libraries take comes on top."""
        return self.tiles + self.fetched + self.chips + 2 * self.batch


@dataclass(frozen=True)
class Probe:
    """What a few chips showed.

    Attributes
    ----------
    elements : delivered, the first of them not timed: batches, or what comes out otherwise
    seconds : for each
    bound : what most of the reading threads' time went to: "network", "disk", "decoding", "resampling", "copying",
        "steps" or "python" (all else)
    share : of their time, without waits for each other
    why : what a profile says of the same run
    """

    elements: int
    seconds: float
    bound: str
    share: float
    why: str


@dataclass(frozen=True)
class Forecast:
    """What a pipe will need, told before it runs.

    Attributes
    ----------
    scenes, files : that it may read from; ``far`` of the files lie in stores
    far : see there
    headers : requests for headers that are not at hand, at least
    chips, size : and their (y, x) [px]
    elements : that come out, planned: batches, where it has any; ``batched`` says so
    batched : see there
    needs : in the order of the pipe
    unshuffled : in the order in which the chips were cut; None where that is the order
    memory : at most
    looked_at : chips whose tiles were looked at, from the beginning of each order; the rest is taken to be like the
        second half of these
    known, assumed : files whose headers told where tiles lie, and those taken to be stored like others of their kind
    probe : of a few chips; None where none was asked for
    """

    scenes: int
    files: int
    far: int
    headers: int
    chips: int
    size: tuple[int, int]
    elements: int
    batched: bool
    needs: Needs
    unshuffled: Needs | None
    memory: Memory
    looked_at: int
    known: int
    assumed: int
    probe: Probe | None = None

    def __str__(self) -> str:
        parts = [self._what(), _table(self.needs, self.unshuffled), self._memory(), self._basis()]
        if self.probe is not None:
            parts.append(self._probed())
        return "\n\n".join(fill(part, WIDTH) if "\n" not in part else part for part in parts if part)

    __repr__ = __str__

    def _what(self) -> str:
        height, width = self.size
        out = f" in {self.elements:,} batches" if self.batched else ""
        where = f", {self.far:,} of them in stores" if self.far else ""
        headers = f"; {self.headers:,} requests for headers come first" if self.headers else ""
        return (
            f"{self.chips:,} chips of {height} x {width} px{out}, from {self.files:,} files of {self.scenes:,} "
            f"scenes{where}{headers}"
        )

    def _memory(self) -> str:
        held = self.memory
        words = [f"{megabytes(held.tiles)} of decoded tiles"]
        if held.fetched:
            words.append(f"{megabytes(held.fetched)} fetched ahead")
        words.append(f"{megabytes(held.chips)} of chips in flight")
        if held.batch:
            words.append(f"batches of {megabytes(held.batch)}")
        return f"memory: {megabytes(held.total)} at most: {', '.join(words)}"

    def _basis(self) -> str:
        words = []
        if self.looked_at < self.chips:
            words.append(
                f"the first {self.looked_at:,} chips of each order were looked at, and the others taken to be like the "
                "second half of these"
            )
        if self.far:
            words.append("requests to stores are fewer where several wait: neighbours go together")
        if self.assumed:
            words.append(
                f"{self.known:,} headers were looked at, and {self.assumed:,} files taken to be stored like those"
            )
        return "; ".join(words)

    def _probed(self) -> str:
        probe = self.probe
        assert probe is not None
        what = "batch" if self.batched else "element"
        whole = probe.seconds * self.elements
        return (
            f"probe of {probe.elements}: {probe.seconds:.3g} s for each {what}, {duration(whole)} in all; "
            f"{probe.bound} bounds it, with {probe.share:.0%} of the reading threads' time. {probe.why}"
        )


def _table(needs: Needs, unshuffled: Needs | None) -> str:
    """Draw the numbers of one order, or of two side by side."""
    orders = [needs] if unshuffled is None else [needs, unshuffled]
    heads = [""] if unshuffled is None else ["as shuffled", "as cut"]
    rows = [
        ("requests", [f"{each.requests:,}" for each in orders]),
        ("bytes fetched", [megabytes(each.fetched) for each in orders]),
        *([("found on disk", [megabytes(each.kept) for each in orders])] if any(each.kept for each in orders) else []),
        ("tiles decoded", [f"{each.tiles:,}" for each in orders]),
        ("bytes decoded", [megabytes(each.decoded) for each in orders]),
        ("decoded again", [f"{each.again:.0%}" for each in orders]),
        ("found decoded", [f"{each.cached:.0%}" for each in orders]),
    ]
    lines = [("", heads), *rows] if unshuffled is not None else rows
    return "\n".join(_line(name, cells, _widths([cells for _, cells in lines])) for name, cells in lines)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _line(name: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join([f"{name:<14}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))]).rstrip()


def megabytes(size: float) -> str:
    """Write bytes as MB, GB or TB of 1,000 each."""
    number, unit = size / 1e6, "MB"
    for larger in ("GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:,.3g} {unit}" if number < 100 else f"{number:,.0f} {unit}"


def duration(seconds: float) -> str:
    """Write seconds as such, as minutes or as hours."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
