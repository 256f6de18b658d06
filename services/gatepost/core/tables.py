"""Lookup tables of a configuration, built once when it arrives and never per connection."""

from __future__ import annotations

from gatepost.core.address import Address
from gatepost.core.checks.access import access_table
from gatepost.core.client_checks import client_checks
from gatepost.core.configuration import Configuration, DomainConfig, ListenerPolicy
from gatepost.core.configuration_tls import CertificateTable
from gatepost.core.networks import NetworkSet
from gatepost.core.policy_defaults import LOCAL


class RelayClientTable:
    """One rule of relay.clients: network AND sender domain."""

    def __init__(self, networks: tuple[str, ...], sender_domains: tuple[str, ...]) -> None:
        self.networks = NetworkSet(networks)
        self.local = LOCAL in sender_domains
        self.sender_domains = frozenset(sender_domains) - {LOCAL}


class ListenerTable:
    """A listener's policy with its network sets."""

    def __init__(self, policy: ListenerPolicy) -> None:
        self.policy = policy
        self.relay_clients = tuple(
            RelayClientTable(rule.networks, rule.sender_domains) for rule in policy.relay_clients
        )
        self.normalize = NetworkSet(policy.normalize_networks)
        self.client_checks = client_checks(policy)
        self.access = access_table(policy.access)
        self.traps = frozenset(policy.spam_traps.addresses if policy.spam_traps else ())
        self.tls_required = NetworkSet(policy.tls_required_for)
        self.certificates = CertificateTable(policy.client_certificates)

    def is_relay_client(self, client: str) -> bool:
        """Whether an address is in a network that may relay, with whatever sender: one of our own clients."""
        return any(client in rule.networks for rule in self.relay_clients)


class Tables:
    """Everything that a service looks up while mail waits. Immutable; a new configuration makes new tables."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.hash = configuration.hash
        self.listeners = {policy.listener: ListenerTable(policy) for policy in configuration.listeners}
        self._exact: dict[str, DomainConfig] = {}
        self._parents: dict[str, DomainConfig] = {}
        self.default: DomainConfig | None = None
        self._static: dict[str, frozenset[str]] = {}
        for domain in configuration.domains:
            self._exact[domain.domain] = domain
            self._exact.update(dict.fromkeys(domain.alias_domains, domain))
            if domain.subdomains:
                self._parents[domain.domain] = domain
            if domain.default:
                self.default = domain
            self._static[domain.domain] = frozenset(domain.static)
        self.outbound_default = self.default or _only_with_smart_host(configuration)
        """Whose outbound settings count where the sender's domain is not ours (core/outbound.py)."""

    def domain(self, name: str) -> DomainConfig | None:
        """The MailDomain that serves a canonical domain: itself, as an alias domain, or the nearest parent."""
        found = self._exact.get(name)
        if found is not None or not self._parents:
            return found
        parent = name
        while "." in parent:
            parent = parent.split(".", 1)[1]
            if parent in self._parents:
                return self._parents[parent]
        return None

    def home(self, address: Address) -> tuple[DomainConfig, Address] | None:
        """The domain that serves an address, and the address as that domain knows it (alias domains replaced).

        An address without a domain belongs to the default domain. None when the domain is not ours.
        """
        if not address.domain:
            if self.default is None:
                return None
            return self.default, Address(address.local, self.default.domain)
        config = self.domain(address.domain)
        if config is None:
            return None
        if address.domain in config.alias_domains:
            return config, Address(address.local, config.domain)
        return config, address

    def static(self, config: DomainConfig) -> frozenset[str]:
        return self._static[config.domain]


def _only_with_smart_host(configuration: Configuration) -> DomainConfig | None:
    having = [domain for domain in configuration.domains if domain.smart_hosts]
    return having[0] if len(having) == 1 else None
