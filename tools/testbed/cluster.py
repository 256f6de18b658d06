"""A whole single-node Kubernetes cluster without an engine or a virtual machine; needs root.

etcd, API server, controller manager, scheduler, containerd, kubelet and kube-proxy run as processes in one
network namespace: the node is the namespace's bridge address, pods hang on the bridge, and nothing leads out, so
several clusters don't meet. What they share with the machine (control groups, mounts, containers' processes, a
few kernel settings) carries the cluster's name or lies in its folder, and `down` removes it; what a killed test
run left behind is removed by the next cluster that starts.

There is no image pull (`import_image` instead) and no NetworkPolicy.
"""

import contextlib
import ctypes
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from testbed import kernel, ports
from testbed.apiserver import SERVICE_NETWORK, ApiServer, identity
from testbed.network import HERE, Namespace
from testbed.ociimage import pause_image
from testbed.process import Server, ServerError
from testbed.provision import apt, command, coredns
from testbed.provision import kubernetes as provision
from testbed.provision.cache import cache_root, locked
from testbed.provision.errors import ProvisionError
from testbed.provision.image import PAUSE_REFERENCE

__all__ = ["ApiServer", "Cluster", "remove_leftovers"]

NODE = "node1"
NODE_ADDRESS = "10.244.0.1"
POD_NETWORK = "10.244.0.0/24"
POD_RANGE_START = "10.244.0.10"
DNS_ADDRESS = str(SERVICE_NETWORK[10])
READY_SECONDS = 120
GONE_SECONDS = 30.0
POLL_SECONDS = 0.02
CONTROL_GROUPS = Path("/sys/fs/cgroup")
MNT_DETACH = 2


class Cluster:
    """One cluster in `folder`, a context manager; inside it the node is ready and pods can be made.

    Attributes: `api` (its ApiServer), `place` (the node's address in the cluster's network: run other servers there
    for pods to reach), `network` (the namespace's file), `kubeconfig` (for programs inside the namespace), and the
    servers `scheduler`, `containerd`, `kubelet`, `proxy` to hurt. `dns` runs CoreDNS as the cluster's
    DNS; it knows services and pods, and says NXDOMAIN to everything else.
    """

    def __init__(self, folder: Path, *, dns: bool = True, controller_flags: Sequence[str] = ()) -> None:
        if os.geteuid() != 0:
            raise ProvisionError("a cluster makes network namespaces, mounts and control groups: run this as root")
        apt.install("node")
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = f"gp-{secrets.token_hex(4)}"
        self._namespace = Namespace(self.name, NODE_ADDRESS, 24, [str(SERVICE_NETWORK)])
        self.place = self._namespace.place
        self.network = self._namespace.place.network
        self.api = ApiServer(
            self.folder / "api", place=self.place, controllers=True, controller_flags=controller_flags
        )
        self.kubeconfig = self.api.kubeconfig
        self._node = self.folder / "node"
        self._node.mkdir(exist_ok=True)
        self._socket = self._node / "ctd.sock"
        self.scheduler = self._scheduler()
        self.containerd = self._containerd()
        self.kubelet = self._kubelet()
        self.proxy = self._proxy()
        self.dns = self._dns() if dns else None
        self._forwards: list[Server] = []
        self._kernel_token: str | None = None

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Starts everything; returns when the node is Ready and the default service account exists (about 10 s)."""
        remove_leftovers()
        _register(self.name, self.folder)
        try:
            self._kernel_token = kernel.acquire()
            self._namespace.up()
            _make_control_groups(self.name)
            self.containerd.launch()
            self.api.start()
            self.scheduler.launch()
            self.containerd.await_ready()
            self.import_image(pause_image())
            self.kubelet.launch()
            self.proxy.launch()
            for server in (self.scheduler, self.proxy):
                server.await_ready()
            self._await_kubelet()
            if self.dns is not None:
                self.kubectl("apply", "-f", "-", stdin=json.dumps(_dns_objects()))
                self.dns.start()
            self.kubectl("wait", "--for=create", f"node/{NODE}", f"--timeout={READY_SECONDS}s")
            self.kubectl("wait", "--for=condition=Ready", f"node/{NODE}", f"--timeout={READY_SECONDS}s")
            self.kubectl("wait", "--for=create", "serviceaccount/default", f"--timeout={READY_SECONDS}s")
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Ends everything and removes what it made outside and (but for logs) inside its folder."""
        for server in (*self._forwards, self.dns, self.kubelet, self.proxy, self.scheduler):
            if server is not None:
                server.kill9()
        for forward in self._forwards:
            for port in forward.ports:
                ports.release(port)
        self._forwards.clear()
        # Containers first, then what supervises them, so that their ends are noticed and reaped.
        _kill_containers(self.name)
        self.containerd.kill9()
        self.api.stop()
        _remove(self.name, self.folder)
        if self._kernel_token is not None:
            kernel.release(self._kernel_token)
            self._kernel_token = None

    def kubectl(self, *words: str | Path, stdin: str | None = None, seconds: float = 300.0) -> str:
        """Runs kubectl as the administrator and returns its output; raises ServerError with its error."""
        return self.api.kubectl(*words, stdin=stdin, seconds=seconds)

    def get(self, *words: str) -> Any:
        """`kubectl get ... -o json`, parsed."""
        return self.api.get(*words)

    def helm(self, *words: str | Path, seconds: float = 600.0) -> str:
        """Runs helm as the administrator and returns its output; raises ServerError with its error."""
        return self.api.run(provision.clients().helm, *words, seconds=seconds)

    def run(self, *words: str | Path, stdin: str | None = None, seconds: float = 120.0) -> str:
        """Runs any program on the node (in the cluster's network, with KUBECONFIG set) and returns its output."""
        return self.api.run(*words, stdin=stdin, seconds=seconds)

    def import_image(self, tar: Path) -> None:
        """Gives the node an image (an OCI or Docker tar); pods must say `imagePullPolicy: IfNotPresent` or
        Never."""
        words = [
            command.require("ctr", "install containerd"),
            "--address",
            str(self._socket),
            "--namespace",
            "k8s.io",
        ]
        done = subprocess.run(
            [*words, "images", "import", str(tar)],
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"containerd did not take {tar}: {done.stderr.strip()}")

    def forward(self, address: str, port: int) -> int:
        """A port on our own 127.0.0.1 that leads to `port` of an address in the cluster, until `down`.

        Two socats meet at a socket file, which belongs to no network namespace. The other end sees the node's
        address as its client.
        """
        local = ports.reserve()
        file = self._node / f"f{local}.sock"
        socat = command.require("socat", "install socat")
        inside = Server(
            f"forward-{local}-inside",
            [socat, f"UNIX-LISTEN:{file},fork,backlog=128", f"TCP:{address}:{port}"],
            self.folder,
            place=self.place,
            ready=file.exists,
        )
        outside = Server(
            f"forward-{local}",
            [socat, f"TCP-LISTEN:{local},bind={HERE.address},fork,reuseaddr,backlog=128", f"UNIX-CONNECT:{file}"],
            self.folder,
            ports=[local],
        )
        for server in (inside, outside):
            server.start()
            self._forwards.append(server)
        return local

    def _await_kubelet(self) -> None:
        try:
            self.kubelet.await_ready()
        except ServerError:
            # It gives up at the first thing that fails at its start (a rename, say) and counts on a supervisor that
            # starts it again, as its usual systemd unit does.
            self.kubelet.start()

    # The node's programs

    def _program(self, name: str, *flags: str, port: int) -> Server:
        words = [str(self.api.programs / name), *flags]
        return Server(name, words, self.folder, ports=[port], place=self.place)

    def _scheduler(self) -> Server:
        return self._program(
            "kube-scheduler",
            *identity(self.api.make_kubeconfig("system:kube-scheduler")),
            *(f"--bind-address={NODE_ADDRESS}", "--secure-port=10259", "--leader-elect=false"),
            port=10259,
        )

    def _proxy(self) -> Server:
        return self._program(
            "kube-proxy",
            f"--kubeconfig={self.api.make_kubeconfig('system:kube-proxy')}",
            *(f"--hostname-override={NODE}", "--proxy-mode=iptables", f"--cluster-cidr={POD_NETWORK}"),
            # Limits of the whole machine, which isn't ours.
            *("--conntrack-max-per-core=0", "--conntrack-min=0"),
            *("--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0"),
            *(f"--healthz-bind-address={NODE_ADDRESS}:10256", "--metrics-bind-address=127.0.0.1:10249"),
            port=10256,
        )

    def _containerd(self) -> Server:
        network_settings = self._node / "cni"
        network_settings.mkdir(exist_ok=True)
        (network_settings / "10-bridge.conflist").write_text(json.dumps(self._pod_network()))
        settings = self._node / "containerd.toml"
        settings.write_text(
            _CONTAINERD.format(node=self._node, pause=PAUSE_REFERENCE, runc=command.require("runc", "install runc"))
        )
        program = command.require("containerd", "install containerd")
        return Server(
            "containerd", [program, "--config", settings], self.folder, place=self.place, ready=self._listens
        )

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self._socket))
            return True
        return False

    def _pod_network(self) -> dict[str, Any]:
        addresses = {"subnet": POD_NETWORK, "rangeStart": POD_RANGE_START}
        bridge = {
            "type": "bridge",
            "bridge": Namespace.bridge,
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(self._node / "ipam"),
                "ranges": [[addresses]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        host_ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": self.name, "plugins": [bridge, host_ports]}

    def _kubelet(self) -> Server:
        account = f"system:node:{NODE}"
        kubeconfig = self.api.make_kubeconfig(account, ["system:nodes"], [NODE, NODE_ADDRESS, "127.0.0.1"])
        settings = self._node / "kubelet.json"
        settings.write_text(json.dumps(self._kubelet_settings(kubeconfig.with_suffix(""))))
        return self._program(
            "kubelet",
            *(f"--config={settings}", f"--kubeconfig={kubeconfig}", f"--hostname-override={NODE}"),
            *(f"--node-ip={NODE_ADDRESS}", f"--root-dir={self._node / 'kubelet'}"),
            f"--cert-dir={self._node / 'kubelet-pki'}",
            port=10250,
        )

    def _kubelet_settings(self, certificate: Path) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_ADDRESS,
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.api.ca)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{certificate}.crt",
            "tlsPrivateKeyFile": f"{certificate}.key",
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "maxOpenFiles": 20000,
            "resolvConf": "",
            "clusterDomain": "cluster.local",
            "clusterDNS": [DNS_ADDRESS],
            # It makes the kubelet go on where the machine (often a container itself) forbids it something.
            "featureGates": {"KubeletInUserNamespace": True},
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "volumePluginDir": str(self._node / "volume-plugins"),
            "podLogsDir": str(self._node / "pod-logs"),
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "4s",
            "shutdownGracePeriod": "0s",
        }

    def _dns(self) -> Server:
        settings = self._node / "Corefile"
        kubeconfig = self.api.make_kubeconfig("coredns", ["system:masters"])
        settings.write_text(_COREFILE.format(address=NODE_ADDRESS, kubeconfig=kubeconfig))
        words = [str(coredns.install()), "-conf", str(settings)]
        return Server("coredns", words, self.folder, ports=[53, 8181], place=self.place, ready=self._dns_is_ready)

    def _dns_is_ready(self) -> bool:
        """Whether CoreDNS has seen the cluster's services: its ready plugin answers 200."""
        with contextlib.suppress(OSError), self.place.connect(8181) as connection:
            connection.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(100)
        return False


_CONTAINERD = """
version = 2
root = "{node}/containerd/root"
state = "{node}/containerd/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{node}/ctd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{node}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  # Pods' namespaces lie in our folder, where they can be told from another cluster's.
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{node}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      BinaryName = "{runc}"
      Root = "{node}/runc"
"""

# Two blocks, since the order of plugins within one is fixed, with `template` before `kubernetes`.
_COREFILE = """
cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{
    errors
    ready {address}:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
    }}
}}
.:53 {{
    errors
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""


def remove_leftovers() -> None:
    """Removes all clusters whose test run has died, and restores the kernel's settings if no cluster is left."""
    for record in _records().glob("*.json"):
        with locked("clusters"):
            try:
                owner = json.loads(record.read_text())
            except (OSError, ValueError):
                continue
            if not kernel.is_alive(owner["pid"], owner["created"]):
                _kill_containers(record.stem)
                _remove(record.stem, Path(owner["folder"]))
    kernel.restore_after_dead()


def _dns_objects() -> dict[str, Any]:
    """The service whose address pods have in resolv.conf, leading to CoreDNS on the node."""
    dns_ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    name = "kube-dns"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"clusterIP": DNS_ADDRESS, "ports": dns_ports},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-node",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": dns_ports,
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
    }
    return {"apiVersion": "v1", "kind": "List", "items": [service, endpoints]}


# What a cluster leaves on the machine, found by its name and its folder


def _records() -> Path:
    folder = cache_root() / "clusters"
    folder.mkdir(exist_ok=True)
    return folder


def _register(name: str, folder: Path) -> None:
    me = psutil.Process()
    record = {"folder": str(folder), "pid": me.pid, "created": me.create_time()}
    (_records() / f"{name}.json").write_text(json.dumps(record))


def _control_group_roots() -> list[Path]:
    """The one hierarchy of version 2, or all hierarchies of version 1."""
    if (CONTROL_GROUPS / "cgroup.controllers").exists():
        return [CONTROL_GROUPS]
    return [path for path in CONTROL_GROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _make_control_groups(name: str) -> None:
    for root in _control_group_roots():
        group = root / name
        group.mkdir()
        # Version 1: a new cpuset group is empty, and nothing can run in it.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (root / "cpuset.cpus").exists() and (group / setting).exists():
                (group / setting).write_text((root / setting).read_text())


def _kill_containers(name: str) -> None:
    """Kills all processes in the cluster's control groups; raises ServerError when some don't die."""
    deadline = time.monotonic() + GONE_SECONDS
    while pids := _pids_in(name):
        if time.monotonic() > deadline:
            raise ServerError(f"the containers' processes {sorted(pids)} of cluster {name} don't end")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        time.sleep(POLL_SECONDS)


def _pids_in(name: str) -> set[int]:
    found: set[int] = set()
    for root in _control_group_roots():
        # os.walk passes over what vanishes meanwhile.
        for folder, _, _ in os.walk(root / name):
            with contextlib.suppress(OSError):
                found.update(int(line) for line in Path(folder, "cgroup.procs").read_text().split())
    return found


def _remove(name: str, folder: Path) -> None:
    """Removes everything of a cluster whose containers have ended; what isn't there is passed over."""
    node = folder / "node"
    sockets = [
        Path(file.read_text().removeprefix("unix://"))
        for file in node.glob("containerd/state/io.containerd.runtime.v2.task/*/*/address")
    ]
    _kill_supervisors(node)
    _unmount_below(node)
    for socket_file in sockets:
        socket_file.unlink(missing_ok=True)
    for sandbox in node.glob("containerd/root/io.containerd.grpc.v1.cri/sandboxes/*"):
        for result in Path("/var/lib/cni/results").glob(f"*-{sandbox.name}-*"):
            result.unlink(missing_ok=True)
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(node):
            link.unlink(missing_ok=True)
    _remove_control_groups(name)
    Namespace(name, NODE_ADDRESS, 24).down()
    for part in (node, folder / "api" / "etcd"):
        # Never into a mount that is still there: it may be somebody's volume.
        _command("rm", "-rf", "--one-file-system", "--preserve-root=all", "--", str(part))
    (_records() / f"{name}.json").unlink(missing_ok=True)


def _kill_supervisors(node: Path) -> None:
    """Kills containerd's shims, which live on without it by design."""
    mine = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words and Path(words[0]).name.startswith("containerd-shim") and str(node / "ctd.sock") in words:
            mine.append(process)
            with contextlib.suppress(psutil.Error):
                process.kill()
    psutil.wait_procs(mine, timeout=GONE_SECONDS)


def _unmount_below(node: Path) -> None:
    """Unmounts everything in the node's folder; raises ServerError when something stays mounted."""
    library = ctypes.CDLL(None, use_errno=True)
    for point in reversed(_mounts_below(node)):
        # Lazy, since somebody may be looking at it; a mount that's gone already is no error.
        library.umount2(str(point).encode(), MNT_DETACH)
    if left := _mounts_below(node):
        raise ServerError(f"still mounted, so nothing is deleted: {', '.join(map(str, left))}")


def _mounts_below(node: Path) -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(_unescaped(line.split()[4])) for line in lines]
    return [point for point in points if point.is_relative_to(node)]


def _unescaped(path: str) -> str:
    """A path of mountinfo, where blanks and backslashes are octal."""
    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escaped, plain)
    return path


def _command(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=READY_SECONDS, check=False)
    if done.returncode != 0:
        raise ServerError(f"{' '.join(words)}: exit status {done.returncode}: {done.stderr.strip()}")


def _remove_control_groups(name: str) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while groups := [root / name for root in _control_group_roots() if (root / name).is_dir()]:
        for group in groups:
            for path, _, _ in os.walk(group, topdown=False):
                # Busy until the kernel has let its last process go.
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
        if time.monotonic() > deadline:
            raise ServerError(f"control groups remain: {', '.join(map(str, groups))}")
        time.sleep(POLL_SECONDS)
