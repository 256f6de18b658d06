"""Authentication-Results: written with our authserv-id, and forged ones found (RFC 8601, RFC 9989 9.2, 9.3).

    header = without_forged(header, {"mx.example.net"})
    text = results_field("mx.example.net", spf=..., helo=..., signatures=..., arc=..., dmarc=...)

What claims to be ours is taken out before anything of ours is put in front (RFC 8601 5).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from gatepost.core.authentication.arc.result import ArcResult
from gatepost.core.authentication.dkim.result import DkimSignatureResult, DkimStatus
from gatepost.core.authentication.dmarc.result import DmarcResult
from gatepost.core.authentication.folding import folded
from gatepost.core.authentication.names import dns_name
from gatepost.core.authentication.spf.result import SpfIdentity, SpfResult
from gatepost.core.authentication.tag_list import field_text
from gatepost.core.headers import Field, spans, without_fields

FIELD_NAME: Final = b"authentication-results"
# As many results as we would verify signatures, and the other methods.
MAX_RESULTS: Final = 16

_FOLD: Final = re.compile(r"\r\n(?=[ \t])")
# token of RFC 2045 5.1, and "@" as pvalue allows it in an address
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~@]+", re.ASCII)
_LOCAL: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.]+", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SPACE: Final = " \t"


def results_field(
    authserv_id: str,
    *,
    spf: SpfResult | None = None,
    helo: SpfResult | None = None,
    signatures: Sequence[DkimSignatureResult] | None = None,
    arc: ArcResult | None = None,
    dmarc: DmarcResult | None = None,
) -> str:
    """Return the whole field with its CR LF; None means that a method was not used, and nothing is said of it."""
    return folded("Authentication-Results:", [authserv_id, *results(spf, helo, signatures, arc, dmarc)])


def results(
    spf: SpfResult | None = None,
    helo: SpfResult | None = None,
    signatures: Sequence[DkimSignatureResult] | None = None,
    arc: ArcResult | None = None,
    dmarc: DmarcResult | None = None,
) -> list[str]:
    """The resinfo parts (RFC 8601 2.2), also for an ARC-Authentication-Results; ["none"] when nothing was used."""
    found = [_spf(one) for one in (helo, spf) if one is not None]
    if signatures is not None:
        found += [_signature(one) for one in signatures[:MAX_RESULTS]] or ["dkim=none"]
    if arc is not None:
        found.append(f"arc={arc.status}" + _reason(arc.reason))
    if dmarc is not None:
        found.append(_dmarc(dmarc))
    return found or ["none"]


def forged_results(fields: Iterable[Field], ours: Collection[str]) -> tuple[Field, ...]:
    """The fields that claim to be ours, or whose claim cannot be read (RFC 8601 5): nobody may see them."""
    names = {_comparable(one) for one in ours}
    return tuple(field for field in fields if _is_forged(field, names))


def without_forged(header: bytes, ours: Collection[str]) -> bytes:
    """Return the header less those fields; every other octet is as it was."""
    names = {_comparable(one) for one in ours}
    return without_fields(header, lambda field: _is_forged(field, names))


def forged_spans(header: bytes, ours: Collection[str]) -> tuple[tuple[int, int], ...]:
    """Where those fields are, as (offset, octets) in the header: to leave them out of what is kept as received."""
    if FIELD_NAME not in header.lower():
        return ()
    names = {_comparable(one) for one in ours}
    return spans(header, lambda field: _is_forged(field, names))


def collected_results(fields: Iterable[Field], authserv_id: str) -> list[str]:
    """The results of all fields of one authserv-id, in order: the payload of an AAR (RFC 8617 4.1.1).

    For a chain of hosts of one operator, where the first one verifies and the last one seals.
    """
    wanted = _comparable(authserv_id)
    found: list[str] = []
    for field in fields:
        if field.name == FIELD_NAME:
            parts = split_results(field_text(field.value))
            if parts and _comparable(parts[0]) == wanted:
                found += [_CONTROL.sub("?", part) for part in parts[1:] if part != "none"]
    return found


def split_results(value: str) -> list[str]:
    """Cut a value into the authserv-id (without version and comments) and its results; [] when it has none.

    White space is made single; comments stay in results. Linear, whatever the nesting.
    """
    parts = _split(_FOLD.sub("", value))
    identity = _authserv_id(parts[0])
    return [identity, *(" ".join(part.split()) for part in parts[1:] if part.strip())] if identity else []


def _is_forged(field: Field, names: Collection[str]) -> bool:
    if field.name != FIELD_NAME:
        return False
    parts = split_results(field_text(field.value))
    return not parts or _comparable(parts[0]) in names


def _comparable(authserv_id: str) -> str:
    return dns_name(authserv_id.removesuffix(".")) or authserv_id.lower()


def _split(value: str) -> list[str]:
    """Cut at semicolons outside of comments and quoted-strings."""
    parts: list[str] = []
    start = depth = at = 0
    quoted = False
    while at < len(value):
        character = value[at]
        if character == "\\" and (quoted or depth):
            at += 1
        elif character == '"' and not depth:
            quoted = not quoted
        elif character == "(" and not quoted:
            depth += 1
        elif character == ")" and not quoted:
            depth = max(0, depth - 1)
        elif character == ";" and not quoted and not depth:
            parts.append(value[start:at])
            start = at + 1
        at += 1
    return [*parts, value[start:]]


def _authserv_id(text: str) -> str:
    """[CFWS] value [CFWS version] (RFC 8601 2.2); a value is a token or a quoted-string."""
    text = without_comments(text).strip(_SPACE)
    if text.startswith('"'):
        end = text.find('"', 1)
        return text[1:end].replace("\\", "") if end > 0 else ""
    return (text.split(None, 1) or [""])[0]


def without_comments(text: str) -> str:
    """Replace each comment (RFC 5322 3.2.2) by a space; an open one goes to the end."""
    kept: list[str] = []
    start = depth = at = 0
    quoted = False
    while at < len(text):
        character = text[at]
        if character == "\\" and (quoted or depth):
            at += 1
        elif character == '"' and not depth:
            quoted = not quoted
        elif character == "(" and not quoted:
            if not depth:
                kept.append(text[start:at])
            depth += 1
        elif character == ")" and depth:
            depth -= 1
            start = at + 1
        at += 1
    return " ".join([*kept, text[start:]] if not depth else kept)


def _spf(result: SpfResult) -> str:
    """RFC 8601 2.7.2: smtp.mailfrom or smtp.helo."""
    if result.identity is SpfIdentity.HELO:
        return f"spf={result.status}" + _reason(result.reason) + _property("smtp.helo", result.domain)
    local, _, domain = result.sender.rpartition("@")
    sender = f"{local}@{result.domain}" if _LOCAL.fullmatch(local) else domain and result.domain
    return f"spf={result.status}" + _reason(result.reason) + _property("smtp.mailfrom", sender)


def _signature(result: DkimSignatureResult) -> str:
    """RFC 8601 2.7.1; header.b tells signatures apart (RFC 6008), header.a and header.s as RFC 8601 has them."""
    comment = f" ({result.key_bits}-bit key)" if result.status is DkimStatus.PASS and result.weak_key else ""
    return (
        f"dkim={result.status}{comment}"
        + _reason(result.reason)
        + _property("header.d", result.domain)
        + _property("header.s", result.selector)
        + _property("header.a", result.algorithm)
        + _property("header.b", result.signature)
    )


def _dmarc(result: DmarcResult) -> str:
    """RFC 9989 9.2, 9.3: header.from, and policy.dmarc after all options were applied."""
    policy = f" policy.dmarc={result.disposition}" if result.disposition is not None else ""
    return (
        f"dmarc={result.status}" + _reason(result.reason) + policy + _property("header.from", result.author_domain)
    )


def _reason(text: str) -> str:
    """reason= as a quoted-string, of a text that is printable ASCII."""
    escaped = text.replace("\\", "/").replace('"', "'")
    return f' reason="{escaped}"' if text else ""


def _property(name: str, value: str) -> str:
    if not value:
        return ""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f" {name}={value}" if _TOKEN.fullmatch(value) else f' {name}="{escaped}"'
