"""ResNet-50 in plain torch, with scores of places on top: the network that the benchmark trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DEPTHS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks of each stage, by the layers that carry weights."""

WIDTH, WIDENING = 64, 4

EVERY = 32
"""Pixels of the image, along each side, to one of what the network makes of it."""


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut, the stride on the second: He et al. 2016 (arXiv:1512.03385)."""

    def __init__(self, bands: int, width: int, stride: int) -> None:
        super().__init__()
        wide = width * WIDENING
        self.body = nn.Sequential(
            nn.Conv2d(bands, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide),
        )  # fmt: skip
        fits = bands == wide and stride == 1
        self.shortcut = (
            nn.Identity()
            if fits
            else nn.Sequential(nn.Conv2d(bands, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))
        )

    def forward(self, features: Tensor) -> Tensor:
        """Give features of as many pixels, or a quarter of them where the stride is 2."""
        return torch.relu(self.body(features) + self.shortcut(features))


class ResNet(nn.Module):
    """(N, bands, y, x), float, to (N, classes, y / EVERY, x / EVERY), logits.

    Parameters
    ----------
    bands, classes : of the image and of the label
    layers : 50, or another of DEPTHS
    """

    def __init__(self, bands: int, classes: int, *, layers: int = 50) -> None:
        super().__init__()
        stages: list[nn.Module] = [
            nn.Conv2d(bands, WIDTH, 7, 2, padding=3, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
        ]  # fmt: skip
        wide = WIDTH
        for stage, depth in enumerate(DEPTHS[layers]):
            for block in range(depth):
                stages.append(Bottleneck(wide, WIDTH * 2**stage, stride=2 if stage and not block else 1))
                wide = WIDTH * 2**stage * WIDENING
        self.body, self.head = nn.Sequential(*stages), nn.Conv2d(wide, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Score each class in the middle of each `EVERY` x `EVERY` pixels."""
        return torch.as_tensor(self.head(self.body(image)).float())
