"""A directory in an LDIF file: for one machine, for tests, and wherever accounts come from a ConfigMap.

The file is read again when it changes. One that cannot be read is reported and the old content stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gatepost.backends.directory_entry import (
    Dn,
    EntryMap,
    MappedEntry,
    parse_dn,
    prefer,
)
from gatepost.backends.directory_groups import expand_group
from gatepost.backends.ldif_records import MAX_LDIF_BYTES, LdifError, read_ldif
from gatepost.core.address import Address, AddressError, parse_address
from gatepost.core.manifest.settings import LdifSettings
from gatepost.core.password import check_password, is_checkable, is_costly
from gatepost.core.ports.directory import (
    Account,
    DirectoryUnavailable,
    Entry,
    EntryKind,
    Login,
    LoginVerdict,
)
from gatepost.telemetry.lasting import lasting

# How soon a change is seen; a stat costs microseconds.
POLL_SECONDS: Final = 1.0

_log = structlog.get_logger("gatepost.directory")

_Stamp = tuple[int, int, int, int]


class _Content(msgspec.Struct, frozen=True):
    """One reading of the file, indexed; replaced as a whole."""

    by_address: dict[str, Entry]
    by_dn: dict[Dn, MappedEntry]
    by_name: dict[str, MappedEntry]
    passwords: dict[str, tuple[str, ...]]  # by reference
    accounts: dict[str, Account]  # by reference
    sample_password: str


class LdifDirectory:
    """core.ports.directory.Directory over a file. `base` is the folder that settings.file is relative to."""

    def __init__(self, settings: LdifSettings, base: Path) -> None:
        self._path = base / settings.file
        self._map = EntryMap(settings.attributes)
        self._content: _Content | None = None
        self._stamp: _Stamp | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the file and begin to watch it. Raises LdifError (a ManifestError) when it cannot be used."""
        self._stamp, self._content = await asyncio.to_thread(self._read)
        self._watcher = lasting("ldif-watch", self._watch)

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None

    async def lookup(self, address: Address) -> Entry | None:
        return self._current().by_address.get(address.key)

    async def expand(self, group: Entry) -> Sequence[Entry]:
        """As the port says. Raises DirectoryUnavailable for a group beyond the limits of directory_groups."""
        content = self._current()

        async def fetch(dns: Sequence[str]) -> list[MappedEntry]:
            parsed = map(parse_dn, dns)
            return [content.by_dn[dn] for dn in parsed if dn in content.by_dn]

        return await expand_group(group, fetch)

    async def authenticate(self, login: str, password: str) -> Login:
        if not password:
            return Login(LoginVerdict.REFUSED)
        content = self._current()
        account = _account(content, login)
        # An unknown login costs the same time as a known one, so that guessing names learns nothing.
        stored = content.passwords.get(account.entry.reference, ()) if account else (content.sample_password,)
        if not await _any_fits(stored, password) or account is None:
            return Login(LoginVerdict.REFUSED)
        if not account.entry.enabled:
            return Login(LoginVerdict.ACCOUNT_DISABLED)
        if not account.entry.login_enabled:
            return Login(LoginVerdict.LOGIN_DISABLED)
        return Login(LoginVerdict.ACCEPTED, account.entry)

    async def account(self, login: str) -> Account | None:
        content = self._current()
        found = _account(content, login)
        return None if found is None else content.accounts[found.entry.reference]

    def _current(self) -> _Content:
        if self._content is None:
            raise DirectoryUnavailable(f"{self._path} has not been read")
        return self._content

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                stamp = await asyncio.to_thread(_stamp, self._path)
                if stamp == self._stamp:
                    continue
                # Noted before the reading, so that a bad file is reported once.
                self._stamp = stamp
                self._stamp, content = await asyncio.to_thread(self._read)
                self._content = content
                _log.info("ldif_read", file=str(self._path), entries=len(content.by_dn))
            except (LdifError, OSError) as error:
                _log.error("ldif_unusable", file=str(self._path), reason=str(error), kept="the content read before")

    def _read(self) -> tuple[_Stamp, _Content]:
        """Read the file with the stamp from before, so that a change meanwhile is seen at the next look."""
        try:
            stamp = _stamp(self._path)
            with self._path.open("rb") as stream:
                data = stream.read(MAX_LDIF_BYTES + 1)
        except OSError as error:
            raise LdifError(str(self._path), 0, f"cannot be read: {error.strerror}") from None
        return stamp, self._index(data)

    def _index(self, data: bytes) -> _Content:
        by_dn: dict[Dn, MappedEntry] = {}
        claims: dict[str, list[MappedEntry]] = {}
        names: dict[str, list[MappedEntry]] = {}
        passwords: dict[str, tuple[str, ...]] = {}
        accounts: dict[str, Account] = {}
        for raw in read_ldif(data, str(self._path)):
            mapped = self._map.read(raw.dn, raw.attributes)
            by_dn[parse_dn(raw.dn)] = mapped
            for key in mapped.entry.addresses:
                claims.setdefault(key, []).append(mapped)
            if mapped.entry.kind is EntryKind.ACCOUNT:
                accounts[raw.dn] = self._map.account(mapped.entry, raw.attributes, "userPassword")
                for name in mapped.names:
                    names.setdefault(name.lower(), []).append(mapped)
            passwords[raw.dn] = tuple(
                value
                for value in (*raw.attributes.get("userpassword", ()), *_verifiers(accounts.get(raw.dn)))
                if is_checkable(value)
            )
        for key, claimants in claims.items():
            if len(claimants) > 1:
                _log.warning("address_claimed_twice", address=key, by=[item.entry.reference for item in claimants])
        return _Content(
            by_address={key: best.entry for key, items in claims.items() if (best := prefer(items))},
            by_dn=by_dn,
            by_name={name: best for name, items in names.items() if (best := prefer(items))},
            passwords=passwords,
            accounts=accounts,
            sample_password=next((value for values in passwords.values() for value in values), ""),
        )


def _account(content: _Content, login: str) -> MappedEntry | None:
    """Find the account by one of its names, else by one of its own addresses."""
    named = content.by_name.get(login.lower())
    if named is not None:
        return named
    try:
        entry = content.by_address.get(parse_address(login).key)
    except AddressError:
        return None
    found = content.by_dn[parse_dn(entry.reference)] if entry else None
    return found if found and found.entry.kind is EntryKind.ACCOUNT else None


def _verifiers(account: Account | None) -> Sequence[str]:
    return () if account is None else account.verifiers


async def _any_fits(stored: Sequence[str], password: str) -> bool:
    def check() -> bool:
        return any(check_password(value, password) for value in stored)

    if any(is_costly(value) for value in stored):
        return await asyncio.to_thread(check)
    return check()


def _stamp(path: Path) -> _Stamp:
    """What changes with a file's content; a ConfigMap's link leads to another inode."""
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
