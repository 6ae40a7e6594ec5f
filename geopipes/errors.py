"""What can go wrong, as a tree.

::

    GeopipesError
    ├── CatalogError          a catalogue that cannot be read as asked
    │   ├── EmptySearch       nothing was found where something is needed
    │   └── FreezeError       a frozen search that holds another one, or could not be written whole
    ├── SourceError           a raster that cannot be used as it is
    │   ├── UnknownBand       a band that no asset of the item has
    │   └── NotGeoreferenced  no CRS or no affine transform
    ├── GridError             a grid that cannot be chosen
    │   └── GridMismatch      two grids that should be one and are not
    ├── ChipError             windows that cannot be cut as asked
    │   ├── ChipTooLarge      larger than the cube
    │   └── MarginTooSmall    a step needs more neighbours than the chip carries
    ├── MapError              a map that cannot be made or written as asked
    ├── LedgerError           a ledger of failures that cannot be kept or read
    ├── LoaderError           worker processes that ended, or have no room
    ├── ForkError             a fork of a process that had used the network
    ├── ReadError             pixels that could not be read
    ├── ScoreError            predictions, labels or samples that cannot be compared as asked
    ├── StatisticsError       statistics that cannot be made, kept or used as asked
    ├── StateError            a run that cannot go on where another one stood
    ├── StepError             a step of the chain failed, or gave what the next cannot take
    └── TensorError           a chip that cannot become a tensor as asked

Each says what was found, what was needed and what to write instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geopipes.read.failures import Failure


class GeopipesError(Exception):
    """The root of every error that geopipes raises on purpose."""


class CatalogError(GeopipesError, ValueError):
    """A catalogue that cannot be read as asked."""


class EmptySearch(CatalogError):
    """Nothing was found where something is needed."""


class FreezeError(CatalogError):
    """A frozen search holds another search, or could not be written whole."""


class SourceError(GeopipesError, ValueError):
    """A raster that cannot be used as it is."""


class UnknownBand(SourceError, KeyError):
    """A band that no asset of the item has."""

    def __str__(self) -> str:
        """Give the message as written; KeyError alone would quote it."""
        return str(self.args[0])


class NotGeoreferenced(SourceError):
    """A raster without a CRS or without an affine transform."""


class GridError(GeopipesError, ValueError):
    """A grid that cannot be chosen."""


class GridMismatch(GridError):
    """Two grids that should be one and are not."""


class ChipError(GeopipesError, ValueError):
    """Windows that cannot be cut as asked."""


class ChipTooLarge(ChipError):
    """A chip larger than the cube."""


class MarginTooSmall(ChipError):
    """A step needs more neighbours than the chip carries."""


class ReadError(GeopipesError, OSError):
    """Pixels that could not be read.

    Attributes
    ----------
    failure : what failed, and why, as the ledger has it; None where nobody told
    """

    failure: Failure | None = None


class LedgerError(GeopipesError, ValueError):
    """A ledger of failures that cannot be kept or read as asked."""


class ForkError(GeopipesError, RuntimeError):
    """A process that was forked from one that had used the network, and would use it too."""


class LoaderError(GeopipesError, RuntimeError):
    """Worker processes that ended before their work was done, or that have no room for it."""


class MapError(GeopipesError, ValueError):
    """A map that cannot be made of chips, or written, as asked."""


class StepError(GeopipesError, TypeError):
    """A step of the chain failed, or gave what the next one cannot take."""


class StateError(GeopipesError, ValueError):
    """A run that cannot go on where another one stood: the plan or the chain is another."""


class ScoreError(GeopipesError, ValueError):
    """Predictions, labels or samples that cannot be compared as asked."""


class StatisticsError(GeopipesError, ValueError):
    """Statistics that cannot be made, kept or used as asked."""


class TensorError(GeopipesError, ValueError):
    """A chip that cannot become a tensor as asked."""


class ShiftedGrids(UserWarning):
    """Sources of one CRS and resolution whose pixels do not coincide; one of them gives the common grid."""


class MixedScales(UserWarning):
    """Items tell different scales or offsets of one band, and their pixels are mixed as they are stored."""


class EmptyBatch(UserWarning):
    """All elements of a batch were refused; it is left out."""


class CacheWarning(UserWarning):
    """A cache on disk that is damaged or cannot be used; the run goes on without what it held."""
