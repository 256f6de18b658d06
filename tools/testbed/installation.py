"""Gatepost itself as separate processes, as pods would run it: each with its settings file, ports and state."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed import ports
from testbed.process import Server, ServerError

GATEPOST = Path(sys.executable).parent / "gatepost"
PUBLISH_SECONDS = 60.0
REQUEST_SECONDS = 2.0
# A drain (25 s) and a stop may take this long together.
STOP_SECONDS = 45.0


class Member(Server):
    """One process of Gatepost. `admin` is the port of /readyz and /metrics; `mx` and `submission` of an edge."""

    def __init__(self, service: str, name: str, folder: Path, settings: Mapping[str, Any], *words: str) -> None:
        self.service = service
        self.admin = ports.reserve()
        roles = {one["role"] for one in settings.get("listeners", [])} if service in ("edge", "run") else set()
        self.mx = ports.reserve() if "mx" in roles else 0
        self.submission = ports.reserve() if "submission" in roles else 0
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder / "state"
        document = _with_ports(settings, self)
        if service == "run":
            target = folder / "config"
            target.mkdir(exist_ok=True)
            (target / "gatepost.yaml").write_text(json.dumps(document))
        else:
            target = folder / "gatepost.yaml"
            target.write_text(json.dumps(document))
        self.config = target
        taken = [port for port in (self.admin, self.mx, self.submission) if port]
        super().__init__(
            name,
            [GATEPOST, service, "--config", target, "--state", self.state, *words],
            folder,
            ports=taken,
            ready=self.is_ready,
            env={"POD_UID": name},
            stop_seconds=STOP_SECONDS,
        )

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=REQUEST_SECONDS) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics, as `name{labels}` -> value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=REQUEST_SECONDS) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def told(self, event: str) -> list[dict[str, Any]]:
        """The fields of every line that this process has logged so far for an event, if it logs JSON."""
        lines = self.log.read_bytes().rpartition(b"\n")[0].splitlines()
        found = (json.loads(line) for line in lines if event.encode() in line and line.startswith(b"{"))
        return [line for line in found if line.get("event") == event]


def _with_ports(settings: Mapping[str, Any], member: Member) -> dict[str, Any]:
    document = copy.deepcopy(dict(settings))
    document["admin"] = {"address": f"127.0.0.1:{member.admin}"}
    for listener in document.get("listeners", []):
        port = member.submission if listener["role"] == "submission" else member.mx
        listener["address"] = f"127.0.0.1:{port or 1}"
    return document


class Installation:
    """Processes that share one set of settings and manifests; a context manager.

    `settings` is gatepost.yaml as data, without admin and with listeners whose addresses are filled in for each
    process; `manifests` is YAML text of MailDomains and RelayPolicies, put in force by `gatepost publish`.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], manifests: str) -> None:
        self.folder, self.settings = folder, settings
        self.members: dict[str, Member] = {}
        self.manifests = folder / "manifests"
        self.manifests.mkdir(parents=True, exist_ok=True)
        (self.manifests / "objects.yaml").write_text(manifests)
        self._file = folder / "gatepost.yaml"
        self._file.write_text(json.dumps({**settings, "state": str(folder / "publish-state")}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def publish(self) -> str:
        """Put the manifests in force and return what the command said. Raises ServerError."""
        done = subprocess.run(
            [GATEPOST, "publish", self.manifests, "--config", self._file],
            capture_output=True,
            text=True,
            timeout=PUBLISH_SECONDS,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"gatepost publish failed\n{done.stdout}{done.stderr}")
        return done.stdout

    def add(self, service: str, name: str, *words: str, **changed: Any) -> Member:
        """Define a process; `changed` replaces top-level settings. It is started by start()."""
        member = Member(service, name, self.folder / name, {**self.settings, **changed}, *words)
        self.members[name] = member
        return member

    def start(self) -> None:
        """Start all that do not run yet, side by side."""
        waiting = [member for member in self.members.values() if not member.running]
        for member in waiting:
            member.launch()
        for member in waiting:
            member.await_ready()

    def stop(self) -> None:
        for member in self.members.values():
            member.stop()

    def of(self, service: str) -> list[Member]:
        return [member for member in self.members.values() if member.service == service]
