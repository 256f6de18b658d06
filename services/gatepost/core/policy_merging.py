"""The merge table: for every field of a RelayPolicy, what a domain's value does to the listener's, and why.

A row counts for its field and all below it. docs/merge-table.md is written from it (`make docs`), merge() and the
validation of domains' policies follow it, and a test fails when a field of the spec has no row. A domain decides
what becomes of its own recipients' mail; whatever protects others (rights to relay, TLS, the connection, what all
recipients of a session share) is the listener's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from enum import Enum
from typing import Any, Final

import msgspec

from gatepost.core.manifest.policy_layers import Exemption
from gatepost.core.manifest.quantities import seconds, size_bytes
from gatepost.core.manifest.relay_policy import RelayPolicySpec

Document = dict[str, Any]


class Rule(Enum):
    """OWN: of each policy for itself, never merged."""

    REPLACES = "Replaces"
    APPENDS = "Appends"
    TIGHTENS = "Tightens"
    LISTENER_ONLY = "ListenerOnly"
    OWN = "Own"


class Row(msgspec.Struct, frozen=True):
    """`tighter` picks the stricter of two written values. `default` is in force where the listener's policy has the
    part but not the field, and with `always` also where it has not even the part.
    """

    rule: Rule
    reason: str
    tighter: Callable[[Any, Any], Any] | None = None
    default: Any = None
    always: bool = False


def _smaller_size(one: str, other: str) -> str:
    return min(one, other, key=size_bytes)


def _longer(one: str, other: str) -> str:
    return max(one, other, key=seconds)


def _shorter(one: str, other: str) -> str:
    return min(one, other, key=seconds)


def _either(one: bool, other: bool) -> bool:
    return one or other


_LISTENER: Final = Rule.LISTENER_ONLY
_SESSION: Final = Row(_LISTENER, "one session, whomever it writes to")

TABLE: Final[dict[str, Row]] = {
    "target": Row(Rule.OWN, "says which layer the policy is"),
    "mode": Row(Rule.OWN, "each layer is enforced or in Shadow by itself"),
    "rollout": Row(Rule.OWN, "each layer has its own canary"),
    "allowExemptions": Row(_LISTENER, "what domains may switch off is not theirs to say"),
    "exemptions": Row(Rule.OWN, "a domain's; counts where the listener's allowExemptions has it"),
    "connection": Row(_LISTENER, "decided before anybody is named; protects all"),
    "helo": Row(_LISTENER, "a fact about the client; exemption Helo switches it off"),
    "relay": Row(_LISTENER, "a right to relay is never a domain's to give"),
    "dnsbl": Row(_LISTENER, "a fact about the client, looked up once; exemption Dnsbl switches it off"),
    "senders": Row(
        _LISTENER, "protects the senders' domains; exemption SenderDomain switches off unresolvableDomain"
    ),
    "access": Row(_LISTENER, "one table for all, so that the most specific key wins whoever wrote it"),
    "authentication.spf": Row(Rule.REPLACES, "what follows for the domain's own mail; the facts are shared"),
    "authentication.dkim": Row(Rule.REPLACES, "as spf"),
    "authentication.dmarc": Row(Rule.REPLACES, "as spf"),
    "authentication.arc.trustedSealers": Row(Rule.APPENDS, "forwarders whom the domain's own users trust"),
    "authentication.authservId": Row(_LISTENER, "one name for all hosts of a site"),
    "authentication.deadline": Row(_LISTENER, "how long a client waits behind the final dot"),
    "recipients.max": _SESSION,
    "recipients.errorsBeforeDelay": _SESSION,
    "recipients.delay": _SESSION,
    "recipients.errorsBeforeDisconnect": _SESSION,
    "recipients.harvest": Row(_LISTENER, "a ban is for all domains"),
    "recipients.greylist.enabled": Row(
        Rule.TIGHTENS, "true wins; exemption Greylist switches it off", _either, default=False
    ),
    "recipients.greylist.delay": Row(Rule.TIGHTENS, "the longer", _longer, default="5m"),
    "recipients.greylist.keep": Row(Rule.TIGHTENS, "the shorter", _shorter, default="840h"),
    "recipients.greylist.ipv4Prefix": Row(_LISTENER, "networks are known under one key for all"),
    "recipients.greylist.ipv6Prefix": Row(_LISTENER, "networks are known under one key for all"),
    "recipients.rates": Row(_LISTENER, "a sender's and a client's rates are over all recipients"),
    "headers": Row(
        Rule.APPENDS, "the strictest rule that matches acts; exemption Headers leaves the listener's out"
    ),
    "charset": Row(Rule.REPLACES, "what the domain's own users can read"),
    "attachments": Row(Rule.REPLACES, "field by field, extension by extension: what its own users may get"),
    "attachments.maxDepth": Row(Rule.TIGHTENS, "the smaller: it bounds the work for a message", min, 20),
    "attachments.maxParts": Row(Rule.TIGHTENS, "the smaller: it bounds the work for a message", min, 1000),
    "spamTraps.addresses": Row(Rule.APPENDS, "of the domain's own"),
    "spamTraps.refuseForAll": Row(_LISTENER, "about the other recipients"),
    "spamTraps.ban": Row(_LISTENER, "a ban is for all domains; without the listener's spamTraps there is none"),
    "smtp.bareNewline": _SESSION,
    "smtp.normalizeNetworks": _SESSION,
    "smtp.limits.messageSize": Row(Rule.TIGHTENS, "the smaller", _smaller_size, "50Mi", always=True),
    "smtp.limits.headerBytes": _SESSION,
    "smtp.limits.received": Row(_LISTENER, "protects all from loops"),
    "smtp.limits.junkCommands": _SESSION,
    "scanners": Row(_LISTENER, "the gateway connects to them from inside; exemption Scanners switches them off"),
    "tls": Row(_LISTENER, "decided before anybody is named; protects all"),
}

LAID_OVER: Final = (
    "attachments",
    "authentication",
    "charset",
    "headers",
    "recipients.greylist",
    "scanners",
    "smtp.limits.messageSize",
    "spamTraps",
)
"""Parts that a layer has values of (core/configuration_layers.py); whole, with what is ListenerOnly in them."""

REMOVES: Final[dict[Exemption, str]] = {
    Exemption.GREYLIST: "recipients.greylist",
    Exemption.HEADERS: "headers",
    Exemption.SCANNERS: "scanners",
}
"""Exemptions that leave a part of the listener's policy out. The others void verdicts on the client."""


def row_of(path: str) -> Row | None:
    """The row of a field (dotted, as it is written), its own or one above it; None: there is none."""
    while path:
        if path in TABLE:
            return TABLE[path]
        path = path.rpartition(".")[0]
    return None


def not_for_domains(spec: RelayPolicySpec) -> str:
    """The first field that a domain's policy sets and may not; empty when there is none."""
    for path in _set_fields(msgspec.to_builtins(spec), ""):
        row = row_of(path)
        if (row is None and not _is_above_rows(path)) or (row is not None and row.rule is _LISTENER):
            return path
    return ""


def _is_above_rows(path: str) -> bool:
    """Whether a part that is set without any field has fields with rows; that it is there can switch it on."""
    return any(row.startswith(f"{path}.") for row in TABLE)


def _set_fields(value: Document, above: str) -> Iterator[str]:
    for key, item in value.items():
        path = f"{above}.{key}" if above else key
        if isinstance(item, dict) and item and path not in TABLE:
            yield from _set_fields(item, path)
        else:
            yield path


def domain_parts(spec: RelayPolicySpec, without: Collection[Exemption] = ()) -> Document:
    """The parts of a listener's policy that a layer has merged values of, less what is exempt."""
    whole: Document = msgspec.to_builtins(spec)
    parts: Document = {}
    for path in LAID_OVER:
        *above, last = path.split(".")
        found, target = whole, parts
        for key in above:
            found = found.get(key, {})
        if last in found:
            for key in above:
                target = target.setdefault(key, {})
            target[last] = found[last]
    for exemption in without:
        if exemption in REMOVES:
            _remove(parts, REMOVES[exemption].split("."))
    if not parts.get("recipients", {}).get("greylist", {}).get("enabled"):
        _remove(parts, ["recipients", "greylist"])  # what is off has no delay that could be shortened
    return parts


def _remove(document: Document, path: list[str]) -> None:
    for key in path[:-1]:
        document = document.get(key, {})
    document.pop(path[-1], None)


def merge(listener: Document, domain: RelayPolicySpec) -> Document:
    """Lay a domain's policy over domain_parts() of a listener's: the fields of a spec, without a target."""
    own = {
        key: item
        for key, item in msgspec.to_builtins(domain).items()
        if key not in TABLE or TABLE[key].rule is not Rule.OWN
    }
    if "spamTraps" in own and "spamTraps" not in listener:
        listener = {**listener, "spamTraps": {"ban": {"client": "0s", "sender": "0s"}}}
    return _merge(listener, own, "", None)


def _merge(listener: Document, domain: Document, above: str, row: Row | None) -> Document:
    result = dict(listener)
    for key, item in domain.items():
        path = f"{above}.{key}" if above else key
        result[key] = _value(listener, key, item, path, TABLE.get(path, row))
    return result


def _value(listener: Document, key: str, item: Any, path: str, row: Row | None) -> Any:
    if isinstance(item, dict):
        return _merge(listener.get(key, {}), item, path, row)
    if row is None or row.rule is Rule.REPLACES:
        return item
    before = listener.get(key)
    if row.rule is Rule.APPENDS:
        return [*(before or ()), *item]
    if row.rule is Rule.TIGHTENS and row.tighter is not None:
        if before is None and (listener or row.always):
            before = row.default
        return item if before is None else row.tighter(before, item)
    return before  # not_for_domains() was asked before


def spec_fields(kind: Any = RelayPolicySpec, above: str = "") -> Iterator[str]:
    """Every field of the spec that has no fields of its own, dotted as it is written."""
    for field in msgspec.structs.fields(kind):
        path = f"{above}.{field.encode_name}" if above else field.encode_name
        whole = path in TABLE and not _is_above_rows(path)
        struct = None if whole else _struct_of(field.type)
        if struct is None:
            yield path
        else:
            yield from spec_fields(struct, path)


def _struct_of(kind: Any) -> type[msgspec.Struct] | None:
    """The one Struct in `T | None`; None for anything else."""
    info = msgspec.inspect.type_info(kind)
    members = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    structs = [member.cls for member in members if isinstance(member, msgspec.inspect.StructType)]
    return structs[0] if len(structs) == 1 else None
