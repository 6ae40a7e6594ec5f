"""Where items come from: a search, files, folders and GeoParquet; frozen and replayed.

Every opening gives `Scenes`: ``pystac.Item`` in the order found, whose hrefs are absolute and unsigned.
"""

from geopipes.catalogs.api import search
from geopipes.catalogs.documents import items
from geopipes.catalogs.files import rasters, vectors
from geopipes.catalogs.folders import folder_classes
from geopipes.catalogs.freezing import freeze
from geopipes.catalogs.scenes import Scenes, union, unique

__all__ = ["Scenes", "folder_classes", "freeze", "items", "rasters", "search", "union", "unique", "vectors"]
