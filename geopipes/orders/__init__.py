"""Which chips, and in which order: arithmetic on a plan's indices, no pixels."""

from geopipes.orders.shuffling import shuffle
from geopipes.orders.splitting import ground, split

__all__ = ["ground", "shuffle", "split"]
