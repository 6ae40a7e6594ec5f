"""Which file holds which part of a map, and what a file that is there says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from geopipes.errors import MapError
from geopipes.maps.cogs import MARK

if TYPE_CHECKING:
    from geopipes.maps.mosaics import Mosaic
    from geopipes.maps.sheets import Layout

PLACES = ("crs", "time", "name")
"""What a path may name in braces."""


class Target(NamedTuple):
    """Where one variable of one sheet goes.

    Attributes
    ----------
    sheet, name : the sheet's number, and the variable
    path : of the file, or of the store
    date : of the file's pixels; None where they have none, or several
    """

    sheet: int
    name: str
    path: Path
    date: np.datetime64 | None


def check_target(target: Path) -> None:
    """Raise where a path cannot be written, before anything runs.

    Raises
    ------
    MapError
        for another suffix, a folder that is not there, and what no path names
    """
    if target.suffix not in (".tif", ".tiff", ".zarr"):
        raise MapError(f"write({target.name!r}): the suffix says what is written: .tif or .zarr")
    if not target.parent.is_dir():
        raise MapError(f"write: there is no folder {target.parent}; make it")
    if unknown := sorted({*_named(target)} - {*PLACES}):
        raise MapError(f"write({target.name!r}): {unknown} in braces; there are {', '.join(PLACES)}")
    if target.suffix == ".zarr":
        try:
            import zarr  # noqa: F401
        except ImportError as error:
            raise MapError(f"write({target.name!r}) needs zarr: pip install zarr, or 'geopipes[all]'") from error


def expected(mosaic: Mosaic) -> list[str]:
    """Name the variables there will be."""
    rules = mosaic.options.rules
    pairs = [(name, f"{name}_probability") for name in mosaic.options.of]
    return [name for pair in pairs for name in pair[: 1 + rules[pair[0]].probability]]


def targets_of(layout: Layout, target: Path, names: Sequence[str]) -> Iterator[Target]:
    """Say where each variable of each sheet goes.

    Raises
    ------
    MapError
        if two go to one file
    """
    zarr = target.suffix == ".zarr"
    holders: dict[Path, tuple[int, ...] | tuple[int, str]] = {}
    for number, sheet in enumerate(layout.sheets):
        date = layout.date(sheet)
        when = "all" if date is None else str(date)[:19].replace(":", "").replace("-", "")
        for name in names:
            path = target.with_name(target.name.format(crs=_crs(layout, sheet.cube), time=when, name=name))
            holder = (sheet.cube,) if zarr else (number, name)
            if holders.setdefault(path, holder) != holder:
                raise MapError(_too_few(layout, target, names))
            yield Target(number, name, path, None if zarr else date)


def _crs(layout: Layout, cube: int) -> str:
    """Name a grid by its CRS; where several have one, with a number."""
    words = []
    for each in layout.grids:
        crs = layout.windows.cubes[each].crs
        words.append(f"EPSG{crs.epsg}" if crs.epsg else "grid")
    at = layout.grids.index(cube)
    return words[at] if words.count(words[at]) == 1 else f"{words[at]}-{words[:at].count(words[at]) + 1}"


def _too_few(layout: Layout, target: Path, names: Sequence[str]) -> str:
    counts = {"crs": len(layout.grids), "time": len({sheet.time for sheet in layout.sheets}), "name": len(names)}
    if target.suffix == ".zarr":
        counts = {"crs": counts["crs"]}
    words = {"crs": "grids", "time": "dates", "name": "variables"}
    found = ", ".join(f"{count} {words[place]}" for place, count in counts.items())
    there = _named(target)
    wanted = "".join(f"_{{{place}}}" for place, count in counts.items() if count > 1 and place not in there)
    return (
        f"write({target.name!r}): the map has {found}, and each is a file of its own; write "
        f"{target.stem + wanted + target.suffix!r}"
    )


def mark_of(path: Path) -> str | None:
    """Give what a file says of its pixels; None where it says nothing."""
    if path.suffix == ".zarr":
        meta = path / "zarr.json"
        return json.loads(meta.read_text()).get("attributes", {}).get("geopipes_map") if meta.exists() else None
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as file:
            mark: str | None = file.tags().get(MARK)
            return mark
    except RasterioError:
        return None


def _named(path: Path) -> list[str]:
    """Give what a path names in braces."""
    return [field for _, field, _, _ in Formatter().parse(path.name) if field is not None]
