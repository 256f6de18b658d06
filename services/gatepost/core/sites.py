"""Sites: the key by which the relay's work is shared out, so that one pod owns a next hop's connections."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from gatepost.core.ports.resolver import MxHost

MAX_NAMED: Final = 80  # longer names of MX sets are shortened by a hash


def site_of_hosts(hosts: Sequence[str]) -> str:
    """The site of explicit hosts (a static route, a smart host)."""
    return _short("hosts:" + ",".join(host.lower() for host in hosts))


def site_of_mx(domain: str, mx: Sequence[MxHost]) -> str:
    """The site of a domain: its set of MX hosts, or the domain itself without one or when DNS failed."""
    names = sorted({host.host for host in mx if host.host})
    return _short("mx:" + ",".join(names)) if names else _short("domain:" + domain)


def _short(name: str) -> str:
    if len(name) <= MAX_NAMED:
        return name
    return f"{name[: MAX_NAMED - 17]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
