"""RCPT: answered at once where the directory does, and right and in order where it has to be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from gatepost.backends.directory_cache import DirectoryCache
from gatepost.core.address import Address
from gatepost.core.checks.harvest import HarvestPolicy
from gatepost.core.checks.routed_address import RoutedAddressPolicy
from gatepost.core.manifest.actions import Action
from gatepost.core.ports.directory import DirectoryUnavailable, Entry

if TYPE_CHECKING:
    from conftest import Edge, MakeEdge

Lookup = Callable[[Address], Awaitable[Entry | None]]

GROUP = b"".join(
    b"RCPT TO:<%b@example.test>\r\n" % name for name in (b"bob", b"nobody", b"alice+list", b"gone", b"bob")
)
ANSWERS = ["250 2.1.5", "550 5.1.1", "250 2.1.5", "550 5.2.1", "250 2.1.5"]


def hesitant(edge: Edge) -> set[str]:
    """From now on each answer is there a turn of the loop later; returns who was asked for."""
    known: Lookup = edge.directory.lookup
    asked = set[str]()

    async def lookup(address: Address) -> Entry | None:
        asked.add(address.key)
        await asyncio.sleep(0)
        return await known(address)

    edge.directory.lookup = lookup  # type: ignore[method-assign,assignment]
    return asked


async def test_a_known_answer_costs_no_round_of_the_loop(edge: Edge) -> None:
    """Fails if a task is made for a directory that has nothing to wait for."""
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    (session,) = edge.server.sessions
    session.data_received(GROUP)
    assert session.task is None
    assert session.transaction is not None
    assert list(session.transaction.recipients) == ["bob@example.test", "alice+list@example.test"]
    assert [(await client.reply())[:9] for _ in ANSWERS] == ANSWERS


async def test_a_directory_that_waits_is_waited_for(edge: Edge) -> None:
    """Nothing is answered, and no later command taken, before the directory has said what it knows."""
    edge.directory.gate = asyncio.Event()
    client = await edge.client()
    client.send(b"MAIL FROM:<a@example.org>\r\n" + GROUP + b"DATA\r\n")
    await edge.directory.asked.wait()
    (session,) = edge.server.sessions
    assert session.task is not None
    assert session.pending
    assert session.transaction is not None
    assert not session.transaction.recipients
    edge.directory.gate.set()
    assert [(await client.reply())[:9] for _ in range(7)] == ["250 2.1.0", *ANSWERS, "354 End d"]


@pytest.mark.parametrize("split", [False, True], ids=["in one piece", "a line at a time"])
async def test_replies_are_in_order_when_each_recipient_is_waited_for(edge: Edge, split: bool) -> None:
    asked = hesitant(edge)
    client = await edge.client()
    group = b"MAIL FROM:<a@example.org>\r\n" + GROUP + b"NOOP\r\nDATA\r\n"
    for piece in group.splitlines(keepends=True) if split else [group]:
        client.send(piece)
        if split:
            await asyncio.sleep(0)
    expected = ["250 2.1.0", *ANSWERS, "250 2.0.0", "354 End d"]
    assert [(await client.reply())[:9] for _ in expected] == expected
    assert {"bob@example.test", "alice+list@example.test", "alice@example.test"} <= asked
    assert (await client.ask("x\r\n.")).startswith("250 ")
    ((envelope, _),) = edge.messages()
    assert [recipient.address for recipient in envelope.recipients] == [
        "bob@example.test",
        "alice+list@example.test",
    ]


async def test_a_question_that_was_given_up_is_not_put_to_the_server_again(edge: Edge) -> None:
    """Fails if a server is asked twice about a recipient that had to be waited for."""
    cache: DirectoryCache[str, Entry] = DirectoryCache(positive=60.0, negative=0.0, stale=60.0)
    known: Lookup = edge.directory.lookup
    searches: list[str] = []

    async def lookup(address: Address) -> Entry | None:
        async def search() -> Entry | None:
            searches.append(address.key)
            await asyncio.sleep(0)
            return await known(address)

        return await cache.get(address.key, search)

    edge.directory.lookup = lookup  # type: ignore[method-assign,assignment]
    client = await edge.client()
    client.send(b"MAIL FROM:<a@example.org>\r\n" + GROUP)
    assert [(await client.reply())[:9] for _ in range(6)] == ["250 2.1.0", *ANSWERS]
    expected = ["bob@example.test", "nobody@example.test", "alice+list@example.test", "alice@example.test"]
    assert searches == [*expected, "gone@example.test"]
    await cache.close()


@pytest.mark.parametrize("waits", [False, True])
async def test_a_directory_that_is_away_is_temporary(edge: Edge, waits: bool) -> None:
    if waits:
        hesitant(edge)
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    edge.directory.away = True
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("451 4.4.3 ")
    edge.directory.away = False
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250 ")
    assert edge.events.kinds() == ["refused"]


async def test_a_directory_that_goes_away_while_it_is_asked_is_temporary(edge: Edge) -> None:
    """A question whose caller gave it up fails later: nobody else hears of that."""
    failing = asyncio.get_running_loop().create_future()

    async def lookup(address: Address) -> Entry | None:
        await asyncio.shield(failing)
        return None

    edge.directory.lookup = lookup  # type: ignore[method-assign,assignment]
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    client.send(b"RCPT TO:<bob@example.test>\r\nRSET\r\n")
    await edge.until(lambda: any(session.task is not None for session in edge.server.sessions))
    failing.set_exception(DirectoryUnavailable("away"))
    assert (await client.reply()).startswith("451 4.4.3 ")
    assert (await client.reply()).startswith("250 2.0.0 ")


async def test_an_internal_error_after_a_wait_closes(edge: Edge) -> None:
    async def explode(address: Address) -> Entry | None:
        await asyncio.sleep(0)
        raise RuntimeError("secret detail")

    edge.directory.lookup = explode  # type: ignore[method-assign,assignment]
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    client.send(b"RCPT TO:<bob@example.test>\r\nNOOP\r\n")
    assert (await client.rest()).startswith(b"451 4.3.0 internal error")


@pytest.mark.parametrize("waits", [False, True])
async def test_what_comes_before_the_lookup_is_done_once(make_edge: MakeEdge, waits: bool) -> None:
    """Fails if a recipient that was waited for is judged, told or counted again when its answer is there."""
    policy = HarvestPolicy(min_unknown=5, min_unknown_percent=50, window=3600.0, ban=3600.0)
    edge = await make_edge(harvest=policy, routed_addresses=RoutedAddressPolicy(percent_hack=Action.TAG))
    if waits:
        hesitant(edge)
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    names = [f"guess%{number}" for number in range(5)]
    client.send("".join(f"RCPT TO:<{name}@example.test>\r\n" for name in [*names, "bob"]))
    replies = (await client.rest()).decode().splitlines()
    assert [reply[:9] for reply in replies] == ["550 5.1.1"] * 5 + ["421 4.7.1"]
    assert edge.events.kinds().count("judged") == 5
    assert edge.events.kinds().count("refused") == 6


@pytest.mark.parametrize("waits", [False, True])
async def test_a_refused_recipient_slows_down_what_comes_behind_it(make_edge: MakeEdge, waits: bool) -> None:
    """Fails if commands that came together with the refused one are answered without the client's delay."""
    edge = await make_edge(errors_before_delay=1, error_delay=1000.0)
    if waits:
        hesitant(edge)
    client = await edge.client()
    (session,) = edge.server.sessions
    client.send(b"MAIL FROM:<a@example.org>\r\n" + GROUP)
    assert [(await client.reply())[:9] for _ in range(3)] == ["250 2.1.0", *ANSWERS[:2]]
    for expected in ANSWERS[2:]:
        assert session.pending
        assert session._scheduled
        session._has_waited()
        assert (await client.reply())[:9] == expected
    assert not session.pending
