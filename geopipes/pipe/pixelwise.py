"""The verbs of pixels: steps that mean the same before ``chip``, after it and after ``read``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from geopipes.pipe.chain import Chain
from geopipes.pipe.lazy import Lazy, LazyModule

if TYPE_CHECKING:
    import xarray as xr

    from geopipes import chips, loaders, pixels, steps
    from geopipes.pipe.pipes import Pipe
    from geopipes.pixels import neighbours
else:
    chips, loaders, pixels, neighbours, steps = (
        LazyModule(f"geopipes.{name}") for name in ("chips", "loaders", "pixels", "pixels.neighbours", "steps")
    )

T = TypeVar("T")
Datasets = TypeVar("Datasets", bound="PixelChain[xr.Dataset]")


class PixelChain(Chain[T]):
    """A chain of Datasets: the part of `Pipe` and `Plan` that changes their pixels, date by date."""

    def scale(
        self: Datasets, bands: str | Sequence[str], *, factor: float, offset: float = 0.0, again: bool = False
    ) -> Datasets:
        """Turn stored numbers into physical ones: see `geopipes.pixels.scale`."""
        return self._pixels(pixels.scale, bands, factor=factor, offset=offset, again=again)

    def to_decibel(self: Datasets, bands: str | Sequence[str]) -> Datasets:
        """Convert linear radar backscatter to decibels: see `geopipes.pixels.to_decibel`."""
        return self._pixels(pixels.to_decibel, bands)

    def normalized_difference(self: Datasets, first: str, second: str, *, name: str) -> Datasets:
        """Add a normalized difference such as the NDVI: see `geopipes.pixels.normalized_difference`."""
        return self._pixels(pixels.normalized_difference, first, second, name=name)

    def spectral_index(
        self: Datasets,
        names: str | Sequence[str],
        *,
        bands: Mapping[str, str] | None = None,
        platform: str | None = None,
        **constants: float,
    ) -> Datasets:
        """Add spectral indices by name, as spyndex knows them: see `geopipes.pixels.spectral_index`."""
        options: dict[str, Any] = {"bands": bands, "platform": platform, **constants}
        return self._pixels(pixels.spectral_index, names, **options)

    def mask_values(self: Datasets, band: str, values: Sequence[float]) -> Datasets:
        """Declare pixels not valid by the values of a band: see `geopipes.pixels.mask_values`."""
        return self._pixels(pixels.mask_values, band, values)

    def mask_clouds(
        self: Datasets,
        band: str,
        *,
        classes: Sequence[str] | None = None,
        product: str | None = None,
        dilate: int = 0,
        keep: bool = False,
    ) -> Datasets:
        """Declare clouds, shadows and their like not valid: see `geopipes.pixels.mask_clouds`."""
        options: dict[str, Any] = {"classes": classes, "product": product, "dilate": dilate, "keep": keep}
        margin = neighbours.checked_radius("mask_clouds", dilate)
        return self._pixels(pixels.mask_clouds, band, margin=margin, **options)

    def mask(self: Datasets, where: str | Callable[[xr.Dataset], xr.DataArray], *, dilate: int = 0) -> Datasets:
        """Declare pixels not valid where a variable or a function says so: see `geopipes.pixels.mask`."""
        margin = neighbours.checked_radius("mask", dilate)
        return self._pixels(pixels.mask, where, margin=margin, dilate=dilate)

    def slope(self: Datasets, elevation: str, *, name: str = "slope") -> Datasets:
        """Add how steep the ground is; needs a margin of 1 px: see `geopipes.pixels.slope`."""
        return self._pixels(pixels.slope, elevation, margin=1, name=name)

    def aspect(self: Datasets, elevation: str, *, name: str = "aspect") -> Datasets:
        """Add where slopes face; needs a margin of 1 px: see `geopipes.pixels.aspect`."""
        return self._pixels(pixels.aspect, elevation, margin=1, name=name)

    def hillshade(
        self: Datasets, elevation: str, *, azimuth: float = 315.0, altitude: float = 45.0, name: str = "hillshade"
    ) -> Datasets:
        """Add how brightly the sun shines; needs a margin of 1 px: see `geopipes.pixels.hillshade`."""
        return self._pixels(pixels.hillshade, elevation, margin=1, azimuth=azimuth, altitude=altitude, name=name)

    # What the methods share.

    def _pixels(
        self: Datasets, function: Callable[..., xr.Dataset], *args: Any, margin: int = 0, **kwargs: Any
    ) -> Datasets:
        """Add a step that works date by date, and pixel by pixel or with so many around each."""
        text = steps.call(function.__name__, *args, **steps.given(function, kwargs))
        if self._kind == "items":
            self._need("cubes", text)
        return cast(Datasets, self._step(steps.Step(text, function, args, kwargs, margin, local_in_time=True)))

    def _step(self, step: steps.Step) -> Pipe[Any]:
        """Add a step: recorded on what is not read yet, run element by element afterwards."""
        if self._kind == "stream":
            done = self._op(loaders.Each(step))
            if step.margin or step.all_dates:
                done._value = Lazy(lambda: _needing(self._value.get(), step))
            return cast("Pipe[Any]", done)
        return cast("Pipe[Any]", self._whole(str(step), lambda value: value.map(step)))


def _needing(source: Any, step: steps.Step) -> Any:
    """Reckon with a step's margin where chips carry one, and with the dates that they hold."""
    return source.needing(step) if isinstance(source, chips.Reading) else source
