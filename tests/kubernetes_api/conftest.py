"""One real API server and one real Kafka for the tests here; each test has a release in a namespace of its own.

The operator runs as a process, as a service account with the rules of docs/rbac.md and no others.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatepost.backends.config_log import ConfigurationPublisher, LogConfiguration
from gatepost.backends.log_kafka import KafkaLog
from gatepost.core.config_head import Ack, Head, encode
from gatepost.core.configuration import Configuration
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import Entry
from gatepost.core.topics import Topics
from testbed import ports
from testbed.apiserver import ApiServer
from testbed.kafka import Kafka
from testbed.process import Server, ServerError

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_S = 90.0

Document = dict[str, Any]


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api")) as server:
        server.establish(REPOSITORY / "crds")
        yield server


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


class Release:
    """A release named `mail` in a namespace: its settings, its operators, and what stands on its log."""

    lease = "mail-operator"

    def __init__(self, api: ApiServer, broker: Kafka, folder: Path, namespace: str) -> None:
        self.api, self.broker, self.folder, self.namespace = api, broker, folder, namespace
        self.topics = Topics(f"{namespace}.mail.")
        kafka = {"bootstrapServers": [broker.bootstrap], "replicationFactor": 1, "minInsyncReplicas": 1}
        self.settings: Document = {
            "releaseNamespace": namespace,
            "log": {"topicPrefix": self.topics.prefix, "partitions": 1, "kafka": kafka},
            "directories": {"users": {"ldif": {"file": "users.ldif"}}},
            "listeners": [
                {"name": "mx", "role": "mx", "address": "127.0.0.1:1"},
                {"name": "submission", "role": "submission", "address": "127.0.0.1:1"},
            ],
            "stores": {"local": {"maildir": {"path": "mail"}}},
            "telemetry": {"logFormat": "json"},
        }
        self.log = KafkaLog(
            KafkaSettings(bootstrap_servers=(broker.bootstrap,), replication_factor=1, min_insync_replicas=1),
            client_id=f"test-{namespace}",
        )
        self.operators: list[Server] = []
        self._pods: list[LogConfiguration] = []
        self._ports: dict[str, int] = {}
        api.kubectl("create", "namespace", namespace)
        api.kubectl("-n", namespace, "create", "serviceaccount", "operator")
        self._token = api.kubectl("-n", namespace, "create", "token", "operator", "--duration=1h").strip()

    # -- the cluster

    async def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return await asyncio.to_thread(self.api.kubectl, "-n", self.namespace, *words, stdin=stdin)

    async def refused(self, *words: str, stdin: str | None = None) -> str:
        """What kubectl says when the API server refuses."""
        with pytest.raises(ServerError) as caught:
            await self.kubectl(*words, stdin=stdin)
        return str(caught.value)

    async def apply(self, *documents: Document) -> None:
        await self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    async def get(self, kind: str, name: str, namespace: str = "") -> Document:
        text = await self.kubectl(*(["-n", namespace] if namespace else []), "get", kind, name, "-o", "json")
        found: Document = json.loads(text)
        return found

    async def condition(self, kind: str, name: str, type_: str, namespace: str = "") -> Document:
        conditions = (await self.get(kind, name, namespace)).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == type_), {})

    async def becomes(
        self, kind: str, name: str, type_: str, status: str, reason: str = "", namespace: str = ""
    ) -> Document:
        """Wait until a condition is so, and return it."""

        async def found() -> Document | None:
            one = await self.condition(kind, name, type_, namespace)
            return one if one.get("status") == status and reason in ("", one["reason"]) else None

        return await eventually(found, f"{kind} {name}: {type_} {status} {reason}", self)

    # -- rights

    def grant(self, *, everywhere: bool = False) -> None:
        """Give the operator what docs/rbac.md says: its Role, and its ClusterRole where others may own domains."""
        role, cluster_role = documented_rules(self.namespace, "mail")
        documents = [role, _binding("RoleBinding", role, self.namespace)]
        if everywhere:
            documents += [cluster_role, _binding("ClusterRoleBinding", cluster_role, self.namespace)]
        self.api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def kubeconfig(self) -> Path:
        path = self.folder / "operator.kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": self.api.url, "certificate-authority": str(self.api.ca)}}
            ],
            "users": [{"name": "u", "user": {"token": self._token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(json.dumps(document))
        return path

    # -- the operator

    def operator(self, name: str = "operator", **changed: Any) -> Server:
        """Define an operator; `changed` replaces top-level settings. The caller starts it."""
        port = self._ports[name] = ports.reserve()
        file = self.folder / f"{name}.yaml"
        document = {**self.settings, **changed, "admin": {"address": f"127.0.0.1:{port}"}}
        file.write_text(json.dumps(document))
        server = Server(
            name,
            [sys.executable, "-m", "gatepost_operator.main", "--config", file],
            self.folder,
            ports=[port],
            env={"KUBECONFIG": str(self.kubeconfig()), "POD_NAME": name, "LOGNAME": ""},
            stop_seconds=30,
        )
        self.operators.append(server)
        return server

    async def start(self, name: str = "operator", **changed: Any) -> Server:
        """Start an operator and wait until it is ready."""
        server = self.operator(name, **changed)
        await asyncio.to_thread(server.start)
        await eventually(lambda: self.ready(name), f"{name} is ready", self)
        return server

    async def ready(self, name: str = "operator") -> bool:
        return (await asyncio.to_thread(self._ask, name, "readyz"))[0] == 200

    async def metric(self, sample: str, name: str = "operator") -> float | None:
        _, text = await asyncio.to_thread(self._ask, name, "metrics")
        found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        return float(found.group(1)) if found else None

    def _ask(self, name: str, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[name]}/{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    # -- the log

    async def edge(self, name: str) -> LogConfiguration:
        """What an edge pod has of the configuration: it follows the log and says what it runs."""
        folder = self.folder / name
        pod = LogConfiguration(self.log, self.topics, folder, name, "edge", now_ms)
        self._pods.append(pod)
        await pod.start()
        return pod

    async def ack(self, pod: str, digest: str) -> None:
        """Say once that a pod runs something."""
        ack = Ack(pod=pod, service="edge", at_ms=now_ms(), epoch=1, generation=1, hash=digest)
        await self.log.append(Entry(self.topics.acks, encode(ack), pod.encode()), 20.0)

    async def published(self) -> tuple[Head | None, Configuration | None]:
        publisher = ConfigurationPublisher(self.log, self.topics, "test")
        head = await publisher.load()
        return head, publisher.configuration()

    async def serves(self, *domains: str, epoch: int | None = None) -> Head:
        """Wait until exactly these domains are published, and return the head."""

        async def found() -> Head | None:
            head, configuration = await self.published()
            names = {one.domain for one in configuration.domains} if configuration else None
            return head if head and names == set(domains) and epoch in (None, head.epoch) else None

        return await eventually(found, f"published: {domains}", self)

    async def close(self) -> None:
        for server in self.operators:
            await asyncio.to_thread(server.stop)
        for pod in self._pods:
            await pod.close()
        await self.log.close()
        for port in self._ports.values():
            ports.release(port)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def eventually(condition: Callable[[], Any], what: str, release: Release | None = None) -> Any:
    """Wait until the condition gives something, and return that."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not (found := await condition()):
                await asyncio.sleep(0.1)
    except TimeoutError:
        logs = "\n".join(server.log_tail() for server in release.operators) if release else ""
        raise AssertionError(f"never happened: {what}\n{logs}") from None
    return found


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually


def documented_rules(namespace: str, release: str) -> tuple[Document, Document]:
    """The Role and the ClusterRole as docs/rbac.md has them."""
    text = (REPOSITORY / "docs" / "rbac.md").read_text("utf-8")
    role, cluster_role = (
        yaml.safe_load(block.replace("NAMESPACE", namespace).replace("RELEASE", release))
        for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    )
    assert (role["kind"], cluster_role["kind"]) == ("Role", "ClusterRole")
    return role, cluster_role


def _binding(kind: str, role: Document, namespace: str) -> Document:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": dict(role["metadata"]),
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": role["kind"],
            "name": role["metadata"]["name"],
        },
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": namespace}],
    }


_numbers = itertools.count(1)


@pytest.fixture
async def release(api: ApiServer, broker: Kafka, tmp_path: Path) -> AsyncIterator[Release]:
    made = Release(api, broker, tmp_path, f"r{next(_numbers)}")
    made.grant()
    await made.log.start()
    specs = [spec for spec in made.topics.specs((), 1) if spec.name in (made.topics.config, made.topics.acks)]
    await made.log.ensure_topics(specs)
    yield made
    await made.close()


@pytest.fixture
def mail_domain() -> Callable[..., Document]:
    def make(name: str, domain: str = "", **spec: Any) -> Document:
        return {
            "apiVersion": "gatepost.dev/v1alpha1",
            "kind": "MailDomain",
            "metadata": {"name": name},
            "spec": {
                "domain": domain or f"{name}.test",
                "recipients": {"source": {"type": "Static", "addresses": ["postmaster"]}},
                "delivery": {"type": "Discard"},
                **spec,
            },
        }

    return make
