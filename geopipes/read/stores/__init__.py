"""Files that lie in stores, far away: where a href leads, who asks, and what a store says. No pixels here."""

from geopipes.read.kept import Head
from geopipes.read.stores.clients import check_fork, get
from geopipes.read.stores.faults import StoreError
from geopipes.read.stores.heads import forget, head, known, name_of
from geopipes.read.stores.locations import Location, located
from geopipes.read.stores.options import storage, tell, told

__all__ = [
    "Head",
    "Location",
    "StoreError",
    "check_fork",
    "forget",
    "get",
    "head",
    "known",
    "located",
    "name_of",
    "storage",
    "tell",
    "told",
]
