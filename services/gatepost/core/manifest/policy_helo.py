"""RelayPolicy's `helo`: tests of the name that a client greets with."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatepost.core.checks.helo import Probe
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.object import SpecPart


class HeloCheckSpec(SpecPart, frozen=True):
    test: Probe
    """MatchesClient takes a host's addresses and those of a mail domain's MX hosts."""
    action: Action | None = None
    """Accept (the default) only notes it: look at the log before refusing, as wrong names are frequent."""


class Helo(SpecPart, frozen=True):
    """Own clients (relay.clients, AUTH) are never tested."""

    require: bool | None = None
    """True. False lets a client send mail without a greeting (RFC 5321 4.1.4 wants one; old devices have none)."""
    checks: Annotated[tuple[HeloCheckSpec, ...], msgspec.Meta(max_length=8)] | None = None
    on_error: OnError | None = None
    """When the DNS does not answer a test that would refuse; Ignore without it."""
