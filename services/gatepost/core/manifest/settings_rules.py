"""What the types of Settings cannot say: fields that exclude each other and names that must fit together."""

from __future__ import annotations

from gatepost.core.manifest.quantities import seconds
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import Settings

MAX_APPEND_TIMEOUT = 9.0  # a client has its 451 within 10 s when the log is away
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
    for name, store in settings.stores.items():
        if (store.maildir is None) == (store.lmtp is None):
            raise ManifestError(where, f"stores.{name}", "exactly one of maildir and lmtp is needed")
    _check_listeners(settings, where)
    if settings.store is not None and settings.store not in settings.stores:
        raise ManifestError(where, "store", f"{settings.store!r} is none of stores")
    kafka = settings.log.kafka
    if kafka and kafka.min_insync_replicas > kafka.replication_factor:
        raise ManifestError(where, "log.kafka.minInsyncReplicas", "cannot be more than replicationFactor")


def _check_listeners(settings: Settings, where: str) -> None:
    names: set[str] = set()
    for number, listener in enumerate(settings.listeners):
        field = f"listeners[{number}]"
        if listener.name in names:
            raise ManifestError(where, f"{field}.name", f"{listener.name!r} stands twice")
        names.add(listener.name)
        host, colon, port = listener.address.rpartition(":")
        if not colon or not host or not port.isdigit() or int(port) > 65535:
            raise ManifestError(where, f"{field}.address", "HOST:PORT is expected")
        if bool(listener.tls.certificate_file) != bool(listener.tls.key_file):
            raise ManifestError(where, f"{field}.tls", "certificateFile and keyFile go together")
        if listener.tls.implicit and not listener.tls.certificate_file:
            raise ManifestError(where, f"{field}.tls.implicit", "needs a certificateFile")
