"""core.ports.directory.Directory on LDAP servers."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog
from ldap3.core.exceptions import LDAPException
from ldap3.operation.search import parse_filter

from gatepost.backends.directory_cache import DirectoryCache
from gatepost.backends.directory_entry import EntryMap, MappedEntry, parse_dn, prefer, split_dn
from gatepost.backends.directory_groups import expand_group
from gatepost.backends.directory_ldap.filters import by_addresses, by_login, by_rdns, in_parentheses
from gatepost.backends.directory_ldap.link import Link, Opener, RawEntry, Search, reason_of
from gatepost.backends.directory_ldap.links import Lending
from gatepost.backends.directory_ldap.replicas import LOOPBACK, Replicas
from gatepost.core.address import Address, AddressError, parse_address
from gatepost.core.manifest.quantities import seconds
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import LdapSettings
from gatepost.core.ports.directory import Account, DirectoryUnavailable, Entry, EntryKind, Login, LoginVerdict

# Addresses, or members, that share one search: enough to empty a queue, small enough for every server.
MAX_BATCH: Final = 50

_REFUSED: Final = Login(LoginVerdict.REFUSED)

_log = structlog.get_logger("gatepost.directory")


class LdapDirectory:
    """Lookups that come while all connections are in use join one search, so that load makes searches larger
    instead of slower. Answers are kept (directory_cache); logins never are."""

    def __init__(self, settings: LdapSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ManifestError for urls or a filter that cannot be used."""
        self._settings = settings
        self._map = EntryMap(settings.attributes)
        self._limit = seconds(settings.timeout)
        self._base = parse_dn(settings.base)
        self._replicas = Replicas(settings.urls, clock)
        _check_filter(settings.filter)
        times = (seconds(settings.cache_positive), seconds(settings.cache_negative), seconds(settings.cache_stale))
        self._entries: DirectoryCache[str, Entry] = DirectoryCache(*times, clock)
        self._groups: DirectoryCache[str, tuple[Entry, ...]] = DirectoryCache(*times, clock)
        self._links: Lending[Link] | None = None
        self._binds: Lending[Opener] | None = None
        self._waiting: dict[str, asyncio.Future[Entry | None]] = {}
        self._batches: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Prepare; nothing is connected yet, so that a directory that is away does not stop the process.

        Raises ManifestError for CA or password files that cannot be read.
        """
        settings = self._settings
        context = await asyncio.to_thread(_context, settings.ca_file)
        if settings.bind_password_file and not await asyncio.to_thread(Path(settings.bind_password_file).is_file):
            raise ManifestError(
                "the LDAP directory", "bindPasswordFile", f"{settings.bind_password_file} is no file"
            )
        for replica in self._replicas.all:
            if not (replica.encrypted or settings.start_tls or replica.host in LOOPBACK):
                _log.warning("directory_unencrypted", url=replica.url, advice="use ldaps:// or startTls")
        opener = Opener(settings, context)
        links = [Link(opener, self._replicas) for _ in range(settings.connections)]
        self._links = Lending("ldap", links, self._limit)
        self._binds = Lending("ldap-bind", [opener] * settings.connections, self._limit)

    async def close(self) -> None:
        await self._entries.close()
        await self._groups.close()
        while self._batches:
            tasks = set(self._batches)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if self._links is not None and self._binds is not None:
            self._links.close(Link.close)
            self._binds.close(lambda _: None)
        self._links = self._binds = None

    async def lookup(self, address: Address) -> Entry | None:
        key = address.key
        if not _is_utf8(key):
            return None
        return await self._entries.get(key, lambda: self._look_up(key))

    async def expand(self, group: Entry) -> Sequence[Entry]:
        """As the port says; every search has the time limit of its own."""

        async def ask() -> tuple[Entry, ...]:
            return await expand_group(group, self._by_dns)

        return await self._groups.get(group.reference, ask) or ()

    async def authenticate(self, login: str, password: str) -> Login:
        # RFC 4513 5.1.2: an empty password must not even reach a server.
        if not login or not password or not _is_utf8(login):
            return _REFUSED
        try:
            async with asyncio.timeout(self._limit):
                account, _ = await self._account(login)
                if account is None or not await self._bind(account.entry.reference, password):
                    return _REFUSED
        except TimeoutError:
            raise DirectoryUnavailable(f"no answer within {self._limit} s") from None
        if not account.entry.enabled:
            return Login(LoginVerdict.ACCOUNT_DISABLED)
        if not account.entry.login_enabled:
            return Login(LoginVerdict.LOGIN_DISABLED)
        return Login(LoginVerdict.ACCEPTED, account.entry)

    async def account(self, login: str) -> Account | None:
        if not login or not _is_utf8(login):
            return None
        try:
            async with asyncio.timeout(self._limit):
                found, raw = await self._account(login, self._map.secrets)
        except TimeoutError:
            raise DirectoryUnavailable(f"no answer within {self._limit} s") from None
        return None if found is None or raw is None else self._map.account(found.entry, raw.attributes)

    # --- addresses ---

    async def _look_up(self, key: str) -> Entry | None:
        """Join the next search. Raises DirectoryUnavailable."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        if len(self._batches) < self._settings.connections:
            self._batches.add(asyncio.create_task(self._search_batches(), name="ldap-batches"))
        try:
            async with asyncio.timeout(self._limit):
                found: Entry | None = await future
                return found
        except TimeoutError:
            raise DirectoryUnavailable(f"no answer within {self._limit} s") from None
        finally:
            if self._waiting.get(key) is future:
                del self._waiting[key]

    async def _search_batches(self) -> None:
        """Search until nobody waits; at most as many of these run as there are connections."""
        try:
            while self._waiting:
                keys = list(itertools.islice(self._waiting, MAX_BATCH))
                futures = {key: self._waiting.pop(key) for key in keys}
                await self._search_batch(futures)
        finally:
            # Here and not by a callback, which would come after somebody has seen this task and relied on it.
            task = asyncio.current_task()
            if task is not None:
                self._batches.discard(task)

    async def _search_batch(self, futures: dict[str, asyncio.Future[Entry | None]]) -> None:
        try:
            found = await self._by_addresses(list(futures))
        except Exception as error:
            if not isinstance(error, DirectoryUnavailable):
                _log.exception("directory_fault")
            for future in futures.values():
                if not future.done():
                    future.set_exception(DirectoryUnavailable(str(error)))
            return
        for key, future in futures.items():
            if not future.done():
                future.set_result(found.get(key))

    async def _by_addresses(self, keys: Sequence[str]) -> dict[str, Entry]:
        text = by_addresses(self._settings.filter, self._settings.attributes, keys)
        mapped = await self._search(Search(self._settings.base, True, text, self._wanted(members=False)))
        answers: dict[str, Entry] = {}
        for key in keys:
            # Servers compare with more tolerance than mail does; what counts is compared here again.
            claimants = [item for item in mapped if key in item.entry.addresses]
            if len(claimants) > 1:
                references = [item.entry.reference for item in claimants]
                _log.warning("address_claimed_twice", address=key, by=references)
            best = prefer(claimants)
            if best is not None:
                answers[key] = best.entry
        return answers

    # --- logins ---

    async def _account(
        self, login: str, more: Sequence[str] = ()
    ) -> tuple[MappedEntry, RawEntry] | tuple[None, None]:
        """Find the account by its name, else by one of its own addresses; `more` are attributes to ask for."""
        try:
            key = parse_address(login).key
        except AddressError:
            key = ""
        text = by_login(self._settings.filter, self._settings.attributes, login, key)
        wanted = (*self._wanted(members=False), *more)
        raw = {one.dn: one for one in await self._raw(Search(self._settings.base, True, text, wanted))}
        found = [self._map.read(one.dn, one.attributes) for one in raw.values()]
        accounts = [item for item in found if item.entry.kind is EntryKind.ACCOUNT]
        best = prefer(item for item in accounts if item.has_name(login)) or prefer(
            item for item in accounts if key and key in item.entry.addresses
        )
        return (None, None) if best is None else (best, raw[best.entry.reference])

    async def _bind(self, dn: str, password: str) -> bool:
        if self._binds is None:
            raise DirectoryUnavailable("the directory is not started")
        share = self._limit / len(self._replicas.all)

        def bind(opener: Opener) -> bool:
            reason = ""
            for replica in self._replicas.in_order():
                try:
                    accepted = opener.accepts(replica, share, dn, password)
                except Exception as error:
                    reason = reason_of(error)
                    self._replicas.failed(replica, reason)
                else:
                    self._replicas.worked(replica)
                    return accepted
            raise DirectoryUnavailable(reason)

        return await self._binds.run(bind)

    # --- members ---

    async def _by_dns(self, dns: Sequence[str]) -> list[MappedEntry]:
        """The entries of these DNs, as far as they exist below the base: many in one search by their RDNs."""
        children: dict[str, list[str]] = {}
        for dn in dns:
            split = split_dn(dn)
            if split is not None and self._is_below_base(dn):
                children.setdefault(split[1], []).append(dn)
        found: list[MappedEntry] = []
        for parent, members in children.items():
            for begin in range(0, len(members), MAX_BATCH):
                found += await self._children(parent, members[begin : begin + MAX_BATCH])
        return found

    def _is_below_base(self, dn: str) -> bool:
        parsed = parse_dn(dn)
        return len(parsed) > len(self._base) and parsed[len(parsed) - len(self._base) :] == self._base

    async def _children(self, parent: str, dns: Sequence[str]) -> list[MappedEntry]:
        rdns = [split[0] for dn in dns if (split := split_dn(dn)) is not None]
        text = by_rdns(self._settings.filter, rdns)
        mapped = await self._search(Search(parent, False, text, self._wanted(members=True)))
        wanted = set(map(parse_dn, dns))
        return [item for item in mapped if parse_dn(item.entry.reference) in wanted]

    # --- parts ---

    async def _search(self, search: Search) -> list[MappedEntry]:
        return [self._map.read(raw.dn, raw.attributes) for raw in await self._raw(search)]

    async def _raw(self, search: Search) -> list[RawEntry]:
        if self._links is None:
            raise DirectoryUnavailable("the directory is not started")
        return await self._links.run(lambda link: link.search(search, self._limit))

    def _wanted(self, *, members: bool) -> tuple[str, ...]:
        return tuple(self._map.wanted(members=members))


def _is_utf8(text: str) -> bool:
    """Whether a server can be asked for it (RFC 4511 4.1.2); half a surrogate pair would spoil a whole batch."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError):
        raise ManifestError("the LDAP directory", "caFile", f"{ca_file} has no CA certificates in PEM") from None


def _check_filter(text: str) -> None:
    try:
        parse_filter(in_parentheses(text), None, False, None, None, False)
    except LDAPException:
        raise ManifestError("the LDAP directory", "filter", f"{text!r} is no search filter (RFC 4515)") from None
