"""The checks on a client, its greeting and its sender's domain that one listener's policy asks for.

Built once when a configuration arrives (core/tables.py). Allowed clients are not looked into; HELO tests, lists and
reverse names never count for own clients (edge/client_verdicts.py).
"""

from __future__ import annotations

from collections.abc import Collection

from gatepost.core.checks import connection, dnsbl, helo, reverse_dns, sender_domain
from gatepost.core.checks.access import wants_names
from gatepost.core.checks.verdict import Verdict
from gatepost.core.client_facts import ClientFacts, HeloFacts, SenderFacts
from gatepost.core.configuration import ListenerPolicy


class ClientChecks:
    """Of one listener. `asks_...`: whether anything has to be looked up at that stage."""

    def __init__(self, policy: ListenerPolicy) -> None:
        self.rules = connection.ConnectionTable(policy.connection)
        self.has_rules = bool(policy.connection.allow or policy.connection.deny)
        self.reverse, self.helo, self.sender = policy.reverse_dns, policy.helo, policy.sender_domain
        self.dnsbl = dnsbl.DnsblTable(policy.dnsbl)
        self.needs_names = self.rules.has_names or self.reverse.require is not reverse_dns.Require.NONE
        self.needs_names = self.needs_names or wants_names(policy.access)
        lists = self.dnsbl.by_subject
        self.asks_about_client = self.needs_names or bool(lists[dnsbl.Subject.CLIENT_ADDRESS])
        self.asks_about_sender = self.sender.action is not None or bool(lists[dnsbl.Subject.SENDER_DOMAIN])

    @property
    def any(self) -> bool:
        return self.has_rules or self.asks_about_client or self.asks_about_sender or self.judges_helo

    @property
    def judges_helo(self) -> bool:
        return bool(self.helo.checks or self.dnsbl.by_subject[dnsbl.Subject.HELO_NAME])

    def asks_about_helo(self, name: str) -> bool:
        """Whether this greeting has something to be looked up; an address literal has not."""
        lists = self.dnsbl.by_subject[dnsbl.Subject.HELO_NAME]
        return helo.helo_domain(name) is not None and (self.helo.needs_dns or bool(lists))

    def listed(self, client: ClientFacts) -> Verdict | bool | None:
        """What the administrator's own list says: True for allowed, a verdict, or nothing."""
        return connection.evaluate(self.rules, client) if self.has_rules else None

    def judge(
        self, client: ClientFacts, greeting: HeloFacts, sender: SenderFacts, own_hosts: Collection[str]
    ) -> tuple[Verdict, ...]:
        """Every verdict on what was looked up."""
        found = [
            reverse_dns.evaluate(self.reverse, client),
            *helo.evaluate(self.helo, greeting, client.address, own_hosts),
            *dnsbl.evaluate(self.dnsbl, (*client.listings, *greeting.listings, *sender.listings)),
            sender_domain.evaluate(self.sender, sender),
        ]
        return tuple(verdict for verdict in found if verdict is not None)


def client_checks(policy: ListenerPolicy) -> ClientChecks | None:
    """None when the policy asks for none of them: then a session does not even look."""
    checks = ClientChecks(policy)
    return checks if checks.any else None
