"""From measurements to the table: what was asked, what was found, met or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log

from benchmarks.far_bars import far
from benchmarks.found import Bar, Found, Missing, Results, ms, ratio
from benchmarks.measures import DTYPES, JOBS, METHODS, PEERS, POLYGONS, SERIES_PEERS, SUFFIXES


def bars(results: Results, missing: Missing, *, threads: int) -> list[Bar]:
    """Give the table's lines for what was measured."""
    found = Found(results, missing, threads)
    parts: list[Callable[[Found], Iterator[Bar]]] = [
        _decodes, _floors, _kernels, _peers, _random, _series, _mixing, _ranks, _hand_over, _memory, _scaling,
        _choosing, _overhead, _steps, _training, _mapping, far, _labels,
    ]  # fmt: skip
    return [bar for part in parts for bar in part(found)]


def _decodes(found: Found) -> Iterator[Bar]:
    for name in JOBS:
        for order, asked in (("sequential", "<= 1.05"), ("shuffled", "<= 1.5"), ("random", "")):
            key = found.ours(name, order)
            if found.has(key):
                decoded, needed = found.value(key, "decoded"), found.value(key, "needed")
                whole = found.value(key, "chips") == found.value(key, "planned")
                got = ratio(decoded, needed) if whole else None
                if whole or order != "random":
                    yield Bar(name, f"decodes per unique tile, {order}", got, asked, found.why(key))


def _floors(found: Found) -> Iterator[Bar]:
    for name in (*JOBS, "series"):
        for threads in (1, 2, 4):
            floor = found.floor(name, threads)
            if not found.has(floor):
                continue
            decode, pixels = found.chip(floor, "decode"), found.chip(floor, "decode", "write")
            note = ms(("F_decode", decode), ("F_pixels", pixels))
            yield Bar("floors", f"{name}: F_pixels, ms a chip, threads {threads}", pixels, "", note or found.why(floor))
            for order, asked in (("sequential", "<= 1.5"), ("shuffled", "<= 2.2")):
                key = found.ours(name, order, threads)
                if found.has(key):
                    ours = found.chip(key)
                    asked_here = asked if threads == found.threads and name != "series" else ""
                    note = ms(("geopipes", ours), ("F_pixels", pixels)) or found.why(key, floor)
                    what = f"wall time / F_pixels, {order}, threads {threads}"
                    yield Bar(name, what, ratio(ours, pixels), asked_here, note)


def _kernels(found: Found) -> Iterator[Bar]:
    for method in METHODS:
        key = f"kernels {method}"
        if found.has(key):
            ours, vrt, place = (found.value(key, name) for name in ("kernel", "vrt", "place"))
            note = ms(("kernel", ours), ("place, once for all bands", place), ("WarpedVRT", vrt)) or found.why(key)
            yield Bar("kernels", f"{method}: times faster than WarpedVRT's default", ratio(vrt, ours), ">= 5", note)
            if method == "bilinear":
                yield Bar("kernels", "bilinear: ms for a band of 224 x 224", ours, "<= 0.2", "")


def _peers(found: Found) -> Iterator[Bar]:
    least = {"rasterio_threads": {"same-grid": 6, "warped": 10}, "torchgeo_random": dict.fromkeys(JOBS, 20)}
    for name in JOBS:
        ours = found.ours(name, "shuffled")
        for peer, title in PEERS.items():
            if found.has(ours) and found.has(key := f"{peer} {name}"):
                mine, theirs = found.chip(ours), found.chip(key)
                asked = f">= {least.get(peer, {}).get(name, 10)}"
                note = ms(("geopipes", mine), ("peer", theirs)) if theirs is not None else found.why(key, ours)
                yield Bar(name, f"shuffled: times faster than {title}", ratio(theirs, mine), asked, note)


def _random(found: Found) -> Iterator[Bar]:
    for name, asked in (("same-grid", ">= 1.2"), ("warped", ">= 2")):
        ours, key = found.ours(name, "random"), f"rasterio_threads {name}"
        if found.has(ours) and found.has(key):
            mine, theirs = found.chip(ours), found.chip(key)
            note = ms(("geopipes", mine), ("peer", theirs)) or found.why(ours, key)
            what = "plain random order: times faster than rasterio threads"
            yield Bar(name, what, ratio(theirs, mine), asked, note)


def _series(found: Found) -> Iterator[Bar]:
    for peer in SERIES_PEERS:
        ours, key = found.ours("series", "shuffled"), f"{peer} series"
        if found.has(ours) and found.has(key):
            mine, theirs = found.chip(ours), found.chip(key)
            asked = ">= 3" if peer == "odc_each" else ""
            title = "odc.stac.load with a pool" if peer == "odc_each" else PEERS[peer]
            note = ms(("geopipes", mine), ("peer", theirs)) if theirs is not None else found.why(key, ours)
            yield Bar("series", f"shuffled: times faster than {title}", ratio(theirs, mine), asked, note)


def _mixing(found: Found) -> Iterator[Bar]:
    if found.has("mixing"):
        ours, plain = found.value("mixing", "neighbours"), found.value("mixing", "plain_neighbours")
        got = found.value("mixing", "variance")
        yield Bar("mixing", "batch-mean variance / that of a permutation", got, "<= 1.1", found.why("mixing"))
        note = "" if plain is None else f"of a permutation {plain:.2f}"
        yield Bar("mixing", "correlation of neighbouring batches", ours, "", note)


def _ranks(found: Found) -> Iterator[Bar]:
    for name in JOBS:
        for ranks in ("2", "4"):
            key, plain = (f"ranks {name} {order}" for order in ("shuffled", "random"))
            if found.has(key):
                note = (
                    f"of {ranks} workers of a DataLoader {found.value(key, f'{ranks} workers') or 0:.2f}, of a plain "
                    f"permutation {found.value(plain, ranks) or 0:.2f}; of one rank alone none"
                )
                got = found.value(key, ranks)
                yield Bar("ranks", f"{name}: share of tiles that more than one of {ranks} ranks reads", got, "", note)


def _hand_over(found: Found) -> Iterator[Bar]:
    for dtype in DTYPES:
        key = f"hand-over {dtype}"
        if found.has(key):
            ours = found.value(key, "geopipes")
            for context in ("spawn", "fork"):
                theirs = found.value(key, context)
                note = ms(("geopipes", ours), ("DataLoader", theirs)) or found.why(key)
                what = f"{dtype}: times faster than DataLoader's worker, {context}"
                yield Bar("hand-over", what, ratio(theirs, ours), ">= 3", note)


def _memory(found: Found) -> Iterator[Bar]:
    good = [one for one in found.results.get("memory", ()) if "failed" not in one]
    if good:
        one = good[0]
        (early, before), *_, (late, after) = one["marks"].items()
        note = f"{after / 1e6:.0f} MB, baseline {one['baseline'] / 1e6:.0f} MB, budget {one['budget'] / 1e6:.0f} MB"
        yield Bar("memory", f"RSS after {late} chips / after {early}", after / before, "<= 1.05", note)
        over = (after - one["baseline"]) / one["budget"]
        yield Bar("memory", f"(RSS after {late} chips - baseline) / budget", over, "<= 1.25", note)
    elif found.has("memory"):
        yield Bar("memory", "RSS", None, "<= 1.05", found.why("memory"))


def _scaling(found: Found) -> Iterator[Bar]:
    for order in ("sequential", "shuffled"):
        key = f"scaling {order}"
        if found.has(key):
            names = ("base", "scenes", "bands", "chips")
            values = [found.value(key, name) for name in names]
            pairs = zip(names, values, strict=True)
            note = "decodes a chip and band: " + ", ".join(f"{name} {value:.3f}" for name, value in pairs if value)
            what = f"scenes, bands, chips doubled: growth of counters a chip, {order}"
            yield Bar("scaling", what, found.value(key, "growth"), "<= 0.05", note if values[0] else found.why(key))


def _overhead(found: Found) -> Iterator[Bar]:
    if found.has("overhead"):
        note = ms(("the reader alone", found.value("overhead", "reading"))) or found.why("overhead")
        chains = {
            "straight": ("tensor alone", "<= 0.15"), "scaled": ("scale, then tensor", ""),
            "dataset": ("map, then tensor", "<= 0.5"),
        }  # fmt: skip
        for name, (chain, asked) in chains.items():
            got = found.value("overhead", name)
            yield Bar("overhead", f"{chain}: CPU ms a chip of 8 bands beyond reading", got, asked, note)


def _steps(found: Found) -> Iterator[Bar]:
    if found.has("steps"):
        if why := found.why("steps"):
            yield Bar("steps", "ms a chip", None, "", why)
            return
        for name in (key for key in found.results["steps"][0] if f"{key}, plain" in found.results["steps"][0]):
            note = ms(("plain numpy", found.value("steps", f"{name}, plain")))
            yield Bar(
                "steps", f"{name}: ms a chip of 6 dates, 8 bands, 256 x 256 px", found.value("steps", name), "", note
            )


def _choosing(found: Found) -> Iterator[Bar]:
    for dates in (1, 24):
        key = f"choosing {dates}"
        if found.has(key):
            steps = ("chip", "choose", "split", "shuffle")
            values = {name: found.value(key, name) for name in ("windows", *steps, "first")}
            note = ", ".join(f"{name} {value:.3g} s" for name, value in values.items() if value and name != "windows")
            what = f"{values['windows'] or 0:,.0f} windows, dates {dates}"
            peak = found.value(key, "peak")
            note = note or found.why(key)
            yield Bar("choosing", f"{what}: MB above what was there before", peak and peak / 1e6, "<= 300", note)
            yield Bar("choosing", f"{what}: seconds to the first chip, shuffled", values["first"], "<= 2")
    for peer, title in (
        ("torchgeo random", "TorchGeo's RandomGeoSampler"),
        ("torchgeo grid", "TorchGeo's GridGeoSampler"),
        ("xbatcher", "xbatcher's BatchGenerator"),
    ):
        key = f"choosing {peer}"
        if found.has(key):
            count, seconds, peak = (found.value(key, name) for name in ("windows", "seconds", "peak"))
            note = f"{peak / 1e6:.0f} MB" if peak is not None else found.why(key)
            yield Bar("choosing", f"{title}: seconds to list {count or 0:,.0f} windows", seconds, "", note)


def _training(found: Found) -> Iterator[Bar]:
    for key in found.keys("training"):
        _, device, processes = key.split()
        times = [(name, found.value(key, name)) for name in ("alone", "batches", "both")]
        note = ms(*((name, None if value is None else 1e3 * value) for name, value in times)) or found.why(key)
        what = f"{device}, {processes} processes: share of the time in which it waits for batches"
        yield Bar("training", what, found.value(key, "waits"), "", note)


def _mapping(found: Found) -> Iterator[Bar]:
    key = "mapping throughput"
    if found.has(key):
        names = ("alone", "stitched", "written")
        values = {name: found.value(key, name) for name in ("chips", *names)}
        note = found.why(key)
        if values["chips"]:
            each = ", ".join(f"{name} {1e3 * (values[name] or 0) / values['chips']:.1f}" for name in names)
            note = f"ms a chip: model and reader {each}"
        for name in names[1:]:
            yield Bar(
                "mapping", f"{name} / model and reader alone", ratio(values[name], values["alone"]), "<= 1.1", note
            )
    key = "mapping memory"
    if found.has(key):
        values = {name: found.value(key, name) for name in ("baseline", "small", "large")}
        note = ", ".join(f"{name} {(value or 0) / 1e6:.0f} MB" for name, value in values.items())
        growth = ratio(values["large"], values["small"])
        yield Bar(
            "mapping", "peak RSS, an area 16 times as high / the smaller", growth, "<= 1.05", note or found.why(key)
        )


def _labels(found: Found) -> Iterator[Bar]:
    few, many = POLYGONS
    for suffix in SUFFIXES:
        keys = [f"labels {suffix} {polygons}" for polygons in POLYGONS]
        if found.has(keys[1]):
            small, large = (found.value(key, "chip") for key in keys)
            whole, opening = (found.value(keys[1], field) for field in ("whole", "opening"))
            times = {"chip": large, "file read whole for it": whole, "planning": opening}
            note = ms(*((what, None if one is None else 1e3 * one) for what, one in times.items()))
            asked = f"<= {log(many) / log(few):.2g}"
            what = f"a chip of {many:,} polygons / of {few:,}, {suffix}"
            yield Bar("labels", what, ratio(large, small), asked, note or found.why(*keys))
