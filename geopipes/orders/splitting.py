"""Split: plans that share no ground."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from geopipes.chips import Windows, boxes
from geopipes.errors import ChipError

FRACTION_SLACK = 1e-6
"""By how much the fractions of a split may miss 1."""

DEGREES = pyproj.CRS(4326)

TOUCH = 1e-3
"""Metres by which footprints are drawn in before distances are taken: chips that only touch share no pixel."""


def split(
    windows: Windows, fractions: Sequence[float], *, block: float, buffer: float = 0.0, seed: int
) -> tuple[Windows, ...]:
    """Split a plan by random square blocks of ground, so that neighbours stand in one split.

    Every chip goes with the block that holds its centre; all dates of a place stay together. Chips of an earlier
    split that overlap a chip of a later one, or come nearer than ``buffer``, are left out: a training split,
    named first, makes room for the splits that judge it.

    Parameters
    ----------
    windows : (n,) a plan
    fractions : of the chips in each split, summing to 1; met as nearly as whole blocks allow, before the buffer
    block : side of the blocks [m]
    buffer : least distance between the chips of two splits [m]
    seed : of numpy's PCG64

    Returns
    -------
    one plan for each fraction; chips keep their ids and order

    Raises
    ------
    ChipError
        if the fractions do not sum to 1, or a split stays empty
    """
    shares = np.asarray(fractions, float)
    if len(shares) < 2 or (shares <= 0).any() or abs(shares.sum() - 1) > FRACTION_SLACK:
        raise ChipError(f"split({tuple(fractions)}): give two or more positive fractions that sum to 1, as (0.8, 0.2)")
    if block <= 0 or buffer < 0:
        raise ChipError(f"split(block={block}, buffer={buffer}): both are metres; block above 0, buffer at least 0")
    places = ground(windows)
    centres = shapely.get_coordinates(shapely.centroid(places))
    keys = np.floor(centres / block).astype(np.int64)
    _, member, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    owner = _deal(counts, shares, seed)[member.ravel()]
    parts = [np.flatnonzero(owner == k) for k in range(len(shares))]
    kept = []
    for k, part in enumerate(parts):
        later = np.concatenate([*parts[k + 1 :], np.empty(0, np.int64)]).astype(np.int64)
        kept.append(part[~_near(places[part], places[later], buffer)])
    if any(len(part) == 0 for part in kept):
        raise ChipError(
            f"split({tuple(fractions)}, block={block:g}, buffer={buffer:g}): {len(counts)} blocks give splits of "
            f"{[len(part) for part in kept]} chips; use smaller blocks, a smaller buffer, or a larger area"
        )
    return tuple(windows.take(part) for part in kept)


def ground(windows: Windows) -> npt.NDArray[np.object_]:
    """Give each chip's rectangle in metres on one equal-area plane, whatever its zone.

    Returns
    -------
    (n,) shapely polygons in a Lambert azimuthal equal-area projection about the plan's middle (whole degrees)
    """
    places = np.empty(len(windows), object)
    for index, cube in enumerate(windows.cubes):
        mine = windows.cube == index
        places[mine] = _moved(boxes(windows, mine), cube.crs.proj, DEGREES)
    lon, lat = np.round(shapely.get_coordinates(places).mean(axis=0))
    plane = pyproj.CRS.from_proj4(f"+proj=laea +lat_0={lat} +lon_0={lon} +units=m +datum=WGS84")
    return _moved(places, DEGREES, plane)


def _moved(places: npt.NDArray[np.object_], crs: pyproj.CRS, to: pyproj.CRS) -> npt.NDArray[np.object_]:
    """Put places into another CRS."""
    onto = pyproj.Transformer.from_crs(crs, to, always_xy=True)

    def move(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack(onto.transform(*xy.T), axis=1)

    moved: npt.NDArray[np.object_] = shapely.transform(places, move)
    return moved


def _deal(counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.int64]:
    """Deal blocks in random order, each to the split that is furthest behind its share."""
    owner = np.empty(len(counts), np.int64)
    held = np.zeros(len(shares))
    for index in np.random.default_rng(seed).permutation(len(counts)):
        owner[index] = int(np.argmax(shares * counts.sum() - held))
        held[owner[index]] += counts[index]
    return owner


def _near(places: npt.NDArray[np.object_], others: npt.NDArray[np.object_], distance: float) -> npt.NDArray[np.bool_]:
    """Say which places overlap one of the others, or come nearer than a distance [m]."""
    near = np.zeros(len(places), bool)
    if len(places) and len(others):
        drawn_in = shapely.buffer(places, -TOUCH, join_style="mitre")
        hits = shapely.STRtree(others).query(drawn_in, predicate="dwithin", distance=max(distance - TOUCH, 0.0))
        near[np.unique(hits[0])] = True
    return near
