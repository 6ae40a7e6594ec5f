"""Folders of images, one for each class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pystac

from geopipes.errors import CatalogError

if TYPE_CHECKING:
    import pandas as pd


def folder_classes(items: Iterable[pystac.Item], *, classes: Sequence[str] | None = None) -> pd.DataFrame:
    """Tell the class of each item by the folder that its files are in: ``EuroSAT/Forest/Forest_1.tif``.

    Parameters
    ----------
    items : as `rasters` makes them of files, ``rasters("EuroSAT/*/*.tif")``
    classes : names in the order of their numbers, from 0; None for those there are, in alphabetical order

    Returns
    -------
    a DataFrame of n rows: ``item``, its id; ``class``, the name of the folder; ``label``, int64, its number

    Raises
    ------
    CatalogError
        for files of one item in two folders, and a folder that the classes do not name
    """
    import pandas as pd

    rows = []
    for item in items:
        folders = {PurePosixPath(asset.href.partition("?")[0]).parent.name for asset in item.assets.values()}
        if len(folders) != 1:
            raise CatalogError(f"folder_classes: the files of item {item.id!r} are in the folders {sorted(folders)}")
        rows.append((item.id, folders.pop()))
    table = pd.DataFrame(rows, columns=["item", "class"])
    names = sorted({*table["class"]}) if classes is None else list(classes)
    if unknown := sorted({*table["class"]} - {*names}):
        raise CatalogError(f"folder_classes: folder {unknown[0]!r} is none of the classes {names}")
    return table.assign(label=table["class"].map({name: number for number, name in enumerate(names)}).astype("int64"))
