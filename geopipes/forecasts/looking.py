"""What an order of chips needs: their tiles go through the cache and the queue of requests, without a byte."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from geopipes.chips.loading import AHEAD, Reading
from geopipes.chips.outlooks import OUTLOOK_USES
from geopipes.forecasts.assumed import Files
from geopipes.read import kept
from geopipes.read.ahead.pieces import Job, Piece, Queue, State
from geopipes.read.draws import current
from geopipes.read.files import File, assuming
from geopipes.read.planes import MASK, Planes
from geopipes.read.tiles import Tiles, Uses, Wanted


@dataclass
class Tally:
    """What was counted so far.

    Attributes
    ----------
    requests, fetched : ranges of files asked for, and their bytes
    kept : bytes that lay on disk instead
    tiles, hits : tiles asked for, and those of them that were there
    parts, decoded, again : parts of tiles decoded, their bytes, and how many of them were decoded before
    """

    requests: int = 0
    fetched: int = 0
    kept: int = 0
    tiles: int = 0
    hits: int = 0
    parts: int = 0
    decoded: int = 0
    again: int = 0


@dataclass(frozen=True)
class Seen:
    """What the chips of an order need.

    Attributes
    ----------
    half, whole : of the first half of those looked at, and of all of them
    chips : looked at
    held : bytes of decoded tiles in the cache at the end
    """

    half: Tally
    whole: Tally
    chips: int
    held: int


def look(reading: Reading, files: Files, positions: Sequence[int], *, margin: int) -> Seen:
    """See what chips need, read one after the other in this order.

    Parameters
    ----------
    reading : of the plan, with its cache
    files : stands for open files
    positions : of the chips
    margin : pixels around each that are read too
    """
    with kept.keeping(reading.disk, reading.disk_budget) as disk:
        return copy_context().run(_look, reading, files, positions, margin, disk)


def _look(reading: Reading, files: Files, positions: Sequence[int], margin: int, disk: kept.Store | None) -> Seen:
    """Do so, in a context of its own: there, no file is opened for good, and no real run hears of these chips."""
    assuming.set(files)
    tiles, half = Tiles(reading.cache), Tally()
    with tiles.expecting() as uses:
        current.set(uses)
        run = _Run(reading, files, tiles, uses, margin, iter(positions), disk)
        for number in range(len(positions)):
            if number == len(positions) // 2:
                half = replace(run.tally)
            run.read()
    return Seen(half, run.tally, len(positions), tiles.counts.held)


@dataclass(eq=False)
class _Run:
    """Chips that are read one after the other, each told of before: as `geopipes.chips.outlooks.Outlook` does."""

    reading: Reading
    stands: Files
    tiles: Tiles
    uses: Uses
    margin: int
    following: Iterator[int]
    disk: kept.Store | None
    tally: Tally = field(default_factory=Tally)
    _told: deque[list[Any]] = field(default_factory=deque)
    _ahead: int = 0
    _before: set[tuple[Any, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._requests = _Requests(self.reading.cache // AHEAD, self.tally, self.stands, self.disk)

    def read(self) -> None:
        """Read the next chip."""
        while self._ahead < OUTLOOK_USES or not self._told:
            if not self._tell_next():
                break
        keys = self._told.popleft()
        self._ahead -= len(keys)
        planes: dict[Planes, list[Any]] = {}
        for key in keys:
            planes.setdefault(key[0], []).append(key)
        for each, mine in planes.items():
            with self.tiles.hold([self._wanted(each, key) for key in mine], self.uses):
                pass

    def _tell_next(self) -> bool:
        position = next(self.following, None)
        if position is None:
            return False
        cube, window = self.reading.windows.window(position)
        keys = cube.keys(window.grown(self.margin))
        self.uses.add(keys)
        self._told.append(keys)
        self._ahead += len(keys)
        wanted = [
            (file, offset, count)
            for planes, level, row, col, *mask in keys
            if not mask and planes.afar
            for file, offset, count in self.stands.stored(planes, level, row, col)
            if not self.tiles.there((planes, level, row, col), planes.files.index(file))
        ]
        self._requests.expect(wanted)
        return True

    def _wanted(self, planes: Planes, key: Any) -> Wanted:
        _, level, row, col, *mask = key
        parts = tuple(range(len(planes.files)))
        self.tally.tiles += 1
        count, dtype = (1, MASK) if mask else (planes.count, planes.dtype)
        decode = partial(self._decode, planes, level, row, col, bool(mask))
        before = self.tiles.there(key, parts[-1])
        self.tally.hits += before
        return Wanted(key, (count, *planes.levels[level].tile), dtype, parts, decode)

    def _decode(self, planes: Planes, level: int, row: int, col: int, mask: bool, part: int, pixels: Any) -> None:
        tally, file = self.tally, planes.files[part]
        tally.parts += 1
        height, width = planes.levels[level].tile
        own = planes.parts[part]
        tally.decoded += height * width * (1 if mask else (own.stop - own.start) * planes.dtype.itemsize)
        name = ((id(planes), level, row, col, mask), part)
        tally.again += name in self._before
        self._before.add(name)
        if mask:
            return
        wanted = [each for each in self.stands.stored(planes, level, row, col) if each[0] is file]
        if file.afar:
            self._requests.take(wanted)
            return
        tally.requests += len(wanted)
        tally.fetched += sum(count for _, _, count in wanted)


class _Requests:
    """The queue of requests to stores, each answered at once, and the disk on which what came is kept."""

    def __init__(self, budget: int, tally: Tally, stands: Files, disk: kept.Store | None) -> None:
        self._tally, self._stands, self._disk, self._held = tally, stands, disk, 0
        self._queue = Queue(budget)
        self._pieces: dict[tuple[int, int], Piece] = {}
        self._come: set[tuple[int, int]] = set()  # what the disk holds of what was fetched
        self._room = 0 if disk is None else disk.budget

    def expect(self, wanted: Sequence[tuple[File, int, int]]) -> None:
        """Ask for what is expected, neighbours together."""
        for each in wanted:
            piece = self._piece(*each)
            if piece.state is State.IDLE:
                self._queue.add(piece, now=False)
        self._send()

    def take(self, wanted: Sequence[tuple[File, int, int]]) -> None:
        """Take what was asked for; ask for what was not."""
        for each in wanted:
            piece = self._piece(*each)
            if piece.state is not State.HERE:
                self._queue.add(piece, now=True)
                self._send()
            self._held -= piece.stop - piece.start
            del self._pieces[id(piece.file), piece.start]
        self._send()

    def _piece(self, file: File, offset: int, count: int) -> Piece:
        name = (id(file), offset)
        if name not in self._pieces:
            self._pieces[name] = Piece(cast(Any, file), offset, offset + count)
        return self._pieces[name]

    def _send(self) -> None:
        while (job := self._queue.take(self._held)) is not None:
            self._sent(job)

    def _sent(self, job: Job) -> None:
        missing = []
        for piece in job.pieces:
            size = piece.stop - piece.start
            self._held += size
            piece.state = State.HERE
            if self._on_disk(piece):
                self._tally.kept += size
            else:
                missing.append(piece)
                self._keep(piece)
        if missing:
            self._tally.requests += 1
            self._tally.fetched += max(piece.stop for piece in missing) - missing[0].start

    def _on_disk(self, piece: Piece) -> bool:
        """Say whether a piece is kept, or would be by now."""
        if self._disk is None:
            return False
        file, start = piece.file, piece.start
        return (id(file), start) in self._come or (
            self._stands.opened(file) and kept.has_tile(self._disk, file.name, file.version, start, piece.stop - start)
        )

    def _keep(self, piece: Piece) -> None:
        """Keep a piece that was fetched, while there is room."""
        self._room -= piece.stop - piece.start
        if self._room >= 0:
            self._come.add((id(piece.file), piece.start))
