"""What goes wrong between a store and us, by kind: what may be tried again, and what may not."""

from __future__ import annotations

import re
from typing import Literal

from obstore.exceptions import (
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from geopipes.errors import GeopipesError
from geopipes.read.stores.locations import Location
from geopipes.read.stores.options import Options

Kind = Literal["auth", "transient", "missing", "corrupt"]

ANSWERED = re.compile(r"status code: (\d{3})([^:\n]*)")
CODE = re.compile(r"<Code>(\w+)</Code>")

MISSING, BUSY = (404, 410), (408, 425, 429)

NO_CREDENTIALS = (
    "169.254.169.254", "metadata.google", "NoCredentials", "MissingCredential", "Missing account", "MissingAccessKeyId",
    "MissingSecretAccessKey",
)  # fmt: skip
"""What stands in errors of a store that has looked everywhere for credentials."""

MARK = '; write %23 for a "#" in a name: what stands behind it is not asked for'
"""Of a URL that has a fragment."""

CHANGED = "the object is another one than when its header was read"
"""Read again, it is opened anew."""

KEYS = ("Token", "Credential", "Authorization", "AccessKey", "Signature")
"""What stands in the code of a 400 that is about who asks."""


class StoreError(GeopipesError, OSError):
    """Bytes that a store did not give.

    Attributes
    ----------
    kind : "auth" (who asks is not let in), "transient" (may work later), "missing", or "corrupt" (what is there is
        not what its header says)
    retry_after : seconds that the store asks to wait; None where it does not say
    changed : whether the object is another one than that whose header was read
    busy : whether the store has too much to do, and may say for how long
    outdated : whether the header of an object that changed had been kept on disk since an earlier program
    """

    outdated = False

    def __init__(
        self, text: str, *, kind: Kind, retry_after: float | None = None, changed: bool = False, busy: bool = False
    ) -> None:
        super().__init__(text)
        self.kind, self.retry_after, self.changed, self.busy = kind, retry_after, changed, busy

    def __reduce__(self) -> tuple[object, ...]:
        return _made, (str(self), self.kind, self.retry_after, self.changed)


def _made(text: str, kind: Kind, retry_after: float | None, changed: bool) -> StoreError:
    return StoreError(text, kind=kind, retry_after=retry_after, changed=changed)


def classified(error: Exception, location: Location, options: Options) -> StoreError:
    """Say what kind an error of obstore is of, in words and without the signature; ``options`` are what was told."""
    text = str(error).partition("\n\nDebug source")[0]
    answer, code = ANSWERED.search(text), CODE.search(text)
    status, name = (int(answer[1]), answer[2].strip()) if answer else (0, "")
    words = f"{location.root} answered {status} {name}".rstrip() + (f" ({code[1]})" if code else "")
    if isinstance(error, FileNotFoundError) or status in MISSING:
        words = (words if status else "there is no such object") + (MARK if location.fragment else "")
        return StoreError(words, kind="missing")
    if isinstance(error, PreconditionError):
        return StoreError(CHANGED, kind="corrupt", changed=True)
    if status in (401, 403) or isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        return StoreError(f"{words}: {_who(location, options)}", kind="auth")
    if status == 400 and code and any(key in code[1] for key in KEYS):
        return StoreError(f"{words}: {_who(location, options)}", kind="auth")
    if any(sign in str(error) for sign in NO_CREDENTIALS):
        found = f"no credentials were found for {location.root}"
        return StoreError(f"{found}: {_who(location, options)}", kind="auth")
    if "LOCATION" in text or "PermanentRedirect" in text:
        return StoreError(f"{words}: the bucket is in another region; write {_call(location)}region=...)", kind="auth")
    if "TooManyRedirects" in str(error) or "kind: Redirect" in str(error):
        return StoreError(f"{location.root} redirects in a circle", kind="missing")
    if isinstance(error, NotSupportedError):
        text = f"{location.root} sent the whole object where a part was asked for; it may not know byte ranges"
        return StoreError(text, kind="transient")
    if status in BUSY or status >= 500:
        return StoreError(words, kind="transient", busy=status in (429, 503))
    if status == 416 or "InvalidRangeRequest" in str(error):
        return StoreError("the object ends before the bytes asked for", kind="corrupt")
    if status:
        return StoreError(words, kind="missing")
    return StoreError(f"{location.root}: {_reason(str(error), text, location)}", kind="transient")


def _reason(whole: str, text: str, location: Location) -> str:
    """Say why there was no answer."""
    for sign, reason in SIGNS.items():
        if sign in whole:
            return reason
    return text.replace(location.query, "") if location.query else text


SIGNS = {
    "UnexpectedEof": "the answer ended before its bytes were all there",
    "IncompleteBody": "the answer ended before its bytes were all there",
    "kind: Timeout": "no answer came in time",
    "TimedOut": "no answer came in time",
    "ConnectionRefused": "the connection was refused",
    "dns error": "there is no such host",
    "kind: Connect": "no connection could be made",
    "kind: Request": "the connection was closed before an answer came",
    "UnexpectedRange": "other bytes came than were asked for",
}
"""What stands in errors of obstore, and what it means; the first that is found counts."""


def _call(location: Location) -> str:
    return f'gp.storage("{location.root}", '


WAYS = {
    "anonymous": "anonymous=True) for a public bucket",
    "credentials": "credentials={...})",
    "requester_pays": "requester_pays=True) where the reader pays",
}
"""What to write for a bucket, by the option."""


def _who(location: Location, options: Options) -> str:
    """Say what to write where access is refused, beyond what was written."""
    if location.query:
        return "the signature has run out, or is for something else"
    if location.kind == "http":
        if options.headers:
            return "its URL is not signed, for which there is modifier=..., and headers of gp.storage did not open it"
        return f"its URL is not signed: have modifier=... sign the items, or write {_call(location)}headers={{...}})"
    ways = {name: way for name, way in WAYS.items() if location.kind == "s3" or name != "requester_pays"}
    tried = [name for name in ways if getattr(options, name)]
    left = [f"{_call(location)}{way}" for name, way in ways.items() if name not in tried]
    found = f"{' and '.join(tried)} of gp.storage did not open it; " if tried else ""
    return f"{found}write {' or '.join(left)}" if left else f"{found}it takes other credentials"


__all__ = ["BaseError", "Kind", "StoreError", "classified"]
