"""Own names in DNS are compared in the background, and the service manager is told how it goes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing

from gatepost.backends.log_memory import MemoryLog
from gatepost.backends.resolver_table import TableResolver
from gatepost.cli.startup import backlogs, durability, look_at_own_names, show
from gatepost.cli.systemd import tell_service_manager
from gatepost.core.manifest.settings import KafkaSettings, LogSettings, Settings
from gatepost.work.backlog import Queue
from testbed.installation import GATEPOST

if TYPE_CHECKING:
    from conftest import Gateway

HOST = "mx.example.test"
PUBLIC = ["0.0.0.0"]
SECONDS = 60


async def told(resolver: Any, hosts: list[str] = PUBLIC, limit: float = 5.0) -> list[tuple[str, str]]:
    with structlog.testing.capture_logs() as lines:
        await look_at_own_names(resolver, HOST, hosts, limit=limit)
    return [(line["log_level"], line.get("reason", str(line.get("reverse")))) for line in lines]


async def test_a_queue_that_cannot_be_counted_is_not_called_empty(capsys: pytest.CaptureFixture[str]) -> None:
    log = MemoryLog()
    log.go_away()
    parts: Any = SimpleNamespace(log=log, settings=Settings(hostname=HOST), configuration=None)
    assert await backlogs(parts, [Queue("accepted", "router")]) is None
    show(parts, {}, "127.0.0.1:8025", None, 0)
    assert "  queue       unknown: the log did not tell in time\n" in capsys.readouterr().out


async def test_names_that_fit_are_said() -> None:
    resolver = TableResolver().add(HOST, "A", "192.0.2.25").add_ptr("192.0.2.25", "MX.example.test.")
    assert await told(resolver) == [("info", "['mx.example.test']")]


@pytest.mark.requirement("S0-64")
async def test_a_reverse_name_that_does_not_fit_is_a_warning() -> None:
    """Fails without a warning when the own address has another name in reverse DNS than we greet with."""
    resolver = TableResolver().add(HOST, "A", "192.0.2.25").add_ptr("192.0.2.25", "host25.isp.example")
    ((level, reason),) = await told(resolver)
    assert level == "warning"
    assert "192.0.2.25 is host25.isp.example, we greet as mx.example.test" in reason


async def test_missing_names_are_warnings() -> None:
    ((level, reason),) = await told(TableResolver().add("other.test", "A", "192.0.2.1"))
    assert (level, "has no address in DNS" in reason) == ("warning", True)
    ((level, reason),) = await told(TableResolver().add(HOST, "A", "192.0.2.25"))
    assert (level, "of 192.0.2.25 is missing" in reason) == ("warning", True)


async def test_nobody_is_asked_where_only_loopback_is_listened_on() -> None:
    resolver = TableResolver()
    assert await told(resolver, ["127.0.0.1", "[::1]"]) == []
    assert resolver.asked == []


async def test_a_resolver_that_hangs_ends_in_a_warning() -> None:
    class Hanging:
        async def addresses(self, host: str) -> list[str]:
            await asyncio.Event().wait()
            return []

    ((level, reason),) = await told(Hanging(), limit=0.01)
    assert (level, "did not answer" in reason) == ("warning", True)


def test_durability_is_said_as_it_is() -> None:
    assert durability(Settings()).startswith("synced")
    kafka = Settings(log=LogSettings(kafka=KafkaSettings()))
    assert durability(kafka) == "acknowledged by 2 of 3 replicas before 250 (replicated, not synced to disks)"


# -- the service manager


@pytest.mark.parametrize("abstract", [False, True])
def test_notifications(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@gatepost-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service_manager:
        service_manager.bind("\0" + name[1:] if abstract else name)
        service_manager.settimeout(SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert tell_service_manager("READY=1", "STATUS=x")
        assert service_manager.recv(1000) == b"READY=1\nSTATUS=x"
    if not abstract:
        assert not tell_service_manager("READY=1"), "nobody listens any more"
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not tell_service_manager("READY=1")


class Supervisor:
    """What systemd does with the unit, as far as the test needs it: Type=notify, Restart=always, RestartSec."""

    def __init__(self, socket_path: Path, command: list[str], log: Path) -> None:
        self.restart_s = restart_seconds()
        self._command, self._log = command, log
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(socket_path))
        self._socket.settimeout(SECONDS)
        self._env = {**os.environ, "NOTIFY_SOCKET": str(socket_path)}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as out:
            return subprocess.Popen(self._command, env=self._env, stdout=out, stderr=out)

    def await_message(self, wanted: str) -> str:
        while wanted not in (text := self._socket.recv(4096).decode()):
            pass
        return text

    def start_again(self) -> None:
        self.process.wait(SECONDS)
        self.process = self._start()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        self._socket.close()


UNIT = Path(__file__).resolve().parent.parent.parent / "examples/systemd/gatepost.service"


def restart_seconds() -> float:
    (line,) = [line for line in UNIT.read_text().splitlines() if line.startswith("RestartSec=")]
    return float(line.removeprefix("RestartSec=").removesuffix("s"))


@pytest.mark.requirement("S2-32")
def test_a_service_that_dies_is_back_and_says_its_state(tmp_path: Path, new_gateway: type[Gateway]) -> None:
    """Fails without READY after each start, STOPPING at the end, and a unit that always starts again within 5 s."""
    unit = UNIT.read_text()
    assert "Restart=always" in unit
    assert "StartLimitIntervalSec=0" in unit, "it never gives up"
    assert "Type=notify" in unit
    assert restart_seconds() < 5
    own = new_gateway(tmp_path)
    command = [str(GATEPOST), "run", "--config", str(own.config), "--state", str(own.state)]
    supervisor = Supervisor(tmp_path / "notify", command, tmp_path / "out")
    try:
        text = supervisor.await_message("READY=1")
        assert f"STATUS=running as mx.example.test on 127.0.0.1:{own.mx}" in text
        assert own.is_ready()
        supervisor.process.kill()
        supervisor.start_again()
        supervisor.await_message("READY=1")
        own.receive("postmaster@example.test")
        supervisor.process.send_signal(signal.SIGTERM)
        supervisor.await_message("STOPPING=1")
        assert supervisor.process.wait(SECONDS) == 0
    finally:
        supervisor.close()
