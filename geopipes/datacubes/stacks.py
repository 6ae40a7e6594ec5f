"""From items to cubes: stacked over time, joined with what has no time, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pystac

from geopipes import grids
from geopipes.catalogs import Scenes
from geopipes.datacubes.arranging import AVERAGING, PerBand, searched, stacked, stated, step_key, touching, variable
from geopipes.datacubes.arraycube import ArrayCube
from geopipes.datacubes.cube import Cube, Cubes
from geopipes.datacubes.stackcube import StackCube
from geopipes.datacubes.together import JoinedCube, side_by_side
from geopipes.errors import EmptySearch, GridError, GridMismatch, SourceError
from geopipes.kinds import CATEGORICAL
from geopipes.read.engines import load_odc, load_stackstac
from geopipes.read.headers import sources
from geopipes.read.scales import Rescale, rescaled
from geopipes.read.sources import Source, Stack, Variable

if TYPE_CHECKING:
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from geopipes.read.bands import Bands

Engine = Literal["window", "odc", "stackstac"]


def stack(
    scenes: Scenes | Sequence[pystac.Item],
    bands: Bands = None,
    *,
    resolution: float | tuple[float, float] | None = None,
    crs: Any = None,
    bounds: tuple[float, float, float, float] | None = None,
    geobox: GeoBox | None = None,
    like: GeoBox | xr.Dataset | xr.DataArray | None = None,
    groupby: str | Callable[[pystac.Item], Any] = "time",
    resampling: str | PerBand = "nearest",
    dtype: str | PerBand | None = None,
    nodata: float | PerBand | None = None,
    rescale: Rescale = False,
    engine: Engine = "window",
    headers: Literal["item", "file"] = "item",
) -> Cubes:
    """Stack items to lazy cubes on a common grid; no pixels are read.

    Parameters
    ----------
    scenes : items, and the region they were searched in
    bands : asset keys, band or common names, ``"asset#2"`` for a band by number, patterns of keys
        (``"B0*"``); a mapping gives names of one's own, ``{"red": "B04"}``, and may list alternatives that are
        tried item by item, ``{"red": ["B04", "SR_B4"]}``. None for all raster data. An asset of many bands,
        asked for by its key, is one variable with a band dimension
    resolution : pixel size in the CRS's units, one number or (y, x); None for the finest of the sources
    crs : of the grid; ``"utm"`` gives one grid for each UTM zone; None for the CRS that all sources share
    bounds : (left, bottom, right, top) in the grid's CRS; None for the region searched
    geobox, like : the grid itself, or an xarray object on it
    groupby : what makes a time step: ``"time"`` (one datetime), ``"solar_day"``, ``"id"`` (each item), a
        property's name, or a function of the item. Within a step the first valid pixel by (datetime, id) wins
    resampling : ``"nearest"``, ``"bilinear"``, ``"cubic"``, ``"average"`` or ``"mode"`` for pixels that are not on
        the grid; one for all, or by band, ``{"scl": "nearest", "*": "bilinear"}``
    dtype : of the cube's pixels, one or by band; None for the files' own. Whole numbers are resampled to whole numbers,
        unless they are to be floats: ``dtype="float32"`` makes fractions of them
    nodata : the value that stands for no measurement where files do not say or say wrong, one or by band
    rescale : whether to read physical numbers, float32 ``scale * stored + offset``, by what each item states
        (``raster:bands``, STAC 1.1's ``raster:scale`` and ``raster:offset``) or its product is known for: Landsat
        Collection 2 Level 2, and Sentinel-2, whose offset is -0.1 since processing baseline 04.00 unless a flag
        (``earthsearch:boa_offset_applied``) says that it has been applied. It is done scene by scene, before they are
        mixed, and marked by the attribute ``scaled``. Classes stay as they are, and so do bands of which no item tells
        anything. Where an item contradicts itself, ``"flag"``, ``"bands"`` or ``"baseline"`` says which of these to
        believe; a function of an item and the key of its asset gives (scale, offset), or None, by itself
    engine : ``"window"``, our own reader; ``"odc"`` or ``"stackstac"``, which give the same layout on dask for
        whole-area work
    headers : ``"file"`` opens every file rather than believe what the items state of it

    Returns
    -------
    one cube for each grid: variables (time, y, x), or (time, band, y, x); one boolean ``valid`` (time, y, x), the
    AND over the bands; floats are NaN exactly where it is False. An item that touches no pixel of the grid adds no
    time step

    Raises
    ------
    EmptySearch
        if there are no items
    UnknownBand, NotGeoreferenced, SourceError
        if an item lacks a band, a CRS or a transform, contradicts itself in what ``rescale`` asks for, classes would
        be averaged, or a name cannot be a variable's (``x``, ``time``)
    GridError
        if the sources' CRSs differ and none was chosen, or no item touches the grid
    """
    scenes = scenes if isinstance(scenes, Scenes) else Scenes(tuple(scenes))
    if len(scenes) == 0:
        raise EmptySearch("stack: there are no items; widen the search's region, dates or filter")
    found = sources(scenes.items, bands, modifier=scenes.modifier, headers=headers)
    found = rescaled([stated(band, nodata) for band in found], scenes.items, rescale)
    chosen = grids.choose(
        [source for band in found for source in band.sources],
        resolution=resolution, crs=crs, bounds=bounds, geobox=geobox, like=like, region=scenes.region,
    )  # fmt: skip
    steps = [step_key(item, source, groupby) for item, source in zip(scenes, found[0].sources, strict=True)]
    span = searched(scenes.searched, [source.time for source in found[0].sources])
    cubes: list[Cube] = []
    for grid, members in chosen:
        arranged = replace(stacked(found, steps, grid, set(members), resampling, dtype), span=span)
        if engine == "window":
            cubes.append(StackCube(arranged))
        elif engine in ("odc", "stackstac"):
            cubes.append(ArrayCube((load_odc if engine == "odc" else load_stackstac)(arranged), grid))
        else:
            raise SourceError(f"stack(engine={engine!r}): use 'window', 'odc' or 'stackstac'")
    return Cubes(cubes)


def join(
    cubes: Cubes,
    other: Scenes | Sequence[pystac.Item] | Cubes,
    *,
    name: str | None = None,
    bands: Bands = None,
    resampling: str | PerBand = "nearest",
    dtype: str | PerBand | None = None,
    nodata: float | PerBand | None = None,
) -> Cubes:
    """Join what has no time of its own, labels or elevation, read onto the cubes' grid.

    Parameters
    ----------
    cubes : what it is joined to
    other : items, mosaicked whatever their dates (the first valid pixel by (datetime, id) wins), or cubes
        without time on the same grids
    name : of the variable; None keeps the band's own name
    bands, resampling, dtype, nodata : as in `stack`. Whole numbers that are averaged, ``resampling="bilinear"``, are
        marked as a quantity (``categorical``, False); others that are joined are labels to `statistics`

    Returns
    -------
    the cubes with the variables (y, x) of the other; these keep their dtype and nodata, and leave the times and
    ``valid`` alone

    Raises
    ------
    EmptySearch, UnknownBand, NotGeoreferenced
        as in `stack`
    GridMismatch
        if cubes are given that are not on the same grids
    GridError
        if no item touches the grids
    SourceError
        if a name is taken or cannot be a variable's, or one name is given for several bands
    """
    if isinstance(other, Cubes):
        parts = [_on_grid(cube, other) for cube in cubes.cubes]
        return Cubes([joined(cube, part) for cube, part in zip(cubes.cubes, parts, strict=True)])
    scenes = other if isinstance(other, Scenes) else Scenes(tuple(other))
    if len(scenes) == 0:
        raise EmptySearch("join: there are no items to join; widen their search")
    found = [stated(band, nodata) for band in sources(scenes.items, bands, modifier=scenes.modifier)]
    if name is not None and len(found) != 1:
        raise SourceError(
            f"join(name={name!r}): there are {len(found)} bands, {[band.name for band in found]}: choose one with "
            "bands=[...], or leave name out"
        )
    places = [touching(found, cube.geobox, range(len(scenes))) for cube in cubes.cubes]
    if not any(places):
        raise _touching_none(found[0].sources, cubes.cubes[0].geobox)
    made = []
    for cube, step in zip(cubes.cubes, places, strict=True):
        variables = tuple(
            _told(variable(band, name or band.name, [step], resampling, dtype, cube.geobox)) for band in found
        )
        made.append(joined(cube, StackCube(Stack(cube.geobox, None, variables))))
    return Cubes(made)


def _told(variable: Variable) -> Variable:
    """Note that whole numbers which are to be averaged are no classes, for those who would take them for labels."""
    if variable.resampling not in AVERAGING or variable.dtype.kind not in "iu":
        return variable
    return replace(variable, attrs={**variable.attrs, CATEGORICAL: False})


def inputs(sources: Mapping[str, Cubes]) -> Cubes:
    """Put several sources side by side on one footprint, each with its own times and resolution.

    Parameters
    ----------
    sources : cubes by name, with one grid for each CRS; the first input's pixels count chips

    Returns
    -------
    one cube for each CRS; its elements are dicts of Datasets. Its footprint is what all inputs span, cut to edges
    that the pixels of all of them share

    Raises
    ------
    GridMismatch
        if the inputs' CRSs differ, or their pixels share no edges
    """
    if not sources:
        raise SourceError("inputs() needs at least one source, inputs(s2=..., dem=...)")
    by_crs: dict[str, dict[Any, Cube]] = {}
    for name, cubes in sources.items():
        by_crs[name] = {cube.geobox.crs: cube for cube in cubes.cubes}
        if len(by_crs[name]) != len(cubes):
            raise GridMismatch(f"inputs: {name!r} has several cubes of one CRS; give inputs(...) one grid for each CRS")
    head = next(iter(by_crs))
    for name, grids_of in by_crs.items():
        if grids_of.keys() != by_crs[head].keys():
            raise GridMismatch(
                f"inputs: {name!r} is in {sorted(map(str, grids_of))}, {head!r} in {sorted(map(str, by_crs[head]))}: "
                "give every stack(...) the same crs="
            )
    return Cubes([side_by_side({name: by_crs[name][crs] for name in sources}) for crs in by_crs[head]])


def union(several: Sequence[Cubes]) -> Cubes:
    """Make one source of several: their cubes one after the other."""
    return Cubes([cube for cubes in several for cube in cubes.cubes])


def joined(cube: Cube, other: Cube) -> Cube:
    """Join one cube; where the base is on dask and the other too, the result is a Dataset on dask."""
    taken = set(cube.dataset.data_vars) & (set(other.dataset.data_vars) - {"valid"})
    if taken:
        raise SourceError(f"join: the cube has a variable {sorted(taken)} already; give another name=")
    return JoinedCube(cube, other)


def _touching_none(sources: Sequence[Source], grid: GeoBox) -> GridError:
    """Make the error for rasters that lie elsewhere."""
    raster = sources[0].geobox
    return GridError(
        f"join: none of the {len(sources)} items touches the grid, {tuple(grid.boundingbox.bbox)} in "
        f"{grids.crs_name(grids.crs_of(grid))}; the first, {sources[0].item!r}, lies within "
        f"{tuple(raster.boundingbox.bbox)} in {grids.crs_name(grids.crs_of(raster))}: check its place, and that CRS"
    )


def _on_grid(cube: Cube, others: Cubes) -> StackCube | ArrayCube:
    """Find the cube on the same grid."""
    for other in others.cubes:
        if other.geobox.crs == cube.geobox.crs or len(others) == 1:
            grids.check_same(other.geobox, cube.geobox, "join")
            if "time" in other.dataset.dims:
                raise SourceError(
                    "join: the other has a time of its own; put them side by side, gp.inputs(a=..., b=...)"
                )
            if isinstance(other, ArrayCube | StackCube):
                return other
    raise GridMismatch(f"join: no cube of the other is in {cube.geobox.crs}; use reproject(...)")
