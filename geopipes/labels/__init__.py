"""Vectors to labels: masks, instances and boxes on the pixels of cubes; classes to other classes."""

from geopipes.labels.boxes import Labels, boxes, boxes_to_frame
from geopipes.labels.rasterizing import rasterize
from geopipes.labels.remapping import remap, remapping

__all__ = ["Labels", "boxes", "boxes_to_frame", "rasterize", "remap", "remapping"]
