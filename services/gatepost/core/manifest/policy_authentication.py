"""RelayPolicy's `authentication`: SPF, DKIM, DMARC and ARC, and what follows from each of their results."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.object import DomainText, SpecPart
from gatepost.core.manifest.quantities import Duration


class SpfSpec(SpecPart, frozen=True):
    fail: Action | None = None
    """Tag without it. Reject and Defer act at RCPT, before DKIM is known: forwarded mail fails SPF."""
    soft_fail: Action | None = None
    perm_error: Action | None = None
    """When the sender's record cannot be understood; Accept (the default) only notes it."""
    temp_error: OnError | None = None
    """When the DNS does not answer; Ignore without it. Accept lets no other method act on the message either."""


class DkimSpec(SpecPart, frozen=True):
    fail: Action | None = None
    """When there are signatures and none is good; Accept (the default), as RFC 6376 6.1 advises."""
    temp_error: OnError | None = None


class DmarcSpec(SpecPart, frozen=True):
    reject: Action | None = None
    """When a message fails whose author's domain asks for reject; Quarantine without it."""
    quarantine: Action | None = None
    """The same for quarantine; Tag without it. A domain that asks for none is only noted."""
    perm_error: Action | None = None
    """When From names no author, or too many; Accept (the default) only notes it."""
    temp_error: OnError | None = None


class ArcSpec(SpecPart, frozen=True):
    trusted_sealers: Annotated[tuple[DomainText, ...], msgspec.Meta(max_length=256)] | None = None
    """Lists and forwarders (d= of their seals) that are believed when they say that DMARC passed before them."""


class AuthenticationSpec(SpecPart, frozen=True):
    """Unset means off. Own clients (relay.clients, AUTH) are never judged."""

    spf: SpfSpec | None = None
    dkim: DkimSpec | None = None
    dmarc: DmarcSpec | None = None
    arc: ArcSpec | None = None
    authserv_id: DomainText | None = None
    """The name in Authentication-Results, one for all hosts of a site; the host name without it."""
    deadline: Duration | None = None
    """From the final dot, for all that the DNS has not answered yet; 5s without it, at most 30s."""
