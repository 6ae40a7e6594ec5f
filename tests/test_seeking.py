"""Chips around points anywhere: a search for each, when it is needed."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import partial
from typing import Any

import geopandas
import numpy as np
import pystac
import pytest
import shapely
from odc.geo.geobox import GeoBox

from geopipes import chips, datacubes
from geopipes.chips.seeking import Bounds, seek, settle
from geopipes.datacubes import Cubes
from geopipes.errors import ChipError, EmptySearch
from geopipes.testing import Synthetic


def find(items: list[pystac.Item], asked: list[Any], bounds: Bounds, when: str | None) -> list[pystac.Item]:
    asked.append(when)
    place = shapely.box(*bounds)
    return [item for item in items if item.geometry and place.intersects(shapely.geometry.shape(item.geometry))]


def stack(items: Sequence[pystac.Item], geobox: GeoBox) -> Cubes:
    return datacubes.stack(items, ["red"], geobox=geobox, groupby="solar_day")


def test_points_anywhere_are_searched_for_when_they_are_needed(land: Synthetic) -> None:
    west, south, east, north = land.bbox
    asked: list[Any] = []
    where = shapely.points(
        [(west * 3 + east) / 4, 12.0, (west + 3 * east) / 4], [(south + north) / 2, -33.0, (south + north) / 2]
    )
    points = geopandas.GeoDataFrame({"crop": [1, 2, 3]}, geometry=where, crs=4326)
    seeks: Any = partial(find, [*land.items], asked)
    windows = seek(points, 16, seeks, stack, resolution=10, datetime="2024", margin=4)
    assert not asked
    assert [str(cube.crs) for cube in windows.cubes] == ["EPSG:32614", "EPSG:32733", "EPSG:32615"]
    assert [*windows.cubes[0].geobox.shape] == [24, 24]
    chip = chips.load(windows, 0)
    assert asked == ["2024"]
    assert chip.sizes == {"time": 2, "y": 24, "x": 24}
    whole = stack([*land.items], windows.cubes[0].geobox)
    np.testing.assert_array_equal(chip["red"].values, whole[0]["red"].values)
    with pytest.raises(EmptySearch, match="no item within"):
        chips.load(windows, 1)
    settled = settle(windows, threads=2)
    assert [*settled.columns["crop"]] == [1, 3]
    assert settled.left_out == 1
    assert asked.count("2024") == 4  # what was found is remembered, what was empty is asked for again
    assert len(chips.load(pickle.loads(pickle.dumps(settled)), 1)["time"]) == 2
    with pytest.raises(EmptySearch, match="none of the 1 points"):
        settle(windows.take([1]))
    with pytest.raises(ChipError, match="UTM ends"):
        seek(geopandas.GeoSeries([shapely.Point(0, 89)], crs=4326), 16, seeks, stack, resolution=10)
