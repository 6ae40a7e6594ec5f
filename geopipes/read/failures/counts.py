"""How many chips came of a plan, and what became of the others."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Counts:
    """Chips that came by; those of several runs, epochs and processes are added.

    Attributes
    ----------
    delivered : that the loop got
    masked : how many of these have something that could not be read, and is not valid
    filtered : that a filter refused
    skipped : that were left out, as they could not be read
    retries : tries of reads after the first; not of chips
    """

    delivered: int = 0
    masked: int = 0
    filtered: int = 0
    skipped: int = 0
    retries: int = 0

    @property
    def planned(self) -> int:
        """All of them."""
        return self.delivered + self.filtered + self.skipped

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        masked = f" ({self.masked:,} of them masked)" if self.masked else ""
        words = [f"{self.delivered:,} delivered{masked}", f"{self.filtered:,} filtered", f"{self.skipped:,} skipped"]
        text = f"{' + '.join(words)} = {self.planned:,} planned"
        return f"{text}; reads were tried again {self.retries:,} times" if self.retries else text
