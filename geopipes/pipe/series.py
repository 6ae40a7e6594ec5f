"""The verbs along time: composites, gaps filled, other dates. The same before chip, after it, and after read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from geopipes.pipe.chain import Chain
from geopipes.pipe.lazy import LazyModule

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from geopipes import composites, steps
    from geopipes.composites.gaps import Gap
    from geopipes.composites.periods import Named, Span
    from geopipes.composites.series import Methods
    from geopipes.pipe.pipes import Pipe
else:
    composites, steps = (LazyModule(f"geopipes.{name}") for name in ("composites", "steps"))

T = TypeVar("T")
Series = TypeVar("Series", bound="SeriesChain[xr.Dataset]")


class SeriesChain(Chain[T]):
    """A chain of series: the part of `Pipe` that works over the dates of a place."""

    def composite(
        self: Series,
        period: str | pd.DateOffset | Named,
        method: Methods,
        *,
        by: str | None = None,
        q: float | None = None,
        span: Span | None = None,
    ) -> Series:
        """Make one image of each period: see `geopipes.composites.composite`."""
        return self._over_dates(composites.composite, period, method, by=by, q=q, span=span)

    def fill_gaps(self: Series, method: Methods, *, max_gap: Gap = None) -> Series:
        """Fill pixels that are not valid from their other dates: see `geopipes.composites.fill_gaps`."""
        return self._over_dates(composites.fill_gaps, method, max_gap=max_gap)

    def interpolate(
        self: Series,
        times: str | pd.DateOffset | Sequence[Any],
        method: Methods,
        *,
        max_gap: Gap = None,
        span: Span | None = None,
    ) -> Series:
        """Bring a series to other dates: see `geopipes.composites.interpolate`."""
        return self._over_dates(composites.interpolate, times, method, max_gap=max_gap, span=span)

    def _over_dates(self: Series, function: Callable[..., xr.Dataset], *args: Any, **kwargs: Any) -> Series:
        """Add a step that works pixel by pixel over all dates."""
        text = steps.call(function.__name__, *args, **steps.given(function, kwargs))
        if self._kind == "items":
            self._need("cubes", text)
        step = steps.Step(text, function, args, kwargs, all_dates=True)
        return cast(Series, cast("Pipe[Any]", self)._step(step))
