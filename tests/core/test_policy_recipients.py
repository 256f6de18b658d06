"""RelayPolicy's recipients and login failures: what is written becomes the normalised policy, or a reason."""

from __future__ import annotations

from typing import Any

import pytest

from gatepost.core.checks.auth_failures import AuthFailures
from gatepost.core.checks.greylist import GreylistPolicy
from gatepost.core.checks.harvest import HarvestPolicy
from gatepost.core.compile import Surroundings, compile_manifests
from gatepost.core.configuration import ListenerPolicy
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.settings import Role

POLICY = """
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {{name: p, namespace: default}}
spec: {{target: {{type: Listeners, listeners: [mx]}}, {more}}}
"""
AROUND = Surroundings(listeners={"mx": Role.MX}, directories=("corp",), stores=("local",), domain_ownership={})


def compiled(more: str) -> tuple[ListenerPolicy, list[str]]:
    objects = read_objects({"test.yaml": POLICY.format(more=more)})
    result = compile_manifests(objects.domains, objects.policies, AROUND)
    return result.configuration.listeners[0], [condition.message for _, condition in result.rejected]


@pytest.mark.parametrize(
    ("recipients", "fields"),
    [
        ("{}", {}),
        ("{max: 7}", {"max_recipients": 7, "error_delay": 0.0}),
        ("{errorsBeforeDelay: 5}", {"errors_before_delay": 5, "error_delay": 2.0}),
        ("{delay: 500ms}", {"errors_before_delay": 3, "error_delay": 0.5}),
        ("{harvest: {}}", {"harvest": HarvestPolicy(50, 50, 86_400.0, 14_400.0)}),
        (
            "{harvest: {minUnknown: 9, minUnknownPercent: 80, window: 1h, ban: 30m}}",
            {"harvest": HarvestPolicy(9, 80, 3600.0, 1800.0)},
        ),
        ("{greylist: {delay: 1m}}", {"greylist": None}),
        ("{greylist: {enabled: true}}", {"greylist": GreylistPolicy(300.0, 840 * 3600.0, 24, 64)}),
        (
            "{greylist: {enabled: true, delay: 1m, keep: 24h, ipv4Prefix: 32, ipv6Prefix: 48}}",
            {"greylist": GreylistPolicy(60.0, 86_400.0, 32, 48)},
        ),
    ],
)
def test_recipients(recipients: str, fields: dict[str, Any]) -> None:
    policy, rejected = compiled(f"recipients: {recipients}")
    assert rejected == []
    assert {name: getattr(policy, name) for name in fields} == fields


def test_login_failures() -> None:
    policy, _ = compiled("relay: {authenticated: {enabled: true, failures: {most: 5, ban: 2h}}}")
    assert policy.auth_failures == AuthFailures(2.0, 5, 600.0, 7200.0)


@pytest.mark.parametrize(
    ("recipients", "reason"),
    [
        ("{delay: 31s}", "from 0s to 30s"),
        ("{harvest: {ban: 721h}}", "from 1s to 2.592e+06s"),
        ("{harvest: {window: 0s}}", "from 1s to 604800s"),
        ("{greylist: {enabled: true, keep: 1m}}", "from 3600s"),
        ("{greylist: {enabled: true, delay: 1s1h}}", "in this order"),
    ],
)
def test_what_is_refused(recipients: str, reason: str) -> None:
    objects = read_objects({"test.yaml": POLICY.format(more=f"recipients: {recipients}")})
    result = compile_manifests(objects.domains, objects.policies, AROUND)
    assert reason in result.rejected[0][1].message
