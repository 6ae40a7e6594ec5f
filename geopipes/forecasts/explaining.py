"""The forecast: what is known of plan, files and steps, put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from geopipes import chips
from geopipes.chips.loading import AHEAD, Reading
from geopipes.chips.windows import Windows
from geopipes.datacubes.cube import Cubes
from geopipes.datacubes.stackcube import StackCube
from geopipes.datacubes.together import InputsCube
from geopipes.errors import StepError
from geopipes.forecasts.assumed import Files
from geopipes.forecasts.looking import Seen, Tally, look
from geopipes.forecasts.probing import SECONDS
from geopipes.forecasts.probing import probe as probed
from geopipes.forecasts.values import Forecast, Memory, Needs
from geopipes.loaders import Batch, Each, Op, planned
from geopipes.loaders.runs import straight
from geopipes.read.sources import Source
from geopipes.read.stores import known, located
from geopipes.threads import IN_FLIGHT

WHOLE = 512
"""Pixels a side of the chips by which a cube is read that nobody has cut."""


def explain(
    source: Reading | Cubes, ops: Sequence[Op] = (), *, sample: int = 2_000, probe: bool | float = False
) -> Forecast:
    """Tell what a pipe needs, before it runs.

    Which tiles each chip needs is known from the grids. They go through a cache of the pipe's size, in the order of the
    pipe, and the ranges of files through the queue that puts neighbours together. Headers of files in stores are not
    asked for: one of each kind is looked at, and the others are taken to be stored alike. Scenes of one date that
    overlap are counted in full, though a pixel that is valid in the first is not read from the next. Requests to stores
    are counted as if each were answered at once: where several wait, neighbours go together, and a third of the
    requests or more is saved, as chance has it. What ``read(disk=...)`` holds of files whose headers are at hand, or
    will hold when it is needed again, is not fetched: ``needs.kept`` counts it.

    Parameters
    ----------
    source : chips to be read, or cubes, which are taken to be read once from end to end
    ops : what happens to the chips
    sample : chips that are looked at, of each order
    probe : whether to read for some seconds too, or for how many; what is read then stays in the caches

    Raises
    ------
    StepError
        for elements that come from elsewhere, and numbers that make no sense
    SourceError, ReadError
        a header that is looked at is not what its item states, or cannot be read
    """
    if sample < 1:
        raise StepError(f"explain(sample={sample}): give a number of chips, at least 1")
    if isinstance(source, Cubes):
        source = Reading(_whole(source), 1, 0)
    if not isinstance(source, Reading):
        raise StepError(
            f"explain() tells of chips that are read; this pipe's elements come from {type(source).__name__}"
        )
    windows, files = source.windows, Files()
    margin = _margin(source, ops)
    number = min(sample, len(windows))
    seen = look(source, files, range(number), margin=margin)
    as_cut = None
    if windows.order.again is not None:
        cut = replace(source, windows=windows.take(np.argsort(windows.ids, kind="stable")))
        as_cut = look(cut, files, range(number), margin=margin)
    every = {(each.href, each.item, each.asset): each for each in _sources(windows)}
    far = {name for name, each in every.items() if located(each.href) is not None}
    batch = next((op for op in ops if isinstance(op, Batch)), None)
    return Forecast(
        scenes=len({(each.collection, each.item) for each in every.values()}),
        files=len(every),
        far=len(far),
        headers=sum(not _at_hand(every[name]) for name in far),
        chips=len(windows),
        size=windows.size,
        elements=planned(len(windows), ops),
        batched=batch is not None,
        needs=_needs(seen, len(windows)),
        unshuffled=None if as_cut is None else _needs(as_cut, len(windows)),
        memory=_memory(source, seen, batch, far=bool(far)),
        looked_at=number,
        known=files.known,
        assumed=files.assumed,
        probe=probed(source, ops, SECONDS if probe is True else float(probe)) if probe else None,
    )


def _at_hand(source: Source) -> bool:
    location = located(source.href)
    return location is None or known(location)


def _whole(cubes: Cubes) -> Windows:
    """Cut cubes that nobody has cut, so that all of them is read once."""
    side = min(WHOLE, *(length for cube in cubes.cubes for length in cube.geobox.shape))
    return chips.chip(cubes, side, edge="pad", coverage="any")


def _margin(source: Reading, ops: Sequence[Op]) -> int:
    """Give the pixels around each chip that are read: none where chips are read straight into their batch."""
    if source.windows.margin == 0:
        return 0
    each = [op for op in ops if isinstance(op, Each)]
    found, _ = straight(source, each, lambda: _NoRows()) if each else (None, ())
    return source.windows.margin if found is None else 0


class _NoRows:
    """Rows of batches that nobody writes to."""

    def row(self, *_: Any) -> Any:
        """Give none."""
        raise StepError("explain() reads nothing")


def _needs(seen: Seen, chips: int) -> Needs:
    """Take the chips that were not looked at to be like the second half of those that were."""
    half, whole = seen.half, seen.whole
    later = seen.chips - seen.chips // 2

    def all_of(name: str) -> int:
        first, last = int(getattr(half, name)), int(getattr(whole, name))
        return last + round((last - first) / later * (chips - seen.chips))

    every = Tally(**{name: all_of(name) for name in vars(whole)})
    return Needs(
        requests=every.requests,
        fetched=every.fetched,
        kept=every.kept,
        tiles=every.parts,
        decoded=every.decoded,
        again=every.again / every.parts if every.parts else 0.0,
        cached=every.hits / every.tiles if every.tiles else 0.0,
    )


def _memory(source: Reading, seen: Seen, batch: Batch | None, *, far: bool) -> Memory:
    chip = _size(source.windows[0])
    in_flight = IN_FLIGHT * source.threads + (batch.n if batch else 0)
    needs = _needs(seen, len(source.windows))
    ahead = min(source.cache // AHEAD, needs.fetched + needs.kept) if far else 0
    held = source.cache if seen.chips < len(source.windows) else min(seen.held, source.cache)
    return Memory(tiles=held, fetched=ahead, chips=chip * in_flight, batch=chip * batch.n if batch else 0)


def _size(element: Any) -> int:
    """Give the bytes of a chip, lazy or not."""
    if isinstance(element, xr.Dataset):
        return sum(int(variable.nbytes) for variable in element.data_vars.values())
    return sum(_size(part) for part in element.values())


def _sources(windows: Windows) -> Iterator[Source]:
    """Give the rasters that cubes of a plan may read from, as far as they are known without a search."""
    for member in getattr(windows, "members", {"": windows}).values():
        for number in np.unique(member.cube):
            yield from _of_cube(member.cubes[int(number)])


def _of_cube(cube: Any) -> Iterator[Source]:
    if isinstance(cube, StackCube):
        yield from (source for variable in cube.stack.variables for step in variable.sources for source in step)
    elif isinstance(cube, InputsCube):
        yield from (source for part in cube.cubes.values() for source in _of_cube(part))
    else:
        for part in ("base", "other", "_found"):  # of cubes that stand for another one
            if (inner := vars(cube).get(part)) is not None:
                yield from _of_cube(inner)
