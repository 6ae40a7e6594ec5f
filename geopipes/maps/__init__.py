"""From tensors back to a map: a model's answers, stitched as they come, and written so that a run can go on.

And what is made of a map: polygons and their areas, and its STAC item. These need no torch, so that names are imported
when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geopipes.maps.datasets import load
    from geopipes.maps.documents import Model, model_item, stac_item
    from geopipes.maps.mosaics import Mosaic
    from geopipes.maps.polygons import area_statistics, polygonize
    from geopipes.maps.predicting import Predict, predict
    from geopipes.maps.stitching import stitch
    from geopipes.maps.writing import Written, write

_PLACES = {
    "Model": "documents", "Mosaic": "mosaics", "Predict": "predicting", "Written": "writing",
    "area_statistics": "polygons", "load": "datasets", "model_item": "documents", "polygonize": "polygons",
    "predict": "predicting", "stac_item": "documents", "stitch": "stitching", "write": "writing",
}  # fmt: skip

__all__ = [
    "Model", "Mosaic", "Predict", "Written", "area_statistics", "load", "model_item", "polygonize", "predict",
    "stac_item", "stitch", "write",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a name from its module."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
