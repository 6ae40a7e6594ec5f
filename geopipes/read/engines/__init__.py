"""The layout of a cube, and two engines that fill it on dask: odc-stac and stackstac.

For whole-area work and for clusters. Both are handed the same rasters and give the same Dataset, because
little is left to them: every band of every source is described as a raster of its own, floats that are NaN
wherever the file or the item says that nothing was measured (`layers.single_band`). So neither library reads
band metadata, knows a nodata value or sees a mask; the first pixel of a step that is not NaN wins.
"""

from geopipes.read.engines.layout import dataset
from geopipes.read.engines.loads import load_odc, load_stackstac

__all__ = ["dataset", "load_odc", "load_stackstac"]
