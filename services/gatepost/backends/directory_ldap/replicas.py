"""The servers of a directory: their addresses, and which are passed over for a while because they are dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog

from gatepost.core.manifest.read import ManifestError

# After a failure a server is asked last; the time doubles while it stays dead.
FIRST_BACKOFF: Final = 1.0
MAX_BACKOFF: Final = 30.0

LDAP_PORT: Final = 389
LDAPS_PORT: Final = 636
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

_log = structlog.get_logger("gatepost.directory")


class Replica(msgspec.Struct, frozen=True):
    """One server. `encrypted`: TLS from the first byte (ldaps)."""

    url: str
    host: str
    port: int
    encrypted: bool


def parse_url(url: str) -> Replica:
    """Read ldap://HOST[:PORT] or ldaps://HOST[:PORT]. Raises ManifestError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("ldap", "ldaps") or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise ManifestError(
            "the LDAP directory", "urls", f"{url!r} is not ldap://HOST[:PORT] or ldaps://HOST[:PORT]"
        )
    encrypted = parts.scheme == "ldaps"
    return Replica(url, parts.hostname, port or (LDAPS_PORT if encrypted else LDAP_PORT), encrypted)


class Replicas:
    """Thread-safe: shared by all links of a directory."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.all = tuple(parse_url(url) for url in urls)
        if not self.all:
            raise ManifestError("the LDAP directory", "urls", "at least one is needed")
        self._clock = clock
        self._lock = threading.Lock()
        self._dead: dict[Replica, tuple[float, float]] = {}  # (asked last until, last back-off)

    def in_order(self) -> list[Replica]:
        """The servers as they are to be tried: the living in the order of settings, then the dead."""
        now = self._clock()
        with self._lock:
            waiting = {replica: until for replica, (until, _) in self._dead.items() if until > now}
        return sorted(self.all, key=lambda replica: waiting.get(replica, 0.0))

    def failed(self, replica: Replica, reason: str) -> None:
        with self._lock:
            _, last = self._dead.get(replica, (0.0, 0.0))
            backoff = min(max(2 * last, FIRST_BACKOFF), MAX_BACKOFF)
            self._dead[replica] = (self._clock() + backoff, backoff)
        if not last:
            _log.error("directory_server_failed", url=replica.url, reason=reason)

    def worked(self, replica: Replica) -> None:
        with self._lock:
            was_dead = self._dead.pop(replica, None) is not None
        if was_dead:
            _log.info("directory_server_back", url=replica.url)
