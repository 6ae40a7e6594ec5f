"""From tensors back to a map: a model's answers, stitched as they come, and written so that a run can go on."""

from geopipes.maps.datasets import load
from geopipes.maps.mosaics import Mosaic
from geopipes.maps.predicting import Predict, predict
from geopipes.maps.stitching import stitch
from geopipes.maps.writing import Written, write

__all__ = ["Mosaic", "Predict", "Written", "load", "predict", "stitch", "write"]
