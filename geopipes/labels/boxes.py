"""Boxes around the features of a chip: in map coordinates here, in pixels in its tensors, and back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from geopipes.errors import SourceError, StepError
from geopipes.labels.coding import Classes, Coding
from geopipes.labels.features import bounds_of, pixels
from geopipes.labels.items import label_classes
from geopipes.labels.opening import opened
from geopipes.labels.sources import Vectors

if TYPE_CHECKING:
    import pystac

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Labels:
    """Vectors and what is burnt of them, opened when they are first asked for; pickled, they are opened anew."""

    source: Any
    column: str | None = None
    classes: Classes | None = None
    layer: str | None = None

    @cached_property
    def opened(self) -> tuple[Vectors, Coding]:
        """The vectors, and how their values become numbers."""
        column, classes = label_classes(self.source, self.column, self.classes)
        vectors = opened(self.source, [] if column is None else [column], layer=self.layer)
        ids, values = vectors.table()
        return vectors, Coding.of(column, ids if column is None else values[column], classes, {0})

    def document(self) -> dict[str, Any]:
        """Say what decides the boxes, for a fingerprint."""
        vectors, coding = self.opened
        codes = None if coding.codes is None else [[repr(value), code] for value, code in coding.codes.items()]
        return {"column": coding.column, "codes": codes, "rest": coding.rest} | vectors.document()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "opened"}


def boxes(
    chip: xr.Dataset,
    source: str | os.PathLike[str] | gpd.GeoDataFrame | Iterable[pystac.Item],
    *,
    name: str = "boxes",
    column: str | None = None,
    classes: Classes | None = None,
    min_visible: float = 0.0,
    layer: str | None = None,
) -> xr.Dataset:
    """Add the boxes around polygons or lines within a chip, in map coordinates.

    A feature that the chip's edge cuts has the box of its visible part; the chip's margin shows nothing.

    Parameters
    ----------
    chip : a loaded chip
    source, column, classes, layer : as `rasterize` takes them; numbers that are made begin with 1, since detectors keep
        0 for what is no object
    name : of the variable
    min_visible : the least share of a feature's area (of a line's length) that the chip must show, 0 to 1; whatever
        shows at all by default

    Returns
    -------
    the chip with ``boxes`` (object, edge), float64: left, bottom, right and top in the chip's CRS; and for each object
    ``boxes_label``, int64; ``boxes_id``, int64, which is that of instances; ``boxes_visible``, the share that shows.
    ``tensor(image=[...], target="boxes")`` makes of these what torchvision's detectors take

    Raises
    ------
    SourceError
        for points, which have no extent, and whatever `rasterize` refuses
    StepError
        for what is no loaded chip
    """
    if not isinstance(chip, xr.Dataset) or "spatial_ref" not in chip.coords:
        raise StepError(f"boxes() takes a chip with y, x and spatial_ref, this is {type(chip).__name__}")
    if not 0 <= min_visible <= 1:
        raise SourceError(f"boxes(min_visible={min_visible}): needed is a share, 0 to 1")
    labels = source if isinstance(source, Labels) else Labels(source, column, classes, layer)
    vectors, coding = labels.opened
    grid = _grid(chip)
    height, width = grid.shape
    around = bounds_of(slice(0, height), slice(0, width), grid, vectors.wkt)
    features = vectors.within(around or (np.inf, np.inf, np.inf, np.inf))
    column_values = features.ids if coding.column is None else features.values[coding.column]
    numbers, kept = coding.encode(column_values)
    shapes = shapely.make_valid(pixels(features.shapes, vectors.wkt, grid))
    if (shapely.get_dimensions(shapes) == 0).any():
        raise SourceError(f"boxes: {vectors.name} holds points, which have no extent; frame.buffer(...) gives them one")
    seen = shapely.clip_by_rect(shapes, 0, 0, width, height)
    visible = _extent(seen) / _extent(shapes)
    shown = kept & (visible > 0) & (visible >= min_visible)
    x0, y0, x1, y1 = shapely.bounds(seen[shown]).reshape(-1, 4).T
    a, _, c, _, e, f = grid.affine[:6]
    there = np.stack([c + a * x0, f + e * y1, c + a * x1, f + e * y0], axis=1)
    row = f"{name}_object"
    return chip.assign(
        {
            name: ((row, "edge"), there, {"boxes": True, "joined": True}),
            f"{name}_label": (row, numbers[shown].astype(np.int64), {"joined": True}),
            f"{name}_id": (row, features.ids[shown].astype(np.int64) + 1, {"joined": True}),
            f"{name}_visible": (row, visible[shown], {"joined": True}),
        }
    )


def boxes_to_frame(
    targets: Sequence[Mapping[str, Any]], batch: Mapping[str, Any], *, crs: Any = None
) -> gpd.GeoDataFrame:
    """Put boxes in pixels back on the map.

    Parameters
    ----------
    targets : for each chip what a detector gives or takes: ``boxes`` (n, 4), x0, y0, x1 and y1 in pixels, and any other
        values of n objects, such as ``labels`` and ``scores``; tensors or arrays
    batch : the chips: their ``chip``, ``transform`` and ``crs``, as `geopipes.tensors.collate` makes them
    crs : of the result; None for that of the chips, where they share one

    Returns
    -------
    a GeoDataFrame of boxes, in the order of the batch: ``chip``, the values, ``geometry``

    Raises
    ------
    SourceError
        if the numbers of targets and chips differ, or chips have several CRSs and none was chosen
    """
    chips, transforms, names = (list(batch[key]) for key in ("chip", "transform", "crs"))
    if len(targets) != len(chips):
        raise SourceError(f"boxes_to_frame: {len(targets)} targets of {len(chips)} chips; needed is one for each")
    if crs is None and len({*names}) > 1:
        raise SourceError(f"boxes_to_frame: chips are in {', '.join(sorted({*names}))}; choose one, crs='EPSG:4326'")
    crs = names[0] if crs is None else crs
    parts = []
    for target, chip, transform, own in zip(targets, chips, transforms, names, strict=True):
        x0, y0, x1, y1 = _array(target["boxes"]).reshape(-1, 4).astype(float).T
        a, _, c, _, e, f = (float(number) for number in transform)
        shapes = shapely.box(c + a * x0, f + e * y1, c + a * x1, f + e * y0)
        values = {key: _array(value) for key, value in target.items() if key != "boxes"}
        chip_ids = np.full(len(shapes), int(chip))
        parts.append(gpd.GeoDataFrame({"chip": chip_ids, **values}, geometry=shapes, crs=own).to_crs(crs))
    return gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), crs=crs)


def _grid(chip: xr.Dataset) -> GeoBox:
    """Give the grid of a chip, without its margin."""
    attrs = chip["spatial_ref"].attrs
    x, dx, _, y, _, dy = (float(number) for number in attrs["GeoTransform"].split())
    margin = int(chip["chip"].attrs.get("margin", 0)) if "chip" in chip.coords else 0
    shape = (chip.sizes["y"] - 2 * margin, chip.sizes["x"] - 2 * margin)
    return GeoBox(shape, Affine(dx, 0, x + margin * dx, 0, dy, y + margin * dy), attrs["crs_wkt"])


def _extent(shapes: Array) -> Array:
    """Give the area of polygons, and the length of lines."""
    area = shapely.area(shapes)
    return np.where(shapely.get_dimensions(shapes) < 2, shapely.length(shapes), area)


def _array(values: Any) -> Array:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
