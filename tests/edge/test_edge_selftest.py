"""`gatepost selftest relay` against a real edge, and against servers that do everything wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from gatepost.cli.selftest import Undecided, probe_server
from gatepost.core.access.source import read_line
from gatepost.core.checks.access import AccessConfig
from gatepost.core.relay_probes import PROBES, Outcome, fill, outcome

if TYPE_CHECKING:
    from conftest import MakeEdge

TABLE = yaml.safe_load((Path(__file__).parent.parent / "data/relay/probes.yml").read_text("utf-8"))
FAR = "relaytest.example"


def test_the_probes_are_the_known_ones() -> None:
    names = {"far": FAR, "here": "mx.example.test", "ip": "127.0.0.1"}
    known = {key: TABLE["defaults"][key] for key in ("src", "dst", "dsthost", "srchost", "ip")}
    ours = [(fill(probe.sender, **names), fill(probe.recipient, **names)) for probe in PROBES]
    assert ours == [(one["mail_from"].format(**known), one["rcpt_to"].format(**known)) for one in TABLE["probes"]]


@pytest.mark.parametrize(
    ("code", "wanted"), [(250, "accepted"), (252, "accepted"), (450, "deferred"), (550, "refused")]
)
def test_what_a_code_means(code: int, wanted: str) -> None:
    assert outcome(code) is Outcome(wanted)


@pytest.mark.requirement("S3-5")
@pytest.mark.parametrize("errors", [100, 3])
async def test_a_closed_edge_passes(make_edge: MakeEdge, errors: int) -> None:
    """Fails without a self-test that asks a live server in each of the testers' ways, over several sessions."""
    edge = await make_edge(errors_before_disconnect=errors)
    results = await probe_server("127.0.0.1", edge.port, FAR, "", "selftest.invalid")
    assert [result.outcome for result in results] == [Outcome.REFUSED] * 16
    assert edge.messages() == []


async def test_each_hole_is_found(make_edge: MakeEdge) -> None:
    edge = await make_edge(
        access=AccessConfig((read_line("Connect:127\tRELAY"),), clients_may_relay=True),
        errors_before_disconnect=100,
    )
    results = await probe_server("127.0.0.1", edge.port, FAR, "", "selftest.invalid")
    holes = [result.probe for result in results if result.outcome is Outcome.ACCEPTED]
    assert holes == [probe.name for probe in PROBES[:4]]
    assert edge.messages() == []  # it stops before DATA


class Scripted:
    """A server that answers from a list, whatever is said."""

    def __init__(self, replies: Sequence[bytes]) -> None:
        self.replies, self.heard = list(replies), b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in self.replies:
            writer.write(reply)
            line = await reader.readline()
            self.heard += line
            if not line:
                break
        writer.close()


async def scripted(*replies: bytes) -> tuple[asyncio.Server, int, Scripted]:
    script = Scripted(replies)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1], script


@pytest.mark.parametrize(
    ("replies", "says"),
    [
        ((b"554 go away\r\n",), "refuses this client from the start"),
        ((b"220 x\r\n", b"550 no\r\n", b"550 no\r\n"), "refuses the greeting"),
        ((b"HTTP/1.1 400 Bad Request\r\n",), "no SMTP server"),
        (("\u00b2\u00b2\u2070 x\r\n".encode(),), "no SMTP server"),
        ((b"220 x\r\n", b"250 x\r\n", b"250 ok\r\n", b"354 what\r\n"), "no answer to MAIL"),
        ((b"220-a\r\n" * 200,), "reply without an end"),
        ((b"220 " + b"a" * 20000,), "lines without an end"),
        ((b"220 x\r\n", b"250 x\r\n"), "ends the session at the probe 'null sender'"),
    ],
)
async def test_servers_that_cannot_be_tested(replies: tuple[bytes, ...], says: str) -> None:
    server, port, _ = await scripted(*replies)
    with pytest.raises(Undecided, match=says):
        await probe_server("127.0.0.1", port, FAR, "", "selftest.invalid")
    server.close()


async def test_an_open_relay_gives_a_table_and_exit_code_1() -> None:
    server, port, script = await scripted(b"220 open.example ESMTP\r\n", *[b"250 ok\r\n"] * 200)
    run = await asyncio.create_subprocess_exec(
        *(str(Path(__file__).parents[2] / ".venv/bin/gatepost"), "selftest", "relay", f"127.0.0.1:{port}"),
        *("--output", "json"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(run.communicate(), 60)
    assert run.returncode == 1
    found = json.loads(out)
    assert found["holes"] == 16
    assert found["probes"][5]["recipient"] == "relaytest%relaytest.example@open.example"
    assert b"DATA" not in script.heard
    server.close()
