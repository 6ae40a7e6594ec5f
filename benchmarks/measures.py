"""All measurements of a run, by name: what runs, on what, and how often."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROWS = (
    "kernels", "floors", "same-grid", "warped", "series", "random", "mixing", "ranks", "hand-over", "memory",
    "scaling", "choosing", "overhead", "steps", "training", "mapping", "far", "labels",
)  # fmt: skip
JOBS = ("same-grid", "warped")
METHODS = ("nearest", "bilinear", "cubic")
DTYPES = ("uint16", "float32")

PEERS = {
    "rasterio_threads": "rasterio threads",
    "odc_each": "odc-stac for each chip",
    "odc_xbatcher": "odc-stac + xbatcher",
    "stackstac_xbatcher": "stackstac + xbatcher",
    "torchgeo_random": "TorchGeo, 2 workers",
}
"""Each peer's module and its name in the table."""

FAR_PEERS = {"rasterio_threads": 16, "odc_each": 16, "odc_xbatcher": 16, "stackstac_xbatcher": 16, "torchgeo_random": 8}
"""Those read from a store far away, and their threads, or processes: they wait most of the time."""

FAR_THREADS = 8
"""Threads of geopipes there: as many as ``read`` has where nobody says."""

LATENCY = 0.04
"""Seconds before each answer of that store."""

SERIES_PEERS = ("rasterio_threads", "odc_each", "odc_xbatcher", "stackstac_xbatcher")
"""TorchGeo merges dates; it has no stack of them."""

NEEDS = {
    "odc_each": ("odc.stac",), "odc_xbatcher": ("odc.stac", "dask", "xbatcher"),
    "stackstac_xbatcher": ("stackstac", "dask", "xbatcher"), "xbatcher": ("xbatcher",),
}  # fmt: skip

SUFFIXES, POLYGONS = ("gpkg", "fgb", "parquet"), (2_000, 200_000)
"""Of the files that labels are read of."""


@dataclass(frozen=True)
class Measure:
    """One measurement, which may be repeated.

    Attributes
    ----------
    key : names it in the results: "geopipes same-grid shuffled 2", "odc_each warped"
    task : "module:function", below this package
    parameters : of the task
    job : whose cache size GDAL is given; None for GDAL's own choice
    once : whether a single run is enough: counters, and figures that no bar asks for
    torchgeo : whether it runs in TorchGeo's environment
    """

    key: str
    task: str
    parameters: dict[str, Any] = field(default_factory=dict)
    job: str | None = None
    once: bool = False
    torchgeo: bool = False


def measures(
    rows: Sequence[str], *, threads: int, chips: int, marks: Sequence[int], quick: bool, device: str = "cpu",
    processes: Sequence[int] = (0,),
) -> Iterator[Measure]:  # fmt: skip
    """Give the measurements that some rows of the table need.

    Parameters
    ----------
    rows : of ROWS
    threads : of geopipes and of every peer
    chips : that a peer reads of a job; of the series a tenth
    marks : chips after which memory is noted
    quick : leaves out what only explains
    device : that trains
    processes : that load for it, each in turn
    """
    if "kernels" in rows:
        for method in METHODS:
            yield Measure(f"kernels {method}", "kernels:kernels", {"resampling": method, "repeats": 3})
    for name in JOBS:
        if name in rows or "floors" in rows:
            yield from _floors(name, threads, quick=quick)
        if name in rows:
            yield from _orders(name, threads, quick=quick)
            yield from (_peer(name, peer, threads, chips) for peer in PEERS)
        elif "random" in rows:
            yield _peer(name, "rasterio_threads", threads, chips)
        if "random" in rows:
            yield _ours(name, "random", threads, chips=8 * chips)
    if "series" in rows:
        yield Measure(f"floor series {threads}", "floors:floors", {"name": "series", "threads": threads})
        yield _ours("series", "sequential", threads)
        yield _ours("series", "shuffled", threads)
        few = max(chips // 10, 4)
        yield from (_peer("series", peer, threads, few) for peer in SERIES_PEERS)
    if "mixing" in rows:
        yield Measure("mixing", "mixing:mixing", {"seeds": 20}, once=True)
    if "ranks" in rows:
        for name in JOBS:
            for order in ("shuffled", "random"):
                yield Measure(f"ranks {name} {order}", "ranks:shared", {"name": name, "order": order}, once=True)
    if "hand-over" in rows:
        for dtype in DTYPES:
            times = {"batches": 8, "rounds": 1} if quick else {"batches": 40, "rounds": 5}
            yield Measure(f"hand-over {dtype}", "handover:handed_over", {"dtype": dtype, **times})
    if "memory" in rows:
        parameters = {"name": "same-grid", "threads": threads, "marks": list(marks)}
        yield Measure("memory", "memory:memory", parameters, once=True)
    if "scaling" in rows:
        for order in ("sequential", "shuffled"):
            yield Measure(f"scaling {order}", "scaling:scaling", {"order": order, "threads": threads}, once=True)
    if "overhead" in rows:
        yield Measure(
            "overhead", "overhead:overhead", {"repeats": 3, "chips": 64} if quick else {"repeats": 8, "chips": 2048}
        )
    if "steps" in rows:
        yield Measure("steps", "steps:steps", {"repeats": 3 if quick else 15})
    if "choosing" in rows:
        yield from _choosing(fewer=1000 if quick else 1)
    if "training" in rows:
        yield from _training(device, threads, processes, quick=quick)
    if "mapping" in rows:
        yield Measure("mapping throughput", "mapping:throughput", {"threads": threads, "chips": 4 * chips})
        sizes = {"threads": threads, "fewer": 8 if quick else 1}
        yield Measure("mapping memory", "mapping:memory", sizes, job="same-grid", once=True)
    if "labels" in rows:
        for suffix in SUFFIXES:
            for polygons in POLYGONS:
                yield Measure(f"labels {suffix} {polygons}", "labels:chip", {"polygons": polygons, "suffix": suffix})
    if "far" in rows:
        yield from _far(chips, (200, 2_000) if quick else (5_000, 50_000), quick=quick)


def _far(chips: int, marks: Sequence[int], *, quick: bool) -> Iterator[Measure]:
    """Give what is measured of a store 40 ms away; those who wait for it have more threads, or worker processes."""
    for order, latency in (("shuffled", LATENCY), ("shuffled", None), ("random", LATENCY)):
        where = "disk" if latency is None else "afar"
        parameters = {"order": order, "threads": FAR_THREADS, "chips": 16 * chips, "latency": latency}
        yield Measure(f"far geopipes {order} {where}", "far:geopipes", parameters)
    for peer, many in FAR_PEERS.items():
        parameters = {"engine": peer, "threads": many, "chips": chips}
        torchgeo = peer == "torchgeo_random"
        yield Measure(f"far {peer}", "far:peer", parameters, job="same-grid", once=True, torchgeo=torchgeo)
    for engine in ("rasterio", "geopipes", "stored"):
        yield Measure(f"far cold {engine}", "far:cold", {"engine": engine, "scenes": 20 if quick else 200})
    yield Measure("far steady", "far:steady", {"threads": FAR_THREADS, "marks": list(marks)}, once=True)


def _training(device: str, threads: int, processes: Sequence[int], *, quick: bool) -> Iterator[Measure]:
    parameters: dict[str, Any] = {"device": device, "threads": threads, "layers": 50, "steps": 60}
    if device == "cpu":
        parameters |= {"layers": 26, "steps": 2 if quick else 6, "repeats": 1}
    for number in processes:
        yield Measure(f"training {device} {number}", "training:trained", parameters | {"processes": number}, once=True)


def _choosing(*, fewer: int) -> Iterator[Measure]:
    """Give what is measured of plans of 10 million windows, TorchGeo's of a million and xbatcher's of 2.4 million."""
    for dates in (1, 24):
        parameters = {"windows": 10_000_000 // fewer, "dates": dates}
        yield Measure(f"choosing {dates}", "choosing:geopipes", parameters)
    for kind in ("random", "grid"):
        few = {"kind": kind, "windows": 1_000_000 // fewer}
        yield Measure(f"choosing torchgeo {kind}", "choosing:torchgeo", few, torchgeo=True)
    few = {"engine": "xbatcher", "windows": 2_400_000 // fewer}
    yield Measure("choosing xbatcher", "choosing:xbatcher", few)


def _floors(name: str, threads: int, *, quick: bool) -> Iterator[Measure]:
    for number in {threads} if quick else {threads, 1, 2, 4}:
        parameters = {"name": name, "threads": number}
        yield Measure(f"floor {name} {number}", "floors:floors", parameters, once=number != threads)


def _orders(name: str, threads: int, *, quick: bool) -> Iterator[Measure]:
    for order in ("sequential", "shuffled"):
        for number in {threads} if quick else {threads, 1, 2, 4}:
            yield _ours(name, order, number, once=number != threads)


def _ours(name: str, order: str, threads: int, *, chips: int | None = None, once: bool = False) -> Measure:
    parameters = {"name": name, "order": order, "threads": threads, "chips": chips}
    return Measure(f"geopipes {name} {order} {threads}", "epochs:geopipes", parameters, once=once)


def _peer(name: str, peer: str, threads: int, chips: int) -> Measure:
    parameters = {"name": name, "engine": peer, "threads": threads, "chips": chips}
    return Measure(f"{peer} {name}", "epochs:peer", parameters, job=name, torchgeo=peer == "torchgeo_random")


def absent(measure: Measure, torchgeo: Path) -> str | None:
    """Say why a measurement cannot run here; None where it can.

    Parameters
    ----------
    torchgeo : the interpreter of TorchGeo's environment
    """
    if measure.torchgeo:
        if not torchgeo.exists():
            return f"not installed: there is no {torchgeo} (make torchgeo)"
        done = subprocess.run([torchgeo, "-c", "import importlib.util as u; exit(u.find_spec('torchgeo') is None)"])
        return f"not installed in {torchgeo}" if done.returncode else None
    missing = [name for name in NEEDS.get(measure.parameters.get("engine", ""), ()) if not _installed(name)]
    return f"not installed: {', '.join(missing)}" if missing else None


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its package is not there
        return False
