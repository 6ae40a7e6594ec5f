"""The value that stands for no measurement, as the pixels of a dtype hold it: said here alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Dtype = np.dtype[Any]


def usable_nodata(nodata: float | None, dtype: Dtype) -> float | None:
    """Give nodata as pixels of a dtype hold it; None where they cannot: GDAL would clamp it to one they can."""
    if dtype.kind == "f":
        if nodata is None or np.isnan(nodata):
            return float("nan")
        with np.errstate(over="ignore"):
            held = float(dtype.type(nodata))
        return held if np.isfinite(held) or np.isinf(nodata) else float("nan")
    if nodata is None or not float(nodata).is_integer():
        return None
    bounds = np.iinfo(dtype)
    return int(nodata) if bounds.min <= nodata <= bounds.max else None


@lru_cache(maxsize=4096)
def marks(nodata: tuple[float | None, ...], dtype: Dtype) -> tuple[Array, Array]:
    """Give the values that stand for no measurement in some bands, and whether there is one: (band,) both."""
    held = [usable_nodata(value, dtype) for value in nodata]
    marked = [value is not None and value == value for value in held]
    return np.array([value if there else 0 for value, there in zip(held, marked, strict=True)], dtype), np.array(marked)
