"""kill -9 of every kind of process and of brokers, under load, while a reader takes the mail out of new/.

What got 250 arrives; in Maildir exactly once; by SMTP and LMTP at most what was in hand at a kill comes twice.

At each kill at least RATE messages a second are accepted and at least IN_FLIGHT are between MAIL and the answer to
their end, and the victim has worked since its last start; the test waits until all that is so, and fails when it
does not come to be. Victims, their order and the moments come from GATEPOST_KILL_SEED, which is printed.
GATEPOST_KILL_ROUNDS sets the length: 5 kills of separate processes and at least 1,000 messages a round (30 rounds:
150 kills, 30,000 messages), and 2 kills of a standalone one. GATEPOST_KILL_REPORT names a folder for JSON results.

**What was in hand** is counted from the records themselves, never from the number of clients. A process that dies
makes its successor repeat the records that it had not finished (as its group's commits tell), and what a repetition
can double is the outcome that such a record had already: a copy at the next hop, a copy written to the next topic,
a deferral. So for each kill and each kind of destination it is the number of recipients with a record that the
victim's groups had not finished and with an outcome of that record, both at that moment. A broker's death can spoil
the commits and appends of all, so there it is counted over all groups.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from testbed.dns import FakeDns
from testbed.installation import Installation, Member
from testbed.kafka import Kafka, Node
from testbed.load import Load, Reader, token_of
from testbed.process import kill_together
from testbed.smtpsink import SmtpSink
from testbed.witness import Arrivals, FileWitness, KafkaWitness, Kill, Step, Trace, Witness, in_hand, now_ms
from testbed.world import wait_for

ROUNDS = int(os.environ.get("GATEPOST_KILL_ROUNDS", "6"))
SEED = int(os.environ.get("GATEPOST_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
REPORT = os.environ.get("GATEPOST_KILL_REPORT", "")

CLIENTS = 64
PER_CONNECTION = 20
RATE = 200  # messages a second at each kill
IN_FLIGHT = 50
BETWEEN = (150, 260)  # messages with 250 between two moments
MESSAGES_A_ROUND = 1000  # with 250, of separate processes
MOST_SECONDS_A_ROUND = 90
MAILBOXES = 20
LARGE = 100_000  # over the limit for inline bodies
DEFERRED = 15  # recipients of each next hop whose first attempt is answered with 4xx

RELAYED, LMTP, STORED = "relayed.test", "lmtp.test", "stored.test"
KINDS = ("edge", "router", "mailbox", "relay", "broker")

# What each kind of process reads, and where the outcome can be seen; standalone a store may be reached at once.
ROUTING = Step("accepted", frozenset({"relay", "mailbox.lmtp", "lmtp"}))
SENDING = Step("relay", frozenset({"smtp", "retry.1m"}))
STORING = Step("mailbox.lmtp", frozenset({"lmtp", "retry.1m"}))
RETRYING = Step("retry.1m", frozenset({"relay", "mailbox.lmtp"}))
EVERYTHING = (ROUTING, SENDING, STORING, RETRYING)
STEPS: Mapping[str, Sequence[Step]] = {
    "router": (ROUTING,),
    "mailbox-local": (ROUTING,),
    "mailbox-lmtp": (STORING,),
    "relay": (SENDING, RETRYING),
    "kafka": EVERYTHING,
}
GROUPS = {
    "accepted": "router",
    "relay": "relay",
    "mailbox.lmtp": "mailbox.lmtp",
    "mailbox.local": "mailbox.local",
    "retry.1m": "retry.1m",
}
# What a process counts once it has done something.
WORKED = {
    "edge": "gatepost_edge_messages",
    "router": "gatepost_router_copies",
    "mailbox": "gatepost_mailbox_deliveries",
    "relay": "gatepost_relay_deliveries",
}

MANIFESTS = f"""
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {{name: stored}}
spec:
  domain: {STORED}
  recipients: {{source: {{type: Static, addresses: [{", ".join(f"u{n}" for n in range(MAILBOXES))}]}}}}
  delivery: {{type: Mailbox, store: local}}
---
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {{name: lmtp}}
spec:
  domain: {LMTP}
  recipients: {{source: {{type: Any}}}}
  delivery: {{type: Mailbox, store: lmtp}}
---
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {{name: relayed}}
spec:
  domain: {RELAYED}
  recipients: {{source: {{type: Any}}}}
  delivery: {{type: Relay, hosts: ["[mx.relayed.test]"]}}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {{name: mx}}
spec:
  target: {{type: Listeners, listeners: [mx]}}
  connection: {{perHost: {{concurrent: 200}}}}
"""


def settings(bootstrap: str, dns: int, smtp: int, lmtp: int) -> dict[str, Any]:
    return {
        "hostname": "mx.stored.test",
        "log": {"kafka": {"bootstrapServers": bootstrap.split(",")}, "partitions": 4},
        "listeners": [{"name": "mx", "role": "mx", "address": "127.0.0.1:0"}],
        # The store's process takes part in routing: both ways into it are tried, by a record and without one.
        "stores": {
            "local": {"maildir": {"path": "mail", "routes": True}},
            "lmtp": {"lmtp": {"address": f"127.0.0.1:{lmtp}"}},
        },
        "dns": {"servers": [f"127.0.0.1:{dns}"], "timeout": "2s"},
        "relay": {"smtpPort": smtp, "connectTimeout": "5s", "connectionsPerSite": 20},
        "telemetry": {"logLevel": "warning", "logFormat": "json"},
    }


def address_of(number: int) -> str:
    """Of 20 messages one goes on by SMTP and one by LMTP, each to an address of its own."""
    match number % 20:
        case 0:
            return f"r{number}@{RELAYED}"
        case 10:
            return f"l{number}@{LMTP}"
    return f"u{number % MAILBOXES}@{STORED}"


def size_of(number: int) -> int:
    return LARGE if number % 50 == 7 else 2000


def moments(rng: random.Random, rounds: int) -> list[tuple[str, ...]]:
    """The kinds to kill at each moment: every kind once a round, in some rounds two of them at once."""
    found: list[tuple[str, ...]] = []
    for number in range(rounds):
        together: tuple[str, ...] = ((), ("edge", "broker"), ("router", "mailbox"))[number % 3]
        single: list[tuple[str, ...]] = [(kind,) for kind in KINDS if kind not in together]
        rest = [*single, together] if together else single
        rng.shuffle(rest)
        found += rest
    return found


class Sinks:
    """The next hops by SMTP and LMTP, each with a 4xx for the first recipients."""

    def __init__(self, smtp: SmtpSink, lmtp: SmtpSink) -> None:
        self.arrivals = {"smtp": Arrivals(), "lmtp": Arrivals()}
        for name, sink in (("smtp", smtp), ("lmtp", lmtp)):
            sink.transactions = self.arrivals[name]
            sink.script("RCPT", "450 4.2.0 come back", times=DEFERRED)

    def copies(self, name: str) -> Counter[str]:
        return Counter(token_of(transaction.data) for transaction in list(self.arrivals[name]))

    def traces(self) -> list[Trace]:
        return [trace for name, arrivals in self.arrivals.items() for trace in arrivals.traces(name)]


class Story:
    """What the test does and sees: kills with their circumstances, and the verdict at the end."""

    def __init__(self, name: str, load: Load, reader: Reader, sinks: Sinks, witness: Witness) -> None:
        self.name, self.load, self.reader, self.sinks, self.witness = name, load, reader, sinks, witness
        self.rng = random.Random(SEED)
        self.kills: list[Kill] = []
        self.lines: list[dict[str, Any]] = []
        self._begun = time.monotonic()
        print(f"\n{name}: GATEPOST_KILL_SEED={SEED} GATEPOST_KILL_ROUNDS={ROUNDS}")

    def await_busy(self) -> tuple[float, int]:
        return self.load.await_busy(IN_FLIGHT, self.rng.randint(*BETWEEN), RATE)

    def note(self, kill: Kill, victims: Sequence[str], rate: float, in_flight: int) -> None:
        self.kills.append(kill)
        second = round(time.monotonic() - self._begun, 1)
        self.lines.append({"second": second, "victims": list(victims), "rate": rate, "inFlight": in_flight})

    def verify(self) -> None:
        """Nothing lost, nothing twice beyond what was in hand, nothing stuck."""
        load, reader = self.load, self.reader
        promised = {domain: _tokens(load, domain) for domain in (STORED, RELAYED, LMTP)}
        wait_for(lambda: promised[STORED] - set(reader.seen), lambda missing: not missing, seconds=120)
        for name, domain in (("smtp", RELAYED), ("lmtp", LMTP)):
            self._await_sent(name, promised[domain])
        wait_for(self.witness.unfinished, lambda unfinished: not unfinished)
        reader.finish()
        assert {token: count for token, count in reader.seen.items() if count > 1} == {}, "twice in Maildir"
        assert set(reader.seen) <= load.attempted
        extra = {name: _extra(self.sinks.copies(name)) for name in ("smtp", "lmtp")}
        held = self._in_hand()
        self._report(extra, held)
        for name, count in extra.items():
            assert count <= held[name], f"{count} extra copies by {name}, {held[name]} were in hand at the kills"

    def _await_sent(self, name: str, promised: set[str]) -> None:
        wait_for(lambda: promised - set(self.sinks.copies(name)), lambda missing: not missing)

    def _in_hand(self) -> Counter[str]:
        traces = [*self.witness.records, *self.sinks.traces()]
        total: Counter[str] = Counter()
        for kill, line in zip(self.kills, self.lines, strict=True):
            held = in_hand(kill, traces)
            line["inHand"] = {
                "smtp": sum(address.endswith(RELAYED) for address in held),
                "lmtp": sum(address.endswith(LMTP) for address in held),
            }
            total.update(line["inHand"])
        return total

    def _report(self, extra: Mapping[str, int], held: Mapping[str, int]) -> None:
        victims = [victim for line in self.lines for victim in line["victims"]]
        result = {
            "seed": SEED,
            "kills": len(victims),
            "killsByKind": dict(Counter(victim.split("-")[0] for victim in victims)),
            "seconds": round(time.monotonic() - self._begun),
            "messages": len(self.load.promised),
            "attempted": len(self.load.attempted),
            "lost": 0,
            "extraInMaildir": 0,
            "extra": dict(extra),
            "inHand": {name: held[name] for name in ("smtp", "lmtp")},
            "writtenTwice": self.witness.written_twice(),
            "lowestRate": min(line["rate"] for line in self.lines),
            "fewestInFlight": min(line["inFlight"] for line in self.lines),
            "refused": dict(self.load.refused),
        }
        print(f"{self.name}: {json.dumps(result)}")
        if REPORT:
            Path(REPORT).mkdir(parents=True, exist_ok=True)
            target = Path(REPORT) / f"{self.name}.json"
            target.write_text(json.dumps({**result, "moments": self.lines}, indent=1) + "\n")


def _steps(victims: Sequence[str]) -> list[Step]:
    return [step for name, steps in STEPS.items() for step in steps if any(v.startswith(name) for v in victims)]


def _tokens(load: Load, domain: str) -> set[str]:
    return {token for token, recipient in load.promised.items() if recipient.endswith("@" + domain)}


def _extra(copies: Counter[str]) -> int:
    return sum(count - 1 for count in copies.values())


class Cluster:
    """The processes and brokers that can be killed, and when a kind of them is worth killing."""

    def __init__(self, own: Installation, kafka: Kafka, rng: random.Random) -> None:
        self._own, self._kafka, self._rng = own, kafka, rng

    def victim(self, kind: str) -> Member | Node:
        """One of a kind, all of which are up again, and which has worked since its start."""
        limit = f"a {kind} is not up and working again"
        if kind == "broker":
            everyone = {node.number for node in self._kafka.nodes}
            _until(lambda: all(node.known_brokers() == everyone for node in self._kafka.nodes), limit)
            return self._rng.choice(self._kafka.nodes)
        members = self._own.of(kind)
        _until(lambda: all(member.is_ready() for member in members), limit)
        chosen = self._rng.choice(members)
        _until(lambda: _worked(chosen), limit)
        return chosen


def _worked(member: Member) -> bool:
    try:
        return any(value for name, value in member.metrics().items() if name.startswith(WORKED[member.service]))
    except OSError:
        return False


def _until(good: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < deadline, f"{what} after {seconds:.0f} s"
        time.sleep(0.02)


@pytest.mark.kill
@pytest.mark.timeout(240 + MOST_SECONDS_A_ROUND * ROUNDS)
def test_separate_processes_on_three_brokers(tmp_path: Path) -> None:
    """Fails without durable appends before 250, outputs before commits, or the ledger of the store."""
    (tmp_path / "kafka").mkdir()
    with (
        Kafka(tmp_path / "kafka", nodes=3) as kafka,
        FakeDns("mx.relayed.test. 60 IN A 127.0.0.1\n") as dns,
        SmtpSink() as smtp,
        SmtpSink(lmtp=True) as lmtp,
        Installation(
            tmp_path / "gatepost", settings(kafka.bootstrap, dns.port, smtp.port, lmtp.port), MANIFESTS
        ) as own,
    ):
        sinks = Sinks(smtp, lmtp)
        own.publish()
        for number in (1, 2):
            own.add("edge", f"edge-{number}")
            own.add("router", f"router-{number}")
        for store in ("local", "lmtp"):
            own.add("mailbox", f"mailbox-{store}", "--store", store)
        own.add("relay", "relay")
        own.start()
        reader = Reader(own.members["mailbox-local"].state / "mail")
        load = Load(
            [edge.mx for edge in own.of("edge")],
            clients=CLIENTS,
            per_connection=PER_CONNECTION,
            address_of=address_of,
            size_of=size_of,
        )
        with KafkaWitness(kafka.bootstrap, GROUPS) as witness:
            story = Story("separate", load, reader, sinks, witness)
            cluster = Cluster(own, kafka, story.rng)
            reader.start()
            load.start()
            for kinds in moments(story.rng, ROUNDS):
                victims = [cluster.victim(kind) for kind in kinds]
                rate, in_flight = story.await_busy()
                commits = witness.commits()
                kill_together(*victims)
                names = [victim.name for victim in victims]
                story.note(Kill(now_ms(), commits, _steps(names)), names, rate, in_flight)
                for victim in victims:
                    victim.launch()
            load.await_busy(0, MESSAGES_A_ROUND * ROUNDS - len(load.promised))
            load.finish()
            story.verify()


@pytest.mark.kill
@pytest.mark.timeout(240 + MOST_SECONDS_A_ROUND * ROUNDS)
def test_standalone(tmp_path: Path) -> None:
    """The same for one process on SQLite. Fails without synchronous appends or the ledger of the store."""
    with (
        FakeDns("mx.relayed.test. 60 IN A 127.0.0.1\n") as dns,
        SmtpSink() as smtp,
        SmtpSink(lmtp=True) as lmtp,
    ):
        sinks = Sinks(smtp, lmtp)
        document = {
            **settings("", dns.port, smtp.port, lmtp.port),
            "log": {"sqlite": {}, "partitions": 4},
        }
        own = Member("run", "standalone", tmp_path, document)
        (own.config / "objects.yaml").write_text(MANIFESTS)
        with own:
            witness = FileWitness(own.state / "log.sqlite3", GROUPS)
            reader = Reader(own.state / "mail")
            load = Load(
                [own.mx], clients=CLIENTS, per_connection=PER_CONNECTION, address_of=address_of, size_of=size_of
            )
            story = Story("standalone", load, reader, sinks, witness)
            reader.start()
            load.start()
            for _ in range(ROUNDS * 2):
                rate, in_flight = story.await_busy()
                own.kill9()
                moment = now_ms()
                # Nobody writes the file now: this is what the next start finds.
                commits = witness.commits()
                story.note(Kill(moment, commits, EVERYTHING), [own.name], rate, in_flight)
                own.start()
            load.finish()
            story.verify()
