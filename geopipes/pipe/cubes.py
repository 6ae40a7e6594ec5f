"""The verbs of a pipe of cubes: what joins them, and what cuts them into a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from geopipes.errors import StepError
from geopipes.pipe.chain import Chain
from geopipes.pipe.lazy import Lazy, LazyModule

if TYPE_CHECKING:
    import geopandas
    import pandas as pd
    import pystac
    import xarray as xr
    from odc.geo.geobox import GeoBox
    from shapely.geometry.base import BaseGeometry

    from geopipes import chips, datacubes, steps
    from geopipes.chips import Coverage, Edge
    from geopipes.chips.drawing import Units
    from geopipes.chips.pointing import Outside
    from geopipes.datacubes.arranging import PerBand
    from geopipes.pipe import plans
    from geopipes.pipe.pipes import Pipe
    from geopipes.pipe.plans import Plan
    from geopipes.read.bands import Bands
else:
    chips, datacubes, plans, steps = (
        LazyModule(f"geopipes.{name}") for name in ("chips", "datacubes", "pipe.plans", "steps")
    )

T = TypeVar("T")
Inputs = dict[str, "xr.Dataset"]
D = TypeVar("D", bound="xr.Dataset | Inputs")


class CubeChain(Chain[T]):
    """A chain of cubes: the part of `Pipe` between ``stack`` and the plan."""

    def join(
        self: CubeChain[xr.Dataset],
        other: Pipe[pystac.Item] | Pipe[xr.Dataset],
        *,
        name: str | None = None,
        bands: Bands = None,
        resampling: str | PerBand = "nearest",
        dtype: str | PerBand | None = None,
        nodata: float | PerBand | None = None,
    ) -> Pipe[xr.Dataset]:
        """Join what has no time of its own, labels or elevation: see `geopipes.datacubes.join`."""
        if not isinstance(other, CubeChain):
            raise StepError(_no_pipe(other))
        options: dict[str, Any] = {
            "name": name, "bands": bands, "resampling": resampling, "dtype": dtype, "nodata": nodata,
        }  # fmt: skip
        text = steps.call("join", steps.Text(other._lineage()), **steps.given(datacubes.join, options))
        self._need("cubes", text)
        joined = self._whole(text, lambda value: datacubes.join(value, other._value.get(), **options))
        return cast("Pipe[xr.Dataset]", joined)

    def reproject(self: CubeChain[xr.Dataset], grid: GeoBox, *, resampling: str = "nearest") -> Pipe[xr.Dataset]:
        """Put cubes from elsewhere on another grid: see `geopipes.datacubes.reproject`."""
        text = steps.call("reproject", grid, resampling=resampling)
        self._need("cubes", text)
        moved = self._whole(text, lambda value: datacubes.reproject(value, grid, resampling=resampling))
        return cast("Pipe[xr.Dataset]", moved)

    def chip(
        self: CubeChain[D],
        size: int | tuple[int, int],
        *,
        overlap: int | tuple[int, int] = 0,
        margin: int = 0,
        edge: Edge = "drop",
        time: int | None = None,
        coverage: Coverage = "full",
    ) -> Plan[D]:
        """Cut cubes into windows, nothing read: see `geopipes.chips.chip`."""
        options: dict[str, Any] = {
            "overlap": overlap, "margin": margin, "edge": edge, "time": time, "coverage": coverage,
        }  # fmt: skip
        text = steps.call("chip", size, **steps.given(chips.chip, options))
        return self._planned(text, lambda cubes: chips.chip(cubes, size, **options))

    def draw(
        self: CubeChain[D],
        size: float | tuple[float, float],
        *,
        seed: int,
        n: int | None = None,
        density: float | None = None,
        region: BaseGeometry | geopandas.GeoDataFrame | geopandas.GeoSeries | None = None,
        period: tuple[str, str] | None = None,
        units: Units = "px",
        margin: int = 0,
        time: int | None = None,
        coverage: Coverage = "full",
    ) -> Plan[D]:
        """Draw windows at random, uniformly over the ground, nothing read: see `geopipes.chips.draw`."""
        options: dict[str, Any] = {
            "seed": seed, "n": n, "density": density, "region": region, "period": period, "units": units,
            "margin": margin, "time": time, "coverage": coverage,
        }  # fmt: skip
        text = steps.call("draw", size, **steps.given(chips.draw, options))
        return self._planned(text, lambda cubes: chips.draw(cubes, size, **options))

    def inside(
        self: CubeChain[D],
        polygons: geopandas.GeoDataFrame | geopandas.GeoSeries | BaseGeometry,
        size: float | tuple[float, float],
        *,
        seed: int,
        n: int | None = None,
        density: float | None = None,
        period: tuple[str, str] | None = None,
        units: Units = "px",
        margin: int = 0,
        time: int | None = None,
        coverage: Coverage = "full",
    ) -> Plan[D]:
        """Draw windows whose centres lie inside polygons: see `geopipes.chips.inside`."""
        options: dict[str, Any] = {
            "seed": seed, "n": n, "density": density, "period": period, "units": units, "margin": margin,
            "time": time, "coverage": coverage,
        }  # fmt: skip
        text = steps.call("inside", polygons, size, **steps.given(chips.inside, options))
        return self._planned(text, lambda cubes: chips.inside(cubes, polygons, size, **options))

    def around(
        self: CubeChain[D],
        points: geopandas.GeoDataFrame | geopandas.GeoSeries,
        size: int | tuple[int, int],
        *,
        margin: int = 0,
        time: int | None = None,
        when: str | None = None,
        coverage: Coverage = "full",
        outside: Outside = "refuse",
    ) -> Plan[D]:
        """Put a window around each point: see `geopipes.chips.around`."""
        options: dict[str, Any] = {
            "margin": margin, "time": time, "when": when, "coverage": coverage, "outside": outside,
        }  # fmt: skip
        text = steps.call("around", points, size, **steps.given(chips.around, options))
        return self._planned(text, lambda cubes: chips.around(cubes, points, size, **options))

    def at(
        self: CubeChain[D],
        table: pd.DataFrame,
        size: int | tuple[int, int],
        *,
        margin: int = 0,
        time: int | None = None,
        coverage: Coverage = "full",
    ) -> Plan[D]:
        """Take windows made before from a table: see `geopipes.chips.at`."""
        options: dict[str, Any] = {"margin": margin, "time": time, "coverage": coverage}
        text = steps.call("at", table, size, **steps.given(chips.at, options))
        return self._planned(text, lambda cubes: chips.at(cubes, table, size, **options))

    def _planned(self: CubeChain[D], text: str, cut: Callable[[Any], Any]) -> Plan[D]:
        """Cut cubes into a plan."""
        self._need("cubes", text)
        return plans.Plan._new(text, self, Lazy(lambda: cut(self._value.get())), "plan")


def _no_pipe(other: object) -> str:
    """Say what is joined instead of paths and frames."""
    if hasattr(other, "geometry"):
        return f"join({type(other).__name__}) takes a pipe: write .rasterize(frame, name=..., background=0)"
    return f"join({other!r}) takes a pipe: write .join(gp.rasters({other!r}), ...)"
