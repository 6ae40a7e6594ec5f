"""Tensors back to a map, and what is made of it."""

from geopipes.maps.documents import Model, model_item, stac_item
from geopipes.maps.polygons import area_statistics, polygonize

__all__ = ["Model", "area_statistics", "model_item", "polygonize", "stac_item"]
