"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from geopipes.errors import SourceError


def put(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Let a file be written beside its place, of the same name, and move it there when it is whole.

    Raises
    ------
    SourceError
        if it cannot be written: what was there before stays
    """
    place = Path(os.path.abspath(path))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as workplace:
            draft = Path(workplace) / place.name
            write(draft)
            os.replace(draft, place)
    except (OSError, RuntimeError) as error:  # the errors of GDAL's vector drivers are RuntimeErrors
        raise SourceError(f"{os.fspath(path)!r} could not be written: {error}") from error
    return place
