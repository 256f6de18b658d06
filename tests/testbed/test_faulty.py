"""The proxy that goes away: each fault as a client sees it, and everything that was held up comes afterwards."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from testbed.dns import FakeDns
from testbed.faulty import Fault, Faulty
from testbed.smtpsink import SmtpSink

BLINK = 0.3
PATIENCE = 10.0


@pytest.fixture
def proxy() -> Iterator[Faulty]:
    with SmtpSink() as sink, Faulty(sink.port) as made:
        yield made


def connect(proxy: Faulty, seconds: float = PATIENCE) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=seconds)


def test_it_passes_everything_on(proxy: Faulty) -> None:
    with connect(proxy) as client:
        assert client.recv(1000).startswith(b"220 ")
        client.sendall(b"NOOP\r\n")
        assert client.recv(1000).startswith(b"250 ")


def test_refused_and_back(proxy: Faulty) -> None:
    with connect(proxy) as client:
        assert client.recv(1000)
        proxy.hurt(Fault.REFUSED)
        with pytest.raises(ConnectionResetError):
            client.recv(1000)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.heal()
    with connect(proxy) as client:
        assert client.recv(1000).startswith(b"220 ")


def test_reset(proxy: Faulty) -> None:
    proxy.hurt(Fault.RESET)
    with pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1000)


def test_what_hangs_goes_on_afterwards(proxy: Faulty) -> None:
    with connect(proxy) as old:
        assert old.recv(1000)
        proxy.hurt(Fault.HUNG)
        old.sendall(b"NOOP\r\n")
        old.settimeout(BLINK)
        with pytest.raises(TimeoutError):
            old.recv(1000)
        with connect(proxy, BLINK) as new:
            with pytest.raises(TimeoutError):
                new.recv(1000)
            proxy.heal()
            old.settimeout(PATIENCE)
            new.settimeout(PATIENCE)
            assert old.recv(1000).startswith(b"250 ")
            assert new.recv(1000).startswith(b"220 ")


def test_slow_is_late_in_each_direction_and_in_order(proxy: Faulty) -> None:
    with connect(proxy) as client:
        assert client.recv(1000)
        proxy.hurt(Fault.SLOW, BLINK)
        begun = time.monotonic()
        client.sendall(b"NOOP\r\n")
        client.sendall(b"RSET\r\n")
        answers = b""
        while answers.count(b"\r\n") < 2:
            answers += client.recv(1000)
        assert time.monotonic() - begun >= 2 * BLINK
        assert b"nothing" in answers.splitlines()[0]


def test_one_slow_question_is_slow_alone(proxy: Faulty) -> None:
    proxy.slow_for, proxy.delay = lambda data: b"NOOP" in data, PATIENCE
    with connect(proxy) as slow, connect(proxy) as other:
        assert slow.recv(1000)
        assert other.recv(1000)
        slow.sendall(b"NOOP\r\n")
        other.sendall(b"RSET\r\n")
        assert other.recv(1000).startswith(b"250 ")
        slow.settimeout(BLINK)
        with pytest.raises(TimeoutError):
            slow.recv(1000)


def test_datagrams() -> None:
    question = bytes.fromhex("0001010000010000000000000161047465737400") + b"\x00\x01\x00\x01"
    with (
        FakeDns("a.test. 60 IN A 192.0.2.1\n") as dns,
        Faulty(dns.port) as proxy,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.connect(("127.0.0.1", proxy.port))
        client.settimeout(PATIENCE)
        client.send(question)
        assert client.recv(1000).endswith(bytes([192, 0, 2, 1]))
        proxy.hurt(Fault.HUNG)
        client.settimeout(BLINK)
        client.send(question)
        with pytest.raises(TimeoutError):
            client.recv(1000)
        proxy.hurt(Fault.REFUSED)
        client.settimeout(PATIENCE)
        client.send(question)
        with pytest.raises(ConnectionRefusedError):
            client.recv(1000)
