"""A RelayPolicy's `relay` -> mechanisms of AUTH, and the rights to relay that are not by network alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from gatepost.core.compile.conditions import ACCEPTED, RESOLVED_REFS, Rejection
from gatepost.core.compile.values import duration
from gatepost.core.configuration import ListenerPolicy
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest.relay_policy import Mechanism, Relay
from gatepost.core.manifest.settings import Role
from gatepost.core.networks import parse_network
from gatepost.core.pop_before_smtp import LONGEST_S

PASSWORDS: Final = (Mechanism.PLAIN, Mechanism.LOGIN)
"""What every directory can check."""
DEFAULT_WINDOW: Final = "10m"

# A wider network than one of RFC 1918's is not one's own any more.
WIDEST_IPV4: Final = 8
WIDEST_IPV6: Final = 16

_FIELD: Final = "spec.relay"


def relay_parts(
    relay: Relay | None,
    role: Role,
    policy: ListenerPolicy,
    offers: Mapping[str, tuple[Mechanism, ...]],
    warnings: list[str],
) -> dict[str, Any]:
    """Return the fields of ListenerPolicy that are not as by default. `policy` has the rest of `relay` already.

    `offers`: what each directory of the Settings can check. Raises Rejection.
    """
    if relay is None:
        return {}
    parts: dict[str, Any] = {}
    if relay.secondary_for:
        parts["secondary_for"] = _secondary_for(relay.secondary_for, role, warnings)
    if relay.pop_before_smtp is not None and relay.pop_before_smtp.enabled:
        parts["pop_before_smtp"] = _pop_window(relay, role, warnings)
    if relay.clients:
        _warn_of_networks(policy, role, warnings)
    if policy.auth_enabled and relay.authenticated is not None and relay.authenticated.mechanisms is not None:
        parts["auth_mechanisms"] = _mechanisms(policy, offers.get(policy.auth_directory, PASSWORDS), warnings)
    return parts


def _mechanisms(
    policy: ListenerPolicy, offered: tuple[Mechanism, ...], warnings: list[str]
) -> tuple[Mechanism, ...]:
    """The named ones that the directory can check: a client that chose another could never log in."""
    named = tuple(dict.fromkeys(policy.auth_mechanisms))
    usable = tuple(mechanism for mechanism in named if mechanism in offered)
    missing = ", ".join(mechanism.value for mechanism in named if mechanism not in offered)
    why = (
        f"{missing}: directory {policy.auth_directory!r} cannot check it (see directories.*.attributes."
        "scramVerifier and clearPassword; a passwordProgram checks PLAIN and LOGIN only)"
    )
    if not usable:
        raise Rejection(RESOLVED_REFS, "MechanismNotOffered", f"{_FIELD}.authenticated.mechanisms", why)
    if missing:
        warnings.append(f"MechanismNotOffered: {why}; it is not offered")
    if Mechanism.CRAM_MD5 in usable:
        warnings.append(
            "CRAM-MD5 needs passwords that the directory stores in clear, and who listens can guess them offline; "
            "SCRAM-SHA-256 has neither fault"
        )
    if Mechanism.SCRAM_SHA_256 not in usable and not policy.auth_require_tls and set(usable) & set(PASSWORDS):
        warnings.append("PLAIN and LOGIN with requireTLS: false send passwords over the line as they are")
    return usable


def _secondary_for(names: tuple[str, ...], role: Role, warnings: list[str]) -> tuple[str, ...]:
    try:
        domains = tuple(sorted({canonical_domain(name) for name in names}))
    except DomainError as error:
        raise Rejection(ACCEPTED, "Invalid", f"{_FIELD}.secondaryFor", str(error)) from None
    warnings.append(
        "relay.secondaryFor takes every recipient of these domains unverified, and attackers prefer secondary MX "
        "hosts: what the primary refuses later becomes bounces to strangers, so they are held in quarantine; a "
        "MailDomain with recipients.source CallAhead, or a list of its addresses, has not this fault"
    )
    if role is Role.SUBMISSION:
        warnings.append("relay.secondaryFor on a submission listener: other hosts send to port 25, not there")
    return domains


def _pop_window(relay: Relay, role: Role, warnings: list[str]) -> float:
    assert relay.pop_before_smtp is not None
    if role is Role.MX and not relay.allow_on_public_listeners:
        raise Rejection(
            ACCEPTED,
            "NotAllowed",
            f"{_FIELD}.popBeforeSmtp",
            "a listener of role mx lets no client relay by its address, since a load balancer can make every "
            "client look the same; use a submission listener, or set relay.allowOnPublicListeners: true",
        )
    warnings.append(
        "relay.popBeforeSmtp: for the window everybody behind the same address (a NAT, a provider's proxy) may "
        "relay without a password (RFC 6409 3.3 wants authentication); use relay.authenticated"
    )
    return duration(
        relay.pop_before_smtp.window or DEFAULT_WINDOW, f"{_FIELD}.popBeforeSmtp.window", 1.0, LONGEST_S
    )


def _warn_of_networks(policy: ListenerPolicy, role: Role, warnings: list[str]) -> None:
    """Relaying by address is as good as the addresses: behind a load balancer that puts its own in their place
    (SNAT) the whole world is inside."""
    if role is Role.MX:
        warnings.append(
            "relay.clients on a public listener (allowOnPublicListeners): be sure that clients' own addresses "
            "arrive here, by externalTrafficPolicy Local or the PROXY protocol; behind SNAT this is an open relay"
        )
    for network in (network for rule in policy.relay_clients for network in rule.networks):
        version, low, high = parse_network(network)
        bits, widest = (32, WIDEST_IPV4) if version == 4 else (128, WIDEST_IPV6)
        size = high - low + 1
        if size >= 1 << bits:
            raise Rejection(
                ACCEPTED,
                "NotAllowed",
                f"{_FIELD}.clients.networks",
                f"{network} is the whole world, and a sender's domain is easily forged: an open relay",
            )
        if size > 1 << bits - widest:
            warnings.append(f"relay.clients: {network} is wider than /{widest}; list only your own networks")
        elif version == 4 and ipaddress.IPv4Address(low) in _SHARED:
            warnings.append(f"relay.clients: {network} is in 100.64.0.0/10, which providers share among customers")


_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598
