"""Items found, with what they were found by: the value that every opening of a catalogue gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, overload

import pystac
import shapely

from geopipes.errors import CatalogError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from geopipes.read.sources import Modifier

Identity = tuple[str | None, str]
"""What makes an item one of its kind: (collection, id)."""


@dataclass(frozen=True)
class Scenes(Sequence[pystac.Item]):
    """Items found, in the order found, with what they were found by.

    Attributes
    ----------
    items : each once; the hrefs of their assets are absolute and unsigned
    region : what was searched, longitude and latitude (EPSG:4326); None for no limit
    modifier : signs hrefs when pixels are read; never stored
    duplicates : how many items were dropped because (collection, id) came again
    searched : the range of dates that was searched, ``"2024-05-01T00:00:00Z/.."`` as STAC writes it; None for no limit
    """

    items: tuple[pystac.Item, ...]
    region: BaseGeometry | None = None
    modifier: Modifier | None = None
    duplicates: int = 0
    searched: str | None = None

    @overload
    def __getitem__(self, index: int) -> pystac.Item: ...
    @overload
    def __getitem__(self, index: slice) -> Scenes: ...
    def __getitem__(self, index: int | slice) -> pystac.Item | Scenes:
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[pystac.Item]:
        return iter(self.items)


def identity(item: pystac.Item) -> Identity:
    """Give (collection, id); the collection is None for an item that names none."""
    return item.collection_id, item.id


def unique(items: Iterable[pystac.Item]) -> tuple[tuple[pystac.Item, ...], int]:
    """Drop items that came before.

    Returns
    -------
    (items, dropped) : the first of each (collection, id), in order; how many others there were
    """
    found: dict[Identity, pystac.Item] = {}
    dropped = 0
    for item in items:
        if identity(item) in found:
            dropped += 1
        else:
            found[identity(item)] = item
    return tuple(found.values()), dropped


def union(scenes: Sequence[Scenes]) -> Scenes:
    """Make one of several, in the order given.

    Items that came before are dropped and counted; the region is the union of the regions, or None
    where one has none; a range of dates that all searched stays; each item keeps the modifier of the scenes
    it came with.

    Raises
    ------
    CatalogError : for no scenes at all
    """
    if not scenes:
        raise CatalogError("union(): nothing was given; pass at least one search")
    items, dropped = unique(item for part in scenes for item in part)
    regions = [part.region for part in scenes if part.region is not None]
    return Scenes(
        items,
        region=shapely.union_all(regions) if len(regions) == len(scenes) else None,
        modifier=_joint_modifier(scenes),
        duplicates=dropped + sum(part.duplicates for part in scenes),
        searched=scenes[0].searched if len({part.searched for part in scenes}) == 1 else None,
    )


def _joint_modifier(scenes: Sequence[Scenes]) -> Modifier | None:
    first = scenes[0].modifier
    if all(part.modifier == first for part in scenes):
        return first
    # The last setting of a key stands: backwards, so that it is the one of the item that is kept.
    return _ModifierByItem(
        {identity(item): part.modifier for part in reversed(scenes) for item in part if part.modifier}
    )


@dataclass(frozen=True)
class _ModifierByItem:
    """Signs each item with its own scenes' modifier; one that is not among them is left unsigned."""

    modifiers: Mapping[Identity, Modifier]

    def __call__(self, item: pystac.Item) -> object:
        modifier = self.modifiers.get(identity(item))
        return item if modifier is None else modifier(item)
