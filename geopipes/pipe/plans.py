"""`Plan`: what chooses and orders chips, each method a line that calls a function of a topic module."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from geopipes.errors import StepError
from geopipes.pipe.cubes import Inputs
from geopipes.pipe.lazy import Lazy, LazyModule
from geopipes.pipe.pipes import Pipe
from geopipes.read import failures
from geopipes.read.failures import RETRIES, TIMEOUT, Ledger, OnError

if TYPE_CHECKING:
    import geopandas
    import numpy.typing as npt
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from shapely.geometry.base import BaseGeometry

    from geopipes import chips, orders, steps
    from geopipes.chips.choosing import Shares
    from geopipes.chips.cutting import Coverage
    from geopipes.chips.grouping import Every, Kind
    from geopipes.chips.matching import Side
    from geopipes.orders.epochs import Tail
else:
    chips, orders, steps = (LazyModule(f"geopipes.{name}") for name in ("chips", "orders", "steps"))

T = TypeVar("T")
R = TypeVar("R")

DISK_BUDGET = 32 * 2**30
"""Bytes of disk for tiles that are kept: 200,000 of them or so."""

READING_THREADS = 8
"""Threads that read chips: decoding fills the cores while others wait for a disk or a network."""

CACHE = 1 << 30
"""Bytes of decoded tiles that a process keeps: 250 stacks of 512 x 512 px with eight 16-bit bands."""

REQUESTS = 64
"""Requests in flight: at 40 ms each 1,600 a second, more than two cores decode."""


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

    @overload
    def map(self, fn: Callable[[T], R], *, margin: int = 0, rng: Literal[False] = False) -> Plan[R]: ...
    @overload
    def map(self, fn: Callable[..., R], *, margin: int = 0, rng: bool) -> Plan[R]: ...
    def map(self, fn: Callable[..., R], *, margin: int = 0, rng: bool = False) -> Plan[R]:
        """Record a function of every chip, applied when it is read: see `Pipe.map`."""
        return cast("Plan[R]", super().map(fn, margin=margin, rng=rng))

    def take(self, n: int) -> Plan[T]:
        """Keep the first ``n`` chips."""
        return cast("Plan[T]", super().take(n))

    def split(self, fractions: Sequence[float], *, block: float, buffer: float = 0.0, seed: int) -> tuple[Plan[T], ...]:
        """Split by random blocks of ground: see `geopipes.orders.split`."""
        options: dict[str, Any] = {"block": block, "buffer": buffer, "seed": seed}
        text = steps.call("split", tuple(fractions), **steps.given(orders.split, options))
        parts = Lazy(lambda: orders.split(self._value.get(), fractions, **options))

        def part(k: int) -> Plan[T]:
            return self._new(f"{text}[{k}]", self, Lazy[Any](lambda: parts.get()[k]), "plan")

        return tuple(part(k) for k in range(len(fractions)))

    def sample(
        self, n: int, *, seed: int, weights: str | npt.ArrayLike | None = None, replace: bool = False
    ) -> Plan[T]:
        """Choose chips at random, by weights: see `geopipes.chips.sample`."""
        options: dict[str, Any] = {"seed": seed, "weights": weights, "replace": replace}
        text = steps.call("sample", n, **steps.given(chips.sample, options))
        return self._whole(text, lambda windows: chips.sample(windows, n, **options))

    def stratify(
        self,
        n: int,
        *,
        by: str | npt.ArrayLike,
        shares: Shares,
        seed: int,
        edges: Sequence[float] | None = None,
    ) -> Plan[T]:
        """Choose chips by strata of a column: see `geopipes.chips.stratify`."""
        options: dict[str, Any] = {"by": by, "shares": shares, "seed": seed, "edges": edges}
        text = steps.call("stratify", n, **steps.given(chips.stratify, options))
        return self._whole(text, lambda windows: chips.stratify(windows, n, **options))

    def away(
        self,
        places: geopandas.GeoDataFrame | geopandas.GeoSeries | BaseGeometry | Plan[Any],
        distance: float,
        *,
        within: float | None = None,
    ) -> Plan[T]:
        """Keep the chips that are far enough from places, or from another plan's: see `geopipes.chips.away`."""
        shown = steps.Text(places._lineage()) if isinstance(places, Plan) else places
        text = steps.call("away", shown, distance, **steps.given(chips.away, {"within": within}))

        def kept(windows: Any) -> Any:
            there: Any = places._value.get() if isinstance(places, Plan) else places
            return chips.away(windows, there, distance, within=within)

        return self._whole(text, kept)

    def by_scene(self, batch: int, *, seed: int, epoch: int = 0) -> Plan[T]:
        """Put the chips in an order whose batches each come from one scene: see `geopipes.chips.by_scene`."""
        options = {"seed": seed, "epoch": epoch}
        text = steps.call("by_scene", batch, **steps.given(chips.by_scene, options))
        return self._whole(text, lambda windows: chips.by_scene(windows, batch, **options))

    def triplets(self, *, near: float, far: float, seed: int, n: int | None = None) -> Plan[Inputs]:
        """Make triplets of an anchor, a chip near it and one far away: see `geopipes.chips.triplets`."""
        options: dict[str, Any] = {"near": near, "far": far, "seed": seed, "n": n}
        text = steps.call("triplets", **steps.given(chips.triplets, options))
        return cast("Plan[Inputs]", self._whole(text, lambda windows: chips.triplets(windows, **options)))

    def pairs(self, *, seed: int, months: float | None = None, gap: tuple[float, float] | None = None) -> Plan[Inputs]:
        """Make pairs of one place at two dates: see `geopipes.chips.pairs`."""
        options: dict[str, Any] = {"seed": seed, "months": months, "gap": gap}
        text = steps.call("pairs", **steps.given(chips.pairs, options))
        return cast("Plan[Inputs]", self._whole(text, lambda windows: chips.pairs(windows, **options)))

    def sequences(
        self,
        length: int,
        *,
        kind: Kind = "sliding",
        stride: int = 1,
        every: Every | None = None,
        seed: int | None = None,
    ) -> Plan[T]:
        """Make sequences in time of the chips of a place: see `geopipes.chips.sequences`."""
        options: dict[str, Any] = {"kind": kind, "stride": stride, "every": every, "seed": seed}
        text = steps.call("sequences", length, **steps.given(chips.sequences, options))
        return self._whole(text, lambda windows: chips.sequences(windows, length, **options))

    def match_dates(
        self,
        within: Mapping[str, Any],
        *,
        to: str,
        side: Side | Mapping[str, Side] = "nearest",
        optional: str | Collection[str] = (),
        coverage: Coverage = "full",
    ) -> Plan[T]:
        """Choose one date of each input for each chip: see `geopipes.chips.match_dates`."""
        options: dict[str, Any] = {"to": to, "side": side, "optional": optional, "coverage": coverage}
        text = steps.call("match_dates", within, **steps.given(chips.match_dates, options))
        return self._whole(text, lambda windows: chips.match_dates(windows, within, **options))

    def settle(self, *, threads: int = 8) -> Plan[T]:
        """Search for all points now, and leave out those without items: see `geopipes.chips.settle`."""
        text = steps.call("settle", **steps.given(chips.settle, {"threads": threads}))
        return self._whole(text, lambda windows: chips.settle(windows, threads=threads))

    # The plan as a table.

    def table(self, *, items: bool = False, coverage: bool = False, crs: Any = "EPSG:4326") -> geopandas.GeoDataFrame:
        """Give the plan as a table, a row for each chip: see `geopipes.chips.table`."""
        return chips.table(self._value.get(), items=items, coverage=coverage, crs=crs)

    def query(self, condition: str | npt.ArrayLike | pd.Series[Any] | pd.DataFrame | pd.Index[Any]) -> Plan[T]:
        """Keep the chips for which a condition on the table holds: see `geopipes.chips.query`."""
        text = steps.call("query", condition)
        return self._whole(text, lambda windows: chips.query(windows, condition))

    def assign(self, table: pd.DataFrame | None = None, /, **columns: Any) -> Plan[T]:
        """Add columns, or those of a table by id: see `geopipes.chips.assign`."""
        text = steps.call("assign", table, **columns)
        return self._whole(text, lambda windows: chips.assign(windows, table, **columns))

    def measure(
        self,
        path: str | os.PathLike[str],
        *,
        valid: bool = False,
        share: str | None = None,
        distance: geopandas.GeoDataFrame | Mapping[str, geopandas.GeoDataFrame] | None = None,
        on: Pipe[Any] | None = None,
        threads: int = READING_THREADS,
        cache: int = CACHE,
        progress: bool | Callable[[int, int], None] = False,
        **functions: Callable[[xr.Dataset], float],
    ) -> Plan[T]:
        """Measure every chip once, and keep the columns in a file: see `geopipes.chips.measure`."""
        options: dict[str, Any] = {
            "valid": valid, "share": share, "distance": distance, "threads": threads, "cache": cache,
            "progress": progress,
        }  # fmt: skip
        shown = steps.given(chips.measure, options) | ({} if on is None else {"on": steps.Text(on._lineage())})
        text = steps.call("measure", path, **shown, **functions)

        def measured(windows: Any) -> Any:
            cubes = None if on is None else on._value.get()
            return chips.measure(windows, path, on=cubes, **{**options, **functions})

        return self._whole(text, measured)

    def plot(
        self, *plans: Plan[Any], by: str = "split", scenes: bool = True, crs: Any = "EPSG:4326", ax: Axes | None = None
    ) -> Axes:
        """Draw the footprints of scenes and chips, of this plan and others: see `geopipes.chips.plot`."""
        every = (self._value.get(), *(plan._value.get() for plan in plans))
        return chips.plot(*every, by=by, scenes=scenes, crs=crs, ax=ax)

    def explore(self, *plans: Plan[Any], by: str = "split") -> Any:
        """Show the chips on a map one can move: see `geopipes.chips.explore`."""
        return chips.explore(self._value.get(), *(plan._value.get() for plan in plans), by=by)

    def scene_labels(
        self,
        table: pd.DataFrame | Mapping[str, Any] | str | os.PathLike[str],
        *,
        on: str = "item",
        columns: str | list[str] | None = None,
    ) -> Plan[T]:
        """Give each chip the labels of the item that it shows: see `geopipes.chips.scene_labels`."""
        text = steps.call("scene_labels", table, **steps.given(chips.scene_labels, {"on": on, "columns": columns}))
        return self._whole(text, lambda windows: chips.scene_labels(windows, table, on=on, columns=columns))

    # Splits.

    def kfold(self, k: int, *, block: float, buffer: float = 0.0, seed: int) -> tuple[tuple[Plan[T], Plan[T]], ...]:
        """Make k pairs of a training and a test plan: see `geopipes.orders.kfold`."""
        options: dict[str, Any] = {"block": block, "buffer": buffer, "seed": seed}
        text = steps.call("kfold", k, **steps.given(orders.kfold, options))
        folds = Lazy(lambda: orders.kfold(self._value.get(), k, **options))

        def part(fold: int, which: int) -> Plan[T]:
            return self._new(f"{text}[{fold}][{which}]", self, Lazy[Any](lambda: folds.get()[fold][which]), "plan")

        return tuple((part(fold, 0), part(fold, 1)) for fold in range(k))

    def split_by_time(self, dates: str | Sequence[Any], *, gap: Any = "0D") -> tuple[Plan[T], ...]:
        """Split at dates: see `geopipes.orders.split_by_time`."""
        text = steps.call("split_by_time", dates, **steps.given(orders.split_by_time, {"gap": gap}))
        parts = Lazy(lambda: orders.split_by_time(self._value.get(), dates, gap=gap))

        def part(k: int) -> Plan[T]:
            return self._new(f"{text}[{k}]", self, Lazy[Any](lambda: parts.get()[k]), "plan")

        return tuple(part(k) for k in range(2 if isinstance(dates, str) else len(dates) + 1))

    def split_by_polygon(
        self,
        polygons: geopandas.GeoDataFrame,
        *,
        column: str,
        buffer: float = 0.0,
        names: Sequence[str] | None = None,
    ) -> dict[str, Plan[T]]:
        """Split by polygons, a split for each name in a column of theirs: see `geopipes.orders.split_by_polygon`."""
        options: dict[str, Any] = {"column": column, "buffer": buffer, "names": names}
        text = steps.call("split_by_polygon", polygons, **steps.given(orders.split_by_polygon, options))
        return self._named(text, orders.split_by_polygon(self._value.get(), polygons, **options))

    def split_by_column(
        self, column: str, *, buffer: float = 0.0, names: Sequence[Any] | None = None
    ) -> dict[Any, Plan[T]]:
        """Split by the values of a column: see `geopipes.orders.split_by_column`."""
        options: dict[str, Any] = {"buffer": buffer, "names": names}
        text = steps.call("split_by_column", column, **steps.given(orders.split_by_column, options))
        return self._named(text, orders.split_by_column(self._value.get(), column, **options))

    def _named(self, text: str, parts: dict[Any, Any]) -> dict[Any, Plan[T]]:
        return {name: self._new(f"{text}[{name!r}]", self, Lazy.known(part), "plan") for name, part in parts.items()}

    def shuffle(
        self, seed: int, *, exact: bool = False, epoch: int = 0, lanes: int = 32, strip: int | None = None
    ) -> Plan[T]:
        """Put the chips in a random order that reads each tile about once: see `geopipes.orders.shuffle`."""
        options: dict[str, Any] = {"exact": exact, "epoch": epoch, "lanes": lanes, "strip": strip}
        text = steps.call("shuffle", seed, **steps.given(orders.shuffle, options))
        return self._whole(text, lambda windows: orders.shuffle(windows, seed, **options))

    def epoch(self, number: int) -> Plan[T]:
        """Give the plan in the order of another epoch: see `geopipes.orders.epoch`."""
        return self._whole(steps.call("epoch", number), lambda windows: orders.epoch(windows, number))

    def shard(self, rank: int, ranks: int, *, tail: Tail | None = None) -> Plan[T]:
        """Give one rank's part of the order: see `geopipes.orders.shard`."""
        text = steps.call("shard", rank, ranks, **steps.given(orders.shard, {"tail": tail}))
        return self._whole(text, lambda windows: orders.shard(windows, rank, ranks, tail=tail))

    def read(
        self,
        *,
        threads: int = READING_THREADS,
        cache: int = CACHE,
        requests: int = REQUESTS,
        disk: str | os.PathLike[str] | None = None,
        disk_budget: int = DISK_BUDGET,
        on_error: OnError = "raise",
        retries: int = RETRIES,
        timeout: float = TIMEOUT,
        ledger: Ledger | str | os.PathLike[str] | None = None,
    ) -> Pipe[T]:
        """Read the chips, in the plan's order, several in flight: from here on pixels move.

        One-to-one steps that follow run on the reading threads.

        Reads that fail are of four kinds. "transient" (a busy server, a lost connection, a body that was cut off or
        stalls) are tried again, after waits that double and are drawn at random, or as long as the server asks for;
        "auth" is signed anew, once; "missing" and "corrupt" are not tried again, save that bytes from a network are
        fetched anew, as they may have been damaged on their way. What then is left is done as `on_error` says.

        Parameters
        ----------
        threads : that read; twice as many chips are in memory at most
        cache : bytes of decoded tiles that the process keeps, for all its pipes; chips that are near each other in
            the plan are then made of tiles that are there. Each worker process of a loader has as many. Of tiles in
            stores an eighth as many bytes, compressed, may be there beside them, fetched ahead
        requests : in flight at a time, where files lie in stores: the plan tells what is needed next, and the latency
            hides behind the decoding of what is there. For each host or bucket, `geopipes.storage` sets a bound for
            all pipes together
        disk : a folder in which tiles of GeoTIFFs in stores are kept, as they came: what was read once is not fetched
            again, in the next epoch or the next run. Processes of one machine may share it. Headers are kept without
            this, in the user's cache
        disk_budget : bytes of disk that it may take; what was not used for longest goes first
        on_error : ``"raise"`` ends the run with a `ReadError` that names chip, item, asset, window and cause.
            ``"mask"`` makes what could not be read not valid: all that the item's rasters on that grid would have
            filled at that date, save where one before them in the mosaic is valid. One behind them does not stand in:
            nothing is made up. A joined variable becomes NaN or its nodata; one of integers without nodata has no
            value for that, and its chip is skipped. ``"skip"`` leaves the chip out, as a filter does: a hole in its
            batch
        retries : how often a read is tried again that failed for a passing reason, after waits that double, or as long
            as the server asks for; a web server that is busy is asked that by a HEAD, once a second at most. A file
            that fails in all of them is asked once for each chip in the five minutes that follow
        timeout : seconds that one request over a network may take
        ledger : where each failure stands, and how many chips were delivered, masked, filtered and skipped: a
            `gp.Ledger`, or the path of one's file. Needed where reads are masked or skipped

        Raises
        ------
        StepError
            for other words and for numbers that make no sense, and where failures would stand nowhere
        LedgerError
            for a file that is no ledger
        """
        if disk_budget < 0:
            raise StepError(f"read(disk_budget={disk_budget}): give bytes of disk, 0 or more")
        if requests < 1:
            raise StepError(f"read(requests={requests}): at least one request is in flight")
        if threads < 1:
            raise StepError(f"read(threads={threads}): at least one thread reads")
        if cache < 0:
            raise StepError(f"read(cache={cache}): give bytes, 0 or more")
        policy = failures.Policy(on_error, retries, timeout)
        if ledger is None and on_error != "raise":
            raise StepError(
                f"read(on_error={on_error!r}): what fails must stand somewhere; write ledger='failures.jsonl', or "
                "ledger=gp.Ledger() to keep it in memory"
            )
        options: dict[str, Any] = {"requests": requests, "disk_budget": disk_budget}
        shown = {
            "threads": threads, "cache": cache, "disk": disk, **options, "on_error": on_error, "retries": retries,
            "timeout": timeout, "ledger": ledger,
        }  # fmt: skip
        text = steps.call("read", **steps.given(Plan.read, shown))
        options |= {"policy": policy, "ledger": failures.opened(ledger)}
        options["disk"] = None if disk is None else os.path.abspath(os.path.expanduser(disk))
        return Pipe._new(text, self, Lazy(lambda: chips.Reading(self._value.get(), threads, cache, **options)))


def _typed(index: slice) -> str:
    """Write a slice as one types it."""
    ends = ("" if index.start is None else index.start, "" if index.stop is None else index.stop)
    return f"{ends[0]}:{ends[1]}" + ("" if index.step is None else f":{index.step}")
