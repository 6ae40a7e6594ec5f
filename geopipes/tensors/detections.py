"""Boxes of a chip as detectors take them: in pixels, with labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from geopipes.tensors.cuts import Cut


class Detections(dict[str, torch.Tensor]):
    """The boxes of one chip: a dict that batches keep as it is, whatever the numbers of boxes."""


def detections(cut: Cut, name: str) -> Detections:
    """Give the boxes of a chip in its pixels.

    Parameters
    ----------
    cut : the chip
    name : of the boxes, (object, edge) in map coordinates

    Returns
    -------
    ``boxes`` (N, 4), float32: x0, y0, x1, y1 from the corner of the chip without margin; ``labels`` and ``ids`` (N,),
    int64
    """
    a, _, c, _, e, f = cut.place()["transform"]
    left, bottom, right, top = cut.chip.variables[name].values.reshape(-1, 4).T
    boxes = np.stack([(left - c) / a, (top - f) / e, (right - c) / a, (bottom - f) / e], axis=1)

    def whole(values: Any) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, np.int64).copy())

    return Detections(
        boxes=torch.from_numpy(boxes.astype(np.float32)),
        labels=whole(cut.chip.variables[f"{name}_label"].values),
        ids=whole(cut.chip.variables[f"{name}_id"].values),
    )
