"""What the types of Settings cannot say: fields that exclude each other and names that must fit together."""

from __future__ import annotations

from gatepost.core.endpoints import EndpointError, parse_endpoint
from gatepost.core.hosts import HostError, parse_host
from gatepost.core.manifest.quantities import seconds, size_bytes
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import (
    KafkaSecurity,
    KafkaSettings,
    ListenerTls,
    PasswordProgram,
    Settings,
)
from gatepost.core.networks import NetworkError, parse_network

MAX_APPEND_TIMEOUT = 9.0  # a client has its 451 within 10 s when the log is away
LOG_FORMATS = ("auto", "json", "text")
LOG_LEVELS = ("debug", "info", "warning", "error")
MIN_LOG_FILE = 64 * 1024  # a smaller file would be put aside all the time
MIN_ROTATION = 60.0
MIN_ALARM_WINDOW = 1.0
MAX_PROGRAM = 60.0  # a mail program waits for some minutes, its user does not
MAX_NEGATIVE_CACHE = 30.0  # a user who was just created must not wait longer for the first mail


def check_settings(settings: Settings, where: str) -> None:
    """Raise ManifestError for the first rule that is broken."""
    if (settings.log.sqlite is None) == (settings.log.kafka is None):
        raise ManifestError(where, "log", "exactly one of sqlite and kafka is needed")
    if not 0 < seconds(settings.log.append_timeout) <= MAX_APPEND_TIMEOUT:
        raise ManifestError(where, "log.appendTimeout", "more than 0s and at most 9s")
    for name, directory in settings.directories.items():
        if (directory.ldap is None) == (directory.ldif is None):
            raise ManifestError(where, f"directories.{name}", "exactly one of ldap and ldif is needed")
        if directory.ldap and seconds(directory.ldap.cache_negative) > MAX_NEGATIVE_CACHE:
            raise ManifestError(where, f"directories.{name}.ldap.cacheNegative", "at most 30s")
        if directory.password_program:
            _check_program(directory.password_program, where, f"directories.{name}.passwordProgram")
    for name, store in settings.stores.items():
        if (store.maildir is None) == (store.lmtp is None):
            raise ManifestError(where, f"stores.{name}", "exactly one of maildir and lmtp is needed")
        if store.lmtp is not None:
            _check_endpoint(store.lmtp.address, where, f"stores.{name}.lmtp.address", lowest=1)
    _check_endpoint(settings.admin.address, where, "admin.address")
    _check_own_names(settings.relay.own_names, where)
    _check_listeners(settings, where)
    _check_telemetry(settings, where)
    if settings.store is not None and settings.store not in settings.stores:
        raise ManifestError(where, "store", f"{settings.store!r} is none of stores")
    if settings.log.kafka is not None:
        _check_kafka(settings.log.kafka, where)


def _check_endpoint(text: str, where: str, field: str, *, lowest: int = 0) -> None:
    try:
        parse_endpoint(text, lowest=lowest)
    except EndpointError as error:
        raise ManifestError(where, field, str(error)) from None


def _check_own_names(names: tuple[str, ...], where: str) -> None:
    for number, name in enumerate(names):
        try:
            parse_host(f"[{name.strip('[]')}]")
        except HostError as error:
            raise ManifestError(where, f"relay.ownNames[{number}]", str(error)) from None


def _check_program(program: PasswordProgram, where: str, field: str) -> None:
    if not program.command[0].startswith("/"):
        raise ManifestError(where, f"{field}.command", "the program is named with its whole path")
    if any("\0" in word for word in program.command):
        raise ManifestError(where, f"{field}.command", "a NUL cannot be passed to a program")
    if not 0 < seconds(program.timeout) <= MAX_PROGRAM:
        raise ManifestError(where, f"{field}.timeout", "more than 0s and at most 60s")


def _check_kafka(kafka: KafkaSettings, where: str) -> None:
    tls = kafka.security is KafkaSecurity.TLS
    if not kafka.bootstrap_servers:
        raise ManifestError(where, "log.kafka.bootstrapServers", "at least one is needed")
    for number, server in enumerate(kafka.bootstrap_servers):
        _check_endpoint(server, where, f"log.kafka.bootstrapServers[{number}]", lowest=1)
    if kafka.min_insync_replicas > kafka.replication_factor:
        raise ManifestError(where, "log.kafka.minInsyncReplicas", "cannot be more than replicationFactor")
    if kafka.username and kafka.username_file:
        raise ManifestError(where, "log.kafka.usernameFile", "username and usernameFile exclude each other")
    if bool(kafka.username or kafka.username_file) != bool(kafka.password_file):
        raise ManifestError(where, "log.kafka.passwordFile", "a user name and passwordFile go together")
    if bool(kafka.certificate_file) != bool(kafka.key_file):
        raise ManifestError(where, "log.kafka.certificateFile", "certificateFile and keyFile go together")
    if not tls and (kafka.certificate_file or kafka.ca_file):
        raise ManifestError(where, "log.kafka.security", "certificates are of use with Tls only")


def _check_listeners(settings: Settings, where: str) -> None:
    names: set[str] = set()
    for number, listener in enumerate(settings.listeners):
        field = f"listeners[{number}]"
        if listener.name in names:
            raise ManifestError(where, f"{field}.name", f"{listener.name!r} stands twice")
        names.add(listener.name)
        _check_endpoint(listener.address, where, f"{field}.address")
        _check_tls(listener.tls, where, f"{field}.tls")
        _check_networks(listener.proxy_protocol.trusted_networks, where, f"{field}.proxyProtocol.trustedNetworks")
        _check_networks(listener.xclient.trusted_networks, where, f"{field}.xclient.trustedNetworks")


def _check_tls(tls: ListenerTls, where: str, field: str) -> None:
    if bool(tls.certificate_file) != bool(tls.key_file):
        raise ManifestError(where, field, "certificateFile and keyFile go together")
    for number, pair in enumerate(tls.certificates):
        if not pair.certificate_file or not pair.key_file:
            raise ManifestError(where, f"{field}.certificates[{number}]", "needs certificateFile and keyFile")
    some = bool(tls.certificate_file or tls.certificates)
    if tls.implicit and not some:
        raise ManifestError(where, f"{field}.implicit", "needs a certificateFile")
    if tls.client_ca_file and not some:
        raise ManifestError(where, f"{field}.clientCaFile", "needs a certificateFile")


def _check_networks(networks: tuple[str, ...], where: str, field: str) -> None:
    for number, network in enumerate(networks):
        try:
            parse_network(network)
        except NetworkError as error:
            raise ManifestError(where, f"{field}[{number}]", str(error)) from None


def _check_telemetry(settings: Settings, where: str) -> None:
    telemetry = settings.telemetry
    for field, value, known in (
        ("logFormat", telemetry.log_format, LOG_FORMATS),
        ("logLevel", telemetry.log_level, LOG_LEVELS),
    ):
        if value not in known:
            raise ManifestError(where, f"telemetry.{field}", f"{value!r} is none of {', '.join(known)}")
    files = {"logFile": telemetry.log_file, "decisionLog": telemetry.decision_log}
    for name, file in files.items():
        if file is None:
            continue
        if size_bytes(file.max_bytes) < MIN_LOG_FILE:
            raise ManifestError(where, f"telemetry.{name}.maxBytes", "at least 64Ki")
        if seconds(file.rotate_every) < MIN_ROTATION:
            raise ManifestError(where, f"telemetry.{name}.rotateEvery", "at least 1m")
    if telemetry.log_file and telemetry.decision_log and telemetry.log_file.path == telemetry.decision_log.path:
        raise ManifestError(where, "telemetry.decisionLog.path", "must not be the file of logFile")
    if seconds(telemetry.alarms.window) < MIN_ALARM_WINDOW:
        raise ManifestError(where, "telemetry.alarms.window", "at least 1s")
    _check_networks(telemetry.alarms.many_recipients_from, where, "telemetry.alarms.manyRecipientsFrom")
