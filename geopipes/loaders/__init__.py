"""Running a pipe: threads, positions and holes, ranks and processes, state."""

from geopipes.loaders.ops import HOLE, Batch, Each, Element, Op, Take
from geopipes.loaders.runs import Run, planned, run
from geopipes.loaders.shares import Share

__all__ = ["HOLE", "Batch", "Each", "Element", "Op", "Run", "Share", "Take", "planned", "run"]
