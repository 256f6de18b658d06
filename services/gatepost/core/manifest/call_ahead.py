"""MailDomain's recipients.source CallAhead: the next host is asked by SMTP whether it takes a recipient."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatepost.core.manifest.object import HostText, SpecPart
from gatepost.core.manifest.quantities import Duration


class CallAheadCache(SpecPart, frozen=True):
    positive: Duration | None = None
    """How long a recipient that was taken counts without asking again (1h, at most 24h)."""
    negative: Duration | None = None
    """The same for one that was not (10s, at most 30s: a new user must not wait longer for the first mail)."""
    stale: Duration | None = None
    """How long a recipient that was taken counts while no host answers (24h, at most 168h)."""


class CallAheadSource(SpecPart, frozen=True, tag="CallAhead", tag_field="type"):
    """Recipients are those that these hosts take: MAIL FROM:<> and RCPT are said, and no message is sent.

    No answer, and a temporary one, is 451 to the client. A host that takes every address is found out by a random
    one; then everybody is taken, as with Any, and the log and a metric say so.
    """

    hosts: Annotated[tuple[HostText, ...], msgspec.Meta(min_length=1, max_length=16)]
    """In order: "[name]:port" or "[IP]" without MX lookup, "name" with. Without a delivery, mail goes there too."""
    timeout: Duration | None = None
    """For one question with all hosts (10s, at most 30s)."""
    cache: CallAheadCache | None = None
