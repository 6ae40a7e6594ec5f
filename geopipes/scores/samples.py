"""Places of a map that are drawn at random, to be looked at: a stratified probability sample."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely

from geopipes.errors import ScoreError
from geopipes.grids import crs_of
from geopipes.maps.ground import Ground, placed
from geopipes.maps.strips import Layer, Raster, opened, strips
from geopipes.read.stated import named_crs
from geopipes.scores.confusions import named_classes

UNLIKE = 0.01
"""By how much pixels may differ in area, as a share: what is drawn are pixels, what is estimated is ground."""

LEAST = 50
"""Places in a stratum at least: Olofsson et al. (2014), section 5.1.2, advise 50 to 100 for rare classes."""

Counts = dict[int, int]


def stratified_sample(
    raster: Raster,
    n: int | Mapping[int, int],
    *,
    seed: int,
    classes: Mapping[int, str] | Collection[int] | None = None,
    least: int = LEAST,
    band: int = 1,
    strip: int | None = None,
) -> gpd.GeoDataFrame:
    """Draw pixels of a map at random, so many of each class: the places where a reference is to be looked up.

    The classes of the map are the strata; within each, every pixel has the same chance. The map is read twice, by
    strips.

    Parameters
    ----------
    raster : the map: a path, an item, what ``gp.rasters`` gives, or an array with a CRS, of whole numbers
    n : places in all, shared out in proportion to the classes' pixels; or how many of each class, ``{1: 75, 2: 325}``
    seed : of numpy's PCG64
    classes : the strata, by value, with their names if it is a mapping; None for all values. Pixels of other values,
        and nodata, are no part of the area that is estimated
    least : places of a class at least, where ``n`` is a number; all of a class that has fewer pixels
    band : of the raster, from 1
    strip : rows read at once; whatever it is, the places are the same

    Returns
    -------
    GeoDataFrame of points, the centres of pixels, in the map's CRS and in the order of its rows: ``stratum``, ``name``
    (where classes have names), ``probability`` (of a pixel of this stratum to be drawn), ``stratum_pixels`` and
    ``stratum_m2`` (on the ellipsoid). Add a column ``reference`` with the classes found there, for `area_estimates`;
    files keep all that it needs

    Raises
    ------
    ScoreError
        for no class, a number of places that cannot be met, and pixels that differ in area by more than 1 %, as in
        degrees
    SourceError
        for what is no raster of whole numbers
    """
    named = None if classes is None else named_classes(classes)
    with opened(raster, band=band, what="stratified_sample(raster)") as layer:
        if layer.dtype.kind not in "iub":
            raise ScoreError(f"stratified_sample: {layer.name} is {layer.dtype}; needed are classes, whole numbers")
        pixels, areas = _strata(layer, None if named is None else set(named), strip)
        wanted = _allotted(pixels, n, least)
        rng = np.random.default_rng(seed)
        drawn = {value: np.sort(rng.choice(pixels[value], wanted[value], replace=False)) for value in sorted(wanted)}
        rows, cols, strata = _found(layer, drawn, strip)
    x, y = placed(layer.geobox.transform, cols.astype(float) + 0.5, rows.astype(float) + 0.5)
    columns = {
        "stratum": strata,
        "probability": np.array([wanted[value] / pixels[value] for value in strata.tolist()], float),
        "stratum_pixels": np.array([pixels[value] for value in strata.tolist()], np.int64),
        "stratum_m2": np.array([areas[value] for value in strata.tolist()], float),
    }
    frame = gpd.GeoDataFrame(columns, geometry=shapely.points(x, y), crs=named_crs(crs_of(layer.geobox)).proj)
    if isinstance(classes, Mapping) and named is not None:
        frame.insert(1, "name", [named[value] for value in strata.tolist()])
    return frame


def sample_size(areas: Mapping[int, float], accuracies: Mapping[int, float], *, standard_error: float) -> int:
    """Give the places needed for a standard error of the overall accuracy.

    Olofsson et al. (2014), eq. 13: n = (sum of W S / S(O))^2, with S = sqrt(U (1 - U)).

    Parameters
    ----------
    areas : of the map's classes, in any unit
    accuracies : the user's accuracy expected of each class, 0..1
    standard_error : wanted of the overall accuracy, as 0.01
    """
    if not areas or areas.keys() != accuracies.keys() or not 0 < standard_error < 1:
        raise ScoreError(
            "sample_size: give the area and the accuracy (0..1) of each class, and a standard error as 0.01"
        )
    deviations = {value: math.sqrt(share * (1 - share)) for value, share in accuracies.items()}
    mean = sum(areas[value] * deviations[value] for value in areas) / sum(areas.values())
    return math.ceil((mean / standard_error) ** 2)


def _strata(layer: Layer, classes: set[int] | None, strip: int | None) -> tuple[Counts, dict[int, float]]:
    """Count the pixels of each class, and their ground [m2]."""
    ground = Ground(layer.geobox)
    pixels: Counts = {}
    areas: dict[int, float] = {}
    smallest, largest = math.inf, 0.0
    for rows in strips(layer, strip):
        values, valid = layer.read(rows)
        size = ground.areas(rows)
        smallest, largest = min(smallest, size.min()), max(largest, size.max())
        found, at, counts = np.unique(values[valid], return_inverse=True, return_counts=True)
        sums = np.bincount(at.ravel(), size[valid], len(found))
        for value, count, area in zip(found.tolist(), counts.tolist(), sums.tolist(), strict=True):
            if classes is None or value in classes:
                pixels[value] = pixels.get(value, 0) + count
                areas[value] = areas.get(value, 0.0) + area
    if largest > smallest * (1 + UNLIKE):
        raise ScoreError(
            f"stratified_sample: pixels of {layer.name} cover {smallest:,.1f} to {largest:,.1f} m2, and a sample of "
            "pixels is none of the ground then; write the map in an equal-area or UTM projection first"
        )
    if not pixels:
        raise ScoreError(f"stratified_sample: {layer.name} has no pixel of a class to be drawn from")
    return pixels, areas


def _allotted(pixels: Counts, n: int | Mapping[int, int], least: int) -> Counts:
    """Share places out to the strata."""
    if isinstance(n, Mapping):
        wanted = {int(value): int(count) for value, count in n.items()}
        if wanted.keys() != pixels.keys() or any(not 2 <= wanted[value] <= pixels[value] for value in pixels):
            raise ScoreError(
                f"stratified_sample(n={dict(n)}): needed are 2 or more places of each class, and no more than its "
                f"pixels: {dict(sorted(pixels.items()))}; leave classes out by classes=..."
            )
        return wanted
    floor = {value: min(max(least, 2), count) for value, count in pixels.items()}
    if n < sum(floor.values()) or n > sum(pixels.values()):
        raise ScoreError(
            f"stratified_sample(n={n}, least={least}): {len(pixels)} classes need {sum(floor.values())} places or "
            f"more, and have {sum(pixels.values())} pixels"
        )
    wanted, free = dict(floor), set(pixels)
    while True:  # those whose share would be below the floor keep the floor; the others share the rest
        rest = n - sum(floor[value] for value in pixels.keys() - free)
        whole = sum(pixels[value] for value in free)
        below = {value for value in free if rest * pixels[value] / whole < floor[value]}
        if not below:
            break
        free -= below
    shares = {value: rest * pixels[value] / whole for value in sorted(free)}
    wanted.update({value: math.floor(share) for value, share in shares.items()})
    for value in sorted(shares, key=lambda value: math.floor(shares[value]) - shares[value])[
        : n - sum(wanted.values())
    ]:
        wanted[value] += 1
    return wanted


def _found(
    layer: Layer, drawn: Mapping[int, npt.NDArray[np.int64]], strip: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find pixels by their numbers within their classes, counted along the rows: (rows, cols, classes)."""
    before = dict.fromkeys(drawn, 0)
    width = layer.geobox.shape[1]
    places: list[npt.NDArray[np.int64]] = []
    strata: list[npt.NDArray[np.int64]] = []
    for rows in strips(layer, strip):
        values, valid = layer.read(rows)
        for value, numbers in drawn.items():
            at = np.flatnonzero(valid & (values == value))
            first, last = np.searchsorted(numbers, [before[value], before[value] + len(at)])
            places.append(at[numbers[first:last] - before[value]] + rows.start * width)
            strata.append(np.full(last - first, value, np.int64))
            before[value] += len(at)
    place, stratum = np.concatenate(places), np.concatenate(strata)
    order = np.argsort(place)
    return place[order] // width, place[order] % width, stratum[order]
