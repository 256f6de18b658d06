"""The normalised configuration: what compile makes of all manifests, with every default filled in.

It is what pods run: published on the log in parts, cached on disk, compared by hash. docs/compatibility.md
binds its shape: within SCHEMA_MAJOR fields are only added, with defaults. Tables for quick lookups are built
from it by each process (core/tables.py) and are never published.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from gatepost.core.call_ahead import CallAheadPlan
from gatepost.core.checks.access import AccessConfig
from gatepost.core.checks.auth_failures import AuthFailures
from gatepost.core.checks.authentication import AuthenticationPolicy
from gatepost.core.checks.connection import ConnectionRules
from gatepost.core.checks.dnsbl import DnsblPolicy
from gatepost.core.checks.greylist import GreylistPolicy
from gatepost.core.checks.harvest import HarvestPolicy
from gatepost.core.checks.helo import HeloPolicy
from gatepost.core.checks.local_sender import OFF, LocalSenderPolicy
from gatepost.core.checks.message_rates import MessageRates
from gatepost.core.checks.reverse_dns import ReverseDns
from gatepost.core.checks.routed_address import RoutedAddressPolicy
from gatepost.core.checks.sender_domain import SenderDomainPolicy
from gatepost.core.checks.spam_traps import SpamTrapPolicy
from gatepost.core.configuration_content import NOTHING, ContentPolicy
from gatepost.core.configuration_layers import Overlay
from gatepost.core.configuration_tls import NO_RIGHTS, CertificateRights
from gatepost.core.manifest.mail_domain import UnknownAction
from gatepost.core.manifest.object import ObjectKey
from gatepost.core.manifest.relay_policy import (
    BareNewline,
    Mechanism,
    RequireFor,
    SenderMatch,
    TlsMode,
    TlsVersion,
)
from gatepost.core.masquerading import MasqueradePlan

SCHEMA_MAJOR: Final = 1


class _Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every part: defaults are not written, so that a field that is added changes no old bytes."""


class RetryPlan(_Part, frozen=True):
    """Names of tiers, the last repeating; seconds until a message, and one with the null sender, expires."""

    tiers: tuple[str, ...] = ("1m", "5m", "15m", "30m", "1h", "2h", "4h")
    expire_after: float = 432_000.0  # 5 days, RFC 5321 4.5.4.1
    bounce_expire_after: float = 86_400.0


class DeliveryPlan(_Part, frozen=True):
    """`kind` is Mailbox (with `store`), Relay (with `hosts`) or Discard."""

    kind: str
    store: str = ""
    hosts: tuple[str, ...] = ()


class DomainConfig(_Part, frozen=True):
    """One MailDomain. Addresses are Address keys; `source_kind` is Directory, Static or Any.

    `call_ahead`: of Any those that the next host takes.
    """

    domain: str
    origin: str
    generation: int
    source_kind: str
    delivery: DeliveryPlan
    directory: str = ""
    static: tuple[str, ...] = ()
    default: bool = False
    subdomains: bool = False
    alias_domains: tuple[str, ...] = ()
    unknown: UnknownAction = UnknownAction.REJECT
    unknown_deliver_to: str = ""
    separators: tuple[str, ...] = ()
    role_addresses: dict[str, str] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    max_message_size: int = 0
    smart_hosts: tuple[str, ...] = ()
    helo_name: str = ""
    retry: RetryPlan = RetryPlan()
    masquerade: MasqueradePlan | None = None
    call_ahead: CallAheadPlan | None = None


class ClientRule(_Part, frozen=True):
    networks: tuple[str, ...]
    sender_domains: tuple[str, ...]


class ListenerPolicy(_Part, frozen=True):
    """What one listener decides. Sizes in bytes, times in seconds."""

    listener: str
    origin: str = ""
    generation: int = 0
    per_host_concurrent: int = 50
    total_concurrent: int = 2000
    per_host_rate: int = 0  # a minute; 0: no limit
    per_network_concurrent: int = 0  # 0: no limit
    network_ipv4_prefix: int = 24
    network_ipv6_prefix: int = 64
    banner_delay: float = 0.0
    recipients_without_message: int = 1000
    idle_timeout: float = 300.0
    relay_clients: tuple[ClientRule, ...] = ()
    auth_enabled: bool = False
    auth_mechanisms: tuple[Mechanism, ...] = (Mechanism.PLAIN, Mechanism.LOGIN)
    auth_require_tls: bool = True
    auth_require_for: RequireFor = RequireFor.RELAY
    auth_sender_match: SenderMatch = SenderMatch.STRICT
    auth_directory: str = ""
    auth_failures: AuthFailures | None = None
    secondary_for: tuple[str, ...] = ()
    pop_before_smtp: float = 0.0  # the window; 0: off
    max_recipients: int = 100  # RFC 5321 4.5.3.1.8: at least 100
    errors_before_disconnect: int = 20
    errors_before_delay: int = 3
    error_delay: float = 0.0  # 0: none
    harvest: HarvestPolicy | None = None
    greylist: GreylistPolicy | None = None
    bare_newline: BareNewline = BareNewline.REJECT
    normalize_networks: tuple[str, ...] = ()
    message_size: int = 50 * 2**20
    header_bytes: int = 256 * 2**10
    max_received: int = 50
    junk_commands: int = 100  # Postfix's smtpd_junk_command_limit
    tls_mode: TlsMode = TlsMode.OPPORTUNISTIC
    tls_min_version: TlsVersion = TlsVersion.V1_2
    tls_required_for: tuple[str, ...] = ()
    client_certificates: CertificateRights = NO_RIGHTS
    connection: ConnectionRules = ConnectionRules()
    reverse_dns: ReverseDns = ReverseDns()
    helo: HeloPolicy = HeloPolicy()
    dnsbl: DnsblPolicy = DnsblPolicy()
    access: AccessConfig | None = None
    authentication: AuthenticationPolicy | None = None
    sender_domain: SenderDomainPolicy = SenderDomainPolicy()
    local_sender: LocalSenderPolicy = OFF
    routed_addresses: RoutedAddressPolicy | None = None
    message_rates: MessageRates | None = None
    spam_traps: SpamTrapPolicy | None = None
    content: ContentPolicy = NOTHING  # this very one is left out of what is written


class Beside(_Part, frozen=True):
    """A policy beside the one that a listener enforces: a Shadow, or a canary for `percent` of the clients."""

    policy: ListenerPolicy
    shadow: bool = False
    percent: int = 0


class Configuration(_Part, frozen=True):
    """All of it, sorted, so that equal manifests give equal bytes."""

    schema: int
    domains: tuple[DomainConfig, ...]
    listeners: tuple[ListenerPolicy, ...]
    objects: dict[str, int] = {}
    """Each object that is contained -> its generation; what Programmed is about."""
    beside: tuple[Beside, ...] = ()
    """At most one for each listener."""
    overlays: tuple[Overlay, ...] = ()
    """For each domain, listener and policy of it at most one that is enforced and one beside it."""

    def encode(self) -> bytes:
        return msgspec.json.encode(self, order="sorted")

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.encode()).hexdigest()


def decode_configuration(data: bytes) -> Configuration:
    """Read an encoded configuration. Raises ValueError when it is damaged or of another major."""
    try:
        configuration = msgspec.json.decode(data, type=Configuration)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the configuration cannot be read: {error}") from None
    if configuration.schema != SCHEMA_MAJOR:
        raise ValueError(f"the configuration has schema {configuration.schema}; this program runs {SCHEMA_MAJOR}")
    return configuration


def object_label(key: ObjectKey) -> str:
    return f"{key.kind}/{key.namespace}/{key.name}"


CLOSED: Final = Configuration(SCHEMA_MAJOR, (), ())
"""What an empty set of manifests compiles to: no domain is served, nobody relays."""
