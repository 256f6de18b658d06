"""What every resolver must answer (core/ports/resolver)."""

from __future__ import annotations

import pytest

from gatepost.core.ports.resolver import Answer, MxHost, NoSuchDomain, Resolver, ResolverFailure


async def test_mx_hosts_come_by_preference_in_canonical_form(resolver: Resolver) -> None:
    assert list(await resolver.mx("example.test")) == [
        MxHost(10, "mx1.example.test"),
        MxHost(20, "mx2.example.test"),
    ]


async def test_the_null_mx(resolver: Resolver) -> None:
    assert list(await resolver.mx("null.test")) == [MxHost(0, "")]
    # RFC 7505 3: it means nothing beside others.
    assert list(await resolver.mx("both.test")) == [MxHost(10, "mx1.example.test")]


async def test_no_such_domain_is_told_from_no_such_records_and_from_failure(resolver: Resolver) -> None:
    assert list(await resolver.mx("only.test")) == []
    assert list(await resolver.addresses("only.test")) == []
    assert (await resolver.txt("mx1.example.test")).records == ()
    # A name with names below it exists (RFC 8020).
    assert list(await resolver.mx("in-addr.arpa")) == []
    for question in (resolver.mx, resolver.addresses, resolver.txt):
        with pytest.raises(NoSuchDomain):
            await question("nowhere.test")
        with pytest.raises(ResolverFailure):
            await question("failing.test")


async def test_addresses_of_both_families(resolver: Resolver) -> None:
    assert list(await resolver.addresses("mx1.example.test")) == ["2001:db8::1", "192.0.2.1"]
    assert list(await resolver.addresses("mx2.example.test")) == ["192.0.2.2"]
    assert list(await resolver.addresses("six.example.test")) == ["2001:db8::6"]


async def test_one_family_that_fails_does_not_hide_the_other(resolver: Resolver) -> None:
    assert list(await resolver.addresses("halves.example.test")) == ["192.0.2.7"]


async def test_cnames_are_followed(resolver: Resolver) -> None:
    assert list(await resolver.addresses("alias.test")) == ["2001:db8::1", "192.0.2.1"]
    answer = await resolver.query("alias.test", "A")
    assert (answer.records, answer.canonical) == (("192.0.2.1",), "mx1.example.test")
    assert (await resolver.query("alias.test", "CNAME")).records == ("middle.test",)
    with pytest.raises(NoSuchDomain):
        await resolver.query("lost.test", "A")


async def test_txt_records_are_joined_from_their_strings(resolver: Resolver) -> None:
    answer = await resolver.txt("example.test")
    assert sorted(answer.records) == ["other", "v=spf1 -all"]
    assert answer.canonical == "example.test"


async def test_ptr(resolver: Resolver) -> None:
    assert (await resolver.ptr("192.0.2.1")).records == ("mx1.example.test",)
    assert (await resolver.ptr("::ffff:192.0.2.1")).records == ("mx1.example.test",)
    with pytest.raises(NoSuchDomain):
        await resolver.ptr("2001:db8::1")
    with pytest.raises(ValueError, match="nonsense"):
        await resolver.ptr("nonsense")


async def test_other_types_and_the_secure_bit(resolver: Resolver) -> None:
    answer = await resolver.query("_25._tcp.signed.test", "TLSA")
    assert (answer.records, answer.secure) == (("3 1 1 " + "ab" * 32,), True)
    assert (await resolver.query("signed.test", "A")).secure
    assert not (await resolver.query("mx1.example.test", "A")).secure


async def test_names_are_compared_without_case_and_final_dot(resolver: Resolver) -> None:
    first = await resolver.query("MX1.Example.TEST.", "A")
    assert first == Answer(("192.0.2.1",), first.ttl, False, "mx1.example.test")
    assert 298 <= first.ttl <= 300


@pytest.mark.parametrize("name", ["x" * 64 + ".test", "a..test", ".".join(["x" * 60] * 5), "日本.test"])
async def test_impossible_names_do_not_exist(resolver: Resolver, name: str) -> None:
    with pytest.raises(NoSuchDomain):
        await resolver.query(name, "A")
