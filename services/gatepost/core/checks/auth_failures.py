"""Check `auth-failures`: passwords are guessed slowly, and not for long from one address.

An address (of IPv6 a /64) that fails too often is banned; an account that is tried too often, from wherever, is
only slowed down, so that nobody can lock its owner out by guessing. Of an address the share counts as well: behind
that of a whole office some passwords are always wrong. Pure: core/checks/harvest has the window.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.checks.harvest import Count

# An office shares one IPv4 address already; its neighbours' addresses are other people's.
IPV4_PREFIX: Final = 32
IPV6_PREFIX: Final = 64
MIN_PERCENT: Final = 50


class AuthFailures(msgspec.Struct, frozen=True, omit_defaults=True):
    """Times in seconds. `delay` is before the answer to a wrong password, and to any try of a slowed account."""

    delay: float = 2.0
    most: int = 20
    window: float = 600.0
    ban: float = 3600.0


def is_too_many(policy: AuthFailures, count: Count) -> bool:
    """Whether an address or an account has failed too often; `unknown` are failures, `named` all tries."""
    return count.unknown >= policy.most and count.unknown * 100 >= count.named * MIN_PERCENT
