"""A map's raw rows to a Zarr store of version 3, its chunks in shards."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr
import xarray as xr

from geopipes import grids
from geopipes.maps.cogs import Look
from geopipes.maps.layers import Outcome
from geopipes.maps.sheets import Layout

CHUNK, SHARD = 256, 4096
"""Pixels a side of a chunk, and of a shard: one file holds 256 chunks of a band."""


def write_zarr(
    path: Path, layout: Layout, sheets: Sequence[tuple[int, Mapping[str, Path]]], outcomes: Sequence[Outcome],
    look: Look, mark: str,
) -> None:  # fmt: skip
    """Write all dates of one grid as a store.

    Parameters
    ----------
    path : of the store
    layout : of the map
    sheets : the number of each date's sheet, with the raw pixels of each variable
    outcomes : the variables, of one resolution
    look : how it is kept: names of classes, as CF's flags
    mark : what decides its pixels
    """
    import zarr
    from zarr.errors import ZarrUserWarning

    numbers = [layout.sheets[number] for number, _ in sheets]
    geobox = layout.geobox(numbers[0], outcomes[0].layer.scale)
    dates = [layout.date(sheet) for sheet in numbers]
    timed = len(numbers) > 1
    y, x = grids.coordinates(geobox)
    coords: dict[Any, Any] = odc.geo.xr.xr_coords(geobox, always_yx=True) | {"y": ("y", y), "x": ("x", x)}
    if timed:
        coords["time"] = ("time", np.array(dates, "datetime64[ns]"))
    elif dates[0] is not None:
        coords["time"] = dates[0]
    xr.Dataset(coords=coords, attrs={"geopipes_map": mark}).to_zarr(path, zarr_format=3, mode="w", consolidated=False)
    group = zarr.open_group(path, mode="r+")
    height, width = geobox.shape
    for outcome in outcomes:
        raw = (height, outcome.bands, width)
        files = [np.memmap(paths[outcome.name], outcome.dtype, "r", shape=raw) for _, paths in sheets]
        lead = ([("time", len(files), 1)] if timed else []) + (
            [("band", outcome.bands, 1)] if outcome.bands > 1 else []
        )
        shape = (*(length for _, length, _ in lead), *geobox.shape)
        array = group.create_array(
            outcome.name, shape=shape, dtype=outcome.dtype, fill_value=outcome.nodata,
            chunks=(*(chunk for _, _, chunk in lead), CHUNK, CHUNK),
            shards=(*(chunk for _, _, chunk in lead), *(_shard(length) for length in geobox.shape)),
            dimension_names=(*(name for name, _, _ in lead), "y", "x"), attributes=_attrs(outcome, look),
        )  # fmt: skip
        for date, pixels in enumerate(files):
            for band in range(outcome.bands):
                at = (*((date,) if timed else ()), *((band,) if outcome.bands > 1 else ()))
                for top in range(0, geobox.shape[0], SHARD):
                    for left in range(0, geobox.shape[1], SHARD):
                        block = pixels[top : top + SHARD, band, left : left + SHARD]
                        array[(*at, slice(top, top + block.shape[0]), slice(left, left + block.shape[1]))] = block
    with warnings.catch_warnings():  # readers of version 3 take it, though its specification does not name it yet
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(path)


def _shard(length: int) -> int:
    """Give the side of a shard: no larger than the map asks for."""
    return min(SHARD, -(-length // CHUNK) * CHUNK)


def _attrs(outcome: Outcome, look: Look) -> dict[str, Any]:
    attrs: dict[str, Any] = {"grid_mapping": "spatial_ref"}
    if not np.isnan(outcome.nodata):
        attrs["nodata"] = outcome.nodata
    if outcome.classes and look.classes:
        attrs |= {
            "flag_values": [*look.classes],
            "flag_meanings": " ".join(n.replace(" ", "_") for n in look.classes.values()),
        }
    return attrs
