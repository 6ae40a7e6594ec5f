"""Cubes to windows: which pixels make a chip, as integer arrays, before any is read."""

from geopipes.chips.cutting import Coverage, Edge, chip, slices
from geopipes.chips.loading import Reading, load, look
from geopipes.chips.windows import Windows, boxes

__all__ = ["Coverage", "Edge", "Reading", "Windows", "boxes", "chip", "load", "look", "slices"]
