"""What stands in the log, in the events, in the metrics and in the process's own log after each decision."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import structlog.testing
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gatepost.core.configuration import ClientRule
from gatepost.core.envelope import BodyType, Trust
from gatepost.core.ids import is_id, time_of
from gatepost.telemetry import metrics
from gatepost.telemetry.tracing import Tracer, parse_traceparent

if TYPE_CHECKING:
    from conftest import Edge, MakeEdge

NOW_MS = 1_790_000_000_000


async def test_envelope_of_a_plain_message(edge: Edge) -> None:
    """Each fact of the transaction has its place."""
    client = await edge.client()
    await client.begin("bob@EXAMPLE.test", "bob@example.test", "Alice@example.test", sender="Jo@example.org")
    client.send(b"Subject: x\r\n\r\n\xff\r\n.\r\n")
    reply = await client.reply()
    ((envelope, value),) = edge.messages()
    assert reply.endswith(envelope.id)
    assert is_id(envelope.id)
    assert time_of(envelope.id) == envelope.received_ms == NOW_MS
    assert value == b"Subject: x\r\n\r\n\xff\r\n"
    assert envelope.size == len(value)
    assert envelope.reverse_path == "Jo@example.org"
    assert [(each.address, each.original) for each in envelope.recipients] == [
        ("bob@example.test", "bob@EXAMPLE.test"),
        ("Alice@example.test", ""),
    ]
    assert envelope.trust is Trust.UNVERIFIED
    assert envelope.body is BodyType.EIGHT_BIT_MIME, "8-bit content came undeclared"
    assert not envelope.smtputf8
    assert envelope.content is None
    assert (envelope.client.address, envelope.client.helo) == ("127.0.0.1", "client.example.org")
    assert (envelope.client.listener, envelope.client.login, envelope.client.tls) == ("mx", "", "")
    assert envelope.client.port > 0


@pytest.mark.requirement("S4-44")
async def test_received_field(edge: Edge) -> None:
    """Fails without any of from, by, with, id, date (RFC 5321 4.4), or without `for` being left out for several."""
    client = await edge.client()
    await client.begin("bob@example.test")
    client.send(b".\r\n")
    await client.reply()
    await client.begin("bob@example.test", "alice@example.test")
    client.send(b".\r\n")
    await client.reply()
    (one, _), (two, _) = edge.messages()
    assert one.prepend == (
        "Received: from client.example.org ([127.0.0.1])\r\n"
        f"\tby mx.example.test with ESMTP (client port {one.client.port})\r\n"
        f"\tid {one.id}\r\n"
        "\tfor <bob@example.test>;\r\n"
        "\tMon, 21 Sep 2026 14:13:20 +0000\r\n"
    )
    assert f"\tid {two.id};\r\n" in two.prepend
    assert "bob" not in two.prepend


async def test_smtputf8_message(edge: Edge) -> None:
    edge.directory.add("ü@example.test")
    client = await edge.client()
    await client.begin("ü@example.test", sender="ä@bücher.example", parameters=" SMTPUTF8 BODY=8BITMIME")
    client.send(b".\r\n")
    assert (await client.reply()).startswith("250")
    ((envelope, _),) = edge.messages()
    assert envelope.smtputf8
    assert envelope.reverse_path == "ä@xn--bcher-kva.example"
    assert envelope.recipients[0].address == "ü@example.test"
    assert "with UTF8SMTP (" in envelope.prepend


async def test_bare_postmaster_is_completed(edge: Edge) -> None:
    client = await edge.client()
    await client.begin("Postmaster")
    client.send(b".\r\n")
    assert (await client.reply()).startswith("250")
    ((envelope, _),) = edge.messages()
    assert envelope.recipients[0].address == "postmaster@example.test"


@pytest.mark.requirement("S0-65")
async def test_a_refusal_is_one_line_an_event_and_a_count(edge: Edge) -> None:
    """Fails without line, event and count of a refusal, with client, names, addresses, code, check and id."""
    client = await edge.client()
    await client.ask("MAIL FROM:<mark@example.org>")
    before = metrics.REPLIES.values.get(("mx", "recipient", "550"), 0)
    with structlog.testing.capture_logs() as lines:
        reply = await client.ask("RCPT TO:<nobody@example.test>")
    session_id = reply.rpartition(" ")[2]
    assert is_id(session_id)
    assert reply == f"550 5.1.1 <nobody@example.test>: user unknown (recipient) {session_id}"
    (line,) = lines
    assert line == {
        "event": "refused",
        "log_level": "info",
        "decision": "refused",
        "listener": "mx",
        "client": "127.0.0.1",
        "port": client.writer.get_extra_info("sockname")[1],
        "helo": "client.example.org",
        "login": "",
        "from": "<mark@example.org>",
        "to": "<nobody@example.test>",
        "code": 550,
        "enhanced": "5.1.1",
        "check": "recipient",
        "text": "<nobody@example.test>: user unknown",
        "id": session_id,
    }
    (event,) = edge.events.all
    assert (event.id, event.kind, event.service, event.recipient) == (
        session_id,
        "refused",
        "edge",
        "nobody@example.test",
    )
    assert event.facts["check"] == "recipient"
    assert event.facts["code"] == "550"
    assert metrics.REPLIES.values["mx", "recipient", "550"] == before + 1


async def test_an_acceptance_is_one_line_an_event_and_counts(edge: Edge) -> None:
    client = await (await edge.client()).begin()
    before = metrics.MESSAGES_ACCEPTED.values.get(("mx",), 0), metrics.BYTES_ACCEPTED.values.get(("mx",), 0)
    with structlog.testing.capture_logs() as lines:
        client.send(b"12345678\r\n.\r\n")
        await client.reply()
    ((envelope, _),) = edge.messages()
    (line,) = lines
    assert line["event"] == line["decision"] == "accepted"
    assert line["id"] == envelope.id
    assert (line["from"], line["to"], line["client"]) == ("<alice@example.org>", "<bob@example.test>", "127.0.0.1")
    (event,) = edge.events.all
    assert (event.id, event.kind, event.at_ms) == (envelope.id, "accepted", NOW_MS)
    header = edge.records()[0].header("traceparent")
    context = parse_traceparent(header)
    assert context is not None
    assert event.trace_id == context.trace_id == line["trace"]
    assert metrics.MESSAGES_ACCEPTED.values["mx",] == before[0] + 1
    assert metrics.BYTES_ACCEPTED.values["mx",] == before[1] + 10


def tracer_with(exporter: InMemorySpanExporter, sampling: float) -> Tracer:
    tracer = Tracer("edge", exporter=exporter, sampling=sampling)
    assert tracer._provider is not None
    tracer._provider.add_span_processor(SimpleSpanProcessor(exporter))  # at once, not in batches
    return tracer


async def test_a_sampled_message_is_a_span_with_its_checks(make_edge: MakeEdge) -> None:
    exporter = InMemorySpanExporter()
    tracer = tracer_with(exporter, 1.0)
    edge = await make_edge(tracer=tracer, relay_clients=(ClientRule(("127.0.0.1",), ("Local",)),))
    client = await edge.client()
    await client.ask("MAIL FROM:<bob@example.test>")
    await client.ask("RCPT TO:<bob@example.test>")
    await client.ask("RCPT TO:<nobody@example.test>")
    await client.ask("RCPT TO:<friend@far.example>")
    await client.ask("DATA")
    client.send(b".\r\n")
    await client.reply()
    tracer.close()
    (span,) = {span.context.span_id: span for span in exporter.get_finished_spans()}.values()
    assert span.name == "gatepost.edge receive"
    assert span.kind.name == "PRODUCER"
    assert [event.name for event in span.events] == ["mail", "recipient", "refused", "relay"]
    header = edge.records()[0].header("traceparent")
    assert header == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01".encode()
    ((envelope, _),) = edge.messages()
    assert span.attributes is not None
    assert span.attributes["messaging.message.id"] == envelope.id


async def test_an_unsampled_refusal_is_a_span_of_its_own(make_edge: MakeEdge) -> None:
    exporter = InMemorySpanExporter()
    tracer = tracer_with(exporter, 0.0)
    edge = await make_edge(tracer=tracer)
    client = await edge.client()
    await client.ask("MAIL FROM:<bob@example.test>")
    await client.ask("RCPT TO:<nobody@example.test>")
    tracer.close()
    (span,) = {span.context.span_id: span for span in exporter.get_finished_spans()}.values()
    assert span.attributes is not None
    assert span.attributes["gatepost.check"] == "recipient"
    assert not span.status.is_ok


@pytest.mark.parametrize("size", [600, 2046, 2047, 2048, 4094, 4095, 16_383, 16_384, 16_385, 40_000])
async def test_the_hash_is_that_of_the_whole_body(edge: Edge, size: int) -> None:
    """Small parts are hashed in portions: none may be missing where one ends."""
    head = b"Subject: hash\r\nFrom: a@example.org\r\nDate: Sun, 1 Feb 2026 12:00:00 +0000\r\n\r\n"
    line = bytes(range(97, 123)) * 20 + b"\r\n"
    body = (head + line * (size // len(line) + 1))[: size - 2] + b"\r\n"
    client = await (await edge.client()).begin()
    client.send(body + b".\r\n")
    assert (await client.reply()).startswith("250 ")
    ((envelope, _),) = edge.messages()
    assert envelope.size == len(body)
    assert envelope.sha256 == hashlib.sha256(body).hexdigest()
