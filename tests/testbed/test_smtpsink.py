"""The scriptable next hop, spoken to over plain sockets and by the standard library's client."""

import gc
import smtplib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.smtpsink import SmtpSink
from testbed.tls import Authority

SECONDS = 5.0


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    with SmtpSink() as server:
        yield server


class Talk:
    """A transcript: what is sent, and the replies that come."""

    def __init__(self, sink: SmtpSink) -> None:
        self.socket = socket.create_connection(("127.0.0.1", sink.port), timeout=SECONDS)
        self.stream = self.socket.makefile("rb")

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def codes(self, count: int) -> list[bytes]:
        """The codes of the next `count` replies; a code of b"" is the end of the connection."""
        found = []
        while len(found) < count:
            line = self.stream.readline()
            if line[3:4] != b"-":
                found.append(line[:3])
        return found


def test_a_pipelined_transaction_is_kept_byte_for_byte(sink: SmtpSink) -> None:
    with Talk(sink) as talk:
        talk.send(b"EHLO client.test\r\n")
        assert talk.codes(2) == [b"220", b"250"]
        talk.send(b"MAIL FROM:<a@x.test> SIZE=10 BODY=8BITMIME\r\nRCPT TO:<b@x.test> NOTIFY=NEVER\r\nDATA\r\n")
        assert talk.codes(3) == [b"250", b"250", b"354"]
        talk.send(b"..one\r\n\r\n...\r\n\xff\r\n.\r")
        talk.send(b"\nQUIT\r\n")
        assert talk.codes(3) == [b"250", b"221", b""]
    [found] = sink.await_transactions(1)
    assert found.data == b".one\r\n\r\n..\r\n\xff\r\n"
    assert (found.helo, found.sender, found.parameters) == ("client.test", "a@x.test", ("SIZE=10", "BODY=8BITMIME"))
    assert (found.recipients[0].address, found.recipients[0].parameters) == ("b@x.test", ("NOTIFY=NEVER",))
    assert found.session.pipelined


def test_an_empty_content_and_a_quoted_address(sink: SmtpSink) -> None:
    with Talk(sink) as talk:
        talk.send(b'HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<"a >b"@x.test>\r\nDATA\r\n')
        assert talk.codes(5) == [b"220", b"250", b"250", b"250", b"354"]
        talk.send(b".\r\n")
        assert talk.codes(1) == [b"250"]
    [found] = sink.await_transactions(1)
    assert (found.sender, found.addresses, found.data) == ("", ['"a >b"@x.test'], b"")


def test_chunks_are_put_together(sink: SmtpSink) -> None:
    with Talk(sink) as talk:
        talk.send(b"EHLO c\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nBDAT 5\r\n.\r\n.\rBDAT 1 LAST\r\n\n")
        assert talk.codes(6) == [b"220", b"250", b"250", b"250", b"250", b"250"]
    assert sink.await_transactions(1)[0].data == b".\r\n.\r\n"


def test_replies_by_recipient_and_number_of_times(sink: SmtpSink) -> None:
    sink.script("RCPT", "450 4.2.1 later", match="bob@", times=2)
    with smtplib.SMTP("127.0.0.1", sink.port) as client:
        for _ in range(2):
            refused = client.sendmail("a@x.test", ["bob@x.test", "eve@x.test"], "x")
            assert refused == {"bob@x.test": (450, b"4.2.1 later")}
        assert client.sendmail("a@x.test", ["bob@x.test"], "x") == {}
    assert [found.addresses for found in sink.transactions] == [["eve@x.test"], ["eve@x.test"], ["bob@x.test"]]


def test_what_is_not_announced_is_refused(sink: SmtpSink) -> None:
    sink.keywords = ["SIZE 1000"]
    with smtplib.SMTP("127.0.0.1", sink.port) as client:
        client.ehlo()
        assert set(client.esmtp_features) == {"size"}
        assert client.docmd("MAIL FROM:<a@x.test> BODY=8BITMIME")[0] == 555
        assert client.docmd("MAIL FROM:<a@x.test> SIZE=5")[0] == 250


@pytest.mark.parametrize("point", ["CONNECT", "MAIL", "DATA", "END", "BODY"])
def test_the_connection_is_dropped_at(sink: SmtpSink, point: str) -> None:
    sink.script(point, drop=True, times=1)
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        send_one(sink)
    assert [found.accepted for found in sink.transactions] == ([()] if point == "END" else [])
    send_one(sink)
    assert sink.transactions[-1].accepted == ("b@x.test",)


def send_one(sink: SmtpSink) -> None:
    client = smtplib.SMTP(timeout=SECONDS)
    try:
        client.connect("127.0.0.1", sink.port)
        client.sendmail("a@x.test", ["b@x.test"], "hello")
    finally:
        client.close()


def test_a_last_reply_before_the_drop_arrives(sink: SmtpSink) -> None:
    sink.script("MAIL", "421 4.3.2 closing", drop=True)
    with Talk(sink) as talk:
        talk.send(b"EHLO c\r\nMAIL FROM:<>\r\n")
        assert talk.codes(4) == [b"220", b"250", b"421", b""]


def test_a_hanging_point_answers_nothing_and_ends_with_the_sink() -> None:
    with SmtpSink() as sink:
        sink.script("EHLO", hang=True)
        with Talk(sink) as talk:
            talk.send(b"EHLO c\r\n")
            assert talk.codes(1) == [b"220"]
            talk.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):
                talk.stream.readline()
            sink.stop()


def test_starttls_forgets_what_came_before_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with SmtpSink(certificate=authority.issue("sink.test"), users={"me": "secret"}) as sink:
        sink.hostname = "sink.test"
        with smtplib.SMTP("127.0.0.1", sink.port, timeout=SECONDS) as client:
            client._host = "sink.test"  # type: ignore[attr-defined]  # the name to verify
            client.starttls(context=authority.client_context())
            assert client.docmd("MAIL FROM:<>")[0] == 503
            client.login("me", "secret")
            client.sendmail("a@x.test", ["b@x.test"], "x")
    [found] = sink.transactions
    assert (found.tls, found.session.tls_name, found.login) == ("TLSv1.3", "sink.test", "me")
    assert found.session.error == ""


def test_injected_plain_text_is_dropped_at_starttls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with SmtpSink(certificate=authority.issue("sink.test")) as sink, Talk(sink) as talk:
        talk.send(b"EHLO c\r\nSTARTTLS\r\nMAIL FROM:<injected@x.test>\r\n")
        assert talk.codes(3) == [b"220", b"250", b"220"]
        context = authority.client_context()
        with context.wrap_socket(talk.socket, server_hostname="sink.test") as secured:
            secured.sendall(b"NOOP\r\n")
            assert secured.recv(100).startswith(b"250")
    assert "MAIL" not in " ".join(sink.sessions[0].commands)


def test_lmtp_answers_for_each_recipient() -> None:
    with SmtpSink(lmtp=True) as sink:
        sink.script("END", "452 4.2.2 full", match="b@")
        with Talk(sink) as talk:
            talk.send(b"EHLO c\r\nLHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
            assert talk.codes(7) == [b"220", b"500", b"250", b"250", b"250", b"250", b"354"]
            talk.send(b"hi\r\n.\r\n")
            assert talk.codes(2) == [b"250", b"452"]
        assert sink.await_transactions(1)[0].accepted == ("a@x.test",)


def test_connections_that_come_while_it_stops_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket left open would be told of in whatever test comes next."""
    left: list[str] = []
    gc.collect()
    monkeypatch.setattr(sys, "unraisablehook", lambda found: left.append(str(found.exc_value)))
    for _ in range(20):
        sink = SmtpSink()
        sink.start()
        clients = [socket.create_connection(("127.0.0.1", sink.port)) for _ in range(5)]
        sink.stop()
        for client in clients:
            client.close()
        del sink
        gc.collect()
    assert left == []
