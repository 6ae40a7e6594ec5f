"""From tensors back to a map, stitched and written as a model answers, and what is made of it: polygons, STAC items."""

from geopipes.maps.datasets import load
from geopipes.maps.documents import Model, model_item, stac_item
from geopipes.maps.mosaics import Mosaic
from geopipes.maps.polygons import area_statistics, polygonize
from geopipes.maps.predicting import Predict, predict
from geopipes.maps.stitching import stitch
from geopipes.maps.writing import Written, write

__all__ = [
    "Model",
    "Mosaic",
    "Predict",
    "Written",
    "area_statistics",
    "load",
    "model_item",
    "polygonize",
    "predict",
    "stac_item",
    "stitch",
    "write",
]
