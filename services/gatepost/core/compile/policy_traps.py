"""A RelayPolicy's `spamTraps`, `recipients.rates` and senders of our own domains -> their normalised form."""

from __future__ import annotations

from typing import Final

from gatepost.core.address import AddressError, parse_address
from gatepost.core.checks.local_sender import OFF, LocalSenderPolicy
from gatepost.core.checks.message_rates import MessageRates, Rate
from gatepost.core.checks.routed_address import RoutedAddressPolicy
from gatepost.core.checks.spam_traps import SpamTrapPolicy
from gatepost.core.compile.conditions import ACCEPTED, Rejection
from gatepost.core.compile.policy_recipients import MAX_BAN, MAX_WINDOW
from gatepost.core.compile.values import duration, judging
from gatepost.core.manifest.policy_dnsbl import Senders
from gatepost.core.manifest.policy_traps import MessageRateSpec, TrapBans
from gatepost.core.manifest.relay_policy import RelayPolicySpec

_FIELD: Final = "spec.spamTraps"


def compile_traps(spec: RelayPolicySpec, warnings: list[str]) -> SpamTrapPolicy | None:
    """Raises Rejection."""
    traps = spec.spam_traps
    if traps is None:
        return None
    base, bans = SpamTrapPolicy(), traps.ban or TrapBans()
    policy = SpamTrapPolicy(
        tuple(sorted({_key(text) for text in traps.addresses})),
        base.refuse_for_all if traps.refuse_for_all is None else traps.refuse_for_all,
        base.ban_client if bans.client is None else duration(bans.client, f"{_FIELD}.ban.client", 0.0, MAX_BAN),
        base.ban_sender if bans.sender is None else duration(bans.sender, f"{_FIELD}.ban.sender", 0.0, MAX_BAN),
    )
    if bans.sender is not None and policy.ban_sender and spec.authentication is None:
        warnings.append("spamTraps.ban.sender has no effect without authentication, which proves who a sender is")
    return policy


def _key(text: str) -> str:
    try:
        return parse_address(text).key
    except AddressError as error:
        raise Rejection(ACCEPTED, "Invalid", f"{_FIELD}.addresses", f"{text!r}: {error}") from None


def compile_rates(spec: RelayPolicySpec) -> MessageRates | None:
    """Raises Rejection."""
    rates = None if spec.recipients is None else spec.recipients.rates
    if rates is None:
        return None
    return MessageRates(
        _rate(rates.per_recipient, "perRecipient"),
        _rate(rates.per_sender, "perSender"),
        _rate(rates.per_client, "perClient"),
    )


def _rate(spec: MessageRateSpec | None, name: str) -> Rate | None:
    if spec is None:
        return None
    base = Rate(spec.messages)
    if spec.window is None:
        return base
    return Rate(spec.messages, duration(spec.window, f"spec.recipients.rates.{name}.window", 1.0, MAX_WINDOW))


def compile_local_senders(spec: Senders | None, *, authenticates: bool, warnings: list[str]) -> LocalSenderPolicy:
    """Raises Rejection."""
    if spec is None or (spec.spoofed_local is None and not spec.local_must_exist):
        return OFF
    spoofed = judging(spec.spoofed_local, "spec.senders.spoofedLocal")
    if spoofed is not None and not authenticates:
        warnings.append(
            "senders.spoofedLocal without authentication refuses our own users' mail through other providers, "
            "whatever SPF says"
        )
    return LocalSenderPolicy(spoofed, bool(spec.local_must_exist))


def compile_routed_addresses(spec: Senders | None) -> RoutedAddressPolicy | None:
    """Raises Rejection."""
    found = None if spec is None else spec.addresses
    if found is None:
        return None
    kinds = (found.source_route, found.percent_hack, found.bang_path)
    return RoutedAddressPolicy(*(judging(one, "spec.senders.addresses") for one in kinds))
