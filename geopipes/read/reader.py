"""Windows of a stack: which files they need, and in which order these are drawn.

No pixel depends on the window it is read with. Rasters that lie on the grid are copied from their tiles; others
go through `geopipes.read.warps`, which is anchored to the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from geopipes.errors import GeopipesError, ReadError, SourceError
from geopipes.meters import COPYING, RESAMPLING, timed
from geopipes.read import ahead
from geopipes.read.copies import assign
from geopipes.read.draws import Draw, current, passed_over
from geopipes.read.failures import asking, outdated
from geopipes.read.files import assuming, opened
from geopipes.read.layers import Layer
from geopipes.read.planes import Box, blocks, counted_from, cut_to
from geopipes.read.sheets import Names, Opened, Sheet, planned, sheets
from geopipes.read.sources import RESAMPLINGS, Stack
from geopipes.read.stores import check_fork, located
from geopipes.read.tiles import shared
from geopipes.read.withheld import Withheld

Array = np.ndarray[Any, Any]
DType = np.dtype[Any]
Layers = dict[DType, Layer]


@dataclass(frozen=True)
class Block:
    """A window that was read.

    Attributes
    ----------
    pixels : by dtype of the variables, (time, channel, y, x); `Reader.channels` says which are a variable's. Where
        not valid: NaN for floats, else the variable's nodata, else 0
    ok : which of them are valid, likewise; holds anything if the block is complete, and for channels not wanted
    valid : (time, y, x), where all channels that were wanted are
    complete : whether that is everywhere
    """

    pixels: dict[DType, Array]
    ok: dict[DType, Array]
    valid: Array
    complete: bool = False

    def shown(self, dtype: DType) -> Array:
        """Say which pixels of a dtype are valid, of the channels that were wanted: (time, channel, y, x)."""
        return np.ones(self.ok[dtype].shape, bool) if self.complete else self.ok[dtype]


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
        assign(valid.reshape(-1), value=True)
        drawn: list[Layers] = [{t: Layer(pixels[t][i], ok[t][i]) for t in pixels} for i in range(len(steps))]
        for part in blocks(rows, cols):
            for step, layers in zip(steps, drawn, strict=True):
                self._read_step(step, part, (rows.start, cols.start), names, layers)
        complete, wanted = True, self._ranges(names)
        for layers, shown in zip(drawn, valid, strict=True):
            for dtype, channels in wanted:
                complete &= layers[dtype].finished(channels, self._nothing[dtype][channels], shown)
        if not complete:  # then ``ok`` tells of all that was wanted
            for layers in drawn:
                for dtype, channels in wanted:
                    layers[dtype].told(channels)
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

    def _read_step(self, step: int, part: Box, corner: tuple[int, int], names: Names, layers: Layers) -> None:
        """Draw a part of the window at a corner, at one time step, item by item: the first valid pixel stays."""
        inner = cut_to(self._shape, part)
        if inner is None:
            return
        rows, cols = part
        inside = counted_from(inner, corner)
        seen, withheld = False, Withheld()
        for sheet in self._at(step):
            if not sheet.place.touches(*inner):
                continue
            if seen and self._full(sheet, names, layers, inside):
                if (known := self._opens.get((sheet, names))) is not None:
                    passed_over(_keys(known.draws, inner))
                continue
            seen = True
            try:
                self._draw_all(sheet, names, inner, layers, (inside[0].start, inside[1].start))
            except (ReadError, SourceError) as error:
                source = sheet.members[0][0]
                asking.get().unread(error, source, (rows.start, rows.stop, cols.start, cols.stop))
                for source, variable in sheet.wanted(names):
                    channels = self.channels[variable.name]
                    ok = layers[variable.dtype].told(channels)[(channels, *inside)]
                    withheld.cover(ok, source.geobox, self.stack.geobox, inner, variable.resampling)
        withheld.lift()

    def _draw_all(self, sheet: Sheet, names: Names, inner: Box, layers: Layers, place: tuple[int, int]) -> None:
        """Draw what a sheet holds; a file whose kept header turns out to be another one's is opened anew."""
        renewed: set[str | None] = set()
        while True:
            try:
                for dtype, draw in self._opened(sheet, names):
                    with timed(RESAMPLING if draw.offset is None else COPYING):
                        draw.onto(inner, layers[dtype], place)
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

    def _full(self, sheet: Sheet, names: Names, layers: Layers, inside: Box) -> bool:
        """Say whether nothing is left to be drawn from a sheet."""
        return all(
            layers[variable.dtype].full(self.channels[variable.name], inside) for _, variable in sheet.wanted(names)
        )

    def _at(self, step: int) -> tuple[Sheet, ...]:
        """Give the sheets of a time step, in order of precedence."""
        if step not in self._sheets:
            self._sheets[step] = sheets(self.stack, step)
        return self._sheets[step]

    def _opened(self, sheet: Sheet, names: Names) -> tuple[tuple[DType, Draw], ...]:
        """Open a sheet's files, anew where they were rewritten, and say what is to be drawn."""
        known, run = self._opens.get((sheet, names)), current.get()
        if known is not None and self._looked_after(sheet, names):
            return known.draws
        members = sheet.wanted(names)
        files = tuple(opened(source) for source, _ in members)
        draws = (
            known.draws
            if known and known.files == files
            else tuple(planned(members, files, sheet.place, self.channels, self.stack.geobox))
        )
        self._opens[sheet, names] = Opened(files, draws, run)
        return draws


def _keys(draws: Sequence[tuple[DType, Draw]], window: Box) -> list[Any]:
    return [key for _, draw in draws for key in draw.keys(window)]
