"""Source files: opened once, and decoded tile by tile into buffers of the caller.

Two kinds. ``cog`` reads tiled GeoTIFFs by byte ranges, where that is proven pixel-equal to GDAL; ``gdal`` reads
all else that GDAL does. `reason` says which a file is read by, and why.
"""

from geopipes.read.files.checks import check_bands, check_header
from geopipes.read.files.layouts import Array, File, Layout, Level, named
from geopipes.read.files.opening import assuming, at_hand, close_files, opened, reason, stamp

__all__ = [
    "Array",
    "File",
    "Layout",
    "Level",
    "assuming",
    "at_hand",
    "check_bands",
    "check_header",
    "close_files",
    "named",
    "opened",
    "reason",
    "stamp",
]
