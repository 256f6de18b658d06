"""Header, charset and attachment rules at the door: what acts, what is told, and what leaves changed."""

from __future__ import annotations

import base64
import io
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from gatepost.backends.store_maildir import MaildirStore
from gatepost.core.checks.attachments import AttachmentPolicy
from gatepost.core.checks.authentication import AuthenticationPolicy
from gatepost.core.checks.charset import CharsetPolicy
from gatepost.core.checks.connection import ConnectionRules
from gatepost.core.checks.header_rules import HeaderRule
from gatepost.core.configuration_content import ContentPolicy
from gatepost.core.envelope import Destination
from gatepost.core.leaving import leaving_bytes
from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.settings import MaildirSettings
from gatepost.edge import content_rules
from gatepost.router.copies import NearCopy
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, MakeEdge

HEADERS = (HeaderRule("Subject", ("subject",), "^AD:", Action.REJECT),)


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"MZ")
    return file.getvalue()


def mail(*parts: bytes, subject: bytes = b"s") -> bytes:
    """A multipart/mixed of parts with their headers."""
    body = b"".join(b"--a\r\n" + part + b"\r\n" for part in parts)
    return b"Subject: " + subject + b"\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n" + body + b"--a--\r\n"


def file(name: str, data: bytes = b"MZ") -> bytes:
    text = base64.encodebytes(data).replace(b"\n", b"\r\n").removesuffix(b"\r\n")
    head = f'Content-Type: application/octet-stream; name="{name}"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    return head.encode() + text


TEXT = b"Content-Type: text/plain\r\n\r\nHi"


async def send(client: Client, message: bytes, *recipients: str) -> str:
    await client.begin(*recipients)
    client.send(message + b".\r\n")
    return await client.reply()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ContentPolicy(headers=HEADERS), mail(TEXT, subject=b"AD: x")),
        (ContentPolicy(charset=CharsetPolicy(("utf-8",), Action.REJECT)), mail(b"\r\n\xff")),
        (ContentPolicy(attachments=AttachmentPolicy((("exe", Action.REJECT),))), mail(TEXT, file("x.exe"))),
        (ContentPolicy(attachments=AttachmentPolicy(malformed=Action.REJECT)), mail(TEXT)[:-7]),
        (ContentPolicy(attachments=AttachmentPolicy(opaque=Action.REJECT)), mail(file("x.7z"))),
        (
            ContentPolicy(attachments=AttachmentPolicy((("exe", Action.REJECT),))),
            mail(file("x.zip", zipped("a.txt", "x.exe"))),
        ),
    ],
)
@pytest.mark.parametrize("large", [False, True])
async def test_every_check_refuses_alone(
    make_edge: MakeEdge, content: ContentPolicy, message: bytes, large: bool
) -> None:
    """Also for a body that is written while it comes; without the rules the same message is taken."""
    if large:
        message = message.replace(b"Subject", b"X-Filler: y\r\nSubject", 1).replace(
            b"--a\r\n", b"--a\r\n\r\n" + b"filler\r\n" * 20_000 + b"--a\r\n", 1
        )
    edge = await make_edge(content=content)
    client = await edge.client()
    reply = await send(client, message)
    assert reply.startswith("554 5."), reply
    assert edge.messages() == []
    (event,) = [one for one in edge.events.all if one.kind == "judged"]
    assert event.facts["action"] == "Reject"
    edge.configure(content=ContentPolicy())
    assert (await send(client, message)).startswith("250")


@pytest.mark.requirement("S0-37")
@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        (Action.REJECT, "554"),
        (Action.DEFER, "451"),
        (Action.DISCARD, "discarded"),
        (Action.QUARANTINE, "quarantine"),
        (Action.TAG, "tag"),
        (Action.ACCEPT, "taken"),
    ],
)
async def test_every_action_works(make_edge: MakeEdge, action: Action, outcome: str) -> None:
    """Fails without an action of its own for each rule, which is off until a policy names it."""
    policy = ContentPolicy(
        headers=(HeaderRule("Subject", ("subject",), "^AD:", action),),
        attachments=AttachmentPolicy((("exe", action),)),
    )
    for message, told in (
        (mail(TEXT, subject=b"AD: x"), "header-rule: Subject"),
        (mail(TEXT, file("x.exe")), "attachment: .exe: x.exe"),
    ):
        edge = await make_edge(content=policy)
        reply = await send(await edge.client(), message)
        taken = edge.messages()
        if outcome.isdigit():
            assert (reply[:3], taken) == (outcome, [])
            continue
        assert reply.startswith("250")
        if outcome == "discarded":
            assert taken == []
            assert "discarded" in edge.events.kinds()
            continue
        ((envelope, value),) = taken
        assert value == message
        assert envelope.recipients[0].quarantine == (told if outcome == "quarantine" else "")
        assert envelope.tags == ((told,) if outcome == "tag" else ())


async def test_exempt_clients_are_spared_by_rules_on_headers_and_texts_only(make_edge: MakeEdge) -> None:
    policy = ContentPolicy(
        headers=HEADERS,
        charset=CharsetPolicy(("utf-8",), Action.REJECT),
        attachments=AttachmentPolicy((("exe", Action.REJECT),)),
    )
    edge = await make_edge(content=policy, connection=ConnectionRules(allow=("127.0.0.0/8",)))
    client = await edge.client()
    assert (await send(client, mail(b"\r\n\xff", subject=b"AD: x"))).startswith("250")
    assert (await send(client, mail(file("x.exe")))).startswith("554 5.7.1 files with the extension .exe")


async def test_the_verdict_is_told_with_its_facts(make_edge: MakeEdge) -> None:
    edge = await make_edge(content=ContentPolicy(attachments=AttachmentPolicy((("exe", Action.TAG),))))
    before = metrics.ARCHIVES.values.get(("looked",), 0)
    await send(await edge.client(), mail(TEXT, file("a\u202e\x01.zip", zipped("d/" + "l" * 200 + "x.exe"))))
    (event,) = [one for one in edge.events.all if one.kind == "judged"]
    facts = {key: event.facts[key] for key in ("check", "rule", "part", "archive", "action")}
    assert facts == {"check": "attachment", "rule": ".exe", "part": "3", "archive": "a.zip", "action": "Tag"}
    assert event.facts["file"].endswith("x.exe")
    assert len(event.facts["file"]) <= 80
    assert metrics.ARCHIVES.values[("looked",)] == before + 1


async def test_a_look_that_takes_too_long_is_given_up(make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    held, left = threading.Event(), threading.Event()

    class Slow:
        def __init__(self, budget: Any, note: Any, scratch: Any) -> None: ...

        def look(self, file: Any, name: str) -> None:
            held.wait(20)
            left.set()

    monkeypatch.setattr(content_rules, "Looking", Slow)
    monkeypatch.setattr(content_rules, "DEADLINE", 0.05)
    edge = await make_edge(content=ContentPolicy(attachments=AttachmentPolicy(opaque=Action.DEFER)))
    try:
        reply = await send(await edge.client(), mail(file("x.zip", zipped("a"))))
    finally:
        held.set()
    assert reply.startswith("451 4.7.1 an archive in the message cannot be looked into (attachment)")
    assert left.wait(20)


async def test_archives_that_nobody_has_time_for_are_asked_for_again(
    make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, threads = threading.Event(), ThreadPoolExecutor(1)
    threads.submit(gate.wait, 20)
    monkeypatch.setattr(content_rules, "_threads", threads)
    monkeypatch.setattr(content_rules, "DEADLINE", 0.05)
    edge = await make_edge(content=ContentPolicy(attachments=AttachmentPolicy()))
    client = await edge.client()
    try:
        reply = await send(client, mail(file("x.zip", zipped("a"))))
        assert reply.startswith("451 4.3.2 too many archives at a time, please try again later (attachment)")
        assert (await send(client, mail(TEXT))).startswith("250")
    finally:
        gate.set()
        threads.shutdown()


async def test_what_is_removed_stays_in_the_log_and_leaves_without_it(make_edge: MakeEdge, tmp_path: Path) -> None:
    policy = ContentPolicy(attachments=AttachmentPolicy(remove=("scr", "vbs")))
    edge = await make_edge(content=policy, authentication=AuthenticationPolicy())
    forged = b"Authentication-Results: mx.example.test; dmarc=pass\r\n"
    message = forged + mail(TEXT, file("x.SCR"), file("in.zip", zipped("y.vbs")), file("kept.txt"))
    assert (await send(await edge.client(), message)).startswith("250")
    ((envelope, value),) = edge.messages()
    assert value == message
    assert len(envelope.strip) == 3
    assert list(envelope.tags) == ["attachment: removed x.SCR", "attachment: removed y.vbs in in.zip"]
    store = MaildirStore(MaildirSettings(path="mail"), tmp_path, "mx.example.test")
    await store.start()
    copy = msgspec.structs.replace(envelope, destination=Destination(store="local", mailbox="bob"))
    await store.deliver([NearCopy(copy, value, None).delivery()])
    await store.close()
    (path,) = [one for one in (tmp_path / "mail").rglob("new/*") if one.is_file()]
    front, left = path.read_bytes().split(b"Subject: s\r\n")
    assert b"X-Gatepost-Tag: attachment; removed x.SCR\r\n" in front
    assert b"dmarc=pass" not in front
    assert b"Subject: s\r\n" + left == leaving_bytes(value, envelope.strip, envelope.insert)
    head, text, first, second, kept = left.split(b"--a\r\n")
    assert head == b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"
    assert text == TEXT + b"\r\n"
    assert b'The file "x.SCR" was removed' in first
    assert b'The file "in.zip" was removed' in second
    assert kept == file("kept.txt") + b"\r\n--a--\r\n"
