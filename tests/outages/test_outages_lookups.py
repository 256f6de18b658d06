"""One of three brokers lost, LDAP and DNS away: in one gateway, since they do not disturb each other.

Mail with DNS trouble waits a minute in its retry tier; meanwhile the other faults are tried.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from testbed.faulty import Fault
from testbed.outages import (
    BACK_SECONDS,
    DIRECTORY,
    DNS_LIMIT_SECONDS,
    LDAP_LIMIT_SECONDS,
    RELAYED,
    STATIC,
    TOLERANCE,
    Table,
    World,
    outage_world,
    until,
)
from testbed.probe import Probe, Saw
from testbed.witness import KafkaWitness

pytestmark = [pytest.mark.servers, pytest.mark.lengthy]

RETRY_SECONDS = 60.0
# DNS name -> what is wrong with it; a number of seconds is a delay.
DNS_FAULTS: dict[str, tuple[str, str | float]] = {
    "dropped": ("hung", "drop"),
    "slower": ("slow, over the limit", DNS_LIMIT_SECONDS + 3.0),
    "servfail": ("SERVFAIL", "servfail"),
    "notauth": ("REFUSED", "refused"),
    "wrongid": ("answers with a wrong id", "wrongid"),
    "halfcut": ("truncated, and no answer by TCP", "tcdrop"),
}
DNS_HARMLESS: dict[str, tuple[str, str | float]] = {
    "slow": ("slow, within", 0.3),
    "cut": ("truncated, and an answer by TCP", "tc"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with outage_world(tmp_path_factory.mktemp("outages-lookups"), brokers=3) as made:
        yield made


class DnsMail:
    """Mail that was sent while DNS was wrong for its domain, sent before anything else is tried here."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.began = time.monotonic()
        world.names.hurt(Fault.REFUSED)
        try:
            with KafkaWitness(world.kafka.bootstrap, {"retry.1m": "retry.1m"}) as witness:
                self._send("refused")
                self._await_deferred(witness, {"refused"})
        finally:
            world.names.heal()
        for name, (_, fault) in {**DNS_FAULTS, **DNS_HARMLESS}.items():
            world.dns.behave[f"{name}.dns.test"] = fault
        with KafkaWitness(world.kafka.bootstrap, {"retry.1m": "retry.1m"}) as witness:
            for name in (*DNS_FAULTS, *DNS_HARMLESS):
                self._send(name)
            self._await_deferred(witness, set(DNS_FAULTS))
            self.harmless_after = until(lambda: self.came() >= set(DNS_HARMLESS), BACK_SECONDS * TOLERANCE)
        for name in DNS_FAULTS:
            del world.dns.behave[f"{name}.dns.test"]

    def _send(self, name: str) -> None:
        before = set(self.world.promised)
        assert self.world.send(f"x@{name}.dns.test").code == 250
        self.world.parked |= self.world.promised - before

    def _await_deferred(self, witness: KafkaWitness, names: set[str]) -> None:
        wanted = {f"x@{name}.dns.test" for name in names}

        def deferred() -> set[str]:
            return {record.address for record in witness.records}

        until(lambda: wanted <= deferred(), BACK_SECONDS * TOLERANCE, lambda: f"deferred: {deferred()}")

    def came(self) -> set[str]:
        """The names whose mail came to the next hop."""
        addresses = [address for one in list(self.world.sink.transactions) for address in one.addresses]
        return {address[2:].removesuffix(".dns.test") for address in addresses if address.endswith(".dns.test")}


@pytest.fixture(scope="module", autouse=True)
def dns_mail(world: World) -> DnsMail:
    return DnsMail(world)


# -- LDAP


def hurt_ldap(world: World, fault: str) -> Callable[[], None]:
    match fault:
        case "hung (SIGSTOP)":
            world.slapd.server.suspend()
            return world.slapd.server.resume
        case "killed":
            world.slapd.server.kill9()
            return world.slapd.server.start
        case "slow, over the limit":
            world.ldap.hurt(Fault.SLOW, LDAP_LIMIT_SECONDS + 3.0)
        case _:
            world.ldap.hurt(Fault(fault))
    return world.ldap.heal


@pytest.mark.parametrize("fault", ["refused", "reset", "hung (SIGSTOP)", "slow, over the limit", "killed"])
def test_the_directory_is_away(world: World, table: Table, fault: str) -> None:
    """451 for who is not known, 250 for who is (a stale yes), never 550, and other domains go on.

    Fails without stale answers, with stale refusals, or when the router gives up what it cannot look up.
    """
    row = table.row("LDAP", fault)
    known, fresh, nobody = world.person(), world.person(), f"nobody-{fault[:4].strip()}@{DIRECTORY}"
    assert rcpt(world, known).code == 250
    assert rcpt(world, nobody).code == 550
    heal = hurt_ldap(world, fault)
    try:
        # An answer is kept for a second here: from then on both are stale.
        until(lambda: rcpt(world, nobody).code != 550, BACK_SECONDS)
        row.saw("rcpt", rcpt(world, fresh), rcpt(world, nobody), rcpt(world, known))
        assert rcpt(world, fresh).code == 451
        # The router knows nothing of `known`, whom only the edge has asked for.
        saw = world.send(known)
        row.saw("end", saw)
        assert saw.code == 250
        waiting = world.missing()
        with Probe(world.edge.submission) as probe:
            probe.say("EHLO probe.example")
            login = base64.b64encode(b"\0alice\0pw-alice").decode()
            auth = probe.say(f"AUTH PLAIN {login}")
            row.saw("connect", probe.greeting)
        assert auth.code == 454, auth
        assert world.send(f"ann@{STATIC}").code == 250
        world.until_all_arrived(but=list(waiting))
        row.behind = f"{len(world.missing())} waiting; other domains go on; AUTH: {auth}"
    finally:
        heal()
    row.is_back(until(lambda: rcpt(world, fresh).code == 250, BACK_SECONDS * TOLERANCE), "250 after")
    row.is_back(world.until_all_arrived(), "all arrived after")


def rcpt(world: World, recipient: str) -> Saw:
    with Probe(world.edge.mx).until_sender() as probe:
        return probe.say(f"RCPT TO:<{recipient}>")


def test_a_directory_that_is_slow_within_the_limit(world: World, table: Table) -> None:
    row = table.row("LDAP", "slow, within")
    world.ldap.hurt(Fault.SLOW, 0.1)
    try:
        saw = rcpt(world, world.person())
        row.saw("rcpt", saw)
        assert saw.code == 250
    finally:
        world.ldap.heal()


def test_one_slow_question_holds_up_no_other(world: World, table: Table) -> None:
    """A search that hangs has its connection; others have theirs. Fails when all questions share one way."""
    row = table.row("LDAP", "slow, over the limit, for one name")
    slow, others = world.person(), [world.person() for _ in range(6)]
    asked = threading.Event()

    def slow_one(data: bytes) -> bool:
        if slow.encode() in data:
            asked.set()
            return True
        return False

    world.ldap.slow_for = slow_one
    world.ldap.delay = LDAP_LIMIT_SECONDS + 3.0
    try:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(rcpt, world, slow)
            assert asked.wait(BACK_SECONDS)
            seen = [rcpt(world, other) for other in others]
            first = answer.done()
            held = answer.result()
    finally:
        world.ldap.slow_for = lambda _: False
        world.ldap.delay = 0.0
    row.saw("rcpt", held, max(seen, key=lambda saw: saw.seconds))
    assert {saw.code for saw in seen} == {250}
    assert not first, "the slow question was answered before the others"
    assert held.code == 451
    row.is_back(until(lambda: rcpt(world, slow).code == 250, BACK_SECONDS * TOLERANCE), "250 after")


# -- one of three brokers


@pytest.mark.parametrize("fault", ["killed", "hung (SIGSTOP)"])
def test_one_of_three_brokers_is_lost(world: World, table: Table, fault: str) -> None:
    """Two brokers are enough: 250 again by itself while the third is away, and nothing is lost.

    Fails with fewer than two copies, or a client that holds on to a dead leader.
    """
    row = table.row("Kafka, 1 of 3 brokers", fault)
    for _ in range(5):
        assert world.send(f"x@{RELAYED}").code == 250
        assert world.send(f"ann@{STATIC}").code == 250
    node = world.kafka.nodes[0 if fault == "killed" else 1]
    if fault == "killed":
        node.kill9()
    else:
        node.suspend()
    try:
        begun = time.monotonic()
        row.saw("end", *hasten(world))
        row.is_back(time.monotonic() - begun, "with two brokers 250 for all within")
        world.until_all_arrived()
        row.is_back(time.monotonic() - begun, "all arrived within")
    finally:
        if fault == "killed":
            node.start()
        else:
            node.resume()
    everyone = {one.number for one in world.kafka.nodes}
    until(lambda: all(one.known_brokers() == everyone for one in world.kafka.nodes), BACK_SECONDS * TOLERANCE)
    row.is_back(world.until_accepted(f"ann@{STATIC}"), "with three 250 after")
    world.until_all_arrived()


def hasten(world: World, clients: int = 4, good: int = 10) -> list[Saw]:
    """Several clients send until each got 250 ten times in a row; the refusals, and the slowest reply."""

    def one(_: int) -> list[Saw]:
        answers: list[Saw] = []
        begun = time.monotonic()
        while len(answers) < good or {saw.code for saw in answers[-good:]} != {250}:
            assert time.monotonic() - begun < BACK_SECONDS * TOLERANCE, answers[-1]
            answers.append(world.send(f"ben@{STATIC}"))
        return answers

    with ThreadPoolExecutor(clients) as pool:
        answers = [saw for answers in pool.map(one, range(clients)) for saw in answers]
    slowest = max(answers, key=lambda saw: saw.seconds)
    return [*(saw for saw in answers if saw.code != 250), slowest]


# -- DNS


def test_mail_waits_while_dns_is_wrong(world: World, table: Table, dns_mail: DnsMail) -> None:
    """No answer, a late one, SERVFAIL, REFUSED, a forged id, a cut answer: all temporary, and the mail arrives.

    Fails when a resolver's trouble is taken for "no such domain".
    """
    wanted = {"refused", *DNS_FAULTS}
    until(lambda: dns_mail.came() >= wanted, RETRY_SECONDS + BACK_SECONDS * TOLERANCE, lambda: str(dns_mail.came()))
    for name in sorted(wanted):
        row = table.row("DNS", "refused" if name == "refused" else DNS_FAULTS[name][0])
        row.behind = "deferred for a minute, arrived after it"
    for fault, _ in DNS_HARMLESS.values():
        table.row("DNS", fault).behind = "sent at once"
    world.parked.clear()
    world.until_all_arrived()


def test_no_such_domain_is_believed(world: World, table: Table) -> None:
    """NXDOMAIN is an answer (RFC 5321 5.1): the recipient is refused for good, unlike in every case above.

    Fails when NXDOMAIN is taken for a resolver's trouble: then the mail is deferred again and again. It may be
    deferred once, when a busy machine keeps the test's own DNS server from answering in time.
    """
    row = table.row("DNS", "NXDOMAIN")
    relay, recipient = world.own.members["relay"], "x@nothere.dns.test"

    def told(event: str) -> list[str]:
        return [line["reason"] for line in relay.told(event) if line["recipient"] == recipient]

    token = world.token()
    with Probe(world.edge.mx).until_data(recipient, token) as probe:
        assert probe.send(b".\r\n").code == 250
    until(
        lambda: bool(told("relay.failed")),
        RETRY_SECONDS + BACK_SECONDS * TOLERANCE,
        lambda: f"deferred: {told('relay.deferred')}; DNS: {relay.told('dns_failed')[-3:]}",
    )
    assert set(told("relay.failed")) == {"550 5.1.2 the domain nothere.dns.test does not exist"}
    assert token not in world.arrived()
    tries = "at the second try" if told("relay.deferred") else "not tried again"
    row.behind = f"believed: given up with a 5xx, {tries}"
