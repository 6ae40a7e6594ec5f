"""Dataset to Dataset along time: composites of periods, gaps filled, series on other dates.

Each pixel is looked at alone, over all dates; so these steps give the same on a chip as on the whole cube, on numpy
and on dask, before or after ``chip`` and ``read``. Chips must hold all dates.
"""

from geopipes.composites.composing import composite
from geopipes.composites.gaps import fill_gaps, interpolate

__all__ = ["composite", "fill_gaps", "interpolate"]
