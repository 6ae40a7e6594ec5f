"""Headers of TIFF files: where each tile lies, and how it is stored.

TIFF 6.0 (Adobe, 1992), section 2, and BigTIFF (libtiff.gitlab.io/libtiff/specification/bigtiff.html). Read
here, in place, rather than by async-tiff: its runtime does not outlive a fork, and a forked worker that opens a
file would hang.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from geopipes.read.files.layouts import Array

Read = Callable[[int, int], bytes]
"""Gives bytes of a file, all of them or an error, from an offset and a size."""

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
SAMPLES, PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, OFFSETS, COUNTS = 277, 284, 317, 322, 323, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT = 338, 339

DEFAULTS = {SUBFILE: 0, BITS: 1, COMPRESSION: 1, FILL_ORDER: 1, SAMPLES: 1, PLANAR: 1, PREDICTOR: 1, SAMPLE_FORMAT: 1}
"""What holds where a tag is absent."""

TAGS = {*DEFAULTS, WIDTH, HEIGHT, PHOTOMETRIC, TILE_WIDTH, TILE_HEIGHT, OFFSETS, COUNTS, EXTRA_SAMPLES}

TYPES = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
"""numpy's names of the whole numbers: BYTE, SHORT, LONG, IFD, LONG8, IFD8."""

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value, of all types."""


@dataclass(frozen=True)
class Directory:
    """One image of a file.

    Attributes
    ----------
    offset : where its directory lies, bytes
    tags : number of a tag to its values, those of `TAGS` that the file has
    """

    offset: int
    tags: dict[int, Array]

    def values(self, tag: int) -> list[int]:
        """Give a tag's values, or its default; none where there is neither."""
        found = self.tags.get(tag)
        if found is None:
            return [DEFAULTS[tag]] if tag in DEFAULTS else []
        return [int(value) for value in found]

    def value(self, tag: int) -> int:
        """Give a tag's only value, or the one that all its values share.

        Raises
        ------
        ValueError
            the tag is absent, or its values differ
        """
        found = {*self.values(tag)}
        if len(found) != 1:
            raise ValueError(f"tag {tag} has the values {sorted(found)}, and one is needed")
        return found.pop()


@dataclass(frozen=True)
class Tiff:
    """What a file's header says.

    Attributes
    ----------
    order : "<" or ">", of the bytes in its numbers
    directories : as the file lists them
    """

    order: Literal["<", ">"]
    directories: tuple[Directory, ...]


def read_tiff(read: Read, *, whole: bool = False) -> Tiff:
    """Read the header of a TIFF or BigTIFF file.

    Parameters
    ----------
    read : gives its bytes
    whole : whether values that are of no use here are read too: whoever keeps what is read then has all of the header

    Raises
    ------
    ValueError
        it is none, or its directories cannot be followed
    """
    start = read(0, 8)
    order: Literal["<", ">"] = "<" if start[:2] == b"II" else ">"
    version = int(np.frombuffer(start, order + "u2", 1, 2)[0])
    if start[:2] not in (b"II", b"MM") or version not in (42, 43):
        raise ValueError("it is no TIFF")
    big = version == 43
    next_at = int(np.frombuffer(read(8, 8) if big else start[4:], order + ("u8" if big else "u4"))[0])
    directories: dict[int, Directory] = {}
    while next_at:
        if next_at in directories:
            raise ValueError("its directories go in a circle")
        directories[next_at], next_at = _directory(read, next_at, order, big, whole)
    return Tiff(order, tuple(directories.values()))


def _directory(read: Read, at: int, order: str, big: bool, whole: bool) -> tuple[Directory, int]:
    """Read one directory, and where the next lies; 0 after the last."""
    word, size = ("u8", 8) if big else ("u4", 4)
    counted = "u8" if big else "u2"
    entry = np.dtype([("tag", order + "u2"), ("type", order + "u2"), ("count", order + word), ("value", f"V{size}")])
    width = np.dtype(counted).itemsize
    number = int(np.frombuffer(read(at, width), order + counted)[0])
    entries = np.frombuffer(read(at + width, number * entry.itemsize), entry)
    tags = {int(each["tag"]): _values(read, each, order, word) for each in entries if int(each["tag"]) in TAGS}
    for each in entries if whole else ():
        if int(each["tag"]) not in tags:
            _stored(read, each, SIZES.get(int(each["type"]), 1), order, word)
    after = read(at + width + number * entry.itemsize, size)
    return Directory(at, tags), int(np.frombuffer(after, order + word)[0])


def _values(read: Read, entry: Any, order: str, word: str) -> Array:
    """Give the values of an entry, which stand in its last bytes where they fit there."""
    kind = TYPES.get(int(entry["type"]))
    if kind is None:
        raise ValueError(f"tag {entry['tag']} is of type {entry['type']}, and a whole number is needed")
    dtype = np.dtype(order + kind)
    stored = _stored(read, entry, dtype.itemsize, order, word)
    return np.frombuffer(stored, dtype).astype(dtype.newbyteorder("="))


def _stored(read: Read, entry: Any, itemsize: int, order: str, word: str) -> bytes:
    """Give the bytes of an entry's values."""
    held, size = entry["value"].tobytes(), int(entry["count"]) * itemsize
    return held[:size] if size <= len(held) else read(int(np.frombuffer(held, order + word)[0]), size)
