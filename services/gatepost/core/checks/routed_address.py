"""Check `routed-address`: addresses that ask a host to route by them, as relays once did and tests still try.

`@a,@b:user@c` (a source route, RFC 5321 C), `user%there@here` and `there!user@here` (RFC 5321 F.2). Nothing is ever
routed by them here: as recipients source routes are refused, and the others are names like any other, which a
catch-all may take. This check is about who writes them at all. Pure.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.checks.verdict import Verdict, fitting
from gatepost.core.manifest.actions import Action
from gatepost.core.reply import Reply

CHECK: Final = "routed-address"

ROUTED: Final = Reply(550, "5.1.3", "addresses with a route in them are not taken here", CHECK)
ROUTED_SENDER: Final = Reply(550, "5.1.7", "senders with a route in them are not taken here", CHECK)


class RoutedAddressPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What each kind leads to; None: nothing."""

    source_route: Action | None = None
    percent_hack: Action | None = None
    bang_path: Action | None = None


def evaluate(policy: RoutedAddressPolicy, local: str, source_route: str = "", *, sender: bool) -> Verdict | None:
    """The verdict on an address by its local part and the route as it was written; the first kind that acts."""
    kinds = (
        ("source route", bool(source_route), policy.source_route),
        ("percent hack", "%" in local, policy.percent_hack),
        ("bang path", "!" in local, policy.bang_path),
    )
    for name, found, action in kinds:
        if found and action is not None:
            reply = fitting(action, ROUTED_SENDER if sender else ROUTED)
            return Verdict(CHECK, action, reply, {"local": local, "kind": name}, reason=name)
    return None
