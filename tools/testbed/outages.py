"""A gateway whose Kafka, LDAP and DNS can fail, mail with a fate that is known, and a table of what was seen."""

from __future__ import annotations

import itertools
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.dns import FakeDns
from testbed.faulty import Faulty
from testbed.installation import Installation
from testbed.kafka import Kafka
from testbed.load import token_of
from testbed.probe import Saw, send
from testbed.slapd import Slapd
from testbed.smtpsink import SmtpSink
from testbed.world import DATA

# What is promised, and what is asserted: twice as much, since the test machine may be busy.
ANSWER_SECONDS = 10.0
BACK_SECONDS = 30.0
TOLERANCE = 2.0
DNS_LIMIT_SECONDS = 2.0
LDAP_LIMIT_SECONDS = 2.0
FEW_SECONDS = 0.1
PEOPLE = 80

DNS_NAMES = (
    "refused", "dropped", "slower", "slow", "servfail", "notauth", "wrongid", "cut", "halfcut", "nothere"
)  # fmt: skip
STATIC, RELAYED, DIRECTORY = "static.test", "relayed.test", "people.test"

MANIFESTS = f"""
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {{name: static}}
spec:
  domain: {STATIC}
  recipients: {{source: {{type: Static, addresses: [ann, ben]}}}}
  delivery: {{type: Mailbox, store: local}}
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
kind: MailDomain
metadata: {{name: people}}
spec:
  domain: {DIRECTORY}
  recipients: {{source: {{type: Directory, directoryRef: {{name: corp}}}}}}
  delivery: {{type: Mailbox, store: local}}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {{name: mx}}
spec:
  target: {{type: Listeners, listeners: [mx]}}
  connection: {{perHost: {{concurrent: 200}}}}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {{name: submission}}
spec:
  target: {{type: Listeners, listeners: [submission]}}
  relay: {{authenticated: {{enabled: true, requireTLS: false, senderMatch: Strict}}}}
""" + "".join(
    f"""---
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {{name: dns-{name}}}
spec:
  domain: {name}.dns.test
  recipients: {{source: {{type: Any}}}}
  delivery: {{type: Relay, hosts: ["{name}.dns.test"]}}
"""
    for name in DNS_NAMES
)


@dataclass
class Row:
    """One line of the table: a fault, what a client saw at each step, and what came after."""

    away: str
    fault: str
    connect: str = ""
    rcpt: str = ""
    data: str = ""
    end: str = ""
    behind: str = ""
    back: str = ""

    def saw(self, step: str, *answers: Saw) -> None:
        """Write answers down under a step, of equal ones the slowest. Raises AssertionError for a permanent or a
        late one."""
        for answer in answers:
            assert not 500 <= answer.code < 600, f"{self.away}, {self.fault}, {step}: {answer.text}"
            assert answer.seconds <= ANSWER_SECONDS * TOLERANCE, f"{self.away}, {self.fault}, {step}: {answer}"
        worst: dict[tuple[int, str], Saw] = {}
        for answer in answers:
            kind = answer.code, answer.enhanced
            if kind not in worst or answer.seconds > worst[kind].seconds:
                worst[kind] = answer
        setattr(self, step, "; ".join(map(str, worst.values())))

    def is_back(self, seconds: float, what: str) -> None:
        """Note how long it took to work again. Raises AssertionError when that was too long."""
        assert seconds <= BACK_SECONDS * TOLERANCE, f"{self.away}, {self.fault}: {what} after {seconds:.1f} s"
        self.back = "; ".join(filter(None, (self.back, f"{what} {seconds:.1f} s")))


@dataclass
class Table:
    """All rows of a run."""

    rows: list[Row] = field(default_factory=list)

    def row(self, away: str, fault: str) -> Row:
        self.rows.append(Row(away, fault))
        return self.rows[-1]

    def page(self) -> str:
        order = {name: number for number, name in enumerate(("Kafka", "Kafka, 1 of 3 brokers", "LDAP", "DNS"))}
        rows = sorted(self.rows, key=lambda row: order.get(row.away, len(order)))
        lines = [_HEAD.format(cpus=os.cpu_count(), python=platform.python_version())]
        columns = ("away", "fault", "connect", "rcpt", "data", "end", "behind", "back")
        lines += [f"| {' | '.join(getattr(row, column) for column in columns)} |" for row in rows]
        return "\n".join([*lines, ""])


_HEAD = """# Outages, measured

Written by `make outages` (tests/outages); do not edit. Each line is one outage of a real server (Kafka 4.3,
OpenLDAP 2.5) or of a test DNS server, seen by SMTP clients and by mail that was accepted before or meanwhile. The
tests fail when a client gets a false 250, a 5xx, or no answer within 10 s, when mail does not arrive, or when it
does not work again by itself within 30 s (with twice these times on a busy test machine). Figures: {cpus} CPUs
shared with all servers and other programs, Python {python}; one run, so read them as "about".

* **refused**: nobody listens, open connections are reset. **reset**: connections are accepted and reset.
* **hung**: the process is stopped (SIGSTOP), so that connections are accepted and nothing answers; DNS: no answer.
* **slow, over the limit**: every byte is late by 3 s more than our own limit (8 s for an append, 2 s for a lookup
  here). **slow, within**: late, but below the limit.
* **killed**: kill -9, started again when the fault ends.

*connect*, *RCPT*, *DATA* and *end of data* are separate clients, which had come so far when the fault began (those
at *connect* come during it). *Mail behind* is mail on its way through router, mailbox and relay. *Works again*
counts from the fault's end: until a new message gets 250, and until everything accepted has arrived.

| away | how | connect | RCPT | DATA | end of data | mail behind | works again |
|---|---|---|---|---|---|---|---|"""


class World:
    """The gateway and its servers, and the fate of every message that was promised."""

    def __init__(self, own: Installation, kafka: Kafka, **parts: Any) -> None:
        self.own, self.kafka = own, kafka
        self.log: Faulty | None = parts.get("log")
        self.ldap: Faulty = parts["ldap"]
        self.names: Faulty = parts["names"]
        self.slapd: Slapd = parts["slapd"]
        self.dns: FakeDns = parts["dns"]
        self.sink: SmtpSink = parts["sink"]
        self.edge = own.members["edge"]
        self.promised: set[str] = set()
        self.parked: set[str] = set()
        """Tokens of mail that waits in a retry tier on purpose, and so is not missed yet."""
        self._people = itertools.count(1)
        self._tokens = itertools.count(1)
        self._guard = threading.Lock()

    def token(self) -> str:
        return f"o{next(self._tokens)}"

    def person(self) -> str:
        """An address of the directory that nobody has asked for."""
        number = next(self._people)
        assert number <= PEOPLE
        return f"p{number}@{DIRECTORY}"

    def send(self, recipient: str) -> Saw:
        """Send one message; if it gets 250 it must arrive."""
        token = self.token()
        saw = send(self.edge.mx, recipient, token)
        self.note(token, saw)
        return saw

    def note(self, token: str, saw: Saw) -> None:
        if saw.code == 250:
            with self._guard:
                self.promised.add(token)

    def arrived(self) -> set[str]:
        """The tokens of all messages that came to a mailbox or to the next hop."""
        folder = self.own.members["mailbox"].state / "mail"
        stored = {token_of(path.read_bytes()) for path in folder.glob("*/new/*")}
        return stored | {token_of(one.data) for one in list(self.sink.transactions) if one.accepted}

    def missing(self) -> set[str]:
        return self.promised - self.parked - self.arrived()

    def until_all_arrived(self, seconds: float = BACK_SECONDS * TOLERANCE, but: Sequence[str] = ()) -> float:
        """Wait until everything that was promised is there (but for some tokens); seconds that it took."""
        return until(lambda: not self.missing() - set(but), seconds, lambda: f"missing: {self.missing()}")

    def until_accepted(self, recipient: str, seconds: float = BACK_SECONDS * TOLERANCE) -> float:
        """Send messages until one gets 250; seconds that it took."""
        return until(lambda: self.send(recipient).code == 250, seconds)


def until(good: Callable[[], bool], seconds: float, tell: Callable[[], str] = str) -> float:
    """Ask again and again; return the seconds until it was so. Raises AssertionError after `seconds`."""
    begun = time.monotonic()
    while not good():
        assert time.monotonic() - begun < seconds, f"not within {seconds:.0f} s; {tell()}"
        time.sleep(0.05)
    return time.monotonic() - begun


@contextmanager
def outage_world(folder: Path, brokers: int) -> Iterator[World]:
    """Edge, router, mailbox and relay. A single broker is behind a proxy; of three each can be hurt itself."""
    for name in ("kafka", "slapd", "own"):
        (folder / name).mkdir()
    seed = folder / "people.ldif"
    seed.write_text((DATA / "ldap/example.ldif").read_text().rstrip() + "\n\n" + _people())
    with (
        Slapd(folder / "slapd", seed) as slapd,
        FakeDns(_zone()) as dns,
        SmtpSink() as sink,
        Faulty(slapd.port) as ldap,
        Faulty(dns.port) as names,
        _brokers(folder / "kafka", brokers) as (kafka, log),
    ):
        bootstrap = f"127.0.0.1:{log.port}" if log is not None else kafka.bootstrap
        settings = _settings(bootstrap, brokers, slapd, ldap, names, sink, folder)
        with Installation(folder / "own", settings, MANIFESTS) as own:
            own.publish()
            for service in ("edge", "router", "mailbox", "relay"):
                own.add(service, service, *(["--store", "local"] if service == "mailbox" else []))
            own.start()
            world = World(own, kafka, log=log, ldap=ldap, names=names, slapd=slapd, dns=dns, sink=sink)
            for recipient in (f"ann@{STATIC}", f"x@{RELAYED}", world.person()):
                world.until_accepted(recipient)
            world.until_all_arrived(120)
            yield world


@contextmanager
def _brokers(folder: Path, count: int) -> Iterator[tuple[Kafka, Faulty | None]]:
    if count != 1:
        with Kafka(folder, nodes=count) as kafka:
            yield kafka, None
        return
    # Clients go to the address that the broker tells them, which has to be the proxy's.
    proxy = Faulty(0)
    kafka = Kafka(folder, properties={"advertised.listeners": f"PLAINTEXT://127.0.0.1:{proxy.port}"})
    proxy.target = kafka.nodes[0].port
    with proxy, kafka:
        yield kafka, proxy


def _settings(
    bootstrap: str, brokers: int, slapd: Slapd, ldap: Faulty, names: Faulty, sink: SmtpSink, folder: Path
) -> dict[str, Any]:
    secret = folder / "ldap-password"
    secret.write_text(slapd.service_password + "\n")
    replication = {} if brokers > 1 else {"replicationFactor": 1, "minInsyncReplicas": 1}
    return {
        "hostname": "mx.outages.test",
        "log": {"kafka": {"bootstrapServers": bootstrap.split(","), **replication}, "partitions": 2},
        "directories": {
            "corp": {
                "ldap": {
                    "urls": [f"ldap://127.0.0.1:{ldap.port}"],
                    "base": slapd.base,
                    "bindDn": slapd.service_dn,
                    "bindPasswordFile": str(secret),
                    "timeout": f"{LDAP_LIMIT_SECONDS:.0f}s",
                    # Short, so that an answer is stale by the time it is needed.
                    "cachePositive": "1s",
                    "cacheNegative": "1s",
                    "cacheStale": "1h",
                }
            }
        },
        "listeners": [
            {"name": "mx", "role": "mx", "address": "127.0.0.1:0"},
            {"name": "submission", "role": "submission", "address": "127.0.0.1:0"},
        ],
        "stores": {"local": {"maildir": {"path": "mail"}}},
        "dns": {"servers": [f"127.0.0.1:{names.port}"], "timeout": f"{DNS_LIMIT_SECONDS:.0f}s"},
        "relay": {"smtpPort": sink.port, "connectTimeout": "5s", "idleTimeout": "1s"},
        "telemetry": {"logLevel": "info", "logFormat": "json"},
    }


def _people() -> str:
    return "\n".join(
        f"dn: uid=p{n},ou=people,dc=example,dc=test\nobjectClass: inetOrgPerson\nuid: p{n}\ncn: p{n}\nsn: p{n}\n"
        f"mail: p{n}@{DIRECTORY}\n"
        for n in range(1, PEOPLE + 1)
    )


def _zone() -> str:
    hosts = "".join(f"{name}.dns.test. 0 IN MX 10 mx.relayed.test.\n" for name in DNS_NAMES if name != "nothere")
    return f"mx.relayed.test. 60 IN A 127.0.0.1\n{hosts}"
