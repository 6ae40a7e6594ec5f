"""How a chain prints: as one would type it, with what is known after each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from geopipes.loaders import Op
    from geopipes.pipe.chain import Chain

NAMED = 6
"""Variables of a Dataset that are named on a line; of more, only the number."""

ALIGNED = 88
"""Characters of a call up to which notes stand in one column; a longer call has its note right behind it."""


def drawn(chain: Chain[Any]) -> str:
    """Draw a chain, a line for each call; nothing is searched or read for it."""
    calls = []
    link: Chain[Any] | None = chain
    while link is not None:
        calls.append((link._text, known(link)))
        link = link._parent
    calls.reverse()
    lines = [calls[0][0], *(f"    {dotted(text)}" for text, _ in calls[1:])]
    width = max((len(line) for line in lines if len(line) <= ALIGNED), default=0)
    return "\n".join(
        f"{line:<{width}}  # {note}" if note else line for line, (_, note) in zip(lines, calls, strict=True)
    )


def dotted(text: str) -> str:
    """Write what follows on a chain: a call behind a dot, an index as it is."""
    return text if text.startswith("[") else f".{text}"


def known(chain: Chain[Any]) -> str:
    """Say what is known after a call without working anything out."""
    if not chain._value.done:
        return ""
    value = chain._value.get()
    if not hasattr(value, "__len__"):
        return ""
    if chain._ops or hasattr(value, "loading"):
        sample = preview(value, chain._ops) if hasattr(value, "windows") else None
        return "; ".join(filter(None, (f"{len(chain):,} {_counted(chain._text)}", sample)))
    if hasattr(value, "duplicates"):
        dropped = f", {value.duplicates} duplicates dropped" if value.duplicates else ""
        return f"{len(value):,} items{dropped}"
    if hasattr(value, "left_out"):
        return plan(value)
    if hasattr(value, "cubes"):
        several = f"{len(value)} cubes, the first: " if len(value) > 1 else ""
        return several + element(value[0])
    return f"{len(value):,} elements"


def preview(reading: Any, ops: tuple[Op, ...]) -> str | None:
    """Describe what a run will give, tried on a chip without pixels; None once a function of the user's comes in."""
    value = blank(reading.windows[0])
    for op in ops:
        step = getattr(op, "step", None)
        if step is None or getattr(op, "keeps", False):
            continue  # batches, take and filter leave what an element is
        if not str(getattr(step.function, "__module__", "")).startswith("geopipes."):
            return None
        value = step(value)
    if isinstance(value, dict) and not any(isinstance(part, xr.Dataset) for part in value.values()):
        return ", ".join(f"{k} {tuple(v.shape)} {_kind(v.dtype)}" for k, v in value.items() if hasattr(v, "shape"))
    return element(value)


def blank(chip: Any) -> Any:
    """Give a chip's twin whose pixels are all 1 and take no memory."""
    if isinstance(chip, dict):
        return {name: blank(part) for name, part in chip.items()}
    ones = {n: (v.dims, np.broadcast_to(np.ones((), v.dtype), v.shape), v.attrs) for n, v in chip.data_vars.items()}
    return xr.Dataset(ones, chip.coords, chip.attrs)


def _counted(text: str) -> str:
    return "batches" if text.startswith("batch(") else "elements"


def _kind(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def plan(windows: Any) -> str:
    """Describe a plan: how many chips, of what size, and what was left out."""
    height, width = windows.size
    size = f"{height} x {width} px" + (f" + margin {windows.margin}" if windows.margin else "")
    dates = "" if windows.dates is None else f", {windows.dates} dates each"
    left = f", {windows.left_out:,} windows left out" if windows.left_out else ""
    return f"{len(windows):,} chips of {size}{dates}{left}"


def element(value: Any) -> str:
    """Describe a Dataset, or several by name."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: ({element(dataset)})" for name, dataset in value.items())
    return dataset(value)


def dataset(value: xr.Dataset) -> str:
    """Describe a Dataset: dims, CRS and pixel size, variables by dtype."""
    sizes = ", ".join(f"{dim} {size}" for dim, size in value.sizes.items())
    by_type: dict[str, list[str]] = {}
    for name, variable in value.data_vars.items():
        by_type.setdefault(str(variable.dtype), []).append(str(name))
    kinds = ", ".join(
        f"{' '.join(names) if len(names) <= NAMED else f'{len(names)} variables'} {kind}"
        for kind, names in by_type.items()
    )
    attrs = value["spatial_ref"].attrs if "spatial_ref" in value.coords else {}
    place = ""
    if "crs_wkt" in attrs:
        from odc.geo.crs import CRS

        crs = CRS(attrs["crs_wkt"])
        step = attrs["GeoTransform"].split()[1]
        place = f"; {f'EPSG:{crs.epsg}' if crs.epsg else crs.proj.name} at {float(step):g}"
    return f"{sizes}{place}; {kinds}"
