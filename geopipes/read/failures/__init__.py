"""Reads that fail: why, whether another try helps, what is done where none does, and the ledger that all stand in."""

from geopipes.read.failures.asking import Asking, Skipped, Told, asking, nobody, timeout
from geopipes.read.failures.causes import Cause, Kind, classified, is_remote, outdated
from geopipes.read.failures.counts import Counts
from geopipes.read.failures.ledgers import Ledger, opened
from geopipes.read.failures.policies import DEFAULT, RETRIES, TIMEOUT, OnError, Policy
from geopipes.read.failures.records import Failure, Span, shown
from geopipes.read.failures.signing import Signature, SigningError, signed_href
from geopipes.read.failures.trying import check_lost, persist

__all__ = [
    "DEFAULT", "RETRIES", "TIMEOUT", "Asking", "Cause", "Counts", "Failure", "Kind", "Ledger", "OnError", "Policy",
    "Signature", "SigningError", "Skipped", "Span", "Told", "asking", "check_lost", "classified", "is_remote", "nobody",
    "opened", "outdated", "persist", "shown", "signed_href", "timeout",
]  # fmt: skip
