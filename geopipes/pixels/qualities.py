"""Quality bands: which values and bits name clouds, shadows and snow, product by product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from geopipes.edits import Array
from geopipes.errors import StepError
from geopipes.spelling import nearest

ALL_BITS = -1
"""The mask of a value that is a class as a whole."""

Test = tuple[int, int]
"""(mask, value): a pixel is of the class where ``pixel & mask == value``."""


@dataclass(frozen=True)
class Quality:
    """A product's quality band.

    Attributes
    ----------
    title, source : of the product, and where its table stands
    tests : of each class, by name
    fill : the test of pixels that were not measured
    usual : the classes that are masked where none are named
    """

    title: str
    source: str
    tests: Mapping[str, Test]
    fill: Test
    usual: tuple[str, ...]


def _classes(*names: str) -> dict[str, Test]:
    """Give classes that are values as a whole their numbers, from 1."""
    return {name: (ALL_BITS, value) for value, name in enumerate(names, 1)}


def _bits(*names: str, first: int = 0) -> dict[str, Test]:
    """Name single bits, in order."""
    return {name: (1 << bit, 1 << bit) for bit, name in enumerate(names, first)}


def _levels(name: str, first: int, levels: Sequence[str]) -> dict[str, Test]:
    """Name the values of a field of two bits; the first of them, 0, stands for nothing and has no name."""
    return {f"{name}_{level}": (0b11 << first, value << first) for value, level in enumerate(levels, 1)}


CONFIDENCES = ("low", "medium", "high")

QUALITIES: Mapping[str, Quality] = MappingProxyType({
    "scl": Quality(
        "the scene classification of Sentinel-2 L2A",
        "Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD, section on the L2A scene classification: "
        "https://sentiwiki.copernicus.eu/web/s2-processing",
        _classes(
            "saturated_or_defective", "dark_area", "cloud_shadow", "vegetation", "not_vegetated", "water",
            "unclassified", "cloud_medium", "cloud_high", "cirrus", "snow",
        ),
        (ALL_BITS, 0),
        ("cloud_shadow", "cloud_medium", "cloud_high", "cirrus"),
    ),
    "qa_pixel": Quality(
        "QA_PIXEL of Landsat Collection 2",
        "Landsat 8-9 Collection 2 Level 2 Science Product Guide, LSDS-1619, table 6-3; of Landsat 4-7 LSDS-1618, where "
        "cirrus is never set: https://www.usgs.gov/media/files/landsat-8-9-collection-2-level-2-science-product-guide",
        _bits("dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow", "clear", "water", first=1)
        | _levels("cloud_confidence", 8, CONFIDENCES)
        | _levels("cloud_shadow_confidence", 10, CONFIDENCES)
        | _levels("snow_confidence", 12, CONFIDENCES)
        | _levels("cirrus_confidence", 14, CONFIDENCES),
        (1, 1),
        ("dilated_cloud", "cirrus", "cloud", "cloud_shadow"),
    ),
    "fmask": Quality(
        "Fmask of Harmonized Landsat Sentinel-2 (HLS) 2.0",
        "HLS Product User Guide 2.0, table 9; cirrus is reserved there: https://lpdaac.usgs.gov/documents/1698/"
        "HLS_User_Guide_V2.pdf",
        _bits("cirrus", "cloud", "adjacent_to_cloud", "cloud_shadow", "snow", "water")
        | _levels("aerosol", 6, ("low", "moderate", "high")),
        (ALL_BITS, 255),
        ("cirrus", "cloud", "adjacent_to_cloud", "cloud_shadow"),
    ),
    "bqa": Quality(
        "BQA of Landsat 8 Collection 1",
        "Landsat 8 Data Users Handbook, LSDS-1574, version 5, table 4-8: https://www.usgs.gov/media/files/"
        "landsat-8-data-users-handbook",
        _bits("terrain_occlusion", first=1)
        | _bits("cloud", first=4)
        | _levels("saturation", 2, CONFIDENCES)
        | _levels("cloud_confidence", 5, CONFIDENCES)
        | _levels("cloud_shadow_confidence", 7, CONFIDENCES)
        | _levels("snow_confidence", 9, CONFIDENCES)
        | _levels("cirrus_confidence", 11, CONFIDENCES),
        (1, 1),
        ("cloud", "cloud_shadow_confidence_high", "cirrus_confidence_high"),
    ),
})  # fmt: skip
"""Quality bands by the name that their products give them."""


def recognised(name: str, attrs: Mapping[Any, Any], product: str | None) -> Quality:
    """Tell whose quality band a variable is: as it is said, or by the name that it or its asset has.

    Raises
    ------
    StepError
        for another product, and where nothing tells it
    """
    if product is not None:
        if product not in QUALITIES:
            raise StepError(
                f"mask_clouds(product={product!r}): write one of {sorted(QUALITIES)}{nearest(product, QUALITIES)}"
            )
        return QUALITIES[product]
    for candidate in (name, str(attrs.get("band", ""))):
        found = QUALITIES.get(candidate.rpartition("#")[0].lower() or candidate.lower())
        if found is not None:
            return found
    raise StepError(
        f"mask_clouds({name!r}): neither its name nor its attributes tell whose quality band it is; write product= one "
        f"of {', '.join(f'{key!r} ({quality.title})' for key, quality in QUALITIES.items())}, or mask_values for others"
    )


def tests_of(quality: Quality, classes: Sequence[str] | None) -> tuple[Test, ...]:
    """Give the tests of some classes, by default of the usual ones.

    Raises
    ------
    StepError
        for a name that the product does not have
    """
    if isinstance(classes, str):
        classes = [classes]
    names = quality.usual if classes is None else tuple(classes)
    for name in names:
        if name not in quality.tests:
            raise StepError(
                f"mask_clouds: {quality.title} has no class {name!r}{nearest(name, quality.tests)} It has "
                f"{', '.join(quality.tests)}"
            )
    return tuple(quality.tests[name] for name in names)


def matching(values: Array, tests: tuple[Test, ...]) -> Array:
    """Say where pixels are of any class: bool, of the shape of the values, which are whole numbers."""
    if values.dtype.itemsize <= 2:  # all that they may be fits a small table
        unsigned = values.view(f"u{values.dtype.itemsize}")
        found: Array = np.take(_table(tests, values.dtype.str), unsigned, mode="clip")  # none is outside: half the time
        return found
    return _matching(values, tests)


@lru_cache(maxsize=64)
def _table(tests: tuple[Test, ...], dtype: str) -> Array:
    kind = np.dtype(dtype)
    return _matching(np.arange(256**kind.itemsize).astype(f"u{kind.itemsize}").view(kind), tests)


def _matching(values: Array, tests: tuple[Test, ...]) -> Array:
    wide = values.astype(np.int64)
    found: Array = np.zeros(values.shape, bool)
    for mask, value in tests:
        found |= (wide & mask) == value
    return found
