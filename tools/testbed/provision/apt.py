"""Debian packages, in groups by what needs them, installed without starting a single service.

Only missing packages are installed, so that a second call costs one look-up and needs neither root nor a network.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from testbed.provision import command
from testbed.provision.cache import cache_root, locked
from testbed.provision.errors import ProvisionError

GROUPS: dict[str, tuple[str, ...]] = {
    "servers": (
        *("slapd", "ldap-utils", "knot", "knot-dnsutils", "unbound"),
        *("dovecot-lmtpd", "dovecot-imapd", "openssl"),
        *("clamav-daemon", "rspamd"),
    ),
    # Exim would remove Postfix, since each wants to be the machine's mail server: see the exim module.
    "bench": ("postfix",),
    # What Postfix needs beside it to judge what Gatepost judges by itself.
    "milters": ("opendkim", "opendmarc", "postfix-policyd-spf-python"),
    # For Haraka, which nothing but `make bench` wants: some four hundred packages where Debian brings npm.
    "peers": ("nodejs", "npm"),
    "node": (
        *("containerd", "runc", "containernetworking-plugins", "iptables", "conntrack"),
        *("mmdebstrap", "socat", "iproute2"),
    ),
    "java": ("default-jre-headless", "maven"),
    # Machine code of the hot path; Debian's own Python has its headers in a package.
    "compiler": ("gcc", "libc6-dev"),
    "headers": ("python3-dev",),
}
# A package whose program is there already, from wherever, isn't installed a second time.
PROGRAMS = {
    "default-jre-headless": "java",
    "maven": "mvn",
    "gcc": "gcc",
    "containerd": "containerd",
    "runc": "runc",
    "openssl": "openssl",
    "socat": "socat",
    "nodejs": "node",
    "npm": "npm",
}
QUIET = {"DEBIAN_FRONTEND": "noninteractive"}
# The time-out: wait for somebody else's apt instead of failing.
APT = ("apt-get", "--quiet=2", "--yes", "-o", "DPkg::Lock::Timeout=600")
POLICY = Path("/usr/sbin/policy-rc.d")
# 101: "action forbidden", which invoke-rc.d takes for any service and action.
DENY_ALL = "#!/bin/sh\nexit 101\n"
UPDATE_SECONDS = 600
INSTALL_SECONDS = 1800
# Package lists older than this may name versions that the mirror has dropped.
LISTS_FRESH_SECONDS = 24 * 3600


def install(group: str) -> list[str]:
    """Installs what is missing of a group of GROUPS and returns the names of what was.

    Raises ProvisionError, naming the packages, where they can't be installed: not root, or no apt.
    """
    wanted = missing(group)
    if not wanted:
        return []
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ProvisionError(
            f"these Debian packages are missing: {' '.join(wanted)}. Only root can install them, with apt-get: "
            f"run `python -m testbed.provision apt:{group}` as root on Debian 12 or newer"
        )
    with locked("apt"):
        wanted = missing(group)
        if wanted:
            _install(wanted)
    if still := missing(group):
        raise ProvisionError(f"apt-get installed no {' '.join(still)}")
    return wanted


def missing(group: str) -> list[str]:
    """The packages of a group that aren't installed."""
    if group not in GROUPS:
        raise ProvisionError(f"no such group of packages: {group} (there are {', '.join(GROUPS)})")
    return [name for name in GROUPS[group] if not _has_program(name) and not is_installed(name)]


def _has_program(package: str) -> bool:
    program = PROGRAMS.get(package)
    return program is not None and shutil.which(program) is not None


def is_installed(package: str) -> bool:
    """Whether a Debian package is installed completely."""
    if shutil.which("dpkg-query") is None:
        return False
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)
    return answer.stdout == "installed"


def refresh_lists() -> None:
    """Runs `apt-get update` unless that was done within the last day; does nothing when we aren't root."""
    stamp = cache_root() / ".apt-updated"
    listed = any(Path("/var/lib/apt/lists").glob("*Packages*"))
    fresh = listed and stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_FRESH_SECONDS
    if not fresh and os.geteuid() == 0:
        command.run([*APT, "update"], env=QUIET, seconds=UPDATE_SECONDS)
        stamp.touch()


def _install(packages: Sequence[str]) -> None:
    refresh_lists()
    with _no_service_starts():
        command.run([*APT, "install", "--no-install-recommends", *packages], env=QUIET, seconds=INSTALL_SECONDS)


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Denies every start of a service while packages are installed, and restores the machine's own rule."""
    before = POLICY.read_bytes() if POLICY.exists() else None
    mode = POLICY.stat().st_mode if before is not None else 0
    POLICY.unlink(missing_ok=True)
    POLICY.write_text(DENY_ALL)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
        if before is not None:
            POLICY.write_bytes(before)
            POLICY.chmod(mode)
