"""Which policy counts: for a client by the rollout of a listener's policy, for a recipient by its domain's layer.

Built with the tables, once for each configuration; a listener without layers has nothing to look at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from gatepost.core.checks import dnsbl, helo, reverse_dns, sender_domain
from gatepost.core.configuration import ListenerPolicy
from gatepost.core.configuration_layers import Overlay
from gatepost.core.content_tables import content_tables
from gatepost.core.manifest.policy_layers import Exemption
from gatepost.core.networks import enclosing_network

VOIDS: Final[dict[Exemption, frozenset[str]]] = {
    Exemption.DNSBL: frozenset({dnsbl.CHECK}),
    Exemption.HELO: frozenset(helo.CHECKS.values()),
    Exemption.REVERSE_DNS: frozenset({reverse_dns.CHECK}),
    Exemption.SENDER_DOMAIN: frozenset({sender_domain.CHECK}),
}
"""The checks whose verdicts on a client an exemption makes void for a domain's recipients."""


def in_rollout(client: str, origin: str, percent: int) -> bool:
    """Whether a client is among these percent: the same answer for all of its /24 or /64, and with more percent.

    By the policy's `origin`, so that it is not the same networks that every canary tries first.
    """
    if not 0 < percent < 100:
        return percent >= 100
    network = enclosing_network(client, 24, 64)
    digest = hashlib.sha256(f"{origin}\0{network}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100 < percent


class Layer:
    """What is in force for some recipients: the listener's policy, with a domain's laid over it.

    `exempt` are checks whose verdicts on the client have no effect. `content` is equal for layers that judge
    content alike, so that their recipients can share a message; `rules` are its expressions and tables, compiled.
    `origin` names the domain's policy, if any.
    """

    __slots__ = ("content", "exempt", "origin", "policy", "rules", "traps")

    def __init__(self, policy: ListenerPolicy, overlay: Overlay | None = None) -> None:
        self.origin = "" if overlay is None else overlay.origin
        exempt = () if overlay is None else overlay.exempt
        self.exempt: frozenset[str] = frozenset().union(*(VOIDS.get(one, frozenset()) for one in exempt))
        self.policy = policy if overlay is None else laid_over(policy, overlay)
        self.traps = frozenset(self.policy.spam_traps.addresses if self.policy.spam_traps else ())
        self.rules = content_tables(self.policy.content)
        self.content = msgspec.json.encode((self.policy.authentication, self.policy.content))


def laid_over(policy: ListenerPolicy, overlay: Overlay) -> ListenerPolicy:
    """The effective policy for the overlay's recipients."""
    return msgspec.structs.replace(
        policy,
        message_size=min(policy.message_size, overlay.message_size or policy.message_size),
        greylist=overlay.greylist,
        authentication=overlay.authentication,
        spam_traps=overlay.spam_traps,
        content=overlay.content,
    )


class DomainLayers:
    """The layers of one domain: the one in force, a canary for some clients, and a Shadow."""

    __slots__ = ("_canary", "_percent", "enforced", "shadow")

    def __init__(self, plain: Layer) -> None:
        self.enforced = plain
        self.shadow: Layer | None = None
        self._canary: Layer | None = None
        self._percent = 0

    def add(self, layer: Layer, overlay: Overlay) -> None:
        if overlay.shadow:
            self.shadow = layer
        elif overlay.percent < 100:
            self._canary, self._percent = layer, overlay.percent
        else:
            self.enforced = layer

    def of(self, client: str) -> Layer:
        """The one that counts for mail from a client."""
        canary = self._canary
        if canary is not None and in_rollout(client, canary.origin, self._percent):
            return canary
        return self.enforced


def domain_layers(policy: ListenerPolicy, plain: Layer, overlays: Iterable[Overlay]) -> dict[str, DomainLayers]:
    """Domain -> its layers, for the overlays of one policy."""
    found: dict[str, DomainLayers] = {}
    for overlay in overlays:
        layer = Layer(policy, overlay)
        for domain in overlay.domains:
            found.setdefault(domain, DomainLayers(plain)).add(layer, overlay)
    return found
