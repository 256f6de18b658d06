"""The servers that Gatepost is compared with: Postfix, Exim and Haraka, each to Maildirs of the same five users."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from control_group import ControlGroup
from maildirs import Maildirs
from process_tree import cpu_seconds
from smtp_load import USERS

from testbed.exim import Exim
from testbed.haraka import Haraka
from testbed.postfix import Postfix
from testbed.provision import apt
from testbed.provision import exim as exim_packages
from testbed.provision import haraka as haraka_packages

# What a peer's name in results begins with, and what people call it; in the order of the tables' columns.
TITLES: Final[Mapping[str, str]] = {"postfix": "Postfix", "exim": "Exim", "haraka": "Haraka"}
# They deliver some 100 to 150 messages a second: fewer in each round, or they would take most of the time.
SLOW: Final = frozenset({"exim", "haraka"})
SLOW_SHARE: Final = 5


def peer_of(name: str) -> str | None:
    """The key of TITLES that a system's name belongs to; None for Gatepost's own."""
    return next((key for key in TITLES if name.startswith(key)), None)


class Peer:
    """A System of somebody else. `mail` holds the Maildirs by user."""

    def __init__(self, name: str, port: int, roles: Mapping[str, int], mail: Path) -> None:
        self.name, self.port, self.roles = name, port, roles
        self._mail = Maildirs({user: mail / user for user in USERS})

    def cpu(self) -> Mapping[str, float]:
        return cpu_seconds(self.roles)

    def delivered(self) -> int:
        return self._mail.count()

    def holds(self, user: str, end: bytes) -> bool:
        return self._mail.holds(user, end)


class EximPeer(Peer):
    """Its CPU is that of a control group."""

    def __init__(self, exim: Exim, group: ControlGroup) -> None:
        super().__init__("exim", exim.port, {"exim": exim.server.pid}, exim.mail)
        self._group = group

    def cpu(self) -> Mapping[str, float]:
        return {"exim": self._group.cpu_seconds()}


@contextmanager
def postfix(folder: Path, *, hold: bool = False) -> Iterator[Peer]:
    """With `hold` it puts what it has taken on hold: only smtpd and cleanup work, and the queue file is synced."""
    folder.mkdir()
    peer = Postfix(folder, users=USERS)
    with (peer.mail.parent / "etc" / "main.cf").open("a") as settings:
        # Or it would delay the answers to a session that says NOOP all the time.
        settings.write("smtpd_junk_command_limit = 1000000\n")
        if hold:
            settings.write("smtpd_end_of_data_restrictions = check_client_access static:HOLD\n")
    with peer:
        name = "postfix-hold" if hold else "postfix"
        yield Peer(name, peer.port, {"postfix": peer.server.pid}, peer.mail)


@contextmanager
def exim(folder: Path) -> Iterator[EximPeer]:
    with ControlGroup("exim") as group, Exim(folder, users=USERS) as peer:
        group.adopt(peer.server.pid)
        yield EximPeer(peer, group)


@contextmanager
def haraka(folder: Path) -> Iterator[Peer]:
    """Two workers and its Dovecot, whose CPU counts: without a mail store it delivers nowhere."""
    with Haraka(folder, users=USERS) as peer:
        roles = {"haraka": peer.server.pid, "dovecot": peer.dovecot.server.pid}
        yield Peer("haraka", peer.port, roles, peer.mail)


OTHERS: Final[Mapping[str, Callable[[Path], AbstractContextManager[Peer]]]] = {"exim": exim, "haraka": haraka}


def versions(names: Iterable[str]) -> Mapping[str, str]:
    """The version of each of these peers and of what it needs. Raises ProvisionError without them."""
    shown = {"postfix": _postfix_version, "exim": _exim_version, "haraka": _haraka_version}
    return {name: shown[name]() for name in names}


def _postfix_version() -> str:
    apt.install("bench")
    return f"Postfix {_line('/usr/sbin/postconf', '-d', '-h', 'mail_version')}"


def _exim_version() -> str:
    program = exim_packages.install() / "usr/sbin/exim4"
    libraries = {"LD_LIBRARY_PATH": str(program.parents[2] / exim_packages.LIBRARY_FOLDER)}
    # "Exim version 4.96 #2 built ...". Without a configuration it ends with an error behind that.
    shown = subprocess.run([program, "-bV"], env=libraries, capture_output=True, text=True, timeout=60, check=False)
    return f"Exim {shown.stdout.split()[2]}"


def _haraka_version() -> str:
    haraka_packages.install()
    apt.install("servers")
    node = _line(haraka_packages.node(), "--version").lstrip("v")
    dovecot = _line("/usr/sbin/dovecot", "--version").split()[0]
    return f"Haraka {haraka_packages.VERSION} on Node.js {node}, with Dovecot {dovecot}"


def _line(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()[0]
