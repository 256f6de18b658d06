"""`gatepost selftest relay`: does a running server pass on mail for strangers? Asks as relay testers do.

Sends MAIL and RCPT and never DATA: nothing is ever sent. The answer holds for the machine that it is run from:
run it from outside, and not from a network that may relay.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any, Final

import msgspec

from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.endpoints import parse_endpoint
from gatepost.core.manifest.read import ManifestError
from gatepost.core.relay_probes import PROBES, Outcome, Probe, fill, outcome

REPLY_LIMIT_S: Final = 60.0  # a server may hold back its greeting, or look a client up
CONNECT_LIMIT_S: Final = 30.0
MOST_LINES: Final = 100  # of one reply
MAX_LINE: Final = 8192

EXIT_HOLE: Final = 1
EXIT_UNDECIDED: Final = 3


class Undecided(OSError):
    """The server cannot be tested from here; the message says why."""


class Result(msgspec.Struct, frozen=True):
    probe: str
    sender: str
    recipient: str
    outcome: Outcome
    reply: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tests = parser.add_subparsers(dest="test", metavar="TEST", required=True)
    relay = tests.add_parser("relay", help="the 16 ways in which open relays are asked", description=__doc__)
    relay.add_argument("server", metavar="HOST:PORT", help="as mx.example.jp:25; an IPv6 address in brackets")
    relay.add_argument(
        "--far", default="relaytest.example", metavar="DOMAIN", help="a domain that is not the server's"
    )
    relay.add_argument("--name", default="", metavar="NAME", help="the server's own name (that of its greeting)")
    relay.add_argument("--helo", default="selftest.invalid", metavar="NAME", help="what is said in EHLO")
    relay.add_argument("--output", choices=("text", "json"), default="text")


def run(options: argparse.Namespace) -> int:
    try:
        host, port = parse_endpoint(options.server if ":" in options.server else f"{options.server}:25")
        far = canonical_domain(options.far)
    except (ValueError, DomainError) as error:
        raise ManifestError("gatepost selftest relay", "HOST:PORT or --far", str(error)) from None
    results = asyncio.run(probe_server(host, port, far, options.name, options.helo))
    _show(results, options)
    if any(result.outcome is Outcome.ACCEPTED for result in results):
        return EXIT_HOLE
    return EXIT_UNDECIDED if any(result.outcome is Outcome.DEFERRED for result in results) else 0


async def probe_server(host: str, port: int, far: str, name: str, helo: str) -> list[Result]:
    """Try every probe. Raises OSError when there is no server, Undecided when it does not let us ask."""
    results: list[Result] = []
    conversation: Conversation | None = None
    try:
        for probe in PROBES:
            for last in (False, True):
                if conversation is None:
                    conversation = await Conversation.open(host, port, helo)
                here = name or conversation.name or host
                result = await conversation.ask(probe, far, here)
                if result is not None:
                    results.append(result)
                    break
                # It ended the session (too many refusals): the same probe once more in a new one.
                await conversation.close()
                conversation = None
                if last:
                    raise Undecided(f"{host}:{port} ends the session at the probe {probe.name!r}")
    finally:
        if conversation is not None:
            await conversation.close()
    return results


class Conversation:
    """One SMTP session. `name` is what the server calls itself in its greeting."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.name = ""
        self.address: str = writer.get_extra_info("peername")[0]

    @classmethod
    async def open(cls, host: str, port: int, helo: str) -> Conversation:
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                streams = await asyncio.open_connection(host, port, limit=MAX_LINE)
        except TimeoutError:
            raise Undecided(f"{host}:{port} does not answer within {CONNECT_LIMIT_S:.0f} s") from None
        one = cls(*streams)
        try:
            await one._greet(helo)
        except BaseException:
            await one.close()
            raise
        return one

    async def _greet(self, helo: str) -> None:
        code, text = await self._reply()
        words = text.split()
        if code != 220:
            raise Undecided(f"the server refuses this client from the start, so nothing is known: {text}")
        self.name = _domain(words[1]) if len(words) > 1 else ""
        code, text = await self._command(f"EHLO {helo}")
        if code // 100 != 2:
            code, text = await self._command(f"HELO {helo}")
        if code // 100 != 2:
            raise Undecided(f"the server refuses the greeting, so nothing is known: {text}")

    async def ask(self, probe: Probe, far: str, here: str) -> Result | None:
        """The result of a probe; None when the server ended the session before it answered."""
        sender = fill(probe.sender, far=far, here=here, ip=self.address)
        recipient = fill(probe.recipient, far=far, here=here, ip=self.address)
        try:
            if (await self._command("RSET"))[0] // 100 != 2:
                return None
            code, text = await self._command(f"MAIL FROM:<{sender}>")
            if code // 100 == 2:
                code, text = await self._command(f"RCPT TO:<{recipient}>")
        except EOFError:
            return None
        if code == 421:
            return None
        try:
            found = outcome(code)
        except ValueError as error:
            raise Undecided(f"{probe.name}: {error}: {text}") from None
        return Result(probe.name, sender, recipient, found, text)

    async def _command(self, line: str) -> tuple[int, str]:
        self._writer.write(line.encode("ascii", "replace") + b"\r\n")
        return await self._reply()

    async def _reply(self) -> tuple[int, str]:
        """Code and last line. Raises EOFError when the server has closed, Undecided for what is no SMTP."""
        for _ in range(MOST_LINES):
            try:
                async with asyncio.timeout(REPLY_LIMIT_S):
                    line = (await self._reader.readuntil(b"\n")).decode("utf-8", "replace").rstrip("\r\n")
            except TimeoutError:
                raise Undecided(f"the server gave no reply within {REPLY_LIMIT_S:.0f} s") from None
            except (asyncio.IncompleteReadError, ConnectionError):
                raise EOFError from None
            except asyncio.LimitOverrunError:
                raise Undecided("the server sends lines without an end") from None
            if not (line[:3].isascii() and line[:3].isdecimal()):
                raise Undecided(f"this is no SMTP server: {line[:80]!r}")
            if line[3:4] != "-":
                return int(line[:3]), "".join(c if c.isprintable() else "?" for c in line)
        raise Undecided("the server sends a reply without an end")

    async def close(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()


def _domain(text: str) -> str:
    try:
        return canonical_domain(text)
    except DomainError:
        return ""


def _show(results: list[Result], options: argparse.Namespace) -> None:
    holes = sum(result.outcome is Outcome.ACCEPTED for result in results)
    waiting = sum(result.outcome is Outcome.DEFERRED for result in results)
    if options.output == "json":
        rows: list[Any] = msgspec.to_builtins(results)
        print(json.dumps({"server": options.server, "holes": holes, "deferred": waiting, "probes": rows}, indent=2))
        return
    for number, result in enumerate(results, 1):
        mark = {Outcome.ACCEPTED: "HOLE", Outcome.REFUSED: "ok", Outcome.DEFERRED: "later"}[result.outcome]
        print(f"{number:2}  {mark:5} {result.probe:28} <{result.sender}> -> <{result.recipient}>")
        print(f"          {result.reply}")
    if holes:
        print(
            f"{holes} of {len(results)} probes were accepted: {options.server} may be an open relay",
            file=sys.stderr,
        )
        print(
            "(an accepted form at the server's own name can also be a user who really has that name)",
            file=sys.stderr,
        )
    elif waiting:
        print(f"{waiting} of {len(results)} probes were put off (4xx): nothing is known of these; try again later")
    else:
        print(f"all {len(results)} probes were refused for a client at this machine's address")
