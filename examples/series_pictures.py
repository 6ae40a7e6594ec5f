"""The pictures of series, with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from learning import UNKNOWN
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from pictures import BRIGHTEST

from geopipes.testing import LandCover


def save_views(
    path: Path, views: Sequence[Mapping[int, Any]], chips: Sequence[int], classes: Sequence[LandCover]
) -> Path:
    """Draw chips as they are and as they were augmented, a row each: every date in false colour, and the label.

    Parameters
    ----------
    path : of the PNG
    views : by epoch, of each chip by its id the sample: ``image`` (date, band, y, x), reflectance of blue, green, red
        and near infrared, ``image_valid`` (date, y, x), ``label`` (y, x) and ``time`` (date,); the first as it is
    chips : their ids
    classes : with their colours
    """
    colours = np.full((UNKNOWN + 1, 3), 255, "uint8")
    for cover in classes:
        colours[cover.value] = cover.colour
    names = ["as it is", *(f"epoch {epoch}" for epoch in range(len(views) - 1))]
    rows = [(name, view[chip]) for chip in chips for name, view in zip(names, views, strict=True)]
    days = rows[0][1]["time"].numpy().astype("datetime64[ns]").astype("datetime64[M]")
    figure = Figure(figsize=(1.3 * (len(days) + 1) + 0.8, 1.3 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots(len(rows), len(days) + 1, squeeze=False)
    for line, (name, sample) in zip(axes, rows, strict=True):
        dates = np.moveaxis(sample["image"].numpy()[:, [3, 2, 1]], 1, -1) / BRIGHTEST
        seen = sample["image_valid"].numpy()[..., None]
        panels = [*np.where(seen, np.clip(dates, 0, 1), 1.0), colours[sample["label"].numpy()]]
        for axis, panel in zip(line, panels, strict=True):
            axis.imshow(panel, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=9)
    for axis, title in zip(axes[0], [*map(str, days), "label"], strict=True):
        axis.set_title(title, fontsize=9)
    patches = [Patch(color="#" + bytes(cover.colour).hex(), label=cover.name) for cover in classes]
    figure.legend(handles=patches, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    return path
