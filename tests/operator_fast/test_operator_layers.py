"""Statuses of policies by target, and what labels select."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gatepost.core.compile.surroundings import surroundings
from gatepost.core.manifest.object import ObjectKey
from gatepost.core.manifest.settings import Settings
from gatepost_operator.compilation import Compilation, Compiler
from gatepost_operator.objects import ObjectCache, StoredObject
from gatepost_operator.programmed import fingerprints
from gatepost_operator.statuses import Moment, wanted_statuses

Document = dict[str, Any]
Make = Callable[..., Document]
NOW = Moment("2026-01-01T00:00:00Z")
GOLD = {"type": "MailDomains", "mailDomains": {"selector": {"matchLabels": {"tier": "gold"}}}}
GREY = {"recipients": {"greylist": {"enabled": True}}}


class Objects:
    """Objects as stored; the version grows with each change, the generation with the spec's."""

    def __init__(self, settings: Settings) -> None:
        self.compiler = Compiler(surroundings(settings, any_namespace=False))
        self.cache = ObjectCache(None)
        self._version = 0

    def store(self, document: Document, **labels: str) -> None:
        self._version += 1
        name = document["metadata"]["name"]
        key = ObjectKey(document["kind"], document["metadata"]["namespace"], name)
        known = self.cache.get(key)
        created = f"2026-01-01T00:00:{self._version:02}Z"
        if known is not None:
            created = known.document["metadata"]["creationTimestamp"]
        metadata = {
            **document["metadata"],
            "uid": f"u-{name}",
            "generation": 1,
            "resourceVersion": str(self._version),
            "creationTimestamp": created,
            "labels": labels,
        }
        self.cache.put({**document, "metadata": metadata})

    def compile(self) -> tuple[tuple[StoredObject, ...], Compilation]:
        objects = self.cache.snapshot()
        return objects, self.compiler.compile(objects)

    def statuses(self) -> dict[str, Document]:
        objects, compilation = self.compile()
        found = wanted_statuses(objects, compilation, fingerprints(compilation.configuration), NOW)
        return {key.name: status for key, status in found.items()}


@pytest.fixture
def objects(settings: Settings) -> Objects:
    return Objects(settings)


def test_each_target_has_its_state(objects: Objects, mail_domain: Make, relay_policy: Make) -> None:
    objects.store(mail_domain("a"), tier="gold")
    objects.store(mail_domain("b"), tier="gold")
    older = {"type": "MailDomains", "mailDomains": {"names": ["b"]}}
    objects.store(relay_policy("older", target=older, **GREY))
    objects.store(relay_policy("gold", target=GOLD, **GREY))
    objects.store(relay_policy("first", "mx"))
    objects.store(relay_policy("second", "mx"))
    found = objects.statuses()
    assert found["gold"]["targets"] == [
        {
            "kind": "MailDomain",
            "name": "b",
            "accepted": "False",
            "reason": "Conflicted",
            "message": "spec.target.mailDomains: RelayPolicy default/older is older and has 'b'",
        },
        {"kind": "MailDomain", "name": "a", "accepted": "True", "reason": "Accepted"},
    ]
    assert found["first"]["targets"] == [
        {"kind": "Listener", "name": "mx", "accepted": "True", "reason": "Accepted"}
    ]
    assert [one["reason"] for one in found["second"]["targets"]] == ["Conflicted"]


def test_a_label_alone_changes_what_is_selected(objects: Objects, mail_domain: Make, relay_policy: Make) -> None:
    """Fails without labels in what is read anew: no generation counts them."""
    objects.store(mail_domain("a"))
    objects.store(relay_policy("gold", target=GOLD, **GREY))
    _, before = objects.compile()
    assert before.configuration.overlays == ()
    objects.store(mail_domain("a"), tier="gold")
    _, after = objects.compile()
    assert {overlay.domains for overlay in after.configuration.overlays} == {("a.test",)}
    key = "RelayPolicy/default/gold"
    assert fingerprints(before.configuration)[key] != fingerprints(after.configuration)[key]


def test_as_it_should_be_is_not_written_again(objects: Objects, mail_domain: Make, relay_policy: Make) -> None:
    objects.store(mail_domain("a"), tier="gold")
    objects.store(relay_policy("gold", target=GOLD, **GREY), here="too")
    found = objects.statuses()
    status = found["gold"]
    stored = objects.cache.get(ObjectKey("RelayPolicy", "default", "gold"))
    assert stored is not None
    version = str(int(stored.document["metadata"]["resourceVersion"]) + 10)
    metadata = {**stored.document["metadata"], "resourceVersion": version}
    objects.cache.put({**stored.document, "metadata": metadata, "status": status})
    assert "gold" not in objects.statuses()
    objects.store(mail_domain("b"), tier="gold")
    assert [each["name"] for each in objects.statuses()["gold"]["targets"]] == ["a", "b"]
