"""One measurement in a process of its own: caches, memory and threads are nobody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STUBS = Path(__file__).resolve().parent / "stubs"
LIMIT = 1800
"""Seconds after which a measurement is given up."""


@dataclass(frozen=True)
class Place:
    """Where a measurement runs, and on what.

    Attributes
    ----------
    folder : of the worlds
    size : of the world, as `benchmarks.world.Size` has it
    python : the interpreter; TorchGeo has an environment of its own
    """

    folder: str
    size: dict[str, int]
    python: str = sys.executable


def measured(place: Place, task: str, *, cache: int | None = None, **parameters: Any) -> dict[str, Any]:
    """Run ``task(world, **parameters)`` in a new process.

    Parameters
    ----------
    place : where
    task : "module:function", below this package
    cache : bytes of GDAL's block cache; None for GDAL's own choice
    **parameters : of the task, as JSON holds them

    Returns
    -------
    what the task returns; where it failed ``{"failed": the reason}``
    """
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment |= {"PYTHONWARNINGS": "ignore", "GDAL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if cache is not None:
        environment["GDAL_CACHEMAX"] = str(max(cache, 100_001))  # smaller numbers are megabytes
    if place.python != sys.executable:
        environment["PYTHONPATH"] = os.pathsep.join([str(STUBS), environment["PYTHONPATH"]])
    call = json.dumps({"folder": place.folder, "size": place.size, "task": task, "parameters": parameters})
    try:
        ended = subprocess.run(
            [place.python, "-m", "benchmarks.worker", call],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {LIMIT} s"}
    if ended.returncode:
        return {"failed": (ended.stderr.strip().splitlines() or [f"exit {ended.returncode}"])[-1], "log": ended.stderr}
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def done(folder: str, size: dict[str, int], task: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run a task in this process: as `measured`."""
    from benchmarks.world import Size, world

    module, function = task.split(":")
    here = world(Path(folder), Size(**size), threads=2)
    result: dict[str, Any] = getattr(import_module(f"benchmarks.{module}"), function)(here, **parameters)
    return result


if __name__ == "__main__":
    print(json.dumps(done(**json.loads(sys.argv[1]))))
