"""Measure: what must be known to choose chips, read once in a coarse pass and kept as columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
import xarray as xr

from geopipes import grids
from geopipes.chips.footprints import distinct, geodesic, members, rectangles
from geopipes.chips.keeping import Kept, Row
from geopipes.chips.laying import laid_on
from geopipes.chips.loading import Reading
from geopipes.chips.places import given, plane
from geopipes.chips.rows import chunks
from geopipes.chips.tables import OWN, assign
from geopipes.chips.windows import Indices, Windows
from geopipes.datacubes.cube import Cubes
from geopipes.datacubes.lazies import cropped
from geopipes.errors import ChipError, StepError
from geopipes.fingerprints import Document, chain, describe
from geopipes.progress import progressing
from geopipes.steps import Step
from geopipes.threads import in_order

if TYPE_CHECKING:
    import geopandas as gpd

MOST_CLASSES = 1000
"""Values of a variable in one chip beyond which it names no classes."""

Progress = Callable[[int, int], None]
"""Is told of the chips done, and of all."""


def measure(
    windows: Windows,
    path: str | PathLike[str],
    *,
    valid: bool = False,
    share: str | None = None,
    distance: gpd.GeoDataFrame | Mapping[str, gpd.GeoDataFrame] | None = None,
    on: Cubes | None = None,
    threads: int = 8,
    cache: int = 1 << 30,
    progress: bool | Progress = False,
    **functions: Callable[[Any], float],
) -> Windows:
    """Measure every chip of a plan once, and keep what was found in a file.

    Every place (and date) is read once, in the order of the ground. What was measured stands in a journal beside the
    file as it comes: a pass that was killed goes on from there. The file appears whole, at the end. A second call
    reads it alone.

    Parameters
    ----------
    windows : (n,) a plan
    path : of the file, ``.parquet``; its rows are the chips, by ``id``
    valid : add ``valid``, the share of pixels that are valid, over all dates of a chip; of several inputs
        ``valid_<input>`` each
    share : a variable whose values are classes: adds ``share_<class>`` for each class found, its share of all pixels
        (and dates) of a chip. Nodata, and what is not valid, is no class
    distance : vectors, in any CRS: adds ``distance``, metres from the chip's footprint to the nearest one, 0 where it
        touches; several by name add ``distance_<name>``. No pixels are read for it
    on : cubes to measure in place of the plan's own, such as labels alone, or a cheap band at a coarse resolution,
        where overviews are read. A chip is the window of these cubes that lies on its footprint, to the nearest of
        their pixels, at its dates where they have dates; steps recorded on the plan stay out
    threads, cache : as in ``read``
    progress : True shows a bar on stderr; a function is called with the chips done and all chips
    **functions : name a column each: what is called with a chip (without margin; a Dataset, or a dict of them) and
        gives a number

    Returns
    -------
    the plan with these columns, float64

    Raises
    ------
    ChipError
        if nothing is to be measured, the file is of another plan or of other columns, or ``on`` does not hold the chips
    StepError
        if a function gives no number
    ReadError
        if a chip cannot be read; the next call goes on from there
    """
    wanted = Measures(valid, share, functions)
    vectors = dict(distance) if isinstance(distance, Mapping) else {"": distance} if distance is not None else {}
    if not (wanted or vectors) or len(windows) == 0 or threads < 1:
        raise ChipError(
            f"measure: {len(windows)} chips, {threads} threads, and "
            f"{'something' if wanted or vectors else 'nothing'} to measure: write measure(path, valid=True), "
            "share='crop', distance=roads, or name=function"
        )
    if taken := {*functions} & {*OWN}:
        raise ChipError(
            f"measure({', '.join(taken)}=...): the plan's own columns {OWN} say what it is; use other names"
        )
    target = windows if on is None else laid_on(windows, on)
    document = _asked(wanted, vectors)
    if on is None or vectors:
        document["plan"] = describe(windows)
    if on is not None:
        document["on"] = describe(target)
    kept = Kept.at(path, document)
    if not kept.done:
        columns = _read_all(target, wanted, kept, threads, cache, progress) if wanted else {}
        for name, places in vectors.items():
            columns["_".join(filter(None, ("distance", name)))] = distances(windows, places)
        kept.finish(windows.ids, columns)
    return assign(windows, **kept.columns())


@dataclass(frozen=True)
class Measures:
    """What is measured of a chip's pixels."""

    valid: bool
    share: str | None
    functions: Mapping[str, Callable[[Any], float]]

    def __bool__(self) -> bool:
        return self.valid or self.share is not None or bool(self.functions)

    def __call__(self, element: Any) -> Row:
        """Measure a loaded chip."""
        element = _without_margin(element)
        parts: Mapping[str, xr.Dataset] = element if isinstance(element, dict) else {"": element}
        row: Row = {}
        if self.valid:
            for name, dataset in parts.items():
                row["_".join(filter(None, ("valid", name)))] = _valid(dataset)
        if self.share is not None:
            row |= {f"share_{value}": part for value, part in _shares(_holding(parts, self.share), self.share)}
        for name, function in self.functions.items():
            row[name] = _number(name, function(element))
        return row


def distances(windows: Windows, places: gpd.GeoDataFrame) -> npt.NDArray[np.float64]:
    """Give the distance from each chip's footprint to the nearest place [m], (n,); of groups the least.

    The nearest place is told on the plan's equal-area plane, and its distance along the ellipsoid.
    """
    shapes, crs = given(places, "measure(distance=...)")
    import geopandas

    flat = plane(windows)
    there = np.asarray(geopandas.GeoSeries(shapes, crs=crs.proj).to_crs(flat).array, object)
    there = there[np.isfinite(shapely.bounds(there)).all(axis=1)]  # the plane does not show the other end of the world
    if len(there) == 0:
        raise ChipError(
            f"measure(distance=...): none of {len(shapes)} places can be shown beside the plan; is "
            f"{grids.crs_name(crs)} right?"
        )
    tree, wkt = shapely.STRtree(there), flat.to_wkt()
    least = np.full(len(windows), np.inf)
    for part in members(windows):
        for at in chunks(len(part)):
            own = rectangles(part, at, wkt)
            pairs = tree.query_nearest(own, all_matches=False)
            metres = geodesic(shapely.shortest_line(own[pairs[0]], there[pairs[1]]), wkt)
            least[at][pairs[0]] = np.minimum(least[at][pairs[0]], metres)
    return least


def _read_all(
    target: Windows, wanted: Measures, kept: Kept, threads: int, cache: int, progress: bool | Progress
) -> dict[str, npt.NDArray[np.float64]]:
    """Measure what is not in the journal yet, and give the columns of all."""
    once, which = distinct(target, dated=True) if type(target) is Windows else _all(target)
    done = kept.begun(len(once))
    todo = np.flatnonzero(~done)
    rows = _rows(target, once, todo, wanted, threads, cache)
    with kept.journal() as write:
        measured = len(once) - len(todo)
        for number, row in progressing(rows, len(todo), "measure") if progress is True else rows:
            write(number, row)
            measured += 1
            if callable(progress):
                progress(measured, len(once))
    return {name: column[which] for name, column in kept.gathered(len(once)).items()}


def _rows(
    target: Windows, once: Indices, todo: Indices, wanted: Measures, threads: int, cache: int
) -> Iterator[tuple[int, Row]]:
    """Measure chips on threads, in order, a few in flight."""
    numbers = dict(zip(once[todo].tolist(), todo.tolist(), strict=True))
    with Reading(target, threads, cache).loading([*numbers]) as load:
        for position, row in in_order(lambda at: wanted(load(at)), numbers, threads, leave=load.leave):
            yield numbers[position], row


def _all(target: Windows) -> tuple[Indices, Indices]:
    return np.arange(len(target)), np.arange(len(target))


def _asked(wanted: Measures, vectors: Mapping[str, gpd.GeoDataFrame]) -> Document:
    """Write down what is measured."""
    return {
        "valid": wanted.valid,
        "share": wanted.share,
        "functions": chain(None, [Step(name, function) for name, function in wanted.functions.items()])["steps"],
        "distance": {name: _hashed(*given(places, "measure(distance=...)")) for name, places in vectors.items()},
    }


def _hashed(shapes: npt.NDArray[np.object_], crs: Any) -> str:
    return hashlib.sha256(str(crs).encode() + b"".join(shapely.to_wkb(shapes))).hexdigest()


def _without_margin(element: Any) -> Any:
    """Cut off the margin that a chip says it carries."""
    if isinstance(element, dict):
        return {name: _without_margin(part) for name, part in element.items()}
    return cropped(element, int(element["chip"].attrs.get("margin", 0)) if "chip" in element.coords else 0)


def _holding(parts: Mapping[str, xr.Dataset], name: str) -> xr.Dataset:
    """Give the Dataset that has a variable."""
    found = [dataset for dataset in parts.values() if name in dataset]
    if len(found) != 1:
        there = {key or "the chip": [*map(str, part.data_vars)] for key, part in parts.items()}
        raise ChipError(
            f"measure(share={name!r}): {len(found)} inputs have this variable, needed is one; there are {there}"
        )
    return found[0]


def _valid(dataset: xr.Dataset) -> float:
    if "valid" not in dataset:
        raise ChipError(f"measure(valid=True): the chips have no 'valid'; there are {[*map(str, dataset.data_vars)]}")
    return float(dataset["valid"].mean())


def _shares(dataset: xr.Dataset, name: str) -> Iterator[tuple[int, float]]:
    """Give the classes of a variable and their shares of all its pixels."""
    variable = dataset[name]
    if variable.dtype.kind not in "bui":
        raise ChipError(f"measure(share={name!r}): the variable is {variable.dtype}; classes are whole numbers")
    known = xr.ones_like(variable, bool)
    if "nodata" in variable.attrs:
        known &= variable != variable.attrs["nodata"]
    if "valid" in dataset and not variable.attrs.get("joined") and {*dataset["valid"].dims} <= {*variable.dims}:
        known &= dataset["valid"]
    values, counts = np.unique(variable.values[known.transpose(*variable.dims).values], return_counts=True)
    if len(values) > MOST_CLASSES:
        raise ChipError(f"measure(share={name!r}): one chip has {len(values)} values; are these classes?")
    return ((int(value), int(count) / variable.size) for value, count in zip(values, counts, strict=True))


def _number(name: str, value: Any) -> float:
    """Take what a function gave for a number."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise StepError(
            f"measure({name}=...): the function gave {type(value).__name__}; needed is one number"
        ) from error
