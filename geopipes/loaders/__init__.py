"""Running a pipe: threads, positions and holes, ranks and processes, state."""

from geopipes.loaders.loader import Loader, Options
from geopipes.loaders.ops import HOLE, Batch, Each, Element, Op, Take
from geopipes.loaders.runs import Run, ordered, planned, run
from geopipes.loaders.shares import Share

__all__ = [
    "HOLE",
    "Batch",
    "Each",
    "Element",
    "Loader",
    "Op",
    "Options",
    "Run",
    "Share",
    "Take",
    "ordered",
    "planned",
    "run",
]
