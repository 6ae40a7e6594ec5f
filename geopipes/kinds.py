"""What numbers mean: classes, which are never averaged, or quantities; and what of their attributes goes stale."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

STALE = ("nodata", "_FillValue", "missing_value", "scale_factor", "add_offset", "valid_min", "valid_max", "valid_range")
"""Attributes of stored pixels that no longer hold once their values are changed."""

UNITS = "units"
"""The attribute that no longer holds either once values are scaled, or brought to a common scale."""

SCALED = "scaled"
"""The attribute of variables whose numbers are physical ones: scale and offset were applied."""

NORMALIZED = "normalized"
"""The attribute of variables that `normalize` brought to a common scale: none of amounts any more."""

CATEGORICAL = "categorical"
"""The attribute that says whether whole numbers are classes or flags, above all else."""

FLAGS = ("flag_values", "flag_masks", "flag_meanings")
"""Attributes by which the CF conventions (section 3.5) name classes and bits."""

CLASSES = frozenset(
    {
        "bqa", "cdl", "cloud_mask", "cloudmask", "cropland", "dataset_mask", "fmask", "land_cover", "landcover",
        "lulc", "map_class", "oa_fmask", "pixel_qa", "qa", "qa_aerosol", "qa_pixel", "qa_radsat", "quality", "scl",
        "sr_qa_aerosol", "worldcover",
    }
)  # fmt: skip
"""Names of bands that hold classes or bits, in lower case: of Sentinel-2, Landsat, HLS and land cover."""


def is_categorical(name: str, dtype: np.dtype[Any], attrs: Mapping[Any, Any] = MappingProxyType({})) -> bool:
    """Say whether a variable holds classes or flags, whose mean has no meaning.

    Only whole numbers do: the mean of booleans is a share. The attribute ``categorical`` decides where it is
    there: `stack` sets it where an item states ``classification:classes``, ``classification:bitfields`` or
    ``file:values``. Else CF's ``flag_values``, ``flag_masks`` and ``flag_meanings`` do, or else the name: `CLASSES`, in
    any case.

    Parameters
    ----------
    name, dtype, attrs : of the variable
    """
    if dtype.kind not in "iu":
        return False
    if CATEGORICAL in attrs:
        return bool(attrs[CATEGORICAL])
    return any(flag in attrs for flag in FLAGS) or name.lower() in CLASSES
