"""Maps as Datasets: one strip, or a whole map that fits in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import odc.geo.xr
import xarray as xr

from geopipes import grids
from geopipes.errors import MapError
from geopipes.maps.blending import Pixels
from geopipes.maps.layers import Outcome
from geopipes.maps.sheets import Layout, Sheet

if TYPE_CHECKING:
    from geopipes.maps.mosaics import Block, Mosaic


def strip(layout: Layout, block: Block) -> xr.Dataset | None:
    """Give a block as a Dataset, of the layout that cubes have; None for one of no rows.

    Raises
    ------
    MapError
        if its variables have different resolutions
    """
    if not block.parts:
        return None
    sheet = layout.sheets[block.sheet]
    check_one_resolution([outcome for outcome, _, _ in block.parts])
    first, top, pixels = block.parts[0]
    geobox = layout.geobox(sheet, first.layer.scale)[top : top + pixels.shape[1], :]
    return dataset(layout, sheet, geobox, [(outcome, values) for outcome, _, values in block.parts])


def dataset(layout: Layout, sheet: Sheet, geobox: Any, parts: Iterable[tuple[Outcome, Pixels]]) -> xr.Dataset:
    """Make a Dataset of (bands, y, x) variables on a grid: floats are NaN, others nodata where nothing is known.

    Returns
    -------
    xr.Dataset : (y, x) for one band, else (band, y, x); ``valid`` where some variable is known; ``time`` where the
        chips have one date
    """
    variables: dict[str, Any] = {}
    valid = np.zeros(tuple(geobox.shape), bool)
    for outcome, pixels in parts:
        attrs = {} if np.isnan(outcome.nodata) else {"nodata": outcome.nodata}
        dims = ("y", "x") if outcome.bands == 1 else ("band", "y", "x")
        variables[outcome.name] = (dims, pixels[0] if outcome.bands == 1 else pixels, attrs)
        valid |= ~missing(outcome, pixels)
    y, x = grids.coordinates(geobox)
    coords: dict[Any, Any] = odc.geo.xr.xr_coords(geobox, always_yx=True) | {"y": ("y", y), "x": ("x", x)}
    if (date := layout.date(sheet)) is not None:
        coords["time"] = date
    return xr.Dataset({**variables, "valid": (("y", "x"), valid)}, coords)


def missing(outcome: Outcome, pixels: Pixels) -> Any:
    """Say where nothing is known of (bands, y, x): (y, x)."""
    return np.isnan(pixels).all(axis=0) if np.isnan(outcome.nodata) else (pixels == outcome.nodata).all(axis=0)


def check_one_resolution(outcomes: Iterable[Outcome]) -> None:
    """Raise where variables do not share a grid."""
    scales = {outcome.layer.scale: outcome.layer.name for outcome in outcomes}
    if len(scales) > 1:
        raise MapError(
            f"the answers {', '.join(scales.values())} have different resolutions, and a Dataset has one; stitch them "
            "one by one, or write them to 'map_{name}.tif'"
        )


def load(mosaic: Mosaic) -> xr.Dataset:
    """Make a whole map in memory.

    Returns
    -------
    xr.Dataset : of one grid, as `dataset` says; ``time`` is a dim where there are several dates

    Raises
    ------
    MapError
        if there are several grids, or several resolutions
    """
    layout = mosaic.layout
    if len(layout.grids) > 1:
        names = ", ".join(str(layout.windows.cubes[cube].crs) for cube in layout.grids)
        raise MapError(
            f"load(): the map lies on {len(layout.grids)} grids ({names}), and a Dataset has one; write it, "
            ".write('map_{crs}.tif'), or take it strip by strip, for strip in map"
        )
    sheets: dict[int, dict[str, Pixels]] = {}
    outcomes: dict[str, Outcome] = {}
    for block in mosaic.blocks():
        sheet = layout.sheets[block.sheet]
        for outcome, top, pixels in block.parts:
            outcomes[outcome.name] = outcome
            whole = sheets.setdefault(block.sheet, {}).get(outcome.name)
            if whole is None:
                shape = (outcome.bands, *layout.geobox(sheet, outcome.layer.scale).shape)
                whole = sheets[block.sheet][outcome.name] = np.empty(shape, outcome.dtype)
            whole[:, top : top + pixels.shape[1]] = pixels
    check_one_resolution(outcomes.values())
    scale = next(iter(outcomes.values())).layer.scale
    found = []
    for number, parts in sheets.items():
        sheet = layout.sheets[number]
        pairs = [(outcomes[name], pixels) for name, pixels in parts.items()]
        found.append(dataset(layout, sheet, layout.geobox(sheet, scale), pairs))
    return found[0] if len(found) == 1 else _in_time(found)


def _in_time(dated: list[xr.Dataset]) -> xr.Dataset:
    """Put the maps of several dates behind each other."""
    return xr.concat(dated, "time", data_vars="all", coords="minimal", compat="override", join="exact")
