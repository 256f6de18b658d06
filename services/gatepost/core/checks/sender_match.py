"""Check `sender-match`: may this login send as this address (RFC 6409 6.1; an account must not pose as another)?"""

from __future__ import annotations

from gatepost.core.address import Address
from gatepost.core.manifest.relay_policy import SenderMatch
from gatepost.core.ports.directory import Entry
from gatepost.core.reply import Reply
from gatepost.core.smtp_replies import SENDER_MISMATCH
from gatepost.core.subaddress import split_subaddress
from gatepost.core.tables import Tables


def evaluate(sender: Address | None, entry: Entry, match: SenderMatch, tables: Tables) -> Reply | None:
    """Return the refusal or None. The null sender is always allowed: programs answer with it (RFC 5321 4.5.5).

    Strict: an own address, also with a detail behind it, also under an alias of its domain. Domain: any
    address of a domain in which the login has one.
    """
    if sender is None or match is SenderMatch.NONE:
        return None
    home = tables.home(sender)
    forms = (sender,) if home is None else (sender, home[1])
    if match is SenderMatch.DOMAIN:
        domains = {address.rpartition("@")[2] for address in entry.addresses}
        return None if any(form.domain in domains for form in forms) else SENDER_MISMATCH
    separators = home[0].separators if home else ()
    for form in forms:
        if form.key in entry.addresses:
            return None
        split = split_subaddress(form.local, separators)
        if split is not None and Address(split[0], form.domain).key in entry.addresses:
            return None
    return SENDER_MISMATCH
