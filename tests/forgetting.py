"""What a process knows of files, forgotten: what another one would not know either."""

from __future__ import annotations

from geopipes.read import files
from geopipes.read.stores import heads
from geopipes.read.tiles import shared


def forget() -> None:
    """Close all files, and forget their headers and their tiles."""
    files.close_files()
    heads.forget_all()
    shared().clear()
