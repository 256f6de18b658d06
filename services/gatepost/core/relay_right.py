"""May this client send to this foreign recipient? A pure function of recorded facts; the answer's default is no.

The connection's address, the authenticated login and the envelope decide, never the header (which any spammer
writes). Order of the rules:
 1  a recipient at this host's own name or address that is no served domain: denied for everybody, since it could
    only come back, or ask us to route by its local part (user%foreign@here, foreign!user@here; RFC 5321 F.2, F.3)
 2  the same at any other address literal with % ! or @ in the local part: denied for everybody
 3  an authenticated client may relay
 4  a client in a listed network may relay with a sender of that rule's domains, and with the null sender, which has
    no domain: the notifications of our own servers have it (RFC 5321 4.5.5), and whoever is in the network could
    name a sender of the rule as well
 5  a client with a certificate that the policy names may relay
 6  a client whose address has just logged in at the mailbox server (POP before SMTP) may relay with a sender of a
    served domain, and with the null sender
 7  an access rule says Relay: of the client, or of the recipient, which everybody may send to then
 8  everybody may send to a domain for which this host is a secondary MX (RFC 5321 5.1), but not through it: its
    primary trusts us, and may read % ! @ in a local part as a route
 9  everybody else: denied
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from gatepost.core.address import Address
from gatepost.core.configuration_tls import ClientCertificate
from gatepost.core.reply import Reply
from gatepost.core.tables import ListenerTable, Tables

_ROUTING_CHARACTERS: Final = frozenset("%!@")

DENIED: Final = Reply(550, "5.7.1", "relay access denied", "relay")


class Right(Enum):
    """Why a client may relay."""

    AUTHENTICATED = "Authenticated"
    CLIENT_RULE = "ClientRule"
    CLIENT_CERTIFICATE = "ClientCertificate"
    ACCESS_RULE = "AccessRule"
    POP_BEFORE_SMTP = "PopBeforeSmtp"
    SECONDARY_MX = "SecondaryMx"


class RelayFacts(msgspec.Struct, frozen=True):
    """What is known when a recipient whose domain is not served is named. `own_hosts` are canonical.

    `granted`: an access rule gives the right; `popped`: the address has just logged in at the mailbox server.
    """

    client: str
    authenticated: bool
    sender: Address | None
    recipient: Address
    own_hosts: frozenset[str]
    certificate: ClientCertificate | None = None
    granted: bool = False
    popped: bool = False


def relay_right(facts: RelayFacts, tables: Tables, table: ListenerTable) -> Right | None:
    """Why the client may relay to this recipient; None: it may not."""
    recipient = facts.recipient
    if recipient.domain in facts.own_hosts or not recipient.domain:
        return None  # rule 1; a bare postmaster comes here where there is no default domain
    if recipient.is_literal and not _ROUTING_CHARACTERS.isdisjoint(recipient.local):
        return None  # rule 2
    if facts.authenticated and table.policy.auth_enabled:
        return Right.AUTHENTICATED  # rule 3
    if _rule_matches(facts.client, facts.sender, tables, table):
        return Right.CLIENT_RULE  # rule 4
    if facts.certificate is not None and facts.certificate in table.certificates:
        return Right.CLIENT_CERTIFICATE  # rule 5
    if facts.popped and table.policy.pop_before_smtp and _is_ours(facts.sender, tables):
        return Right.POP_BEFORE_SMTP  # rule 6
    if facts.granted:
        return Right.ACCESS_RULE  # rule 7
    if recipient.domain in table.policy.secondary_for and _ROUTING_CHARACTERS.isdisjoint(recipient.local):
        return Right.SECONDARY_MX  # rule 8
    return None  # rule 9


def _is_ours(sender: Address | None, tables: Tables) -> bool:
    return sender is None or tables.domain(sender.domain) is not None


def _rule_matches(client: str, sender: Address | None, tables: Tables, table: ListenerTable) -> bool:
    for rule in table.relay_clients:
        if client in rule.networks and (
            sender is None
            or sender.domain in rule.sender_domains
            or (rule.local and tables.domain(sender.domain) is not None)
        ):
            return True
    return False
