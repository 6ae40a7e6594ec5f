"""A cube for each point, anywhere on Earth, searched for when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import floor
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import pystac
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geopipes.chips.cutting import _pair
from geopipes.chips.footprints import DEGREES
from geopipes.chips.places import given, moved, table_columns
from geopipes.chips.windows import Windows
from geopipes.datacubes.cube import Cube, Cubes, Window
from geopipes.errors import ChipError, EmptySearch
from geopipes.threads import mapped

if TYPE_CHECKING:
    import geopandas
    from shapely import Geometry

Bounds = tuple[float, float, float, float]
Find = Callable[[Bounds, str | None], Sequence[pystac.Item]]
Stacking = Callable[[Sequence[pystac.Item], GeoBox], Cubes]

UTM_SOUTH, UTM_NORTH = -80.0, 84.0
"""Latitudes between which UTM is in use."""


def seek(
    points: geopandas.GeoDataFrame | geopandas.GeoSeries,
    size: int | tuple[int, int],
    find: Find,
    stack: Stacking,
    *,
    resolution: float,
    datetime: str | None = None,
    margin: int = 0,
) -> Windows:
    """Plan a chip around each point, anywhere on Earth: a search for each, and a cube as large as its chip.

    Nothing is searched here. A chip's items are found when it is first looked at or read, or all together by
    `settle`; what was found is remembered.

    Parameters
    ----------
    points : in any CRS, which they state
    size : of a chip [px], one number or (y, x)
    find : gives the items of (west, south, east, north) [degrees] and ``datetime``:
        ``lambda bounds, datetime: catalogs.search(url, collections=[...], bbox=bounds, datetime=datetime)``
    stack : gives the one cube of items on a grid:
        ``lambda items, geobox: datacubes.stack(items, ["red", "nir"], geobox=geobox)``. Both at the top level of a
        module where worker processes are used
    resolution : pixel size [m]; the grid is that of the point's UTM zone, its edges multiples of the resolution
    datetime : is handed to ``find``
    margin : pixels read beyond the chip on every side, which the cube holds too

    Returns
    -------
    a window, of all dates, for each point, in their order, with their attributes as columns and ``point``, their
    label in the table's index

    Raises
    ------
    ChipError
        for other shapes than points, and points at latitudes where there is no UTM
    """
    call = f"seek(size={size})"
    height, width = _pair(size, "size", "seek")
    if min(height, width) < 1 or margin < 0 or not resolution > 0:
        raise ChipError(f"{call}: size {height} x {width} px, margin {margin}, resolution {resolution}; all above 0")
    shapes, crs = given(points, call)
    if (shapely.get_type_id(shapes) != shapely.GeometryType.POINT).any():
        raise ChipError(f"{call}: other shapes than points; write points.representative_point()")
    places = shapely.get_coordinates(moved(shapes, crs.proj, DEGREES))
    if not ((places[:, 1] >= UTM_SOUTH) & (places[:, 1] < UTM_NORTH)).all():
        raise ChipError(f"{call}: UTM ends at {UTM_SOUTH:g} and {UTM_NORTH:g} degrees, some points lie beyond")
    shape = (height + 2 * margin, width + 2 * margin)
    grids = [_grid(float(lon), float(lat), shape, resolution) for lon, lat in places]
    cubes = tuple(Sought(grid, find, stack, datetime) for grid in grids)
    start = np.full(len(cubes), margin)
    numbers = np.arange(len(cubes))
    columns = {"point": np.asarray(points.index), **table_columns(points, "point")}
    return Windows.of(cubes, (height, width), row=start, col=start, cube=numbers, margin=margin, columns=columns)


def settle(windows: Windows, *, threads: int = 8) -> Windows:
    """Run the searches of a plan now, several at a time, and leave out the points where nothing is found.

    Parameters
    ----------
    windows : of `seek`
    threads : that search

    Returns
    -------
    the windows whose items were found; ``left_out`` counts the others

    Raises
    ------
    EmptySearch
        if nothing is found at any point
    """
    if threads < 1:
        raise ChipError(f"settle(threads={threads}): at least one thread searches")
    cube = windows.cube
    used = np.unique(cube)
    there = np.zeros(len(windows.cubes), bool)
    there[used] = mapped(_has_items, [windows.cubes[index] for index in used], threads)
    kept = np.flatnonzero(there[cube])
    if len(kept) == 0:
        raise EmptySearch(f"settle: none of the {len(windows)} points has items; widen the dates or the filter of find")
    found, cube = np.unique(cube[kept], return_inverse=True)
    cubes = tuple(windows.cubes[index] for index in found)  # what is empty is not asked again, say for its dates
    return replace(windows.take(kept).placed(cube=cube), cubes=cubes, left_out=len(windows) - len(kept))


def _has_items(cube: Cube) -> bool:
    try:
        return not isinstance(cube, Sought) or cube.found is not None
    except EmptySearch:
        return False


def _grid(lon: float, lat: float, shape: tuple[int, int], resolution: float) -> GeoBox:
    """Give the grid of a point's UTM zone that has the point in its middle, within half a pixel."""
    zone = min(floor((lon + 180) % 360 / 6) + 1, 60)
    crs = f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"
    point = np.array([shapely.Point(lon, lat)], object)
    ((x, y),) = shapely.get_coordinates(moved(point, DEGREES, pyproj.CRS(crs))) / resolution
    left, top = round(x - shape[1] / 2), round(y + shape[0] / 2)
    return GeoBox(shape, Affine(resolution, 0, left * resolution, 0, -resolution, top * resolution), crs)


@dataclass(frozen=True, eq=False)
class Sought(Cube):
    """A cube on a grid whose items are searched for at the first need of more than its grid.

    Attributes
    ----------
    grid : of the cube
    find, stack, datetime : as in `seek`
    """

    grid: GeoBox
    find: Find
    stack: Stacking
    datetime: str | None
    lock: Any = field(default_factory=Lock, repr=False)

    @property
    def geobox(self) -> GeoBox:
        """The grid, known without a search."""
        return self.grid

    @property
    def found(self) -> Cube:
        """The cube of what was found; searched for once.

        Raises
        ------
        EmptySearch
            if there is no item, which the message names the place of
        ChipError
            if ``stack`` gives more than one cube, or another grid
        """
        with self.lock:
            if "_found" not in self.__dict__:
                self.__dict__["_found"] = self._search()
        cube: Cube = self.__dict__["_found"]
        return cube

    def _search(self) -> Cube:
        west, south, east, north = self.grid.extent.to_crs("EPSG:4326").boundingbox.bbox
        items = self.find((west, south, east, north), self.datetime)
        if len(items) == 0:
            raise EmptySearch(
                f"seek: no item within {west:.4f}, {south:.4f}, {east:.4f}, {north:.4f} ({self.datetime}); widen the "
                "dates or the filter of find, or leave such points out with settle()"
            )
        cubes = self.stack(items, self.grid).cubes
        if len(cubes) != 1 or cubes[0].geobox != self.grid:
            raise ChipError("seek(stack=...): one cube on the grid given is needed; write stack(..., geobox=geobox)")
        return cubes[0]

    @cached_property
    def dataset(self) -> Any:
        """All of the cube, lazy."""
        return self.found.dataset

    @cached_property
    def footprint(self) -> Geometry:
        """Where every source has pixels."""
        return self.found.footprint

    def read(self, window: Window, names: tuple[str, ...] | None = None) -> Any:
        """Read what was found."""
        return self.found.read(window, names)

    def keys(self, window: Window) -> list[Any]:
        """Ask what was found."""
        return self.found.keys(window)

    def place(self, window: Window) -> Any:
        """Ask what was found."""
        return self.found.place(window)

    def __getstate__(self) -> dict[str, Any]:
        """Travel with what was found, without the lock."""
        return {key: value for key, value in super().__getstate__().items() if key != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what `__getstate__` kept, with a lock of its own."""
        super().__setstate__({**state, "lock": Lock()})
