"""A whole operator between an API server and a log in memory: what users see, whatever goes away meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import pytest

from gatepost.backends.config_log import ConfigurationPublisher
from gatepost.core.config_head import Head
from gatepost.core.configuration import CLOSED, Configuration
from gatepost_operator.controller import Pace
from gatepost_operator.lease import EPOCH_ANNOTATION, Timing
from gatepost_operator.removal import ANNOTATION

Document = dict[str, Any]
Make = Callable[..., Document]
LEASE = ("default", "mail-operator")
FAST = Pace(bundle=0.0, tick=0.02, messages=0.05, settle=0.05, quiet=0.05)


async def on_the_log(world: Any) -> tuple[Head | None, Configuration | None]:
    publisher = ConfigurationPublisher(world.log, world.topics, "test")
    head = await publisher.load()
    return head, publisher.configuration()


async def served(world: Any, *domains: str, epoch: int | None = None) -> Head:
    """Wait until exactly these domains are published, and return the head."""
    try:
        async with asyncio.timeout(20):
            while True:
                world.check()
                if world.log.available and world.topics.config in world.storage.topics:
                    head, configuration = await on_the_log(world)
                    names = {domain.domain for domain in configuration.domains} if configuration else None
                    if head and names == set(domains) and epoch in (None, head.epoch):
                        return head
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never published: {domains}") from None


def condition(world: Any, name: str, type_: str = "Programmed", kind: str = "MailDomain", **place: str) -> Any:
    found = world.cluster.conditions(kind, name, **place).get(type_)
    return (found["status"], found["reason"]) if found else None


async def test_without_any_object_a_closed_configuration_is_published(world: Any) -> None:
    await world.start()
    await served(world)
    _, configuration = await on_the_log(world)
    assert configuration is not None
    assert configuration.domains == CLOSED.domains
    assert [listener.listener for listener in configuration.listeners] == ["mx", "sub"]
    assert not any(listener.relay_clients for listener in configuration.listeners)


async def test_objects_become_a_configuration_and_edges_make_them_programmed(
    world: Any, mail_domain: Make, relay_policy: Make, until: Any
) -> None:
    world.cluster.store(mail_domain("a"))
    world.cluster.store(relay_policy("public"))
    await world.start()
    head = await served(world, "a.test")
    await until(lambda: condition(world, "a") == ("Unknown", "NoEdges"))
    await world.ack("edge-1", head.hash)
    await until(lambda: condition(world, "a") == ("True", "Programmed"))
    await until(lambda: condition(world, "public", kind="RelayPolicy") == ("True", "Programmed"))


async def test_acks_of_other_services_do_not_count(world: Any, mail_domain: Make, until: Any) -> None:
    world.cluster.store(mail_domain("a"))
    await world.start()
    head = await served(world, "a.test")
    await world.ack("router-1", head.hash, service="router")
    await world.ack("edge-1", "old")
    await until(lambda: condition(world, "a") == ("False", "Pending"))
    assert world.cluster.conditions("MailDomain", "a")["Programmed"]["message"].startswith("0 of 1")


async def test_an_edge_that_left_is_not_waited_for(world: Any, mail_domain: Make, until: Any) -> None:
    world.cluster.store(mail_domain("a"))
    await world.start()
    head = await served(world, "a.test")
    await world.ack("edge-1", head.hash)
    await world.ack("edge-2", "old")
    await until(lambda: condition(world, "a") == ("False", "Pending"))
    await world.gone("edge-2")
    await until(lambda: condition(world, "a") == ("True", "Programmed"))


async def test_updates_and_deletions_are_published(world: Any, mail_domain: Make, until: Any) -> None:
    await world.start()
    world.cluster.store(mail_domain("a"))
    world.cluster.store(mail_domain("b"))
    first = await served(world, "a.test", "b.test")
    world.cluster.store(mail_domain("a", aliasDomains=["alias.test"]))
    await until(lambda: world.cluster.objects[("MailDomain", "default", "a")]["status"]["observedGeneration"] == 2)
    world.cluster.delete("MailDomain", "b")
    last = await served(world, "a.test")
    assert last.generation > first.generation
    assert last.epoch == first.epoch


async def test_a_bad_object_blocks_nobody(world: Any, mail_domain: Make, until: Any) -> None:
    await world.start()
    world.cluster.store(mail_domain("odd", future=True))
    world.cluster.store(mail_domain("first", "same.test"))
    world.cluster.store(mail_domain("second", "same.test"))
    world.cluster.store(mail_domain("good"))
    await served(world, "same.test", "good.test")
    await until(lambda: condition(world, "odd", "Accepted") == ("False", "Invalid"))
    await until(lambda: condition(world, "second", "Accepted") == ("False", "Conflicted"))
    await until(lambda: condition(world, "first", "Accepted") == ("True", "Accepted"))


async def test_namespaces_own_what_they_are_given_and_others_are_passed_over(
    world: Any, mail_domain: Make, relay_policy: Make, until: Any
) -> None:
    await world.start()
    world.cluster.store(mail_domain("own", "mail.tenant.example", "tenant"))
    world.cluster.store(mail_domain("greedy", "other.example", "tenant"))
    world.cluster.store(mail_domain("stranger", "x.tenant.example", "elsewhere"))
    world.cluster.store(relay_policy("theirs", namespace="tenant"))
    await served(world, "mail.tenant.example")
    await until(lambda: condition(world, "greedy", "Accepted", namespace="tenant") == ("False", "NotAllowed"))
    await until(
        lambda: condition(world, "theirs", "Accepted", "RelayPolicy", namespace="tenant") == ("False", "NotAllowed")
    )
    assert world.cluster.conditions("MailDomain", "stranger", "elsewhere") == {}


async def test_nothing_is_written_twice(world: Any, mail_domain: Make, until: Any) -> None:
    world.cluster.store(mail_domain("a"))
    operator = await world.start()
    head = await served(world, "a.test")
    await world.ack("edge-1", head.hash)
    await until(lambda: condition(world, "a") == ("True", "Programmed"))
    written, end = len(world.cluster.applied), world.log.end_of(world.topics.config, 0)
    turns = operator._controller.last_turn
    for pod in range(5):
        await world.ack(f"edge-{pod + 2}", "other")
        await world.gone(f"edge-{pod + 2}")
    await until(lambda: operator._controller.last_turn > turns + 0.1)
    assert len(world.cluster.applied) == written
    assert world.log.end_of(world.topics.config, 0) == end


async def test_a_restarted_operator_begins_with_what_is_published(
    world: Any, mail_domain: Make, until: Any
) -> None:
    world.cluster.store(mail_domain("a"))
    await world.start()
    first = await served(world, "a.test")
    await world.stop()
    world.cluster.store(mail_domain("b"))
    await world.ack("edge-1", first.hash)
    await world.start()
    second = await served(world, "a.test", "b.test")
    assert (second.epoch, second.generation > first.generation) == (first.epoch + 1, True)
    # The edge still runs what the former operator published, which holds the one and not the other.
    await until(lambda: condition(world, "a") == ("True", "Programmed"))
    await until(lambda: condition(world, "b") == ("False", "Pending"))


async def test_nothing_is_published_before_every_kind_was_listed(
    world: Any, mail_domain: Make, relay_policy: Make, until: Any
) -> None:
    world.cluster.store(mail_domain("a"))
    await world.start()
    before = await served(world, "a.test")
    await world.stop()
    gate = asyncio.Event()
    listing = world.cluster.list_objects

    async def late(kind: str, namespace: str | None) -> Any:
        if kind == "RelayPolicy":
            await gate.wait()
        return await listing(kind, namespace)

    world.cluster.list_objects = late
    world.cluster.store(relay_policy("public", recipients={"max": 77}))
    operator = await world.start()
    await until(lambda: operator._cache.snapshot() and operator._lease.held)
    turn = operator._controller.last_turn
    await until(lambda: operator._controller.last_turn > turn + 0.1)
    assert operator.not_ready() == "not every kind was listed yet"
    assert (await on_the_log(world))[0] == before
    gate.set()
    await served(world, "a.test", epoch=2)
    _, configuration = await on_the_log(world)
    assert configuration is not None
    assert configuration.listeners[0].max_recipients == 77


async def test_a_deletion_that_the_watch_saw_needs_no_list(world: Any, mail_domain: Make, until: Any) -> None:
    world.cluster.store(mail_domain("a"))
    world.cluster.store(mail_domain("b"))
    operator = await world.start()
    await served(world, "a.test", "b.test")
    lists: list[str] = []
    listing = world.cluster.list_objects

    async def counted(kind: str, namespace: str | None) -> Any:
        listed = await listing(kind, namespace)
        lists.append(kind)
        return listed

    world.cluster.list_objects = counted
    await until(lambda: len(lists) >= 2, "the list that the beginning of the watch asks for")
    assert not operator._lister._asked.is_set()
    done = len(lists)
    world.cluster.delete("MailDomain", "a")
    await served(world, "b.test")
    assert len(lists) == done


async def test_messages_follow_the_edges_slowly(world: Any, mail_domain: Make, until: Any) -> None:
    """Else each ack of each pod would be a write for each object that waits."""
    world.cluster.store(mail_domain("a"))
    operator = await world.start(pace=msgspec.structs.replace(FAST, messages=3600.0))
    await served(world, "a.test")
    await world.ack("edge-1", "old")
    await until(lambda: condition(world, "a") == ("False", "Pending"))
    for number in range(5):
        await world.ack(f"edge-{number + 2}", "old")
    turn = operator._controller.last_turn
    await until(lambda: operator._controller.last_turn > turn + 0.1)
    assert world.cluster.conditions("MailDomain", "a")["Programmed"]["message"].startswith("0 of 1 ")


async def test_what_was_deleted_while_nobody_looked_goes(world: Any, mail_domain: Make) -> None:
    world.cluster.store(mail_domain("a"))
    world.cluster.store(mail_domain("b"))
    await world.start()
    await served(world, "a.test", "b.test")
    (watch,) = world.watches
    watch.blind = True
    world.cluster.delete("MailDomain", "a")
    watch.again()
    await served(world, "b.test")


async def test_an_old_head_is_removed_and_a_deposed_operator_cannot_win(world: Any, mail_domain: Make) -> None:
    """A write that was under way when the Lease went lands under the older epoch."""
    world.cluster.store(mail_domain("a"))
    await world.start()
    await served(world, "a.test", epoch=1)
    await world.stop()
    late = ConfigurationPublisher(world.log, world.topics, "late")
    await late.load()
    await world.start()
    await served(world, "a.test", epoch=2)
    await late.publish(CLOSED, 1, 99)
    head, configuration = await on_the_log(world)
    assert head is not None
    assert head.epoch == 2
    assert configuration is None or {domain.domain for domain in configuration.domains} == {"a.test"}


async def test_only_one_of_two_publishes_and_the_other_takes_over(
    world: Any, mail_domain: Make, until: Any
) -> None:
    world.cluster.store(mail_domain("a"))
    await world.start()
    await served(world, "a.test", epoch=1)
    standby = await world.start()
    await until(lambda: standby._cache.complete)
    assert standby.not_ready() is None
    world.cluster.store(mail_domain("b"))
    await served(world, "a.test", "b.test", epoch=1)
    assert standby._lease.epoch is None
    await world.kill(0)
    await served(world, "a.test", "b.test", epoch=2)
    assert world.cluster.leases[LEASE]["metadata"]["annotations"][EPOCH_ANNOTATION] == "2"


async def test_a_polite_end_hands_over_at_once(world: Any) -> None:
    slow = Timing(duration=3600, valid=3000.0, renew=0.05, retry=0.02)
    await world.start(timing=slow)
    await served(world, epoch=1)
    await world.start(timing=slow)
    await world.stop(0)
    await served(world, epoch=2)


async def test_without_the_api_server_nothing_is_published_and_it_goes_on_by_itself(
    world: Any, mail_domain: Make, until: Any
) -> None:
    operator = await world.start()
    world.cluster.store(mail_domain("a"))
    await served(world, "a.test")
    world.cluster.away = True
    await until(lambda: not operator._lease.held)
    world.cluster.store(mail_domain("b"))
    turn = operator._controller.last_turn
    await until(lambda: operator._controller.last_turn > turn + 0.1)
    head, _ = await on_the_log(world)
    world.cluster.away = False
    after = await served(world, "a.test", "b.test")
    assert head is not None
    assert (head.generation, after.generation, after.epoch) == (1 + (head.generation - 1), head.generation + 1, 1)


async def test_while_the_log_is_away_conditions_are_told_and_publishing_goes_on_afterwards(
    world: Any, mail_domain: Make, until: Any
) -> None:
    await world.start()
    await served(world)
    world.log.go_away()
    world.cluster.store(mail_domain("a"))
    await until(lambda: condition(world, "a", "Accepted") == ("True", "Accepted"))
    assert condition(world, "a") == ("Unknown", "Pending")
    assert "the log is not available" in world.cluster.conditions("MailDomain", "a")["Programmed"]["message"]
    world.log.come_back()
    await served(world, "a.test")


async def test_a_log_that_is_away_at_the_start_is_waited_for(world: Any, mail_domain: Make, until: Any) -> None:
    world.log.go_away()
    world.cluster.store(mail_domain("a"))
    operator = await world.start()
    await until(lambda: condition(world, "a", "Accepted") == ("True", "Accepted"))
    assert operator.not_ready() == "nothing was published yet"
    world.log.come_back()
    await served(world, "a.test")
    await until(lambda: operator.not_ready() is None)


async def test_a_mass_removal_waits_for_a_word_which_counts_once(world: Any, mail_domain: Make, until: Any) -> None:
    for name in "abcde":
        world.cluster.store(mail_domain(name))
    await world.start()
    before = await served(world, *(f"{name}.test" for name in "abcde"))
    for name in "abcd":
        world.cluster.delete("MailDomain", name)
    (event,) = await until(lambda: world.cluster.events)
    assert event["reason"] == "RemovalHeldBack"
    assert event["involvedObject"]["name"] == "mail-operator"
    assert f"kubectl annotate lease mail-operator {ANNOTATION}=4" in event["message"]
    head, _ = await on_the_log(world)
    assert head == before
    allow(world, "3")
    world.cluster.store(mail_domain("e", subdomains=True))  # held back too, and it says why
    await until(
        lambda: "4 of 5 domains" in world.cluster.conditions("MailDomain", "e")["Programmed"]["message"], "told"
    )
    assert (await on_the_log(world))[0] == before
    allow(world, "4")
    await served(world, "e.test")
    await until(lambda: ANNOTATION not in world.cluster.leases[LEASE]["metadata"]["annotations"])
    assert len(world.cluster.events) == 1


async def test_a_held_back_removal_survives_a_restart(world: Any, mail_domain: Make, until: Any) -> None:
    for name in "abc":
        world.cluster.store(mail_domain(name))
    await world.start()
    await served(world, "a.test", "b.test", "c.test", epoch=1)
    await world.stop()
    for name in "abc":
        world.cluster.delete("MailDomain", name)
    await world.start()
    await served(world, "a.test", "b.test", "c.test", epoch=2)
    await until(lambda: world.cluster.events)


def allow(world: Any, number: str) -> None:
    """As `kubectl annotate --overwrite lease` does."""
    lease = world.cluster.leases[LEASE]
    lease["metadata"]["annotations"][ANNOTATION] = number
    lease["metadata"]["resourceVersion"] = world.cluster._next()


async def test_a_watch_that_ended_ends_the_operator(world: Any, until: Any) -> None:
    await world.start()
    await until(lambda: world.watches)
    await served(world)
    world.watches[0].failed.set()
    _, task = world._running.pop()
    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        await task
    assert world.cluster.leases[LEASE]["spec"]["holderIdentity"] == ""


async def test_health_and_metrics_are_served(world: Any, mail_domain: Make, until: Any) -> None:
    world.cluster.store(mail_domain("a"))
    world.cluster.store(mail_domain("odd", future=True))
    operator = await world.start()
    await served(world, "a.test")
    await until(lambda: operator.not_ready() is None)
    port = operator.health.port
    async with aiohttp.ClientSession() as session:
        for path in ("livez", "readyz"):
            async with session.get(f"http://127.0.0.1:{port}/{path}") as answer:
                assert answer.status == 200
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            text = await answer.text()
    assert "gatepost_operator_leader 1.0" in text
    assert 'gatepost_operator_objects{accepted="False",kind="MailDomain"} 1.0' in text
    assert 'gatepost_operator_objects{accepted="True",kind="MailDomain"} 1.0' in text
