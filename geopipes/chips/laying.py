"""The same ground on other cubes: where the chips of a plan lie on a coarser grid."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import numpy.typing as npt

from geopipes.chips.footprints import spans, times
from geopipes.chips.groups import Groups, Sequences
from geopipes.chips.windows import Indices, Windows
from geopipes.datacubes.cube import Cube, Cubes
from geopipes.errors import ChipError


def laid_on(windows: Windows, on: Cubes) -> Windows:
    """Give the windows of other cubes that lie on the footprints of a plan's chips.

    Parameters
    ----------
    windows : (n,) a plan
    on : cubes in the CRSs of the plan, of any resolution

    Returns
    -------
    (n,) windows of ``on``, with the plan's ids, to the nearest pixel of the first cube of the chip's CRS that holds
    its centre; at its dates, or at all dates where the chip has all or the cubes have none

    Raises
    ------
    ChipError
        if no cube holds a chip, chips are smaller than a pixel, or dates are missing
    """
    if isinstance(windows, Groups):
        raise ChipError("measure(on=...): groups of chips lie on several places; measure before making groups")
    n = len(windows)
    cube, row, col = np.full(n, -1), np.zeros(n, np.int64), np.zeros(n, np.int64)
    numbers, sizes = windows.cube, set[tuple[int, int]]()
    for index, own in enumerate(windows.cubes):
        mine = np.flatnonzero(numbers == index)
        for number, other in enumerate(on.cubes):
            mine = mine[cube[mine] < 0]
            if len(mine) == 0 or own.crs != other.crs:
                continue
            a, b = own.geobox.affine, other.geobox.affine
            scale = (a.e / b.e, a.a / b.a)
            top = (a.f - b.f) / b.e + windows.values("row", mine) * scale[0]
            left = (a.c - b.c) / b.a + windows.values("col", mine) * scale[1]
            size = (windows.size[0] * scale[0], windows.size[1] * scale[1])
            height, width = other.geobox.shape
            middle = top + size[0] / 2, left + size[1] / 2
            inside = (middle[0] >= 0) & (middle[0] <= height) & (middle[1] >= 0) & (middle[1] <= width)
            if inside.any():
                sizes.add((round(size[0]), round(size[1])))
                there = mine[inside]
                cube[there], row[there], col[there] = number, np.rint(top[inside]), np.rint(left[inside])
    _check(windows, on, cube, sizes)
    return _dated(windows, Windows.of(on.cubes, sizes.pop(), row=row, col=col, cube=cube, ids=windows.ids))


def _check(windows: Windows, on: Cubes, cube: Indices, sizes: set[tuple[int, int]]) -> None:
    """Raise where chips are not on the other cubes."""
    if (missing := int((cube < 0).sum())) > 0:
        ours, theirs = (sorted({str(one.crs) for one in cubes}) for cubes in (windows.cubes, on.cubes))
        raise ChipError(
            f"measure(on=...): {missing} of {len(windows)} chips, in {', '.join(ours)}, lie on none of the cubes, in "
            f"{', '.join(theirs)}; stack them in the same crs and bounds"
        )
    if len(sizes) > 1 or min(min(size) for size in sizes) < 1:
        raise ChipError(
            f"measure(on=...): a chip of {windows.size[0]} x {windows.size[1]} px is {sorted(sizes)} px there; needed "
            "is one size of 1 px or more; use another resolution"
        )


def _dated(windows: Windows, laid: Windows) -> Windows:
    """Find the dates of the chips among those of the other cubes."""
    if all(np.isnat(times(cube)).all() for cube in laid.cubes) or (
        windows.dates is None and not isinstance(windows, Sequences)
    ):
        return laid
    if isinstance(windows, Sequences):
        when = np.stack([_found(windows, laid, date) for date in windows.when.T], axis=1)
        own = {part.name: getattr(laid, part.name) for part in fields(Windows)}
        return Sequences(**{**own, "dates": windows.dates}).with_dates(when)
    first, last = (_found(windows, laid, date) for date in spans(windows))
    if (last - first + 1 != windows.dates).any():
        raise ChipError("measure(on=...): these cubes have more dates between those of a chip; stack the same items")
    return replace(laid.placed(time=first), dates=windows.dates)


def _found(windows: Windows, laid: Windows, date: Indices) -> Indices:
    """Find one date of each chip."""
    found = np.empty(len(windows), np.int64)
    cubes = np.stack([windows.cube, laid.cube])
    for own, other in np.unique(cubes, axis=1).T.tolist():
        mine = np.flatnonzero((cubes[0] == own) & (cubes[1] == other))
        ours, theirs = _stamps(windows.cubes[own]), _stamps(laid.cubes[other])
        place = {stamp: number for number, stamp in enumerate(theirs)}
        numbers = np.array([place.get(stamp, -1) for stamp in ours], np.int64)
        found[mine] = numbers[date[mine]]
        if (found[mine] < 0).any():
            lost = sorted({str(ours[at])[:19] for at in date[mine][found[mine] < 0]})
            raise ChipError(
                f"measure(on=...): {len(lost)} dates of the chips, the first {lost[0]}, are not among those of the "
                "cubes; stack the same items with the same groupby"
            )
    return found


def _stamps(cube: Cube) -> list[np.datetime64]:
    stamps: npt.NDArray[np.datetime64] = times(cube)
    return [*stamps]
