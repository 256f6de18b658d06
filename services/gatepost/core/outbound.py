"""Whose outbound settings a message leaves by: the smart host, and what is hidden of its senders.

| reverse-path | settings of |
|---|---|
| of a domain that a MailDomain serves | that MailDomain, also when it has no smart host |
| null (notifications), of any other domain, an address literal | the default domain |
| the same, without a default domain | the only MailDomain with a smart host; none when there are more |

So a server that has a smart host for its own users never talks to the outside by itself, neither for its
notifications nor for what it forwards.
"""

from __future__ import annotations

import msgspec

from gatepost.core.configuration import DomainConfig
from gatepost.core.routing import GoesTo
from gatepost.core.tables import Tables


def outbound_domain(tables: Tables, reverse_path: str) -> DomainConfig | None:
    """The MailDomain whose outbound settings count for mail with this reverse-path ("" is the null one)."""
    served = tables.domain(reverse_path.rpartition("@")[2]) if reverse_path else None
    return served or tables.outbound_default


def by_smart_host(goes: GoesTo, sender: DomainConfig | None) -> GoesTo:
    """A copy for a foreign domain or address literal goes by the sender's smart host; others stay as they are."""
    if sender is None or not sender.smart_hosts or not _is_foreign(goes):
        return goes
    return GoesTo(goes.address, msgspec.structs.replace(goes.destination, hosts=sender.smart_hosts))


def _is_foreign(goes: GoesTo) -> bool:
    destination = goes.destination
    if destination.hosts:  # a host that somebody has set, or the literal itself
        return goes.address.is_literal and destination.hosts == (literal_host(goes.address.domain),)
    return bool(destination.domain)


def literal_host(domain: str) -> str:
    """An address literal as a host without MX lookup (RFC 5321 5.1)."""
    return f"[{domain[1:-1].removeprefix('IPv6:')}]"
