"""A read that failed, or failed at first, as it stands in the ledger."""

from __future__ import annotations

import re
from dataclasses import dataclass
from traceback import format_exception
from typing import TYPE_CHECKING, Literal, Self

from geopipes.errors import ReadError
from geopipes.read.failures.causes import Kind
from geopipes.read.hrefs import unsigned, unsigned_within

if TYPE_CHECKING:
    from geopipes.read.failures.signing import Asset

Action = Literal["raised", "masked", "skipped", "recovered"]
"""What was done about it."""

Span = tuple[int, int, int, int]
"""First row and the one after the last, first column and the one after the last, of a grid."""


@dataclass(frozen=True)
class Failure:
    """A read that failed.

    Attributes
    ----------
    kind : "auth", "transient" (all tries failed), "missing" or "corrupt"
    message : what was said of it, without signatures
    attempts : how often it was tried
    item, collection, asset, href : of the file; the href as it is without a signature
    window : of the grid that was to be read
    chip, position, epoch : the chip's id, where it stood in the order, and in which epoch's
    action : what was done
    """

    kind: Kind
    message: str
    attempts: int = 1
    item: str | None = None
    collection: str | None = None
    asset: str | None = None
    href: str | None = None
    window: Span | None = None
    chip: int | None = None
    position: int | None = None
    epoch: int = 0
    action: Action = "raised"

    @classmethod
    def of(cls, source: Asset, kind: Kind, message: str, attempts: int = 1) -> Self:
        """Tell it of one file."""
        message, href = unsigned_within(message), unsigned(source.href)  # some come signed
        return cls(kind, message, attempts, unsigned(source.item), source.collection, source.asset, href)

    def error(self) -> ReadError:
        """Give the error that tells it."""
        error = ReadError(f"{self.message} ({self.tried})")
        error.failure = self
        return error

    @property
    def tried(self) -> str:
        """The kind, and how often it was tried."""
        return f"{self.kind}; tried {'once' if self.attempts == 1 else f'{self.attempts} times'}"


def shown(error: BaseException, signed: str = "", href: str = "") -> BaseException | None:
    """Give what caused an error, to stand below it in a traceback; None where that would show a signature."""
    text = "".join(format_exception(error))
    return error if unsigned_within(unsigned_text(text, signed, href)) == text else None


def unsigned_text(text: str, signed: str, href: str) -> str:
    """Take the signatures of a href out of a text, and the fragments by which GDAL is made to ask anew."""
    if not signed or not href:
        return text
    return re.sub(rf"{re.escape(href)}([?&][^\s'\"#]*)?(#\d+)?", href, text.replace(signed, href))
