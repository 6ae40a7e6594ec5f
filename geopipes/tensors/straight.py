"""Chips read straight into tensors, and these into the rows of their batch: no Dataset where no step asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from geopipes.chips import Windows
from geopipes.chips.loading import known
from geopipes.datacubes.cube import Cube, Window
from geopipes.edits import Array, Edit
from geopipes.meters import COMPUTING, timed
from geopipes.read.reader import Block
from geopipes.read.scratch import scratch
from geopipes.steps import Step
from geopipes.tensors.cuts import authority, nanoseconds, place
from geopipes.tensors.dates import of_dates
from geopipes.tensors.programs import Program
from geopipes.tensors.rows import Place, Rows, fresh
from geopipes.tensors.samples import tensor
from geopipes.tensors.stacking import filled
from geopipes.tensors.targets import Target, canonical, targets

BOOL = np.dtype(bool)

EVERYWHERE = np.ones((1, 1, 1, 1), bool)
"""``valid`` of a chip that is valid everywhere: looked at by each edit, which takes long for all its pixels."""

Sampler = Callable[[Windows, int], dict[str, Any]]


def sampler(windows: Windows, steps: Sequence[Step], rows: Rows) -> Sampler | None:
    """Give what reads the chip at a position to the very sample that steps make of its Dataset.

    Parameters
    ----------
    windows : the plan
    steps : after ``read``, up to and with ``tensor``
    rows : of the batches that follow

    Returns
    -------
    None where Datasets are needed: for steps that do not tell their edits, several inputs and arrays from elsewhere;
    and for whatever a step refuses, so that it says why
    """
    if type(windows) is not Windows:  # groups name cubes of their own
        return None
    makers: dict[Cube, Maker] = {}
    for cube in windows.cubes:
        try:
            program = Program.of(cube, [*windows.steps, *steps[:-1]], windows.dates, windows.columns)
            if program is None:
                return None
            tensor(program.small, **steps[-1].kwargs)
        except Exception:  # raised again, of a chip, by the step that raised it
            return None
        makers[cube] = Maker(program, rows, **steps[-1].kwargs)

    def sample(windows: Windows, position: int) -> dict[str, Any]:
        cube, window = windows.window(position)
        return makers[cube].sample(windows, position, window)

    return sample


class Maker:
    """Makes the tensors of the chips of one cube.

    Parameters
    ----------
    program : how their arrays are made
    rows : of the batches
    columns, doy, options : that ``tensor`` takes
    """

    def __init__(
        self, program: Program, rows: Rows, *, columns: str | Sequence[str], doy: bool = False, **options: Any
    ) -> None:
        self._doy, self._length = doy, options.get("length")
        wanted = targets(program, **options)
        self._program, self._targets, self._rows = program, wanted, rows
        self._columns = [columns] if isinstance(columns, str) else list(columns)
        stack = program.stacks[0].stack
        times = None if stack.times is None else np.array(stack.times, "datetime64[ns]")
        self._times = None if times is None else nanoseconds(times).numpy()
        self._crs = authority(program.stacks[0].dataset["spatial_ref"].attrs["crs_wkt"])
        self._affine = program.stacks[0].geobox.affine[:6]
        wholes = {target.whole: i for i, target in enumerate(wanted)}
        self._stacks = [
            (part, [(t, n, f"{t} {i}", wholes.get((i, t))) for t, n in part.reader.bands.items()])
            for i, part in enumerate(program.stacks)
        ]
        names = {name for target in wanted for name in target.variables} | {"valid"}
        self._edits = [*self._placed(program.needed(names))]
        self._changes = bool(self._edits) or any(target.copied for target in wanted)
        names = {name for name in names if self._edits or any(name in dict(target.copied) for target in wanted)}
        told = [i for i, target in enumerate(wanted) if target.spoken]
        # The last one is filled last: where nothing changes ``valid``, that is read into its row.
        self._direct = told[-1] if told and all(edit.name != "valid" for edit, *_ in self._edits) else None
        self._views = [
            [(v.name, v.dtype, part.reader.channels[v.name]) for v in part.stack.variables if v.name in names]
            for part in program.stacks
        ]

    def _placed(self, edits: Sequence[Edit]) -> Iterator[tuple[Edit, list[Any], tuple[int, slice] | None]]:
        """Give edits, what they read, and where the last one of a variable writes to."""
        last = {edit.name: edit for edit in edits}
        homes = {name: (i, bands) for i, each in enumerate(self._targets) for name, bands in each.homes}
        for edit in edits:
            reads = [one if isinstance(one, str) else canonical(one) for one in edit.reads]
            yield edit, reads, homes.get(edit.name) if last[edit.name] is edit else None

    def sample(self, windows: Windows, position: int, window: Window) -> dict[str, Any]:
        """Read a chip, and name its tensors."""
        size = (window.rows.stop - window.rows.start, window.cols.stop - window.cols.start)
        times = None if self._times is None else self._times[window.time or slice(None)]
        dates = 1 if times is None else len(times)
        rows = [self._row(position, target, dates, size) for target in self._targets]
        valids = [self._valid_row(position, target, dates, size) for target in self._targets]
        arrays, complete = self._read(window, (dates, *size), rows, valids)
        if self._changes:
            with timed(COMPUTING), np.errstate(all="ignore"):  # what a float does not hold is infinite in it
                self._change(arrays, rows)
        said = None if times is None else self._said(position, times, arrays["valid"][:, 0])
        sample: dict[str, Any] = {}
        # Only now: what is filled, or counted as not measured, is copied no more.
        for i, (target, (row, pixels), told) in enumerate(zip(self._targets, rows, valids, strict=True)):
            if told is not None:
                if i != self._direct:
                    told[1][:dates] = arrays["valid"][:, 0]
                filled(pixels, target.spoken, told[1], target.number, complete=complete)
            sample |= target.named(row, None if told is None else told[0])
        if said is not None:
            sample |= said
        if self._columns:
            there = known(windows, position)
            sample |= {name: there[name] for name in self._columns}
        return sample | self._place(windows, position, window)

    def _said(self, position: int, times: Array, valid: Array) -> dict[str, torch.Tensor]:
        """Say what is known of the dates of a chip."""
        if self._length is not None:  # which asks for it
            valid = np.broadcast_to(valid, (len(times), *valid.shape[1:]))
        time, stamps = self._rows.row(position, "time", times.shape, times.dtype)
        stamps[:] = times
        return of_dates(time, valid, length=self._length, doy=self._doy)

    def _change(self, arrays: dict[str, Array], rows: Sequence[Place]) -> None:
        """Do all edits, the last one of a variable in the row of a tensor; copy what is not there yet."""
        for edit, reads, home in self._edits:
            given = (arrays[one] if isinstance(one, str) else one for one in reads)
            arrays[edit.name] = edit.function(*given, out=None if home is None else rows[home[0]][1][:, home[1]])
        for target, (_, pixels) in zip(self._targets, rows, strict=True):
            for name, bands in target.copied:
                np.copyto(pixels[:, bands], arrays[name], casting="unsafe")

    def _row(self, position: int, target: Target, dates: int, size: tuple[int, int]) -> Place:
        """Give the row of the batch that a tensor is written to."""
        shape = (self._dates(target, dates), target.bands, *size)
        if target.kept:
            row, pixels = self._rows.row(position, target.name, shape, target.stored)
        else:
            row, pixels = fresh(shape, target.stored)
        return row, self._padded(pixels, target, dates, target.pad)

    def _valid_row(self, position: int, target: Target, dates: int, size: tuple[int, int]) -> Place | None:
        """Give the row for where a tensor is measured; None where all of it was joined."""
        if not target.spoken:
            return None
        row, told = self._rows.row(position, f"{target.name}_valid", (self._dates(target, dates), *size), BOOL)
        return row, self._padded(told, target, dates, False)

    def _dates(self, target: Target, dates: int) -> int:
        """Give the length of a tensor of chips of some dates."""
        return (self._length or dates) if target.timed else 1

    def _padded(self, pixels: Array, target: Target, dates: int, pad: Any) -> Array:
        """Pad dates that a chip does not have, and give those that it has."""
        if self._dates(target, dates) == dates or not target.timed:
            return pixels
        pixels[dates:] = pad
        return pixels[:dates]

    def _read(
        self, window: Window, shape: tuple[int, int, int], rows: Sequence[Place], valids: Sequence[Place | None]
    ) -> tuple[dict[str, Array], bool | None]:
        """Read all stacks, to the rows where they are a tensor.

        Returns
        -------
        (time, band, y, x) of the variables needed, and whether all is valid; None where edits may change that
        """
        arrays: dict[str, Array] = {}
        complete = None
        for i, (part, groups) in enumerate(self._stacks):
            here = (1 if part.stack.times is None else shape[0], *shape[1:])
            told = None if self._direct is None or i > 0 else valids[self._direct]
            block = Block({}, {}, scratch(f"valid {i}", here, BOOL) if told is None else told[1])
            for dtype, bands, role, whole in groups:
                full = (here[0], bands, *here[1:])
                block.ok[dtype] = scratch(f"{role} ok", full, BOOL)
                block.pixels[dtype] = scratch(role, full, dtype) if whole is None else rows[whole][1]
            block = part.pixels(window if i == 0 else Window(window.rows, window.cols), into=block)
            if i > 0:
                self._program.joins[i - 1].check_covered(block.complete, window)
            elif self._direct is not None:
                complete = block.complete
            for name, dtype, channels in self._views[i]:
                arrays[name] = block.pixels[dtype][:, channels]
            arrays.setdefault("valid", EVERYWHERE if block.complete else block.valid[:, None])
        return arrays, complete

    def _place(self, windows: Windows, position: int, window: Window) -> dict[str, Any]:
        """Give the place of a chip, as ``tensor`` does."""
        margin, (dx, _, x0, _, dy, y0) = windows.margin, self._affine
        left, top = window.cols.start - margin, window.rows.start - margin
        shape = (window.rows.stop + margin - top, window.cols.stop + margin - left)
        transform = (dx, 0.0, dx * left + x0, 0.0, dy, dy * top + y0)
        return place(windows.id(position), self._crs, transform, shape, margin)
