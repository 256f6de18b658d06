"""Policies that change all the time: at no moment an open relay, and no good recipient is refused for good."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gatepost.backends.config_dir import DirectoryConfiguration
from gatepost.core.compile import Surroundings
from gatepost.core.configuration import Configuration
from gatepost.core.manifest.settings import Role
from gatepost.core.tables import Tables

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

pytestmark = pytest.mark.servers

FLIPS = 200
CLIENTS = 8
DIALOGUES_EACH = 4  # that end under each state of the configuration
PATIENCE = 20.0

DOMAIN = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: example}
spec:
  domain: example.test
  default: true
  recipients: {source: {type: Directory, directoryRef: {name: people}}, aliases: {all: [bob@example.test]}}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: of-the-domain}
spec:
  target: {type: MailDomains, mailDomains: {names: [example]}}
  authentication: {dmarc: {reject: Tag}}
"""
# Others may relay, by every way that there is; 127.0.0.1 by none of them.
FIRST = """
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: first}
spec:
  target: {type: Listeners, listeners: [mx]}
  relay:
    clients: [{networks: [10.0.0.0/8], senderDomains: [Local, example.org]}]
    authenticated: {enabled: true, requireTLS: false}
  access: {inline: [{match: {connect: 192.0.2.1}, action: Relay}, {match: {to: partner.example}, action: Relay}]}
"""
SECOND = """
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: second}
spec:
  target: {type: Listeners, listeners: [mx]}
  relay: {clients: [{networks: [192.0.2.0/24]}]}
  recipients: {max: 200}
  connection: {deny: [198.51.100.0/24]}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: beside}
spec:
  target: {type: Listeners, listeners: [mx]}
  rollout: {percent: 99}
  relay: {clients: [{networks: [10.0.0.0/8], senderDomains: [example.org]}]}
"""
STATES = (FIRST, "", SECOND, FIRST, SECOND, "")  # each after each of the others


class Tried:
    """What the clients were told."""

    def __init__(self) -> None:
        self.dialogues = 0
        self.relayed: list[str] = []
        self.refused: list[str] = []
        self.accepted = 0
        self.more = asyncio.Event()

    def ended(self) -> None:
        self.dialogues += 1
        self.more.set()

    async def wait_for(self, more: int) -> None:
        wanted = self.dialogues + more
        async with asyncio.timeout(PATIENCE):
            while self.dialogues < wanted:
                self.more.clear()
                await self.more.wait()


async def dialogue(edge: Edge, number: int, tried: Tried) -> None:
    client = await edge.connect()
    try:
        await _dialogue(client, number, tried)
    finally:
        edge.clients.remove(client)
        await client.close()


async def _dialogue(client: Client, number: int, tried: Tried) -> None:
    await client.hello()
    sender = ("bob@example.test", "x@example.org", "")[number % 3]
    if await client.code(f"MAIL FROM:<{sender}>") != 250:
        return
    foreign = ("victim@elsewhere.test", "victim%elsewhere.test@[127.0.0.1]", "@example.test:victim@elsewhere.test")
    reply = await client.ask(f"RCPT TO:<{foreign[number // 3 % 3]}>")
    if reply.startswith("2"):
        tried.relayed.append(reply)
    if reply.startswith("421"):
        return
    reply = await client.ask(f"RCPT TO:<{('bob', 'alice', 'all')[number // 9 % 3]}@example.test>")
    if reply.startswith("5"):
        tried.refused.append(reply)
    if not reply.startswith("250"):
        return
    reply = await client.ask("DATA")
    if reply.startswith("354"):
        reply = await client.ask("Subject: x\r\n\r\nHello\r\n.")
    if reply.startswith("5"):
        tried.refused.append(reply)
    tried.accepted += reply.startswith("250")


async def keep_trying(edge: Edge, numbers: itertools.count[int], tried: Tried) -> None:
    while True:
        await dialogue(edge, next(numbers), tried)
        tried.ended()


async def test_flips_under_load_open_no_relay_for_a_moment(make_edge: MakeEdge, tmp_path: Path) -> None:
    """Fails without a closed default for each listener, and one whole policy at every moment of a change."""
    edge = await make_edge(role=Role.INTERNAL, configured=False)
    (tmp_path / "domain.yaml").write_text(DOMAIN, "utf-8")
    around = Surroundings({"mx": Role.INTERNAL}, ("people",), ("local",), any_namespace=True)
    source = DirectoryConfiguration(tmp_path, around, poll_s=0.002)
    changed = asyncio.Event()

    def apply(configuration: Configuration) -> None:
        edge.server.on_configuration(Tables(configuration))
        changed.set()

    source.on_change(apply)
    await source.start()
    tried, numbers = Tried(), itertools.count()
    clients = [asyncio.create_task(keep_trying(edge, numbers, tried)) for _ in range(CLIENTS)]
    try:
        for flip in range(FLIPS):
            changed.clear()
            put(tmp_path, STATES[flip % len(STATES)])
            async with asyncio.timeout(PATIENCE):
                await changed.wait()
            await tried.wait_for(DIALOGUES_EACH)
    finally:
        for task in clients:
            task.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
        await source.close()
    assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended
    assert tried.relayed == []
    assert tried.refused == []
    assert tried.accepted > FLIPS
    recipients = {one.address for envelope, _ in edge.messages() for one in envelope.recipients}
    assert recipients == {"bob@example.test", "alice@example.test", "all@example.test"}


def put(folder: Path, policy: str) -> None:
    """Write, or delete, the listener's policy, as an editor does: in one step."""
    file = folder / "policy.yaml"
    if not policy:
        file.unlink(missing_ok=True)
        return
    new = folder / ".new"
    new.write_text(policy, "utf-8")
    new.replace(file)
