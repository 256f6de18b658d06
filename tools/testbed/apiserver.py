"""A Kubernetes API server with its etcd: all of Kubernetes that an operator talks to, without a node."""

import contextlib
import http.client
import ipaddress
import json
import os
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed import ports
from testbed.network import HERE, Place
from testbed.process import Server, ServerError
from testbed.provision import kubernetes as provision
from testbed.running import Running
from testbed.tls import Authority

SERVICE_NETWORK = ipaddress.ip_network("10.96.0.0/16")
API_SERVICE_ADDRESS = str(SERVICE_NETWORK[1])
CLUSTER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
COMMAND_SECONDS = 120.0
START_SECONDS = 90.0
REQUEST_SECONDS = 5.0


class ApiServer(Running):
    """etcd and kube-apiserver in `folder`, a context manager; RBAC is on.

    Attributes: `kubeconfig` (of an administrator), `url`, `ca`, `port`; `etcd` and `apiserver` are servers to kill,
    suspend and restart. With `place` it serves a cluster inside a network namespace.

    With `controllers` there is the controller manager too, as a server of that name (otherwise None). Without it
    no namespace is ever gone, nothing is collected as garbage, namespaces get no default service account, and
    aggregated cluster roles (view, edit, admin) are empty.
    """

    def __init__(
        self,
        folder: Path,
        *,
        place: Place = HERE,
        controllers: bool = False,
        flags: Sequence[str] = (),
        controller_flags: Sequence[str] = (),
    ) -> None:
        self.folder = folder.resolve()
        self.place = place
        self.programs = provision.install()
        self._pki = self.folder / "pki"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ports = [ports.reserve() for _ in range(4)]
        etcd_port, peer_port, self.port, controllers_port = self._ports
        self.url = f"https://{place.address}:{self.port}"
        self.authority = Authority(self._pki, "ca")
        self.ca = self.authority.certificate
        self.kubeconfig = self.make_kubeconfig("admin", ["system:masters"])
        self.etcd = self._etcd(etcd_port, peer_port)
        self.apiserver = self._apiserver(etcd_port, flags)
        self.controllers = self._controllers(controllers_port, controller_flags) if controllers else None

    def start(self) -> None:
        """Starts all; returns when /readyz says ok."""
        try:
            for server in (self.etcd, self.apiserver, self.controllers):
                if server is not None:
                    server.start()
        except BaseException:
            self.kill9()
            raise

    def stop(self) -> None:
        """Ends all for good, without ceremony: their data isn't needed any more."""
        self.kill9()
        while self._ports:
            ports.release(self._ports.pop())

    def kill9(self) -> None:
        """Kills all; `start` brings them back with what they had stored."""
        for server in (self.controllers, self.apiserver, self.etcd):
            if server is not None:
                server.kill9()

    def make_kubeconfig(self, user: str, groups: Sequence[str] = (), names: Sequence[str] = ()) -> Path:
        """A kubeconfig file with a new client certificate for `user` in `groups`; what it may do is up to RBAC.

        The certificate (`<stem>.crt` beside it) is good for a server with `names` too.
        """
        stem = user.replace(":", "-")
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
        issued = self.authority.issue(*names, subject=subject, file=stem)
        path = self._pki / f"{stem}.kubeconfig"
        # YAML's subset JSON needs no library.
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {"name": "c", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}
                    ],
                    "users": [
                        {
                            "name": "u",
                            "user": {
                                "client-certificate": str(issued.certificate),
                                "client-key": str(issued.key),
                            },
                        }
                    ],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        path.chmod(0o600)
        return path

    def kubectl(self, *words: str | Path, stdin: str | None = None, seconds: float = COMMAND_SECONDS) -> str:
        """Runs kubectl as the administrator and returns its output; raises ServerError with its error."""
        return self.run(provision.clients().kubectl, *words, stdin=stdin, seconds=seconds)

    def get(self, *words: str) -> Any:
        """`kubectl get ... -o json`, parsed."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def establish(self, definitions: Path) -> None:
        """Applies a folder of CRDs and returns when the server serves them; raises ServerError.

        `kubectl wait` is no help: it fails at once on a CRD that has no conditions yet.
        """
        self.kubectl("apply", "--server-side", "-f", definitions)
        deadline = time.monotonic() + START_SECONDS
        while missing := [one["metadata"]["name"] for one in self.get("crd")["items"] if not _established(one)]:
            if time.monotonic() > deadline:
                raise ServerError(f"not established after {START_SECONDS:.0f} s: {', '.join(missing)}")
            time.sleep(0.05)

    def run(self, *words: str | Path, stdin: str | None = None, seconds: float = COMMAND_SECONDS) -> str:
        """Runs any command with KUBECONFIG set, in the cluster's network; raises ServerError when it fails."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        env = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": str(home),
            "HELM_CACHE_HOME": f"{home}/helm",
        }
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            env.pop(name, None)
        try:
            done = subprocess.run(
                [*self.place.command_prefix(), *map(str, words)],
                input=stdin,
                env=env,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ServerError(f"{_words(words)}: not done after {seconds:.0f} s") from None
        if done.returncode != 0:
            raise ServerError(f"{_words(words)}: exit status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def is_ready(self) -> bool:
        """Whether the API server's /readyz says ok."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self._pki / "admin.crt", self._pki / "admin.key")
        connection = http.client.HTTPConnection(self.place.address, self.port)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            plain = self.place.connect(self.port, REQUEST_SECONDS)
            connection.sock = context.wrap_socket(plain, server_hostname=self.place.address)
            connection.request("GET", "/readyz")
            return connection.getresponse().read() == b"ok"
        return False

    def _etcd(self, port: int, peer_port: int) -> Server:
        client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
        words: list[str | Path] = [self.programs / "etcd", "--name=e", f"--data-dir={self.folder / 'etcd'}"]
        words += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        words += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        # Its data needs to outlive a killed process, not a power cut.
        words += [f"--initial-cluster=e={peer}", "--unsafe-no-fsync", "--log-level=warn"]
        place = Place("127.0.0.1", self.place.network)
        return Server("etcd", words, self.folder, ports=[port], place=place, start_seconds=START_SECONDS)

    def _apiserver(self, etcd_port: int, flags: Sequence[str]) -> Server:
        pki, issue = self._pki, self.authority.issue
        serving = issue(*CLUSTER_NAMES, "127.0.0.1", API_SERVICE_ADDRESS, self.place.address, file="apiserver")
        kubelet_client = issue(subject="/O=system:masters/CN=kube-apiserver-kubelet", file="apiserver-kubelet")
        accounts = issue(subject="/CN=service-accounts", file="service-accounts")
        # The aggregation layer needs a CA of its own: with the same one it would refuse ordinary client
        # certificates.
        front_authority = Authority(pki, "front-ca")
        front = front_authority.issue(subject="/CN=front-proxy", file="front")
        words: list[str | Path] = [self.programs / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd_port}"]
        words += [f"--secure-port={self.port}", f"--advertise-address={self.place.address}"]
        if self.place.network is None:
            # On loopback the address of the `kubernetes` service can't be published, and nobody would use it.
            words += ["--bind-address=127.0.0.1", "--endpoint-reconciler-type=none"]
        else:
            words += ["--bind-address=0.0.0.0"]
        words += ["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"]
        words += ["--allow-privileged=true", f"--service-cluster-ip-range={SERVICE_NETWORK}"]
        words += [f"--client-ca-file={self.ca}"]
        words += [f"--tls-cert-file={serving.certificate}", f"--tls-private-key-file={serving.key}"]
        words += [f"--kubelet-client-certificate={kubelet_client.certificate}"]
        words += [f"--kubelet-client-key={kubelet_client.key}", f"--kubelet-certificate-authority={self.ca}"]
        words += ["--kubelet-preferred-address-types=InternalIP,Hostname"]
        words += ["--service-account-issuer=https://kubernetes.default.svc"]
        words += [
            f"--service-account-key-file={accounts.key}",
            f"--service-account-signing-key-file={accounts.key}",
        ]
        words += [f"--requestheader-client-ca-file={front_authority.certificate}"]
        words += ["--requestheader-allowed-names=front-proxy", "--requestheader-username-headers=X-Remote-User"]
        words += ["--requestheader-group-headers=X-Remote-Group"]
        words += ["--requestheader-extra-headers-prefix=X-Remote-Extra-", "--enable-aggregator-routing=true"]
        words += [f"--proxy-client-cert-file={front.certificate}", f"--proxy-client-key-file={front.key}", *flags]
        return Server(
            "kube-apiserver",
            words,
            self.folder,
            ports=[self.port],
            place=self.place,
            ready=self.is_ready,
            start_seconds=START_SECONDS,
        )

    def _controllers(self, port: int, flags: Sequence[str]) -> Server:
        accounts = self._pki / "service-accounts.key"
        words: list[str | Path] = [self.programs / "kube-controller-manager"]
        words += identity(self.make_kubeconfig("system:kube-controller-manager"))
        words += [f"--bind-address={self.place.address}", f"--secure-port={port}", "--leader-elect=false"]
        words += ["--use-service-account-credentials=true", f"--service-account-private-key-file={accounts}"]
        words += [f"--root-ca-file={self.ca}", f"--cluster-signing-cert-file={self.ca}"]
        words += [f"--cluster-signing-key-file={self.authority.key}", "--node-monitor-grace-period=20s", *flags]
        return Server("kube-controller-manager", words, self.folder, ports=[port], place=self.place)


def identity(kubeconfig: Path) -> list[str]:
    """Flags for a program of the control plane: who it is, and whom it asks who its own clients are."""
    names = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [f"--{name}={kubeconfig}" for name in names]


def _established(definition: Any) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _words(words: Sequence[str | Path]) -> str:
    return " ".join(map(str, words))
