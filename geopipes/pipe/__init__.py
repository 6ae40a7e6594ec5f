"""The chain: `Pipe`, `Plan` and where they begin."""

from geopipes.pipe.openings import audit, cubes, inputs, items, mix, rasters, search, seek, storage, vectors
from geopipes.pipe.pipes import Pipe
from geopipes.pipe.plans import Plan

__all__ = [
    "Pipe",
    "Plan",
    "audit",
    "cubes",
    "inputs",
    "items",
    "mix",
    "rasters",
    "search",
    "seek",
    "storage",
    "vectors",
]
