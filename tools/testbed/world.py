"""The whole gateway as separate processes with the real servers around it, and ways to wait for what arrives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from testbed.dns import FakeDns
from testbed.dovecot import Dovecot
from testbed.installation import Installation
from testbed.jaeger import Jaeger
from testbed.kafka import Kafka
from testbed.slapd import Slapd
from testbed.smtpsink import SmtpSink

DATA = Path(__file__).resolve().parent.parent.parent / "tests/data"
WAIT_S = 120.0

MANIFESTS = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: example-test}
spec:
  domain: example.test
  default: true
  recipients:
    source: {type: Directory, directoryRef: {name: corp}}
    subaddressing: {separators: ["+"]}
    maxMessageSize: 50Mi
  delivery: {type: Mailbox, store: one}
---
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: corp}
spec:
  domain: corp.example.test
  recipients: {source: {type: Directory, directoryRef: {name: corp}}}
  delivery: {type: Mailbox, store: two}
---
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: lmtp}
spec:
  domain: lmtp.test
  recipients: {source: {type: Static, addresses: [ann, ben, gone]}}
  delivery: {type: Mailbox, store: dovecot}
---
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: backup}
spec:
  domain: backup.test
  recipients: {source: {type: Any}}
  delivery: {type: Relay, hosts: [backup.test]}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: mx}
spec:
  target: {type: Listeners, listeners: [mx]}
  smtp: {limits: {messageSize: 60Mi}}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: submission}
spec:
  target: {type: Listeners, listeners: [submission]}
  relay: {authenticated: {enabled: true, requireTLS: false, senderMatch: Strict}}
"""


class World:
    """The servers around, the installation, and ways to wait for what arrives."""

    def __init__(self, installation: Installation, **servers: Any) -> None:
        self.installation = installation
        self.kafka: Kafka = servers["kafka"]
        self.slapd: Slapd = servers["slapd"]
        self.dns: FakeDns = servers["dns"]
        self.dovecot: Dovecot = servers["dovecot"]
        self.jaeger: Jaeger = servers["jaeger"]
        self.sink: SmtpSink = servers["sink"]

    @property
    def mx_ports(self) -> list[int]:
        return [edge.mx for edge in self.installation.of("edge")]

    def mailbox(self, store: str, name: str) -> Path:
        return self.installation.members[f"mailbox-{store}"].state / f"mail-{store}" / name

    def arrived(self, store: str, name: str) -> list[bytes]:
        folder = self.mailbox(store, name) / "new"
        return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.exists() else []


T = TypeVar("T")


def wait_for(look: Callable[[], T], good: Callable[[T], bool], seconds: float = WAIT_S) -> T:
    """Look again and again until it is good; fail with what was seen last."""
    deadline = time.monotonic() + seconds
    while not good(seen := look()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s; last: {str(seen)[:500]}"
        time.sleep(0.05)
    return seen


@contextmanager
def whole_gateway(folder: Path) -> Iterator[World]:
    """Two edges, routers and Maildir stores, LMTP, a relay; three brokers, slapd, DNS, Dovecot, Jaeger."""
    names = ("kafka", "slapd", "dovecot", "jaeger", "gatepost")
    kafka_dir, slapd_dir, dovecot_dir, jaeger_dir, own = (folder / name for name in names)
    for one in (kafka_dir, slapd_dir, dovecot_dir, jaeger_dir, own):
        one.mkdir()
    with (
        Kafka(kafka_dir, nodes=3) as kafka,
        Slapd(slapd_dir, DATA / "ldap/example.ldif") as slapd,
        Dovecot(dovecot_dir, {"ann": "annpw", "ben": "benpw"}) as dovecot,
        Jaeger(jaeger_dir) as jaeger,
        SmtpSink() as sink,
        FakeDns("next.test. 60 IN MX 10 mx.next.test.\nmx.next.test. 60 IN A 127.0.0.1\n") as dns,
    ):
        dns.add("backup.test. 60 IN MX 10 mx.next.test.\n")
        settings = _settings(kafka, slapd, dovecot, jaeger, dns, sink.port, own)
        with Installation(own, settings, MANIFESTS) as installation:
            installation.publish()
            for number in (1, 2):
                installation.add("edge", f"edge-{number}")
                installation.add("router", f"router-{number}")
            for store in ("one", "two", "dovecot"):
                installation.add("mailbox", f"mailbox-{store}", "--store", store)
            installation.add("relay", "relay")
            installation.start()
            yield World(installation, kafka=kafka, slapd=slapd, dns=dns, dovecot=dovecot, jaeger=jaeger, sink=sink)


def _settings(
    kafka: Kafka, slapd: Slapd, dovecot: Dovecot, jaeger: Jaeger, dns: FakeDns, smtp_port: int, folder: Path
) -> dict[str, Any]:
    secret = folder / "ldap-password"
    secret.write_text(slapd.service_password + "\n")
    return {
        "hostname": "mx.example.test",
        "log": {
            "kafka": {"bootstrapServers": kafka.bootstrap.split(",")},
            "topicPrefix": "mail.prod.",
            "partitions": 4,
        },
        "directories": {
            "corp": {
                "ldap": {
                    "urls": [slapd.url],
                    "base": slapd.base,
                    "bindDn": slapd.service_dn,
                    "bindPasswordFile": str(secret),
                    "startTls": True,
                    "caFile": str(slapd.ca),
                }
            }
        },
        "listeners": [
            {"name": "mx", "role": "mx", "address": "127.0.0.1:0"},
            {"name": "submission", "role": "submission", "address": "127.0.0.1:0"},
        ],
        "stores": {
            "one": {"maildir": {"path": "mail-one"}, "mailHosts": ["mx.example.test", "mx.example.jp"]},
            "two": {"maildir": {"path": "mail-two"}, "mailHosts": ["exchange.corp.example.test"]},
            "dovecot": {"lmtp": {"address": f"127.0.0.1:{dovecot.lmtp_port}"}},
        },
        "dns": {"servers": [f"127.0.0.1:{dns.port}"], "timeout": "2s"},
        "relay": {"smtpPort": smtp_port, "connectTimeout": "5s"},
        "telemetry": {
            "otlpEndpoint": f"http://127.0.0.1:{jaeger.otlp_http_port}",
            "traceSampling": 1.0,
            "logFormat": "json",
        },
    }
