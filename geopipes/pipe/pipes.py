"""`Pipe` and `Plan`: the methods one chains, each a line that calls a function of a topic module."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from geopipes.errors import FreezeError, StepError
from geopipes.pipe.chain import Chain, accept_as_iterable_dataset
from geopipes.pipe.lazy import Lazy, LazyModule

if TYPE_CHECKING:
    import pystac
    import torch
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from geopipes import catalogs, chips, datacubes, loaders, orders, pixels, steps, tensors
    from geopipes.chips import Coverage, Edge
    from geopipes.datacubes.arranging import PerBand
    from geopipes.datacubes.stacks import Engine
    from geopipes.read.bands import Bands
else:
    catalogs, chips, datacubes, loaders, orders, pixels, steps, tensors = (
        LazyModule(f"geopipes.{name}")
        for name in ("catalogs", "chips", "datacubes", "loaders", "orders", "pixels", "steps", "tensors")
    )

T = TypeVar("T")
R = TypeVar("R")
Inputs = dict[str, "xr.Dataset"]
D = TypeVar("D", bound="xr.Dataset | Inputs")
Datasets = TypeVar("Datasets", bound="Pipe[xr.Dataset]")

SEVERAL = object()
"""Stands for the modifier of a union whose parts have different ones."""

READING_THREADS = 8
"""Threads that read chips: decoding fills the cores while others wait for a disk or a network."""

CACHE = 1 << 30
"""Bytes of decoded tiles that a process keeps: 250 stacks of 512 x 512 px with eight 16-bit bands."""


class Pipe(Chain[T]):
    """A chain of steps over elements of one type: items, Datasets, samples, batches.

    Immutable: every method gives a new pipe. Lazy: a search runs once, when its items are first needed, and is
    remembered. Iterable again and again, each run on its own. Made by `geopipes.search` and its likes, or of
    anything that can be iterated anew: ``Pipe([1, 2, 3])``.

    Parameters
    ----------
    source : a list, a torch IterDataPipe, or another iterable that starts again; a generator is refused
    """

    # Any element.

    def map(self, fn: Callable[[T], R], *, margin: int = 0) -> Pipe[R]:
        """Apply a function to every element, one to one.

        Parameters
        ----------
        fn : a pure function; at the top level of a module where worker processes are used. Before ``read`` it
            gives a Dataset on the same window
        margin : pixels beyond the window that ``fn`` needs on every side; chips must carry them
        """
        text = steps.call("map", fn, **steps.given(Pipe.map, {"margin": margin}))
        if self._kind == "items":
            changed = self._whole(text, lambda scenes: replace(scenes, items=tuple(fn(item) for item in scenes)))
            return cast("Pipe[R]", changed)
        return cast("Pipe[R]", self._step(steps.Step(text, fn, margin=margin)))

    def filter(self, predicate: Callable[[T], bool]) -> Pipe[T]:
        """Keep the elements for which a predicate holds; among chips the others leave holes, never filled."""
        text = steps.call("filter", predicate)
        if self._kind == "items":
            return self._whole(text, lambda scenes: replace(scenes, items=tuple(filter(predicate, scenes))))
        if self._kind != "stream":
            raise StepError(f"{text} looks at pixels, which are not read yet: write .read().{text}")
        return self._op(loaders.Each(steps.Step(text, predicate), keeps=True))

    def take(self, n: int) -> Pipe[T]:
        """Stop after ``n`` elements; of a plan, keep the first ``n`` chips."""
        if n < 0:
            raise StepError(f"take({n}): give a number of elements, at least 0")
        if self._kind == "stream":
            return self._op(loaders.Take(n))
        return self._whole(steps.call("take", n), lambda value: value[:n])

    def batch(self, n: int, *, drop_last: bool = False) -> Pipe[Any]:
        """Collate ``n`` elements: samples to a dict of tensors with a first axis more, anything else to a list.

        Batches are made by place in the plan: what a filter refused leaves its batch smaller and shifts no other.

        Parameters
        ----------
        n : elements in a batch
        drop_last : leave out a last batch that is planned smaller
        """
        if n < 1:
            raise StepError(f"batch({n}): give a number of elements, at least 1")
        if self._kind in ("cubes", "plan"):
            raise StepError(f"batch({n}) collates what is read: write .read().batch({n})")
        return self._op(loaders.Batch(n, drop_last))

    def union(self, *others: Pipe[T]) -> Pipe[T]:
        """Make one source of several: of items (each once) or of cubes."""
        text = steps.call("union", *(steps.Text(other._lineage()) for other in others))
        if self._kind not in ("items", "cubes") or any(other._kind != self._kind for other in others):
            raise StepError(f"{text} takes pipes of items, or pipes of cubes:\n{self}")
        merge = catalogs.union if self._kind == "items" else datacubes.union
        united = self._whole(text, lambda value: merge([value, *(other._value.get() for other in others)]))
        if any(other._modifier != self._modifier for other in others):
            united._modifier = SEVERAL
        return united

    # Items.

    def freeze(self: Pipe[pystac.Item], path: str | os.PathLike[str]) -> Pipe[pystac.Item]:
        """Keep what was found in a file, and replay it from there: see `geopipes.catalogs.freeze`."""
        text = steps.call("freeze", path)
        self._need("items", text)
        if self._modifier is SEVERAL:
            raise FreezeError(f"{text}: the sources are signed in different ways; freeze each before union")
        key, modifier = self._lineage("\n"), self._modifier
        replay = Lazy(lambda: catalogs.freeze(self._value.get, path, key=key, modifier=modifier))
        frozen = self._new(text, self, replay, "items")
        frozen._modifier = modifier
        return frozen

    def stack(
        self: Pipe[pystac.Item],
        bands: Bands = None,
        *,
        resolution: float | tuple[float, float] | None = None,
        crs: Any = None,
        bounds: tuple[float, float, float, float] | None = None,
        geobox: GeoBox | None = None,
        like: GeoBox | xr.Dataset | xr.DataArray | None = None,
        groupby: str | Callable[[pystac.Item], Any] = "time",
        resampling: str | PerBand = "nearest",
        dtype: str | PerBand | None = None,
        nodata: float | PerBand | None = None,
        engine: Engine = "window",
        headers: Literal["item", "file"] = "item",
    ) -> Pipe[xr.Dataset]:
        """Stack items to lazy cubes on a common grid: see `geopipes.datacubes.stack`."""
        options: dict[str, Any] = {
            "resolution": resolution, "crs": crs, "bounds": bounds, "geobox": geobox, "like": like,
            "groupby": groupby, "resampling": resampling, "dtype": dtype, "nodata": nodata, "engine": engine,
            "headers": headers,
        }  # fmt: skip
        text = steps.call("stack", bands, **steps.given(datacubes.stack, options))
        self._need("items", text)
        return cast(
            "Pipe[xr.Dataset]",
            self._whole(text, lambda scenes: datacubes.stack(scenes, bands, **options), "cubes"),
        )

    # Cubes.

    def join(
        self: Pipe[xr.Dataset],
        other: Pipe[pystac.Item] | Pipe[xr.Dataset],
        *,
        name: str | None = None,
        bands: Bands = None,
        resampling: str | PerBand = "nearest",
        dtype: str | PerBand | None = None,
        nodata: float | PerBand | None = None,
    ) -> Pipe[xr.Dataset]:
        """Join what has no time of its own, labels or elevation: see `geopipes.datacubes.join`."""
        if not isinstance(other, Pipe):
            raise StepError(f"join({other!r}) takes a pipe: write .join(gp.rasters({other!r}), ...)")
        options: dict[str, Any] = {
            "name": name,
            "bands": bands,
            "resampling": resampling,
            "dtype": dtype,
            "nodata": nodata,
        }
        text = steps.call("join", steps.Text(other._lineage()), **steps.given(datacubes.join, options))
        self._need("cubes", text)
        return self._whole(text, lambda value: datacubes.join(value, other._value.get(), **options))

    def reproject(self: Pipe[xr.Dataset], grid: GeoBox, *, resampling: str = "nearest") -> Pipe[xr.Dataset]:
        """Put cubes from elsewhere on another grid: see `geopipes.datacubes.reproject`."""
        text = steps.call("reproject", grid, resampling=resampling)
        self._need("cubes", text)
        return self._whole(text, lambda value: datacubes.reproject(value, grid, resampling=resampling))

    def chip(
        self: Pipe[D],
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
            "overlap": overlap,
            "margin": margin,
            "edge": edge,
            "time": time,
            "coverage": coverage,
        }
        text = steps.call("chip", size, **steps.given(chips.chip, options))
        self._need("cubes", text)
        return Plan._new(text, self, Lazy(lambda: chips.chip(self._value.get(), size, **options)), "plan")

    # Pixels: the same before chip, after it, and after read.

    def scale(self: Datasets, bands: str | Sequence[str], *, factor: float, offset: float = 0.0) -> Datasets:
        """Turn stored numbers into physical ones: see `geopipes.pixels.scale`."""
        return self._pixels(pixels.scale, bands, factor=factor, offset=offset)

    def normalized_difference(self: Datasets, first: str, second: str, *, name: str) -> Datasets:
        """Add a normalized difference such as the NDVI: see `geopipes.pixels.normalized_difference`."""
        return self._pixels(pixels.normalized_difference, first, second, name=name)

    def mask_values(self: Datasets, band: str, values: Sequence[float]) -> Datasets:
        """Declare pixels not valid by the values of a band: see `geopipes.pixels.mask_values`."""
        return self._pixels(pixels.mask_values, band, values)

    # Tensors.

    def tensor(
        self: Pipe[xr.Dataset] | Pipe[Inputs],
        *,
        fill: float | None,
        dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
        time_axis: bool = True,
        **tensors: str | Sequence[str],
    ) -> Pipe[dict[str, Any]]:
        """Make samples of loaded chips, dicts of named tensors: see `geopipes.tensors.tensor`."""
        return _tensor(cast("Pipe[Any]", self), {"fill": fill, "dtype": dtype, "time_axis": time_axis, **tensors})

    # What the methods share.

    def _pixels(self: Datasets, function: Callable[..., xr.Dataset], *args: Any, **kwargs: Any) -> Datasets:
        """Add a step that works pixel by pixel and date by date."""
        text = steps.call(function.__name__, *args, **steps.given(function, kwargs))
        if self._kind == "items":
            self._need("cubes", text)
        return cast(Datasets, self._step(steps.Step(text, function, args, kwargs, local_in_time=True)))

    def _step(self, step: steps.Step) -> Pipe[Any]:
        """Add a step: recorded on what is not read yet, run element by element afterwards."""
        if self._kind == "stream":
            done = self._op(loaders.Each(step))
            if step.margin:
                done._value = Lazy(lambda: _needing(self._value.get(), step))
            return done
        return self._whole(str(step), lambda value: value.map(step))

    if not TYPE_CHECKING:  # mypy refuses these by itself

        def __getattr__(self, name: str) -> Any:
            """Say where the plan's verbs stand, when they are typed elsewhere."""
            if name in ("read", "shuffle", "split"):
                place = "after read" if self._kind == "stream" else "before chip"
                raise AttributeError(f"{name}() works on a plan, between chip(...) and read(); here it stands {place}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class Plan(Pipe[T]):
    """Chips that are planned and not read: what chooses and orders stands here alone.

    A plan has a length; ``plan[i]`` is the chip at position i, lazy; ``plan[a:b]`` a smaller plan; `read` crosses
    over to a `Pipe` of loaded chips.
    """

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Plan[T]: ...
    def __getitem__(self, index: int | slice) -> T | Plan[T]:
        """Give the chip at a position, lazy, or a smaller plan."""
        if isinstance(index, slice):
            return self._whole(f"[{_typed(index)}]", lambda windows: windows[index])
        return cast(T, self._value.get()[index])

    def map(self, fn: Callable[[T], R], *, margin: int = 0) -> Plan[R]:
        """Record a function of every chip, applied when it is read: see `Pipe.map`."""
        return cast("Plan[R]", super().map(fn, margin=margin))

    def take(self, n: int) -> Plan[T]:
        """Keep the first ``n`` chips."""
        return cast("Plan[T]", super().take(n))

    def split(self, fractions: Sequence[float], *, block: float, buffer: float = 0.0, seed: int) -> tuple[Plan[T], ...]:
        """Split by random blocks of ground: see `geopipes.orders.split`."""
        options: dict[str, Any] = {"block": block, "buffer": buffer, "seed": seed}
        text = steps.call("split", tuple(fractions), **options)
        parts = Lazy(lambda: orders.split(self._value.get(), fractions, **options))

        def part(k: int) -> Plan[T]:
            return self._new(f"{text}[{k}]", self, Lazy[Any](lambda: parts.get()[k]), "plan")

        return tuple(part(k) for k in range(len(fractions)))

    def shuffle(
        self, seed: int, *, exact: bool = False, epoch: int = 0, lanes: int = 32, strip: int | None = None
    ) -> Plan[T]:
        """Put the chips in a random order that reads each tile about once: see `geopipes.orders.shuffle`."""
        options: dict[str, Any] = {"exact": exact, "epoch": epoch, "lanes": lanes, "strip": strip}
        text = steps.call("shuffle", seed, **steps.given(orders.shuffle, options))
        return self._whole(text, lambda windows: orders.shuffle(windows, seed, **options))

    def read(self, *, threads: int = READING_THREADS, cache: int = CACHE) -> Pipe[T]:
        """Read the chips, in the plan's order, several in flight: from here on pixels move.

        One-to-one steps that follow run on the reading threads. A read that fails raises a `ReadError` that names
        item, asset, window and cause.

        Parameters
        ----------
        threads : that read; twice as many chips are in memory at most
        cache : bytes of decoded tiles that the process keeps, for all its pipes; chips that are near each other in
            the plan are then made of tiles that are there. Each worker process of a loader has as many
        """
        if threads < 1:
            raise StepError(f"read(threads={threads}): at least one thread reads")
        if cache < 0:
            raise StepError(f"read(cache={cache}): give bytes, 0 or more")
        text = steps.call("read", **steps.given(Plan.read, {"threads": threads, "cache": cache}))
        return Pipe._new(text, self, Lazy(lambda: chips.Reading(self._value.get(), threads, cache)))


def _tensor(pipe: Pipe[Any], options: dict[str, Any]) -> Pipe[dict[str, Any]]:
    """Add the step to tensors; its names are the user's own, so it stands apart from the method."""
    text = steps.call("tensor", **steps.given(tensors.tensor, options))
    pipe._need("stream", text)
    done = pipe._op(loaders.Each(steps.Step(text, tensors.tensor, (), options)))
    accept_as_iterable_dataset(Pipe)
    return done


def _needing(source: Any, step: steps.Step) -> Any:
    """Reckon with a step's margin where chips carry one."""
    return source.needing(step) if isinstance(source, chips.Reading) else source


def _typed(index: slice) -> str:
    """Write a slice as one types it."""
    ends = ("" if index.start is None else index.start, "" if index.stop is None else index.stop)
    return f"{ends[0]}:{ends[1]}" + ("" if index.step is None else f":{index.step}")
