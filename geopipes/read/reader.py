"""Windows of a stack: which files they need, and in which order these are drawn.

No pixel depends on the window it is read with. Rasters that lie on the grid are copied from their tiles; others
go through `geopipes.read.warps`, which is anchored to the grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from geopipes.errors import GeopipesError, ReadError, SourceError
from geopipes.meters import COPYING, RESAMPLING, timed
from geopipes.read import ahead
from geopipes.read.copies import assign, everywhere, settle
from geopipes.read.draws import Draw, current, passed_over
from geopipes.read.failures import asking, outdated
from geopipes.read.files import File, assuming, opened
from geopipes.read.placing import Placement, placement
from geopipes.read.planes import Box, Planes, band_dtype, blocks, counted_from, cut_to, planes
from geopipes.read.sources import RESAMPLINGS, Source, Stack, Variable, grid_key
from geopipes.read.stores import check_fork, located
from geopipes.read.tiles import Uses, shared
from geopipes.read.withheld import Withheld

Array = np.ndarray[Any, Any]
DType = np.dtype[Any]
Names = tuple[str, ...] | None

FULL_RESOLUTION = ("nearest", "mode")
"""Methods that give values as the file holds them: an overview of classes may hold means of classes."""


@dataclass(frozen=True)
class Block:
    """A window that was read.

    Attributes
    ----------
    pixels : by dtype of the variables, (time, channel, y, x); `Reader.channels` says which are a variable's. Where
        not valid: NaN for floats, else the variable's nodata, else 0
    ok : which of them are valid, likewise
    valid : (time, y, x), where all channels that were wanted are
    complete : whether that is everywhere
    """

    pixels: dict[DType, Array]
    ok: dict[DType, Array]
    valid: Array
    complete: bool = False


@dataclass(frozen=True, eq=False)
class Sheet:
    """Bands of one item at one time step, on one grid.

    Attributes
    ----------
    members : (source, variable) for each, in the stack's order
    place : where the rasters lie on the stack's grid
    """

    members: tuple[tuple[Source, Variable], ...]
    place: Placement

    def wanted(self, names: Names) -> list[tuple[Source, Variable]]:
        """Give the members of these variables."""
        return [(source, variable) for source, variable in self.members if names is None or variable.name in names]


class Opened(NamedTuple):
    """The files of a sheet, what is drawn from them, and the run in which they were last looked after."""

    files: tuple[File, ...]
    draws: tuple[tuple[DType, Draw], ...]
    run: Uses | None


class Reader:
    """Reads windows of a stack; any number of threads may share it.

    Attributes
    ----------
    channels : the place of each variable along the channels of its dtype
    bands : how many channels each dtype has
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.channels: dict[str, slice] = {}
        self._nothing: dict[DType, list[float]] = {}
        for variable in stack.variables:
            if variable.resampling not in RESAMPLINGS:
                raise SourceError(f"resampling={variable.resampling!r}: write one of {', '.join(RESAMPLINGS)}")
            nothing = self._nothing.setdefault(variable.dtype, [])
            count = len(variable.labels or ("",))
            self.channels[variable.name] = slice(len(nothing), len(nothing) + count)
            nothing += [np.nan if variable.dtype.kind == "f" else variable.nodata or 0] * count
        self.bands = {dtype: len(nothing) for dtype, nothing in self._nothing.items()}
        height, width = stack.geobox.shape
        self._shape = (height, width)
        self._sheets: dict[int, tuple[Sheet, ...]] = {}
        self._opens: dict[tuple[Sheet, Names], Opened] = {}
        steps = [step for variable in stack.variables for step in variable.sources]
        self._far = any(located(source.href) is not None for step in steps for source in step)

    def read(
        self,
        rows: slice,
        cols: slice,
        steps: Sequence[int],
        *,
        names: Names = None,
        into: Block | None = None,
    ) -> Block:
        """Read a window.

        Parameters
        ----------
        rows, cols : pixel ranges of the grid, which may reach outside; there nothing is valid
        steps : the time steps
        names : the variables wanted, None for all; the channels of others hold anything
        into : a block to write to, holding anything. Its pixels are C-contiguous, and may be of a dtype into which
            that of the variables casts safely

        Raises
        ------
        NotGeoreferenced, SourceError
            a file is not what its item states, or lacks a band
        ReadError
            the pixels could not be read: names item, asset, href, window and cause
        ForkError
            files lie in stores, and this process is a fork of one that used the network
        """
        self._check_fork()
        if self._far and ahead.current.get() is None:
            with ahead.fetching() as fetched:
                with suppress(GeopipesError):  # whoever needs what cannot be had meets it below
                    fetched.hurry(ahead.stored(self.keys(rows, cols, steps, names=names), shared()))
                return self.read(rows, cols, steps, names=names, into=into)
        block = into or self._empty((len(steps), rows.stop - rows.start, cols.stop - cols.start))
        pixels, ok, valid = block.pixels, block.ok, block.valid
        for array in ok.values():
            assign(array.reshape(-1), value=False)
        assign(valid.reshape(-1), value=True)
        for block_rows, block_cols in blocks(rows, cols):
            inside = (slice(None), *counted_from((block_rows, block_cols), (rows.start, cols.start)))
            for i, step in enumerate(steps):
                here = {dtype: (pixels[dtype][i][inside], ok[dtype][i][inside]) for dtype in pixels}
                self._read_step(step, (block_rows, block_cols), names, here)
        complete = True
        for dtype, channels in self._ranges(names):
            for i in range(len(steps)):
                done = ok[dtype][i, channels]
                if not everywhere(done.reshape(-1)):
                    complete = False
                    nothing = np.array(self._nothing[dtype][channels], pixels[dtype].dtype)
                    settle(pixels[dtype][i, channels], done, nothing, valid[i])
        return Block(pixels, ok, valid, complete)

    def _empty(self, shape: tuple[int, int, int]) -> Block:
        """Make a block (time, y, x) of all variables."""
        shapes = {dtype: (shape[0], bands, *shape[1:]) for dtype, bands in self.bands.items()}
        pixels = {dtype: np.empty(whole, dtype) for dtype, whole in shapes.items()}
        return Block(pixels, {dtype: np.empty(whole, bool) for dtype, whole in shapes.items()}, np.empty(shape, bool))

    def keys(self, rows: slice, cols: slice, steps: Sequence[int], *, names: Names = None) -> list[Any]:
        """Name the tiles that a window of variables is made of, as far as is known without reading.

        Raises
        ------
        Pending
            files in stores are being opened, and this thread is not ``patient``
        ForkError
            as `read`
        """
        if assuming.get() is None:
            self._check_fork()
        inner = [inside for window in blocks(rows, cols) if (inside := cut_to(self._shape, window))]
        touched = [
            (sheet, window)
            for window in inner
            for step in steps
            for sheet in self._at(step)
            if sheet.place.touches(*window)
        ]
        if self._far and assuming.get() is None:
            self._open_together([sheet for sheet, _ in touched], names)
        return [key for sheet, window in touched for key in _keys(self._opened(sheet, names), window)]

    def _check_fork(self) -> None:
        """Refuse a fork before anything is opened: of headers that it has, GDAL and PROJ may crash or hang there."""
        if self._far:
            check_fork()

    def _open_together(self, sheets: Sequence[Sheet], names: Names) -> None:
        """Open files in stores side by side: each waits for the network."""
        missing = {
            id(source): source
            for sheet in sheets
            if not self._looked_after(sheet, names)
            for source, _ in sheet.wanted(names)
            if located(source.href) is not None
        }
        if missing:
            ahead.together([(name, partial(opened, source)) for name, source in missing.items()])

    def _looked_after(self, sheet: Sheet, names: Names) -> bool:
        """Say whether a sheet's files are open, and this run has made sure of it."""
        known, run = self._opens.get((sheet, names)), current.get()
        return known is not None and known.run is run is not None and not any(file.broken for file in known.files)

    def _read_step(self, step: int, window: Box, names: Names, here: dict[DType, tuple[Array, Array]]) -> None:
        """Draw what there is at one time step, item by item: the first valid pixel stays."""
        inner = cut_to(self._shape, window)
        if inner is None:
            return
        rows, cols = window
        place = (inner[0].start - rows.start, inner[1].start - cols.start)
        seen, withheld = False, Withheld()
        for sheet in self._at(step):
            if not sheet.place.touches(*inner):
                continue
            if seen and self._full(sheet, names, here, _inside(inner, window)):
                if (known := self._opens.get((sheet, names))) is not None:
                    passed_over(_keys(known.draws, inner))
                continue
            seen = True
            try:
                self._draw_all(sheet, names, inner, here, place)
            except (ReadError, SourceError) as error:
                source = sheet.members[0][0]
                asking.get().unread(error, source, (rows.start, rows.stop, cols.start, cols.stop))
                for source, variable in sheet.wanted(names):
                    ok = here[variable.dtype][1][(self.channels[variable.name], *_inside(inner, window))]
                    withheld.cover(ok, source.geobox, self.stack.geobox, inner, variable.resampling)
        withheld.lift()

    def _draw_all(
        self, sheet: Sheet, names: Names, inner: Box, here: dict[DType, tuple[Array, Array]], place: tuple[int, int]
    ) -> None:
        """Draw what a sheet holds; a file whose kept header turns out to be another one's is opened anew."""
        renewed: set[str | None] = set()
        while True:
            try:
                for dtype, draw in self._opened(sheet, names):
                    with timed(RESAMPLING if draw.offset is None else COPYING):
                        draw.onto(inner, *here[dtype], place)
                return
            except ReadError as error:
                href = None if error.failure is None else error.failure.href
                if not outdated(error) or href in renewed:
                    raise
                renewed.add(href)

    def _ranges(self, names: Names) -> list[tuple[DType, slice]]:
        """Give the channels of some variables, or of all."""
        if names is None:
            return [(dtype, slice(None)) for dtype in self._nothing]
        return [(v.dtype, self.channels[v.name]) for v in self.stack.variables if v.name in names]

    def _full(self, sheet: Sheet, names: Names, here: dict[DType, tuple[Array, Array]], inside: Box) -> bool:
        """Say whether nothing is left to be drawn from a sheet."""
        return all(
            here[variable.dtype][1][(self.channels[variable.name], *inside)].all()
            for _, variable in sheet.wanted(names)
        )

    def _at(self, step: int) -> tuple[Sheet, ...]:
        """Give the sheets of a time step, in order of precedence."""
        if step not in self._sheets:
            found: dict[tuple[Any, ...], list[tuple[Source, Variable]]] = {}
            for rank in range(max(len(variable.sources[step]) for variable in self.stack.variables)):
                for variable in self.stack.variables:
                    for source in variable.sources[step][rank : rank + 1]:
                        key = (rank, source.item, grid_key(source.geobox))
                        found.setdefault(key, []).append((source, variable))
            self._sheets[step] = tuple(
                Sheet(tuple(members), placement(members[0][0].geobox, self.stack.geobox)) for members in found.values()
            )
        return self._sheets[step]

    def _opened(self, sheet: Sheet, names: Names) -> tuple[tuple[DType, Draw], ...]:
        """Open a sheet's files, anew where they were rewritten, and say what is to be drawn."""
        known, run = self._opens.get((sheet, names)), current.get()
        if known is not None and self._looked_after(sheet, names):
            return known.draws
        members = sheet.wanted(names)
        files = tuple(opened(source) for source, _ in members)
        draws = known.draws if known and known.files == files else tuple(self._planned(members, files, sheet.place))
        self._opens[sheet, names] = Opened(files, draws, run)
        return draws

    def _planned(
        self, members: Sequence[tuple[Source, Variable]], files: Sequence[File], place: Placement
    ) -> Iterator[tuple[DType, Draw]]:
        """Put bands of one tile lattice together as planes; then one draw for each method and dtype."""
        bands: dict[File, set[int]] = {}
        for (source, _), file in zip(members, files, strict=True):
            bands.setdefault(file, set()).update(source.bands)
        lattices: dict[Any, list[File]] = {}
        for file, wanted in bands.items():
            alone = id(file) if file.layout.masked else None
            key = (file.layout.levels, grid_key(file.layout.geobox), band_dtype(file, tuple(wanted)), alone)
            lattices.setdefault(key, []).append(file)
        for together in lattices.values():
            side_by_side = planes(together, [tuple(sorted(bands[file])) for file in together])
            groups: dict[tuple[str, DType, bool], list[tuple[Source, Variable, File]]] = {}
            for (source, variable), file in zip(members, files, strict=True):
                if file in together:
                    kind = (variable.resampling, variable.dtype, source.scale is not None)
                    groups.setdefault(kind, []).append((source, variable, file))
            for (resampling, dtype, _), group in groups.items():
                yield dtype, self._draw(side_by_side, resampling, group, place)

    def _draw(
        self, all_of: Planes, resampling: str, group: Sequence[tuple[Source, Variable, File]], where: Placement
    ) -> Draw:
        """Say which planes go where."""
        picks = []
        for source, variable, file in group:
            part = all_of.files.index(file)
            for i, band in enumerate(source.bands):
                plane = all_of.parts[part].start + all_of.bands[part].index(band)
                stated = file.layout.nodata[band - 1] if source.nodata is None else source.nodata
                picks.append((self.channels[variable.name].start + i, plane, part, stated, source.scale))
        channels, picked, parts, nodata, scales = zip(*sorted(picks, key=lambda pick: pick[0]), strict=True)
        level = 0 if where.offset is not None or resampling in FULL_RESOLUTION else all_of.level(where.scale)
        (height, width), (full_height, full_width) = all_of.levels[level].shape, all_of.levels[0].shape
        return Draw(
            planes=all_of,
            parts=tuple(sorted(set(parts))),
            picked=np.array(picked),
            channels=np.array(channels),
            nodata=nodata,
            scales=None if group[0][0].scale is None else np.array(scales),
            dtype=group[0][1].dtype,
            resampling=resampling,
            level=level,
            grid=self.stack.geobox,
            offset=where.offset,
            scale=(where.scale[0] * full_height / height, where.scale[1] * full_width / width),
        )


def _inside(inner: Box, window: Box) -> Box:
    return counted_from(inner, (window[0].start, window[1].start))


def _keys(draws: Sequence[tuple[DType, Draw]], window: Box) -> list[Any]:
    return [key for _, draw in draws for key in draw.keys(window)]
