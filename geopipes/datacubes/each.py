"""Each item as a cube of its own: data sets of many small images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pystac

from geopipes.catalogs import Scenes
from geopipes.datacubes.arranging import PerBand, stacked, stated
from geopipes.datacubes.cube import Cubes
from geopipes.datacubes.stackcube import StackCube
from geopipes.errors import EmptySearch
from geopipes.read.headers import sources

if TYPE_CHECKING:
    from geopipes.read.bands import Bands


class ImageCube(StackCube):
    """The cube of one item."""

    @property
    def alone(self) -> bool:
        """It is one image of many."""
        return True


def stack_each(
    scenes: Scenes | Sequence[pystac.Item],
    bands: Bands = None,
    *,
    resampling: str | PerBand = "nearest",
    dtype: str | PerBand | None = None,
    nodata: float | PerBand | None = None,
) -> Cubes:
    """Make a cube of each item, on its own grid: for data sets of many small images, such as EuroSAT.

    Parameters
    ----------
    scenes, bands, resampling, dtype, nodata : as `stack` takes them

    Returns
    -------
    one cube for each item, in their order, of one date: on the grid of its finest raster

    Raises
    ------
    EmptySearch, UnknownBand, NotGeoreferenced, SourceError
        as in `stack`
    """
    scenes = scenes if isinstance(scenes, Scenes) else Scenes(tuple(scenes))
    if len(scenes) == 0:
        raise EmptySearch("stack_each: there are no items; widen the search's region, dates or filter")
    found = [stated(band, nodata) for band in sources(scenes.items, bands, modifier=scenes.modifier)]
    cubes = []
    for i in range(len(scenes)):
        own = [replace(band, sources=(band.sources[i],)) for band in found]
        grid = min((band.sources[0].geobox for band in own), key=lambda geobox: abs(geobox.affine.determinant))
        cubes.append(ImageCube(stacked(own, ["own"], grid, {0}, resampling, dtype)))
    return Cubes(cubes)
