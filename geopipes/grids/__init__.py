"""The common grid: one `GeoBox` that all rasters of a stack are read onto, axis-aligned and north up."""

from geopipes.grids.choosing import choose
from geopipes.grids.extents import extent
from geopipes.grids.lattices import check_same, coordinates, crs_name, crs_of
from geopipes.read.sources import grid_key as key

__all__ = ["check_same", "choose", "coordinates", "crs_name", "crs_of", "extent", "key"]
