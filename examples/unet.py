"""A small U-Net in plain PyTorch, for the examples: (N, bands, H, W) to (N, classes, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolutions(bands_in: int, bands_out: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, normed over the batch: normed alone, a chip of one field would lose how bright it is."""
    layers: list[nn.Module] = []
    for bands in (bands_in, bands_out):
        layers += [
            nn.Conv2d(bands, bands_out, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(bands_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net after Ronneberger et al. 2015 (arXiv:1505.04597), padded so that the size stays.

    Parameters
    ----------
    bands : of the image
    classes : to tell apart
    width : channels at full resolution, even; doubled at each level
    depth : levels below full resolution; the image has at least 2**depth px on each side, of any number
    """

    def __init__(self, bands: int, classes: int, *, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.first = convolutions(bands, width)
        self.down = nn.ModuleList(convolutions(w, 2 * w) for w in widths[:-1])
        self.up = nn.ModuleList(convolutions(w + w // 2, w // 2) for w in reversed(widths[1:]))
        self.last = nn.Conv2d(width, classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Score each class at each pixel: (N, bands, H, W), float32, to (N, classes, H, W), logits."""
        features = self.first(image)
        skipped: list[Tensor] = []
        for down in self.down:
            skipped.append(features)
            features = down(functional.max_pool2d(features, 2))
        for up in self.up:
            skip = skipped.pop()
            wide = functional.interpolate(features, size=skip.shape[-2:], mode="nearest")
            features = up(torch.cat([skip, wide], dim=1))
        logits: Tensor = self.last(features)
        return logits
