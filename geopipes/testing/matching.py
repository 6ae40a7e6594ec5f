"""Which items a STAC search means: the filters of the API, over items in memory."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import cql2
import shapely
from shapely.geometry import shape
from stac_fastapi.types.errors import InvalidQueryParameter
from stac_fastapi.types.rfc3339 import str_to_interval
from stac_fastapi.types.stac import Item

_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
    "in": lambda value, choices: value in choices,
    "startsWith": lambda value, text: str(value).startswith(text),
    "endsWith": lambda value, text: str(value).endswith(text),
    "contains": lambda value, text: text in value,
}


@dataclass(frozen=True)
class Search:
    """What is looked for; None or empty where anything will do.

    Attributes
    ----------
    ids, collections : names
    area : in degrees
    interval : an RFC 3339 date-time, or two with a slash between, one of them perhaps ".."
    query : for each field, operators of the query extension with their values
    where : a CQL2 expression
    order : fields with whether to sort them downwards, the weightiest first; items without one come last
    """

    ids: Sequence[str] | None = None
    collections: Sequence[str] | None = None
    area: shapely.Geometry | None = None
    interval: str | None = None
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    where: cql2.Expr | None = None
    order: Sequence[tuple[str, bool]] = ()

    def among(self, items: Iterable[Item]) -> list[Item]:
        """Give the items that match, in the order asked for."""
        found = [item for item in items if self._matches(item)]
        for name, downwards in reversed(self.order):
            without = [item for item in found if _value(item, name) is None]
            found = [item for item in found if _value(item, name) is not None]
            found.sort(key=lambda item, name=name: _value(item, name), reverse=downwards)  # type: ignore[misc]
            found += without
        return found

    def _matches(self, item: Item) -> bool:
        return (
            (not self.ids or item["id"] in self.ids)
            and (not self.collections or item.get("collection") in self.collections)
            and (self.area is None or _lies_in(item, self.area))
            and (self.interval is None or _falls_in(item, self.interval))
            and all(_passes(_value(item, name), tests) for name, tests in self.query.items())
            # matches() raises where the item lacks a property; reduce() leaves that open, which is no match
            and (self.where is None or self.where.reduce(dict(item)).to_text() == "true")
        )


def expression(text: str) -> cql2.Expr:
    """Read a CQL2 filter, as text or as JSON.

    Raises
    ------
    InvalidQueryParameter
        for what is neither; the API answers it with status 400
    """
    try:
        return cql2.parse_json(text) if text.lstrip().startswith("{") else cql2.parse_text(text)
    except cql2.ParseError as error:
        raise InvalidQueryParameter(f"filter: {error}") from error


def _value(item: Item, name: str) -> Any:
    """Give a field as searches name it: "id", "eo:cloud_cover" or "properties.eo:cloud_cover"."""
    if name in ("id", "collection"):
        return item.get(name)
    return item["properties"].get(name.removeprefix("properties."))


def _lies_in(item: Item, area: shapely.Geometry) -> bool:
    geometry = item.get("geometry")
    return geometry is not None and bool(shape(geometry).intersects(area))


def _falls_in(item: Item, interval: str) -> bool:
    """Say whether the item's time, an instant or a span, meets the interval."""
    asked = str_to_interval(interval)
    begin, end = asked if isinstance(asked, tuple) else (asked, asked)
    instant = item["properties"].get("datetime")
    first = _time(item["properties"].get("start_datetime") or instant)
    last = _time(item["properties"].get("end_datetime") or instant)
    if first is None or last is None:
        return False
    return (end is None or first <= end) and (begin is None or begin <= last)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _passes(value: Any, tests: Mapping[str, Any]) -> bool:
    """Say whether a value passes the tests of the query extension; a missing one passes none."""
    for name, wanted in tests.items():
        if name not in _TESTS:
            raise InvalidQueryParameter(f"query: unknown operator {name!r}; there are {sorted(_TESTS)}")
        if isinstance(value, int | float) and isinstance(wanted, str):
            wanted = float(wanted)  # pystac-client sends "eo:cloud_cover<10" as the text "10"
        if value is None or not _TESTS[name](value, wanted):
            return False
    return True
