"""The command: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.bars import bars
from benchmarks.found import Bar
from benchmarks.jobs import NAMES, job
from benchmarks.measures import ROWS, Measure, absent, measures
from benchmarks.worker import Place, measured
from benchmarks.world import QUICK, Size, World, world

LIBRARIES = (
    "geopipes", "numpy", "numba", "imagecodecs", "async-tiff", "rasterio", "pyproj", "xarray", "odc-stac", "stackstac",
    "xbatcher", "dask", "torch",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for; print the table, and write everything as JSON."""
    options = _options(arguments)
    size = QUICK if options.quick else Size()
    size = replace(size, **{name: getattr(options, name) for name in ("rows", "pixels") if getattr(options, name)})
    here = world(options.world, size, threads=options.threads)
    _read_all(here)
    place = Place(str(options.world), asdict(size))
    todo = list(
        measures(
            options.only, threads=options.threads, chips=options.chips or (32 if options.quick else 128),
            marks=(200, 2_000) if options.quick else (2_000, 20_000), quick=options.quick, device=options.device,
            processes=options.processes,
        )
    )  # fmt: skip
    missing = {one.key: why for one in todo if (why := absent(one, options.torchgeo)) is not None}
    results: dict[str, list[dict[str, Any]]] = defaultdict(list)
    document: dict[str, Any] = {
        "machine": _machine(), "parameters": {**_plain(vars(options)), "size": asdict(size)}, "missing": missing,
        "raw": results,
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    repeats = options.repeats or (1 if options.quick else 3)
    for repeat in range(repeats):
        for one in todo:
            if one.key not in missing and not (repeat and one.once):
                results[one.key].append(_run(one, here, place, options, f"{repeat + 1}/{repeats}"))
                options.out.write_text(json.dumps(document, indent=1))  # a run that is broken off leaves its raw part
    lines = bars(results, missing, threads=options.threads)
    document["bars"] = [{**asdict(line), "met": line.met} for line in lines]
    options.out.write_text(json.dumps(document, indent=1))
    print(_header(here, options), *table(lines), f"\nAll repeats, machine and versions: {options.out}", sep="\n")


def table(lines: list[Bar]) -> list[str]:
    """Write the lines of the table as text."""
    written = []
    for line in lines:
        got = "-" if line.got is None else f"{line.got:.3g}"
        met = {True: "met", False: "NOT MET", None: "" if line.got is not None else "left out"}[line.met]
        written.append((line.row, line.what, got, line.asked, met, line.note))
    head = ("row", "what", "got", "asked", "", "")
    widths = [max(len(row[column]) for row in [head, *written]) for column in range(5)]
    return ["  ".join([*map(str.ljust, row[:5], widths), row[5]]).rstrip() for row in [head, *written]]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="geopipes beside its peers and the floor.")
    temporary = Path(tempfile.gettempdir()) / "geopipes-benchmarks"
    own = Path(sys.prefix) / "torchgeo" / "bin" / "python"
    add = parser.add_argument
    add("--quick", action="store_true", help="a small world, one repeat")
    add("--only", type=_rows, default=list(ROWS), help=f"rows to run, by comma: {','.join(ROWS)}")
    add("--repeats", type=int, help="interleaved; medians are compared (3)")
    add("--threads", type=int, default=2, help="of geopipes, and threads or processes of each peer (2)")
    add("--chips", type=int, help="that a peer reads of a job (128)")
    add("--rows", type=int, help="scenes in each of two UTM zones (4)")
    add("--pixels", type=int, help="along each side of a scene (7680)")
    add("--device", default="cpu", choices=["cpu", "cuda"], help="that trains, in the row training (cpu)")
    add("--processes", type=_numbers, default=[0], help="that load for it, by comma: 0,4 measures both (0)")
    add("--world", type=Path, default=temporary, help=f"where the files are written, once ({temporary})")
    add("--out", type=Path, default=temporary / "results.json", help="where the JSON goes")
    add("--torchgeo", type=Path, default=own, help=f"the interpreter of TorchGeo's environment ({own})")
    return parser.parse_args(arguments)


def _rows(text: str) -> list[str]:
    rows = text.split(",")
    if unknown := [row for row in rows if row not in ROWS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no row; the rows are {', '.join(ROWS)}")
    return rows


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _run(one: Measure, here: World, place: Place, options: argparse.Namespace, count: str) -> dict[str, Any]:
    """Run one measurement, and say so."""
    print(f"{count} {one.key} ...", end=" ", file=sys.stderr, flush=True)
    cache = None
    if one.job is not None:
        cache = job(one.job, here).cache
    if one.torchgeo:  # each of its processes has a cache of its own
        place, cache = replace(place, python=str(options.torchgeo)), (cache or 0) // options.threads
    started = time.perf_counter()
    result = measured(place, one.task, cache=cache, **one.parameters)
    print(result.get("failed", f"{time.perf_counter() - started:.0f} s"), file=sys.stderr, flush=True)
    return result


def _read_all(here: World) -> None:
    """Read all files once, so that they are in memory for whoever comes first."""
    for item in (*here.scenes, *here.series, here.label):
        for asset in item.assets.values():
            with Path(asset.href).open("rb") as file:
                while file.read(2**24):
                    pass


def _header(here: World, options: argparse.Namespace) -> str:
    jobs = [job(name, here) for name in NAMES]
    caches = ", ".join(f"{one.name} {one.decoded_bytes / 1e6:.0f} ({one.cache / 1e6:.0f})" for one in jobs)
    return (
        f"\n{len(here.scenes)} scenes of {here.size.pixels} px, {here.size.bands} bands; {len(here.series)} dates of "
        f"{here.size.series_pixels} px, {here.size.series_bands} bands. {options.threads} threads.\n"
        f"Decoded pixels (cache) in MB: {caches}.\n"
    )


def _machine() -> dict[str, Any]:
    """Say what was measured on."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cpus": os.cpu_count(), "machine": platform.machine(), "processor": _processor(), "system": platform.platform(),
        "python": platform.python_version(), "versions": versions,
    }  # fmt: skip


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
