"""Tensors back to a map, and what is made of it."""

from geopipes.maps.polygons import area_statistics, polygonize

__all__ = ["area_statistics", "polygonize"]
