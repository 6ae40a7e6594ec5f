"""Pictures of plans: footprints of scenes, chips and splits, on a plain axis or an interactive map."""

from __future__ import annotations

from importlib.util import find_spec
from math import cos, radians
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from odc.geo.crs import CRS

from geopipes import grids
from geopipes.chips.footprints import DEGREES, members
from geopipes.chips.tables import column, quads, table
from geopipes.chips.windows import Windows
from geopipes.errors import ChipError
from geopipes.grids.extents import projected

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Of the splits: Okabe and Ito's, which the colour-blind can tell apart (Color Universal Design, 2008)."""


def plot(*plans: Windows, by: str = "split", scenes: bool = True, crs: Any = DEGREES, ax: Axes | None = None) -> Axes:
    """Draw where chips lie, coloured by split or another column.

    Parameters
    ----------
    plans : as many as are to be seen together, such as the splits of one
    by : the column that gives the colours: numbers with decimals as a scale, anything else value by value. Where a
        plan lacks it, its place among the plans stands in
    scenes : whether to outline the ground that every source covers
    crs : of the axis: longitude and latitude, or one in metres such as ``"EPSG:32632"``
    ax : of matplotlib; None for a new one

    Returns
    -------
    the axis

    Raises
    ------
    ChipError
        if there is nothing to draw, or matplotlib is not installed
    """
    if not any(len(windows) for windows in plans):
        raise ChipError("plot: there are no chips to draw")
    if find_spec("matplotlib") is None:
        raise ChipError("plot needs matplotlib: pip install 'geopipes[plot]'")
    from matplotlib import pyplot as plt
    from matplotlib.collections import PolyCollection

    ax = plt.subplots()[1] if ax is None else ax
    if scenes:
        _outline_scenes(plans, CRS(crs), ax)
    parts = [members(windows) for windows in plans]
    places = np.concatenate([quads(part, crs) for own in parts for part in own])
    values = np.concatenate([np.tile(v, len(own)) for v, own in zip(_values(plans, by, "plot"), parts, strict=True)])
    look: dict[str, Any] = {"alpha": 0.5, "linewidth": 0.5, "edgecolor": "face"}
    if values.dtype.kind == "f":
        chips = ax.add_collection(PolyCollection(list(places), array=values, **look))
        ax.figure.colorbar(chips, ax=ax, label=by)
    else:
        codes, names = pd.factorize(values)
        for code, name in enumerate(names):
            mine, colour = places[codes == code], COLOURS[code % len(COLOURS)]
            ax.add_collection(PolyCollection(mine, facecolor=colour, label=f"{name} ({len(mine):,})", **look))
        ax.legend(title=by, loc="upper right")  # a place that is looked for takes seconds among many chips
    ax.autoscale_view()
    if CRS(crs).geographic:
        middle = radians(float(np.mean([places[..., 1].min(), places[..., 1].max()])))
        ax.set(xlabel="longitude [°]", ylabel="latitude [°]", aspect=1 / max(cos(middle), 0.01))
    else:
        unit = "m" if CRS(crs).units[0] == "metre" else CRS(crs).units[0]
        name = f", EPSG:{CRS(crs).epsg}" if CRS(crs).epsg else ""
        ax.set(xlabel=f"x [{unit}]{name}", ylabel=f"y [{unit}]", aspect="equal")
    return ax


def explore(*plans: Windows, by: str = "split") -> Any:
    """Show where chips lie on an interactive map, coloured by split or another column.

    Parameters
    ----------
    plans, by : as in `plot`

    Returns
    -------
    a folium.Map where folium is installed, else a lonboard.Map

    Raises
    ------
    ChipError
        if there is nothing to show, or neither is installed
    """
    if not any(len(windows) for windows in plans):
        raise ChipError("explore: there are no chips to show")
    kinds = [name for name in ("folium", "lonboard") if find_spec(name) is not None]
    if not kinds:
        raise ChipError(
            "explore needs folium or lonboard: pip install 'geopipes[plot]', or pip install lonboard; plot() draws on "
            "a plain axis"
        )
    rows = pd.concat([table(windows) for windows in plans], ignore_index=True).assign(
        **{by: np.concatenate(_values(plans, by, "explore"))}
    )
    if kinds[0] == "folium":
        return rows.explore(column=by, categorical=rows[by].dtype.kind != "f")
    import lonboard  # type: ignore[import-not-found, unused-ignore]

    return lonboard.viz(rows)


def _values(plans: tuple[Windows, ...], by: str, call: str) -> list[npt.NDArray[Any]]:
    """Give what each chip is coloured by."""
    parts = []
    for number, windows in enumerate(plans):
        missing = by == "split" and by not in windows.columns
        parts.append(np.full(len(windows), number) if missing else column(windows, by, call))
    kinds = {part.dtype.kind for part in parts}
    return parts if len(kinds) == 1 else [part.astype(str) for part in parts]


def _outline_scenes(plans: tuple[Windows, ...], crs: CRS, ax: Axes) -> None:
    """Draw the outlines of what the cubes' sources cover."""
    cubes = {id(cube): cube for windows in plans for cube in windows.cubes}
    label: str | None = "scenes"
    for cube in cubes.values():
        covered = shapely.intersection(cube.footprint, grids.extent(cube.geobox, cube.crs))
        for line in shapely.get_parts(shapely.boundary(projected(covered, cube.crs, crs))):
            ax.plot(*shapely.get_coordinates(line).T, color="0.3", linewidth=1, label=label)
            label = None
