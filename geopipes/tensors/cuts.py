"""Chips as arrays: each variable without the margin, and the place of what is left."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import torch
import xarray as xr

from geopipes.errors import TensorError

NEEDED = {"valid": (), "chip": ("margin",), "spatial_ref": ("crs_wkt", "GeoTransform")}
"""What a Dataset must hold to be a chip, with the attributes of each."""


class Layer(NamedTuple):
    """One variable of a tensor.

    Attributes
    ----------
    name : of the variable
    pixels : (time or 1, band or 1, y, x), without the margin: a view of the chip
    timed, banded : whether the variable itself has those axes
    joined : whether ``valid`` does not speak of it
    nodata : the number that is no measurement of a joined one; None for none but NaN
    """

    name: str
    pixels: npt.NDArray[Any]
    timed: bool
    banded: bool
    joined: bool
    nodata: float | None = None


@dataclass(frozen=True)
class Cut:
    """A chip, and the pixels of margin to be cropped from all its sides."""

    chip: xr.Dataset
    margin: int

    @classmethod
    def of(cls, chip: xr.Dataset) -> Cut:
        """Take a Dataset that has all that a chip has."""
        there = chip.variables
        lacking = [name for name in NEEDED if name not in there] or [
            f"{name}.attrs[{attr!r}]"
            for name, attrs in NEEDED.items()
            for attr in attrs
            if attr not in there[name].attrs
        ]
        if lacking:
            raise TensorError(
                f"tensor(): the Dataset lacks {', '.join(lacking)}, which every chip has; keep it in the"
                ' steps before, for example cube[["red", "valid"]] instead of cube[["red"]]'
            )
        valid = there["valid"]
        if valid.dtype != bool or set(valid.dims) - {"time"} != {"y", "x"}:
            dims = ", ".join(map(str, valid.dims))
            raise TensorError(f"tensor(): 'valid' is {valid.dtype} ({dims}); needed bool (time, y, x) or (y, x)")
        return cls(chip, int(there["chip"].attrs["margin"]))

    @cached_property
    def _variables(self) -> dict[Hashable, xr.Variable]:
        return dict(self.chip.variables)

    def holds_boxes(self, name: str) -> bool:
        """Say whether a variable is one of boxes."""
        variable = self._variables.get(name)
        return variable is not None and bool(variable.attrs.get("boxes"))

    def layer(self, tensor: str, name: str) -> Layer:
        """Take one variable for the tensor of that name."""
        variable = self._variables.get(name)
        dims = () if variable is None else variable.dims
        order = _order(dims)
        if variable is None or order is None:
            if name not in self.chip.data_vars:
                known = ", ".join(str(other) for other in self.chip.data_vars)
                raise TensorError(f"tensor({tensor}=...): there is no variable {name!r}; there are {known}")
            there = ", ".join(map(str, dims))
            raise TensorError(f"tensor({tensor}=...): {name!r} is ({there}); needed y, x and at most time and bands")
        pixels = self._cropped(_values(variable if dims == order else variable.transpose(*order)))
        time = order[0] == "time"
        bands = len(order) > 2 + time
        pixels = pixels if time else pixels[None]
        undated = not time and "time" in self._variables["valid"].dims
        joined = undated or name == "valid" or bool(variable.attrs.get("joined"))
        return Layer(
            name=name,
            pixels=pixels if bands else pixels[:, None],
            timed=time,
            banded=bands,
            joined=joined,
            nodata=variable.attrs.get("nodata") if joined else None,
        )

    def valid(self) -> npt.NDArray[np.bool_]:
        """Give validity as (time or 1, y, x), without the margin."""
        valid = self._variables["valid"]
        order = ("time", "y", "x") if "time" in valid.dims else ("y", "x")
        pixels = self._cropped(_values(valid if valid.dims == order else valid.transpose(*order)))
        return pixels if len(order) == 3 else pixels[None]

    def time(self) -> torch.Tensor:
        """Give the dates in nanoseconds since 1970, UTC: (time,), int64; NaT is the smallest."""
        return nanoseconds(np.atleast_1d(self._at("time")))

    def column(self, name: str) -> Any:
        """Give what the plan's column of that name says of the chip."""
        there = {key: value for key, value in self.chip.variables["chip"].attrs.items() if key != "margin"}
        if name not in there:
            raise TensorError(f"tensor(columns=...): the plan has no column {name!r}; there are {[*there]}")
        return there[name]

    def place(self) -> dict[str, Any]:
        """Give id, bounds, CRS and transform of the chip without its margin."""
        attrs = self._variables["spatial_ref"].attrs
        x0, dx, _, y0, _, dy = map(float, attrs["GeoTransform"].split())
        height, width = (self.chip.sizes[dim] for dim in "yx")
        for dim, start, step, size in (("x", x0, dx, width), ("y", y0, dy, height)):
            at = self._at(dim)
            first, last = float(at[0]), float(at[-1])
            off = max(abs(first - start - step / 2), abs(last - start - step * (size - 0.5)))
            if off > abs(step) / 100:  # far above rounding, far below what moves a pixel
                raise TensorError(
                    f"tensor(): the coordinate {dim} runs from {first} to {last}, but spatial_ref states"
                    f" {size} px of {step} from {start}; keep y and x as chip() gave them, or cut chips that"
                    " have the extent and the resolution needed"
                )
        transform = (dx, 0.0, x0, 0.0, dy, y0)
        chip = int(self._variables["chip"].values)
        return place(chip, authority(attrs["crs_wkt"]), transform, (height, width), self.margin)

    def _at(self, name: str) -> npt.NDArray[Any]:
        """Give the values of a coordinate: of its index where it has one, which takes a tenth of the time."""
        if name in self.chip.dims:
            index = self.chip.get_index(name)
            if not isinstance(index, pd.RangeIndex):  # which stands for none, too
                return np.asarray(index.values)
        return np.asarray(self.chip.variables[name].values)

    def _cropped(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if not self.margin:
            return pixels
        inside = slice(self.margin, -self.margin)
        return pixels[..., inside, inside]


def _values(variable: xr.Variable) -> npt.NDArray[Any]:
    """Give the values of a variable; those that are an array already without looking for what else they may be."""
    data = variable.data
    return data if type(data) is np.ndarray else np.asarray(variable.values)


@lru_cache(maxsize=64)
def _order(dims: tuple[Hashable, ...]) -> tuple[Hashable, ...] | None:
    """Give the dims of a variable in the order of a tensor; None where it cannot be a part of one."""
    bands = [dim for dim in dims if dim not in ("time", "y", "x")]
    if len(bands) > 1 or "y" not in dims or "x" not in dims:
        return None
    return (*(["time"] if "time" in dims else []), *bands, "y", "x")


def nanoseconds(times: npt.NDArray[np.datetime64]) -> torch.Tensor:
    """Give dates as a tensor, (time,), int64, nanoseconds since 1970; NaT is the smallest."""
    return torch.from_numpy(times.astype("datetime64[ns]").astype(np.int64))


def place(chip: int, crs: str, transform: tuple[float, ...], shape: tuple[int, int], margin: int) -> dict[str, Any]:
    """Give id, bounds, CRS and transform of a chip without its margin.

    Parameters
    ----------
    chip : its id
    crs : as `authority` names it
    transform, shape : with the margin; (dx, 0, x0, 0, dy, y0) and (y, x)
    margin : pixels to be cropped from all sides
    """
    dx, _, x0, _, dy, y0 = transform
    height, width = shape
    left, top = x0 + margin * dx, y0 + margin * dy
    right, bottom = x0 + (width - margin) * dx, y0 + (height - margin) * dy
    return {
        "chip": chip,
        "bounds": (left, bottom, right, top),
        "crs": crs,
        "transform": (dx, 0.0, left, 0.0, dy, top),
    }


@lru_cache(maxsize=64)  # parsing WKT costs more than the rest of a sample
def authority(wkt: str) -> str:
    """Name a CRS by its authority, "EPSG:32633", or by its WKT where none does."""
    found = pyproj.CRS.from_wkt(wkt).to_authority()
    return ":".join(found) if found else wkt
