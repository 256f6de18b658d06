"""One listener while it runs: its policy in force, its TLS, its socket and what is counted on it."""

from __future__ import annotations

import ssl

import structlog

from gatepost.core.endpoints import parse_endpoint
from gatepost.core.manifest.relay_policy import TlsMode
from gatepost.core.manifest.settings import ListenerSettings
from gatepost.core.networks import NetworkSet, enclosing_network
from gatepost.core.tables import ListenerTable
from gatepost.core.xclient import KEYWORD as XCLIENT_KEYWORD
from gatepost.edge.arrivals import Arrivals
from gatepost.edge.tls import tls_of
from gatepost.telemetry import metrics

_log = structlog.get_logger("gatepost.edge.tls")


class Listener:
    """`table` is None until a configuration has a policy for it. `hosts` counts the sessions of each client."""

    def __init__(self, settings: ListenerSettings) -> None:
        self.settings = settings
        self.name = settings.name
        self.host, self.port = parse_endpoint(settings.address)
        self.table: ListenerTable | None = None
        self.hosts: dict[str, int] = {}
        self.networks: dict[str, int] = {}
        self.arrivals = Arrivals()
        self.sessions = 0
        self.tls = tls_of(settings.name, settings.tls)
        self.xclient = NetworkSet(settings.xclient.trusted_networks)
        self._ehlo: dict[tuple[bool, bool, bool], bytes] = {}

    def configure(self, table: ListenerTable | None) -> None:
        """Put a policy in force for what comes from now on."""
        self.table = table
        self._ehlo = {}
        if table is not None and self.tls is not None:
            self.tls.set_minimum(table.policy.tls_min_version)

    def table_for(self, client: str) -> ListenerTable | None:
        """What is in force for a client: the policy, or the canary beside it."""
        return self.table if self.table is None or self.table.canary is None else self.table.for_client(client)

    def tls_for(self, client: str) -> ssl.SSLContext | None:
        """The context for a handshake with this client: the asking one where the policy wants its certificate."""
        if self.tls is None:
            return None
        table = self.table_for(client)
        if self.tls.asking is not None and table is not None and table.certificates.asks(client):
            return self.tls.asking
        return self.tls.context

    def handshake_failed(self, client: str, error: Exception) -> None:
        """Tell it; the client hears only what TLS says."""
        metrics.TLS_HANDSHAKES.add(self.name, "failed")
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or type(error).__name__
        _log.info("handshake failed", listener=self.name, client=client, reason=str(reason))

    def enter(self, client: str) -> str:
        """Count a session; return the network it is counted under, for leave()."""
        self.sessions += 1
        _more(self.hosts, client)
        network = self._network(client)
        if network:
            _more(self.networks, network)
        return network

    def leave(self, client: str, network: str) -> None:
        self.sessions -= 1
        _less(self.hosts, client)
        if network:
            _less(self.networks, network)

    def neighbours(self, client: str) -> int:
        """How many sessions the client's network has open."""
        return self.networks.get(self._network(client), 0)

    def _network(self, client: str) -> str:
        """Empty while no limit needs it."""
        table = self.table_for(client)
        policy = None if table is None else table.policy
        if policy is None or not policy.per_network_concurrent:
            return ""
        return enclosing_network(client, policy.network_ipv4_prefix, policy.network_ipv6_prefix)

    def offers_starttls(self, table: ListenerTable) -> bool:
        return self.tls is not None and table.policy.tls_mode is not TlsMode.DISABLED

    def ehlo(
        self, hostname: str, table: ListenerTable, *, encrypted: bool, authenticated: bool, passes_on: bool = False
    ) -> bytes:
        """The reply to EHLO (RFC 5321 4.1.1.1) under a policy, kept for the next client."""
        state = (encrypted, authenticated, passes_on)
        known = self._ehlo.get(state) if table is self.table else None
        if known is not None:
            return known
        reply = self._make_ehlo(
            hostname, table, encrypted=encrypted, authenticated=authenticated, passes_on=passes_on
        )
        if table is self.table:
            self._ehlo[state] = reply
        return reply

    def _make_ehlo(
        self, hostname: str, table: ListenerTable, *, encrypted: bool, authenticated: bool, passes_on: bool
    ) -> bytes:
        policy = table.policy
        lines = [
            hostname,
            "PIPELINING",  # RFC 2920
            f"SIZE {policy.message_size}",  # RFC 1870
            "8BITMIME",  # RFC 6152
            "SMTPUTF8",  # RFC 6531
            "ENHANCEDSTATUSCODES",  # RFC 2034
            "DSN",  # RFC 3461
            "CHUNKING",  # RFC 3030; no BINARYMIME, so lines are judged
        ]
        lines.append(f"LIMITS RCPTMAX={policy.max_recipients}")  # RFC 9422 4.2; there are no other limits
        if self.offers_starttls(table) and not encrypted:
            lines.append("STARTTLS")  # RFC 3207
        if policy.auth_enabled and (encrypted or not policy.auth_require_tls) and not authenticated:
            lines.append("AUTH " + " ".join(mechanism.value for mechanism in policy.auth_mechanisms))  # RFC 4954
        if passes_on:
            lines.append(XCLIENT_KEYWORD)
        last = len(lines) - 1
        text = "".join(f"250{' ' if number == last else '-'}{line}\r\n" for number, line in enumerate(lines))
        return text.encode("ascii")


# A Counter would run Python code for each name that comes or goes, as one does with nearly every connection.
def _more(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _less(counts: dict[str, int], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
