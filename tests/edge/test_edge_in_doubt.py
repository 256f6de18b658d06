"""Appends of unknown outcome and the client's retry, at the same edge or another (G1, docs/adr/0006)."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from gatepost.core.in_doubt import IN_DOUBT
from gatepost.core.ports.log import Entry, LogUnavailable, LogUnknown
from gatepost.core.ports.state import StateUnavailable
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

DATED = b"Date: Sun, 22 Nov 2026 04:00:00 +0000\r\nSubject: once\r\n\r\nonly once\r\n"
UNDATED = b"Subject: alarm\r\n\r\nthe door is open\r\n"
QUEUED = re.compile(r"250 2\.0\.0 Ok: queued as ([0-9A-Z]{26})")
APPEND_TIMEOUT = "150ms"


async def said(client: Client, content: bytes = DATED, **envelope: Any) -> str:
    """The reply to a message."""
    await client.begin(*envelope.pop("recipients", ()), **envelope)
    client.send(content + b".\r\n")
    return await client.reply()


async def sent(edge: Edge, content: bytes = DATED, **envelope: Any) -> str:
    """Send on a new connection and return the id in 250."""
    found = QUEUED.fullmatch(await said(await edge.client(), content, **envelope))
    assert found is not None
    return found[1]


async def doubted(edge: Edge, content: bytes = DATED, **envelope: Any) -> None:
    """Send while the log holds appends back, and get 451; the append is in doubt from now on."""
    client = await edge.client()
    edge.log.hold()
    assert (await said(client, content, **envelope)).startswith("451 4.3.0 ")


def ids(edge: Edge) -> list[str]:
    return [envelope.id for envelope, _ in edge.messages()]


def shared(edge: Edge) -> int:
    """How many doubts the shared memory has, as this edge sees it."""
    assert edge.state is not None
    return edge.state.size(IN_DOUBT)


class Pair:
    """Two edges on one log."""

    def __init__(self, one: Edge, other: Edge) -> None:
        self.one, self.other = one, other

    async def published(self, count: int = 1) -> None:
        for edge in (self.one, self.other):
            await until(edge, lambda edge=edge: shared(edge) == count)


async def until(edge: Edge, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def pair(make_edge: MakeEdge) -> Pair:
    one = await make_edge(append_timeout=APPEND_TIMEOUT)
    return Pair(one, await make_edge(append_timeout=APPEND_TIMEOUT, log=one.log))


@pytest.fixture
async def edge(pair: Pair) -> Edge:
    return pair.one


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_written_meanwhile_is_answered_without_a_second_append(pair: Pair, elsewhere: bool) -> None:
    await doubted(pair.one)
    pair.one.log.release()
    await pair.published()
    (first,) = ids(pair.one)
    assert await sent(pair.other if elsewhere else pair.one) == first
    assert ids(pair.one) == [first]
    await pair.published(0)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_doubt_is_used_up_by_its_retry(pair: Pair, elsewhere: bool) -> None:
    """The same mail sent once more on purpose is another one."""
    await doubted(pair.one)
    pair.one.log.release()
    await pair.published()
    retry = await sent(pair.other if elsewhere else pair.one)
    again = [await sent(pair.one), await sent(pair.other)]
    assert len({retry, *again}) == 3
    assert sorted(ids(pair.one)) == sorted([retry, *again])


async def test_identical_mails_without_a_doubt_are_all_accepted(pair: Pair) -> None:
    numbers = [await sent(edge) for edge in (pair.one, pair.one, pair.other)]
    assert len(set(numbers)) == 3
    assert sorted(ids(pair.one)) == sorted(numbers)


async def test_retry_while_the_log_is_still_away_keeps_the_id(edge: Edge) -> None:
    """451 again, by whatever is refused first, and the id is the same in the end."""
    await doubted(edge)
    for _ in range(2):
        assert (await said(await edge.client())).startswith("451 4.3.0 ")
    client = await edge.client()
    edge.log.go_away()
    assert (await said(client)).startswith("451 4.3.0 ")
    edge.log.come_back()
    edge.log.release()
    await until(edge, lambda: bool(ids(edge)))
    assert len(set(ids(edge))) == 1
    assert await sent(edge) in ids(edge)


async def test_retry_that_ends_in_doubt_again_keeps_the_id(pair: Pair) -> None:
    """At another edge, when the first append's outcome is never known."""
    await doubted(pair.one)
    outcome_lost(pair.one)
    pair.one.log.release()
    await pair.published()
    await doubted_by_take(pair.other)
    pair.other.log.release()
    await pair.published()
    number = await sent(pair.one)
    assert set(ids(pair.one)) == {number}


def outcome_lost(edge: Edge) -> None:
    """What was held is written, but this edge never learns of it: it is cut off from the outcome."""
    for task in edge.server.acceptor.in_doubt._waiting:
        task.cancel()


async def doubted_by_take(edge: Edge) -> None:
    """A retry whose own append of the message hangs, after it has claimed the doubt."""
    client = await edge.client()
    append = edge.log.append

    async def hanging(entry: Any, limit: float) -> Any:
        if entry.topic == "accepted":
            edge.log.hold()
        return await append(entry, limit)

    edge.log.append = hanging  # type: ignore[method-assign]
    try:
        assert (await said(client)).startswith("451 4.3.0 ")
    finally:
        edge.log.append = append  # type: ignore[method-assign]


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_outcome_never_known_is_appended_under_the_original_id(pair: Pair, elsewhere: bool) -> None:
    await doubted(pair.one)
    outcome_lost(pair.one)
    pair.one.log.release()
    await pair.published()
    (first,) = ids(pair.one)
    assert await sent(pair.other if elsewhere else pair.one) == first
    assert ids(pair.one) == [first, first]


async def test_a_doubt_is_published_as_soon_as_the_log_is_back(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when its turn would be: the retry may come to another edge."""
    for pause in ("FIRST_PAUSE_S", "LAST_PAUSE_S"):
        monkeypatch.setattr(f"gatepost.edge.in_doubt.{pause}", 3600.0)
    assert pair.one.state is not None
    put, refused = pair.one.state.put, 0

    async def counting(*arguments: Any) -> None:
        nonlocal refused
        try:
            await put(*arguments)
        except StateUnavailable:
            refused += 1
            raise

    monkeypatch.setattr(pair.one.state, "put", counting)
    client, log = await pair.one.client(), pair.one.log
    await client.begin()
    log.hold()
    client.send(DATED + b".\r\n")
    await until(pair.one, lambda: bool(log._held))
    log.go_away()
    assert (await client.reply()).startswith("451 4.3.0 ")
    await until(pair.one, lambda: refused == 1)
    log.release()  # which is news of it, and tried at once
    await until(pair.one, lambda: refused == 2)
    log.come_back()
    await pair.published()
    assert [await sent(pair.other)] == ids(pair.one)


async def test_never_written_is_forgotten(pair: Pair) -> None:
    """Then the retry is ordinary mail, and nobody is told of a doubt."""
    before = metrics.DOUBTS_RESOLVED.values.get(("never",), 0)
    await doubted(pair.one)
    pair.one.log.lose_held()
    await until(pair.one, lambda: pair.one.server.acceptor.in_doubt.empty)
    assert metrics.DOUBTS_RESOLVED.values[("never",)] == before + 1
    number = await sent(pair.one)
    assert ids(pair.one) == [number]
    assert shared(pair.other) == 0


async def test_never_written_is_withdrawn_from_the_others(pair: Pair) -> None:
    client = await pair.one.client()
    append = pair.one.log.append
    held = asyncio.get_running_loop().create_future()

    async def in_doubt(entry: Any, limit: float) -> Any:
        if entry.topic != "accepted":
            return await append(entry, limit)
        raise LogUnknown("in doubt", held)

    pair.one.log.append = in_doubt  # type: ignore[method-assign]
    assert (await said(client)).startswith("451 ")
    pair.one.log.append = append  # type: ignore[method-assign]
    await pair.published()
    held.set_exception(LogUnavailable("never"))
    await pair.published(0)
    number = await sent(pair.other)
    assert ids(pair.one) == [number]


async def test_what_a_retry_has_used_up_is_not_revived(pair: Pair) -> None:
    """The first edge learns that its append was written before it hears that another one's retry has the doubt."""
    client = await pair.one.client()
    append, outcome = pair.one.log.append, asyncio.get_running_loop().create_future()

    async def in_doubt(entry: Any, limit: float) -> Any:
        if entry.topic != "accepted":
            return await append(entry, limit)
        raise LogUnknown("in doubt", outcome)

    pair.one.log.append = in_doubt  # type: ignore[method-assign]
    assert (await said(client)).startswith("451 ")
    pair.one.log.append = append  # type: ignore[method-assign]
    await pair.published()
    assert pair.one.state is not None
    apply, unheard = pair.one.state._apply, list[Any]()
    pair.one.state._apply = unheard.append  # type: ignore[method-assign]
    retried = await sent(pair.other)
    written = len(pair.one.log.records("state"))
    outcome.set_result(await append(Entry("accepted", b""), 5))
    await until(pair.one, lambda: bool(pair.one.server.acceptor.in_doubt._own[retried].updating))
    await until(pair.one, lambda: len(unheard) > written - 1)
    pair.one.state._apply = apply  # type: ignore[method-assign]
    for record in unheard:
        apply(record)
    await until(pair.one, lambda: pair.one.server.acceptor.in_doubt.empty)
    await pair.published(0)
    assert await sent(pair.other) != retried


async def test_retry_before_the_doubt_is_published(edge: Edge) -> None:
    """The same edge remembers at once: here the shared memory takes nothing at all."""
    assert edge.state is not None

    async def refuse(*_: Any) -> None:
        raise StateUnavailable("away")

    edge.state.put = refuse  # type: ignore[method-assign,assignment]
    await doubted(edge)
    edge.log.release()
    (first,) = ids(edge)
    assert await sent(edge) == first
    assert ids(edge) == [first]


async def test_of_two_retries_at_once_one_is_the_retry(pair: Pair) -> None:
    """At two edges at the same moment: one has the original id, the other is ordinary mail with its own."""
    for _ in range(5):
        known = set(ids(pair.one))
        await doubted(pair.one)
        pair.one.log.release()
        await pair.published()
        (first,) = set(ids(pair.one)) - known
        numbers = await asyncio.gather(*(sent(edge) for edge in (pair.one, pair.other, pair.one, pair.other)))
        assert numbers.count(first) == 1
        assert len(set(numbers)) == 4
        await pair.published(0)


async def test_two_doubts_of_the_same_words_serve_two_retries(pair: Pair) -> None:
    clients = [await pair.one.client() for _ in range(2)]
    for client in clients:
        await client.begin()
    pair.one.log.hold()
    for client in clients:
        client.send(DATED + b".\r\n")
    for client in clients:
        assert (await client.reply()).startswith("451 ")
    pair.one.log.release()
    await pair.published(2)
    originals = ids(pair.one)
    retries = await asyncio.gather(sent(pair.one), sent(pair.other))
    third = await sent(pair.other)
    assert sorted(retries) == sorted(originals)
    assert third not in originals


@pytest.mark.parametrize(
    "changed",
    [
        {"recipients": ("bob@example.test",)},
        {"recipients": ("bob@example.test", "alice@example.test", "sales@example.test")},
        {"sender": "other@example.org"},
        {"content": DATED + b"more\r\n"},
    ],
    ids=["fewer recipients", "more recipients", "sender", "content"],
)
async def test_what_is_not_the_same_does_not_match(pair: Pair, changed: dict[str, Any]) -> None:
    await doubted(pair.one, recipients=("bob@example.test", "alice@example.test"))
    pair.one.log.release()
    await pair.published()
    (first,) = ids(pair.one)
    other = {"recipients": ("bob@example.test", "alice@example.test"), **changed}
    assert await sent(pair.other, **other) != first
    # The doubt is still there for its own retry, whatever the order of its recipients.
    assert await sent(pair.other, recipients=("alice@example.test", "bob@example.test")) == first


async def test_without_a_date_each_message_counts(pair: Pair) -> None:
    """A device that says the same thing again means it: better one alarm twice than one alarm less."""
    await doubted(pair.one, UNDATED)
    pair.one.log.release()
    (first,) = ids(pair.one)
    assert await sent(pair.one, UNDATED) != first
    assert pair.one.server.acceptor.in_doubt.empty


async def test_large_message(pair: Pair) -> None:
    """Its pieces are written anew or not at all; only the record counts."""
    large = DATED + b"".join(b"%06d %s\r\n" % (number, b"x" * 70) for number in range(2000))
    client = await pair.one.client()
    await client.begin()
    append = pair.one.log.append

    async def hanging(entry: Any, limit: float) -> Any:
        if entry.topic == "accepted":
            pair.one.log.hold()
        return await append(entry, limit)

    pair.one.log.append = hanging  # type: ignore[method-assign]
    client.send(large + b".\r\n")
    assert (await client.reply()).startswith("451 ")
    pair.one.log.append = append  # type: ignore[method-assign]
    pair.one.log.release()
    await pair.published()
    (first,) = ids(pair.one)
    assert await sent(pair.other, large) == first
    assert ids(pair.one) == [first]


async def test_a_piece_in_doubt_is_no_doubt(pair: Pair) -> None:
    """While only pieces of a body hang, no record of the message can come later."""
    large = DATED + b"".join(b"%06d %s\r\n" % (number, b"x" * 70) for number in range(2000))
    client = await pair.one.client()
    await client.begin()
    pair.one.log.hold()
    client.send(large + b".\r\n")
    assert (await client.reply()).startswith("451 ")
    assert pair.one.server.acceptor.in_doubt.empty
    pair.one.log.release()
    assert ids(pair.one) == [] == list(pair.one.records())
    await sent(pair.one, large)
    assert len(ids(pair.one)) == 1


async def test_a_claim_that_cannot_be_decided_is_451(pair: Pair) -> None:
    """While the shared memory does not say who has the doubt; afterwards the retry has the original id."""
    await doubted(pair.one)
    outcome_lost(pair.one)
    pair.one.log.release()
    await pair.published()
    (first,) = ids(pair.one)
    await doubted(pair.other)
    assert ids(pair.one) == [first]
    pair.other.log.release()
    await pair.published()
    assert await sent(pair.other) == first


async def test_a_failed_retry_gives_the_doubt_back(pair: Pair) -> None:
    await doubted(pair.one)
    outcome_lost(pair.one)
    pair.one.log.release()
    await pair.published()
    (first,) = ids(pair.one)
    client = await pair.other.client()
    append = pair.other.log.append

    async def refusing(entry: Any, limit: float) -> Any:
        if entry.topic == "accepted":
            raise LogUnavailable("not now")
        return await append(entry, limit)

    pair.other.log.append = refusing  # type: ignore[method-assign]
    assert (await said(client)).startswith("451 ")
    pair.other.log.append = append  # type: ignore[method-assign]
    await pair.published()
    assert await sent(pair.one) == first


async def test_an_edge_that_stops_publishes_what_it_knows(pair: Pair) -> None:
    await doubted(pair.one)
    pair.one.log.release()
    await pair.one.server.drain()
    await pair.one.server.close()
    (first,) = ids(pair.other)
    await until(pair.other, lambda: shared(pair.other) == 1)
    assert await sent(pair.other) == first


async def test_an_edge_that_stops_while_the_log_is_away_does_not_wait_for_it(pair: Pair) -> None:
    """The doubt is lost with it (a stated limit): the retry is ordinary mail."""
    assert pair.one.state is not None

    async def refuse(*_: Any) -> None:
        raise StateUnavailable("away")

    pair.one.state.put = refuse  # type: ignore[method-assign,assignment]
    await doubted(pair.one)
    async with asyncio.timeout(20):
        await pair.one.server.close()
    pair.one.log.release()
    (first,) = ids(pair.other)
    assert await sent(pair.other) != first


@pytest.mark.parametrize("seed", range(2))
async def test_no_two_clients_ever_share_an_id(pair: Pair, seed: int) -> None:
    """Ten clients send the very same mail again and again, each until 250, while the log fails in every way it can.

    However their tries and retries cross, at both edges: each has an id of its own, and each id has a record. Were
    two of them taken for one, a mail would be lost.
    """
    chance = random.Random(seed)
    log, stop = pair.one.log, asyncio.Event()
    doubts, matches = metrics.APPENDS_IN_DOUBT.values[()], metrics.DOUBTS_RESOLVED.values.get(("matched",), 0)

    def enough(rounds: int) -> bool:
        """Whether something was shown: a doubt has been matched by a retry. Its moment is nobody's choice."""
        return rounds >= 6 and metrics.DOUBTS_RESOLVED.values.get(("matched",), 0) > matches

    async def faults() -> None:
        rounds = 0
        while not enough(rounds):
            rounds += 1
            log.hold()
            await asyncio.sleep(chance.uniform(0.1, 0.35))
            chance.choice((log.release, log.release, log.lose_held, log.go_away))()
            if not log.available:
                await asyncio.sleep(chance.uniform(0.0, 0.05))
                log.come_back()
                log.release()
            # Time for a few mails, or for a doubt to go round and a retry or two.
            await asyncio.sleep(chance.uniform(0.005, 0.1))
        stop.set()

    async def insist() -> list[str]:
        accepted = []
        while not stop.is_set():
            accepted.append(await until_accepted())
            await asyncio.sleep(chance.uniform(0.0, 0.05))
        return accepted

    async def until_accepted() -> str:
        while True:
            edge = chance.choice((pair.one, pair.other))
            client = await edge.connect()
            found = None
            if (await client.reply()).startswith("220 "):
                assert (await client.ask("EHLO client.example.org")).startswith("250")
                found = QUEUED.fullmatch(await said(client))
            await client.close()
            if found is not None:
                return found[1]
            await asyncio.sleep(chance.uniform(0.0, 0.1))

    trouble = asyncio.create_task(faults())
    async with asyncio.timeout(60):
        told = [own for some in await asyncio.gather(*(insist() for _ in range(10))) for own in some]
    await trouble
    log.release()
    assert len(set(told)) == len(told)
    assert set(told) <= set(ids(pair.one))
    assert metrics.APPENDS_IN_DOUBT.values[()] > doubts


async def test_doubts_are_counted(edge: Edge) -> None:
    doubtful = metrics.APPENDS_IN_DOUBT.values[()]
    before = dict(metrics.DOUBTS_RESOLVED.values)
    await doubted(edge)
    edge.log.release()
    await until(edge, lambda: shared(edge) == 1)
    await sent(edge)
    assert metrics.APPENDS_IN_DOUBT.values[()] == doubtful + 1
    for outcome in ("written", "matched"):
        assert metrics.DOUBTS_RESOLVED.values[(outcome,)] == before.get((outcome,), 0) + 1
