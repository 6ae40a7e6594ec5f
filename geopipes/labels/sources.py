"""Vectors that are read by window: files with an index, tables in memory, row groups, several of these."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyogrio
import pyproj
import shapely

from geopipes.labels.features import Array, Features, Shapes, check_shapes
from geopipes.labels.packing import Bounds, Packed

Table = tuple[Array, Mapping[str, Array]]
"""The ids of all features, and their values by column."""

READ_AT_ONCE = 1 << 20
"""Bytes of a file that are hashed at once."""


class Vectors(ABC):
    """Features of one CRS, of which those near a window can be read; any number of threads may share them.

    Attributes
    ----------
    name : for errors
    wkt : the CRS
    bounds : of all features, in that CRS
    """

    name: str
    wkt: str
    bounds: Bounds

    @property
    def crs(self) -> pyproj.CRS:
        """The CRS."""
        return pyproj.CRS.from_wkt(self.wkt)

    @abstractmethod
    def within(self, bounds: Bounds) -> Features:
        """Read the features whose bounds touch a window, in the order of their ids."""

    @abstractmethod
    def table(self) -> Table:
        """Read the ids of all features and the columns that were asked for, without geometries."""

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """Say what tells these from others, the same on every machine: of files their content."""


@dataclass(frozen=True)
class IndexedFile(Vectors):
    """A layer of a file whose own index finds features: GeoPackage, FlatGeobuf, Shapefile with ``.qix``."""

    name: str
    wkt: str
    bounds: Bounds
    path: str
    layer: str
    columns: tuple[str, ...]

    def within(self, bounds: Bounds) -> Features:
        """Read what the index finds."""
        _, ids, shapes, values = self._read(bbox=bounds)
        order = np.argsort(ids)
        found = Features(ids, shapely.from_wkb(shapes), values).take(order)
        check_shapes(self.name, found.ids, found.shapes)
        return found

    def table(self) -> Table:
        """Read the columns."""
        _, ids, _, values = self._read(read_geometry=False)
        return ids, values

    def _read(self, **options: Any) -> tuple[Any, Array, Any, dict[str, Array]]:
        meta, ids, shapes, values = pyogrio.raw.read(
            self.path, layer=self.layer, columns=list(self.columns), return_fids=True, force_2d=True, **options
        )
        return meta, ids, shapes, dict(zip(map(str, meta["fields"]), values, strict=True))

    def document(self) -> dict[str, Any]:
        """Give the file's hash, and the layer."""
        return {"layer": self.layer, "columns": list(self.columns)} | file_document(self.path)


@dataclass(frozen=True, eq=False)
class Loaded(Vectors):
    """Features in memory, with an index: of frames, and of files that have none.

    Attributes
    ----------
    ids, shapes : (n,) ascending; geometries, or WKB of them, which takes a quarter of their memory
    values : by column
    source : the file; None for what was in memory
    """

    name: str
    wkt: str
    ids: Array
    shapes: Array
    values: Mapping[str, Array]
    packed: Packed
    source: str | None = None

    @classmethod
    def of(
        cls, name: str, wkt: str, ids: Array, shapes: Shapes, values: Mapping[str, Array], *, source: str | None = None
    ) -> Loaded:
        """Index features.

        Raises
        ------
        SourceError
            if some have no geometry
        """
        check_shapes(name, ids, shapes)
        packed = Packed.of(shapely.bounds(shapes))
        return cls(name, wkt, ids, shapes if source is None else shapely.to_wkb(shapes), values, packed, source)

    @cached_property
    def bounds(self) -> Bounds:  # type: ignore[override]  # an attribute there
        """Of all features."""
        top = self.packed.levels[0]
        low, high = top[:, :2].min(axis=0), top[:, 2:].max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def within(self, bounds: Bounds) -> Features:
        """Ask the index."""
        at = self.packed.touching(bounds)
        shapes = self.shapes[at]
        found = shapes if self.source is None else shapely.from_wkb(shapes)
        return Features(self.ids[at], found, {name: column[at] for name, column in self.values.items()})

    def table(self) -> Table:
        """Give the columns."""
        return self.ids, self.values

    def document(self) -> dict[str, Any]:
        """Give the file's hash, or that of the features."""
        if self.source is not None:
            return {"columns": list(self.values)} | file_document(self.source)
        hashed = hashlib.sha256(self.wkt.encode())
        for shape in shapely.to_wkb(self.shapes, byte_order=1):
            hashed.update(shape)
        for name, column in self.values.items():
            hashed.update(f"{name} {column.tolist()!r}".encode())
        return {"features": len(self.ids), "sha256": hashed.hexdigest()}

    @property
    def nbytes(self) -> int:
        """Bytes of the geometries, about."""
        return int(sum(map(len, self.shapes))) if self.source is not None else 0


@dataclass(frozen=True, eq=False)
class Several(Vectors):
    """Several vectors of one CRS as one: their features one after the other."""

    name: str
    parts: tuple[Vectors, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, name: str, parts: Sequence[Vectors]) -> Several:
        """Put vectors together: the ids of each begin where those of the one before end."""
        ends = np.cumsum([part.table()[0].max() + 1 for part in parts])
        return cls(name, tuple(parts), (0, *(int(end) for end in ends[:-1])))

    @property
    def wkt(self) -> str:  # type: ignore[override]  # an attribute there
        """Of the parts."""
        return self.parts[0].wkt

    @property
    def bounds(self) -> Bounds:  # type: ignore[override]
        """Around all parts."""
        boxes = np.array([part.bounds for part in self.parts])
        low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def within(self, bounds: Bounds) -> Features:
        """Ask the parts that touch the window."""
        found = [
            (start, part.within(bounds))
            for start, part in zip(self.starts, self.parts, strict=True)
            if part.bounds[0] <= bounds[2] and part.bounds[2] >= bounds[0]
            and part.bounds[1] <= bounds[3] and part.bounds[3] >= bounds[1]
        ]  # fmt: skip
        if not found:
            return self.parts[0].within((np.inf, np.inf, np.inf, np.inf))
        names = found[0][1].values
        return Features(
            np.concatenate([start + part.ids for start, part in found]),
            np.concatenate([part.shapes for _, part in found]),
            {name: np.concatenate([part.values[name] for _, part in found]) for name in names},
        )

    def table(self) -> Table:
        """Give those of all parts."""
        tables = [part.table() for part in self.parts]
        ids = np.concatenate([start + ids for start, (ids, _) in zip(self.starts, tables, strict=True)])
        return ids, {name: np.concatenate([values[name] for _, values in tables]) for name in tables[0][1]}

    def document(self) -> dict[str, Any]:
        """Give those of all parts."""
        return {"parts": [part.document() for part in self.parts]}


def file_document(path: str) -> dict[str, Any]:
    """Describe a file by its content, wherever it lies; what is not on this machine by its address."""
    if not os.path.exists(path):
        return {"href": path.partition("?")[0]}
    stem, suffix = os.path.splitext(path)
    parts = [stem + end for end in (".shp", ".dbf")] if suffix.lower() == ".shp" else [path]
    hashed = hashlib.sha256()
    for part in parts:
        if os.path.exists(part):
            with open(part, "rb") as file:
                while some := file.read(READ_AT_ONCE):
                    hashed.update(some)
    return {"sha256": hashed.hexdigest()}
