"""GeoParquet by row groups: those whose statistics touch a window are read, and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pyproj
import shapely

from geopipes.errors import CatalogError
from geopipes.labels.features import Array, Features
from geopipes.labels.keeping import Kept
from geopipes.labels.packing import Bounds
from geopipes.labels.sources import Loaded, Table, Vectors, file_document

BUDGET = 256 * 2**20
"""Bytes of geometries that are kept of one file."""

EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, eq=False)
class RowGroups(Vectors):
    """A GeoParquet file whose row groups state where their features lie.

    Attributes
    ----------
    path, column, columns : the file, its geometry column, the columns asked for
    starts : (k,) the number of each row group's first row, which is a feature's id
    boxes : (k, 4) bounds of each row group
    """

    name: str
    wkt: str
    path: str
    column: str
    columns: tuple[str, ...]
    starts: Array
    boxes: Array
    _kept: Kept[Loaded] = field(default_factory=lambda: Kept(BUDGET, lambda part: part.nbytes))

    @property
    def bounds(self) -> Bounds:  # type: ignore[override]  # an attribute there
        """Around all row groups."""
        low, high = self.boxes[:, :2].min(axis=0), self.boxes[:, 2:].max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def within(self, bounds: Bounds) -> Features:
        """Ask the row groups that touch the window."""
        left, bottom, right, top = bounds
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        touch = (low[:, 0] <= right) & (high[:, 0] >= left) & (low[:, 1] <= top) & (high[:, 1] >= bottom)
        found = [self._group(int(number)).within(bounds) for number in np.flatnonzero(touch)]
        empty = Features(np.empty(0, np.int64), np.empty(0, object), {name: np.empty(0) for name in self.columns})
        parts = [part for part in found if len(part.ids)] or [empty]
        return Features(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.shapes for part in parts]),
            {name: np.concatenate([part.values[name] for part in parts]) for name in self.columns},
        )

    def _group(self, number: int) -> Loaded:
        """Give one row group, read where it is not there."""

        def read() -> Loaded:
            with pq.ParquetFile(self.path) as file:
                rows = file.read_row_group(number, columns=[self.column, *self.columns])
            shapes = shapely.from_wkb(rows[self.column].to_numpy(zero_copy_only=False))
            ids = np.arange(len(rows)) + self.starts[number]
            return Loaded.of(self.name, self.wkt, ids, shapes, _columns(rows, self.columns), source=self.path)

        return self._kept.get(number, read)

    def table(self) -> Table:
        """Read the columns."""
        with pq.ParquetFile(self.path) as file:
            rows = file.read(columns=list(self.columns))
            count = file.metadata.num_rows
        return np.arange(count), _columns(rows, self.columns)

    def document(self) -> dict[str, Any]:
        """Give the file's hash."""
        return {"columns": list(self.columns)} | file_document(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _kept=Kept(BUDGET, lambda part: part.nbytes))


@dataclass(frozen=True)
class Footer:
    """What the end of a GeoParquet file says: its geometry column, that one's metadata, and all columns."""

    column: str
    geometry: dict[str, Any]
    names: tuple[str, ...]


def footer(path: str, name: str) -> Footer:
    """Read the end of a GeoParquet file.

    Raises
    ------
    CatalogError
        for Parquet without a geometry
    """
    with pq.ParquetFile(path) as file:
        metadata = (file.schema_arrow.metadata or {}).get(b"geo")
        names = tuple(file.schema_arrow.names)
    if metadata is None:
        raise CatalogError(f"{name}: is Parquet without geometries (no 'geo' metadata); write it by geopandas")
    geo = json.loads(metadata)
    column = geo["primary_column"]
    return Footer(column, geo["columns"][column], names)


def stated_crs(geometry: dict[str, Any]) -> pyproj.CRS | None:
    """Give the CRS that GeoParquet states; where it says nothing, longitude and latitude, as is specified."""
    stated = geometry.get("crs", "OGC:CRS84")
    return None if stated is None else pyproj.CRS.from_user_input(stated)


def row_groups(path: str, name: str, found: Footer, columns: Sequence[str], wkt: str) -> RowGroups | None:
    """Open a file by its row groups; None where it has one alone, or they do not state where they lie."""
    covering = found.geometry.get("covering", {}).get("bbox")
    if covering is None or found.geometry.get("encoding") != "WKB":
        return None
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
        if metadata.num_row_groups < 2:
            return None
        numbers = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
        boxes, rows = [], []
        for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
            stated = [group.column(numbers[".".join(covering[edge])]).statistics for edge in EDGES]
            if any(one is None or not one.has_min_max for one in stated):
                return None
            boxes.append([*(one.min for one in stated[:2]), *(one.max for one in stated[2:])])
            rows.append(group.num_rows)
    starts = np.cumsum([0, *rows[:-1]])
    return RowGroups(name, wkt, path, found.column, tuple(columns), starts, np.array(boxes, float))


def _columns(rows: Any, names: Sequence[str]) -> dict[str, Array]:
    return {name: rows[name].to_pandas().to_numpy() for name in names}
