"""What items of STAC's label extension say of their labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pystac

from geopipes.errors import UnknownBand
from geopipes.labels.coding import Classes


def label_classes(source: Any, column: str | None, classes: Classes | None) -> tuple[str | None, Classes | None]:
    """Complete column and classes by what label items state: ``label:properties`` and ``label:classes``.

    Raises
    ------
    UnknownBand
        if there are several properties and none was chosen, or the one chosen is not among them
    """
    item = _first(source)
    properties = [] if item is None else [*(item.properties.get("label:properties") or [])]
    if item is None or not properties:
        return column, classes
    if (column is None and len(properties) > 1) or (column is not None and column not in properties):
        raise UnknownBand(
            f"item {item.id!r}: column={column!r}; its label:properties are {properties}: choose one, column=..."
        )
    column = column or str(properties[0])
    if classes is None:
        stated = [one for one in item.properties.get("label:classes") or [] if one.get("name") in (column, None)]
        classes = [value for one in stated for value in one.get("classes", [])] or None
    return column, classes


def _first(source: Any) -> pystac.Item | None:
    """Give the first item of items; None of anything else."""
    if isinstance(source, pystac.Item):
        return source
    if isinstance(source, str) or not isinstance(source, Iterable) or hasattr(source, "geometry"):
        return None
    first = next(iter(source), None)
    return first if isinstance(first, pystac.Item) else None
