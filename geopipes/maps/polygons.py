"""Maps to polygons: objects of one class, with their areas, found strip by strip."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geopipes.errors import SourceError
from geopipes.grids import crs_of
from geopipes.maps.components import Finder, Thing
from geopipes.maps.filling import fill
from geopipes.maps.ground import Ground, placed
from geopipes.maps.strips import Layer, Raster, check_same_grid, opened, strips
from geopipes.maps.vectors import driver_of, write_vectors
from geopipes.read.stated import named_crs

Classes = Sequence[float] | Mapping[float, str]
Geometries = npt.NDArray[np.object_]

LAND = "land_m2"
"""The attribute of a frame of polygons that says how much ground was looked at."""

HECTARE = 10_000.0
"""Square metres."""


@dataclass(frozen=True)
class Choice:
    """Which pixels become objects, and of which class.

    Attributes
    ----------
    threshold : pixels from here on are class 1; None for classes
    classes : the values that count; None for all
    """

    threshold: float | None
    classes: tuple[float, ...] | None

    @classmethod
    def of(cls, dtype: np.dtype[Any], threshold: float | None, classes: Classes | None) -> Choice:
        """Check what was asked for.

        Raises
        ------
        SourceError
            for a threshold and classes, classes that are no whole numbers, and numbers that are no classes
        """
        if threshold is not None and classes is not None:
            raise SourceError("polygonize(threshold=..., classes=...): give one of them")
        if threshold is None and classes is None and dtype.kind not in "iub":
            raise SourceError(
                f"polygonize: the raster is {dtype}, which is no class; write threshold=0.5, or classes=[1, 2]"
            )
        if classes is not None and (not len(classes) or any(float(value) != int(value) for value in classes)):
            raise SourceError(
                f"polygonize(classes={classes!r}): give whole numbers, [1, 2] or {{1: 'crop', 2: 'water'}}"
            )
        return cls(threshold, None if classes is None else tuple(classes))

    def of_pixels(self, pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
        """Give (values, inside): the class of each pixel, whole numbers, and which of them count."""
        if self.threshold is not None:
            inside = valid & (pixels >= self.threshold)
            return inside.view(np.uint8), inside
        inside = valid if self.classes is None else valid & np.isin(pixels, self.classes)
        wide = pixels.dtype.kind not in "iub" or pixels.dtype.itemsize > 4 or pixels.dtype == np.uint32
        values = np.where(inside, pixels, 0).astype(np.int64 if wide else np.int32)  # two kernels are compiled, not ten
        return values, inside


def polygonize(
    raster: Raster,
    path: str | os.PathLike[str] | None = None,
    *,
    threshold: float | None = None,
    classes: Classes | None = None,
    probability: Raster | int | None = None,
    band: int = 1,
    connectivity: Literal[4, 8] = 4,
    smallest: float = 0.0,
    holes: float = 0.0,
    simplify: float | None = None,
    strip: int | None = None,
) -> gpd.GeoDataFrame:
    """Make polygons of the objects of a map: connected pixels of one class.

    The raster is read once, by strips; an object over many strips is one polygon, the same as if the raster were
    taken whole. Memory holds a strip, and the polygons.

    Parameters
    ----------
    raster : a path, an item, what ``gp.rasters`` gives, or an array with a CRS; its nodata and NaN are of no class
    path : where to write them too: .parquet (GeoParquet), .geojson (in longitude and latitude, RFC 7946) or .fgb
        (FlatGeobuf); the file appears whole or not at all
    threshold : for probabilities: pixels from here on are class 1, others are no object
    classes : the values that become objects, with their names if it is a mapping; None for all of a raster of whole
        numbers
    probability : whose mean over each object is wanted: a raster on the same grid, or the number of another band; with
        a threshold it is the raster itself
    band : of the raster, from 1
    connectivity : 8 if pixels that share a corner alone belong together. Such an object is a MultiPolygon
    smallest : objects that cover less are left out [m2]
    holes : holes that cover less are filled [m2], after small objects are left out: their ground, nodata too, belongs
        to the object around them, and objects that lie within go
    simplify : tolerance, in units of the CRS, by which outlines are simplified (Visvalingam-Whyatt, as GEOS's coverage
        simplification does it: corners whose triangle is smaller than the tolerance's square go). Neighbours keep
        their common border: no gaps, no overlaps, and no object vanishes
    strip : rows read at once; whatever it is, the polygons are the same

    Returns
    -------
    GeoDataFrame in the raster's CRS, in the order of the objects' first pixels: ``class``, ``name`` (where classes
    have names), ``area_m2`` on the ellipsoid of the CRS, of the pixels as they are before they are simplified,
    ``probability`` (of the object's own pixels, without filled holes), ``geometry``. ``attrs["land_m2"]`` is the area
    of all pixels that are not nodata.

    Raises
    ------
    SourceError
        for what is no raster of classes or probabilities, and a path of another kind
    GridMismatch
        for probabilities on another grid
    ReadError
        for a file that cannot be read
    """
    if connectivity not in (4, 8):
        raise SourceError(f"polygonize(connectivity={connectivity!r}): write 4 or 8")
    if smallest < 0 or holes < 0 or (simplify is not None and simplify < 0):
        raise SourceError(f"polygonize({smallest=}, {holes=}, {simplify=}): areas and tolerances are 0 or more")
    if path is not None:
        driver_of(path)
    weighing: Layer | None = None
    with ExitStack() as stack:
        layer = stack.enter_context(opened(raster, band=band, what="polygonize(raster)"))
        choice = Choice.of(layer.dtype, threshold, classes)
        if probability is not None:
            other, number = (raster, probability) if isinstance(probability, int) else (probability, 1)
            weighing = stack.enter_context(opened(other, band=number, what="polygonize(probability=...)"))
            check_same_grid(layer, weighing, "polygonize(probability=...)")
        elif threshold is not None:
            weighing = layer
        ground = Ground(layer.geobox)
        finder = Finder(diagonal=connectivity == 8, smallest=smallest)
        things, land = _search(layer, weighing, choice, ground, finder, strip)
    if holes:
        things = fill(things, holes, ground)
    frame = _frame(things, layer.geobox, simplify, weighed=weighing is not None)
    if isinstance(classes, Mapping):
        frame.insert(
            1, "name", frame["class"].map({int(value): name for value, name in classes.items()}).astype(object)
        )
    frame.attrs[LAND] = land
    if path is not None:
        write_vectors(frame, path)
    return frame


def area_statistics(polygons: gpd.GeoDataFrame, *, land_m2: float | None = None) -> pd.DataFrame:
    """Sum up polygons by class.

    Parameters
    ----------
    polygons : as `polygonize` gives them: ``class``, perhaps ``name``, and ``area_m2``
    land_m2 : the area that shares are of [m2]; None for that of the pixels that were not nodata, which `polygonize`
        left in ``polygons.attrs["land_m2"]`` (a file does not keep it)

    Returns
    -------
    DataFrame indexed by ``class``: ``name`` where there is one, ``count`` of objects, ``area_m2``, ``area_ha``,
    ``share`` of land (0..1), ``mean_m2`` and ``median_m2`` of an object

    Raises
    ------
    SourceError
        for polygons without these columns, and where the area of land is not known
    """
    land = polygons.attrs.get(LAND) if land_m2 is None else land_m2
    if missing := {"class", "area_m2"} - set(polygons.columns):
        raise SourceError(f"area_statistics: the polygons have no column {sorted(missing)}; take those of polygonize()")
    if land is None or not land > 0:
        raise SourceError(
            "area_statistics: the area of land is not known, which shares are of; write land_m2=..., as "
            "polygonize(...).attrs['land_m2'] said it"
        )
    groups = polygons.groupby("class")
    area = groups["area_m2"]
    table = pd.DataFrame({"count": area.size(), "area_m2": area.sum()})
    table = table.assign(area_ha=table.area_m2 / HECTARE, share=table.area_m2 / land)
    table = table.assign(mean_m2=area.mean(), median_m2=area.median())
    if "name" in polygons:
        table.insert(0, "name", groups["name"].first())
    return table


def _search(
    layer: Layer, weighing: Layer | None, choice: Choice, ground: Ground, finder: Finder, strip: int | None
) -> tuple[list[Thing], float]:
    """Find all objects, in the order of their first pixels, and the area that is not nodata [m2]."""
    things: list[Thing] = []
    land = 0.0
    for rows in strips(layer, strip):
        pixels, valid = layer.read(rows)
        areas = ground.areas(rows)
        land += float(areas[valid].sum())
        weights = None if weighing is None else (pixels, valid) if weighing is layer else weighing.read(rows)
        things += finder.strip(*choice.of_pixels(pixels, valid), areas, weights)
    things += finder.rest()
    return sorted(things, key=lambda thing: thing.first), land


def _frame(things: list[Thing], geobox: GeoBox, simplify: float | None, *, weighed: bool) -> gpd.GeoDataFrame:
    """Make the table of objects."""
    outlines = np.array([thing.outline for thing in things], object)
    columns = {
        "class": np.array([thing.value for thing in things], np.int64),
        "area_m2": np.array([thing.area for thing in things], float),
    }
    if weighed:
        columns["probability"] = np.array([thing.probability for thing in things], float)
    if simplify is not None and len(outlines):
        outlines = shapely.coverage_simplify(_placed(_noded(outlines), geobox.transform), simplify)
    else:
        outlines = _placed(outlines, geobox.transform)
    return gpd.GeoDataFrame(columns, geometry=outlines, crs=named_crs(crs_of(geobox)).proj)


def _noded(outlines: Geometries) -> Geometries:
    """Give all outlines the corners of their neighbours too, along common borders, in pixels."""
    polygons, of = shapely.get_parts(outlines, return_index=True)
    dense = shapely.transform(shapely.segmentize(polygons, 1.0), np.round)
    kind, places, (rings, offsets) = shapely.to_ragged_array(dense)
    kept = np.isin(_codes(places), _codes(shapely.get_coordinates(polygons)))
    rings = np.concatenate([[0], np.cumsum(kept)])[rings]
    noded = shapely.from_ragged_array(kind, places[kept], (rings, offsets))
    found = np.array(shapely.multipolygons(noded, indices=of), object)
    alone = np.bincount(of, minlength=len(outlines)) == 1
    found[alone] = noded[alone[of]]
    return found


def _codes(places: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Write whole numbers x, y as one."""
    codes: npt.NDArray[np.int64] = (places[:, 0].astype(np.int64) << 32) + places[:, 1].astype(np.int64)
    return codes


def _placed(outlines: Geometries, transform: Affine) -> Geometries:
    """Bring pixels to the CRS."""

    def place(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack(placed(transform, *pixels.T), axis=1)

    return np.array(shapely.transform(outlines, place), object)
