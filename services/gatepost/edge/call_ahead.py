"""Recipients whom only the next host knows: asked at RCPT where the domain's source is CallAhead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gatepost.core.call_ahead import CallAheadPlan
from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.core.recipients import Found, Kind

if TYPE_CHECKING:
    from gatepost.edge.session import Session


async def verified(session: Session, found: Found, plan: CallAheadPlan) -> Found:
    """What was found, as far as the next host has a say in it: not in aliases and role addresses.

    Raises DirectoryUnavailable.
    """
    if found.kind is not Kind.LISTED:
        return found
    asking = session.server.deps.call_ahead
    if asking is None:
        raise DirectoryUnavailable("this process cannot ask the next host")
    if await asking.takes(plan, found.address):
        return found
    return msgspec.structs.replace(found, kind=Kind.UNKNOWN)
