"""Writing a map: rows kept as they are done, files made of them at the end, and put in place whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

import numpy as np

from geopipes.errors import MapError
from geopipes.fingerprints import digest
from geopipes.maps.cogs import MARK, Color, Look, rgba, write_cog
from geopipes.maps.datasets import check_one_resolution
from geopipes.maps.layers import Layer, Outcome
from geopipes.maps.stores import Store, check_room, left_behind, writing
from geopipes.progress import Bar

if TYPE_CHECKING:
    from geopipes.maps.mosaics import Mosaic
    from geopipes.maps.sheets import Layout

PLACES = ("crs", "time", "name")
"""What a path may name in braces."""


@dataclass(frozen=True)
class Written:
    """A file of a map.

    Attributes
    ----------
    path : of the file, or of the store
    date : of its pixels; None where they have none, or several
    """

    path: Path
    date: np.datetime64 | None


def write(
    mosaic: Mosaic,
    path: str | os.PathLike[str],
    *,
    compress: str | None = "deflate",
    overviews: bool = True,
    classes: Mapping[int, str] | None = None,
    colors: Mapping[int, Color] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> list[Written]:
    """Make a map and write it: as Cloud-optimized GeoTIFFs, or as Zarr.

    Rows are kept in a folder beside the target, ``map.tif.partial``, as they are done. A run that is ended anywhere
    leaves it behind; the same call then makes what is missing, and the same bytes. At the end the file is made of the
    rows, checked, and put in its place in one step. Two runs at once of one target: the second is refused.

    Parameters
    ----------
    path : of a file ``.tif`` for each grid, date and answer, or of a store ``.zarr`` for each grid. Where there are
        several, it names them in braces: ``"map_{crs}.tif"``, ``"map_{crs}_{time}_{name}.tif"``
    compress : of GeoTIFF: ``"deflate"``, ``"zstd"``, ``"lzw"`` and what else GDAL's COG driver has; None for none
    overviews : whether a GeoTIFF has smaller copies: of classes the most frequent one, of floats the mean
    classes, colors : the names and colours of values: ``{0: "background", 1: "building"}``, ``{1: "#d62728"}``
    overwrite : whether another file may be replaced; one that this very map was written to is left as it is
    progress : show a bar on stderr

    Returns
    -------
    the files, in the order of grids, dates and answers

    Raises
    ------
    MapError
        if the path names too few files or cannot be written, something else is there, another run writes there or was
        ended there that made another map, or the disk has no room
    """
    target = Path(os.path.abspath(os.path.expanduser(path)))
    look = Look(compress, overviews, classes, colors)
    for color in (colors or {}).values():
        rgba(color)
    if target.suffix not in (".tif", ".tiff", ".zarr"):
        raise MapError(f"write({target.name!r}): the suffix says what is written: .tif or .zarr")
    if not target.parent.is_dir():
        raise MapError(f"write: there is no folder {target.parent}; make it")
    names = set(_places(target.name))
    if names - {*PLACES}:
        raise MapError(f"write({target.name!r}): {sorted(names - {*PLACES})} in braces; there are {', '.join(PLACES)}")
    document = json.loads(json.dumps(mosaic.document()))
    mark = digest({"map": document, "look": _looked(look)})
    job = _Job(mosaic, target, look, mark, overwrite)
    folder = target.with_name(f"{target.name.translate(str.maketrans('', '', '{}'))}.partial")
    if (there := job.finished()) is not None:
        if left_behind(folder, document):
            Store(folder, document).remove()
        return there
    store = Store(folder, document)
    try:
        job.make(store, progress=progress)
        written = job.put(store)
        with writing(store.folder):
            store.remove()
        return written
    finally:
        store.close()


class _Job:
    """One call of `write`."""

    def __init__(self, mosaic: Mosaic, target: Path, look: Look, mark: str, overwrite: bool) -> None:
        self._mosaic, self._target, self._look, self._mark, self._overwrite = mosaic, target, look, mark, overwrite
        self._layout: Layout = mosaic.layout

    def finished(self) -> list[Written] | None:
        """Give the files if all are there, of this very map; raise if there are others."""
        targets = {path: date for _, path, date in self._targets(self._expected())}
        marks = {path: _mark(path) for path in targets if path.exists()}
        others = [path for path, mark in marks.items() if mark != self._mark]
        if others and not self._overwrite:
            raise MapError(
                f"write: {others[0]} is there, and holds something else than this map; write elsewhere, or "
                "overwrite=True"
            )
        whole = len(marks) == len(targets) and not others
        return [Written(path, date) for path, date in targets.items()] if whole else None

    def _expected(self) -> list[str]:
        """Name the variables there will be."""
        options = self._mosaic.options
        return [
            name
            for answer in options.of
            for name in (answer, f"{answer}_probability")[: 1 + options.rules[answer].probability]
        ]

    def _targets(self, names: list[str]) -> Iterator[tuple[tuple[int, str], Path, np.datetime64 | None]]:
        """Give each sheet's number and each variable's name with the file it goes to.

        Raises
        ------
        MapError
            if two go to one file
        """
        zarr = self._target.suffix == ".zarr"
        seen: dict[Path, tuple[int, str]] = {}
        for number, sheet in enumerate(self._layout.sheets):
            date = self._layout.date(sheet)
            for name in names:
                crs = self._layout.windows.cubes[sheet.cube].crs
                words = {
                    "crs": f"EPSG{crs.epsg}" if crs.epsg else f"grid{sheet.cube}",
                    "time": "all" if date is None else str(date)[:19].replace(":", "").replace("-", ""),
                    "name": name,
                }
                path = self._target.with_name(self._target.name.format(**words))
                if path in seen and not (zarr and self._layout.sheets[seen[path][0]].cube == sheet.cube):
                    raise MapError(self._too_few(names))
                if path not in seen or zarr:
                    seen.setdefault(path, (number, name))
                    yield (number, name), path, None if zarr else date

    def _too_few(self, names: list[str]) -> str:
        layout, there = self._layout, _places(self._target.name)
        stem, suffix = self._target.stem, self._target.suffix
        dates = len({sheet.time for sheet in layout.sheets})
        counts = {"crs": len(layout.grids), "time": dates, "name": len(names)}
        if suffix == ".zarr":
            counts = {"crs": counts["crs"]}
        wanted = "".join(f"_{{{place}}}" for place, count in counts.items() if count > 1 and place not in there)
        found = ", ".join(
            f"{count} {word}" for word, count in zip(("grids", "dates", "variables"), counts.values(), strict=False)
        )
        return (
            f"write({self._target.name!r}): the map has {found}, and each is a file of its own; write "
            f"{stem + wanted + suffix!r}"
        )

    def make(self, store: Store, *, progress: bool) -> None:
        """Make the rows that are missing."""
        layout, rules = self._layout, self._mosaic.options.rules
        if store.sheet == len(layout.sheets):
            return
        layers = [Layer.read(document, rules[document["name"]]) for document in store.layers]
        start = layout.begin(store.sheet, store.row)
        bar = Bar(self._mosaic.chips, self._target.name, done=start, unit="chips") if progress else None
        checked, at = False, start
        try:
            for block in self._mosaic.blocks(store.sheet, store.row, layers):
                if not checked:
                    check_room(store.folder, self._bytes(block.layers, store))
                    checked = True
                with writing(store.folder):
                    for outcome, row, pixels in block.parts:
                        store.put(block.sheet, outcome, row, pixels)
                    last = block.done == layout.sheets[block.sheet].shape[0]
                    store.note(block.sheet + last, 0 if last else block.done, block.layers)
                if bar is not None:
                    bar.add(max(block.position - at, 0))
                    at = max(at, block.position)
        finally:
            if bar is not None:
                bar.close()

    def _bytes(self, layers: Sequence[Layer], store: Store) -> int:
        """Give the bytes of all raw pixels that are not kept yet."""
        whole = 0
        for outcome in (outcome for layer in layers for outcome in layer.outcomes()):
            for number, sheet in enumerate(self._layout.sheets):
                high, wide = self._layout.geobox(sheet, outcome.layer.scale).shape
                kept = store.path(number, outcome.name)
                there = kept.stat().st_size if kept.exists() else 0
                whole += max(high * wide * outcome.bands * np.dtype(outcome.dtype).itemsize - there, 0)
        return whole

    def put(self, store: Store) -> list[Written]:
        """Make the files of the rows, and put each in its place."""
        rules = self._mosaic.options.rules
        layers = [Layer.read(document, rules[document["name"]]) for document in store.layers]
        outcomes = {outcome.name: outcome for layer in layers for outcome in layer.outcomes()}
        targets: dict[Path, list[tuple[int, str]]] = {}
        dates: dict[Path, np.datetime64 | None] = {}
        for key, path, date in self._targets([*outcomes]):
            targets.setdefault(path, []).append(key)
            dates[path] = date
        for path, keys in targets.items():
            if path.exists() and _mark(path) == self._mark:
                continue
            fresh = store.folder / path.name
            with writing(path):
                self._file(fresh, store, keys, outcomes)
                _placed(fresh, path)
        return [Written(path, dates[path]) for path in targets]

    def _file(self, fresh: Path, store: Store, keys: list[tuple[int, str]], outcomes: Mapping[str, Outcome]) -> None:
        """Make one file, in the store's folder."""
        if fresh.suffix == ".zarr":
            from geopipes.maps.zarrs import write_zarr

            names = [*dict.fromkeys(name for _, name in keys)]
            check_one_resolution([outcomes[name] for name in names])
            sheets = [
                (number, {name: store.path(number, name) for name in names})
                for number in dict.fromkeys(number for number, _ in keys)
            ]
            shutil.rmtree(fresh, ignore_errors=True)
            write_zarr(fresh, self._layout, sheets, [outcomes[name] for name in names], self._look, self._mark)
            return
        ((number, name),) = keys
        outcome, sheet = outcomes[name], self._layout.sheets[number]
        fresh.unlink(missing_ok=True)
        geobox = self._layout.geobox(sheet, outcome.layer.scale)
        write_cog(fresh, store.path(number, name), outcome, geobox, self._look, self._mark)


def _placed(fresh: Path, path: Path) -> None:
    """Put a file or a store where it belongs, in place of what is there."""
    if fresh.is_dir() and path.exists():
        old = fresh.with_name(f"{path.name}.old")
        path.rename(old)
    fresh.replace(path)


def _mark(path: Path) -> str | None:
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


def _places(name: str) -> list[str]:
    """Give what a path names in braces."""
    return [field for _, field, _, _ in Formatter().parse(name) if field is not None]


def _looked(look: Look) -> dict[str, Any]:
    """Write down how a map is kept."""
    found: dict[str, Any] = json.loads(json.dumps(vars(look) | {
        "classes": None if look.classes is None else sorted(look.classes.items()),
        "colors": None if look.colors is None else sorted((value, list(rgba(c))) for value, c in look.colors.items()),
    }))  # fmt: skip
    return found
