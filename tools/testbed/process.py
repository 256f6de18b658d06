"""A child process that is a server: started, awaited, hurt and stopped by its process id.

A server is ready when its ports answer AND its process lives: a port alone may belong to somebody else. The kernel
kills it when the test run dies (PR_SET_PDEATHSIG), so that `kill -9` of a test run leaves nothing behind.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed.network import HERE, Place
from testbed.running import Running
from testbed.user import User, current

START_SECONDS = 60.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.01
TAIL_BYTES = 4000

# The kernel's death signal comes when the THREAD that made the child ends, so that all children are made by one
# thread that lives as long as the process.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="testbed-spawner")


class ServerError(Exception):
    """A server did not start, or died; the text ends with the tail of its log."""


class Server(Running):
    """One server process on fixed ports, with a log file `<folder>/<name>.log`.

    Usable as a context manager. `argv` may be replaced between two starts. `ready` is an extra condition, asked
    again and again once the ports answer; it returns False while the server isn't ready.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        folder: Path,
        *,
        ports: Sequence[int] = (),
        ready: Callable[[], bool] | None = None,
        env: Mapping[str, str] | None = None,
        user: User | None = None,
        place: Place = HERE,
        death_signal: str = "KILL",
        start_seconds: float = START_SECONDS,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        """`place` says where its ports are, and which network namespace it runs in.

        `death_signal` is what the process gets when the test run dies: KILL, except for servers that would leave
        children of their own (those get TERM). Folders must exist; `env` is added to the environment.
        """
        self.name = name
        self.argv = [str(word) for word in argv]
        self.folder = folder
        self.ports = list(ports)
        self.log = folder / f"{name}.log"
        self._ready = ready
        self._env = dict(env or {})
        self._user = user or current()
        self._place = place
        self._death_signal = death_signal
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process id; raises ServerError when it isn't running."""
        if self._process is None:
            raise ServerError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives (a suspended one does)."""
        return self._process is not None and not _ended(self._process.pid)

    def start(self) -> None:
        """Starts the process and returns when it is ready; raises ServerError after `start_seconds`."""
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Starts the process without waiting, so that several can start side by side."""
        if self._process is not None:
            raise ServerError(f"{self.name} is already running")
        # Somebody else's port would be taken for ours until our process notices.
        if taken := [port for port in self.ports if self._place.is_open(port)]:
            raise ServerError(f"{self.name}: somebody else listens on {taken} at {self._place.address}")
        self._process = _spawner.submit(self._spawn).result()

    def await_ready(self) -> None:
        """Waits until a launched process is ready; stops it and raises ServerError when that fails."""
        deadline = time.monotonic() + self._start_seconds
        try:
            while not self._answers():
                if not self.running:
                    raise ServerError(f"{self.name} ended at its start\n{self.log_tail()}")
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"{self.name} was not ready after {self._start_seconds:.0f} s\n{self.log_tail()}"
                    )
                time.sleep(POLL_SECONDS)
            if not self.running:
                raise ServerError(f"{self.name} ended at its start\n{self.log_tail()}")
        except BaseException:
            self.kill9()
            raise

    def stop(self) -> None:
        """Ends the process politely, then by force after `stop_seconds`; does nothing when it isn't running."""
        self._end(signal.SIGTERM)

    def kill9(self) -> None:
        """Kills the process and everything in its process group at once; returns when it is gone."""
        self._end(signal.SIGKILL)

    def suspend(self) -> None:
        """Stops the process's execution (SIGSTOP): its ports accept connections but nothing answers.

        Returns when none of its threads runs any more; on a busy machine that takes a while.
        """
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + STOP_SECONDS
        while not _stands_still(self.pid):
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} runs on after SIGSTOP")
            time.sleep(POLL_SECONDS)

    def resume(self) -> None:
        """Lets a suspended process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Stops it if it runs and starts it again with the same ports, files and log."""
        self.stop()
        self.start()

    def log_tail(self) -> str:
        """The end of what it has printed since its last start."""
        with self.log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(self._log_start, size - TAIL_BYTES))
            return stream.read().decode("utf-8", "replace")

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            return subprocess.Popen(
                [*self._place.command_prefix(), *self._user.command_prefix(self._death_signal), *self.argv],
                cwd=self.folder,
                env={**os.environ, **self._env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        return all(map(self._place.is_open, self.ports)) and (self._ready is None or self._ready())

    def _end(self, first: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if not _ended(process.pid):
            os.kill(process.pid, first)
            # A suspended process would not see the signal.
            os.kill(process.pid, signal.SIGCONT)
            deadline = time.monotonic() + (self._stop_seconds if first == signal.SIGTERM else 0)
            while not _ended(process.pid) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        # The process isn't reaped yet, so its id can't be anybody else's: this reaches only its own group.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def kill_together(*servers: Server) -> None:
    """kill -9 of several at the same moment: each gets the signal before any is waited for."""
    for server in servers:
        os.kill(server.pid, signal.SIGKILL)
    for server in servers:
        server.kill9()


def _ended(pid: int) -> bool:
    """Whether our child has ended, without reaping it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _stands_still(pid: int) -> bool:
    """Whether every thread is stopped (proc(5): the state is behind the name, which may hold anything)."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        if state not in "TtZX":
            return False
    return True
