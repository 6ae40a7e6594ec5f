"""Vectors to a variable of cubes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from geopipes.datacubes.arranging import check_name
from geopipes.datacubes.cube import Cubes
from geopipes.datacubes.stacks import joined
from geopipes.errors import GridError, SourceError
from geopipes.labels.coding import Classes, Coding
from geopipes.labels.features import bounds_of
from geopipes.labels.items import label_classes
from geopipes.labels.masks import MaskCube, Rule, check_holds
from geopipes.labels.opening import opened
from geopipes.labels.sources import Vectors

if TYPE_CHECKING:
    import geopandas as gpd
    import pystac

Overlap = Literal["error", "first", "last", "smallest", "largest"]
OVERLAPS = ("error", "first", "last", "smallest", "largest")
SMALLEST = (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64)
"""Dtypes for classes, the smallest that holds them all."""


def rasterize(
    cubes: Cubes,
    source: str | os.PathLike[str] | gpd.GeoDataFrame | Iterable[pystac.Item],
    *,
    name: str,
    background: float,
    nodata: float | None = None,
    column: str | None = None,
    classes: Classes | None = None,
    instances: bool = False,
    all_touched: bool = False,
    overlap: Overlap = "error",
    priority: str | None = None,
    dtype: str | None = None,
    layer: str | None = None,
) -> Cubes:
    """Join polygons, lines or points as a variable: burnt onto the cubes' pixels, read by window.

    Parameters
    ----------
    cubes : what the variable is added to
    source : a path or URL of GeoPackage, FlatGeobuf, Shapefile, GeoJSON or GeoParquet; a GeoDataFrame; or items of
        STAC's label extension, whose label assets are read. Files with an index (GeoPackage, FlatGeobuf, Shapefile with
        ``.qix``) and GeoParquet in row groups with a bounding box column are read by window; others once, whole
    name : of the variable
    background : the number where no feature lies
    nodata : the number that stands for no label, kept as the attribute of that name. Sparse labels, which say nothing
        of what lies outside, have both alike: ``background=255, nodata=255``
    column : of the values; None burns 1, or of label items the one property they have
    classes : ``{"wheat": 1, "maize": 2}``, or names in the order of their numbers from 1. ``"*"`` stands for all other
        values, and None for a number leaves features out. None makes them, of all of the file: whole numbers are burnt
        as they are, texts are numbered from 1 in alphabetical order, without the numbers of background and nodata
    instances : burn each feature's own number, its id in the file + 1, int32
    all_touched : burn all pixels that a feature touches, not only those whose centre lies in it
    overlap : which feature wins where those of different numbers cover one pixel: the ``"first"`` or ``"last"`` in the
        file, the ``"smallest"`` or ``"largest"``; ``"error"`` refuses such places when they are read
    priority : a column of numbers, the highest of which wins; ``overlap`` decides among equal ones
    dtype : of the variable; None for the smallest that holds all numbers
    layer : of a file with several

    Returns
    -------
    the cubes with the variable (y, x). Its attributes ``class_values``, ``class_names`` and ``class_counts`` tell of
    the classes over all of the file

    Raises
    ------
    CatalogError
        for what cannot be read, or has no CRS or no features
    UnknownBand
        for a column that is not there
    SourceError
        for values that classes do not name, numbers that the dtype does not hold, features without geometry,
        coordinates that cannot be of their CRS, and, when read, overlaps that nothing decides
    GridError
        if no feature can touch the grids

    Notes
    -----
    Geometries are reprojected before they are burnt, once for each block of 512 x 512 px, and edges that this would
    bend by more than 0.05 px divided before. Pixels are those of ``rasterio.features.rasterize`` over the whole grid,
    whatever the chips. Polygons that are not valid are burnt by the even-odd rule: a bow-tie has two wings.
    """
    check_name(name)
    if overlap not in OVERLAPS:
        raise SourceError(f"rasterize(overlap={overlap!r}): use one of {', '.join(OVERLAPS)}, or priority=column")
    if instances and (column is not None or classes is not None):
        raise SourceError(
            "rasterize(instances=True) burns ids: leave out column= and classes=, which another one burns"
        )
    column, classes = (column, classes) if instances else label_classes(source, column, classes)
    columns = [one for one in dict.fromkeys((column, priority)) if one is not None]
    vectors = opened(source, columns, layer=layer)
    ids, values = vectors.table()
    _check_priority(values, priority)
    coded, reserved = ids if column is None else values[column], {background, nodata} - {None}
    coding = None if instances else Coding.of(column, coded, classes, reserved)
    kind = _dtype(dtype, coding, values, int(ids.max()) + 1, background, nodata)
    rule = Rule(name, kind, coding, background, nodata, all_touched, overlap, priority)
    masks = [MaskCube(vectors, cube.geobox, rule) for cube in cubes.cubes]
    check_touching(vectors, cubes, name)
    return Cubes([joined(cube, mask) for cube, mask in zip(cubes.cubes, masks, strict=True)])


def check_touching(vectors: Vectors, cubes: Cubes, name: str) -> None:
    """Raise where no feature can touch any of the grids.

    Raises
    ------
    GridError
        says where both lie
    """
    left, bottom, right, top = vectors.bounds
    there = []
    for cube in cubes.cubes:
        height, width = cube.geobox.shape
        box = bounds_of(slice(0, height), slice(0, width), cube.geobox, vectors.wkt)
        if box is not None and left <= box[2] and right >= box[0] and bottom <= box[3] and top >= box[1]:
            return
        there.append(box)
    grid = cubes.cubes[0].geobox
    here = None if there[0] is None else tuple(round(edge, 6) for edge in there[0])
    raise GridError(
        f"rasterize(name={name!r}): no feature of {vectors.name} touches the grid. In {vectors.crs.name} they lie "
        f"within {tuple(round(edge, 6) for edge in vectors.bounds)}, and the grid within {here}; "
        f"in its own CRS, {grid.crs}, that is {tuple(grid.boundingbox.bbox)}"
    )


def _dtype(
    given: str | None, coding: Coding | None, values: Any, most: int, background: float, nodata: float | None
) -> np.dtype[Any]:
    """Choose the dtype, and see that it holds all that is written."""
    numbers: dict[str, Any] = {"background": background, "nodata": nodata}
    if coding is None:
        numbers["the last feature's number"] = most
        kind = np.dtype(given or np.int32)
    elif coding.codes is None and coding.column is not None:  # numbers as they are
        column = values[coding.column]
        kind = np.dtype(given or (column.dtype if column.dtype.kind == "f" else np.int32))
        if column.dtype.kind == "f" and kind.kind != "f":
            raise SourceError(f"rasterize(column={coding.column!r}): holds fractions; dtype={given!r} would lose them")
        numbers |= {} if column.dtype.kind == "f" else {"the column's least": column.min(), "its most": column.max()}
    else:
        numbers |= {f"class {name!r}": code for code, name in coding.names.items()}
        numbers |= {f"code {code}": code for code in coding.counts}
        fit = [dtype for dtype in SMALLEST if all(_fits(n, np.dtype(dtype)) for n in numbers.values() if n is not None)]
        kind = np.dtype(given or (fit[0] if fit else np.float32))
    if kind.kind not in "iuf":
        raise SourceError(f"rasterize(dtype={given!r}): needed is a dtype of whole numbers, or of floats")
    check_holds(kind, numbers)
    return kind


def _fits(number: float, dtype: np.dtype[Any]) -> bool:
    info = np.iinfo(dtype)
    return number == number and int(number) == number and info.min <= number <= info.max


def _check_priority(values: Any, priority: str | None) -> None:
    if priority is not None:
        column = values[priority]
        if column.dtype.kind not in "biuf" or (column.dtype.kind == "f" and np.isnan(column).any()):
            raise SourceError(f"rasterize(priority={priority!r}): needed is a number for each feature; some have none")
