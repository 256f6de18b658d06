"""Where a server lives: on this machine's loopback, or on an address inside a network namespace.

A socket belongs to the namespace of the thread that made it, whoever uses it later. So a test process can listen
and connect inside a namespace without being in it: a short-lived thread enters, makes the socket and ends.
"""

import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

COMMAND_SECONDS = 30
CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")


@dataclass(frozen=True)
class Place:
    """An IPv4 address, and the file of the network namespace where it is (None: where we are)."""

    address: str = "127.0.0.1"
    network: Path | None = None

    def connect(self, port: int, timeout: float = 1.0) -> socket.socket:
        """A TCP connection to `port` here; raises OSError."""
        return self.call(lambda: socket.create_connection((self.address, port), timeout=timeout))

    def is_open(self, port: int) -> bool:
        """Whether something accepts TCP connections on `port` here now."""
        with contextlib.suppress(OSError), self.connect(port):
            return True
        return False

    def call(self, action: Callable[[], _T]) -> _T:
        """Runs `action` in a thread inside the namespace, and returns what it returns or raises what it raises."""
        if self.network is None:
            return action()
        results: list[_T] = []
        errors: list[BaseException] = []

        def enter(network: Path) -> None:
            try:
                _set_namespace(network)
                results.append(action())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=enter, args=(self.network,))
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def command_prefix(self) -> list[str]:
        """Words before a command that is to run in the namespace.

        Not `ip netns exec`: that mounts another /sys, which hides the control groups.
        """
        return ["nsenter", f"--net={self.network}"] if self.network else []


HERE = Place()


class Namespace:
    """A network namespace with a loopback and one bridge, out of which nothing leads; needs root."""

    bridge = "cni0"

    def __init__(self, name: str, address: str, prefix_length: int, routes: Sequence[str] = ()) -> None:
        """The bridge gets `address`; `routes` are networks that are reached through it."""
        self.name = name
        self.place = Place(address, Path("/run/netns") / name)
        self._prefix_length = prefix_length
        self._routes = list(routes)

    def up(self) -> None:
        """Makes it; raises OSError when that fails."""
        _command("ip", "netns", "add", self.name)
        inside = self.place.command_prefix()
        address = self.place.address
        for words in (
            ["ip", "link", "set", "lo", "up"],
            ["ip", "link", "add", self.bridge, "type", "bridge"],
            ["ip", "addr", "add", f"{address}/{self._prefix_length}", "dev", self.bridge],
            ["ip", "link", "set", self.bridge, "up"],
            *(["ip", "route", "add", route, "dev", self.bridge, "src", address] for route in self._routes),
            ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.route_localnet=1"],
        ):
            _command(*inside, *words)
        # Only there when the kernel has br_netfilter; without it, traffic within the bridge skips iptables, which
        # only matters for a pod that reaches itself through its service.
        with contextlib.suppress(OSError):
            _command(*inside, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")

    def down(self) -> None:
        """Removes it; processes in it must have ended. Does nothing when it isn't there."""
        if self.place.network is not None and self.place.network.exists():
            _command("ip", "netns", "delete", self.name)


def _set_namespace(network: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    handle = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if library.setns(handle, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{os.strerror(number)}: can't enter {network}")
    finally:
        os.close(handle)


def _command(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
