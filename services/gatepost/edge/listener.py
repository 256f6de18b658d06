"""One listener while it runs: its policy in force, its TLS, its socket and what is counted on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from gatepost.core.manifest.relay_policy import TlsMode
from gatepost.core.manifest.settings import ListenerSettings
from gatepost.core.tables import ListenerTable
from gatepost.edge.tls import TlsContext


class Listener:
    """`table` is None until a configuration has a policy for it. `hosts` counts the sessions of each client."""

    def __init__(self, settings: ListenerSettings) -> None:
        self.settings = settings
        self.name = settings.name
        self.host, self.port = split_address(settings.address)
        self.table: ListenerTable | None = None
        self.hosts: Counter[str] = Counter()
        self.sessions = 0
        self.tls: TlsContext | None = None
        if settings.tls.certificate_file:
            self.tls = TlsContext(settings.name, Path(settings.tls.certificate_file), Path(settings.tls.key_file))
        self._ehlo: dict[tuple[bool, bool], bytes] = {}

    def configure(self, table: ListenerTable | None) -> None:
        """Put a policy in force for what comes from now on."""
        self.table = table
        self._ehlo = {}
        if table is not None and self.tls is not None:
            self.tls.set_minimum(table.policy.tls_min_version)

    def enter(self, client: str) -> None:
        self.sessions += 1
        self.hosts[client] += 1

    def leave(self, client: str) -> None:
        self.sessions -= 1
        self.hosts[client] -= 1
        if not self.hosts[client]:
            del self.hosts[client]

    def offers_starttls(self, table: ListenerTable) -> bool:
        return self.tls is not None and table.policy.tls_mode is not TlsMode.DISABLED

    def ehlo(self, hostname: str, table: ListenerTable, *, encrypted: bool, authenticated: bool) -> bytes:
        """The reply to EHLO (RFC 5321 4.1.1.1) under a policy, kept for the next client."""
        state = (encrypted, authenticated)
        known = self._ehlo.get(state) if table is self.table else None
        if known is not None:
            return known
        reply = self._make_ehlo(hostname, table, encrypted=encrypted, authenticated=authenticated)
        if table is self.table:
            self._ehlo[state] = reply
        return reply

    def _make_ehlo(self, hostname: str, table: ListenerTable, *, encrypted: bool, authenticated: bool) -> bytes:
        policy = table.policy
        lines = [
            hostname,
            "PIPELINING",  # RFC 2920
            f"SIZE {policy.message_size}",  # RFC 1870
            "8BITMIME",  # RFC 6152
            "SMTPUTF8",  # RFC 6531
            "ENHANCEDSTATUSCODES",  # RFC 2034
        ]
        if self.offers_starttls(table) and not encrypted:
            lines.append("STARTTLS")  # RFC 3207
        if policy.auth_enabled and (encrypted or not policy.auth_require_tls) and not authenticated:
            lines.append("AUTH " + " ".join(mechanism.value for mechanism in policy.auth_mechanisms))  # RFC 4954
        last = len(lines) - 1
        text = "".join(f"250{' ' if number == last else '-'}{line}\r\n" for number, line in enumerate(lines))
        return text.encode("ascii")


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT, an IPv6 host in brackets."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
