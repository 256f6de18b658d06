"""The three-tier example as three real gateways: inward, outward, notifications, and nobody past the gateway."""

from __future__ import annotations

import email
import email.policy
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from testbed import ports
from testbed.dns import FakeDns
from testbed.installation import GATEPOST
from testbed.process import Server
from testbed.smtp_conversation import Transaction
from testbed.smtpsink import SmtpSink
from testbed.world import wait_for

pytestmark = pytest.mark.servers

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples/three-tier"
SECONDS = 60
OUTSIDE = "127.0.0.9"  # a client that is none of ours
ZONE = "far.test. 60 IN MX 10 mx.far.test.\nmx.far.test. 60 IN A 127.0.0.1\n"
# The example's addresses, each of which becomes a port of the loopback address.
ADDRESSES = ("192.0.2.10:25", "10.0.0.10:25", "10.0.0.20:25", "10.0.0.30:25", "10.0.0.30:587")
ROLES = ("gateway", "internal-relay", "mailbox-server")


class Tiers:
    """Three `gatepost run` with the example's files; only addresses, ports and certificate files are replaced."""

    def __init__(self, folder: Path, dns: FakeDns, outside: SmtpSink) -> None:
        self.outside = outside
        self.ports = {address: ports.reserve() for address in ADDRESSES}
        self._folder, self._dns = folder, dns
        made = subprocess.run(
            [GATEPOST, "quickstart", "--state", folder / "made"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        ).stdout.split()
        self.password = made[made.index("alice@example.test") + 2]
        self.members = {role: self._member(role) for role in ROLES}

    def _member(self, role: str) -> Server:
        config, state = self._folder / role, self._folder / f"{role}-state"
        config.mkdir()
        (config / "users.ldif").write_bytes((self._folder / "made/users.ldif").read_bytes())
        for file in sorted((EXAMPLE / role).glob("*.yaml")):
            (config / file.name).write_text(self._replaced(file.read_text()))
        settings = yaml.safe_load((config / "gatepost.yaml").read_text())
        admin = ports.reserve()
        settings["admin"] = {"address": f"127.0.0.1:{admin}"}
        settings["dns"] = {"servers": [f"127.0.0.1:{self._dns.port}"]}
        settings["relay"] = {"smtpPort": self.outside.port}  # stands for port 25 of the world
        (config / "gatepost.yaml").write_text(yaml.safe_dump(settings))
        taken = [int(listener["address"].rpartition(":")[2]) for listener in settings["listeners"]]
        argv = [GATEPOST, "run", "--config", config, "--state", state]
        return Server(role, argv, self._folder, ports=[*taken, admin])

    def _replaced(self, text: str) -> str:
        for address, port in self.ports.items():
            host, _, old = address.partition(":")
            text = text.replace(f'"[{host}]:{old}"', f'"[127.0.0.1]:{port}"')
            text = text.replace(f"address: {address}\n", f"address: 127.0.0.1:{port}\n")
        for host in ("10.0.0.10", "10.0.0.20", "10.0.0.30"):
            text = text.replace(host, "127.0.0.1")
        assert "192.0.2." not in text
        assert "10.0.0." not in text
        return text.replace("/etc/gatepost/", f"{self._folder}/made/")

    def connect(self, address: str, source: str = "127.0.0.1") -> smtplib.SMTP:
        """A conversation with the listener that has this address in the example."""
        client = smtplib.SMTP("127.0.0.1", self.ports[address], timeout=SECONDS, source_address=(source, 0))
        client.ehlo("client.far.test")
        return client

    def submit(self, sender: str, recipient: str, message: bytes) -> None:
        """As alice, on the mailbox server."""
        with self.connect("10.0.0.30:587") as client:
            client.starttls(context=ssl._create_unverified_context())  # noqa: S323 - a certificate of the test's own
            client.login("alice", self.password)
            client.sendmail(sender, [recipient], message)

    def arrived(self) -> list[bytes]:
        """What is in alice's mailbox."""
        folder = self._folder / "mailbox-server-state/mail/alice@example.test/new"
        return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.exists() else []

    def await_outside(self, recipient: str) -> Transaction:
        found = wait_for(
            lambda: [one for one in self.outside.transactions if one.addresses == [recipient]], bool, SECONDS
        )
        return found[0]


@pytest.fixture(scope="module")
def tiers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiers]:
    with ExitStack() as stack:
        dns, outside = stack.enter_context(FakeDns(ZONE)), stack.enter_context(SmtpSink())
        made = Tiers(tmp_path_factory.mktemp("tiers"), dns, outside)
        for member in made.members.values():
            stack.callback(member.stop)
            member.launch()
        for member in made.members.values():
            member.await_ready()
        yield made


def hops(message: bytes) -> list[str]:
    """Who has received it, the first one first."""
    parsed = email.message_from_bytes(message, policy=email.policy.default)
    received = [" ".join(str(value).split()) for value in parsed.get_all("Received", [])]
    return [value.partition(" by ")[2].split()[0] for value in reversed(received)]


@pytest.mark.requirement("S4-83")
def test_mail_from_outside_reaches_the_mailbox(tiers: Tiers) -> None:
    """Fails without gateway, relay and mailbox server each passing our domain's mail on inward."""
    message = b"From: x@far.test\r\nSubject: inward\r\n\r\nhello\r\n"
    with tiers.connect("192.0.2.10:25", OUTSIDE) as client:
        client.sendmail("x@far.test", ["alice@example.test"], message)
    (stored,) = wait_for(lambda: [one for one in tiers.arrived() if b"Subject: inward" in one], bool, SECONDS)
    assert stored.endswith(message)
    assert hops(stored) == ["mx.example.test", "relay.example.test", "mbox1.example.test"]
    assert b"Return-Path: <x@far.test>" in stored


@pytest.mark.requirement("S4-83")
def test_mail_of_a_user_leaves_masqueraded_by_the_gateway(tiers: Tiers) -> None:
    """Fails without the smart hosts outward, and without our hosts' names being hidden on the mailbox server."""
    head = b'From: "Alice, pc7" <alice@pc7.example.test>\r\nReply-To: (x)\r\n alice@mbox1.example.test\r\n'
    rest = b"To: y@far.test\r\nSubject: outward\r\n\r\nFrom: alice@pc7.example.test\r\n"
    tiers.submit("alice@mbox1.example.test", "y@far.test", head + rest)
    sent = tiers.await_outside("y@far.test")
    assert sent.sender == "alice@example.test"
    assert sent.helo == "mx.example.test", "the gateway itself speaks to the outside"
    hidden = head.replace(b"@pc7.", b"@").replace(b"@mbox1.", b"@")
    assert sent.data.endswith(hidden + rest)
    assert hops(sent.data) == ["mbox1.example.test", "relay.example.test", "mx.example.test"]


@pytest.mark.requirement("S4-83")
def test_a_notification_leaves_by_the_gateway(tiers: Tiers) -> None:
    """Fails without the null sender taking the smart host, or without relay and gateway taking it from inside."""
    tiers.submit("", "z@far.test", b"From: alice@pc7.example.test\r\nSubject: Read: yours\r\n\r\nread\r\n")
    sent = tiers.await_outside("z@far.test")
    assert (sent.sender, sent.helo) == ("", "mx.example.test")
    assert b"From: alice@example.test\r\n" in sent.data
    assert hops(sent.data) == ["mbox1.example.test", "relay.example.test", "mx.example.test"]


@pytest.mark.requirement("S4-83")
def test_a_refusal_outside_comes_back_to_the_user(tiers: Tiers) -> None:
    """Fails without the gateway's notification finding the masqueraded sender's mailbox."""
    tiers.outside.script("RCPT", "550 5.1.1 nobody", match="nobody@far.test")
    tiers.submit("alice@mbox1.example.test", "nobody@far.test", b"From: alice@example.test\r\n\r\nx\r\n")
    (stored,) = wait_for(
        lambda: [one for one in tiers.arrived() if b"Final-Recipient: rfc822; nobody@far.test" in one],
        bool,
        SECONDS,
    )
    assert b"Reporting-MTA: dns; mx.example.test" in stored


@pytest.mark.requirement("S4-83")
@pytest.mark.parametrize("address", ["10.0.0.10:25", "10.0.0.20:25", "10.0.0.30:25"])
@pytest.mark.parametrize("sender", ["x@far.test", "alice@example.test", ""])
def test_the_inner_sides_refuse_the_outside(tiers: Tiers, address: str, sender: str) -> None:
    """Fails without inner listeners taking mail from their neighbours only, neither for us nor for others."""
    with tiers.connect(address, OUTSIDE) as client:
        client.mail(sender)
        assert client.rcpt("alice@example.test")[0] == 550
        assert client.rcpt("y@far.test")[0] == 550


@pytest.mark.requirement("S4-83")
@pytest.mark.parametrize("sender", ["x@far.test", "alice@example.test", ""])
def test_the_public_side_relays_for_nobody(tiers: Tiers, sender: str) -> None:
    """Fails without the public listener knowing no relay clients, whatever sender they name."""
    with tiers.connect("192.0.2.10:25", OUTSIDE) as client:
        client.mail(sender)
        assert client.rcpt("y@far.test")[0] == 550
        assert client.rcpt("alice@example.test")[0] == 250
