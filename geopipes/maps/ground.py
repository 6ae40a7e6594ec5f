"""The ground that pixels cover, in square metres on the ellipsoid of their CRS."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from geopipes.errors import SourceError

NODE_METRES = 10_000
"""Distance of the places where a pixel's area is worked out; between them it is interpolated, to some 1e-6."""

MOST = 64
"""Pixels between two such places, at most."""

Floats = npt.NDArray[np.float64]


def placed(transform: Affine, col: Floats, row: Floats) -> tuple[Floats, Floats]:
    """Give the coordinates (x, y) of places in pixels from the top left corner."""
    return (
        transform.a * col + transform.b * row + transform.c,
        transform.d * col + transform.e * row + transform.f,
    )


class Ground:
    """The areas of a raster's pixels.

    Planar areas are off: in UTM by 0.1 % and more, in Web Mercator twofold at 45 degrees. Here a pixel is the
    quadrilateral of its four corners on the ellipsoid.

    Parameters
    ----------
    geobox : of the raster, in any CRS that PROJ brings to longitude and latitude
    """

    def __init__(self, geobox: GeoBox) -> None:
        crs = CRS.from_user_input(str(geobox.crs))
        geodetic = crs.geodetic_crs
        if geodetic is None or crs.ellipsoid is None:
            raise SourceError(f"areas: {crs.name!r} is on no ellipsoid; reproject the raster to another CRS")
        self._shape, self._affine = (int(geobox.shape[0]), int(geobox.shape[1])), geobox.transform
        self._to_degrees = Transformer.from_crs(crs, geodetic, always_xy=True)
        self._a, flattening = crs.ellipsoid.semi_major_metre, crs.ellipsoid.inverse_flattening
        self._e2 = 0.0 if not flattening else (2 - 1 / flattening) / flattening
        side = float(np.sqrt(self.at(np.array([self._shape[0] / 2]), np.array([self._shape[1] / 2]))[0]))
        self._step = int(np.clip(NODE_METRES // side, 1, MOST)) if side > 0 else 1

    def at(self, row: Floats, col: Floats) -> Floats:
        """Give the area of pixels centred at places, in pixels from the top left corner [m2]."""
        corners = [self._corner(row + dy, col + dx) for dy, dx in ((-0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (0.5, -0.5))]
        across = np.cross(corners[1] - corners[0], corners[3] - corners[2])
        return np.asarray(np.linalg.norm(across, axis=-1) / 2)

    def areas(self, rows: slice) -> Floats:
        """Give the area of every pixel of some rows, (rows, x) [m2]."""
        rows_of = self._nodes(rows.start, rows.stop, self._shape[0])
        cols_of = self._nodes(0, self._shape[1], self._shape[1])
        nodes = self.at(*np.meshgrid(rows_of, cols_of, indexing="ij"))
        if not np.isfinite(nodes).all():
            raise SourceError("areas: the raster reaches where its CRS has no longitude and latitude; reproject it")
        y, x = np.arange(rows.start, rows.stop) + 0.5, np.arange(self._shape[1]) + 0.5
        along = np.stack([np.interp(x, cols_of, line) for line in nodes])
        below = np.clip(np.searchsorted(rows_of, y, side="right") - 1, 0, max(len(rows_of) - 2, 0))
        if len(rows_of) == 1:
            return np.repeat(along, len(y), axis=0)
        part = ((y - rows_of[below]) / (rows_of[below + 1] - rows_of[below]))[:, None]
        return along[below] * (1 - part) + along[below + 1] * part

    def _nodes(self, start: int, stop: int, size: int) -> Floats:
        """Give the centres where areas are worked out, around some pixels: at fixed places, so that strips agree."""
        first = start // self._step * self._step
        return np.unique(np.minimum(np.arange(first, stop - 1 + self._step, self._step), size - 1)) + 0.5

    def _corner(self, row: Floats, col: Floats) -> Floats:
        """Give places in space, (..., 3) [m]."""
        x, y = placed(self._affine, col, row)
        lon, lat = np.radians(self._to_degrees.transform(x, y))
        normal = self._a / np.sqrt(1 - self._e2 * np.sin(lat) ** 2)
        flat = normal * np.cos(lat)
        return np.stack([flat * np.cos(lon), flat * np.sin(lon), normal * (1 - self._e2) * np.sin(lat)], axis=-1)
