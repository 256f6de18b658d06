"""LDAP's own: servers that are away, hang or restart; encryption; batches; nothing kept of a login."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gatepost.backends.directory_ldap import LdapDirectory
from gatepost.backends.directory_ldap.directory import MAX_BATCH
from gatepost.backends.directory_ldap.link import Link, Search
from gatepost.core.address import parse_address
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import LdapSettings
from gatepost.core.ports.directory import DirectoryUnavailable, Entry, LoginVerdict
from testbed.slapd import Slapd

pytestmark = pytest.mark.servers

SettingsFor = Callable[..., LdapSettings]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def own_slapd(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """A server that a test may hurt."""
    with Slapd(tmp_path_factory.mktemp("own-slapd"), tree) as server:
        yield server


@asynccontextmanager
async def opened(settings: LdapSettings, clock: Clock | None = None) -> AsyncIterator[LdapDirectory]:
    directory = LdapDirectory(settings, clock) if clock else LdapDirectory(settings)
    await directory.start()
    try:
        yield directory
    finally:
        # Also while a server hangs, closing takes no time.
        async with asyncio.timeout(10):
            await directory.close()


async def find(directory: LdapDirectory, name: str) -> Entry | None:
    return await directory.lookup(parse_address(f"{name}@example.test"))


async def test_a_server_that_is_away_and_comes_back(own_slapd: Slapd, ldap_settings: SettingsFor) -> None:
    own_slapd.server.stop()
    async with opened(ldap_settings(own_slapd)) as directory:
        with pytest.raises(DirectoryUnavailable):
            await find(directory, "alice")
        with pytest.raises(DirectoryUnavailable):
            await directory.authenticate("alice", "pw-alice")
        own_slapd.server.start()
        assert await find(directory, "alice") is not None
        assert (await directory.authenticate("alice", "pw-alice")).verdict is LoginVerdict.ACCEPTED


async def test_a_server_that_was_restarted_is_met_again_without_an_error(
    own_slapd: Slapd, ldap_settings: SettingsFor
) -> None:
    async with opened(ldap_settings(own_slapd)) as directory:
        await asyncio.gather(*(find(directory, f"x{number}") for number in range(20)))
        own_slapd.server.restart()
        assert await find(directory, "alice") is not None


@pytest.mark.parametrize("encrypted", [True, False], ids=["ldaps", "ldap"])
async def test_a_server_that_hangs(own_slapd: Slapd, ldap_settings: SettingsFor, encrypted: bool) -> None:
    clock = Clock()
    url = own_slapd.tls_url if encrypted else own_slapd.url
    async with opened(ldap_settings(own_slapd, urls=(url,), timeout="2s"), clock) as directory:
        alice = await find(directory, "alice")
        sales = await find(directory, "sales")
        assert sales is not None
        members = await directory.expand(sales)
        assert await find(directory, "nobody") is None
        own_slapd.server.suspend()
        # Fresh answers need no server.
        assert await find(directory, "alice") == alice
        clock.now += 61
        # Far longer than the limit, far shorter than without one.
        async with asyncio.timeout(15):
            answers = await asyncio.gather(
                find(directory, "alice"),
                directory.expand(sales),
                find(directory, "nobody"),
                *(find(directory, f"new{number}") for number in range(100)),
                directory.authenticate("alice", "pw-alice"),
                return_exceptions=True,
            )
        assert answers[:2] == [alice, members]
        assert {type(answer) for answer in answers[2:]} == {DirectoryUnavailable}
        # A "yes" that is too old is of no use either.
        clock.now += 3600
        with pytest.raises(DirectoryUnavailable):
            await find(directory, "alice")
        own_slapd.server.resume()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await find(directory, "alice") == alice
                    break
                except DirectoryUnavailable:
                    await asyncio.sleep(0.05)
        assert (await directory.authenticate("alice", "pw-alice")).verdict is LoginVerdict.ACCEPTED
        assert await find(directory, "nobody") is None


async def test_a_replica_answers_when_the_first_server_does_not(
    slapd: Slapd, own_slapd: Slapd, ldap_settings: SettingsFor
) -> None:
    settings = ldap_settings(slapd, urls=(own_slapd.url, slapd.url), timeout="6s")
    own_slapd.server.suspend()
    async with opened(settings) as directory:
        assert await find(directory, "alice") is not None
        assert (await directory.authenticate("alice", "pw-alice")).verdict is LoginVerdict.ACCEPTED
    own_slapd.server.stop()
    async with opened(settings) as directory:
        assert await find(directory, "alice") is not None
        assert await find(directory, "nobody") is None


async def test_the_first_server_is_preferred_again(
    slapd: Slapd, own_slapd: Slapd, ldap_settings: SettingsFor
) -> None:
    person = "objectClass: inetOrgPerson\nuid: first\ncn: f\nsn: f\nmail: first@example.test\n"
    own_slapd.add_ldif(f"dn: uid=first,ou=people,dc=example,dc=test\n{person}")
    own_slapd.server.stop()
    clock = Clock()
    async with opened(ldap_settings(slapd, urls=(own_slapd.url, slapd.url)), clock) as directory:
        assert await find(directory, "first") is None
        own_slapd.server.start()
        clock.now += 60
        assert await find(directory, "first") is not None


@pytest.mark.parametrize("start_tls", [True, False], ids=["starttls", "ldaps"])
async def test_certificates_are_checked(
    slapd: Slapd, own_slapd: Slapd, ldap_settings: SettingsFor, start_tls: bool
) -> None:
    url = slapd.url if start_tls else slapd.tls_url
    trusting = ldap_settings(slapd, urls=(url,), start_tls=start_tls)
    async with opened(trusting) as directory:
        assert await find(directory, "alice") is not None
        assert (await directory.authenticate("alice", "pw-alice")).verdict is LoginVerdict.ACCEPTED
    for ca_file in (str(own_slapd.ca), ""):
        async with opened(ldap_settings(slapd, urls=(url,), start_tls=start_tls, ca_file=ca_file)) as directory:
            with pytest.raises(DirectoryUnavailable, match=r"(?i)certificate"):
                await find(directory, "alice")
            with pytest.raises(DirectoryUnavailable, match=r"(?i)certificate"):
                await directory.authenticate("alice", "pw-alice")


async def test_the_name_in_the_certificate_counts(
    slapd: Slapd, ldap_settings: SettingsFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    real = socket.getaddrinfo

    def resolve(host: str, *more: Any, **named: Any) -> Any:
        return real("127.0.0.1" if host == "ldap.other.test" else host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = f"ldaps://ldap.other.test:{slapd.tls_port}"
    async with opened(ldap_settings(slapd, urls=(url,))) as directory:
        with pytest.raises(DirectoryUnavailable, match=r"(?i)hostname mismatch"):
            await find(directory, "alice")


@pytest.mark.parametrize(
    "changes",
    [
        {"bind_dn": "cn=nobody,dc=example,dc=test"},
        {"bind_dn": "uid=alice,ou=people,dc=example,dc=test"},
        {"base": "dc=elsewhere,dc=test"},
        {"base": "ou=missing,dc=example,dc=test"},
        {"bind_password_file": ""},
    ],
)
async def test_a_set_up_that_is_wrong_is_never_no_such_user(
    slapd: Slapd, ldap_settings: SettingsFor, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(ldap_settings(slapd, **changes)) as directory:
        with pytest.raises(DirectoryUnavailable):
            await find(directory, "alice")
        with pytest.raises(DirectoryUnavailable):
            await directory.authenticate("alice", "pw-alice")
    assert slapd.service_password not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"urls": ()}, "urls"),
        ({"urls": ("http://x",)}, "urls"),
        ({"filter": "(objectClass="}, "filter"),
        ({"filter": "(a=b"}, "filter"),
        ({"ca_file": "/nonexistent"}, "caFile"),
        ({"ca_file": __file__}, "caFile"),
        ({"bind_password_file": "/nonexistent"}, "bindPasswordFile"),
    ],
)
async def test_settings_that_cannot_be_used_are_told(
    slapd: Slapd, ldap_settings: SettingsFor, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(ManifestError) as fault:
        async with opened(ldap_settings(slapd, **changes)):
            pass
    assert fault.value.field == field


async def test_a_new_service_password_is_used_without_a_restart(
    own_slapd: Slapd, ldap_settings: SettingsFor
) -> None:
    settings = ldap_settings(own_slapd)
    set_password = Path(settings.bind_password_file).write_text
    set_password("not yet")
    async with opened(settings) as directory:
        with pytest.raises(DirectoryUnavailable):
            await find(directory, "alice")
        set_password(own_slapd.service_password)
        assert await find(directory, "alice") is not None


async def test_the_filter_says_which_entries_count(slapd: Slapd, ldap_settings: SettingsFor) -> None:
    settings = ldap_settings(slapd, filter="(&(objectClass=inetOrgPerson)(!(uid=bob)))")
    async with opened(settings) as directory:
        assert await find(directory, "alice") is not None
        assert await find(directory, "sales") is None
        assert await find(directory, "bob") is None
        assert (await directory.authenticate("bob", "whatever")).verdict is LoginVerdict.REFUSED
    async with opened(ldap_settings(slapd, filter="(!(uid=bob))")) as directory:
        sales = await find(directory, "sales")
        assert sales is not None
        assert "bob" not in [member.name for member in await directory.expand(sales)]


async def test_nothing_of_a_login_is_kept(own_slapd: Slapd, ldap_settings: SettingsFor) -> None:
    alice = "dn: uid=alice,ou=people,dc=example,dc=test\nchangetype: modify\n"
    async with opened(ldap_settings(own_slapd)) as directory:
        assert await find(directory, "alice") is not None
        assert (await directory.authenticate("alice", "pw-alice")).verdict is LoginVerdict.ACCEPTED
        own_slapd.modify(f"{alice}replace: userPassword\nuserPassword: changed\n")
        assert (await directory.authenticate("alice", "pw-alice")).verdict is LoginVerdict.REFUSED
        assert (await directory.authenticate("alice", "changed")).verdict is LoginVerdict.ACCEPTED
        own_slapd.modify(f"{alice}replace: employeeType\nemployeeType: disabled\n")
        assert (await directory.authenticate("alice", "changed")).verdict is LoginVerdict.ACCOUNT_DISABLED


async def test_lookups_that_wait_for_a_connection_share_a_search(
    slapd: Slapd, ldap_settings: SettingsFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate = threading.Event(), threading.Event()
    sizes: list[int] = []
    real = Link.search

    def search(link: Link, search: Search, limit: float) -> Any:
        sizes.append(search.filter.count("(mail="))
        entered.set()
        assert gate.wait(20)
        return real(link, search, limit)

    monkeypatch.setattr(Link, "search", search)
    async with opened(ldap_settings(slapd, connections=1)) as directory:
        first = asyncio.create_task(find(directory, "bob"))
        await asyncio.to_thread(entered.wait, 20)
        names = ["alice", "carol", *(f"nobody{number}" for number in range(2 * MAX_BATCH))]
        rest = [asyncio.create_task(find(directory, name)) for name in names]
        again = [asyncio.create_task(find(directory, "alice")) for _ in range(10)]
        await asyncio.sleep(0)
        gate.set()
        answers = [entry and entry.name for entry in await asyncio.gather(first, *rest, *again)]
    assert answers == ["bob", "alice", "carol", *[None] * (2 * MAX_BATCH), *["alice"] * 10]
    assert sizes == [1, MAX_BATCH, MAX_BATCH, 2]


async def test_one_cancelled_lookup_does_not_stop_its_batch(slapd: Slapd, ldap_settings: SettingsFor) -> None:
    async with opened(ldap_settings(slapd, connections=1)) as directory:
        tasks = [asyncio.create_task(find(directory, name)) for name in ("bob", "alice", "carol", "dave")]
        await asyncio.sleep(0)
        tasks[1].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[1], asyncio.CancelledError)
        assert all(isinstance(answer, Entry) for place, answer in enumerate(answers) if place != 1)
