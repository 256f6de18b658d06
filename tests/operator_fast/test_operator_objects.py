"""The cache of objects: whichever way states come, an older one never wins and a deletion is never lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gatepost_operator.cluster import Listed
from gatepost_operator.objects import ObjectCache

Document = dict[str, Any]
Make = Callable[..., Document]


def stored(document: Document, version: int, uid: str = "u1", generation: int = 1) -> Document:
    document["metadata"].update(resourceVersion=str(version), uid=uid, generation=generation)
    return document


def seen(cache: ObjectCache) -> list[tuple[str, int]]:
    return [(one.key.name, one.version) for one in cache.snapshot()]


@pytest.fixture
def cache() -> ObjectCache:
    return ObjectCache(frozenset({"default"}))


def test_a_newer_state_replaces_and_an_older_does_not(cache: ObjectCache, mail_domain: Make) -> None:
    cache.put(stored(mail_domain("a"), 5))
    cache.put(stored(mail_domain("a"), 4))
    assert seen(cache) == [("a", 5)]
    before = cache.changes
    cache.put(stored(mail_domain("a"), 5))
    assert cache.changes == before
    cache.put(stored(mail_domain("a"), 6))
    assert seen(cache) == [("a", 6)]
    assert cache.changes == before + 1


def test_versions_are_compared_as_numbers(cache: ObjectCache, mail_domain: Make) -> None:
    cache.put(stored(mail_domain("a"), 9))
    cache.put(stored(mail_domain("a"), 10))
    assert seen(cache) == [("a", 10)]


def test_a_list_says_what_is_gone(cache: ObjectCache, mail_domain: Make) -> None:
    cache.put(stored(mail_domain("a"), 5, "u1"))
    cache.put(stored(mail_domain("b"), 6, "u2"))
    cache.replace("MailDomain", Listed((stored(mail_domain("b"), 6, "u2"),), 8))
    assert seen(cache) == [("b", 6)]


def test_a_list_that_is_older_than_an_event_takes_nothing_away(cache: ObjectCache, mail_domain: Make) -> None:
    cache.put(stored(mail_domain("new"), 12, "u9"))
    cache.replace("MailDomain", Listed((), 11))
    assert seen(cache) == [("new", 12)]


def test_a_list_that_began_before_a_deletion_brings_nothing_back(cache: ObjectCache, mail_domain: Make) -> None:
    cache.put(stored(mail_domain("a"), 5))
    cache.remove(stored(mail_domain("a"), 9))
    cache.replace("MailDomain", Listed((stored(mail_domain("a"), 5),), 7))
    assert seen(cache) == []
    cache.put(stored(mail_domain("a"), 6))  # as the answer to a status write that was under way
    assert seen(cache) == []


def test_an_object_that_was_made_again_is_another_one(cache: ObjectCache, mail_domain: Make) -> None:
    cache.put(stored(mail_domain("a"), 5, "old"))
    cache.remove(stored(mail_domain("a"), 6, "old"))
    cache.put(stored(mail_domain("a"), 7, "new"))
    cache.remove(stored(mail_domain("a"), 6, "old"))
    assert seen(cache) == [("a", 7)]


def test_a_list_of_one_kind_says_nothing_of_the_other(
    cache: ObjectCache, mail_domain: Make, relay_policy: Make
) -> None:
    cache.put(stored(mail_domain("a"), 5))
    cache.replace("RelayPolicy", Listed((), 9))
    assert seen(cache) == [("a", 5)]


def test_it_is_complete_when_every_kind_was_listed(cache: ObjectCache) -> None:
    assert not cache.complete
    cache.replace("RelayPolicy", Listed((), 9))
    assert not cache.complete
    before = cache.changes
    cache.replace("MailDomain", Listed((), 9))
    assert cache.complete
    assert cache.changes > before


def test_objects_of_other_namespaces_do_not_count(mail_domain: Make) -> None:
    cache, every = ObjectCache(frozenset({"default"})), ObjectCache(None)
    for one in (cache, every):
        one.put(stored(mail_domain("a", namespace="elsewhere"), 5))
    assert seen(cache) == []
    assert seen(every) == [("a", 5)]


@pytest.mark.parametrize(
    "document",
    [{}, {"kind": "MailDomain"}, {"kind": "Secret", "metadata": {"name": "x", "namespace": "default"}}],
)
def test_what_is_no_object_of_ours_is_passed_over(cache: ObjectCache, document: Document) -> None:
    cache.put(document)
    cache.remove(document)
    assert seen(cache) == []
