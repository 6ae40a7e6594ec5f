"""A U-Net whose encoder is a ResNet, in plain PyTorch, for the examples; its modules bear torchvision's names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu
from unet import convolutions


class Residual(nn.Module):
    """Two convolutions beside a shortcut: the basic block of He et al. 2016 (arXiv:1512.03385)."""

    def __init__(self, bands_in: int, bands_out: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(bands_in, bands_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(bands_out)
        self.conv2 = nn.Conv2d(bands_out, bands_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(bands_out)
        shortcut = nn.Sequential(nn.Conv2d(bands_in, bands_out, 1, stride, bias=False), nn.BatchNorm2d(bands_out))
        self.downsample = shortcut if bands_in != bands_out else nn.Sequential()

    def forward(self, features: Tensor) -> Tensor:
        """Give features of half the size where the stride is 2."""
        inner = relu(self.bn1(self.conv1(features)))
        return relu(self.bn2(self.conv2(inner)) + self.downsample(features))


class ResNet(nn.Module):
    """The encoder: features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's size; (3, 4, 6, 3) is ResNet-34."""

    def __init__(self, bands: int, *, width: int = 64, depths: Sequence[int] = (2, 2, 2, 2)) -> None:
        super().__init__()
        self.widths = [width, *(width * 2**level for level in range(len(depths)))]
        self.conv1 = nn.Conv2d(bands, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for level, depth in enumerate(depths, 1):
            first = Residual(*self.widths[level - 1 : level + 1], stride=1 if level == 1 else 2)
            more = (Residual(self.widths[level], self.widths[level], stride=1) for _ in range(depth - 1))
            self.add_module(f"layer{level}", nn.Sequential(first, *more))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Give the features, the finest first."""
        features = [relu(self.bn1(self.conv1(image)))]
        below = max_pool2d(features[0], 3, stride=2, padding=1)
        for level in range(1, len(self.widths)):
            features.append(below := self.get_submodule(f"layer{level}")(below))
        return features

    def load_weights(self, path: str | Path) -> None:
        """Load weights trained on three bands; those of further bands begin as the mean of the three."""
        weights = torch.load(path, map_location="cpu", weights_only=True)
        first, bands = weights["conv1.weight"], self.conv1.in_channels
        every = torch.cat([first, first.mean(1, keepdim=True).expand(-1, bands, -1, -1)], dim=1)[:, :bands]
        weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}  # of the classifier
        self.load_state_dict(weights | {"conv1.weight": every * (first.shape[1] / bands)})


class ResNetUNet(nn.Module):
    """The encoder, and a decoder back to the image's size, of any number of pixels from 32 on."""

    def __init__(self, bands: int, classes: int, *, width: int = 64, depths: Sequence[int] = (2, 2, 2, 2)) -> None:
        super().__init__()
        self.encoder = ResNet(bands, width=width, depths=depths)
        skips, wide = [bands, *self.encoder.widths], [width // 2, *self.encoder.widths]
        levels = range(len(self.encoder.widths) - 1, -1, -1)
        self.up = nn.ModuleList(convolutions(wide[at + 1] + skips[at], wide[at]) for at in levels)
        self.last = nn.Conv2d(wide[0], classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Score each class at each pixel: (N, bands, H, W), float32, to (N, classes, H, W), logits."""
        finer: list[Tensor] = [image, *self.encoder(image)]
        features = finer.pop()
        for up, skip in zip(self.up, reversed(finer), strict=True):
            features = up(torch.cat([skip, interpolate(features, size=skip.shape[-2:])], dim=1))
        return torch.as_tensor(self.last(features))
