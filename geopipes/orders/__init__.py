"""Which chips, and in which order: arithmetic on a plan's indices, no pixels."""

from geopipes.chips.places import ground
from geopipes.orders.audits import audit
from geopipes.orders.epochs import epoch, shard
from geopipes.orders.folds import kfold, split_by_column, split_by_polygon, split_by_time
from geopipes.orders.shuffling import shuffle
from geopipes.orders.splitting import split

__all__ = [
    "audit",
    "epoch",
    "ground",
    "kfold",
    "shard",
    "shuffle",
    "split",
    "split_by_column",
    "split_by_polygon",
    "split_by_time",
]
