"""A real API server, and a real node that runs a pod."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from testbed import kernel
from testbed.cluster import ApiServer, Cluster, remove_leftovers
from testbed.dns import FakeDns
from testbed.kafka import Kafka
from testbed.ociimage import base_root, file_layer, write_image
from testbed.process import ServerError
from testbed.provision.cache import cache_root

pytestmark = pytest.mark.node

SECONDS = 60.0
IMAGE = "docker.io/testbed/python:1"


def test_an_api_server_keeps_its_objects_over_a_kill_and_knows_users(tmp_path: Path) -> None:
    with ApiServer(tmp_path, controllers=True) as api:
        api.kubectl("create", "configmap", "one", "--from-literal=a=b")
        api.kill9()
        api.start()
        assert api.get("configmap", "one")["data"] == {"a": "b"}
        viewer = api.make_kubeconfig("viewer", ["readers"])
        with pytest.raises(ServerError, match='User "viewer" cannot list resource "configmaps"'):
            api.kubectl("--kubeconfig", viewer, "get", "configmaps")
        api.kubectl("create", "clusterrolebinding", "readers", "--clusterrole=view", "--group=readers")
        await_true(lambda: may(api, viewer, "list"))
        assert not may(api, viewer, "delete")
        api.kubectl("create", "namespace", "short-lived")
        api.kubectl("delete", "namespace", "short-lived", "--wait", "--timeout=60s")


def may(api: ApiServer, kubeconfig: Path, verb: str) -> bool:
    """Whether the user may do this to config maps."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": verb, "resource": "configmaps", "namespace": "default"}},
    }
    words = ("--kubeconfig", kubeconfig, "create", "--validate=false", "-o", "json", "-f", "-")
    return bool(json.loads(api.kubectl(*words, stdin=json.dumps(review)))["status"]["allowed"])


def await_true(condition: Callable[[], bool]) -> None:
    """Waits: the API server's view of the rules, and roles that are put together from others, come a moment
    later."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"


def traces(name: str, folder: Path) -> list[str]:
    """Everything of a cluster that would still be on the machine."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {folder}/" in line]
    groups = [str(path) for pattern in (name, f"*/{name}") for path in Path("/sys/fs/cgroup").glob(pattern)]
    networks = [str(path) for path in Path("/run/netns").glob("*") if path.name == name]
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in word for word in process.cmdline()):
                processes.append(str(process))
    results = [str(path) for path in Path("/var/lib/cni/results").glob(f"{name}-*")]
    return [*mounts, *groups, *networks, *processes, *results]


def settings() -> list[str]:
    return [Path("/proc/sys", name).read_text() for name in kernel.SETTINGS]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    remove_leftovers()
    folder = tmp_path_factory.mktemp("cluster")
    before = settings()
    with Cluster(folder) as node:
        layer = file_layer(folder / "layer.tar", {"app/index.txt": b"hello from a pod"})
        image = write_image(
            folder / "image.tar", IMAGE, [base_root(), layer], entrypoint=["/usr/bin/python3"], user="10001"
        )
        node.import_image(image)
        yield node
    assert traces(node.name, folder) == []
    assert settings() == before


def test_a_pod_serves_through_its_service(cluster: Cluster) -> None:
    run = ("--image-pull-policy=Never", "--port=8000", "--", "-m", "http.server", "-d", "/app", "8000")
    cluster.kubectl("run", "web", f"--image={IMAGE}", *run)
    cluster.kubectl("expose", "pod", "web", "--port=80", "--target-port=8000")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=120s")
    port = cluster.forward(cluster.get("service", "web")["spec"]["clusterIP"], 80)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.txt", timeout=30) as answer:
        assert answer.read() == b"hello from a pod"
    fetch = "import urllib.request as u; print(u.urlopen('http://web.default/index.txt').read().decode())"
    assert cluster.kubectl("exec", "web", "--", "/usr/bin/python3", "-c", fetch).strip() == "hello from a pod"
    assert "GET /index.txt" in cluster.kubectl("logs", "web")


def test_pods_reach_servers_on_the_node(cluster: Cluster, tmp_path: Path) -> None:
    with (
        Kafka(tmp_path, place=cluster.place) as kafka,
        FakeDns("x.test. 60 IN A 192.0.2.1", place=cluster.place) as dns,
    ):
        probe = f"""
import socket
socket.create_connection(("{cluster.place.address}", {kafka.nodes[0].port}), timeout=30).close()
question = bytes.fromhex("0001010000010000000000000178047465737400") + b"\\0\\1\\0\\1"
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(30)
client.sendto(question, ("{cluster.place.address}", {dns.port}))
print(socket.inet_ntoa(client.recv(512)[-4:]))
"""
        # Not attached: a program that ends before kubectl has attached would have said nothing.
        run = ("--restart=Never", "--image-pull-policy=Never", "--", "-c", probe)
        cluster.kubectl("run", "probe", f"--image={IMAGE}", *run)
        cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/probe", "--timeout=60s")
        assert cluster.kubectl("logs", "probe").strip() == "192.0.2.1"
        cluster.kubectl("delete", "pod", "probe", "--now")


def test_helm_talks_to_it(cluster: Cluster, tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: probe\nversion: 0.1.0\n")
    (chart / "templates" / "map.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\n"
        'data: {version: "{{ .Capabilities.KubeVersion }}"}\n'
    )
    cluster.helm("install", "probe", chart, "--wait")
    assert cluster.get("configmap", "probe")["data"] == {"version": "v1.34.4"}
    assert [release["name"] for release in json.loads(cluster.helm("list", "-o", "json"))] == ["probe"]


def test_what_a_killed_run_left_is_removed(cluster: Cluster, tmp_path: Path) -> None:
    before = settings()
    run = f"""
import pathlib, sys, time
from testbed.cluster import Cluster
node = Cluster(pathlib.Path({str(tmp_path)!r}), dns=False)
node.up()
pod = "--image=registry.k8s.io/pause:3.10", "--image-pull-policy=Never"
node.kubectl("run", "idle", *pod)
node.kubectl("wait", "--for=condition=Ready", "pod/idle", "--timeout=120s")
print(node.name, flush=True)
time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", run], stdout=subprocess.PIPE, text=True, env=environment
    ) as killed:
        assert killed.stdout is not None
        name = killed.stdout.readline().strip()
        assert name
        killed.send_signal(signal.SIGKILL)
    assert traces(name, tmp_path)
    remove_leftovers()
    assert traces(name, tmp_path) == []
    assert not (cache_root() / "clusters" / f"{name}.json").exists()
    # The first cluster still runs: the settings are not restored under it, nor is it harmed.
    assert settings() == before
    assert cluster.get("nodes")["items"][0]["metadata"]["name"] == "node1"
