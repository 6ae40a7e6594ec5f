"""Choosing among millions of windows: seconds and memory of plans, and of the peers' lists; nothing is read before."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from benchmarks.memory import resident
from benchmarks.world import World

CHIP = 64
"""Side of a window [px]."""

PIXEL = 10
"""Of the grid [m]."""

ZONES = (32632, 32633)
DATES = 24

KEPT, SHARES, BLOCK, BUFFER = 0.9, (0.8, 0.2), 20_000, 2_000
"""What is chosen of the plan, and how it is split; both in metres."""


def geopipes(world: World, *, windows: int, dates: int) -> dict[str, Any]:
    """Cut a plan, choose of it, split and shuffle it, and load the first chip.

    Parameters
    ----------
    windows : to be chosen from
    dates : of one cube in one UTM zone, if 1; else of two cubes in two zones, which see some of the same ground

    Returns
    -------
    windows : of the plan
    chip, choose, split, shuffle, first : seconds of each
    peak : bytes of memory above those before the plan, at most
    """
    from geopipes import chips, loaders, orders

    cubes = _cubes(windows, dates)
    steps: list[tuple[str, Callable[[Any], Any]]] = [
        ("chip", lambda _: chips.chip(cubes, CHIP, time=1)),
        ("choose", lambda plan: chips.sample(plan, int(KEPT * len(plan)), seed=0)),
        ("split", lambda plan: orders.split(plan, SHARES, block=BLOCK, buffer=BUFFER, seed=0)),
        ("shuffle", lambda parts: orders.shuffle(parts[0], 0)),
        ("first", lambda plan: next(loaders.run(chips.Reading(plan, 2, 1 << 28), ()))),
    ]
    peak, before, value, found = _Peak(), resident(), None, {}
    for name, step in steps:
        started = perf_counter()
        value = step(value)
        found[name] = perf_counter() - started
        if name == "chip":
            found["windows"] = len(value)
    return {**found, "peak": peak.bytes() - before}


def torchgeo(world: World, *, kind: str, windows: int) -> dict[str, Any]:
    """List the windows of one of TorchGeo's samplers, as is needed to split or shuffle them: "random" or "grid".

    Returns
    -------
    windows, first, seconds, peak : how many; seconds until the first, and until all are there; bytes
    """
    import geopandas
    import shapely
    from torchgeo.datasets import GeoDataset  # type: ignore[import-not-found]  # it has its own place
    from torchgeo.samplers import GridGeoSampler, RandomGeoSampler  # type: ignore[import-not-found]

    side = CHIP * PIXEL * _side(windows)

    class Scene(GeoDataset):  # type: ignore[misc]  # TorchGeo is not installed where types are checked
        """One scene that is never read."""

        def __init__(self) -> None:
            times = pd.IntervalIndex.from_tuples([(pd.Timestamp("2024-05-01"), pd.Timestamp("2024-05-02"))], "both")
            times.name = "datetime"
            box = shapely.box(0, 0, side, side)
            self.index = geopandas.GeoDataFrame(index=times, geometry=[box], crs=f"EPSG:{ZONES[0]}")
            self.res = (PIXEL, PIXEL)

        def __getitem__(self, query: Any) -> dict[str, Any]:
            raise NotImplementedError

    def make() -> Any:
        scene = Scene()
        return RandomGeoSampler(scene, CHIP, length=windows) if kind == "random" else GridGeoSampler(scene, CHIP)

    return _listed(lambda: iter(make()))


def xbatcher(world: World, *, engine: str, windows: int) -> dict[str, Any]:
    """Make xbatcher's generator, which lists its windows: as `torchgeo`."""
    from xbatcher import BatchGenerator

    pixels = _values(_side(windows) * CHIP, 1).isel(time=0, drop=True)
    peak, before, started = _Peak(), resident(), perf_counter()
    every = BatchGenerator(pixels, {"y": CHIP, "x": CHIP}, preload_batch=False)
    seconds = perf_counter() - started
    return {"windows": len(every), "first": seconds, "seconds": seconds, "peak": peak.bytes() - before}


def _listed(make: Callable[[], Iterator[Any]]) -> dict[str, Any]:
    """Measure until the first and until all are there."""
    peak, before, started = _Peak(), resident(), perf_counter()
    every = make()
    windows = [next(every)]
    first = perf_counter() - started
    windows.extend(every)
    seconds = perf_counter() - started
    return {"windows": len(windows), "first": first, "seconds": seconds, "peak": peak.bytes() - before}


def _side(windows: int) -> int:
    return int(np.ceil(windows**0.5))


def _cubes(windows: int, dates: int) -> Any:
    """Make cubes of no pixels of their own: one byte stands for all."""
    from geopipes import datacubes

    zones = ZONES[: 1 if dates == 1 else 2]
    side = _side(windows // (dates * len(zones))) * CHIP
    cubes = [datacubes.from_xarray(_values(side, dates, zone), crs=f"EPSG:{zone}") for zone in zones]
    return datacubes.Cubes(list(itertools.chain.from_iterable(each.cubes for each in cubes)))


def _values(side: int, dates: int, zone: int = ZONES[0]) -> xr.Dataset:
    """Give a square of zeros, (dates, side, side); of two zones the second begins where they meet."""
    days = np.datetime64("2024-05-01", "ns") + np.arange(dates) * np.timedelta64(5, "D")
    west = 500_000 - side * PIXEL // 2 + (zone != ZONES[0]) * PIXEL
    places = PIXEL * (np.arange(side) + 0.5)
    return xr.Dataset(
        {"v": (("time", "y", "x"), np.broadcast_to(np.uint8(0), (dates, side, side)))},
        {"time": days, "y": 5_500_000 - places, "x": west + places},
    )


class _Peak:
    """The most memory of this process from now on, where Linux tells it; else what it has when it is asked."""

    def __init__(self) -> None:
        self._status, forget = Path("/proc/self/status"), Path("/proc/self/clear_refs")
        self._told = self._status.exists()
        if self._told:
            forget.write_text("5")

    def bytes(self) -> int:
        if not self._told:
            return resident()
        line = next(line for line in self._status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
