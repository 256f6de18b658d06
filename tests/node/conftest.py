"""One real cluster with one release in it, shared by the tests here: installed as a user would, from the chart."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from gatepost.core.password import SALT_BYTES, make_password
from images.kafka import build_kafka
from images.service import build_gatepost, build_operator
from images.version import app_version
from testbed.cluster import NODE, Cluster
from testbed.process import ServerError
from testbed.tls import Authority

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "gatepost"
QUICKSTART = REPOSITORY / "examples" / "quickstart" / "example-test.yaml"
PASSWORDS = {"alice": "correct horse", "bob": "battery staple"}
VOLUMES = ("mail", "kafka")
INSTALL_SECONDS = 300

# What docs/kubernetes.md tells to use for a first look, with what is particular to this cluster.
VALUES = REPOSITORY / "examples" / "kubernetes" / "trying-out.yaml"
MORE_VALUES: dict[str, Any] = {
    "kafka": {"dev": {"storage": {"storageClassName": "test"}}},
    "stores": {"local": {"storage": {"storageClassName": "test"}}},
    # Few: an idle broker of 256 MB has little use for a hundred partitions.
    "settings": {"log": {"partitions": 4}},
    "tests": {"recipient": "alice@example.test"},
}


class Release:
    """The release `mail` in the namespace `mail`, whose pods must be restricted."""

    name = "mail"
    namespace = "mail"

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        more = folder / "values.yaml"
        more.write_text(yaml.safe_dump(MORE_VALUES))
        wait = ["--wait", "--timeout", f"{INSTALL_SECONDS}s"]
        self.chart_and_values = [CHART, "-f", VALUES, "-f", more, *wait]
        self.passwords = PASSWORDS
        self.chart, self.repository = CHART, REPOSITORY
        self._ports: dict[int, int] = {}

    def kubectl(self, *words: str | Path, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *words, stdin=stdin)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def helm(self, *words: str | Path) -> str:
        return self.cluster.helm("--namespace", self.namespace, *words)

    def upgrade(self, *words: str) -> str:
        """`helm upgrade` with the release's values and some more; returns when all is rolled out."""
        return self.helm("upgrade", self.name, *self.chart_and_values, *words)

    def pods(self, component: str) -> list[str]:
        """The names of a service's pods that aren't on their way out."""
        items = self.get("pods", "-l", f"app.kubernetes.io/component={component}")["items"]
        return [one["metadata"]["name"] for one in items if "deletionTimestamp" not in one["metadata"]]

    def port(self, service_port: int) -> int:
        """A port on our 127.0.0.1 that leads through the edge's Service."""
        if service_port not in self._ports:
            address = self.get("service", "mail-gatepost-edge")["spec"]["clusterIP"]
            self._ports[service_port] = self.cluster.forward(address, service_port)
        return self._ports[service_port]

    def metric(self, pod: str, name: str) -> float:
        """The sum of a metric of one pod over its labels."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:8025/proxy/metrics"
        lines = self.cluster.kubectl("get", "--raw", path).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def kill9(self, pod: str) -> None:
        """Kill a pod's program from outside: its own id 1 is immune inside."""
        group = f"pod{self.get('pod', pod)['metadata']['uid']}"
        for process in psutil.process_iter(["pid", "cmdline"]):
            if "/usr/local/bin/gatepost" in (process.info["cmdline"] or []):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    if group in Path(f"/proc/{process.info['pid']}/cgroup").read_text():
                        process.kill()
                        return
        raise AssertionError(f"no process of {pod}")

    def diagnosis(self) -> str:
        """What somebody would look at when the release doesn't come up."""
        parts = [
            self.kubectl("get", "pods", "-o", "wide"),
            self.kubectl("get", "events", "--sort-by=.lastTimestamp"),
        ]
        for pod in self.kubectl("get", "pods", "-o", "name").split():
            for more in ([], ["--previous"]):
                try:
                    parts.append(f"-- {pod} {more}\n" + self.kubectl("logs", "--tail=15", pod, *more))
                except ServerError:
                    continue
        return "\n".join(parts)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A node that has our images."""
    folder = tmp_path_factory.mktemp("node")
    with Cluster(folder / "c") as running:
        for build in (build_gatepost, build_operator, build_kafka):
            image = build(folder / "image.tar", app_version())
            running.import_image(image)
            image.unlink()
        yield running


@pytest.fixture(scope="session")
def release(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Installed by `helm install --wait`, with examples/quickstart's objects applied and in force."""
    folder = tmp_path_factory.mktemp("release")
    made = Release(cluster, folder)
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(_surroundings(folder)))
    try:
        made.helm("install", made.name, *made.chart_and_values)
        made.kubectl("apply", "-f", QUICKSTART)
        made.kubectl("wait", "--for=condition=Programmed", "maildomain,relaypolicy", "--all", "--timeout=120s")
    except ServerError as error:
        raise AssertionError(f"{error}\n{made.diagnosis()}") from None
    return made


def _surroundings(folder: Path) -> dict[str, Any]:
    """What an administrator brings: the namespace, volumes, a certificate, and accounts with their passwords."""
    names = {"name": "users", "namespace": Release.namespace}
    issued = Authority(folder, "ca").issue("mx.example.test", "localhost", file="mx")
    certificate = {"tls.crt": issued.certificate.read_text(), "tls.key": issued.key.read_text()}
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    items = [
        {"kind": "Namespace", "metadata": {"name": Release.namespace, "labels": restricted}},
        {"kind": "Secret", "metadata": names, "stringData": {"users.ldif": _users()}},
        {
            "kind": "Secret",
            "metadata": {**names, "name": "mx-tls"},
            "type": "kubernetes.io/tls",
            "stringData": certificate,
        },
    ]
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "test"},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    volumes = [_volume(folder / name, name) for name in VOLUMES]
    documents = [{"apiVersion": "v1", **item} for item in (*items, *volumes)]
    return {"apiVersion": "v1", "kind": "List", "items": [*documents, storage_class]}


def _volume(folder: Path, name: str) -> dict[str, Any]:
    folder.mkdir()
    here = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]}
    return {
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "test",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}},
        },
    }


def _users() -> str:
    entries = [
        f"dn: uid={name},dc=example,dc=test\nobjectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\n"
        f"uid: {name}\ncn: {name}\nsn: {name}\nmailLocalAddress: {name}@example.test\n"
        f"userPassword: {make_password(password, os.urandom(SALT_BYTES))}\n"
        for name, password in PASSWORDS.items()
    ]
    return "version: 1\n\n" + "\n".join(entries)
