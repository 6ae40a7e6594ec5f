"""From a STAC search to tensors and back to a map, as a chain.

::

    search, items, rasters ──> stack ──> join ──> chip ──> split, shuffle ──> read ──> tensor ──> batch
          (items)                (lazy cubes)        (a plan: windows)        (chips)     (samples)
                                      └── map, mask_clouds, scale, ...: anywhere from stack on ──┘

    tensor, batch ──> predict ──> stitch ──> write ──> items again
                                (a map, in strips)   (COG, Zarr)

Nothing is searched until items are needed, and no pixel is read before ``read``::

    import geopipes as gp

    batches = (
        gp.search(url, collections=["sentinel-2-l2a"], bbox=bbox, datetime="2024-05/2024-09")
        .stack(["red", "nir", "scl"], resolution=10)
        .join(gp.rasters("cropland.tif"), name="crop")
        .chip(256)
        .shuffle(seed=0)
        .read()
        .normalized_difference("nir", "red", name="NDVI")
        .tensor(image=["red", "nir", "NDVI"], label="crop", fill=0)
        .batch(32)
    )
"""

from geopipes.errors import GeopipesError
from geopipes.pipe import Pipe, Plan, audit, cubes, inputs, items, mix, rasters, search, seek, storage, vectors
from geopipes.read.failures import Ledger

__version__ = "0.1.0"

__all__ = [
    "GeopipesError", "Ledger", "Pipe", "Plan", "audit", "cubes", "inputs", "items", "mix", "rasters", "search", "seek",
    "storage", "vectors",
]  # fmt: skip
