"""Servers as child processes, tried on small Python programs; and ports that don't collide."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from testbed import ports
from testbed.process import Server, ServerError

SECONDS = 20.0
LISTEN = """
import signal, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"hello")
    connection.close()
"""


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def listener(folder: Path, program: str = LISTEN) -> Server:
    port = ports.reserve()
    return Server(
        "listener", [sys.executable, "-c", program, str(port)], folder, ports=[port], start_seconds=SECONDS
    )


def greeting(server: Server, timeout: float = SECONDS) -> bytes:
    with socket.create_connection(("127.0.0.1", server.ports[0]), timeout=timeout) as connection:
        return connection.recv(100)


def test_it_is_ready_inside_the_context_and_gone_after_it(tmp_path: Path) -> None:
    with listener(tmp_path) as server:
        assert greeting(server) == b"hello"
        pid = server.pid
    assert not psutil.pid_exists(pid)
    assert not server.running
    assert server.log.read_text() == "listening\n"


def test_kill_and_restart_keep_the_port_and_the_log(tmp_path: Path) -> None:
    with listener(tmp_path) as server:
        first = server.pid
        server.kill9()
        with pytest.raises(ConnectionRefusedError):
            greeting(server)
        server.start()
        server.restart()
        assert server.pid != first
        assert greeting(server) == b"hello"
        assert server.log_tail() == "listening\n"
        assert server.log.read_text() == "listening\n" * 3


def test_a_suspended_server_accepts_but_does_not_answer(tmp_path: Path) -> None:
    with listener(tmp_path) as server:
        server.suspend()
        with pytest.raises(TimeoutError):
            greeting(server, timeout=0.1)
        server.resume()
        assert greeting(server) == b"hello"
        server.suspend()
    assert not server.running


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="ended at its start\nno good reason"):
        listener(tmp_path, "import sys; sys.exit('no good reason')").start()


def test_a_port_that_somebody_else_holds_is_not_taken_for_readiness(tmp_path: Path) -> None:
    server = listener(tmp_path)
    with (
        socket.create_server(("127.0.0.1", server.ports[0])),
        pytest.raises(ServerError, match="somebody else listens"),
    ):
        server.start()
    assert not server.running


def test_stopping_ends_the_children_too(tmp_path: Path) -> None:
    parent = "import subprocess, sys\nprint(subprocess.Popen(['sleep', '600']).pid, flush=True)\n" + LISTEN
    with listener(tmp_path, parent) as server:
        child = int(server.log_tail().split()[0])
        assert psutil.pid_exists(child)
    await_true(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_nothing_outlives_a_killed_test_run(tmp_path: Path) -> None:
    run = (
        "import sys, time, pathlib, threading\n"
        "from testbed.process import Server\n"
        "server = Server('sleeper', ['sleep', '600'], pathlib.Path(sys.argv[1]))\n"
        # Started in a thread that ends: the server must not end with it.
        "thread = threading.Thread(target=server.start); thread.start(); thread.join()\n"
        "print(server.pid, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", run, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as killed:
        assert killed.stdout is not None
        sleeper = psutil.Process(int(killed.stdout.readline()))
        # The words before the command must have set the death signal: then it is `sleep` itself.
        await_true(lambda: sleeper.name() == "sleep")
        killed.send_signal(signal.SIGKILL)
    psutil.wait_procs([sleeper], timeout=SECONDS)
    assert not sleeper.is_running() or sleeper.status() == psutil.STATUS_ZOMBIE


def test_ports_differ_between_processes() -> None:
    run = (
        "from testbed import ports\n"
        "ports.FIRST, ports.LAST = 20000, 20100\n"  # so few that chance alone would not keep them apart
        "print(*[ports.reserve() for _ in range(20)], flush=True)\n"
        "input()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    taken: list[str] = []
    for process in runs:
        assert process.stdout is not None
        taken += process.stdout.readline().split()
    for process in runs:
        process.communicate("\n", timeout=SECONDS)
    assert len(taken) == len(set(taken)) == 40


def test_a_port_in_use_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    port = ports.reserve()
    ports.release(port)
    monkeypatch.setattr(ports, "FIRST", port)
    monkeypatch.setattr(ports, "LAST", port + 1)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match="no free port"):
        ports.reserve()
    assert ports.reserve() == port
    with pytest.raises(OSError, match="no free port"):
        ports.reserve()
    ports.release(port)
