"""Lookup tables of a configuration, built once when it arrives and never per connection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gatepost.core.address import Address
from gatepost.core.checks.access import access_table
from gatepost.core.client_checks import client_checks
from gatepost.core.configuration import Configuration, DomainConfig, ListenerPolicy
from gatepost.core.configuration_layers import Overlay
from gatepost.core.configuration_tls import CertificateTable
from gatepost.core.layers import Layer, domain_layers, in_rollout, laid_over
from gatepost.core.networks import NetworkSet
from gatepost.core.policy_defaults import LOCAL


class RelayClientTable:
    """One rule of relay.clients: network AND sender domain."""

    def __init__(self, networks: tuple[str, ...], sender_domains: tuple[str, ...]) -> None:
        self.networks = NetworkSet(networks)
        self.local = LOCAL in sender_domains
        self.sender_domains = frozenset(sender_domains) - {LOCAL}


class ListenerTable:
    """A listener's policy with its network sets, the layers of domains over it, and what stands beside it.

    `name` is the listener's; that of a policy beside it is another one.
    """

    def __init__(self, policy: ListenerPolicy, overlays: Sequence[Overlay] = (), name: str = "") -> None:
        self.policy = policy
        self.name = name or policy.listener
        self.relay_clients = tuple(
            RelayClientTable(rule.networks, rule.sender_domains) for rule in policy.relay_clients
        )
        self.normalize = NetworkSet(policy.normalize_networks)
        self.client_checks = client_checks(policy)
        self.access = access_table(policy.access)
        self.tls_required = NetworkSet(policy.tls_required_for)
        self.certificates = CertificateTable(policy.client_certificates)
        self.plain = Layer(policy)
        self.layers = domain_layers(policy, self.plain, overlays)
        acting = [policy, *(laid_over(policy, one) for one in overlays if not one.shadow)]
        self.authentication = next((one.authentication for one in acting if one.authentication is not None), None)
        """By which facts about senders are gathered, whoever's recipients they are for."""
        self.spf_refuses = any(one.authentication is not None and one.authentication.spf.refuse for one in acting)
        self.canary: ListenerTable | None = None
        self.percent = 0
        self.shadow: ListenerTable | None = None
        self.has_shadow = any(layers.shadow is not None for layers in self.layers.values())
        """Whether anything is judged that does not act."""

    def for_client(self, client: str) -> ListenerTable:
        """Itself, or the canary for the clients that are in its rollout."""
        canary = self.canary
        if canary is not None and in_rollout(client, canary.policy.origin, self.percent):
            return canary
        return self

    def layer(self, domain: str, client: str) -> Layer:
        """What counts for recipients of a served domain (DomainConfig.domain) in mail from a client."""
        layers = self.layers.get(domain) if self.layers else None
        return self.plain if layers is None else layers.of(client)

    def is_relay_client(self, client: str) -> bool:
        """Whether an address is in a network that may relay, with whatever sender: one of our own clients."""
        return any(client in rule.networks for rule in self.relay_clients)


class Tables:
    """Everything that a service looks up while mail waits. Immutable; a new configuration makes new tables."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.hash = configuration.hash
        self.listeners = _listener_tables(configuration)
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
        self.secondary = frozenset(name for table in self.all_listeners() for name in table.policy.secondary_for)
        """Domains of others whose secondary MX this host is."""
        self.outbound_default = self.default or _only_with_smart_host(configuration)
        """Whose outbound settings count where the sender's domain is not ours (core/outbound.py)."""

    def all_listeners(self) -> Iterator[ListenerTable]:
        """The tables of all listeners, with those of the policies beside them."""
        for table in self.listeners.values():
            yield table
            for beside in (table.canary, table.shadow):
                if beside is not None:
                    yield beside

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


def _listener_tables(configuration: Configuration) -> dict[str, ListenerTable]:
    overlays: dict[tuple[str, str], list[Overlay]] = {}
    for overlay in configuration.overlays:
        overlays.setdefault((overlay.listener, overlay.over), []).append(overlay)
    found = {
        policy.listener: ListenerTable(policy, overlays.get((policy.listener, policy.origin), ()))
        for policy in configuration.listeners
    }
    for beside in configuration.beside:
        policy = beside.policy
        name = f"{policy.listener} {'shadow' if beside.shadow else 'canary'}"
        table = ListenerTable(policy, overlays.get((policy.listener, policy.origin), ()), name)
        enforced = found[policy.listener]
        if beside.shadow:
            enforced.shadow, enforced.has_shadow = table, True
        else:
            enforced.canary, enforced.percent = table, beside.percent
    return found


def _only_with_smart_host(configuration: Configuration) -> DomainConfig | None:
    having = [domain for domain in configuration.domains if domain.smart_hosts]
    return having[0] if len(having) == 1 else None
