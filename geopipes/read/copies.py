"""Pixels that are copied as they are: tiles to a chip on the same grid, tiles to a crop, and what is not valid."""

from __future__ import annotations

from typing import Any

import numpy as np

from geopipes.read.warps.compiling import brief, compiled

Array = np.ndarray[Any, Any]

FRESH, TOLD, WHOLE = range(3)
"""Of a channel: nothing is drawn on it; ``ok`` tells what is valid; all is valid, and ``ok`` holds anything."""


@compiled
def copy_valid(
    pixels: Array, picked: Array, mask: Array, nodata: Array, marked: Array, corner: tuple[int, int],
    out: Array, ok: Array, channels: Array, place: tuple[int, int], shape: tuple[int, int],
) -> None:  # fmt: skip
    """Copy what is valid of a tile to where nothing is valid yet.

    Parameters
    ----------
    pixels : (plane, y, x) of the tile
    picked, channels : (n,) the planes to copy, and where to
    mask : (y, x) uint8, 0 where not valid; (0, 0) for none
    nodata, marked : (n,) the value that stands for no measurement in each, and whether there is one
    corner, place : (row, column) where the copy begins, in the tile and in ``out``
    out, ok : (channel, y, x), and which of it is valid
    shape : of what is copied (y, x)
    """
    (row, col), (height, width) = corner, shape
    for k in range(len(picked)):
        value, free = nodata[k], not marked[k]
        plane, whole, whole_ok = pixels[picked[k]], out[channels[k]], ok[channels[k]]
        for i in range(height):
            source = plane[row + i, col : col + width]
            target = whole[place[0] + i, place[1] : place[1] + width]
            done = whole_ok[place[0] + i, place[1] : place[1] + width]
            # Each loop is without branches, so that the compiler takes many pixels at a time. NaN is not itself.
            if mask.shape[0] > 0:
                shown = mask[row + i, col : col + width]
                for j in range(width):
                    pixel, was = source[j], done[j]
                    good = ((pixel != value) | free) & (pixel == pixel) & (shown[j] != 0)
                    target[j] = pixel if good & (not was) else target[j]
                    done[j] = was | good
            else:
                for j in range(width):
                    pixel, was = source[j], done[j]
                    good = ((pixel != value) | free) & (pixel == pixel)
                    target[j] = pixel if good & (not was) else target[j]
                    done[j] = was | good


@compiled
def copy_first(
    pixels: Array, picked: Array, mask: Array, nodata: Array, marked: Array, corner: tuple[int, int],
    out: Array, ok: Array, states: Array, channels: Array, place: tuple[int, int], shape: tuple[int, int],
    scales: Array, kind: Array,
) -> None:  # fmt: skip
    """Copy a tile to where nothing is yet: single pixels are noted from the first that is not valid on.

    Parameters
    ----------
    pixels, picked, mask, nodata, marked, corner, out, ok, channels, place, shape : as `copy_valid` takes them
    states : (channel,) WHOLE, where all that is copied so far is valid, or TOLD
    scales, kind : as `rescale` takes them; (0, 2) scales for none
    """
    # Views of rows would be counted as references, which takes as long as copying; signed indices would be looked at.
    row, col, down, across = np.uint64(corner[0]), np.uint64(corner[1]), np.uint64(place[0]), np.uint64(place[1])
    height, width = np.uint64(shape[0]), np.uint64(shape[1])
    for k in range(len(picked)):
        p, c, value, free = np.uint64(picked[k]), np.uint64(channels[k]), nodata[k], not marked[k]
        for i in range(height):
            y, to = row + i, down + i
            if scales.shape[0] > 0:
                factor, offset = scales[k, 0], scales[k, 1]
                for j in range(width):
                    out[c, to, across + j] = kind.dtype.type(np.float64(pixels[p, y, col + j]) * factor + offset)
            else:
                for j in range(width):
                    out[c, to, across + j] = pixels[p, y, col + j]
            if states[c] == WHOLE:
                good = True
                for j in range(width):
                    pixel = pixels[p, y, col + j]
                    good &= ((pixel != value) | free) & (pixel == pixel)
                if mask.shape[0] > 0:
                    for j in range(width):
                        good &= mask[y, col + j] != 0
                if good:
                    continue
                ok[c] = True
                states[c] = TOLD
            for j in range(width):
                pixel = pixels[p, y, col + j]
                ok[c, to, across + j] = ((pixel != value) | free) & (pixel == pixel)
            if mask.shape[0] > 0:
                for j in range(width):
                    ok[c, to, across + j] &= mask[y, col + j] != 0


@compiled
def copy_all(
    pixels: Array, picked: Array, corner: tuple[int, int], out: Array, place: tuple[int, int], shape: tuple[int, int]
) -> None:
    """Copy planes of a tile, valid or not, to a crop: as `copy_valid`."""
    for k in range(len(picked)):
        for i in range(shape[0]):
            source = pixels[picked[k], corner[0] + i, corner[1] : corner[1] + shape[1]]
            target = out[k, place[0] + i, place[1] : place[1] + shape[1]]
            for j in range(shape[1]):
                target[j] = source[j]


@compiled
def copy_scaled(
    pixels: Array, picked: Array, mask: Array, nodata: Array, marked: Array, corner: tuple[int, int],
    out: Array, ok: Array, channels: Array, place: tuple[int, int], shape: tuple[int, int], scales: Array, kind: Array,
) -> None:  # fmt: skip
    """Copy what is valid of a tile to where nothing is valid yet, and make physical numbers of it: as `rescale`.

    Parameters
    ----------
    pixels, picked, mask, nodata, marked, corner, out, ok, channels, place, shape : as `copy_valid` takes them
    scales, kind : as `rescale` takes them
    """
    (row, col), (height, width) = corner, shape
    for k in range(len(picked)):
        value, free, factor, offset = nodata[k], not marked[k], scales[k, 0], scales[k, 1]
        plane, whole, whole_ok = pixels[picked[k]], out[channels[k]], ok[channels[k]]
        for i in range(height):
            source = plane[row + i, col : col + width]
            target = whole[place[0] + i, place[1] : place[1] + width]
            done = whole_ok[place[0] + i, place[1] : place[1] + width]
            if mask.shape[0] > 0:
                shown = mask[row + i, col : col + width]
                for j in range(width):
                    pixel, was = source[j], done[j]
                    good = ((pixel != value) | free) & (pixel == pixel) & (shown[j] != 0)
                    number = kind.dtype.type(np.float64(pixel) * factor + offset)
                    target[j] = number if good & (not was) else target[j]
                    done[j] = was | good
            else:
                for j in range(width):
                    pixel, was = source[j], done[j]
                    good = ((pixel != value) | free) & (pixel == pixel)
                    number = kind.dtype.type(np.float64(pixel) * factor + offset)
                    target[j] = number if good & (not was) else target[j]
                    done[j] = was | good


@compiled
def rescale(out: Array, ok: Array, was: Array, scales: Array, kind: Array) -> None:
    """Make physical numbers of stored ones that were just resampled: in float64, rounded once.

    Parameters
    ----------
    out, ok, was : (channel, y, x), and which of it is valid now, and was so before
    scales : (channel, 2) float64, the scale and offset of each
    kind : (0,) of the dtype that the numbers are rounded to, whatever that of ``out``
    """
    for k in range(out.shape[0]):
        factor, offset = scales[k, 0], scales[k, 1]
        for i in range(out.shape[1]):
            target, done, before = out[k, i], ok[k, i], was[k, i]
            for j in range(out.shape[2]):
                number = kind.dtype.type(np.float64(target[j]) * factor + offset)
                target[j] = number if done[j] & (not before[j]) else target[j]


@compiled
def settle(out: Array, ok: Array, nothing: Array, valid: Array) -> None:
    """Write what stands for nothing where nothing is valid, and take all channels' validity together.

    Parameters
    ----------
    out, ok : (channel, y, x), and which of it is valid
    nothing : (channel,) of out's dtype
    valid : (y, x), stays True where all channels are valid
    """
    for c in range(out.shape[0]):
        value = nothing[c]
        for i in range(out.shape[1]):
            target, done, all_valid = out[c, i], ok[c, i], valid[i]
            for j in range(out.shape[2]):
                target[j] = target[j] if done[j] else value
            for j in range(out.shape[2]):
                all_valid[j] = all_valid[j] & done[j]


@brief
def tell(ok: Array, states: Array, channels: Array) -> None:
    """Let ``ok`` (channel, y, x) tell what is valid of some channels."""
    for channel in channels:
        if states[channel] != TOLD:
            ok[channel] = states[channel] == WHOLE
            states[channel] = TOLD


@brief
def assign(line: Array, value: bool) -> None:
    """Write one value everywhere: (n,)."""
    line[:] = value


@brief
def everywhere(line: Array) -> bool:
    """Say whether all of (n,) are True."""
    for first in range(0, len(line), 4096):
        all_of_them = True
        for one in line[first : first + 4096]:  # without branches: many at a time
            all_of_them &= one
        if not all_of_them:
            return False
    return True
