"""What looks like abuse is told as an event, a warning and a metric, with the way that it came."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
import structlog.testing

from gatepost.core.configuration import ClientRule
from gatepost.core.manifest.relay_policy import Mechanism
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Edge, MakeEdge


def alarms(edge: Edge) -> list[dict[str, str]]:
    return [event.facts for event in edge.events.all if event.kind == "alarm"]


@pytest.mark.requirement("S3-7")
@pytest.mark.requirement("S1-8")
async def test_refused_relay_attempts_are_counted_and_told(edge: Edge) -> None:
    """Fails without a count, a log line and one alarm for ten refused attempts to relay from one network."""
    before = metrics.ALARMS.values.get(("relay-attempts",), 0)
    counted = metrics.REPLIES.values.get(("mx", "relay", "550"), 0)
    client = await edge.client()
    await client.ask("MAIL FROM:<spam@far.example>")
    with structlog.testing.capture_logs() as lines:
        for number in range(12):
            assert (await client.ask(f"RCPT TO:<victim{number}@far.example>")).startswith("550 5.7.1")
    (alarm,) = alarms(edge)
    assert alarm["alarm"] == "relay-attempts"
    assert (alarm["subject"], alarm["client"], alarm["helo"]) == ("127.0.0.0/24", "127.0.0.1", "client.example.org")
    assert (alarm["count"], alarm["limit"], alarm["window"]) == ("10", "10", "600s")
    assert alarm["targets"].endswith("victim9@far.example")
    assert metrics.ALARMS.values["relay-attempts",] == before + 1
    assert metrics.REPLIES.values["mx", "relay", "550"] == counted + 12
    (warning,) = [line for line in lines if line["log_level"] == "warning"]
    assert warning["event"] == "alarm"
    assert warning["id"] == alarm["last_id"] == alarm["first_id"]


async def test_unknown_recipients_are_told(make_edge: MakeEdge) -> None:
    edge = await make_edge(errors_before_disconnect=1000)
    client = await edge.client()
    await client.ask("MAIL FROM:<spam@far.example>")
    for number in range(60):
        assert (await client.ask(f"RCPT TO:<mark{number}@example.test>")).startswith("550 5.1.1")
    (alarm,) = alarms(edge)
    assert (alarm["alarm"], alarm["count"]) == ("unknown-recipients", "50")


async def test_a_disabled_mailbox_is_no_guess(make_edge: MakeEdge) -> None:
    edge = await make_edge(errors_before_disconnect=1000)
    client = await edge.client()
    await client.ask("MAIL FROM:<spam@far.example>")
    for _ in range(60):
        assert (await client.ask("RCPT TO:<gone@example.test>")).startswith("550 5.2.1")
    assert alarms(edge) == []


async def test_failed_logins_are_told_by_network_and_by_account(make_edge: MakeEdge) -> None:
    """The account is what the client named; the password that it tried stands nowhere."""
    edge = await make_edge(
        auth_enabled=True, auth_require_tls=False, auth_mechanisms=(Mechanism.PLAIN,), auth_directory="people"
    )
    with structlog.testing.capture_logs() as lines:
        for _ in range(7):
            client = await edge.client()
            for number in range(3):
                secret = base64.b64encode(f"\0Alice\0guess-{number}".encode()).decode()
                assert (await client.ask(f"AUTH PLAIN {secret}")).startswith("535")
    told = {alarm["subject"]: alarm for alarm in alarms(edge)}
    assert set(told) == {"127.0.0.0/24", "alice"}
    assert all(alarm["alarm"] == "auth-failures" for alarm in told.values())
    assert told["alice"]["login"] == "alice"
    assert "guess" not in str(edge.events.all) + str(lines)


@pytest.mark.requirement("S4-76")
async def test_a_client_of_ours_that_sends_to_very_many_is_told_with_the_path(make_edge: MakeEdge) -> None:
    """Fails without a warning that names client, HELO, counts, period, ids and some recipients of a worm's mail."""
    edge = await make_edge(relay_clients=(ClientRule(("127.0.0.1",), ("Local",)),))
    client = await edge.client()
    ids = []
    for message in range(6):
        await client.begin(
            *(f"victim{message}-{number}@far.example" for number in range(100)), sender="bob@example.test"
        )
        client.send(b"Subject: I love you\r\n\r\n.\r\n")
        ids.append((await client.reply()).rpartition(" ")[2])
    (alarm,) = alarms(edge)
    assert alarm["alarm"] == "sending"
    assert "worm" in alarm["meaning"]
    assert (alarm["subject"], alarm["client"], alarm["helo"]) == ("127.0.0.1", "127.0.0.1", "client.example.org")
    assert (alarm["count"], alarm["first_id"], alarm["last_id"]) == ("500", ids[0], ids[4])
    assert alarm["since"].endswith("+0000")
    assert "victim4-99@far.example" in alarm["targets"]


async def test_bombing_of_one_recipient_is_told(edge: Edge) -> None:
    client = await edge.client()
    for _ in range(301):
        await client.begin("bob@example.test")
        client.send(b".\r\n")
        assert (await client.reply()).startswith("250")
    (alarm,) = alarms(edge)
    assert (alarm["alarm"], alarm["subject"], alarm["count"]) == ("bombing", "bob@example.test", "300")
    assert alarm["targets"] == "alice@example.org"
