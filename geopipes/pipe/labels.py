"""The verbs of labels: masks and boxes of vectors, other numbers for classes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from geopipes.errors import StepError
from geopipes.pipe.chain import Chain
from geopipes.pipe.lazy import LazyModule

if TYPE_CHECKING:
    import geopandas
    import pystac
    import xarray as xr

    from geopipes import datacubes, labels, steps
    from geopipes.datacubes.arranging import PerBand
    from geopipes.labels.coding import Classes
    from geopipes.labels.rasterizing import Overlap
    from geopipes.labels.remapping import Other
    from geopipes.pipe.pipes import Pipe
    from geopipes.read.bands import Bands
else:
    datacubes, labels, steps = (LazyModule(f"geopipes.{name}") for name in ("datacubes", "labels", "steps"))

T = TypeVar("T")
Datasets = TypeVar("Datasets", bound="LabelChain[xr.Dataset]")


class LabelChain(Chain[T]):
    """The part of `Pipe` that makes labels, and takes images one by one."""

    def stack_each(
        self: LabelChain[pystac.Item],
        bands: Bands = None,
        *,
        resampling: str | PerBand = "nearest",
        dtype: str | PerBand | None = None,
        nodata: float | PerBand | None = None,
    ) -> Pipe[xr.Dataset]:
        """Make a cube of each item, on its own grid: see `geopipes.datacubes.stack_each`."""
        options: dict[str, Any] = {"resampling": resampling, "dtype": dtype, "nodata": nodata}
        text = steps.call("stack_each", bands, **steps.given(datacubes.stack_each, options))
        self._need("items", text)
        each = self._whole(text, lambda scenes: datacubes.stack_each(scenes, bands, **options), "cubes")
        return cast("Pipe[xr.Dataset]", each)

    def rasterize(
        self: LabelChain[xr.Dataset],
        source: str | os.PathLike[str] | geopandas.GeoDataFrame | Pipe[pystac.Item],
        *,
        name: str,
        background: float,
        nodata: float | None = None,
        column: str | None = None,
        classes: Classes | None = None,
        instances: bool = False,
        all_touched: bool = False,
        overlap: Overlap = "error",
        priority: str | None = None,
        dtype: str | None = None,
        layer: str | None = None,
    ) -> Pipe[xr.Dataset]:
        """Join polygons, lines or points as a variable, read by window: see `geopipes.labels.rasterize`."""
        options: dict[str, Any] = {
            "name": name, "background": background, "nodata": nodata, "column": column, "classes": classes,
            "instances": instances, "all_touched": all_touched, "overlap": overlap, "priority": priority,
            "dtype": dtype, "layer": layer,
        }  # fmt: skip
        text = steps.call("rasterize", _shown(source), **steps.given(labels.rasterize, options))
        self._need("cubes", text)
        burnt = self._whole(text, lambda cubes: labels.rasterize(cubes, _unpiped(source, text), **options))
        return cast("Pipe[xr.Dataset]", burnt)

    def boxes(
        self: Datasets,
        source: str | os.PathLike[str] | geopandas.GeoDataFrame | Pipe[pystac.Item],
        *,
        name: str = "boxes",
        column: str | None = None,
        classes: Classes | None = None,
        min_visible: float = 0.0,
        layer: str | None = None,
    ) -> Datasets:
        """Add the boxes around what vectors show in each chip that was read: see `geopipes.labels.boxes`."""
        options: dict[str, Any] = {
            "name": name, "column": column, "classes": classes, "min_visible": min_visible, "layer": layer,
        }  # fmt: skip
        text = steps.call("boxes", _shown(source), **steps.given(labels.boxes, options))
        if self._kind != "stream":
            raise StepError(f"{text} tells how many there are in a chip; write it after read()")
        opened = labels.Labels(_unpiped(source, text), column, classes, layer)
        kept = {"name": name, "min_visible": min_visible}
        return cast(Datasets, cast("Any", self)._step(steps.Step(text, labels.boxes, (opened,), kept)))

    def remap(
        self: Datasets,
        variable: str,
        mapping: Mapping[int, int],
        *,
        other: Other = None,
        nodata: int | None = None,
        dtype: str | None = None,
    ) -> Datasets:
        """Give classes other numbers, pixel by pixel: see `geopipes.labels.remap`."""
        options: dict[str, Any] = {"other": other, "nodata": nodata, "dtype": dtype}
        return cast(Datasets, cast("Any", self)._pixels(labels.remap, variable, mapping, **options))


def _shown(source: Any) -> Any:
    """Show a pipe as it was typed, and a frame by its size."""
    if isinstance(source, Chain):
        return steps.Text(source._lineage())
    path = isinstance(source, str | os.PathLike)
    return source if path else steps.Text(f"<{type(source).__name__} of {len(source)}>")


def _unpiped(source: Any, text: str) -> Any:
    """Give the items of a pipe."""
    if isinstance(source, Chain):
        source._need("items", text)
        return source._value.get()
    return source
