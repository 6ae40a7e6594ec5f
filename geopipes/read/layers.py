"""Layers: pixels of one dtype at one time step as they are drawn, and which of them are valid."""

from __future__ import annotations

from typing import Any

import numpy as np

from geopipes.read.copies import FRESH, WHOLE, everywhere, settle, tell
from geopipes.read.planes import Box

Array = np.ndarray[Any, Any]


class Layer:
    """Channels that are drawn on: where one drawing fills them, and all is valid, no single pixel is noted.

    Attributes
    ----------
    pixels : (channel, y, x), holding anything where nothing is valid
    ok : (channel, y, x), bool: what is valid of the channels that it tells of
    states : (channel,) int8: FRESH, TOLD or WHOLE
    """

    def __init__(self, pixels: Array, ok: Array) -> None:
        self.pixels, self.ok = pixels, ok
        self.states = np.full(len(pixels), FRESH, np.int8)

    def begin(self, channels: Array, shape: tuple[int, int]) -> bool:
        """Make channels ready for a drawing of some pixels (y, x), and say whether it is the first on them."""
        first = not self.states[channels].any()
        if first and self.pixels.shape[1:] == shape:
            self.states[channels] = WHOLE  # until a pixel is met that is not valid
        else:
            self.told(channels)
        return first

    def told(self, channels: Array | slice) -> Array:
        """Give ``ok``, which tells of some channels from now on."""
        tell(self.ok, self.states, np.arange(len(self.states))[channels])
        return self.ok

    def full(self, channels: slice, inside: Box) -> bool:
        """Say whether all of a box is valid in some channels."""
        if not self.states[channels].any():
            return False
        return self._whole(channels) or bool(self.told(channels)[channels, *inside].all())

    def finished(self, channels: slice, nothing: list[float], valid: Array) -> bool:
        """Write what stands for nothing where some channels are not valid, and say whether they are everywhere.

        Parameters
        ----------
        channels : that were to be drawn
        nothing : (channel,) what stands for nothing in each of them
        valid : (y, x), stays True where all of them are valid
        """
        if self._whole(channels):
            return True
        done = self.told(channels)[channels]
        complete = everywhere(done.reshape(-1))
        if not complete:
            settle(self.pixels[channels], done, np.array(nothing, self.pixels.dtype), valid)
        return complete

    def _whole(self, channels: slice) -> bool:
        return bool((self.states[channels] == WHOLE).all())
