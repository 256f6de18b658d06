"""DMARC policy records (RFC 9989 4.7, 4.8).

    dmarc-record  = dmarc-version *(dmarc-sep dmarc-tag) [dmarc-sep]
    dmarc-version = "v" equals %s"DMARC1" ; case sensitive
    dmarc-sep     = *WSP ";" *WSP
    dmarc-tag     = 1*ALPHA equals 1*dmarc-value

A record that starts right is one; errors in the rest give way to defaults (4.8). One pass, linear in the size.
pct, rf and ri are historic and unknown like any other tag (A.7).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from gatepost.core.authentication.dmarc.result import DmarcPolicy

# A record is a few addresses and flags; what is longer is none.
MAX_RECORD: Final = 4096
MAX_REPORT_URIS: Final = 10

_WSP: Final = " \t"
_VERSION: Final = re.compile(r"v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
# URI of RFC 3986 with the commas and exclamation points encoded, as far as it must be told from no URI at all.
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,30}:[\x21-\x7e]+", re.ASCII)
_MAILTO: Final = re.compile(r"mailto:([^@\s?]+@[^@\s?]+)(?:\?\S*)?", re.IGNORECASE)
_OBSOLETE_SIZE: Final = re.compile(r"[ \t]*[0-9]+[ \t]*[kmgtKMGT]?", re.ASCII)
# 4.8 dmarc-fo, as a set of single letters
_FAILURE_OPTIONS: Final = frozenset("01ds")


class DmarcRecord(msgspec.Struct, frozen=True):
    """A record's tags with defaults. `policy` None: p= is missing or not valid; `broken`: sp= or np= is not valid.

    `psd`: y, n or u. `rua` and `ruf`: mail addresses of mailto: URIs, without the obsolete size;
    `has_report_uri`: rua= has at least one valid URI of any scheme.
    """

    policy: DmarcPolicy | None = None
    subdomain_policy: DmarcPolicy | None = None
    non_existent_policy: DmarcPolicy | None = None
    broken: bool = False
    strict_dkim: bool = False
    strict_spf: bool = False
    psd: str = "u"
    testing: bool = False
    failure_options: tuple[str, ...] = ("0",)
    rua: tuple[str, ...] = ()
    ruf: tuple[str, ...] = ()
    has_report_uri: bool = False


def read_record(text: str) -> DmarcRecord | None:
    """Return the record, or None for a text that is no DMARC record (4.7 v=: first, and exactly DMARC1)."""
    version = _VERSION.match(text) if len(text) <= MAX_RECORD else None
    if version is None:
        return None
    tags: dict[str, str] = {}
    for part in text[version.end() :].split(";"):
        name, _, value = part.partition("=")
        # A tag that stands twice: the first one counts, the other is the error that is ignored (4.8).
        tags.setdefault(name.strip(_WSP).lower(), value.strip(_WSP))
    policies = {name: _policy(tags[name]) for name in ("p", "sp", "np") if name in tags}
    rua, valid = _uris(tags.get("rua", ""))
    return DmarcRecord(
        policy=policies.get("p"),
        subdomain_policy=policies.get("sp"),
        non_existent_policy=policies.get("np"),
        broken=any(policies.get(name, "") is None for name in ("sp", "np")),
        strict_dkim=tags.get("adkim", "").lower() == "s",
        strict_spf=tags.get("aspf", "").lower() == "s",
        psd=tags.get("psd", "u").lower() if tags.get("psd", "u").lower() in ("y", "n") else "u",
        testing=tags.get("t", "").lower() == "y",
        failure_options=_failure_options(tags.get("fo", "0")),
        rua=rua,
        ruf=_uris(tags.get("ruf", ""))[0],
        has_report_uri=valid,
    )


def effective(record: DmarcRecord) -> DmarcRecord | None:
    """What a record counts as for policy (4.10.1): as p=none where only its reports are usable, else as none."""
    if record.policy is not None and not record.broken:
        return record
    if not record.has_report_uri:
        return None
    return msgspec.structs.replace(
        record, policy=DmarcPolicy.NONE, subdomain_policy=None, non_existent_policy=None, broken=False
    )


def _policy(text: str) -> DmarcPolicy | None:
    try:
        return DmarcPolicy(text.lower())
    except ValueError:
        return None


def _uris(text: str) -> tuple[tuple[str, ...], bool]:
    """The addresses of the mailto: URIs, and whether there is any URI."""
    addresses: list[str] = []
    valid = False
    for part in text.split(",")[:MAX_REPORT_URIS]:
        uri, mark, size = part.strip(_WSP).rpartition("!")
        if not mark:
            uri = size
        elif _OBSOLETE_SIZE.fullmatch(size) is None:
            continue  # an exclamation point that is not encoded (4.8)
        uri = uri.rstrip(_WSP)
        if _URI.fullmatch(uri) is None:
            continue
        mailto = _MAILTO.fullmatch(uri)
        # A mailto: URI without an address is none.
        valid = valid or mailto is not None or not uri.lower().startswith("mailto:")
        if mailto is not None:
            addresses.append(mailto.group(1))
    return tuple(addresses), valid


def _failure_options(text: str) -> tuple[str, ...]:
    options = tuple(part.strip(_WSP).lower() for part in text.split(":"))
    chosen = set(options)
    valid = len(chosen) == len(options) and chosen <= _FAILURE_OPTIONS and not {"0", "1"} <= chosen
    return options if valid else ("0",)
