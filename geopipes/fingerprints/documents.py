"""What decides the pixels of a plan, as a document one can read and as a hash of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from geopipes.datacubes.arraycube import ArrayCube
from geopipes.datacubes.cube import Cube, Cubes, MappedCube
from geopipes.datacubes.elsewhere import ReprojectedCube
from geopipes.datacubes.stackcube import StackCube
from geopipes.datacubes.together import InputsCube, JoinedCube
from geopipes.errors import SourceError
from geopipes.fingerprints.values import dataset_document, hashed, step_document
from geopipes.fingerprints.words import Document, digest
from geopipes.labels.masks import MaskCube
from geopipes.read.hrefs import unsigned
from geopipes.steps import Step

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from geopipes.chips import Windows
    from geopipes.read.sources import Source, Variable

VERSION = 1
"""Of what stands in a document; another number is another meaning."""


def fingerprint(windows: Windows, *, chips: bool = True) -> str:
    """Give a hash of what decides the pixels of a plan.

    Parameters
    ----------
    windows : the plan
    chips : whether the windows themselves count, in their order; without them, plans that choose and order
        differently have one fingerprint

    Returns
    -------
    SHA-256 of `describe`, 64 hexadecimal digits. The same in every process; where the steps hold a lambda, or
    another function that no import finds, the same on one minor version of Python

    Raises
    ------
    StepError
        if a function's argument cannot be told from another
    SourceError
        if an array is neither in memory nor on dask, nor from a file
    """
    return digest(describe(windows, chips=chips))


def describe(windows: Windows, *, chips: bool = True) -> Document:
    """Write down what decides the pixels of a plan: cubes, sizes, steps and windows.

    Parameters
    ----------
    windows, chips : as `fingerprint` takes them

    Returns
    -------
    what JSON can hold: ``version``, ``size``, ``margin``, ``dates``, ``cubes`` (grids; rasters as their number and a
    hash of their unsigned hrefs, bands, grids, dtypes, nodata and scales), ``steps`` and ``chips``; of groups
    ``members``, the same of each
    """
    document: Document = {
        "version": VERSION,
        "size": list(windows.size),
        "margin": windows.margin,
        "dates": windows.dates,
        "cubes": [_cube(cube) for cube in windows.cubes],
        "steps": [step_document(step) for step in windows.steps],
    }
    if members := _members(windows):
        document["members"] = {name: describe(member, chips=chips) for name, member in members.items()}
    if chips:
        document["chips"] = {"count": len(windows), "sha256": hashed(windows.deciding())}
    return document


def steps_fingerprint(source: Windows | Cubes | None, after: Iterable[Step] = ()) -> str:
    """Give a hash of the steps that an element has been through: SHA-256 of `chain`."""
    return digest(chain(source, after))


def chain(source: Windows | Cubes | None, after: Iterable[Step] = ()) -> Document:
    """Write down the steps that an element has been through, wherever they stand: before chip, after it, after read.

    Places, dates, order and number of the chips do not count.

    Parameters
    ----------
    source : a plan or cubes; None for elements from elsewhere
    after : the steps after ``read``

    Returns
    -------
    what JSON can hold: ``variables``, the dtype of each before the steps, and ``steps``. Where cubes of one plan have
    been through different steps, these stand first as one, ``either``
    """
    cubes = () if source is None else source.cubes
    dtypes: dict[str, set[str]] = {}
    for name, dtype in (pair for cube in cubes for pair in _variables(cube)):
        dtypes.setdefault(name, set()).add(dtype)
    ways = {json.dumps(way): way for way in (_steps(cube) for cube in cubes)}
    steps = next(iter(ways.values()), []) if len(ways) < 2 else [{"either": [ways[key] for key in sorted(ways)]}]
    steps = [*steps, *(step_document(step) for step in (*_recorded(source), *after))]
    variables = {name: " or ".join(sorted(found)) for name, found in sorted(dtypes.items())}
    return {"version": VERSION, "variables": variables, "steps": steps}


def _members(source: Any) -> Mapping[str, Windows]:
    """Give the plans that groups are made of; none of other plans."""
    found: Mapping[str, Windows] = getattr(source, "members", {})
    return found


def _recorded(source: Any) -> Iterator[Step]:
    """Give the steps of a plan, of groups first those that each member, like the first, goes through."""
    for member in islice(_members(source).values(), 1):
        yield from _recorded(member)
    yield from getattr(source, "steps", ())


def _cube(cube: Cube) -> Document:
    """Describe a cube."""
    cube = _typed(cube)
    if isinstance(cube, MappedCube):
        return {"kind": "mapped", "base": _cube(cube.base), "step": step_document(cube.step)}
    document: Document = {"grid": _grid(cube.geobox)}
    if isinstance(cube, StackCube):
        times = None if cube.stack.times is None else [str(time) for time in cube.stack.times]
        return document | {
            "kind": "stack",
            "times": times,
            "span": None if cube.stack.span is None else [str(end) for end in cube.stack.span],
            "variables": [_variable(variable) for variable in cube.stack.variables],
        }
    if isinstance(cube, JoinedCube):
        return document | {"kind": "joined", "base": _cube(cube.base), "other": _cube(cube.other)}
    if isinstance(cube, InputsCube):
        return document | {"kind": "inputs", "inputs": {name: _cube(part) for name, part in cube.cubes.items()}}
    if isinstance(cube, ArrayCube):
        return document | {"kind": "arrays", "arrays": dataset_document(cube.array)}
    if isinstance(cube, ReprojectedCube):
        return document | {"kind": "reprojected", "resampling": cube.resampling, "base": _cube(cube.base)}
    if isinstance(cube, MaskCube):
        return document | {"kind": "mask", **cube.document()}
    raise SourceError(f"fingerprint: a cube of type {type(cube).__name__} is not known")


def _typed(cube: Cube) -> Cube:
    """Give a cube as it was typed, where steps were built into its graph."""
    return cube.typed or cube if isinstance(cube, ArrayCube) else cube


def _grid(grid: GeoBox) -> Document:
    return {"shape": list(grid.shape), "affine": [float(v) for v in grid.affine[:6]], "crs": str(grid.crs)}


def _variable(variable: Variable) -> Document:
    """Describe a variable of a stack, its rasters as a hash."""
    rasters = [source for date in variable.sources for source in date]
    listed = json.dumps([[_raster(source) for source in date] for date in variable.sources]).encode()
    return {
        "name": variable.name,
        "dtype": str(variable.dtype),
        "nodata": _nodata(variable.nodata),
        "resampling": variable.resampling,
        "labels": list(variable.labels or ()),
        "rasters": len(rasters),
        "first": unsigned(rasters[0].href) if rasters else None,
        "sha256": hashlib.sha256(listed).hexdigest(),
        "attrs": dict(variable.attrs),  # by which steps know a band
    }


def _nodata(nodata: float | None) -> float | str | None:
    """Give nodata as a number that JSON can hold: 0 and 0.0 are one."""
    return None if nodata is None else float(nodata) if math.isfinite(nodata) else str(float(nodata))


def _raster(source: Source) -> list[Any]:
    grid = list(_grid(source.geobox).values())
    scaled = [] if source.scale is None else [list(source.scale)]
    return [unsigned(source.href), list(source.bands), grid, str(source.dtype), _nodata(source.nodata), *scaled]


def _steps(cube: Cube) -> list[Document]:
    """Give the steps that the windows of a cube go through."""
    cube = _typed(cube)
    if isinstance(cube, MappedCube):
        return [*_steps(cube.base), step_document(cube.step)]
    if isinstance(cube, JoinedCube):
        return [*_steps(cube.base), *_steps(cube.other)]
    if isinstance(cube, InputsCube):
        parts = {name: _steps(part) for name, part in cube.cubes.items()}
        return [{"inputs": parts}] if any(parts.values()) else []
    return []


def _variables(cube: Cube) -> Iterator[tuple[str, str]]:
    """Give the name and dtype of each variable before any step."""
    cube = _typed(cube)
    if isinstance(cube, StackCube):
        yield from ((variable.name, str(variable.dtype)) for variable in cube.stack.variables)
    elif isinstance(cube, MappedCube):
        yield from _variables(cube.base)
    elif isinstance(cube, JoinedCube):
        yield from (pair for part in (cube.base, cube.other) for pair in _variables(part))
    elif isinstance(cube, InputsCube):
        parts = cube.cubes.items()
        yield from ((f"{part}/{name}", dtype) for part, base in parts for name, dtype in _variables(base))
    else:
        yield from ((str(name), str(v.dtype)) for name, v in cube.dataset.data_vars.items() if name != "valid")
