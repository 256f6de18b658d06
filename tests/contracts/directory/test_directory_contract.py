"""What every directory must answer (core/ports/directory), over one tree."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gatepost.backends.directory_entry import parse_dn
from gatepost.core.address import Address, AddressError, parse_address
from gatepost.core.ports.directory import Directory, Entry, EntryKind, LoginVerdict


async def found(directory: Directory, text: str) -> Entry | None:
    return await directory.lookup(parse_address(text))


async def entry(directory: Directory, text: str) -> Entry:
    known = await found(directory, text)
    assert known is not None, text
    return known


def raw_address(text: str) -> Address:
    """An address past the parser, as a careless caller could make it."""
    local, _, domain = text.rpartition("@")
    return Address(local, domain)


async def test_every_recipient_as_expected(directory: Directory, expected: Any) -> None:
    for row in expected.recipients:
        try:
            address = parse_address(row["address"])
        except AddressError:
            address = raw_address(row["address"])
        answer = await directory.lookup(address)
        assert (answer and answer.reference) == row["dn"], row
        if answer is not None:
            assert answer.enabled is not row.get("disabled", False), row
            assert answer.mail_host == row.get("mailHost", answer.mail_host), row
            assert answer.routing_address == row.get("mailRoutingAddress", answer.routing_address), row


async def test_utf8_recipients_as_expected(utf8_directory: Directory, expected: Any) -> None:
    for row in expected.utf8_recipients:
        assert (await entry(utf8_directory, row["address"])).reference == row["dn"], row


async def test_every_group_as_expected(directory: Directory, expected: Any) -> None:
    for row in expected.groups:
        group = await entry(directory, row["address"])
        assert group.kind is EntryKind.GROUP
        names = [member.name for member in await directory.expand(group)]
        assert names == row.get("expanded", names), row
        assert len(names) == len(row.get("expanded", range(row["direct"]))), row
        assert names == sorted(names)


async def test_every_bind_as_expected(directory: Directory, expected: Any) -> None:
    for row in expected.binds:
        if row["uid"] is None:
            continue
        login = await directory.authenticate(row["uid"], row["password"] or "anything")
        assert (login.verdict is LoginVerdict.ACCEPTED) is row["accepted"], row
        if row["accepted"]:
            assert login.entry is not None
            # A server may write the escapes of a DN in its own way.
            assert parse_dn(login.entry.reference) == parse_dn(row["dn"])
            wrong = await directory.authenticate(row["uid"], row["password"] + "x")
            assert (wrong.verdict, wrong.entry) == (LoginVerdict.REFUSED, None)
        else:
            assert login.entry is None


async def test_an_entry_with_everything(directory: Directory) -> None:
    quentin = await entry(directory, "quentin@example.test")
    assert quentin.name == "quentin"
    assert quentin.kind is EntryKind.ACCOUNT
    # The first of the attributes in the order of settings, as it is written.
    assert quentin.address == "Quentin.Q@example.test"
    assert set(quentin.addresses) == {"quentin.q@example.test", "old.name@example.test", "quentin@example.test"}
    assert (quentin.store, quentin.quota_bytes, quentin.quota_used_bytes) == ("archive", 104857600, 104857600)
    assert quentin.over_quota
    assert quentin.enabled
    assert quentin.login_enabled
    nologin = await entry(directory, "nologin@example.test")
    assert (nologin.quota_bytes, nologin.over_quota, nologin.login_enabled) == (None, False, False)


async def test_who_may_log_in(directory: Directory) -> None:
    for login, password, verdict in [
        ("alice", "pw-alice", LoginVerdict.ACCEPTED),
        ("ALICE", "pw-alice", LoginVerdict.ACCEPTED),
        ("Alice.Adams@Example.Test", "pw-alice", LoginVerdict.ACCEPTED),
        ("alice", "PW-ALICE", LoginVerdict.REFUSED),
        ("alice", "", LoginVerdict.REFUSED),
        ("", "", LoginVerdict.REFUSED),
        ("", "pw-alice", LoginVerdict.REFUSED),
        ("nobody", "pw-alice", LoginVerdict.REFUSED),
        ("nobody@example.test", "pw-alice", LoginVerdict.REFUSED),
        ("nologin", "pw-nologin", LoginVerdict.LOGIN_DISABLED),
        ("nologin-too", "pw-nologin", LoginVerdict.LOGIN_DISABLED),
        ("nologin", "wrong", LoginVerdict.REFUSED),
        ("sam.suspended", "pw-sam.suspended", LoginVerdict.ACCOUNT_DISABLED),
        ("sam.suspended", "wrong", LoginVerdict.REFUSED),
        ("rita.retired", "", LoginVerdict.REFUSED),
        ("nomail", "pw-nomail", LoginVerdict.ACCEPTED),
        # The service account has no uid, and a group is nobody.
        ("gateway-bind", "gateway-secret", LoginVerdict.REFUSED),
        ("odd", "pw-odd", LoginVerdict.REFUSED),
        ("odd@example.test", "pw-odd", LoginVerdict.REFUSED),
        # An address that two entries have is the enabled one's.
        ("old.name@example.test", "pw-quentin", LoginVerdict.ACCEPTED),
        ("old.name@example.test", "pw-leaver", LoginVerdict.REFUSED),
    ]:
        answer = await directory.authenticate(login, password)
        assert answer.verdict is verdict, (login, password)
        assert (answer.entry is not None) is (verdict is LoginVerdict.ACCEPTED)


@pytest.mark.parametrize(
    "login",
    [
        "*",
        "a*",
        "alice*",
        "alice)(uid=*",
        "*)(uid=*))(|(uid=*",
        "al\\69ce",
        "alice\0",
        "alice ",
        " alice",
        "\uff41lice",
        "uid=alice,ou=people,dc=example,dc=test",
        "alice\n",
        "\udc80",
        "x" * 5000,
    ],
)
async def test_logins_are_values_and_nothing_else(directory: Directory, login: str) -> None:
    assert (await directory.authenticate(login, "pw-alice")).verdict is LoginVerdict.REFUSED


@pytest.mark.parametrize(
    "local",
    [
        "*",
        "a*",
        "alice)(uid=*",
        "alice)(|(mail=*",
        "al\\69ce",
        "alice\0",
        "alice ",
        " alice",
        "\uff41lice",
        "\udc80",
    ],
)
async def test_addresses_are_values_and_nothing_else(directory: Directory, local: str) -> None:
    assert await directory.lookup(Address(local, "example.test")) is None


async def test_case_and_idn_make_no_difference(directory: Directory) -> None:
    for text in ("aLICE@eXAMPLE.tEST", "taro.yamada@例え.example", "TARO.YAMADA@XN--R8JZ45G.EXAMPLE"):
        assert (await entry(directory, text)).enabled


async def test_an_address_of_two_entries_is_the_enabled_ones(directory: Directory) -> None:
    assert (await entry(directory, "old.name@example.test")).name == "quentin"
    leaver = await entry(directory, "leaver@example.test")
    assert not leaver.enabled


async def test_a_subaddress_is_the_callers_business(directory: Directory) -> None:
    assert await found(directory, "alice+detail@example.test") is None


async def test_members_that_cannot_get_mail_are_left_out(directory: Directory) -> None:
    """Odd spelling of a DN counts; no address, no such entry, another tree, a disabled group, itself do not."""
    group = await entry(directory, "odd@example.test")
    assert [member.name for member in await directory.expand(group)] == ["quentin"]


async def test_a_disabled_group_has_no_members(directory: Directory) -> None:
    group = await entry(directory, "sleeping@example.test")
    assert not group.enabled
    assert list(await directory.expand(group)) == []


async def test_many_at_once(directory: Directory) -> None:
    texts = [f"nobody{number}@example.test" for number in range(150)] + [
        "alice@example.test",
        "bob@example.test",
    ] * 50
    answers = await asyncio.gather(*(found(directory, text) for text in texts))
    assert answers[:150] == [None] * 150
    assert [answer.name for answer in answers[150:] if answer] == ["alice", "bob"] * 50
