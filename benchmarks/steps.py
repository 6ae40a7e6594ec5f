"""What steps cost: each on one loaded chip of 6 dates, 8 bands and 256 x 256 px, beside plain numpy on its arrays."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from benchmarks.world import World
from geopipes import composites, pixels

Array = np.ndarray[Any, Any]

DATES, SIDE = 6, 256
BANDS = ("coastal", "blue", "green", "red", "nir", "swir16", "swir22", "nir09")
CLOUDS = (0, 3, 8, 9, 10)


@dataclass(frozen=True)
class Row:
    """A step and its like in plain numpy.

    Attributes
    ----------
    ours : of the chip
    plain : of its arrays by name, (time, y, x), which it does not write to
    """

    ours: Callable[[xr.Dataset], xr.Dataset]
    plain: Callable[[Mapping[str, Array]], Any]


def chip() -> xr.Dataset:
    """Give a chip of stored numbers, a scene classification, reflectance of two bands and an elevation."""
    rng = np.random.default_rng(0)
    size, dims = (DATES, SIDE, SIDE), ("time", "y", "x")
    data: dict[str, Any] = {name: (dims, rng.integers(1, 6000, size, np.uint16), {"nodata": 0}) for name in BANDS}
    patches = rng.choice(np.array([4, 5, 8, 9], np.uint8), (DATES, SIDE // 16, SIDE // 16), p=[0.5, 0.3, 0.1, 0.1])
    data["scl"] = (dims, np.repeat(np.repeat(patches, 16, axis=1), 16, axis=2))  # clouds are patches, not noise
    data |= {f"r_{name}": (dims, rng.random(size, np.float32), {"scaled": True}) for name in ("blue", "red", "nir")}
    data["dem"] = (("y", "x"), 500 + 50 * rng.random((SIDE, SIDE), np.float32), {"joined": True})
    data["valid"] = (dims, np.broadcast_to(np.arange(SIDE) > SIDE // 20, size).copy())  # a scene's edge
    data["clear"] = (dims, data["valid"][1] & ~np.isin(data["scl"][1], CLOUDS))
    days = np.datetime64("2024-05-01", "ns") + np.arange(DATES) * np.timedelta64(5, "D")
    grid = GeoBox.from_bbox((500_000, 5_000_000, 502_560, 5_002_560), crs="EPSG:32633", resolution=10)
    return xr.Dataset(data, {"time": days}).assign_coords(xr_coords(grid, always_yx=True))


def _scaled(arrays: Mapping[str, Array]) -> list[Array]:
    hidden = ~arrays["valid"]
    found = [arrays[name].astype(np.float32) * np.float32(1e-4) - np.float32(0.1) for name in BANDS]
    for band in found:
        band[hidden] = np.nan
    return found


def _decibels(arrays: Mapping[str, Array]) -> Array:
    return np.where(arrays["valid"], 10 * np.log10(arrays["r_nir"]), np.nan)


def _difference(arrays: Mapping[str, Array]) -> Array:
    a, b = arrays["nir"].astype(np.float32), arrays["red"].astype(np.float32)
    return np.where(arrays["valid"], (a - b) / (a + b), np.nan)


def _clouds(arrays: Mapping[str, Array]) -> list[Array]:
    there = arrays["valid"] & ~np.isin(arrays["scl"], CLOUDS)
    return [np.where(there, arrays[f"r_{name}"], np.nan) for name in ("blue", "red", "nir")]


def _dilated(arrays: Mapping[str, Array]) -> Array:
    """Grow clouds by a disk of 4 px, shift by shift."""
    clouds = np.isin(arrays["scl"], CLOUDS)
    padded = np.pad(clouds, ((0, 0), (4, 4), (4, 4)))
    grown = clouds.copy()
    for down in range(-4, 5):
        for across in range(-4, 5):
            if down**2 + across**2 <= 16:
                grown |= padded[:, 4 + down : 4 + down + SIDE, 4 + across : 4 + across + SIDE]
    return arrays["valid"] & ~grown


def _evi(arrays: Mapping[str, Array]) -> Array:
    blue, red, nir = (arrays[f"r_{name}"] for name in ("blue", "red", "nir"))
    return np.where(arrays["valid"], 2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1), np.nan)


def _slope(arrays: Mapping[str, Array]) -> Array:
    z = np.pad(arrays["dem"].astype(float), 1, mode="edge")
    east = (z[:-2, 2:] + 2 * z[1:-1, 2:] + z[2:, 2:] - z[:-2, :-2] - 2 * z[1:-1, :-2] - z[2:, :-2]) / 80
    north = (z[:-2, :-2] + 2 * z[:-2, 1:-1] + z[:-2, 2:] - z[2:, :-2] - 2 * z[2:, 1:-1] - z[2:, 2:]) / 80
    slope: Array = np.degrees(np.arctan(np.hypot(east, north))).astype(np.float32)
    return slope


def _medians(arrays: Mapping[str, Array]) -> list[Array]:
    """Take the medians of the first three dates and of the other three: 14 days hold three dates."""
    hidden = np.where(arrays["clear"], np.float32(0), np.float32(np.nan))
    found = [arrays[name] + hidden for name in BANDS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of pixels without any
        return [np.nanmedian(band[part], axis=0) for band in found for part in (slice(0, 3), slice(3, 6))]


def _best(arrays: Mapping[str, Array]) -> list[Array]:
    scores = np.where(arrays["clear"], arrays["nir"], 0)
    found = []
    for part in (slice(0, 3), slice(3, 6)):
        best = scores[part].argmax(axis=0)[None]
        found += [np.take_along_axis(arrays[name][part], best, axis=0)[0] for name in BANDS]
    return found


def _filled(arrays: Mapping[str, Array]) -> list[Array]:
    """Fill gaps linearly, by the places of the dates before and after each."""
    clear, day = arrays["clear"], np.arange(DATES)[:, None, None]
    before = np.maximum.accumulate(np.where(clear, day, -1), axis=0)
    after = np.minimum.accumulate(np.where(clear, day, DATES)[::-1], axis=0)[::-1]
    there = (before >= 0) & (after < DATES)
    low, high = np.clip(before, 0, None), np.clip(after, None, DATES - 1)
    share = np.where(there, (day - low) / np.maximum(high - low, 1), np.nan).astype(np.float32)
    found = []
    for name in BANDS:
        one, other = (np.take_along_axis(arrays[name], at, axis=0).astype(np.float32) for at in (low, high))
        found.append(one + (other - one) * share)
    return found


def _series(chip: xr.Dataset) -> xr.Dataset:
    """Give the eight bands, valid where there are no clouds."""
    return chip[[*BANDS, "clear"]].rename(clear="valid")


REFLECTANCE = {"B": "r_blue", "R": "r_red", "N": "r_nir"}

STEPS: dict[str, Row] = {
    "scale, 8 bands": Row(lambda c: pixels.scale(c, BANDS, factor=1e-4, offset=-0.1), _scaled),
    "to_decibel": Row(lambda c: pixels.to_decibel(c, "r_nir"), _decibels),
    "normalized_difference": Row(lambda c: pixels.normalized_difference(c, "nir", "red", name="N"), _difference),
    "spectral_index NDVI": Row(lambda c: pixels.spectral_index(c, "NDVI"), _difference),
    "spectral_index EVI": Row(lambda c: pixels.spectral_index(c, "EVI", bands=REFLECTANCE), _evi),
    "mask_values": Row(lambda c: pixels.mask_values(c, "scl", CLOUDS), _clouds),
    "mask_clouds": Row(lambda c: pixels.mask_clouds(c, "scl"), _clouds),
    "mask_clouds, dilate=4": Row(lambda c: pixels.mask_clouds(c, "scl", dilate=4), _dilated),
    "composite 14D, median": Row(lambda c: composites.composite(_series(c), "14D", "median"), _medians),
    "composite 14D, best": Row(lambda c: composites.composite(_series(c), "14D", "max", by="nir"), _best),
    "fill_gaps": Row(lambda c: composites.fill_gaps(_series(c), "linear"), _filled),
    "slope": Row(lambda c: pixels.slope(c, "dem"), _slope),
}
"""Every step that is measured; a new one is a line more."""


def steps(world: World, *, repeats: int) -> dict[str, Any]:
    """Measure each step and its like in turns.

    Parameters
    ----------
    world : not looked at
    repeats : of each; the median counts, and the first, which imports and compiles, does not

    Returns
    -------
    milliseconds: ``{name: ..., f"{name}, plain": ...}``
    """
    data = chip()
    arrays = {str(name): variable.values for name, variable in data.data_vars.items()}
    found: dict[str, list[float]] = {}
    with np.errstate(all="ignore"):
        for _ in range(repeats + 1):
            for name, row in STEPS.items():
                for key, work, given in ((name, row.ours, data), (f"{name}, plain", row.plain, arrays)):
                    began = time.perf_counter()
                    work(given)
                    found.setdefault(key, []).append(1e3 * (time.perf_counter() - began))
    return {key: median(times[1:]) for key, times in found.items()}
