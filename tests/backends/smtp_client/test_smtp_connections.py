"""Connections that are kept, bounded, replaced, and encrypted."""

from __future__ import annotations

import asyncio
import re

import pytest

from gatepost.backends.smtp_client import SmtpTransport
from gatepost.core.ports.transport import (
    HostFailure,
    HostPort,
    TlsUse,
)
from testbed.smtp_client import HELO, a_message, a_server, a_transport, changed, codes, host, send, until
from testbed.smtpsink import SmtpSink
from testbed.tls import Authority, Certificate


async def test_one_connection_carries_many_messages(transport: SmtpTransport, sink: SmtpSink) -> None:
    for _ in range(5):
        assert codes(await send(transport, sink)) == [(250, "2.0.0")]
    await transport.close()
    [session] = sink.sessions
    assert "RSET" not in session.commands
    assert session.commands[-1] == "QUIT"


async def test_a_connection_has_a_last_message(sink: SmtpSink) -> None:
    async with a_transport(changed(messages_per_connection=2)) as transport:
        for _ in range(5):
            assert codes(await send(transport, sink)) == [(250, "2.0.0")]
    assert [sum(c.startswith("MAIL") for c in session.commands) for session in sink.sessions] == [2, 2, 1]
    assert [session.commands[-1] for session in sink.sessions] == ["QUIT"] * 3


async def test_an_idle_connection_is_closed_politely(sink: SmtpSink) -> None:
    async with a_transport(changed(idle=0.1)) as transport:
        await send(transport, sink)
        await until(lambda: sink.sessions[0].commands[-1] == "QUIT")
        await send(transport, sink)
        assert len(sink.sessions) == 2


async def test_connections_to_one_host_are_bounded(sink: SmtpSink) -> None:
    async with a_transport(changed(connections_per_host=3)) as transport:
        results = await asyncio.gather(*(send(transport, sink) for _ in range(20)))
    assert [codes(replies) for replies in results] == [[(250, "2.0.0")]] * 20
    assert 1 <= len(sink.sessions) <= 3


@pytest.mark.parametrize("reply", [None, "421 4.4.2 idle too long"], ids=["closed", "421"])
async def test_a_kept_connection_that_was_closed_is_replaced_once(
    transport: SmtpTransport, sink: SmtpSink, reply: str | None
) -> None:
    await send(transport, sink)
    sink.script("MAIL", reply, drop=True, times=1)
    assert codes(await send(transport, sink)) == [(250, "2.0.0")]
    assert len(sink.sessions) == 2
    sink.script("MAIL", reply, drop=True, times=2)
    with pytest.raises(HostFailure):
        await send(transport, sink)
    assert len(sink.sessions) == 3


async def test_a_host_that_restarted_is_met_again(transport: SmtpTransport, sink: SmtpSink) -> None:
    await send(transport, sink)
    sink.stop()
    with pytest.raises(HostFailure):
        await send(transport, sink)
    sink.start()
    assert codes(await send(transport, sink)) == [(250, "2.0.0")]


async def test_a_connection_is_for_one_host_name_and_helo(transport: SmtpTransport, sink: SmtpSink) -> None:
    await transport.send(host(sink), a_message(), TlsUse.NEVER, HELO)
    await transport.send(host(sink, "other.test"), a_message(), TlsUse.NEVER, HELO)
    await transport.send(host(sink), a_message(), TlsUse.NEVER, "other.gatepost.test")
    assert [session.greeted_as for session in sink.sessions] == [HELO, HELO, "other.gatepost.test"]


async def test_encrypted_where_it_is_offered(transport: SmtpTransport, certificate: Certificate) -> None:
    with SmtpSink(certificate=certificate) as sink:
        for _ in range(2):
            replies = await transport.send(host(sink), a_message(), TlsUse.OPPORTUNISTIC, HELO)
            assert codes(replies) == [(250, "2.0.0")]
        assert len(sink.sessions) == 1
        [first, _] = sink.transactions
        assert re.fullmatch(r"TLSv1\.[23]", first.tls)
        assert first.session.tls_name == "sink.test"
        # Introduced again under TLS (RFC 3207 4.2).
        assert [c for c in sink.sessions[0].commands if c.startswith("EHLO")] == [f"EHLO {HELO}"] * 2


async def test_never_means_never(transport: SmtpTransport, certificate: Certificate) -> None:
    with SmtpSink(certificate=certificate) as sink:
        await transport.send(host(sink), a_message(), TlsUse.NEVER, HELO)
        assert sink.transactions[0].tls == ""


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "554 5.7.0 no"])
async def test_opportunistic_goes_on_in_clear_when_starttls_is_refused(
    transport: SmtpTransport, certificate: Certificate, reply: str
) -> None:
    with SmtpSink(certificate=certificate) as sink:
        sink.script("STARTTLS", reply)
        await transport.send(host(sink), a_message(), TlsUse.OPPORTUNISTIC, HELO)
        assert sink.transactions[0].tls == ""
        assert len(sink.sessions) == 1


async def test_a_failed_handshake_falls_back_only_when_opportunistic() -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-hi\r\n250 STARTTLS\r\n")
        line = await reader.readline()
        verbs.append(line[:4])
        if line.startswith(b"STARTTLS"):
            writer.write(b"220 go\r\n")
            await reader.read(100)
            writer.write(b"this is no handshake at all, and long enough to be read as one\r\n")
            await reader.read()
            return
        for answer in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            writer.write(answer)
            await reader.readline()
        while await reader.readline() != b".\r\n":
            pass
        writer.write(b"250 stored\r\n")
        await reader.readline()

    verbs: list[bytes] = []
    async with a_server(broken) as port:
        where = HostPort("sink.test", "127.0.0.1", port)
        async with a_transport() as transport:
            with pytest.raises(HostFailure) as failure:
                await transport.send(where, a_message(), TlsUse.REQUIRE, HELO)
            assert (failure.value.reply.code, failure.value.reply.enhanced) == (451, "4.7.5")
            assert verbs == [b"STAR"]
            replies = await transport.send(where, a_message(), TlsUse.OPPORTUNISTIC, HELO)
            assert codes(replies) == [(250, "")]
            assert verbs == [b"STAR", b"STAR", b"MAIL"]


async def test_required_means_checked(certificate: Certificate, authority: Authority) -> None:
    with SmtpSink(certificate=certificate) as sink:
        async with a_transport(ca_file=str(authority.certificate)) as trusting:
            replies = await trusting.send(host(sink), a_message(), TlsUse.REQUIRE, HELO)
            assert codes(replies) == [(250, "2.0.0")]
            with pytest.raises(HostFailure) as other_name:
                await trusting.send(host(sink, "other.test"), a_message(), TlsUse.REQUIRE, HELO)
            assert other_name.value.reply.enhanced == "4.7.5"
        async with a_transport() as stranger:
            with pytest.raises(HostFailure) as unknown_ca:
                await stranger.send(host(sink), a_message(), TlsUse.REQUIRE, HELO)
            assert unknown_ca.value.reply.enhanced == "4.7.5"
            assert "certificate" in unknown_ca.value.reply.text
        assert [transaction.tls != "" for transaction in sink.transactions] == [True]


@pytest.mark.parametrize("offered", [False, True], ids=["not-offered", "refused"])
async def test_required_and_not_to_be_had(
    transport: SmtpTransport, certificate: Certificate, offered: bool
) -> None:
    with SmtpSink(certificate=certificate if offered else None) as sink:
        sink.script("STARTTLS", "454 4.7.0 not now")
        with pytest.raises(HostFailure) as failure:
            await transport.send(host(sink), a_message(), TlsUse.REQUIRE, HELO)
        assert (failure.value.reply.code, failure.value.reply.enhanced) == (451, "4.7.4")
        assert not any(command.startswith("MAIL") for command in sink.sessions[0].commands)


async def test_replies_injected_before_the_handshake_do_not_count(certificate: Certificate) -> None:
    with SmtpSink(certificate=certificate) as sink:
        sink.script("STARTTLS", "220 2.0.0 go ahead\r\n250-injected\r\n250 AUTH PLAIN")
        async with a_transport() as transport:
            with pytest.raises(HostFailure):
                await transport.send(host(sink), a_message(), TlsUse.REQUIRE, HELO)
        assert sink.transactions == []
