"""Settings: what one process or pod is, from gatepost.yaml (the chart renders it for each service).

Any value can come from the environment: GATEPOST_LOG__KAFKA__BOOTSTRAP_SERVERS sets
log.kafka.bootstrapServers. A secret is always a file's path. docs/settings.md is written from these types.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

from gatepost.core.manifest.quantities import Duration, Size

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=63)]


class _Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Every settings object: camelCase names, unknown fields are errors."""


class SqliteSettings(_Settings, frozen=True):
    """The embedded log, for one machine: SQLite in WAL mode, synced before 250."""

    file: str = "log.sqlite3"
    """Relative to the state directory."""


class KafkaSecurity(Enum):
    PLAINTEXT = "Plaintext"
    TLS = "Tls"


class SaslMechanism(Enum):
    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


class KafkaSettings(_Settings, frozen=True):
    bootstrap_servers: tuple[str, ...] = ("127.0.0.1:9092",)
    """HOST:PORT of some of the brokers; an IPv6 host in brackets. They name the others."""
    replication_factor: Annotated[int, msgspec.Meta(ge=1, le=9)] = 3
    min_insync_replicas: Annotated[int, msgspec.Meta(ge=1, le=9)] = 2
    create_topics: bool = True
    """Whether missing topics are created; otherwise they are named and the process does not start."""
    security: KafkaSecurity = KafkaSecurity.PLAINTEXT
    ca_file: str = ""
    """Brokers' certificates are always verified: with these CAs, else with the system's."""
    certificate_file: str = ""
    """With a keyFile, for mutual TLS: the certificate's subject is the principal."""
    key_file: str = ""
    sasl_mechanism: SaslMechanism = SaslMechanism.SCRAM_SHA_512
    """PLAIN sends the password itself: only with security Tls outside of a trusted network."""
    username: str = ""
    """With a passwordFile: SASL."""
    username_file: str = ""
    """In place of username, as secrets that an operator makes have it."""
    password_file: str = ""
    session_timeout: Duration = "6s"
    """After this without a heartbeat another member takes over (the broker's minimum is 6 s)."""


class LogSettings(_Settings, frozen=True):
    """Exactly one of the two."""

    sqlite: SqliteSettings | None = None
    kafka: KafkaSettings | None = None
    partitions: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 12
    """Partitions of each work topic: the most pods of one service that can share its work."""
    topic_prefix: Annotated[str, msgspec.Meta(pattern=r"^([a-z0-9.-]+\.)?$", max_length=128)] = ""
    accept_instance: str = ""
    """The id of another log than the one that this process has worked with: it is worked with from now on.
    A process remembers the id (Kafka: the cluster's) and refuses any other log: that would lack accepted mail."""
    append_timeout: Duration = "8s"
    """How long an append may take before the client gets 451 (RFC 5321 4.5.3.2 leaves clients 10 min)."""


class AttributeMap(_Settings, frozen=True):
    """Which attributes of an entry mean what (defaults: core, cosine, inetOrgPerson, inetLocalMailRecipient)."""

    name: str = "uid"
    addresses: tuple[str, ...] = ("mailLocalAddress", "mail")
    address_prefix: str = ""
    """Stripped from address values without regard to case, as "smtp:" of proxyAddresses."""
    mail_host: str = "mailHost"
    routing_address: str = "mailRoutingAddress"
    store: str = ""
    quota_bytes: str = ""
    quota_used_bytes: str = ""
    members: str = "member"
    enabled: str = "employeeType"
    disabled_values: tuple[str, ...] = ("disabled",)
    login_enabled: str = ""
    login_disabled_values: tuple[str, ...] = ("FALSE", "false", "no", "disabled")
    secure_login: str = ""
    """The attribute that lets an account log in by SCRAM-SHA-256 or CRAM-MD5 only, not even inside TLS by PLAIN."""
    secure_login_values: tuple[str, ...] = ("TRUE", "true", "yes")
    scram_verifier: str = ""
    """Where SCRAM-SHA-256 verifiers are, as authPassword (RFC 5803); without it LDAP offers no SCRAM. The service
    account must be let read it. An LDIF file's userPassword is looked at as well."""
    clear_password: str = ""
    """Where passwords are in clear, for CRAM-MD5. An LDIF file's userPassword is looked at as well."""
    group_name: str = "cn"
    group_classes: tuple[str, ...] = ("groupOfNames", "groupOfUniqueNames", "group")


class LdapSettings(_Settings, frozen=True):
    urls: tuple[str, ...]
    """Tried in order; the later ones are replicas for when the first is away."""
    base: str
    bind_dn: str = ""
    bind_password_file: str = ""
    filter: str = "(objectClass=*)"
    """Which entries count, joined by AND with the address test."""
    start_tls: bool = False
    ca_file: str = ""
    """Certificates are always verified: with these CAs, else with the system's."""
    timeout: Duration = "2s"
    connections: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    cache_positive: Duration = "60s"
    cache_negative: Duration = "10s"
    """At most 30 s: a new user must not wait longer for the first mail."""
    cache_stale: Duration = "1h"
    """How long a positive answer may be used when the directory does not answer."""
    attributes: AttributeMap = AttributeMap()


class LdifSettings(_Settings, frozen=True):
    file: str
    """Relative to the configuration directory; read again when it changes."""
    attributes: AttributeMap = AttributeMap()


class PasswordProgram(_Settings, frozen=True):
    """A program with the checkpassword interface decides about passwords; the directory still knows the accounts.

    It reads login NUL password NUL NUL from file descriptor 3; exit code 0 is yes, 1 no, any other a temporary
    fault. It is run without a shell, with PATH alone as its environment, and killed with its children after
    `timeout`.
    """

    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=32)]
    """Program and arguments, as ["/usr/bin/checkpassword", "/bin/true"]; the program with its whole path."""
    timeout: Duration = "10s"
    """At most 60s."""
    concurrent: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    """How many run at once in this process; a login that cannot begin within `timeout` gets 454."""


class DirectorySettings(_Settings, frozen=True):
    """Exactly one of ldap and ldif."""

    ldap: LdapSettings | None = None
    ldif: LdifSettings | None = None
    password_program: PasswordProgram | None = None
    """Checks the passwords of AUTH PLAIN and LOGIN in the directory's place."""


class Role(Enum):
    MX = "mx"
    SUBMISSION = "submission"
    INTERNAL = "internal"


class CertificatePair(_Settings, frozen=True):
    certificate_file: str
    key_file: str


class ListenerTls(_Settings, frozen=True):
    """Files are read again when they change; sessions that can be resumed stay so."""

    certificate_file: str = ""
    key_file: str = ""
    implicit: bool = False
    """TLS from the first byte (RFC 8314 3.3), as on port 465."""
    certificates: Annotated[tuple[CertificatePair, ...], msgspec.Meta(max_length=3)] = ()
    """More pairs, each with another kind of key: clients get the ECDSA one where they know it, else RSA."""
    client_ca_file: str = ""
    """CAs, or pinned certificates themselves, that vouch for client certificates. A client is asked for one only
    where a policy's relay.clientCertificates wants it; one that shows another certificate cannot connect."""


class ProxyProtocol(_Settings, frozen=True):
    trusted_networks: Annotated[tuple[str, ...], msgspec.Meta(max_length=256)] = ()
    """Load balancers. Once there is one, every connection must begin with a header of the PROXY protocol, version 1
    or 2, and come from here; any other is closed. With implicit TLS the header comes before the handshake."""


class Xclient(_Settings, frozen=True):
    trusted_networks: Annotated[tuple[str, ...], msgspec.Meta(max_length=256)] = ()
    """Hosts that may say by XCLIENT whose session they pass on: address, name, HELO and even login."""


class ListenerSettings(_Settings, frozen=True):
    name: Name
    address: str
    """HOST:PORT; an IPv6 host in brackets."""
    role: Role = Role.MX
    tls: ListenerTls = ListenerTls()
    proxy_protocol: ProxyProtocol = ProxyProtocol()
    xclient: Xclient = Xclient()


class MaildirSettings(_Settings, frozen=True):
    path: str
    """Relative to the state directory. Each mailbox is a Maildir below it, by its name."""
    ledger_keep: Duration = "48h"
    """How long delivered ids are remembered; must be longer than records can be read again."""
    routes: bool = False
    """Whether `gatepost mailbox` for this store routes too, beside the routers or in their place: what it routes
    for this store goes straight into it, without a record in between. It then needs a router's rights and
    directories. `gatepost run` always does so."""


class LmtpSettings(_Settings, frozen=True):
    address: str
    """HOST:PORT of the LMTP server."""
    connections: Annotated[int, msgspec.Meta(ge=1, le=256)] = 4
    timeout: Duration = "60s"


class StoreSettings(_Settings, frozen=True):
    """Exactly one of the two."""

    maildir: MaildirSettings | None = None
    lmtp: LmtpSettings | None = None
    mail_hosts: tuple[str, ...] = ()
    """Values of the directory's mail host that mean this store."""


class DnsSettings(_Settings, frozen=True):
    servers: tuple[str, ...] = ()
    """IP or IP:PORT of recursive resolvers; empty: those of /etc/resolv.conf."""
    timeout: Duration = "5s"
    cache_entries: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 20_000


class RelaySettings(_Settings, frozen=True):
    smtp_port: Port = 25
    """The port of hosts found by MX."""
    own_names: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    """Names and IP addresses besides hostname by which MX records mean this gateway, as those of a load balancer:
    mail is only ever sent to hosts of better preference (RFC 5321 5.1)."""
    connections_per_site: Annotated[int, msgspec.Meta(ge=1, le=100)] = 4
    messages_per_connection: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    connect_timeout: Duration = "30s"
    command_timeout: Duration = "5m"
    """RFC 5321 4.5.3.2; DATA's final dot waits twice as long."""
    idle_timeout: Duration = "5s"


class LogFileSettings(_Settings, frozen=True):
    """A file of lines with rotation by the process itself. One process has it alone: another one does not start.

    A full disk never holds mail up: lines are dropped and counted (gatepost.log.lines.dropped).
    """

    path: str
    """As "/var/log/gatepost/main.log" or "{state}/main.log". An older one gets the time of its end as a suffix."""
    max_bytes: Size = "10Mi"
    """A larger file is put aside and a new one begun."""
    rotate_every: Duration = "168h"
    """Also by time; whole weeks begin on Monday, 00:00 UTC."""
    keep: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    """How many older files are kept."""
    mode: Annotated[str, msgspec.Meta(pattern=r"^0?[0-7]{3}$")] = "0640"
    group: str = ""
    """The group that the files belong to; empty: the process's own."""


AlarmCount = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class AlarmSettings(_Settings, frozen=True):
    """From how many within a window on abuse is told (an event `alarm`, a warning in the log, a metric); 0: never.

    Each edge counts what it sees itself. Nothing is refused because of an alarm.
    """

    window: Duration = "10m"
    relay_attempts: AlarmCount = 10
    """Refused attempts to relay, from one network (IPv4 /24, IPv6 /64)."""
    auth_failures: AlarmCount = 20
    """Failed logins from one network, and for one account wherever they come from."""
    unknown_recipients: AlarmCount = 50
    """Unknown recipients that one network named."""
    messages_to_recipient: AlarmCount = 300
    """Messages for one recipient: bombing, or a loop."""
    recipients_of_sender: AlarmCount = 500
    """Recipients that one login, or one client that may relay, sent to: a worm, or a stolen password."""
    many_recipients_from: tuple[str, ...] = ()
    """Networks of list servers and the like, which may send to any number of recipients without an alarm."""


class TelemetrySettings(_Settings, frozen=True):
    otlp_endpoint: str = ""
    """OTLP over HTTP, as "http://collector:4318"; empty: no traces are exported."""
    trace_sampling: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.01
    event_sampling: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1.0
    """Of how many messages `accepted`, `routed`, `stored` and `sent` are written to the events topic: all of a
    message and its copies, or none, in every process alike. Refusals, deferrals, failures, alarms: always."""
    log_format: str = "auto"
    """json | text | auto (text on a terminal)."""
    log_level: str = "info"
    log_file: LogFileSettings | None = None
    """The log goes to this file instead of standard error (in Kubernetes leave it out: the node collects)."""
    decision_log: LogFileSettings | None = None
    """A log of its own, beside the main one, for what was decided on each connection, recipient and message."""
    alarms: AlarmSettings = AlarmSettings()


class AdminSettings(_Settings, frozen=True):
    address: str = "127.0.0.1:8025"
    """HOST:PORT for /livez, /readyz and /metrics."""
    pop_before_smtp_token_file: str = ""
    """With it an edge takes POST /pop-before-smtp {"address", "account"} from the mailbox server, by this bearer
    token of at least 16 characters; for policies with relay.popBeforeSmtp. Relative to the configuration."""


class LimitSettings(_Settings, frozen=True):
    """Limits of a process; a policy's limits come on top."""

    memory_for_bodies: Size = "256Mi"
    spool_above: Size = "1Mi"
    """Bodies above this go to an unlinked file where they are read back from the content topic."""
    sessions: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 2000
    minimum_bytes_per_second: Annotated[int, msgspec.Meta(ge=0)] = 128
    """A client that sends DATA slower than this, over a minute, is disconnected."""
    drain: Duration = "25s"


class Settings(_Settings, frozen=True):
    hostname: str = ""
    """The name in the greeting, Received and EHLO; empty: the machine's."""
    log: LogSettings = LogSettings(sqlite=SqliteSettings())
    directories: dict[Name, DirectorySettings] = {}
    listeners: tuple[ListenerSettings, ...] = ()
    stores: dict[Name, StoreSettings] = {}
    dns: DnsSettings = DnsSettings()
    relay: RelaySettings = RelaySettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    admin: AdminSettings = AdminSettings()
    limits: LimitSettings = LimitSettings()
    store: Name | None = None
    """For a mailbox pod: the one store that it serves."""
    state: str = "var"
    """Where the process keeps files of its own (cached configuration, the embedded log, Maildir stores)."""
    release_namespace: str = "default"
    domain_ownership: dict[str, tuple[str, ...]] = {}
    """Namespace -> domain suffixes that MailDomains of that namespace may use."""
