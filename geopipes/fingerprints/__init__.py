"""Fingerprints: what decides the pixels of a plan, as a document one can read and as a hash of it.

Nothing is read but what is in memory already. Two plans of one fingerprint give the same pixels, as long as the files
they name hold the same and their functions do the same: neither a file's content nor the code of a function that is
imported by name counts. Two fingerprints may differ where pixels do not: then something is made once more, never
mistaken.
"""

from geopipes.fingerprints.documents import chain, describe, fingerprint, steps_fingerprint
from geopipes.fingerprints.values import step_document, value_document
from geopipes.fingerprints.words import Document, differences, digest

__all__ = [
    "Document",
    "chain",
    "describe",
    "differences",
    "digest",
    "fingerprint",
    "step_document",
    "steps_fingerprint",
    "value_document",
]
