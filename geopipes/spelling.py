"""Names that were meant, for errors about those that are not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NAMED = 3
"""Names that are proposed at most."""


def nearest(name: object, names: Iterable[object]) -> str:
    """Propose the known names that look most like one that is not: ``"; did you mean 'cloud_high'?"``, or nothing."""
    meant, lowered = str(name).lower(), {str(one).lower(): str(one) for one in names}
    found = difflib.get_close_matches(meant, lowered, len(lowered) or 1)
    found = sorted(found, key=lambda one: sorted(one) != sorted(meant))[:NAMED]  # letters that changed places first
    return f"; did you mean {' or '.join(repr(lowered[one]) for one in found)}?" if found else ""
