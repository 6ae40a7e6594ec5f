"""The picture of a map beside the truth, with matplotlib."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

TRUE, FOUND, FALSE, MISSED = "#ffd92f", "#35c9ff", "#ff2d7e", "#ff8c1a"
SIDE = 360
"""Pixels that are drawn along each side, at most."""
SCALE = 50.0
"""[m] that the bar is long."""


def save_map(path: Path, image: xr.Dataset, truth: gpd.GeoDataFrame, found: gpd.GeoDataFrame) -> Path:
    """Draw the north-west of an area as it was seen, with the true polygons, and with those found, right or wrong.

    Parameters
    ----------
    path : of the PNG
    image : red, green and blue, (y, x), 0 to 255, with the coordinates of its pixels' centres [m]
    truth, found : polygons in the image's CRS
    """
    image = image.isel(y=slice(SIDE), x=slice(SIDE)).load()
    height, width = image.sizes["y"], image.sizes["x"]
    figure = Figure(figsize=(12, 4 * height / width + 0.7), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, title in zip(axes, ("held-out ground", "true footprints", "polygons of the map"), strict=True):
        show(axis, image, pale=axis is not axes[0])
        axis.set_title(title, fontsize=11)
    bounds = axes[0].axis()
    fill(axes[1], truth, TRUE)
    fill(axes[2], truth.overlay(found, how="intersection"), FOUND)
    fill(axes[2], found.overlay(truth, how="difference"), FALSE)
    fill(axes[2], truth.overlay(found, how="difference"), MISSED)
    for axis in axes[1:]:
        (truth if axis is axes[1] else found).boundary.plot(ax=axis, color="black", linewidth=0.5)
    for axis in axes:
        axis.axis(bounds)
        axis.set(xticks=[], yticks=[], xlabel="", ylabel="")
    scale_bar(axes[0], bounds[0], bounds[2])
    patches = [
        Patch(color=FOUND, label="found"),
        Patch(color=FALSE, label="found, not there"),
        Patch(color=MISSED, label="missed"),
    ]
    figure.legend(handles=patches, loc="outside lower right", ncols=3, fontsize=10, frameon=False)
    figure.savefig(path, dpi=110)
    return path


def show(axis: Axes, image: xr.Dataset, *, pale: bool) -> None:
    pixels = np.stack([image[band].values for band in ("red", "green", "blue")], axis=-1) / 255
    half = float(image.x[1] - image.x[0]) / 2
    left, right, bottom, top = image.x[0] - half, image.x[-1] + half, image.y[-1] - half, image.y[0] + half
    axis.imshow(0.55 + 0.45 * pixels if pale else pixels, extent=(left, right, bottom, top), interpolation="nearest")


def fill(axis: Axes, polygons: gpd.GeoDataFrame, colour: str) -> None:
    if len(polygons):
        polygons.plot(ax=axis, color=colour, alpha=0.85)


def scale_bar(axis: Axes, left: float, bottom: float) -> None:
    at = left + 0.2 * SCALE, bottom + 0.2 * SCALE
    axis.plot([at[0], at[0] + SCALE], [at[1]] * 2, color="white", linewidth=3, solid_capstyle="butt")
    axis.text(at[0] + SCALE / 2, at[1] + 0.06 * SCALE, f"{SCALE:g} m", color="white", ha="center", fontsize=9)
