"""A policy's `access` as it is written: what compile makes of it, and each fault with its field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml

from gatepost.core.access.entry import AccessEntry, Tag
from gatepost.core.compile import Compiled, Surroundings, compile_manifests
from gatepost.core.configuration import decode_configuration
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import Role

HEAD = {"apiVersion": "gatepost.dev/v1alpha1", "kind": "RelayPolicy", "metadata": {"name": "p"}}


def compiled(access: Any, listener: str = "mx", **spec: Any) -> Compiled:
    target = {"type": "Listeners", "listeners": [listener]}
    text = yaml.safe_dump({**HEAD, "spec": {"target": target, "access": access, **spec}})
    objects = read_objects({"p.yaml": text})
    around = Surroundings({"mx": Role.MX, "inside": Role.INTERNAL}, any_namespace=True)
    return compile_manifests(objects.domains, objects.policies, around)


def rule(action: str | None = "Reject", **match: Any) -> dict[str, Any]:
    return {"match": match, **({"action": action} if action else {})}


def test_rules_and_tables_get_into_the_configuration_and_through_the_log() -> None:
    found = compiled(
        {
            "inline": [
                {
                    **rule(**{"from": "spammer@ube.example"}),
                    "code": 551,
                    "enhanced": "5.7.1",
                    "text": "Relay denied",
                },
                {"match": {"to": "good@"}, "skip": True},
                rule("Accept", any="okhost.example"),
            ],
            "tables": [{"file": "list"}, {"file": "/etc/x.yaml", "refresh": "1h", "onError": "Ignore"}],
        }
    )
    assert found.rejected == ()
    configuration = decode_configuration(found.configuration.encode())
    access = next(policy.access for policy in configuration.listeners if policy.listener == "mx")
    assert access is not None
    assert access.inline == (
        AccessEntry(Tag.FROM, "spammer@ube.example", Action.REJECT, 551, "5.7.1", "Relay denied"),
        AccessEntry(Tag.TO, "good@"),
        AccessEntry(Tag.ANY, "okhost.example", Action.ACCEPT),
    )
    assert [(table.file, table.refresh, table.on_error) for table in access.tables] == [
        ("list", 10.0, OnError.TEMPFAIL),
        ("/etc/x.yaml", 3600.0, OnError.IGNORE),
    ]
    assert not access.clients_may_relay


@pytest.mark.parametrize("access", [None, {}, {"inline": []}, {"inline": [], "tables": []}])
def test_without_rules_there_is_nothing(access: Any) -> None:
    (policy,) = (one for one in compiled(access).configuration.listeners if one.listener == "mx")
    assert policy.access is None
    assert b"access" not in msgspec.json.encode(policy)


@pytest.mark.parametrize(
    ("access", "says"),
    [
        (
            {"inline": [rule(connect="10.1"), rule("Relay", **{"from": "a@b.example"})]},
            "spec.access.inline[1]: Relay",
        ),
        ({"inline": [{"match": {"to": "a@"}}]}, "spec.access.inline[0]: exactly one of action and skip"),
        ({"inline": [rule(to="a@", connect="10.1")]}, "spec.access.inline[0]: match has exactly one"),
        ({"inline": [rule()]}, "spec.access.inline[0]: match has exactly one"),
        ({"inline": [rule(connect="10.300")]}, "spec.access.inline[0]: '10.300' is no IPv4"),
        (
            {"inline": [{**rule("Accept", to="a@"), "code": 550}]},
            "spec.access.inline[0]: a code has a meaning only",
        ),
        ({"inline": [{**rule(to="a@"), "code": 450}]}, "spec.access.inline[0]: Reject answers 5xx"),
        ({"inline": [{**rule("Defer", to="a@"), "enhanced": "5.1.1"}]}, "Defer wants an enhanced code 4.x.x"),
        ({"tables": [{"file": "x", "refresh": "10ms"}]}, "spec.access.tables[0].refresh: at least 1s"),
        ({"inline": [rule("Relay", connect="10.1")]}, "allowOnPublicListeners"),
        ({"inline": [rule("Relay", any="example.jp")]}, "allowOnPublicListeners"),
    ],
)
def test_faults_name_their_field(access: Any, says: str) -> None:
    ((_, condition),) = compiled(access).rejected
    assert says in condition.message


@pytest.mark.parametrize(
    "access",
    [
        {"inline": [{**rule(to="a@"), "code": 250}]},
        {"inline": [rule("Burn", to="a@")]},
        {"inline": [rule(subject="x")]},
        {"tables": [{"url": "https://example.org/list"}]},
    ],
)
def test_what_the_types_refuse(access: Any) -> None:
    with pytest.raises(ManifestError):
        compiled(access)


def test_who_may_relay_by_address() -> None:
    relay = {"inline": [rule("Relay", connect="10.1")]}
    assert compiled(relay, "inside").rejected == ()
    assert compiled(relay, relay={"allowOnPublicListeners": True}).rejected == ()
    assert compiled({"inline": [rule("Relay", to="far.example")]}).rejected == ()
