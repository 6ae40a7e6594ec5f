"""The pictures of the examples, with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning import UNKNOWN
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from geopipes.testing import LandCover

BRIGHTEST = np.array([0.5, 0.3, 0.3])
"""Reflectance drawn as full brightness: near infrared, red, green."""
RIGHT, WRONG = np.array([225, 225, 225], "uint8"), np.array([200, 40, 40], "uint8")


def save_predictions(
    path: Path,
    batches: Sequence[Mapping[str, Any]],
    answers: torch.Tensor,
    classes: Sequence[LandCover],
    *,
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
    chips : rows
    """
    image, valid, target = (torch.cat([b[k] for b in batches]).numpy() for k in ("image", "image_valid", "target"))
    days = batches[0]["time"][0].numpy().astype("datetime64[ns]").astype("datetime64[D]")
    titles = [*map(str, days), "label", "prediction", "wrong"]
    colours = np.full((UNKNOWN + 1, 3), 255, "uint8")
    for cover in classes:
        colours[cover.value] = cover.colour
    rows = np.linspace(0, len(target) - 1, min(chips, len(target))).astype(int)
    figure = Figure(figsize=(1.3 * len(titles), 1.3 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, chip in zip(axes, rows, strict=True):
        false_colour = np.moveaxis(image[chip][:, [3, 2, 1]], 1, -1) / BRIGHTEST
        dates = np.where(valid[chip][..., None], np.clip(false_colour, 0, 1), 1.0)
        answer, truth = answers[chip].numpy(), target[chip]
        verdict = np.where((answer == truth)[..., None], RIGHT, WRONG)
        verdict[truth == UNKNOWN] = 255
        for axis, panel in zip(line, [*dates, colours[truth], colours[answer], verdict], strict=True):
            axis.imshow(panel, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    patches = [Patch(color="#" + bytes(cover.colour).hex(), label=cover.name) for cover in classes]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(classes), fontsize=8, frameon=False)
    figure.suptitle("dates in false colour: vegetation is red, clouds are left out", fontsize=9, x=0.005, ha="left")
    figure.savefig(path, dpi=110)
    return path
