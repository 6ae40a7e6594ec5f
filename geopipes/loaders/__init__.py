"""Running a pipe: threads, positions and holes, ranks and processes, state; and where its time goes."""

from geopipes.loaders.loader import Loader, Options
from geopipes.loaders.ops import HOLE, Batch, Each, Element, Op, Take, planned, weight
from geopipes.loaders.reports import Report, profiling
from geopipes.loaders.runs import Run, ordered, run
from geopipes.loaders.shares import Share

__all__ = [
    "HOLE",
    "Batch",
    "Each",
    "Element",
    "Loader",
    "Op",
    "Options",
    "Report",
    "Run",
    "Share",
    "Take",
    "ordered",
    "planned",
    "profiling",
    "run",
    "weight",
]
