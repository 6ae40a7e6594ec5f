"""Documents: their hash, and what differs between two of them in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

Document = dict[str, Any]
"""What JSON can hold, the same in every process."""

LONGEST_VALUE = 80
"""Characters of a value that a difference in words shows."""


def digest(document: Mapping[str, Any]) -> str:
    """Give the SHA-256 of a document, 64 hexadecimal digits; the order of its keys does not count."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(before: Any, after: Any) -> list[str]:
    """Say in words what differs between two documents.

    Returns
    -------
    a line each, ``"size [224, 224] -> [256, 256]"``, ``"step 2: scale('red', factor=1) -> scale('red', factor=2)"``;
    none where they are equal
    """
    return list(_differences(before, after, ""))


_ABSENT = object()
_SINGULAR = {"steps": "step", "cubes": "cube", "variables": "variable"}


def _differences(before: Any, after: Any, where: str) -> Iterator[str]:
    if _is_absent(before, after):
        yield f"{where} {_word(before)} -> {_word(after)}".lstrip()
    elif isinstance(before, dict) and isinstance(after, dict):
        texts = [_word(side) for side in (before, after)]
        if "text" in before and "text" in after and texts[0] != texts[1]:
            yield f"{where} {texts[0]} -> {texts[1]}"
            return
        where = f"{where} {texts[0]}:" if "text" in before else where
        for key in sorted({*before, *after}, key=str):
            yield from _differences(before.get(key, _ABSENT), after.get(key, _ABSENT), f"{where} {key}".lstrip())
    elif _listed(before) and _listed(after):
        head, _, last = where.rpartition(" ")
        for number, (one, other) in enumerate(zip_longest(before, after, fillvalue=_ABSENT), 1):
            yield from _differences(one, other, f"{head} {_SINGULAR.get(last, last)} {number}:".lstrip())
    elif before != after or type(before) is not type(after):
        yield f"{where} {_word(before)} -> {_word(after)}".lstrip()


def _is_absent(*values: Any) -> bool:
    return any(value is _ABSENT for value in values)


def _listed(value: Any) -> bool:
    """Say whether a value is a list of documents, to be compared one by one."""
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


def _word(value: Any) -> str:
    """Write a value of a document briefly."""
    if value is _ABSENT:
        return "nothing"
    if isinstance(value, dict) and "text" in value:
        return str(value["text"])
    text = json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
