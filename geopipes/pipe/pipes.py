"""`Pipe`: the methods one chains, each a line that calls a function of a topic module."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from geopipes.errors import FreezeError, StepError
from geopipes.pipe.chain import accept_as_iterable_dataset
from geopipes.pipe.cubes import CubeChain, Inputs
from geopipes.pipe.labels import LabelChain
from geopipes.pipe.lazy import Lazy, LazyModule
from geopipes.pipe.maps import MapChain
from geopipes.pipe.pixelwise import PixelChain
from geopipes.pipe.results import ResultChain
from geopipes.pipe.series import SeriesChain

if TYPE_CHECKING:
    import pystac
    import torch
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from geopipes import catalogs, chips, datacubes, forecasts, loaders, normalizing, pixels, steps, tensors
    from geopipes import statistics as statistics_of
    from geopipes.datacubes.arranging import PerBand
    from geopipes.datacubes.stacks import Engine
    from geopipes.forecasts import Forecast
    from geopipes.loaders import Loader
    from geopipes.normalizing import How
    from geopipes.pipe import plans
    from geopipes.read.bands import Bands
    from geopipes.read.scales import Rescale
    from geopipes.statistics import Statistics
else:
    catalogs, chips, datacubes, forecasts, loaders, normalizing, pixels, plans, statistics_of, steps, tensors = (
        LazyModule(f"geopipes.{name}")
        for name in (
            "catalogs", "chips", "datacubes", "forecasts", "loaders", "normalizing", "pixels", "pipe.plans",
            "statistics", "steps", "tensors",
        )
    )  # fmt: skip

T = TypeVar("T")
R = TypeVar("R")
Datasets = TypeVar("Datasets", bound="Pipe[xr.Dataset]")

PLAN_VERBS = (
    "assign", "away", "by_scene", "explore", "kfold", "match_dates", "measure", "pairs", "plot", "query", "read",
    "sample", "scene_labels", "sequences", "settle", "shuffle", "split", "split_by_column", "split_by_polygon",
    "split_by_time", "stratify", "table", "triplets",
)  # fmt: skip
"""What a plan alone has."""

SEVERAL = object()
"""Stands for the modifier of a union whose parts have different ones."""


class Pipe(CubeChain[T], LabelChain[T], PixelChain[T], SeriesChain[T], MapChain[T], ResultChain[T]):
    """A chain of steps over elements of one type: items, Datasets, samples, batches.

    Immutable: every method gives a new pipe. Lazy: a search runs once, when its items are first needed, and is
    remembered. Iterable again and again, each run on its own. Made by `geopipes.search` and its likes, or of
    anything that can be iterated anew: ``Pipe([1, 2, 3])``.

    Parameters
    ----------
    source : a list, a torch IterDataPipe, or another iterable that starts again; a generator is refused
    """

    # Any element.

    @overload
    def map(self, fn: Callable[[T], R], *, margin: int = 0, rng: Literal[False] = False) -> Pipe[R]: ...
    @overload
    def map(self, fn: Callable[..., R], *, margin: int = 0, rng: bool) -> Pipe[R]: ...
    def map(self, fn: Callable[..., R], *, margin: int = 0, rng: bool = False) -> Pipe[R]:
        """Apply a function to every element, one to one.

        Parameters
        ----------
        fn : a pure function, ``fn(element)``; at the top level of a module where worker processes are used. Before
            ``read`` it gives a Dataset on the same window
        margin : pixels beyond the window that ``fn`` needs on every side; chips must carry them
        rng : whether to call ``fn(element, rng=generator)``. The numpy Generator is keyed by the seed and epoch of the
            chips' order and by the chip, whoever loads it and whenever: an element from elsewhere counts by its place
        """
        text = steps.call("map", fn, **steps.given(Pipe.map, {"margin": margin, "rng": rng}))
        if not rng and steps.needs_rng(fn):
            raise StepError(f"{text}: the function takes rng, a generator of random numbers; write map(..., rng=True)")
        if rng and (self._kind in ("items", "cubes") or any(isinstance(op, loaders.Batch) for op in self._ops)):
            raise StepError(f"{text} draws random numbers for each chip; write it between chip(...) and batch(...)")
        if self._kind == "items":
            changed = self._whole(text, lambda scenes: replace(scenes, items=tuple(fn(item) for item in scenes)))
            return cast("Pipe[R]", changed)
        return cast("Pipe[R]", self._step(steps.Step(text, fn, margin=margin, draws=rng)))

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

    def epoch(self, number: int) -> Pipe[T]:
        """Give the pipe with its chips in the order of another epoch: see `geopipes.orders.epoch`."""
        text = steps.call("epoch", number)
        self._need("stream", text)
        done = self._new(text, self, Lazy(lambda: loaders.ordered(self._value.get(), number)))
        done._ops = self._ops
        return done

    def loader(
        self,
        *,
        prefetch: int = 2,
        processes: int = 0,
        device: str | torch.device | None = None,
        rank: int | None = None,
        ranks: int | None = None,
        pad: bool = False,
        progress: bool = False,
    ) -> Loader:
        """Load epoch after epoch, ahead of the training step, for one of several ranks; it can be resumed.

        Parameters
        ----------
        prefetch : batches that are ready ahead of the one delivered; 0 makes each when it is asked for
        processes : that load, spawned beside this one, each with its part of ``read``'s threads and cache; 0 for the
            threads of this one, which is faster unless Python code in steps bounds the rest
        device : to which batches are copied, ``"cuda"``: from pinned memory, ahead of the step; None for none
        rank, ranks : which process this is, of how many that train together; None for those of torch.distributed,
            where it runs, else one. A batch of the chain is that of all ranks together
        pad : whether the last batch of an epoch is filled with the first chips of its order
        progress : whether a bar on stderr shows how far an epoch is

        Returns
        -------
        a `geopipes.loaders.Loader`: a ``for`` loop over it is an epoch; ``len(loader)``, ``state_dict``,
        ``load_state_dict``, ``set_epoch``, ``close``

        Raises
        ------
        StepError
            for numbers that make no loader, and at the first loop if ranks cannot share batches evenly
        """
        options: dict[str, Any] = {
            "prefetch": prefetch, "processes": processes, "device": device, "rank": rank, "ranks": ranks, "pad": pad,
            "progress": progress,
        }  # fmt: skip
        text = steps.call("loader", **steps.given(Pipe.loader, options))
        self._need("stream", text)
        between = "\n    "
        return loaders.Loader(
            self._value.get(), self._ops, loaders.Options(**options), f"{self._lineage(between)}{between}.{text}"
        )

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
        """Keep what was found in a file, and replay it from there: see `geopipes.catalogs.freeze`.

        ``gp.items(path)`` opens the file without the search.
        """
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
        rescale: Rescale = False,
        engine: Engine = "window",
        headers: Literal["item", "file"] = "item",
    ) -> Pipe[xr.Dataset]:
        """Stack items to lazy cubes on a common grid: see `geopipes.datacubes.stack`."""
        options: dict[str, Any] = {
            "resolution": resolution, "crs": crs, "bounds": bounds, "geobox": geobox, "like": like,
            "groupby": groupby, "resampling": resampling, "dtype": dtype, "nodata": nodata, "rescale": rescale,
            "engine": engine, "headers": headers,
        }  # fmt: skip
        text = steps.call("stack", bands, **steps.given(datacubes.stack, options))
        self._need("items", text)
        return cast(
            "Pipe[xr.Dataset]",
            self._whole(text, lambda scenes: datacubes.stack(scenes, bands, **options), "cubes"),
        )

    # Pixels, looked at all together.

    def normalize(
        self: Datasets, statistics: Statistics, *, how: How = "standard", variables: str | Sequence[str] | None = None
    ) -> Datasets:
        """Bring variables to a common scale: see `geopipes.normalizing.normalize`.

        Raises
        ------
        StatisticsError
            for what are no statistics; when the chain runs, if they are of other steps than those before this one
        """
        normalizing.check_statistics(statistics)
        options: dict[str, Any] = {"how": how, "variables": variables}
        text = steps.call("normalize", statistics, **steps.given(normalizing.normalize, options))
        if self._kind == "items":
            self._need("cubes", text)

        def checked() -> Any:
            value = self._value.get()
            statistics.check(statistics_of.chain_of(value, self._ops))
            return value

        before = self._new(self._text, self._parent, Lazy(checked), self._kind)
        before._ops, before._modifier = self._ops, self._modifier
        step = steps.Step(text, normalizing.normalize, (statistics,), options, local_in_time=True)
        return cast(Datasets, before._step(step))

    def statistics(
        self,
        *,
        variables: str | Sequence[str] | None = None,
        percentiles: Sequence[float] = (2.0, 50.0, 98.0),
        classes: str | Sequence[str] | None = None,
        sample: int | None = None,
        seed: int | None = None,
        progress: bool = False,
    ) -> Statistics:
        """Read all chips, or a sample, and describe their pixels: see `geopipes.statistics.statistics`."""
        source, text = self._value.get(), steps.call("statistics")
        if self._kind == "plan":
            source = chips.Reading(source, plans.READING_THREADS, plans.CACHE)
        else:
            self._need("stream", text)
        run = statistics_of.Run(source, self._ops)
        return statistics_of.statistics(
            run, variables=variables, percentiles=percentiles, classes=classes, sample=sample, seed=seed,
            progress=progress,
        )  # fmt: skip

    def explain(self, *, sample: int = 2_000, probe: bool | float = False) -> Forecast:
        """Tell what the pipe needs, before a pixel is read: see `geopipes.forecasts.explain`."""
        source = self._value.get()
        if self._kind == "items":
            self._need("cubes", "explain()")
        if self._kind == "plan":
            source = chips.Reading(source, plans.READING_THREADS, plans.CACHE)
        return forecasts.explain(source, self._ops, sample=sample, probe=probe)

    # Tensors.

    def tensor(
        self: Pipe[xr.Dataset] | Pipe[Inputs],
        *,
        fill: float | None,
        dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
        time_axis: bool = True,
        length: int | Mapping[str, int] | None = None,
        doy: bool = False,
        columns: str | Sequence[str] = (),
        **tensors: str | Sequence[str],
    ) -> Pipe[dict[str, Any]]:
        """Make samples of loaded chips, dicts of named tensors: see `geopipes.tensors.tensor`."""
        options = {
            "fill": fill, "dtype": dtype, "time_axis": time_axis, "length": length, "doy": doy, "columns": columns,
            **tensors,
        }  # fmt: skip
        return _tensor(cast("Pipe[Any]", self), options)

    if not TYPE_CHECKING:  # mypy refuses these by itself

        def __getattr__(self, name: str) -> Any:
            """Say where the plan's verbs stand, when they are typed elsewhere."""
            if name in PLAN_VERBS:
                place = "after read" if self._kind == "stream" else "before chip"
                raise AttributeError(f"{name}() works on a plan, between chip(...) and read(); here it stands {place}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _tensor(pipe: Pipe[Any], options: dict[str, Any]) -> Pipe[dict[str, Any]]:
    """Add the step to tensors; its names are the user's own, so it stands apart from the method."""
    text = steps.call("tensor", **steps.given(tensors.tensor, options))
    pipe._need("stream", text)
    done = pipe._op(loaders.Each(steps.Step(text, tensors.tensor, (), options)))
    accept_as_iterable_dataset(Pipe)
    return done
