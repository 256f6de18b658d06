"""One RelayPolicy -> ListenerPolicy for one listener, with the defaults of the listener's role."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from gatepost.core.compile.conditions import ACCEPTED, RESOLVED_REFS, Rejection
from gatepost.core.compile.policy_access import compile_access
from gatepost.core.compile.policy_authentication import compile_authentication
from gatepost.core.compile.policy_client import client_parts
from gatepost.core.compile.policy_content import content_rules
from gatepost.core.compile.policy_recipients import login_failures, recipient_parts
from gatepost.core.compile.policy_relay import relay_parts
from gatepost.core.compile.policy_scanners import compile_scanners
from gatepost.core.compile.policy_tls import certificate_rights
from gatepost.core.compile.policy_traps import (
    compile_local_senders,
    compile_rates,
    compile_routed_addresses,
    compile_traps,
)
from gatepost.core.compile.values import checked_networks, read_seconds
from gatepost.core.configuration import ClientRule, ListenerPolicy
from gatepost.core.configuration_content import NOTHING, ContentPolicy
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest import relay_policy
from gatepost.core.manifest.object import API_VERSION, ObjectKey
from gatepost.core.manifest.quantities import size_bytes
from gatepost.core.manifest.relay_policy import (
    Authenticated,
    Mechanism,
    RelayPolicy,
    RelayPolicySpec,
    RequireFor,
    Smtp,
    SmtpLimits,
    TlsMode,
)
from gatepost.core.manifest.settings import Role
from gatepost.core.policy_defaults import LOCAL

T = TypeVar("T")

NO_OFFERS: Final[Mapping[str, tuple[Mechanism, ...]]] = MappingProxyType({})

MAX_MESSAGE_SIZE = 150 * 2**20  # a body of this size is 170 records of the content topic
MIN_MESSAGE_SIZE = 64 * 2**10  # RFC 5321 4.5.3.1.7: at least 64K octets must be taken


def default_policy(listener: str, role: Role, directories: tuple[str, ...]) -> ListenerPolicy:
    """What a listener does without any policy: mx and internal relay for nobody, submission wants AUTH first."""
    if role is not Role.SUBMISSION:
        return ListenerPolicy(listener)
    return ListenerPolicy(
        listener,
        auth_enabled=bool(directories),
        auth_require_for=RequireFor.ALL,  # RFC 6409 4.3: a submission server requires authentication
        auth_directory=directories[0] if len(directories) == 1 else "",
        tls_mode=TlsMode.OPPORTUNISTIC,
    )


def compile_policy(
    manifest: RelayPolicy,
    listener: str,
    role: Role,
    directories: tuple[str, ...],
    offers: Mapping[str, tuple[Mechanism, ...]] = NO_OFFERS,
) -> tuple[ListenerPolicy, list[str]]:
    """Return the listener's policy and warnings for its author. Raises Rejection.

    `offers`: by which mechanisms each directory can check a login; one that is not named knows PLAIN and LOGIN.
    """
    if manifest.api_version != API_VERSION or manifest.kind != relay_policy.KIND:
        raise Rejection(ACCEPTED, "Invalid", "apiVersion", f"{API_VERSION} {relay_policy.KIND} is expected")
    spec = manifest.spec
    warnings: list[str] = []
    base = default_policy(listener, role, directories)
    connection = spec.connection
    auth = (spec.relay.authenticated if spec.relay else None) or Authenticated()
    enabled = _or(auth.enabled, base.auth_enabled)
    tls_mode = _or(spec.tls.mode if spec.tls else None, base.tls_mode)
    if tls_mode is TlsMode.REQUIRE and role is Role.MX:
        warnings.append("tls.mode Require on a public MX refuses mail from servers without TLS (RFC 3207 4)")
    if enabled and role is Role.MX:
        warnings.append("AUTH on a public MX invites password guessing; use a submission listener")
    policy = ListenerPolicy(
        listener,
        origin=str(ObjectKey(relay_policy.KIND, manifest.metadata.namespace, manifest.metadata.name)),
        generation=manifest.metadata.generation,
        per_host_concurrent=_or(
            connection.per_host.concurrent if connection and connection.per_host else None,
            base.per_host_concurrent,
        ),
        total_concurrent=_or(
            connection.total.concurrent if connection and connection.total else None, base.total_concurrent
        ),
        idle_timeout=_seconds(connection.idle_timeout if connection else None, base.idle_timeout),
        relay_clients=_relay_clients(spec, role),
        **_login_parts(auth, enabled, base, directories),
        **_smtp_parts(spec.smtp or Smtp(), base),
        tls_mode=tls_mode,
        tls_min_version=_or(spec.tls.min_version if spec.tls else None, base.tls_min_version),
        tls_required_for=checked_networks(spec.tls.required_for if spec.tls else None, "spec.tls.requiredFor"),
        client_certificates=certificate_rights(
            spec.relay.client_certificates if spec.relay else None, role, warnings
        ),
        access=compile_access(spec.access, role, spec.relay.allow_on_public_listeners if spec.relay else None),
        authentication=compile_authentication(spec.authentication, role, warnings),
        spam_traps=compile_traps(spec, warnings),
        content=_content(spec, role, warnings),
        message_rates=compile_rates(spec),
        routed_addresses=compile_routed_addresses(spec.senders),
        local_sender=compile_local_senders(
            spec.senders, authenticates=spec.authentication is not None, warnings=warnings
        ),
        **client_parts(spec, role, warnings),
        **recipient_parts(spec.recipients, warnings),
    )
    parts = relay_parts(spec.relay, role, policy, offers, warnings)
    return msgspec.structs.replace(policy, **parts) if parts else policy, warnings


def _login_parts(
    auth: Authenticated, enabled: bool, base: ListenerPolicy, directories: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "auth_enabled": enabled,
        "auth_mechanisms": _or(auth.mechanisms, base.auth_mechanisms),
        "auth_require_tls": _or(auth.require_tls, base.auth_require_tls),
        "auth_require_for": _or(auth.require_for, base.auth_require_for),
        "auth_sender_match": _or(auth.sender_match, base.auth_sender_match),
        "auth_directory": _auth_directory(auth, enabled, directories),
        "auth_failures": login_failures(auth.failures),
    }


def _smtp_parts(smtp: Smtp, base: ListenerPolicy) -> dict[str, Any]:
    limits = smtp.limits or SmtpLimits()
    return {
        "bare_newline": _or(smtp.bare_newline, base.bare_newline),
        "normalize_networks": checked_networks(smtp.normalize_networks, "spec.smtp.normalizeNetworks"),
        "message_size": _message_size(limits.message_size, base.message_size),
        "header_bytes": size_bytes(limits.header_bytes) if limits.header_bytes else base.header_bytes,
        "max_received": _or(limits.received, base.max_received),
        "junk_commands": _or(limits.junk_commands, base.junk_commands),
    }


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _content(spec: RelayPolicySpec, role: Role, warnings: list[str]) -> ContentPolicy:
    policy = ContentPolicy(
        scanners=compile_scanners(spec.scanners, role, warnings), **content_rules(spec, warnings)
    )
    return NOTHING if policy.is_empty else policy


def _seconds(text: str | None, default: float) -> float:
    if text is None:
        return default
    value = read_seconds(text, "spec.connection.idleTimeout")
    if value < 1:
        raise Rejection(ACCEPTED, "Invalid", "spec.connection.idleTimeout", "at least 1s")
    return value


def _message_size(text: str | None, default: int) -> int:
    if text is None:
        return default
    value = size_bytes(text)
    if not MIN_MESSAGE_SIZE <= value <= MAX_MESSAGE_SIZE:
        raise Rejection(ACCEPTED, "Invalid", "spec.smtp.limits.messageSize", "from 64Ki to 150Mi")
    return value


def _relay_clients(spec: RelayPolicySpec, role: Role) -> tuple[ClientRule, ...]:
    relay = spec.relay
    if relay is None or not relay.clients:
        return ()
    if role is Role.MX and not relay.allow_on_public_listeners:
        raise Rejection(
            ACCEPTED,
            "NotAllowed",
            "spec.relay.clients",
            "a listener of role mx lets no network relay, since a load balancer can make every client look inside; "
            "use an internal listener, or set relay.allowOnPublicListeners: true",
        )
    return tuple(
        ClientRule(
            checked_networks(rule.networks, "spec.relay.clients.networks"),
            tuple(_sender_domain(text) for text in rule.sender_domains),
        )
        for rule in relay.clients
    )


def _sender_domain(text: str) -> str:
    if text == LOCAL:
        return text
    try:
        return canonical_domain(text)
    except DomainError as error:
        raise Rejection(ACCEPTED, "Invalid", "spec.relay.clients.senderDomains", str(error)) from None


def _auth_directory(auth: Authenticated, enabled: bool, directories: tuple[str, ...]) -> str:
    field = "spec.relay.authenticated.directoryRef"
    if auth.directory_ref is not None:
        if auth.directory_ref not in directories:
            known = ", ".join(sorted(directories)) or "none"
            raise Rejection(
                RESOLVED_REFS,
                "DirectoryNotFound",
                field,
                f"no directory {auth.directory_ref!r}; there are: {known}",
            )
        return auth.directory_ref
    if enabled and len(directories) != 1:
        raise Rejection(
            RESOLVED_REFS, "DirectoryNotFound", field, "must name a directory, since there is not exactly one"
        )
    return directories[0] if enabled else ""
