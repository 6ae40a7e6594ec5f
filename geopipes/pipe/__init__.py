"""The chain: `Pipe`, `Plan` and where they begin."""

from geopipes.pipe.openings import cubes, inputs, items, rasters, search, vectors
from geopipes.pipe.pipes import Pipe, Plan

__all__ = ["Pipe", "Plan", "cubes", "inputs", "items", "rasters", "search", "vectors"]
