"""Runs every dialogue of tests/transcripts (its README has the format)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml

from gatepost.backends.scanner_table import TableScanners
from gatepost.core.configuration import ListenerPolicy
from gatepost.core.configuration_layers import Overlay
from gatepost.core.ports.scanner import Advice, ScannerRefused, ScannerUnavailable, ScanResult

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

FOLDER = Path(__file__).parent.parent / "transcripts"
ESCAPE = re.compile(r"\\(?:(r)|(n)|(0)|x([0-9a-f]{2})|(\\))")
ERRORS = {"UNAVAILABLE": ScannerUnavailable("away"), "REFUSED": ScannerRefused("not this one")}
SIMPLE = {1: "\r", 2: "\n", 3: "\0", 5: "\\"}


def unescape(text: str) -> bytes:
    def one(found: re.Match[str]) -> str:
        if found.group(4):
            return chr(int(found.group(4), 16))
        assert found.lastindex is not None
        return SIMPLE[found.lastindex]

    return ESCAPE.sub(one, text).encode("latin-1")


def lines_of(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def policy_of(lines: list[str]) -> dict[str, Any]:
    wanted = yaml.safe_load("\n".join(line[2:] for line in lines if line.startswith("% "))) or {}
    policy = msgspec.convert({"listener": "mx", **wanted}, ListenerPolicy)
    return {name: getattr(policy, name) for name in wanted}


def scanners_of(lines: list[str]) -> TableScanners:
    table = TableScanners()
    for line in lines:
        if line.startswith("& "):
            address, text, says, *names = line[2:].split(" ")
            result = ERRORS[says] if says in ERRORS else ScanResult(Advice[says], tuple(names))
            table.add(address, text.encode(), result)
    return table


def layers_of(lines: list[str]) -> Iterator[Overlay]:
    for line in lines:
        if line.startswith("+ "):
            name, _, fields = line[2:].partition(" ")
            facts = {
                "listener": "mx",
                "over": "",
                "domains": (name,),
                "origin": f"layer of {name}",
                "generation": 1,
            }
            yield msgspec.convert({**facts, **yaml.safe_load(fields)}, Overlay)


def steps(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if line and not line.startswith(("#", "%", "@", "!", "&", "+")):
            mark, _, text = line.partition(" ")
            yield mark, text


async def play(edge: Edge, client: Client, lines: list[str]) -> None:
    last = ""
    for mark, text in steps(lines):
        match mark, text:
            case "C:", _:
                client.send(unescape(text) + b"\r\n")
            case "X:", _:
                client.send(unescape(text))
            case "=", _:
                assert len(edge.messages()) == int(text), "messages accepted"
            case "S:", "<end>":
                assert await client.rest() == b""
            case "S:", "...":
                while last[3:4] == "-":
                    last = await client.line()
            case "S:", _:
                last = await client.line()
                if text.startswith("~"):
                    assert re.fullmatch(text[1:], last), f"{last!r} is not {text!r}"
                else:
                    assert last.startswith(text), f"{last!r} does not begin with {text!r}"
            case _:
                raise ValueError(f"{mark} {text}")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
async def test_transcript(path: Path, make_edge: MakeEdge) -> None:
    lines = lines_of(path)
    edge = await make_edge(**policy_of(lines), scanners=scanners_of(lines))
    if layers := tuple(layers_of(lines)):
        edge.lay(*layers)
    for line in lines:
        if line.startswith("@ "):
            name, kind, record = line[2:].split(" ", 2)
            edge.resolver.add(name, kind, record)
        elif line.startswith("! "):
            edge.resolver.fail(*line[2:].split(" "))
    await play(edge, await edge.connect(), lines)
