"""Puts services and backends together from Settings: the one place that knows both.

What is made here is closed in the reverse order when the process ends. A backend's module is loaded when a
setting asks for it, so that a pod carries no library that it does not use.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gatepost.backends.content_log import ContentLog
from gatepost.backends.events_log import EventsLog
from gatepost.cli.log_instance import check_instance
from gatepost.core.endpoints import parse_endpoint
from gatepost.core.envelope import Destination
from gatepost.core.hosts import HostError, parse_host
from gatepost.core.manifest.quantities import size_bytes
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import DirectorySettings, Settings
from gatepost.core.ports.call_ahead import CallAhead
from gatepost.core.ports.configuration import ConfigurationSource
from gatepost.core.ports.directory import Directory, DirectoryUnavailable
from gatepost.core.ports.log import Log, LogMisconfigured, LogUnavailable, TopicSpec
from gatepost.core.ports.resolver import Resolver
from gatepost.core.ports.scanner import Scanners
from gatepost.core.ports.store import Store
from gatepost.core.ports.transport import HostPort
from gatepost.core.rights import rights_of
from gatepost.core.tables import Tables
from gatepost.core.topics import Topics
from gatepost.edge.server import EdgeServer
from gatepost.mailbox.service import MailboxDependencies, MailboxService
from gatepost.relay.retry_reader import RetryReader
from gatepost.relay.service import RelayDependencies, RelayService
from gatepost.relay.targets import NoTarget, find_targets
from gatepost.router.dependencies import RouterDependencies
from gatepost.router.near import NearStores
from gatepost.router.service import Router
from gatepost.telemetry import metrics
from gatepost.telemetry.health import Route
from gatepost.telemetry.tracing import Tracer
from gatepost.work.content_trimming import ContentTrimmer
from gatepost.work.quarantine import Quarantine
from gatepost.work.trimming import Trimmer

LOG_RETRY_S: Final = 2.0
PASSWORDLESS: Final = ("router", "mailbox")  # who look people up, but check no passwords

_log = structlog.get_logger()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def own_names(settings: Settings) -> frozenset[str]:
    """Names and addresses besides the host name by which MX records mean us: the settings', and the listeners'."""
    found = set()
    for text in settings.relay.own_names:
        with contextlib.suppress(HostError):
            found.add(parse_host(f"[{text.strip('[]')}]").host)
    for listener in settings.listeners:
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(parse_endpoint(listener.address)[0])
            if not (address.is_unspecified or address.is_loopback):
                found.add(str(address))
    return frozenset(found)


class Assembly:
    """Everything of one process. Use as an async context manager; parts are started when they are asked for."""

    def __init__(self, settings: Settings, base: Path, service: str) -> None:
        """`base` is the folder that relative paths of the settings start from; `service` names the process."""
        self.settings, self.base, self.service = settings, base, service
        self.state = Path(settings.state)
        self.topics = Topics(settings.log.topic_prefix)
        self._stack = AsyncExitStack()
        self.log_ready = asyncio.Event()
        self.tracer = Tracer(
            service,
            endpoint=settings.telemetry.otlp_endpoint,
            sampling=settings.telemetry.trace_sampling,
        )
        self.log: Log = self._make_log()
        spool_above = size_bytes(settings.limits.spool_above)
        self.content = ContentLog(self.log, self.topics.content_transit, spool_above=spool_above, folder=self.state)
        kept = ContentLog(self.log, self.topics.content_kept, spool_above=spool_above, folder=self.state)
        self.quarantine = Quarantine(self.topics, self.content, kept)
        self.events = EventsLog(self.log, self.topics.events, share=settings.telemetry.event_sampling)
        self.directories: dict[str, Directory] = {}
        self._maildirs: dict[str, Store] = {}
        self.admin_routes: list[Route] = []
        self.store_name = ""  # of a mailbox process
        self.configuration: ConfigurationSource | None = None

    async def __aenter__(self) -> Assembly:
        self.state.mkdir(parents=True, exist_ok=True)
        metrics.LOG_AVAILABLE.read = lambda: {(): float(self.log.available)}
        self._stack.callback(self.tracer.close)
        self._stack.push_async_callback(self.log.close)
        await self.events.start()
        self._stack.push_async_callback(self.events.close)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def _make_log(self) -> Log:
        log = self.settings.log
        if log.kafka is not None:
            from gatepost.backends.log_kafka import KafkaLog

            return KafkaLog(log.kafka, client_id=f"gatepost-{self.service}-{os.getpid()}")
        from gatepost.backends.log_sqlite import SqliteLog

        assert log.sqlite is not None
        return SqliteLog(self.state / log.sqlite.file)

    @property
    def mailbox_routes(self) -> bool:
        """Whether this is a mailbox process whose store says that it routes as well."""
        store = self.settings.stores.get(self.store_name) if self.service == "mailbox" else None
        return store is not None and store.maildir is not None and store.maildir.routes

    @property
    def services(self) -> tuple[str, ...]:
        """The services whose work this process does, with all their rights."""
        return (self.service, "router") if self.mailbox_routes else (self.service,)

    def topic_specs(self) -> Sequence[TopicSpec]:
        return self.topics.specs(tuple(self.settings.stores), self.settings.log.partitions)

    async def connect_log(self, *, wait: bool) -> None:
        """Start the log and check its topics; with `wait` however long it is away. Raises LogMisconfigured."""
        while True:
            try:
                await self.log.start()
                check_instance(self.state, self.settings.log, await self.log.instance_id())
                await self._check_rights()
                for warning in await self.log.ensure_topics(self.topic_specs()):
                    _log.warning("log.warning", reason=warning)
                await self._check_rights()  # topics that were just made as well
            except LogUnavailable as error:
                if not wait:
                    raise
                _log.warning("log.waits", reason=str(error))
            else:
                self.log_ready.set()
                return
            await asyncio.sleep(LOG_RETRY_S)

    async def _check_rights(self) -> None:
        if self.settings.log.kafka is None:
            return
        from gatepost.backends.log_kafka import KafkaLog

        assert isinstance(self.log, KafkaLog)
        stores = tuple(self.settings.stores)
        needed = {
            right for name in self.services for right in rights_of(name, self.topics, stores, self.store_name)
        }
        missing = await self.log.missing_rights(sorted(needed))
        if missing:
            raise LogMisconfigured(
                f"the {self.service}'s principal lacks {', '.join(map(str, missing))} "
                "(docs/operations.md has what each service needs)"
            )

    async def start_directories(self) -> None:
        """Start all directories; one that is away does not stop the process, its questions get 4xx."""
        for name, directory in self.settings.directories.items():
            made = self._directory(directory)
            try:
                await made.start()
            except DirectoryUnavailable as error:
                _log.warning("directory.waits", directory=name, reason=str(error))
            self._stack.push_async_callback(made.close)
            self.directories[name] = made

    def _directory(self, directory: DirectorySettings) -> Directory:
        if directory.password_program is not None and self.service not in PASSWORDLESS:
            from gatepost.backends.password_program import ProgramDirectory

            inner = self._directory(msgspec.structs.replace(directory, password_program=None))
            return ProgramDirectory(inner, directory.password_program)
        if directory.ldap is not None:
            from gatepost.backends.directory_ldap import LdapDirectory

            return LdapDirectory(directory.ldap)
        from gatepost.backends.directory_ldif import LdifDirectory

        assert directory.ldif is not None
        return LdifDirectory(directory.ldif, self.base)

    async def resolver(self) -> Resolver:
        """A started resolver. Raises ManifestError when the settings' servers are none."""
        from gatepost.backends.resolver_dns import DnsResolver

        try:
            resolver = DnsResolver(self.settings.dns)
        except ValueError as error:
            raise ManifestError("the settings", "dns.servers", str(error)) from None
        await resolver.start()
        self._stack.push_async_callback(resolver.close)
        return resolver

    async def call_ahead(self) -> CallAhead:
        """Asks next hosts for recipients, found as the relay finds them."""
        from gatepost.backends.call_ahead import SmtpCallAhead

        resolver, settings = await self.resolver(), self.settings
        port, own = settings.relay.smtp_port, own_names(settings)

        async def find(hop: str) -> Sequence[HostPort]:
            try:
                return await find_targets(resolver, Destination(hosts=(hop,)), settings.hostname, port, own)
            except NoTarget as nowhere:
                _log.warning("call_ahead.no_host", host=hop, reason=str(nowhere))
                return ()

        asking = SmtpCallAhead(find, settings.hostname)
        self._stack.push_async_callback(asking.close)
        return asking

    async def edge(self) -> EdgeServer:
        from gatepost.backends.access_file import AccessFiles
        from gatepost.backends.ban_requests import BanRequests
        from gatepost.backends.state_log import LogState
        from gatepost.core.state_kinds import KINDS
        from gatepost.edge.dependencies import EdgeDependencies

        state = LogState(self.log, self.topics.state, KINDS, now_ms)
        await state.start()
        self._stack.push_async_callback(state.close)
        if self.settings.log.sqlite is not None:  # its owner writes for `gatepost bans` as well
            requests = BanRequests(self.state, state, self.events, now_ms)
            await requests.start()
            self._stack.push_async_callback(requests.close)
        if self.settings.admin.pop_before_smtp_token_file:
            from gatepost.backends.pop_logins import PopLogins

            token = self.base / self.settings.admin.pop_before_smtp_token_file
            self.admin_routes += PopLogins(state, token, now_ms).routes
        access = AccessFiles(self.base)
        await access.start()
        self._stack.push_async_callback(access.close)
        return EdgeServer(
            EdgeDependencies(
                log=self.log,
                content=self.content,
                state=state,
                directories=self.directories,
                resolver=await self.resolver(),
                events=self.events,
                tracer=self.tracer,
                topics=self.topics,
                settings=self.settings,
                now_ms=now_ms,
                access=access,
                call_ahead=await self.call_ahead(),
                scanners=self.scanners(),
            )
        )

    def scanners(self) -> Scanners:
        """Spam and virus scanners; nothing is connected before a policy asks for it."""
        from gatepost.backends.scanners import RealScanners

        scanners = RealScanners()
        self._stack.push_async_callback(scanners.close)
        return scanners

    async def router(self, *, near: bool = False) -> Router:
        """With `near`, copies for the Maildir stores that were opened before go straight into them."""
        stores = {host.lower(): name for name, store in self.settings.stores.items() for host in store.mail_hosts}
        return Router(
            RouterDependencies(
                log=self.log,
                content=self.content,
                quarantine=self.quarantine,
                directories=self.directories,
                resolver=await self.resolver(),
                events=self.events,
                tracer=self.tracer,
                topics=self.topics,
                hostname=self.settings.hostname,
                stores=stores,
                now_ms=now_ms,
                near=NearStores(self._maildirs, time.monotonic) if near else None,
            )
        )

    async def relay(self) -> tuple[RelayService, RetryReader]:
        from gatepost.backends.smtp_client import SmtpTransport

        transport = SmtpTransport(self.settings.relay)
        self._stack.push_async_callback(transport.close)
        service = RelayService(
            RelayDependencies(
                log=self.log,
                content=self.content,
                quarantine=self.quarantine,
                resolver=await self.resolver(),
                transport=transport,
                events=self.events,
                tracer=self.tracer,
                topics=self.topics,
                hostname=self.settings.hostname,
                smtp_port=self.settings.relay.smtp_port,
                concurrent_per_site=self.settings.relay.connections_per_site,
                now_ms=now_ms,
                own=own_names(self.settings),
            )
        )
        return service, RetryReader(self.log, self.topics, self.quarantine, now_ms)

    async def mailbox(self, name: str) -> MailboxService:
        """The service of one store. Raises OSError when the store is not usable or owned by another process."""
        self.store_name = name
        store = self._store(name)
        await store.start()
        self._stack.push_async_callback(store.close)
        if self.settings.stores[name].maildir is not None:
            self._maildirs[name] = store
        return MailboxService(
            MailboxDependencies(
                log=self.log,
                content=self.content,
                quarantine=self.quarantine,
                store=store,
                store_name=name,
                events=self.events,
                tracer=self.tracer,
                topics=self.topics,
                hostname=self.settings.hostname,
                now_ms=now_ms,
                together=self.settings.stores[name].maildir is not None,
            )
        )

    def _store(self, name: str) -> Store:
        settings = self.settings.stores[name]
        if settings.maildir is not None:
            from gatepost.backends.store_maildir import MaildirStore

            return MaildirStore(settings.maildir, self.state, self.settings.hostname)
        from gatepost.backends.store_lmtp import LmtpStore

        assert settings.lmtp is not None
        return LmtpStore(settings.lmtp, self.settings.hostname)

    def trimmer(self, *work: tuple[str, str]) -> Trimmer:
        """Trims these (topic, group) pairs. The embedded log does this by itself."""
        return Trimmer(self.log, work)

    def content_trimmer(self, ours: Callable[[], bool]) -> ContentTrimmer:
        """Trims bodies that nothing refers to any more, while `ours` says that this process is the one to do it."""
        return ContentTrimmer(self.log, self.topics, tuple(self.settings.stores), ours, now_ms)

    async def configure(self, source: ConfigurationSource, use: Sequence[Callable[[Tables], None]]) -> None:
        """Start a source and give its tables to the services, now and at each change."""
        self.configuration = source

        def apply(configuration: object) -> None:
            tables = Tables(source.current) if source.current is not None else None
            if tables is not None:
                for each in use:
                    each(tables)

        source.on_change(apply)
        await source.start()
        self._stack.push_async_callback(source.close)

    def not_configured(self) -> str | None:
        """A readiness check."""
        loaded = self.configuration is not None and self.configuration.current is not None
        return None if loaded else "no configuration has been loaded yet"
