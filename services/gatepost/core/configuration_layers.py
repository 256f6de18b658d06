"""Layers in the normalised form: what counts for a domain's recipients in place of the listener's policy."""

from __future__ import annotations

import msgspec

from gatepost.core.checks.authentication import AuthenticationPolicy
from gatepost.core.checks.greylist import GreylistPolicy
from gatepost.core.checks.spam_traps import SpamTrapPolicy
from gatepost.core.configuration_content import NOTHING, ContentPolicy
from gatepost.core.manifest.policy_layers import Exemption


class Overlay(msgspec.Struct, frozen=True, omit_defaults=True):
    """One domain policy laid over one policy of a listener: whole values, merged by the merge table.

    `over` is the origin of the listener's policy, empty for the defaults of its role. `exempt` are the verdicts on
    the client that have no effect. `percent` of the clients get it; with `shadow` it only tells what it would do.
    """

    listener: str
    over: str
    domains: tuple[str, ...]
    origin: str
    generation: int
    shadow: bool = False
    percent: int = 100
    exempt: tuple[Exemption, ...] = ()
    message_size: int = 0
    greylist: GreylistPolicy | None = None
    authentication: AuthenticationPolicy | None = None
    spam_traps: SpamTrapPolicy | None = None
    content: ContentPolicy = NOTHING
