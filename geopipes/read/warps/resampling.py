"""A crop of a raster onto a window of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, log2
from typing import Any

import numpy as np

from geopipes.errors import GridError
from geopipes.read.nodata import marks
from geopipes.read.scratch import scratch
from geopipes.read.warps.areas import average, mode
from geopipes.read.warps.kernels import Crop, Kernel, measured, nearest, partly, weighed
from geopipes.read.warps.locating import Located
from geopipes.read.warps.roots import Array
from geopipes.read.warps.splitting import PARTS
from geopipes.read.warps.weights import plain, weights

SAMPLES = 2
"""Samples of average and mode for each of the raster's pixels, along each axis, where grid and raster are turned."""

LEAST_HALVINGS, MOST_HALVINGS = 2, 6
"""Of a grid pixel's sides, for samples: 4 x 4 tell sixteenths, 64 x 64 see all of a raster 32 times finer."""

NO_MASK: Array = np.empty((0, 0), np.uint8)

NO_VALID: Array = np.empty((0, 0, 0), np.bool_)
"""Stands for the validity of a crop all of whose pixels are measurements."""


def resample(
    where: Located,
    pixels: Array,
    mask: Array | None,
    nodata: Sequence[float | int | None] | Array,
    origin: tuple[int, int],
    image_shape: Sequence[int],
    out: Array,
    ok: Array,
) -> None:
    """Fill what is still missing of a window from one raster.

    For nearest, bilinear and cubic a pixel is valid where the raster's pixel that holds its centre is; for average
    and mode, where any that it overlaps is.

    - bilinear weighs the four neighbours, by 1/256 px, without those that are missing;
    - cubic (Catmull-Rom) falls back to bilinear where a neighbour is missing;
    - both are widened where ``where.scale`` is below 1;
    - average weighs by area, mode takes the class of the largest area, of equal ones the smallest.

    Integers are rounded, halves up, and clamped to their dtype, whatever that of ``out``. Those of 16 bits or fewer are
    weighed exactly, wider ones and floats in float64.

    Parameters
    ----------
    where : from `located`
    pixels : (band, h, w), a crop of the raster that holds ``where.window``; what lies beyond the image is ignored
    mask : (h, w), uint8, 0 where no band is valid; or None
    nodata : for each band the value that is no measurement, NaN or None for none; NaN pixels never are one
    origin : (row, col) of the crop's first pixel in the image
    image_shape : (height, width) of the raster
    out : (band, y, x), written where a valid value is found for a pixel that is not ``ok``
    ok : (band, y, x), bool, set there

    Raises
    ------
    GridError
        the crop does not hold the window, or shapes or dtypes do not fit
    """
    if where.window is None:
        return
    crop = _crop(where, pixels, mask, nodata, origin, image_shape)
    _check(where, crop, out, ok)
    if out.dtype == pixels.dtype:
        _fill(where, crop, out, ok)
        return
    # Kernels are compiled for each dtype, not for each pair of them.
    new, new_ok = np.empty(out.shape, pixels.dtype), ok.copy()
    _fill(where, crop, new, new_ok)
    np.copyto(out, new, where=new_ok & ~ok)
    ok |= new_ok


def _fill(where: Located, crop: Crop, out: Array, ok: Array) -> None:
    dtype = out.dtype
    if where.resampling == "nearest":
        raw = np.dtype(f"u{dtype.itemsize}")  # copied as they are
        crop, places = crop._replace(pixels=crop.pixels.view(raw)), where.places
        nearest(crop, places.rows, places.cols, where.cells, out.view(raw), ok)
    elif where.resampling in ("average", "mode"):
        _fill_areas(where, crop, out, ok)
    else:
        kernel, bits = _kernel(where.resampling, where.scale, dtype)
        low, high = _range(dtype)
        if weighed(crop, where.places, kernel, bits, low, high, out, ok):
            partly(crop, where.places, kernel, low, high, out, ok)


def _fill_areas(where: Located, crop: Crop, out: Array, ok: Array) -> None:
    row, col = where.corners
    halvings = 0
    if row.ndim == 1:
        row, col = row[:, None], col[None]
        capacity = min(_span(row), crop.height) * min(_span(col.T), crop.width)
    else:
        finer = ceil(log2(SAMPLES / min(where.scale)))
        halvings = min(max(finer, LEAST_HALVINGS), MOST_HALVINGS)
        capacity = 4**halvings
    if where.resampling == "mode":
        mode(crop, (row, col), halvings, capacity, out, ok)
    else:
        low, high = _range(crop.pixels.dtype)
        one = 1 if isinstance(low, int) else 1.0
        average(crop, (row, col), halvings, capacity, one, low, high, out, ok)


def _span(edges: Array) -> int:
    """Give the most pixels that two edges next to each other have between them, wholly or in part."""
    return int(np.abs(np.diff(edges, axis=0)).max() >> PARTS) + 2


@lru_cache(maxsize=256)
def _kernel(resampling: str, scale: tuple[float, float], dtype: np.dtype[Any]) -> tuple[Kernel, int | None]:
    """Give a kernel's weights, of the dtype that holds sums of pixels, and the bits of their total, if integer."""
    exact = isinstance(_range(dtype)[0], int)
    number = sums = np.dtype("i8" if exact else "f8")
    if exact and all(plain(resampling, one) for one in scale):  # 16 + 2 x 8 bits
        sums = np.dtype("u4" if dtype.kind == "u" else "i4")
    down, across, down_instead, across_instead = (
        weights(name, one).astype(number) for name in (resampling, "bilinear") for one in scale
    )
    total = (down[0].sum() * across[0].sum()).item()
    bits = total.bit_length() - 1 if exact else None
    return Kernel(down, across, down_instead, across_instead, total, np.empty(0, sums)), bits


def _crop(
    where: Located,
    pixels: Array,
    mask: Array | None,
    nodata: Sequence[float | int | None] | Array,
    origin: tuple[int, int],
    image_shape: Sequence[int],
) -> Crop:
    if tuple(image_shape) != where.image or len(nodata) != len(pixels):
        raise GridError(
            f"an image of {tuple(image_shape)} (y, x) and nodata for {len(nodata)} bands; the window was located in "
            f"one of {where.image}, and there are {len(pixels)} bands"
        )
    pixels = np.ascontiguousarray(pixels)
    values, marked = marks(tuple(nodata), pixels.dtype)
    valid, whole = NO_VALID, np.ones(len(pixels), np.bool_)
    plain = pixels.dtype.kind != "f" and mask is None and not marked.any()
    if not (plain and where.resampling == "nearest"):
        valid = scratch("valid", pixels.shape, np.bool_)
        measured(pixels, NO_MASK if mask is None else mask, values, ~marked, valid, whole)
    (height, width), (row, col) = where.image, origin
    height, width = min(pixels.shape[1], height - row), min(pixels.shape[2], width - col)
    return Crop(pixels, valid, whole, height, width, row, col, where.period)


def _check(where: Located, crop: Crop, out: Array, ok: Array) -> None:
    rows, cols = where.window or (slice(0, 0), slice(0, 0))
    if (
        rows.start < crop.row
        or rows.stop > crop.row + crop.height
        or cols.start < crop.col
        or cols.stop > crop.col + crop.width
    ):
        raise GridError(
            f"a crop of rows {crop.row}..{crop.row + crop.height} and columns {crop.col}..{crop.col + crop.width}; "
            f"rows {rows.start}..{rows.stop} and columns {cols.start}..{cols.stop} are needed: give all of where.window"
        )
    shape = (len(crop.pixels), *where.shape)
    fits = np.can_cast(crop.pixels.dtype, out.dtype, "safe") or out.dtype.kind == "f"  # floats may round
    if out.shape != shape or ok.shape != shape or not fits:
        raise GridError(
            f"out {out.shape} of {out.dtype} and ok {ok.shape}; both are needed as {shape} (band, y, x), and a dtype "
            f"that holds {crop.pixels.dtype}"
        )


def _range(dtype: np.dtype[Any]) -> tuple[int, int] | tuple[float, float] | tuple[None, None]:
    """Give what an integer dtype holds: integers where sums are exact, floats where they are not; None for floats."""
    if dtype.kind == "f":
        return None, None
    bounds = np.iinfo(dtype)
    if dtype.itemsize <= 2:
        return int(bounds.min), int(bounds.max)
    # The largest float64 that a 64-bit integer can hold is below its largest value.
    high = float(bounds.max) if dtype.itemsize < 8 else float(np.nextafter(float(bounds.max), 0))
    return float(bounds.min), high
