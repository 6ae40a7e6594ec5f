"""Features to a block of pixels, each with the number of the feature that it is given to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely
from affine import Affine

from geopipes.errors import SourceError
from geopipes.labels.features import Shapes
from geopipes.labels.kernels import fill

if TYPE_CHECKING:
    from geopipes.labels.features import Array

POLYGON = int(shapely.GeometryType.POLYGON)
NESTED = 3
"""Times that collections are taken apart: polygons in multipolygons in collections."""


@dataclass(frozen=True)
class Burn:
    """Features in the order in which they are burnt.

    Attributes
    ----------
    ids : (n,) as errors name them
    shapes : (n,) in pixels of the grid
    codes : (n,) what tells them apart: where features of different codes meet, one must be said to win
    ranks : (n,) features of one rank must not meet, unless their codes are equal; -1 where the later one wins
    """

    ids: Array
    shapes: Shapes
    codes: Array
    ranks: Array

    def block(self, row: int, col: int, shape: tuple[int, int], *, all_touched: bool, name: str) -> Array:
        """Give (y, x) int32: the number of each pixel's feature, -1 for none.

        Parameters
        ----------
        row, col, shape : of the block, in the grid
        all_touched : whether a pixel is a feature's that is touched by it at all
        name : of the variable, for errors

        Raises
        ------
        SourceError
            where two features meet that must not
        """
        out = np.full(shape, -1, np.int32)
        if len(self.ids) == 0:
            return out
        parts, owners = self.shapes, np.arange(len(self.ids))
        for _ in range(NESTED):
            parts, index = shapely.get_parts(parts, return_index=True)
            owners = owners[index]
        if all_touched or (shapely.get_type_id(parts) != POLYGON).any():
            return self._by_gdal(row, col, out, all_touched=all_touched, name=name)
        _, coordinates, (rings, polygons) = shapely.to_ragged_array(parts)
        corner = np.array([row, col])
        met = fill(coordinates, rings, polygons, owners, self.codes, self.ranks, corner, out)
        if met >= 0:
            self._refuse(row + met // shape[1], col + met % shape[1], name)
        return out

    def _by_gdal(self, row: int, col: int, out: Array, *, all_touched: bool, name: str) -> Array:
        """Let GDAL burn lines, points and whatever is touched."""
        numbers = np.arange(len(self.ids))
        whole: Array = self._rasterized(numbers, row, col, out, all_touched)
        if (self.ranks >= 0).any():  # whoever comes first and last are one, or alike
            turned = np.lexsort((-numbers, self.ranks))
            other = self._rasterized(turned, row, col, out, all_touched)
            both = (whole >= 0) & (other >= 0) & (self.codes[whole] != self.codes[other])
            both &= self.ranks[whole] == self.ranks[other]
            if both.any():
                down, across = np.argwhere(both)[0]
                self._refuse(row + int(down), col + int(across), name, all_touched=all_touched)
        return whole

    def _rasterized(self, order: Array, row: int, col: int, out: Array, all_touched: bool) -> npt.NDArray[np.int32]:
        pairs = zip(self.shapes[order], order.tolist(), strict=True)
        affine = Affine.translation(col, row)
        burnt: Any = rasterio.features.rasterize(
            pairs, out.shape, fill=-1, transform=affine, all_touched=all_touched, dtype="int32"
        )
        return np.asarray(burnt, np.int32)

    def _refuse(self, row: int, col: int, name: str, *, all_touched: bool = False) -> None:
        """Say which features meet."""
        pixel = shapely.box(col, row, col + 1, row + 1) if all_touched else shapely.Point(col + 0.5, row + 0.5)
        there = np.flatnonzero(shapely.dwithin(shapely.make_valid(self.shapes), pixel, 1.0 if all_touched else 0.0))
        ids = self.ids[there if len(there) > 1 else np.arange(0)].tolist()
        raise SourceError(
            f"rasterize(name={name!r}): features {ids} of different values cover the pixel in row {row}, column {col}; "
            "say which wins: overlap='last' (in the file, as rasterio), 'first', 'smallest', 'largest', or "
            "priority=column, whose highest number wins"
        )
