"""Sheets: the bands of one item on one grid, and what is drawn from their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from odc.geo.geobox import GeoBox

from geopipes.read.draws import Draw
from geopipes.read.files import File
from geopipes.read.placing import Placement, placement
from geopipes.read.planes import Planes, band_dtype, planes
from geopipes.read.sources import Source, Stack, Variable, grid_key
from geopipes.read.tiles import Uses

DType = np.dtype[Any]
Names = tuple[str, ...] | None
Channels = Mapping[str, slice]

FULL_RESOLUTION = ("nearest", "mode")
"""Methods that give values as the file holds them: an overview of classes may hold means of classes."""


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


def sheets(stack: Stack, step: int) -> tuple[Sheet, ...]:
    """Give the sheets of a time step, in order of precedence."""
    found: dict[tuple[Any, ...], list[tuple[Source, Variable]]] = {}
    for rank in range(max(len(variable.sources[step]) for variable in stack.variables)):
        for variable in stack.variables:
            for source in variable.sources[step][rank : rank + 1]:
                key = (rank, source.item, grid_key(source.geobox))
                found.setdefault(key, []).append((source, variable))
    return tuple(Sheet(tuple(members), placement(members[0][0].geobox, stack.geobox)) for members in found.values())


def planned(
    members: Sequence[tuple[Source, Variable]], files: Sequence[File], place: Placement, onto: Channels, grid: GeoBox
) -> Iterator[tuple[DType, Draw]]:
    """Put bands of one tile lattice together as planes; then one draw for each method and dtype.

    Parameters
    ----------
    members, place : of a sheet
    files : of each member
    onto : the channels of each variable
    grid : the stack's
    """
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
            yield dtype, _draw(side_by_side, resampling, group, place, onto, grid)


def _draw(
    all_of: Planes, resampling: str, group: Sequence[tuple[Source, Variable, File]], where: Placement,
    onto: Channels, grid: GeoBox,
) -> Draw:  # fmt: skip
    """Say which planes go where."""
    picks = []
    for source, variable, file in group:
        part = all_of.files.index(file)
        for i, band in enumerate(source.bands):
            plane = all_of.parts[part].start + all_of.bands[part].index(band)
            stated = file.layout.nodata[band - 1] if source.nodata is None else source.nodata
            picks.append((onto[variable.name].start + i, plane, part, stated, source.scale))
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
        grid=grid,
        offset=where.offset,
        scale=(where.scale[0] * full_height / height, where.scale[1] * full_width / width),
    )
