"""Decoded tiles, shared by all threads: each decoded once, kept in reused buffers, evicted by its next use."""

from geopipes.read.tiles.cache import Counts, Tiles, Wanted, shared
from geopipes.read.tiles.uses import Uses

__all__ = ["Counts", "Tiles", "Uses", "Wanted", "shared"]
