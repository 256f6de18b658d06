"""Mail through every process on real servers: byte for byte, large, by LMTP, outwards, and seen as one trace."""

from __future__ import annotations

import collections
import random
import smtplib
import subprocess
from typing import Any

import pytest

from testbed.corpus import below_added, digest
from testbed.world import World, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.lengthy]

USERS = ("alice", "bob", "carol", "erin", "frank", "grace")


def send(port: int, sender: str, recipients: list[str], message: bytes, **login: str) -> str:
    """Send one message and return the id in the 250 reply."""
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo("client.example.org")
        if login:
            client.login(login["user"], login["password"])
        client.mail(sender, [f"size={len(message)}", "body=8bitmime"])
        for recipient in recipients:
            code, text = client.rcpt(recipient)
            assert code == 250, text
        code, text = client.data(message)
        assert code == 250, text
        return str(text.decode().rpartition(" ")[2])


def test_548_messages_arrive_byte_for_byte(world: World, corpus: list[bytes]) -> None:
    """Through both edges, into one Maildir each user; lines over 998 bytes and 8-bit bytes included."""
    wanted: dict[str, collections.Counter[str]] = {user: collections.Counter() for user in USERS}
    before = {
        user: collections.Counter(map(below_added, world.arrived("one", f"{user}@example.test"))) for user in USERS
    }
    for number, message in enumerate(corpus):
        user = USERS[number % len(USERS)]
        send(world.mx_ports[number % 2], "sender@elsewhere.example", [f"{user}@example.test"], message)
        wanted[user][digest(message)] += 1
    for user in USERS:
        expected = wanted[user] + before[user]
        arrived = wait_for(
            lambda user=user: world.arrived("one", f"{user}@example.test"),
            lambda found, expected=expected: len(found) >= expected.total(),
        )
        assert collections.Counter(map(below_added, arrived)) == expected


@pytest.mark.parametrize("megabytes", [24, 49])
def test_large_messages_pass_a_broker_with_default_limits(world: World, megabytes: int) -> None:
    size = megabytes * 2**20
    text = random.Random(megabytes).randbytes(size // 2).hex().encode()
    lines = b"\r\n".join(text[n : n + 76] for n in range(0, len(text), 76))
    message = b"Subject: large\r\n\r\n" + lines[: size - 100] + b"\r\n"
    send(world.mx_ports[0], "sender@elsewhere.example", ["judy@example.test"], message)
    wait_for(
        lambda: [below_added(stored) for stored in world.arrived("one", "judy@example.test")],
        lambda found: digest(message) in found,
    )


def test_every_edge_can_serve_every_store(world: World) -> None:
    """One message for users of two stores, an LMTP store, and a foreign host by way of a backup MX."""
    message = b"Subject: everywhere\r\nFrom: s@elsewhere.example\r\n\r\n.leading dot\r\nhi\r\n"
    recipients = ["ivan@example.test", "jane.doe@corp.example.test", "ann@lmtp.test", "someone@backup.test"]
    for port in world.mx_ports:
        send(port, "s@elsewhere.example", recipients, message)
    wait_for(lambda: world.arrived("one", "ivan@example.test"), lambda found: len(found) == 2)
    in_dovecot = world.dovecot.await_messages("ann", 2, 60)
    assert all(stored.endswith(b".leading dot\r\nhi\r\n") for stored in in_dovecot)
    transactions = wait_for(
        lambda: [t for t in world.sink.transactions if "someone@backup.test" in t.addresses],
        lambda found: len(found) == 2,
    )
    assert all(t.data.endswith(message) for t in transactions)


def test_lmtp_refusals_become_dsns(world: World) -> None:
    """gone@lmtp.test is a listed recipient without a mailbox in Dovecot: its sender learns that."""
    message = b"Subject: to nobody\r\n\r\nx\r\n"
    port = world.installation.of("edge")[0].submission
    send(port, "alice@example.test", ["gone@lmtp.test"], message, user="alice", password="pw-alice")
    found = wait_for(
        lambda: [m for m in world.arrived("one", "alice@example.test") if b"multipart/report" in m],
        bool,
    )
    assert b"Final-Recipient: rfc822; gone@lmtp.test" in found[0]
    assert b"Return-Path: <>" in found[0]


@pytest.mark.requirement("S4-8")
def test_authenticated_users_relay_and_nobody_else(world: World) -> None:
    """AUTH on submission sends to strangers, MX does not. Fails without the relay right or the relay itself."""
    submission = world.installation.of("edge")[1].submission
    send(
        submission,
        "bob@example.test",
        ["far@next.test"],
        b"Subject: out\r\n\r\nx\r\n",
        user="bob",
        password='with space & "quote" \\back',
    )
    transaction = wait_for(lambda: [t for t in world.sink.transactions if t.addresses == ["far@next.test"]], bool)[
        0
    ]
    assert transaction.data.endswith(b"Subject: out\r\n\r\nx\r\n")
    with smtplib.SMTP("127.0.0.1", world.mx_ports[0], timeout=30) as client:
        client.ehlo("x")
        client.mail("bob@example.test")
        assert client.rcpt("far@next.test")[0] // 100 == 5
    with smtplib.SMTP("127.0.0.1", submission, timeout=30) as client:
        client.ehlo("x")
        assert client.mail("bob@example.test")[0] == 530


def test_a_4xx_of_the_next_hop_is_retried_after_a_minute(world: World) -> None:
    world.sink.script("RCPT", "450 4.2.0 later", match="slow@next.test", times=1)
    submission = world.installation.of("edge")[0].submission
    message = b"Subject: slow\r\n\r\nx\r\n"
    send(submission, "alice@example.test", ["slow@next.test"], message, user="alice", password="pw-alice")
    wait_for(lambda: [t for t in world.sink.transactions if t.addresses == ["slow@next.test"]], bool, seconds=150)


def test_one_trace_over_all_processes(world: World) -> None:
    """Jaeger has the message's spans of edge, router, mailbox and relay in one trace, by the id in the reply."""
    message = b"Subject: traced\r\n\r\nx\r\n"
    recipients = ["ivan@example.test", "traced@backup.test"]
    own = send(world.mx_ports[1], "s@elsewhere.example", recipients, message)
    wait_for(lambda: [t for t in world.sink.transactions if t.addresses == ["traced@backup.test"]], bool)

    def services() -> set[str]:
        found = world.jaeger.find("gatepost-edge", {"messaging.message.id": own})
        processes: dict[str, Any] = found[0]["processes"] if found else {}
        return {process["serviceName"] for process in processes.values()}

    wanted = {"gatepost-edge", "gatepost-router", "gatepost-mailbox", "gatepost-relay"}
    wait_for(services, lambda found: found == wanted, seconds=60)


def test_gatepost_trace_tells_the_story(world: World) -> None:
    own = send(world.mx_ports[0], "s@elsewhere.example", ["ivan@example.test"], b"Subject: told\r\n\r\nx\r\n")
    edge = world.installation.of("edge")[0]

    def story() -> str:
        return subprocess.run(
            [edge.argv[0], "trace", own, "--config", str(edge.config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout

    text = wait_for(story, lambda text: "stored" in text)
    assert [line.split()[6:8] for line in text.splitlines() if line[:1].isalpha() and "," in line] == [
        ["edge", "accepted"],
        ["router", "routed"],
        ["mailbox", "stored"],
    ]
