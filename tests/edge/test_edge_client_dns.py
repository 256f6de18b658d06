"""Checks on a client over real DNS packets: a server that is silent, slow, broken or lies stops no mail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from gatepost.backends.resolver_dns import DnsResolver
from gatepost.core.checks.dnsbl import DnsblList, DnsblPolicy
from gatepost.core.checks.reverse_dns import Require, ReverseDns
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.settings import DnsSettings
from testbed.dns import FakeDns, Fault

if TYPE_CHECKING:
    from conftest import Edge, MakeEdge

pytestmark = pytest.mark.servers

LISTED = "1.0.0.127.bl.example"
ZONE = f"""
{LISTED}. 60 A 127.0.0.2
1.0.0.127.dead.example. 60 A 127.0.0.2
1.0.0.127.in-addr.arpa. 60 PTR client.example.
client.example. 60 A 127.0.0.1
"""
DEADLINE = 0.3


class Ask(Protocol):
    """The edge and its answer to a recipient under a policy."""

    async def __call__(self, **policy: Any) -> tuple[Edge, str]: ...


@pytest.fixture
async def dns() -> AsyncIterator[FakeDns]:
    with FakeDns(ZONE) as server:
        yield server


@pytest.fixture
async def ask(make_edge: MakeEdge, dns: FakeDns) -> AsyncIterator[Ask]:
    resolver = DnsResolver(DnsSettings(servers=(f"127.0.0.1:{dns.port}",), timeout="1s"))
    await resolver.start()

    async def ask(**policy: Any) -> tuple[Edge, str]:
        edge = await make_edge(resolver=resolver, **policy)
        client = await edge.client()
        assert (await client.ask("MAIL FROM:<alice@example.org>")).startswith("250")
        return edge, await client.ask("RCPT TO:<bob@example.test>")

    yield ask
    await resolver.close()


def lists(*zones: str, on_error: OnError = OnError.IGNORE) -> DnsblPolicy:
    return DnsblPolicy(tuple(DnsblList(zone, on_error=on_error) for zone in zones), deadline=DEADLINE)


@pytest.mark.parametrize("fault", [Fault.DROP, Fault.SERVFAIL, Fault.REFUSED, Fault.WRONG_ID, 5.0])
async def test_a_list_in_trouble_neither_refuses_nor_hides_the_others(
    ask: Ask, dns: FakeDns, fault: Fault | float
) -> None:
    dns.behave = {"1.0.0.127.dead.example": fault}
    _, reply = await ask(dnsbl=lists("dead.example"))
    assert reply.startswith("250")
    _, reply = await ask(dnsbl=lists("dead.example", on_error=OnError.TEMPFAIL))
    assert reply.startswith("451 4.7.1")
    _, reply = await ask(dnsbl=lists("dead.example", "bl.example"))
    assert reply.startswith("550 5.7.1"), "the list that answers still counts"


async def test_a_truncated_answer_is_asked_for_again_by_tcp(ask: Ask, dns: FakeDns) -> None:
    dns.behave = {LISTED: Fault.TRUNCATE}
    _, reply = await ask(dnsbl=lists("bl.example"))
    assert reply.startswith("550 5.7.1")


async def test_answers_are_kept_for_their_ttl(ask: Ask, dns: FakeDns) -> None:
    edge, _ = await ask(dnsbl=lists("bl.example"))
    for _ in range(3):
        client = await edge.client()
        await client.ask("MAIL FROM:<alice@example.org>")
        assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("550")
    assert dns.asked(LISTED) == 1


@pytest.mark.parametrize(
    ("fault", "code"), [(None, "250"), (Fault.DROP, "451 4.4.3"), (Fault.SERVFAIL, "451 4.4.3")]
)
async def test_reverse_names(ask: Ask, dns: FakeDns, fault: Fault | None, code: str) -> None:
    dns.behave = {} if fault is None else {"client.example": fault}
    _, reply = await ask(reverse_dns=ReverseDns(Require.CONFIRMED, Action.REJECT))
    assert reply.startswith(code)
