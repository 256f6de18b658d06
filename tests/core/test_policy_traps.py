"""RelayPolicy's spamTraps, recipients.rates and senders of our own: the normalised policy, or a reason."""

from __future__ import annotations

from typing import Any

import pytest

from gatepost.core.checks.local_sender import LocalSenderPolicy
from gatepost.core.checks.message_rates import MessageRates, Rate
from gatepost.core.checks.spam_traps import SpamTrapPolicy
from gatepost.core.compile import Compiled, Surroundings, compile_manifests
from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.settings import Role

POLICY = """
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {{name: p, namespace: default}}
spec: {{target: {{type: Listeners, listeners: [mx]}}, {more}}}
"""


def compiled(more: str) -> Compiled:
    objects = read_objects({"test.yaml": POLICY.format(more=more)})
    return compile_manifests(objects.domains, objects.policies, Surroundings(listeners={"mx": Role.MX}))


@pytest.mark.parametrize(
    ("more", "field", "value"),
    [
        (
            "spamTraps: {addresses: [Trash@Example.JP, trash@example.jp]}",
            "spam_traps",
            SpamTrapPolicy(("trash@example.jp",), True, 86_400.0, 86_400.0),
        ),
        (
            "spamTraps: {addresses: [a@b.test], refuseForAll: false, ban: {client: 1h, sender: 0s}}",
            "spam_traps",
            SpamTrapPolicy(("a@b.test",), False, 3600.0, 0.0),
        ),
        ("recipients: {rates: {}}", "message_rates", MessageRates()),
        (
            "recipients: {rates: {perRecipient: {messages: 600}, perClient: {messages: 5, window: 1m}}}",
            "message_rates",
            MessageRates(Rate(600, 3600.0), None, Rate(5, 60.0)),
        ),
        ("recipients: {}", "message_rates", None),
        ("senders: {}", "local_sender", LocalSenderPolicy()),
        ("senders: {localMustExist: true}", "local_sender", LocalSenderPolicy(None, True)),
        ("senders: {spoofedLocal: Tag}", "local_sender", LocalSenderPolicy(Action.TAG)),
    ],
)
def test_what_is_written_is_what_is_in_force(more: str, field: str, value: Any) -> None:
    result = compiled(more)
    assert result.rejected == ()
    assert getattr(result.configuration.listeners[0], field) == value


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("spamTraps: {addresses: [nobody]}", "'nobody': a domain is missing"),
        ("spamTraps: {addresses: [a@b.test], ban: {client: 721h}}", "from 0s to"),
        ("recipients: {rates: {perSender: {messages: 1, window: 169h}}}", "perSender.window"),
        ("senders: {spoofedLocal: Relay}", "Relay is not for this check"),
    ],
)
def test_what_is_refused(more: str, reason: str) -> None:
    assert reason in compiled(more).rejected[0][1].message


@pytest.mark.parametrize(
    ("more", "warning"),
    [
        ("spamTraps: {addresses: [a@b.test], ban: {sender: 1h}}", "spamTraps.ban.sender has no effect"),
        ("senders: {spoofedLocal: Reject}", "senders.spoofedLocal without authentication"),
        ("senders: {spoofedLocal: Reject}, authentication: {}", ""),
        ("spamTraps: {addresses: [a@b.test], ban: {sender: 1h}}, authentication: {}", ""),
    ],
)
def test_what_is_warned_of(more: str, warning: str) -> None:
    warnings = [text for texts in compiled(more).warnings.values() for text in texts]
    assert any(warning in text for text in warnings) if warning else warnings == []
