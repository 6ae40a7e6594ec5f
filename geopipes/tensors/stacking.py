"""Layers to one tensor: promoted and filled, with as few copies as can be."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from geopipes.errors import TensorError
from geopipes.tensors.cuts import Layer
from geopipes.tensors.dates import check_fits
from geopipes.tensors.rows import fresh, row, written

BOOL = np.dtype(bool)


class Told(NamedTuple):
    """What tells where bands of a tensor are measured.

    Attributes
    ----------
    bands : those
    valid : whether ``valid`` speaks of them
    floats : whether NaN may stand in them
    nodata : the number that is no measurement, of joined ones; None for none
    """

    bands: slice
    valid: bool
    floats: bool
    nodata: float | None


Spoken = tuple[Told, ...]
"""Of the bands of a tensor; empty where ``valid`` speaks of none of them."""


def stacked(
    name: str,
    layers: list[Layer],
    valid: npt.NDArray[np.bool_],
    *,
    fill: float | None,
    dtype: torch.dtype | None,
    length: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Stack layers to one tensor.

    Parameters
    ----------
    name : of the tensor, for errors
    layers : at least one
    valid : (time or 1, y, x)
    fill, dtype : as ``tensor`` says
    length : dates of the tensor, padded at the end; None for the layers' own

    Returns
    -------
    (time or 1, band, y, x), and (time or 1, y, x) bool that tells what is measured; None where all are joined
    """
    form = _form(name, tuple(map(_kind, layers)), fill, dtype)
    native, dates, size = form.native, form.dates, layers[0].pixels.shape[2:]
    if length is not None:
        check_fits(name, dates, length, fill)
    padding = slice(dates, length or dates)
    with np.errstate(over="ignore") if form.casts else nullcontext():  # what a float does not hold is infinite in it
        if len(layers) == 1 and written.get() is None and padding.stop == dates:
            pixels = np.require(layers[0].pixels, native, ["C_CONTIGUOUS", "WRITEABLE"])  # copies only if it must
            made = torch.from_numpy(pixels)
        else:
            shape = (padding.stop, form.bands, *size)
            made, pixels = row(name, shape, native) if form.kept else fresh(shape, native)
            parts = [layer.pixels for layer in layers]
            if form.uneven:
                parts = [np.broadcast_to(part, (dates, *part.shape[1:])) for part in parts]
            np.concatenate(parts, axis=1, out=pixels[:dates], casting="unsafe")
            if padding.stop > dates and fill is not None:
                pixels[padding] = checked_fill(name, fill, native)
    told = None
    if form.spoken:
        told, measured = row(f"{name}_valid", (padding.stop, *size), BOOL)
        measured[:dates], measured[padding] = valid, False
        shared = np.may_share_memory(pixels, layers[0].pixels)  # a chip itself is never written to
        whole = filled(pixels, form.spoken, measured, form.number, shared=shared)
        made = made if whole is pixels else torch.from_numpy(whole)
    return made if dtype in (None, made.dtype) else made.to(dtype), told


class _Form(NamedTuple):
    """What all chips of a kind have in common.

    Attributes
    ----------
    native : the dtype in which a tensor is stacked
    dates, bands : of it
    uneven : whether layers without time are repeated
    kept : whether that is the dtype of the tensor
    casts : whether layers are of other ones
    spoken, number : as `filled` takes them
    """

    native: np.dtype[Any]
    dates: int
    bands: int
    uneven: bool
    kept: bool
    casts: bool
    spoken: Spoken
    number: np.generic | None


_Kind = tuple[str, np.dtype[Any], int, int, bool, bool, float | None]


def _kind(layer: Layer) -> _Kind:
    """Tell of a layer what others of its kind share."""
    dates, bands, *_ = layer.pixels.shape
    return layer.name, layer.pixels.dtype, dates, bands, layer.timed, layer.joined, layer.nodata


@lru_cache(maxsize=64)
def _form(name: str, kinds: tuple[_Kind, ...], fill: float | None, dtype: torch.dtype | None) -> _Form:
    native = stored_dtype(name, tuple(kind[:2] for kind in kinds), dtype)
    dates = max(kinds, key=lambda kind: kind[4])[2]
    told = _spoken(*((bands, not own, kind.kind in "fc", nodata) for _, kind, _, bands, _, own, nodata in kinds))
    return _Form(
        native=native,
        dates=dates,
        bands=sum(kind[3] for kind in kinds),
        uneven=any(kind[2] != dates for kind in kinds),
        kept=dtype in (None, held_in(native)),
        casts=any(kind[1] != native for kind in kinds),
        spoken=told,
        number=None if fill is None or not told else checked_fill(name, fill, native),
    )


def named(
    name: str, pixels: torch.Tensor, valid: torch.Tensor | None, *, date: int | None, band: int | None
) -> dict[str, torch.Tensor]:
    """Name what `stacked` gives, without the axes that are not asked for.

    Parameters
    ----------
    date, band : the place along time and bands where there is to be no such axis; None for the whole axis
    """
    pixels = pixels if date is None else pixels[date]
    tensors = {name: pixels if band is None else pixels.select(-3, band)}
    if valid is not None:
        tensors[f"{name}_valid"] = valid if date is None else valid[date]
    return tensors


@lru_cache(maxsize=64)
def held_in(native: np.dtype[Any]) -> torch.dtype:
    """Give torch's name of a dtype."""
    return torch.from_numpy(np.empty(0, native)).dtype


def spoken(layers: Sequence[Layer], numbers: Container[str] = ()) -> Spoken:
    """Tell where the bands of stacked layers are measured; those whose names are numbers are not NaN."""
    floats = [layer.pixels.dtype.kind in "fc" and layer.name not in numbers for layer in layers]
    kinds = [(one.pixels.shape[1], not one.joined, nan, one.nodata) for one, nan in zip(layers, floats, strict=True)]
    return _spoken(*kinds)


@lru_cache(maxsize=64)
def _spoken(*layers: tuple[int, bool, bool, float | None]) -> Spoken:
    """Put the bands of layers together that are told of alike."""
    if not any(valid for _, valid, _, _ in layers):
        return ()
    found: list[Told] = []
    start = 0
    for count, valid, floats, nodata in layers:
        bands = slice(start, start := start + count)
        told = Told(bands, valid, floats, nodata)
        if found and found[-1].bands.stop == bands.start and told[1:] == found[-1][1:]:
            told = told._replace(bands=slice(found.pop().bands.start, bands.stop))  # many at once
        if told[1:] != (False, False, None):
            found.append(told)
    return tuple(found)


def filled(
    pixels: npt.NDArray[Any],
    spoken: Spoken,
    measured: npt.NDArray[np.bool_],
    fill: np.generic | None,
    *,
    shared: bool = False,
    complete: bool | None = None,
) -> npt.NDArray[Any]:
    """Write ``fill`` where nothing was measured, and take that from what is measured.

    Parameters
    ----------
    pixels : (time, band, y, x), written to
    spoken : what tells where its bands are measured
    measured : (time, y, x): ``valid`` before; written to
    fill : None for nothing to be written
    shared : whether the pixels are somebody else's: then a copy of them is written to, if need be
    complete : whether the stack measured everywhere; None where that is to be found out

    Returns
    -------
    the pixels, or their copy
    """
    outside = None if (measured.all() if complete is None else complete) else ~measured[:, None]
    for told in spoken:
        holes = outside if told.valid else None
        if (missing := _missing(pixels[:, told.bands], told)) is not None:
            np.logical_and(measured, ~missing.any(axis=1), out=measured)
            holes = missing if holes is None else missing | holes
        if holes is not None and fill is not None:
            pixels, shared = (pixels.copy(), False) if shared else (pixels, shared)
            np.copyto(pixels[:, told.bands], fill, where=holes)
    return pixels


def _missing(pixels: npt.NDArray[Any], told: Told) -> npt.NDArray[np.bool_] | None:
    """Tell where pixels say themselves that they are no measurement; None where they do nowhere."""
    missing = None
    # The least of numbers is NaN where one of them is: told in half the time, without an array of its own.
    if told.floats and np.isnan(pixels.min(initial=np.inf)):
        missing = np.isnan(pixels)
    if told.nodata is not None and (marked := pixels == told.nodata).any():
        missing = marked if missing is None else missing | marked
    return missing


@lru_cache(maxsize=64)
def stored_dtype(
    name: str, variables: tuple[tuple[str, np.dtype[Any]], ...], dtype: torch.dtype | None
) -> np.dtype[Any]:
    """Choose the NumPy dtype that a tensor is stacked in: one pass, no detour through float64.

    Parameters
    ----------
    name : of the tensor, for errors
    variables : their names and dtypes
    dtype : of the tensor; None for what NumPy promotes the variables to

    Raises
    ------
    TensorError
        for a dtype that would change values other than by rounding, or that torch does not have
    """
    given = [kind for _, kind in variables]
    try:
        native = np.result_type(*given).newbyteorder("=")
        held_in(native)
    except TypeError:
        raise TensorError(
            f"tensor({name}=...): torch holds no tensor of {', '.join(map(str, given))}; convert in a step"
            ' before, for example .map(lambda cube: cube.astype("float32"))'
        ) from None
    if dtype is None:
        return native
    # NumPy has no bfloat16 and no float8: torch makes those of float32.
    numpy_has = not dtype.is_floating_point or dtype in (torch.float16, torch.float32, torch.float64)
    native = torch.empty(0, dtype=dtype if numpy_has else torch.float32).numpy().dtype
    for variable, kind in variables:
        # Floats may round (0.1 in float32, 2**24 + 1 too); whole numbers never lose their ends or fractions.
        if not np.can_cast(kind, native, "same_kind" if native.kind in "fc" else "safe"):
            raise TensorError(
                f"tensor({name}=..., dtype={dtype}): {variable!r} is {kind}, and {dtype} does"
                " not hold all its values; choose a wider dtype, or round and convert in a step before"
            )
    return native


@lru_cache(maxsize=64)
def checked_fill(name: str, fill: float, native: np.dtype[Any]) -> np.generic:
    """Give ``fill`` in the tensor's own dtype."""
    if native.kind == "b":
        holds, fits = "0 and 1", fill in (0, 1)
    elif native.kind in "iu":
        whole = np.iinfo(native)
        holds = f"whole numbers from {whole.min} to {whole.max}"
        fits = whole.min <= fill <= whole.max and fill == int(fill)
    else:
        most = float(np.finfo(native).max)
        holds, fits = f"numbers up to {most}", not math.isfinite(fill) or abs(fill) <= most
    if not fits:
        raise TensorError(
            f"tensor({name}=..., fill={fill}): {name} is {native}, which holds {holds}; choose a fill that"
            " fits, a wider dtype (dtype=torch.float32), or fill=None"
        )
    number: np.generic = native.type(fill)
    return number
