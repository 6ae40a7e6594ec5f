"""The pictures of the examples, with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.patches import Patch

from geopipes.testing import LandCover

mpl.use("Agg")  # files, no windows
from matplotlib import pyplot as plt  # noqa: E402  (the backend is chosen before)

BRIGHTEST = 0.5
"""Reflectance that is drawn as full brightness."""
NO_DATA = "white"


def save_predictions(
    path: Path,
    batches: Sequence[Mapping[str, Any]],
    answers: torch.Tensor,
    classes: Sequence[LandCover],
    *,
    unknown: int,
    chips: int = 5,
) -> Path:
    """Draw chips, a row each: every date in false colour, the label, the prediction, and where they differ.

    Parameters
    ----------
    path : of the PNG
    batches : with ``image`` (N, date, band, y, x), reflectance of blue, green, red and near infrared,
        ``image_valid`` (N, date, y, x), ``target`` (N, y, x) and ``time`` (N, date)
    answers : (N, y, x), the class predicted
    classes : with their colours
    unknown : the target's value of pixels that do not count
    chips : rows
    """
    image, valid, target = (torch.cat([b[k] for b in batches]).numpy() for k in ("image", "image_valid", "target"))
    days = batches[0]["time"][0].numpy().astype("datetime64[ns]").astype("datetime64[D]")
    titles = [*map(str, days), "label", "prediction", "right or wrong"]
    colours = np.full((unknown + 1, 3), 255, "uint8")
    for cover in classes:
        colours[cover.value] = cover.colour
    rows = np.linspace(0, len(target) - 1, min(chips, len(target))).astype(int)
    size = (1.35 * len(titles), 1.35 * len(rows) + 0.9)
    figure, axes = plt.subplots(len(rows), len(titles), figsize=size, squeeze=False, layout="constrained")
    for line, chip in zip(axes, rows, strict=True):
        false_colour = np.moveaxis(image[chip][:, [3, 2, 1]], 1, -1) / BRIGHTEST  # vegetation shows red
        dates = np.where(valid[chip][..., None], np.clip(false_colour, 0, 1), 1.0)
        answer, truth = answers[chip].numpy(), target[chip]
        verdict = np.where((answer == truth)[..., None], np.uint8([225, 225, 225]), np.uint8([200, 40, 40]))
        verdict[truth == unknown] = 255
        for axis, panel in zip(line, [*dates, colours[truth], colours[answer], verdict], strict=True):
            axis.imshow(panel, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    patches = [Patch(color=np.array(cover.colour) / 255, label=cover.name) for cover in classes]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(classes), fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
