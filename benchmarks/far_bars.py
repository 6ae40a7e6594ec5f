"""The lines of a store far away."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.found import Bar, Found, ms, ratio
from benchmarks.measures import FAR_PEERS, PEERS


def far(found: Found) -> Iterator[Bar]:
    """Give the lines of the row far."""
    ours = "far geopipes shuffled afar"
    if not found.has(ours):
        return
    afar, disk = found.chip(ours), found.chip("far geopipes shuffled disk")
    note = ms(("far", afar), ("disk", disk)) or found.why(ours)
    yield Bar("far", "chips/s, 40 ms away / from the disk", ratio(disk, afar), ">= 0.8", note)
    for what in ("requests", "sent"):
        shuffled, plain = (_each(found, f"far geopipes {order} afar", what) for order in ("shuffled", "random"))
        note = "" if shuffled is None else f"{shuffled:.3g} a chip; in plain random order {plain or 0:.3g}"
        yield Bar("far", f"{what} a chip, shuffled / plain random order", ratio(shuffled, plain), "<= 0.333", note)
    for peer in FAR_PEERS:
        key = f"far {peer}"
        if found.has(key):
            theirs, asked = found.chip(key), "" if peer == "rasterio_threads" else ">= 10"
            costs = [f"{_each(found, key, what) or 0:.3g} {what} a chip" for what in ("requests", "sent")]
            note = ", ".join([ms(("peer", theirs)), *costs]) if theirs is not None else found.why(key)
            yield Bar("far", f"times faster than {PEERS[peer]}", ratio(theirs, afar), asked, note)
    for engine, least in (("geopipes", ">= 2"), ("stored", ">= 3")):
        key = f"far cold {engine}"
        mine, theirs = found.chip(key), found.chip("far cold rasterio")
        each = ", ".join(
            f"{name} {_each(found, f'far cold {name}', 'requests') or 0:.3g}" for name in ("rasterio", engine)
        )
        note = found.why(key) or f"{ms((engine, mine), ('rasterio', theirs))}; requests a scene: {each}"
        yield Bar("far", f"scenes never opened, {engine}: times faster than rasterio", ratio(theirs, mine), least, note)
    steady = [one for one in found.results.get("far steady", ()) if "failed" not in one]
    if steady:
        (few, first), (many, last) = steady[0]["marks"].items()
        for what, before, after in zip(("RSS", "threads", "handles"), first, last, strict=True):
            note = f"{before / 1e6:.0f} and {after / 1e6:.0f} MB" if what == "RSS" else f"{before} and {after}"
            asked = "<= 1.05" if what == "RSS" else "<= 1"
            yield Bar("far", f"{what} after {many} chips / after {few}", ratio(after, before), asked, note)


def _each(found: Found, key: str, field: str) -> float | None:
    return ratio(found.value(key, field), found.value(key, "chips"))
