"""The parts of a RelayPolicy about clients: connection, helo, dnsbl, senders -> their normalised form."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec

from gatepost.core.checks.connection import ConnectionRules, parse_rule
from gatepost.core.checks.dnsbl import CodeError, Codes, DnsblList, DnsblPolicy, Subject
from gatepost.core.checks.helo import HeloPolicy, HeloTest
from gatepost.core.checks.reverse_dns import ReverseDns
from gatepost.core.checks.sender_domain import SenderDomainPolicy
from gatepost.core.compile.conditions import ACCEPTED, Rejection
from gatepost.core.compile.values import checked, duration, judging
from gatepost.core.configuration import ListenerPolicy
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.policy_connection import Connection
from gatepost.core.manifest.policy_dnsbl import Dnsbl, DnsblListSpec, Senders
from gatepost.core.manifest.policy_helo import Helo
from gatepost.core.manifest.relay_policy import RelayPolicySpec
from gatepost.core.manifest.settings import Role
from gatepost.core.reply import MAX_REPLY_LINE

# RFC 5321 4.5.3.2.1: a client waits 5 minutes for the greeting; many wait 30 s.
MAX_BANNER_DELAY = 30.0
MAX_DEADLINE = 30.0
MIN_WATCH = 60.0
# Exploited hosts, known spammers and end users' addresses in one zone; PBL is 127.0.0.10 and 11.
STANDARD_LIST = DnsblList("zen.spamhaus.org", ("127.0.0.2-127.0.0.11",))
LONGEST_TEXT = MAX_REPLY_LINE - 200


def client_parts(spec: RelayPolicySpec, role: Role, warnings: list[str]) -> dict[str, Any]:
    """The fields of ListenerPolicy that these parts decide. Raises Rejection."""
    connection = spec.connection or Connection()
    parts: dict[str, Any] = {
        "connection": ConnectionRules(
            checked(connection.allow, parse_rule, "spec.connection.allow"),
            checked(connection.deny, parse_rule, "spec.connection.deny"),
        ),
        "reverse_dns": _reverse_dns(connection),
        "helo": _helo(spec.helo),
        "dnsbl": _dnsbl(spec.dnsbl, warnings),
        "sender_domain": _senders(spec.senders),
    }
    network, host = connection.per_network, connection.per_host
    numbers = {
        "per_host_rate": host.rate_per_minute if host else None,
        "per_network_concurrent": network.concurrent if network else None,
        "network_ipv4_prefix": network.ipv4_prefix if network else None,
        "network_ipv6_prefix": network.ipv6_prefix if network else None,
        "recipients_without_message": connection.recipients_without_message,
    }
    parts.update({name: value for name, value in numbers.items() if value is not None})
    if connection.banner_delay is not None:
        parts["banner_delay"] = duration(
            connection.banner_delay, "spec.connection.bannerDelay", 0.0, MAX_BANNER_DELAY
        )
    if role is Role.SUBMISSION and (parts["dnsbl"].lists or parts["helo"].checks):
        warnings.append(
            "lists and HELO tests never count for clients that log in; a submission listener has no other"
        )
    # What is as by default is left to the default, which is not written into the configuration.
    base = ListenerPolicy("")
    return {name: value for name, value in parts.items() if value != getattr(base, name)}


def _reverse_dns(connection: Connection) -> ReverseDns:
    spec, base = connection.reverse_dns, ReverseDns()
    if spec is None:
        return base
    return ReverseDns(
        spec.require or base.require,
        judging(spec.action, "spec.connection.reverseDNS.action") or base.action,
        spec.on_error or base.on_error,
    )


def _helo(spec: Helo | None) -> HeloPolicy:
    if spec is None:
        return HeloPolicy()
    checks = tuple(
        HeloTest(one.test, judging(one.action, "spec.helo.checks.action") or Action.ACCEPT)
        for one in spec.checks or ()
    )
    return HeloPolicy(checks, spec.on_error or OnError.IGNORE, spec.require is not False)


def _senders(spec: Senders | None) -> SenderDomainPolicy:
    if spec is None or spec.unresolvable_domain is None:
        return SenderDomainPolicy()
    action = judging(spec.unresolvable_domain, "spec.senders.unresolvableDomain") or Action.DEFER
    return SenderDomainPolicy(action, spec.on_error or OnError.TEMPFAIL)


def _dnsbl(spec: Dnsbl | None, warnings: list[str]) -> DnsblPolicy:
    base = DnsblPolicy()
    if spec is None:
        return base
    lists = tuple(_list(one, f"spec.dnsbl.lists[{place}]") for place, one in enumerate(spec.lists or ()))
    threshold = spec.threshold or base.threshold
    if spec.standard and not any(one.zone == STANDARD_LIST.zone for one in lists):
        # It refuses alone, whatever the others weigh.
        lists = (msgspec.structs.replace(STANDARD_LIST, weight=threshold), *lists)
    most = sum(one.weight for one in lists if one.weight > 0)
    if lists and most < threshold:
        warnings.append(f"dnsbl.threshold {threshold} is never reached: the weights add up to {most}")
    watch, every = base.watch, base.watch_every
    if spec.watch is not None:
        watch = tuple(_address(text) for text in spec.watch.addresses)
        if spec.watch.every is not None:
            every = duration(spec.watch.every, "spec.dnsbl.watch.every", MIN_WATCH, 86_400.0)
        if not any(one.subject is Subject.CLIENT_ADDRESS and one.weight > 0 for one in lists):
            warnings.append("dnsbl.watch looks into lists of client addresses, and there are none in dnsbl.lists")
    deadline = base.deadline
    if spec.deadline is not None:
        deadline = duration(spec.deadline, "spec.dnsbl.deadline", 0.1, MAX_DEADLINE)
    return DnsblPolicy(lists, threshold, deadline, watch, every)


def _list(spec: DnsblListSpec, field: str) -> DnsblList:
    base = DnsblList("")
    try:
        zone = canonical_domain(spec.zone)
        Codes(spec.codes or ())
    except (DomainError, CodeError) as error:
        raise Rejection(ACCEPTED, "Invalid", field, str(error)) from None
    weight = base.weight if spec.weight is None else spec.weight
    if weight == 0:
        raise Rejection(ACCEPTED, "Invalid", f"{field}.weight", "a list without a weight has no effect")
    text = spec.text or base.text
    if not text.isprintable() or len(text.encode()) > LONGEST_TEXT:
        raise Rejection(ACCEPTED, "Invalid", f"{field}.text", f"one line of at most {LONGEST_TEXT} octets")
    return DnsblList(
        zone,
        spec.codes or (),
        spec.subject or base.subject,
        weight,
        judging(spec.action, f"{field}.action") or base.action,
        text,
        spec.on_error or base.on_error,
    )


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise Rejection(ACCEPTED, "Invalid", "spec.dnsbl.watch.addresses", f"{text!r} is no IP address") from None
