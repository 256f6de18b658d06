"""RelayPolicy's `relay.popBeforeSmtp`: relaying for who has just read mail; off, and warned about."""

from __future__ import annotations

from gatepost.core.manifest.object import SpecPart
from gatepost.core.manifest.quantities import Duration


class PopBeforeSmtp(SpecPart, frozen=True):
    """A client whose address has just logged in at the mailbox server may relay for a while, as long as its sender
    is of a served domain or the null one. The mailbox server tells the address by the admin server
    (`admin.popBeforeSmtpTokenFile`).

    Warned about: everybody behind the same NAT address may relay as well. AUTH is what to use.
    """

    enabled: bool | None = None
    """False by default."""
    window: Duration | None = None
    """10m after the login, at most 1h."""
