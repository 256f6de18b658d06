"""Addresses with routes: which kind leads to what."""

from __future__ import annotations

import pytest

from gatepost.core.checks.routed_address import ROUTED, ROUTED_SENDER, RoutedAddressPolicy, evaluate
from gatepost.core.manifest.actions import Action

ALL = RoutedAddressPolicy(Action.REJECT, Action.DEFER, Action.TAG)


@pytest.mark.parametrize(
    ("policy", "local", "route", "action"),
    [
        (ALL, "user", "", None),
        (ALL, "user", "@a,@b", Action.REJECT),
        (ALL, "user%there", "", Action.DEFER),
        (ALL, "there!user", "", Action.TAG),
        (ALL, "a!b%c", "@a", Action.REJECT),  # the first kind that acts
        (RoutedAddressPolicy(), "a!b%c", "@a", None),
        (RoutedAddressPolicy(bang_path=Action.REJECT), "a!b%c", "@a", Action.REJECT),
    ],
)
def test_what_each_kind_leads_to(
    policy: RoutedAddressPolicy, local: str, route: str, action: Action | None
) -> None:
    for sender, reply in ((True, ROUTED_SENDER), (False, ROUTED)):
        verdict = evaluate(policy, local, route, sender=sender)
        assert (None if verdict is None else verdict.action) is action
        if verdict is not None:
            assert verdict.answer.text == reply.text
            assert verdict.answer.code == (450 if action is Action.DEFER else 550)
