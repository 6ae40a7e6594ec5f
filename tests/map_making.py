"""Rasters and models that the tests of maps share; a module of its own, so that other processes import it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import odc.geo.xr
import torch
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

import geopipes as gp

CLASSES = 3


def raster(
    shape: tuple[int, int],
    *,
    dtype: str = "float32",
    crs: str = "EPSG:32633",
    origin: tuple[float, float] = (300_000.0, 5_000_000.0),
    bands: int = 1,
    dates: int | None = None,
    holes: float = 0.1,
    seed: int = 0,
) -> xr.Dataset:
    """Make a raster of noise, of which a share is nodata: b0, b1, ..."""
    rng = np.random.default_rng(seed)
    step = 1e-4 if crs == "EPSG:4326" else 10.0
    geobox = GeoBox(shape, Affine(step, 0, origin[0], 0, -step, origin[1]), crs)
    lead, dims = ((), ("y", "x")) if dates is None else ((dates,), ("time", "y", "x"))
    valid = rng.random((*lead, *shape)) >= holes
    variables: dict[str, Any] = {"valid": (dims, valid)}
    for band in range(bands):
        values = (rng.normal(size=(*lead, *shape)) * 100).astype(dtype)
        if values.dtype.kind == "f":
            values[~valid] = np.nan
        variables[f"b{band}"] = (dims, values)
    coords: dict[Any, Any] = dict(odc.geo.xr.xr_coords(geobox, always_yx=True))
    if dates is not None:
        coords["time"] = np.datetime64("2024-05-01", "ns") + np.arange(dates) * np.timedelta64(30, "D")
    return xr.Dataset(variables, coords)


def samples(source: Any, size: int | tuple[int, int], **options: Any) -> gp.Pipe[dict[str, Any]]:
    """Give the samples of a raster in the order of the plan: "image" of all its bands."""
    datasets = source if isinstance(source, list) else [source]
    bands = [str(name) for name in datasets[0].data_vars if name != "valid"]
    chips = gp.cubes(source).chip(size, **{"coverage": "any", **options})
    return chips.read(threads=2).tensor(image=bands, fill=0, time_axis=False)


def identity(image: torch.Tensor) -> torch.Tensor:
    return image


class Smooth(torch.nn.Module):
    """Three classes of a convolution whose weights a seed decides."""

    def __init__(self, bands: int = 1, classes: int = CLASSES, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = torch.nn.Conv2d(bands, classes, 5, padding=2)
        self.norm = torch.nn.BatchNorm2d(classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.conv(image / 100))
        return out


class Slow(Smooth):
    """The same, some milliseconds later; a program is told when it is asked first."""

    first: ClassVar[list[Callable[[], None]]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        while self.first:
            self.first.pop()()
        time.sleep(0.02)
        return super().forward(image)


def long_map(folder: Path) -> Any:
    """Give a map that takes some seconds, of a raster in a folder: batches that span rows of chips."""
    chips = gp.rasters(str(folder / "raster.tif")).stack(["b1"]).chip(32, overlap=16, edge="pad")
    tensors = chips.read(threads=2).tensor(image=["b1"], fill=0, time_axis=False, dtype=torch.float32)
    return tensors.predict(Slow(), batch=5).stitch(activation="softmax")


if __name__ == "__main__":  # a run that somebody will end
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    Slow.first.append(lambda: print("begun", flush=True))  # what it has to import and open is done then
    long_map(folder).write(folder / sys.argv[2])
    print("done", flush=True)
