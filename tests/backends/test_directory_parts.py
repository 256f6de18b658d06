"""The parts of the directories: attributes, DNs, filters, groups, the cache, the list of servers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.backends.directory_cache import RECHECK_SECONDS, DirectoryCache
from gatepost.backends.directory_entry import EntryMap, MappedEntry, parse_dn, prefer, split_dn
from gatepost.backends.directory_groups import MAX_GROUP_DEPTH, MAX_GROUP_MEMBERS, expand_group
from gatepost.backends.directory_ldap.filters import by_addresses, by_login, by_rdns
from gatepost.backends.directory_ldap.link import Link, Search
from gatepost.backends.directory_ldap.replicas import FIRST_BACKOFF, MAX_BACKOFF, Replicas, parse_url
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import AttributeMap
from gatepost.core.ports.directory import DirectoryUnavailable, Entry, EntryKind


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- attributes ---


def test_active_directorys_way_of_writing_addresses() -> None:
    attributes = AttributeMap(
        name="sAMAccountName",
        addresses=("proxyAddresses", "mail"),
        address_prefix="smtp:",
        enabled="userAccountControl",
        disabled_values=("514", "66050"),
        group_classes=("group",),
    )
    raw = {
        "samaccountname": ["alice"],
        "proxyaddresses": [
            "smtp:second@example.test",
            "SMTP:First@Example.Test",
            "SIP:alice@example.test",
            "x500:/o=x",
        ],
        "mail": ["third@example.test"],
        "useraccountcontrol": ["512"],
        "objectclass": ["top", "person", "user"],
    }
    entry = EntryMap(attributes).read("CN=Alice,DC=x", raw).entry
    assert entry.address == "First@example.test"
    assert entry.addresses == ("first@example.test", "second@example.test", "third@example.test")
    assert entry.enabled
    assert not EntryMap(attributes).read("CN=Alice,DC=x", raw | {"useraccountcontrol": ["514"]}).entry.enabled
    assert EntryMap(attributes).read("CN=G,DC=x", raw | {"objectclass": ["GROUP"]}).entry.kind is EntryKind.GROUP


def test_what_cannot_be_read_is_left_out() -> None:
    attributes = AttributeMap(quota_bytes="q", quota_used_bytes="u")
    raw = {"mail": ["no address", "", "  a@b.test  ", "a@b..test"], "q": ["much"], "u": ["-1"]}
    entry = EntryMap(attributes).read("uid=x", raw).entry
    assert (entry.name, entry.address, entry.addresses) == ("a@b.test", "a@b.test", ("a@b.test",))
    assert (entry.quota_bytes, entry.quota_used_bytes, entry.over_quota) == (None, None, False)
    assert EntryMap(attributes).read("uid=x", {}).entry.name == ""


def test_only_the_attributes_that_are_mapped_are_asked_for() -> None:
    wanted = EntryMap(AttributeMap()).wanted(members=False)
    assert "" not in wanted
    assert "member" not in wanted
    assert "member" in EntryMap(AttributeMap()).wanted(members=True)
    assert len(wanted) == len(set(wanted))


def an_entry(dn: str, *members: str, group: bool = False, enabled: bool = True) -> MappedEntry:
    name = dn.partition(",")[0].partition("=")[2]
    address = f"{name}@example.test"
    kind = EntryKind.GROUP if group else EntryKind.ACCOUNT
    return MappedEntry(Entry(name, kind, address, (address,), enabled, reference=dn), (name,), members)


def test_of_two_claimants_the_enabled_one_then_the_first_counts() -> None:
    a, b, c = an_entry("uid=a,dc=x", enabled=False), an_entry("uid=b,dc=x"), an_entry("uid=c,dc=x")
    assert prefer([c, a, b]) is b
    assert prefer([a]) is a
    assert prefer([]) is None


# --- DNs ---


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("uid=a,dc=x", "UID = A , DC=X"),
        ("cn=Anna Smith\\, Jr.,dc=x", "cn=Anna Smith\\2C Jr.,dc=x"),
        ("cn=Anna Smith\\, Jr.,dc=x", 'cn="Anna Smith, Jr.",dc=x'),
        ('cn=\\#Hash \\"Quote\\",dc=x', "cn=\\23Hash \\22Quote\\22,dc=x"),
        ("cn=a+sn=b,dc=x", "sn=B+cn=A,dc=x"),
        ("cn=営業部,dc=x", "cn=\\E5\\96\\B6\\E6\\A5\\AD\\E9\\83\\A8,dc=x"),
        ("cn=two  spaces,dc=x", "cn=two spaces,dc=x"),
    ],
)
def test_equal_dns(one: str, other: str) -> None:
    assert parse_dn(one) == parse_dn(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("uid=a,dc=x", "uid=a,dc=y"),
        ("uid=a,dc=x", "cn=a,dc=x"),
        ("cn=a\\,dc=x", "cn=a,dc=x"),
        ("cn=a+sn=b,dc=x", "cn=a,sn=b,dc=x"),
        ("nonsense", "other nonsense"),
        ("uid=a,dc=x", "uid=a,dc=x,"),
    ],
)
def test_different_dns(one: str, other: str) -> None:
    assert parse_dn(one) != parse_dn(other)


def test_a_dn_is_split_into_rdn_and_parent() -> None:
    assert split_dn("cn=Anna Smith\\, Jr.,ou=p,dc=x") == ([("cn", "Anna Smith, Jr.")], "ou=p,dc=x")
    assert split_dn("cn=a+sn=b\\+c,dc=x") == ([("cn", "a"), ("sn", "b+c")], "dc=x")
    assert split_dn("dc=x") == ([("dc", "x")], "")
    assert split_dn("nonsense") is None


@given(st.text(max_size=60))
def test_any_text_is_some_dn(text: str) -> None:
    assert parse_dn(text) == parse_dn(text)
    split_dn(text)


# --- filters ---


def test_filters() -> None:
    attributes = AttributeMap(addresses=("mail",))
    assert by_addresses("objectClass=*", attributes, ["a@x.test"]) == "(&(objectClass=*)(mail=a@x.test))"
    assert (
        by_addresses("(a=b)", attributes, ["a@x.test", "b@x.test"]) == "(&(a=b)(|(mail=a@x.test)(mail=b@x.test)))"
    )
    assert by_addresses("(a=b)", attributes, ["a@xn--r8jz45g.test"]) == (
        "(&(a=b)(|(mail=a@xn--r8jz45g.test)(mail=a@例え.test)))"
    )
    assert by_addresses("(a=b)", AttributeMap(addresses=("p",), address_prefix="smtp:"), ["a b@x.test"]) == (
        '(&(a=b)(|(p=smtp:a b@x.test)(p=a b@x.test)(p=smtp:"a b"@x.test)(p="a b"@x.test)))'
    )
    assert by_login("(a=b)", attributes, "a*)(uid=*", "") == "(&(a=b)(uid=a\\2a\\29\\28uid=\\2a))"
    assert by_login("(a=b)", attributes, "x@y.test", "x@y.test") == "(&(a=b)(|(uid=x@y.test)(mail=x@y.test)))"
    assert by_rdns("(a=b)", [[("cn", "x")], [("cn", "y"), ("sn", "(z)")]]) == (
        "(&(a=b)(|(cn=x)(&(cn=y)(sn=\\28z\\29))))"
    )


@given(st.text(max_size=40))
def test_no_login_gets_out_of_its_place(login: str) -> None:
    text = by_login("(a=b)", AttributeMap(), login, "")
    assert text.startswith("(&(a=b)(uid=")
    value = text.removeprefix("(&(a=b)(uid=").removesuffix("))")
    assert not set(value) & set("()*\0")


# --- groups ---


async def expanded(*entries: MappedEntry) -> list[str]:
    by_dn = {parse_dn(item.entry.reference): item for item in entries}

    async def fetch(dns: Sequence[str]) -> list[MappedEntry]:
        return [by_dn[parse_dn(dn)] for dn in dns if parse_dn(dn) in by_dn]

    return [entry.name for entry in await expand_group(entries[0].entry, fetch)]


async def test_members_through_groups_each_once_by_name() -> None:
    top = an_entry("cn=top", "uid=z", "cn=inner", "uid=a", "UID=A", "uid=gone", group=True)
    inner = an_entry("cn=inner", "cn=top", "uid=z", "uid=b", group=True)
    assert await expanded(top, inner, an_entry("uid=z"), an_entry("uid=a"), an_entry("uid=b")) == ["a", "b", "z"]


async def test_a_group_that_is_too_deep_or_too_large_waits_for_somebody() -> None:
    deep = [an_entry(f"cn=g{level}", f"cn=g{level + 1}", group=True) for level in range(MAX_GROUP_DEPTH + 1)]
    with pytest.raises(DirectoryUnavailable, match="deep"):
        await expanded(*deep)
    assert await expanded(*deep[2:], an_entry(f"cn=g{MAX_GROUP_DEPTH + 1}")) == [f"g{MAX_GROUP_DEPTH + 1}"]
    with pytest.raises(DirectoryUnavailable, match="members"):
        await expanded(an_entry("cn=g", *(f"uid={number}" for number in range(MAX_GROUP_MEMBERS)), group=True))


# --- the cache ---


class Source:
    def __init__(self) -> None:
        self.answers: dict[str, str | None] = {}
        self.away = False
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None

    async def ask(self, key: str) -> str | None:
        self.asked.append(key)
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise DirectoryUnavailable("away")
        return self.answers.get(key)


class Cached:
    def __init__(self, positive: float = 60, negative: float = 10, stale: float = 3600) -> None:
        self.clock = Clock()
        self.source = Source()
        self.cache: DirectoryCache[str, str] = DirectoryCache(positive, negative, stale, self.clock)

    async def get(self, key: str) -> str | None:
        return await self.cache.get(key, lambda: self.source.ask(key))


async def test_a_yes_and_a_no_are_kept_for_their_times() -> None:
    cached = Cached()
    cached.source.answers["a"] = "A"
    assert [await cached.get("a"), await cached.get("b"), await cached.get("a"), await cached.get("b")] == [
        "A",
        None,
        "A",
        None,
    ]
    assert cached.source.asked == ["a", "b"]
    cached.clock.now += 11
    await cached.get("a")
    await cached.get("b")
    assert cached.source.asked == ["a", "b", "b"]
    cached.clock.now += 60
    cached.source.answers.clear()
    assert await cached.get("a") is None
    cached.source.answers["a"] = "new"
    assert await cached.get("a") is None
    cached.clock.now += 11
    assert await cached.get("a") == "new"


async def test_a_no_is_never_kept_for_more_than_30_seconds() -> None:
    cached = Cached(negative=10_000)
    assert await cached.get("a") is None
    cached.source.answers["a"] = "A"
    cached.clock.now += 30
    assert await cached.get("a") == "A"


async def test_while_the_directory_is_away_an_old_yes_is_used_and_an_old_no_is_not() -> None:
    cached = Cached()
    cached.source.answers["a"] = "A"
    await cached.get("a")
    await cached.get("b")
    cached.source.away = True
    cached.clock.now += 61
    assert await cached.get("a") == "A"
    for unknown in ("b", "c"):
        with pytest.raises(DirectoryUnavailable):
            await cached.get(unknown)
    # Used at once, without asking each time; and asked again after a while.
    asked = len(cached.source.asked)
    assert await cached.get("a") == "A"
    assert len(cached.source.asked) == asked
    cached.clock.now += RECHECK_SECONDS
    assert await cached.get("a") == "A"
    assert len(cached.source.asked) == asked + 1
    cached.clock.now += 3600
    with pytest.raises(DirectoryUnavailable):
        await cached.get("a")
    cached.source.away = False
    assert await cached.get("a") == "A"


async def test_a_deleted_account_is_not_revived_by_an_outage() -> None:
    cached = Cached()
    cached.source.answers["a"] = "A"
    await cached.get("a")
    cached.clock.now += 61
    cached.source.answers.clear()
    assert await cached.get("a") is None
    cached.source.away = True
    cached.clock.now += 11
    with pytest.raises(DirectoryUnavailable):
        await cached.get("a")


async def test_one_question_for_many_callers() -> None:
    cached = Cached()
    cached.source.answers["a"] = "A"
    cached.source.gate = asyncio.Event()
    callers = [asyncio.create_task(cached.get("a")) for _ in range(10)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.sleep(0)
    cached.source.gate.set()
    assert await asyncio.gather(*callers[1:]) == ["A"] * 9
    assert cached.source.asked == ["a"]


async def test_guessed_addresses_do_not_push_known_ones_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatepost.backends.directory_cache.MAX_NEGATIVE", 10)
    cached = Cached()
    cached.source.answers["a"] = "A"
    await cached.get("a")
    for number in range(100):
        await cached.get(f"guess{number}")
    cached.source.asked.clear()
    assert await cached.get("a") == "A"
    assert await cached.get("guess99") is None
    assert cached.source.asked == []
    await cached.get("guess0")
    assert cached.source.asked == ["guess0"]


# --- servers ---


def test_dead_servers_are_asked_last_for_a_while_that_grows() -> None:
    clock = Clock()
    replicas = Replicas(("ldap://one", "ldaps://two:1636", "ldap://three"), clock)
    one, two, three = replicas.all
    assert (two.host, two.port, two.encrypted) == ("two", 1636, True)
    assert replicas.in_order() == [one, two, three]
    replicas.failed(one, "x")
    assert replicas.in_order() == [two, three, one]
    clock.now += FIRST_BACKOFF
    assert replicas.in_order() == [one, two, three]
    for _ in range(10):
        replicas.failed(one, "x")
    clock.now += MAX_BACKOFF - 1
    assert replicas.in_order() == [two, three, one]
    clock.now += 1
    assert replicas.in_order() == [one, two, three]
    replicas.failed(two, "x")
    replicas.worked(two)
    assert replicas.in_order() == [one, two, three]


@pytest.mark.parametrize(
    "url", ["", "http://x", "ldap://", "ldap:///", "ldapi:///x", "x:389", "ldap://x:y", "ldap://x/dc=y"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ManifestError, match="urls"):
        parse_url(url)


def test_an_attribute_in_parts_is_put_together() -> None:
    """As Active Directory gives the members of a large group, 1500 at a time."""

    asked: list[str] = []

    class Server:
        def __init__(self) -> None:
            self.socket = self

        def settimeout(self, _: float) -> None: ...

        def search(self, base: str, text: str, scope: str, attributes: list[str]) -> object:
            asked.append(attributes[0])
            parts = {
                "uid": {"uid": [b"g"], "member;range=0-1": [b"a", b"b"], "member": []},
                "member;range=2-*": {"member;Range=2-3": [b"c", b"d"]},
                "member;range=4-*": {"member;range=4-*": [b"e"]},
            }
            entry = {"type": "searchResEntry", "dn": "cn=g", "raw_attributes": parts[attributes[0]]}
            return True, {"result": 0, "description": "success"}, [entry], None

    link = Link(None, Replicas(("ldap://x",)))  # type: ignore[arg-type]
    link._connection = Server()
    [entry] = link._search(Search("dc=x", False, "(a=b)", ("uid",)), 1e12)
    assert entry.attributes == {"uid": ["g"], "member": ["a", "b", "c", "d", "e"]}
    assert asked == ["uid", "member;range=2-*", "member;range=4-*"]
