"""RelayPolicy: what a listener decides while the client waits, and what domains decide for their recipients.

Unset means inherited: compile applies the defaults of the listener's role. Only fields that act exist here;
tools/crdgen makes the CRD from these types.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import msgspec

from gatepost.core.manifest.object import API_VERSION, DomainText, Metadata, NetworkText, ObjectName, SpecPart
from gatepost.core.manifest.policy_access import AccessSpec
from gatepost.core.manifest.policy_authentication import AuthenticationSpec
from gatepost.core.manifest.policy_connection import Connection
from gatepost.core.manifest.policy_content import AttachmentsSpec, CharsetSpec, HeaderRuleSpecs
from gatepost.core.manifest.policy_dnsbl import Dnsbl, Senders
from gatepost.core.manifest.policy_helo import Helo
from gatepost.core.manifest.policy_layers import Exemptions, Mode, Rollout, Target
from gatepost.core.manifest.policy_recipients import LoginFailures, RecipientLimits
from gatepost.core.manifest.policy_relay import PopBeforeSmtp
from gatepost.core.manifest.policy_scanners import ScannerSpecs
from gatepost.core.manifest.policy_tls import ClientCertificates
from gatepost.core.manifest.policy_traps import SpamTraps
from gatepost.core.manifest.quantities import Size

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Networks = Annotated[tuple[NetworkText, ...], msgspec.Meta(max_length=1024)]


class SenderMatch(Enum):
    STRICT = "Strict"
    DOMAIN = "Domain"
    NONE = "None"


class RequireFor(Enum):
    RELAY = "Relay"
    ALL = "All"


class Mechanism(Enum):
    PLAIN = "PLAIN"
    LOGIN = "LOGIN"
    CRAM_MD5 = "CRAM-MD5"
    SCRAM_SHA_256 = "SCRAM-SHA-256"


class RelayClients(SpecPart, frozen=True):
    """Clients that may relay without AUTH: from these networks AND with a sender of these domains."""

    networks: Annotated[Networks, msgspec.Meta(min_length=1)]
    sender_domains: Annotated[tuple[DomainText, ...], msgspec.Meta(min_length=1, max_length=256)] = ("Local",)
    """Whose senders these clients relay for; Local: every domain that is served. The null sender goes with any."""


class Authenticated(SpecPart, frozen=True):
    enabled: bool | None = None
    mechanisms: Annotated[tuple[Mechanism, ...], msgspec.Meta(min_length=1, max_length=4)] | None = None
    """PLAIN and LOGIN by default; what the directory cannot check is not offered, and warned about. CRAM-MD5 needs
    passwords in clear, SCRAM-SHA-256 its verifiers or passwords in clear."""
    require_tls: bool | None = msgspec.field(name="requireTLS", default=None)
    require_for: RequireFor | None = None
    """All refuses even local recipients before AUTH."""
    sender_match: SenderMatch | None = None
    directory_ref: ObjectName | None = None
    """Which directory of the Settings checks logins; without it the only one."""
    failures: LoginFailures | None = None


class Relay(SpecPart, frozen=True):
    clients: Annotated[tuple[RelayClients, ...], msgspec.Meta(max_length=64)] | None = None
    allow_on_public_listeners: bool | None = None
    """Lets `clients` count on a listener of role mx, where a load balancer can make the world look inside."""
    authenticated: Authenticated | None = None
    client_certificates: ClientCertificates | None = None
    secondary_for: Annotated[tuple[DomainText, ...], msgspec.Meta(max_length=256)] | None = None
    """Domains of others for which this host is a secondary MX: mail for them is taken from everybody and sent to
    their MX hosts of better preference. Warned about: their recipients are not known here."""
    pop_before_smtp: PopBeforeSmtp | None = None


class BareNewline(Enum):
    REJECT = "Reject"
    NORMALIZE = "Normalize"


class SmtpLimits(SpecPart, frozen=True):
    message_size: Size | None = None
    header_bytes: Size | None = None
    received: Count | None = None
    junk_commands: Count | None = None
    """NOOP, RSET, VRFY, HELP, EHLO and HELO since the last accepted message; one more ends the session (421)."""


class Smtp(SpecPart, frozen=True):
    bare_newline: BareNewline | None = None
    normalize_networks: Networks | None = None
    limits: SmtpLimits | None = None


class TlsMode(Enum):
    DISABLED = "Disabled"
    OPPORTUNISTIC = "Opportunistic"
    REQUIRE = "Require"


class TlsVersion(Enum):
    V1_2 = "1.2"
    V1_3 = "1.3"


class TlsPolicy(SpecPart, frozen=True):
    mode: TlsMode | None = None
    min_version: TlsVersion | None = None
    required_for: Networks | None = None
    """Clients in these networks must encrypt, as all must with mode Require."""


class RelayPolicySpec(SpecPart, frozen=True):
    target: Target
    mode: Mode | None = None
    """Enforce without it. Shadow decides and records what it would have done, and never acts; each target has one
    policy that is enforced, and beside it at most one in Shadow or with a rollout below 100 percent."""
    rollout: Rollout | None = None
    allow_exemptions: Exemptions | None = None
    """Of a listener's policy: what domains' policies may switch off for their recipients."""
    exemptions: Exemptions | None = None
    """Of a domain's policy: what it switches off; it counts at listeners that allow it."""
    connection: Connection | None = None
    helo: Helo | None = None
    relay: Relay | None = None
    dnsbl: Dnsbl | None = None
    senders: Senders | None = None
    access: AccessSpec | None = None
    authentication: AuthenticationSpec | None = None
    recipients: RecipientLimits | None = None
    spam_traps: SpamTraps | None = None
    headers: HeaderRuleSpecs | None = None
    charset: CharsetSpec | None = None
    attachments: AttachmentsSpec | None = None
    scanners: ScannerSpecs | None = None
    smtp: Smtp | None = None
    tls: TlsPolicy | None = None


class RelayPolicy(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    api_version: str
    kind: str
    metadata: Metadata
    spec: RelayPolicySpec
    status: dict[str, Any] = {}


KIND = "RelayPolicy"
PLURAL = "relaypolicies"
__all__ = ["API_VERSION", "KIND", "PLURAL", "RelayPolicy", "RelayPolicySpec"]
