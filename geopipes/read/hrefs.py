"""Hrefs without what signs them: the same file has one name, whoever asks for it and whenever."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

SIGNATURES = {"sig", "signature", "x-amz-signature", "x-goog-signature"}
"""Parameters of a URL that sign it (Azure, CloudFront and S3, S3, Google): it is another one an hour later."""

SECRETS = {"token", "access_token", "api_key", "apikey", "subscription-key"}
"""Parameters that say who asks, whether or not the URL is signed too."""

AROUND = {
    *("se", "ses", "ske", "skoid", "sks", "skt", "sktid", "skv", "sp", "spr", "sr", "srt", "ss", "st", "sv"),
    *("awsaccesskeyid", "expires", "googleaccessid", "key-pair-id", "policy"),
}
"""Parameters of a signed URL that say what the signature is for, in Azure's shared access signatures and others."""

AROUND_OF = ("x-amz-", "x-goog-")
"""How the parameters begin that S3 and Google sign with."""

URL = re.compile(r"""[^\s'"<>()?#]+\?[^\s'"<>()#]*[^\s'"<>()#:;,.]""")
"""A URL with parameters in a text, without the mark that ends a part of the sentence."""


def unsigned(href: str) -> str:
    """Give a URL without the parameters that sign it; those that say which file it is stay."""
    if "?" not in href:
        return href
    given = parse_qsl(urlsplit(href).query, keep_blank_values=True)
    keys = {key.lower() for key, _ in given}
    signed = bool(keys & SIGNATURES)
    if not signed and not keys & SECRETS:
        return href
    left = [(key, value) for key, value in given if not _signs(key.lower(), signed)]
    return href.partition("?")[0] + (f"?{urlencode(left)}" if left else "")


def unsigned_within(text: str) -> str:
    """Give a text with its URLs unsigned."""
    return URL.sub(lambda found: unsigned(found[0]), text)


def _signs(key: str, signed: bool) -> bool:
    return key in SECRETS or (signed and (key in SIGNATURES or key in AROUND or key.startswith(AROUND_OF)))
