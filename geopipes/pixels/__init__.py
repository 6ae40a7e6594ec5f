"""Dataset to Dataset: what happens to the pixels of a chip.

Each function is local: a pixel of the result depends on that pixel alone, or on a stated margin of neighbours, on its
own date alone. It therefore gives the same on a chip as on the whole cube, on numpy and on dask, before or after
``chip`` and ``read``.
"""

from geopipes.kinds import STALE
from geopipes.pixels.indices import differencing, indexing, normalized_difference, spectral_index
from geopipes.pixels.masks import clouding, mask, mask_clouds, mask_values, masking
from geopipes.pixels.scaling import decibels, scale, scaling, to_decibel
from geopipes.pixels.terrain import aspect, hillshade, slope

__all__ = [
    "STALE", "aspect", "clouding", "decibels", "differencing", "hillshade", "indexing", "mask", "mask_clouds",
    "mask_values", "masking", "normalized_difference", "scale", "scaling", "slope", "spectral_index", "to_decibel",
]  # fmt: skip
