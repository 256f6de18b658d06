"""Dialogues of Apache James and chasquid (tests/data/smtp): their steps, the codes that our policy gives.

The words of the replies are those servers' own, and a few codes are a matter of taste; what must agree is the class
of each reply, and the code itself where the RFC leaves no choice. Scripts that need what Gatepost does not do
(LMTP as a client, DSNs, SPF, local pipes) are other tests' business.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

DATA = Path(__file__).parent.parent / "data/smtp"
CHASQUID = "t-12-minor_dialogs--"

OPEN_AUTH: dict[str, Any] = {"auth_enabled": True, "auth_directory": "people", "auth_require_tls": False}


async def edge_for(make_edge: MakeEdge, **arguments: Any) -> Edge:
    domains = tuple(make_edge.domain(name, default=False) for name in ("testserver", "mydomain.tld"))
    edge = await make_edge(domains=domains, **arguments)
    edge.directory.add("user@testserver", password="secretpassword")
    edge.directory.add("bob@mydomain.tld", password="secret")
    edge.directory.add("starttls@mydomain.tld")
    return edge


# -- James: C: lines and S: lines; EHLO and DATA are waited for, as RFC 2920 3.1 asks of a client

STEP = re.compile(r"([CS]): ?(.*)")


def lines_of(name: str) -> list[str]:
    return (DATA / name).read_text("utf-8").splitlines()


async def james(client: Client, script: str) -> list[tuple[str, str]]:
    """Play a script; returns (the code it wants, our reply) for each reply."""
    steps = [found.groups() for line in lines_of(script) if (found := STEP.fullmatch(line))]
    wanted = [text for side, text in steps if side == "S" and text[3:4] not in "-."]  # "250.*" is a first line
    replies = [await client.reply()]
    in_content = False
    for side, text in steps:
        if side == "S":
            continue
        client.send(text.replace("\\r\\n", "\r\n") + "\r\n")
        if in_content:
            in_content = text != "."
            if in_content:
                continue
        replies.append(await client.reply())
        in_content = text.lower() == "data"
    assert len(wanted) == len(replies), replies
    return [(want[:3], reply) for want, reply in zip(wanted, replies, strict=True)]


@pytest.mark.parametrize(
    "name", ["helo", "data_starts_with_starttls", "data_with_starttls", "rcpt_with_starttls", "starttls"]
)
async def test_james(name: str, make_edge: MakeEdge) -> None:
    edge = await edge_for(make_edge, tls=True, **OPEN_AUTH)
    client = await edge.connect()
    for wanted, reply in await james(client, f"james/{name}.test"):
        assert reply.startswith(wanted), (wanted, reply)


async def test_james_injection(make_edge: MakeEdge) -> None:
    """James answers 451, we 421 since the connection goes with it: temporary in both, and nothing is obeyed."""
    edge = await edge_for(make_edge, tls=True)
    client = await edge.connect()
    *before, (wanted, reply) = await james(client, "james/starttls_with_injection.test")
    assert [r[:3] for _, r in before] == ["220", "250"]
    assert (wanted, reply[:3]) == ("451", "421")
    assert await client.rest() == b""


async def test_james_session_fixation(make_edge: MakeEdge) -> None:
    """STARTTLS after AUTH in a transaction: James says 501, the code for a command out of place is 503."""
    edge = await edge_for(make_edge, tls=True, **OPEN_AUTH)
    client = await edge.connect()
    results = await james(client, "james/starttls_session_fixation.test")
    assert all(reply.startswith(wanted) for wanted, reply in results[:-1])
    assert (results[-1][0], results[-1][1][:9]) == ("501", "503 5.5.1")


# -- chasquid

LINE = re.compile(r"c (tcp_connect|tls_connect|->|~>|<-|<~|<\.\.\.|close) ?(.*)")


def python_bytes(text: str) -> bytes:
    """The bytes of a ~> line: literals, put together by + and *."""

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.BinOp(left, ast.Add(), right):
                return value(left) + value(right)
            case ast.BinOp(left, ast.Mult(), right):
                return value(left) * value(right)
        raise ValueError(ast.dump(node))

    return str(value(ast.parse(text, mode="eval").body)).encode()


async def chasquid(name: str, connect: Callable[[str], Any]) -> list[tuple[str, str]]:
    client: Client | None = None
    results = []
    for text in lines_of(f"chasquid/{name}.cmy"):
        if not text.startswith("c "):
            continue
        found = LINE.fullmatch(text)
        assert found is not None, text
        verb, argument = found.groups()
        if verb in ("tcp_connect", "tls_connect"):
            client = await connect(verb)
            continue
        assert client is not None
        match verb:
            case "->":
                client.send(argument + "\r\n")
            case "~>":
                client.send(python_bytes(argument))
            case "<-" | "<~":
                results.append((argument[:3], await client.reply()))
            case "<...":
                assert (await client.reply()).startswith(argument[:3])
            case "close":
                await client.close()
    return results


# name -> the codes of ours that differ from chasquid's, by the number of the reply, and why
TASTE: dict[str, dict[int, tuple[str, str]]] = {
    f"{CHASQUID}helo": {},
    f"{CHASQUID}empty_helo": {},
    f"{CHASQUID}sendmail": {},
    f"{CHASQUID}message_too_big": {},
    f"{CHASQUID}data_dot_stuffing": {},
    f"{CHASQUID}unknown_command": {},
    "t-05-null_address--sendmail": {},
    f"{CHASQUID}bad_mail_from": {
        2: ("501 5.5.4", "MAIL is known, its argument is wrong"),
        3: ("501 5.5.4", "the same"),
    },
    f"{CHASQUID}bad_rcpt_to": {
        3: ("501 5.5.4", "RCPT is known, its argument is wrong"),
        4: ("501 5.5.4", "the same"),
        13: ("553 5.6.7", "a non-ASCII address without SMTPUTF8 (RFC 6531 3.5)"),
    },
    f"{CHASQUID}line_too_long": {1: ("500 5.5.2", "RFC 5321 4.5.3.1.10: 500 Line too long")},
    f"{CHASQUID}bad_data_dot": {4: ("550 5.5.2", "521 says that the host takes no mail (RFC 7504)")},
    f"{CHASQUID}bad_data_dot_2": {4: ("550 5.5.2", "the same")},
    f"{CHASQUID}bad_data_dot_on_message_too_big": {4: ("550 5.5.2", "the same")},
    f"{CHASQUID}wrong_proto": dict.fromkeys((1, 3, 5), ("500 5.5.2", "a command of another protocol is unknown")),
    f"{CHASQUID}auth_not_tls": {1: ("538 5.7.11", "the code for AUTH that needs encryption (RFC 4954 6)")},
    f"{CHASQUID}auth_multi_dialog": {
        1: ("504 5.5.4", "an unknown mechanism (RFC 4954 4)"),
    },
}


@pytest.mark.parametrize("name", TASTE)
async def test_chasquid(name: str, make_edge: MakeEdge) -> None:
    implicit = any("tls_connect" in line for line in lines_of(f"chasquid/{name}.cmy"))
    edge = await edge_for(
        make_edge,
        implicit=implicit,
        message_size=2**20,
        auth_enabled="auth" in name,
        auth_directory="people",
    )

    async def connect(verb: str) -> Client:
        if verb == "tcp_connect":
            return await edge.connect()
        assert edge.authority is not None
        return await edge.connect(ssl=edge.authority.client_context(), server_hostname="mx.example.test")

    results = await chasquid(name, connect)
    differences = {number: reply for number, (wanted, reply) in enumerate(results) if not reply.startswith(wanted)}
    expected = TASTE[name]
    assert differences.keys() == expected.keys(), (differences, results)
    for number, reply in differences.items():
        assert reply.startswith(expected[number][0]), (reply, expected[number])
        assert reply[0] == results[number][0][0], "the class differs"


async def test_chasquid_content_arrives_unstuffed(make_edge: MakeEdge) -> None:
    """The file beside the script says what the recipient must read."""
    edge = await edge_for(make_edge, message_size=2**20)
    await chasquid(f"{CHASQUID}data_dot_stuffing", lambda _: edge.connect())
    ((_, content),) = edge.messages()
    expected = (DATA / f"chasquid/{CHASQUID}data_dot_stuffing.cmy.verify").read_bytes().replace(b"\n", b"\r\n")
    assert content.strip() == expected.strip()
