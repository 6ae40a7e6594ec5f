"""Rasters onto a grid: where pixels lie, exact and whatever the window, and the kernels that weigh them."""

from geopipes.read.warps.locating import Located, located, touched
from geopipes.read.warps.operations import operation
from geopipes.read.warps.resampling import resample

__all__ = ["Located", "located", "operation", "resample", "touched"]
