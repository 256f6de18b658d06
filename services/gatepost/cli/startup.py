"""What a process says when it has started: one line for programs, some lines for a person at a terminal.

The own names in DNS are looked at in the background: a start never waits for a resolver. Receivers judge us by
them: the name that we greet with should have an address, and that address should have the name (RFC 1912 2.1).
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

import structlog

from gatepost import __version__
from gatepost.cli.assembly import Assembly
from gatepost.core.endpoints import parse_endpoint
from gatepost.core.manifest.settings import Role, Settings
from gatepost.core.message import date_time
from gatepost.core.ports.log import LogError
from gatepost.core.ports.resolver import NoSuchDomain, Resolver, ResolverFailure
from gatepost.edge.server import EdgeServer
from gatepost.telemetry import metrics
from gatepost.work.backlog import Backlog, Queue, look

NAMES_LIMIT_S: Final = 10.0
BACKLOG_LIMIT_S: Final = 10.0
MOST_NAMED: Final = 5  # domains on the terminal; the log has their number

_log = structlog.get_logger()


def durability(settings: Settings) -> str:
    """What 250 means with these settings (docs/guarantees.md, G1)."""
    kafka = settings.log.kafka
    if kafka is None:
        return "synced to this disk before 250"
    replicas = f"{kafka.min_insync_replicas} of {kafka.replication_factor} replicas"
    return f"acknowledged by {replicas} before 250 (replicated, not synced to disks)"


def log_in_use(settings: Settings) -> str:
    if settings.log.kafka is not None:
        return f"kafka {','.join(settings.log.kafka.bootstrap_servers)}"
    assert settings.log.sqlite is not None
    return f"sqlite {Path(settings.state) / settings.log.sqlite.file}"


def form_of_code() -> str:
    """Whether the modules of the hot path are machine code, as in the images, or Python (docs/adr/0015)."""
    return "compiled" if str(metrics.__file__).endswith(tuple(EXTENSION_SUFFIXES)) else "interpreted"


async def backlogs(parts: Assembly, queues: Sequence[Queue]) -> Sequence[Backlog] | None:
    """Those of the queues in which something waits; None when the log does not tell in time."""
    try:
        async with asyncio.timeout(BACKLOG_LIMIT_S):
            return [found for queue in queues if (found := await look(parts.log, queue)).waiting]
    except (LogError, TimeoutError) as error:
        _log.info("start.queue_unknown", reason=str(error))
        return None


def started(parts: Assembly, addresses: Mapping[str, str], waiting: Sequence[Backlog] | None) -> None:
    """The line for programs. `addresses` are listener -> HOST:PORT."""
    settings = parts.settings
    configuration = parts.configuration.current if parts.configuration is not None else None
    _log.info(
        "started",
        version=__version__,
        code=form_of_code(),
        services=list(parts.services),
        hostname=settings.hostname,
        listening=dict(addresses),
        admin=settings.admin.address,
        log=log_in_use(settings),
        durability=durability(settings),
        queued=None if waiting is None else {backlog.topic: backlog.waiting for backlog in waiting},
        domains=len(configuration.domains) if configuration else 0,
        policies={policy.listener: policy.origin for policy in configuration.listeners} if configuration else {},
        configuration=configuration.hash[:12] if configuration else "none yet",
    )


def show(
    parts: Assembly, addresses: Mapping[str, str], admin: str, waiting: Sequence[Backlog] | None, now_ms: int
) -> None:
    """The lines for a person who wants to send a first message."""
    settings = parts.settings
    configuration = parts.configuration.current if parts.configuration is not None else None
    names = [domain.domain for domain in configuration.domains] if configuration else []
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    print(f"Gatepost {__version__} is running as {settings.hostname} since {date_time(now_ms)}")
    for listener in settings.listeners:
        print(f"  {listener.role.value:<11} {addresses[listener.name]}   (listener {listener.name})")
    print(f"  {'admin':<11} http://{admin}/metrics  /livez  /readyz")
    print(f"  {'domains':<11} {', '.join(names[:MOST_NAMED]) or 'none'}{more}")
    for name, store in settings.stores.items():
        where = Path(settings.state) / store.maildir.path if store.maildir else store.lmtp and store.lmtp.address
        print(f"  {'store':<11} {name}: {where}")
    print(f"  {'log':<11} {log_in_use(settings)}, {durability(settings)}")
    print(f"  {'queue':<11} {_queued(waiting)}")
    print("Ready.")
    if names and settings.listeners:
        _first_message(settings, addresses, names[0])
    sys.stdout.flush()


def _queued(waiting: Sequence[Backlog] | None) -> str:
    if waiting is None:
        return "unknown: the log did not tell in time"
    return ", ".join(f"{backlog.waiting} in {backlog.topic}" for backlog in waiting) or "empty"


def _first_message(settings: Settings, addresses: Mapping[str, str], domain: str) -> None:
    """A line to copy: every recipient domain has a postmaster (RFC 5321 4.5.1)."""
    listener = next((one for one in settings.listeners if one.role is Role.MX), settings.listeners[0])
    print("\nSend a first message:")
    print("  printf 'Subject: hello\\n\\nIt works.\\n' | curl --crlf --upload-file - \\")
    print(
        f"    --mail-from you@example.org --mail-rcpt postmaster@{domain} smtp://{addresses[listener.name]}\n",
    )


def addresses_of(settings: Settings, edge: EdgeServer) -> dict[str, str]:
    """Listener -> HOST:PORT as it is bound, the host as it is written in the settings."""
    return {one.name: f"{one.address.rpartition(':')[0]}:{edge.port(one.name)}" for one in settings.listeners}


# -- own names


async def own_names(parts: Assembly, stop: asyncio.Event) -> None:
    """Look at the own names once, and end when the process does."""
    hosts = [parse_endpoint(listener.address)[0] for listener in parts.settings.listeners]
    await look_at_own_names(await parts.resolver(), parts.settings.hostname, hosts)
    await stop.wait()


async def look_at_own_names(
    resolver: Resolver, hostname: str, hosts: Iterable[str], *, limit: float = NAMES_LIMIT_S
) -> None:
    """Say which names the own addresses have, and warn where they do not fit the name that we greet with.

    `hosts` are what the listeners listen on; on loopback alone nobody outside can ever see us.
    """
    listened = [_address(host) for host in hosts]
    if listened and all(address is not None and address.is_loopback for address in listened):
        return
    try:
        async with asyncio.timeout(limit):
            await _compare(resolver, hostname, {str(one) for one in listened if one is not None and one.is_global})
    except TimeoutError:
        _log.warning("start.names", reason=f"DNS did not answer within {limit:g} s", hostname=hostname)


async def _compare(resolver: Resolver, hostname: str, own: set[str]) -> None:
    try:
        published = set(await resolver.addresses(hostname))
    except (NoSuchDomain, ValueError):  # a machine's own name need not be a domain
        published = set()
    except ResolverFailure as error:
        _log.warning("start.names", reason=f"{hostname} cannot be looked up: {error}", hostname=hostname)
        return
    if not published:
        _log.warning(
            "start.names",
            reason=f"the host name {hostname} has no address in DNS: many receivers refuse such a greeting",
            hostname=hostname,
        )
    for address in sorted(published | own):
        names = await _reverse(resolver, address)
        if names is not None and hostname.lower() in names:
            _log.info("start.names", hostname=hostname, address=address, reverse=names)
        else:
            found = "cannot be looked up" if names is None else f"is {', '.join(names) or 'missing'}"
            _log.warning(
                "start.names",
                reason=f"the reverse name of {address} {found}, we greet as {hostname}: they should be the same",
                hostname=hostname,
                address=address,
                reverse=names or [],
            )


async def _reverse(resolver: Resolver, address: str) -> list[str] | None:
    """The PTR names of an address; None when it is not known whether there are any."""
    try:
        answer = await resolver.ptr(address)
    except NoSuchDomain:
        return []
    except ResolverFailure:
        return None
    return [name.rstrip(".").lower() for name in answer.records]


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").split("%", 1)[0])
    except ValueError:
        return None
