"""The verbs that lead back to a map, and the map as something to iterate over, load and write."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from geopipes.pipe.chain import Chain
from geopipes.pipe.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    import xarray as xr

    from geopipes import maps, steps
    from geopipes.maps.blending import Blend
    from geopipes.maps.cogs import Color
    from geopipes.maps.layers import Activation
    from geopipes.maps.models import Model
    from geopipes.pipe import openings
    from geopipes.pipe.pipes import Pipe
else:
    maps, openings, steps = (LazyModule(f"geopipes.{name}") for name in ("maps", "pipe.openings", "steps"))

T = TypeVar("T")


class MapChain(Chain[T]):
    """A chain of samples or batches: the part of `Pipe` from a model to a map."""

    def predict(
        self: MapChain[dict[str, Any]],
        model: Model,
        *,
        on: str | Sequence[str] | Mapping[str, str] = "image",
        name: str | Sequence[str] = "prediction",
        batch: int | None = None,
        device: str | torch.device | None = None,
        autocast: torch.dtype | None = None,
    ) -> Pipe[dict[str, Any]]:
        """Ask a model about samples or batches, which then carry its answers: see `geopipes.maps.predict`."""
        options: dict[str, Any] = {"on": on, "name": name, "batch": batch, "device": device, "autocast": autocast}
        text = steps.call("predict", steps.Text(_named(model)), **steps.given(MapChain.predict, options))
        self._need("stream", text)
        return cast("Pipe[dict[str, Any]]", self._op(maps.predict(model, **options, text=text)))

    def stitch(
        self: MapChain[dict[str, Any]],
        *,
        of: str | Sequence[str] = "prediction",
        blend: Blend = "hann",
        activation: Activation | Mapping[str, Activation] | None = None,
        classes: bool | str | Sequence[str] = False,
        probability: bool = False,
        nodata: float | Mapping[str, float] | None = None,
    ) -> Map:
        """Put predictions together to a map, as they come: see `geopipes.maps.stitch`."""
        options: dict[str, Any] = {
            "of": of, "blend": blend, "activation": activation, "classes": classes, "probability": probability,
            "nodata": nodata,
        }  # fmt: skip
        text = steps.call("stitch", **steps.given(MapChain.stitch, options))
        self._need("stream", text)
        return Map(maps.stitch(self._value.get(), self._ops, **options, text=text), self)


class Map:
    """A map that is made as it is asked for, from top to bottom, grid by grid: of `Pipe.stitch`.

    Iterating gives its strips, each an xr.Dataset with ``valid``, of all columns and some rows.
    """

    def __init__(self, mosaic: maps.Mosaic, chain: Chain[Any]) -> None:
        self._mosaic, self._chain = mosaic, chain

    def __iter__(self) -> Iterator[xr.Dataset]:
        """Make the map, strip by strip."""
        return iter(self._mosaic)

    def load(self) -> xr.Dataset:
        """Make the whole map in memory: see `geopipes.maps.load`."""
        return maps.load(self._mosaic)

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        compress: str | None = "deflate",
        overviews: bool = True,
        classes: Mapping[int, str] | None = None,
        colors: Mapping[int, Color] | None = None,
        overwrite: bool = False,
        progress: bool = False,
    ) -> Pipe[Any]:
        """Make the map and write it, where another run may go on: see `geopipes.maps.write`.

        Returns
        -------
        what was written, to go on with: items as of `geopipes.rasters`, with their dates; of Zarr cubes as of
        `geopipes.cubes`
        """
        written = maps.write(
            self._mosaic, path, compress=compress, overviews=overviews, classes=classes, colors=colors,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
        paths = [str(file.path) for file in written]
        one = paths[0] if len(paths) == 1 else paths
        if paths[0].endswith(".zarr"):
            return openings.cubes(one)
        dates = {str(file.path): None if file.date is None else str(file.date) for file in written}
        return openings.rasters(one, datetime=dates.get if any(dates.values()) else None)

    def __str__(self) -> str:
        return f"{self._chain}\n    .{self._mosaic.text}"

    __repr__ = __str__


def _named(model: Any) -> str:
    """Name a model in a printed chain."""
    return str(getattr(model, "__name__", type(model).__name__))
