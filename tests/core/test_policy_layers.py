"""Layers: targets, who wins, the merge table, exemptions, and whom a rollout reaches."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.core.compile import Compiled, Status, Surroundings, compile_manifests
from gatepost.core.configuration import decode_configuration
from gatepost.core.layers import in_rollout
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.object import ObjectKey
from gatepost.core.manifest.policy_layers import Exemption
from gatepost.core.manifest.settings import Role
from gatepost.core.policy_merging import TABLE, Rule, merge, row_of, spec_fields
from gatepost.core.tables import Tables

AROUND = Surroundings(
    listeners={"mx": Role.MX, "submission": Role.SUBMISSION},
    directories=("corp",),
    stores=("local",),
    domain_ownership={"team": (".team.example",)},
)
GOLDEN = Path(__file__).parent / "golden"
LISTENERS = {"type": "Listeners", "listeners": ["mx"]}


def policy(name: str, spec: dict[str, Any], namespace: str = "default", created: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "gatepost.dev/v1alpha1",
        "kind": "RelayPolicy",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
        "spec": spec,
    }


def mail_domain(name: str, domain: str, namespace: str = "default", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "gatepost.dev/v1alpha1",
        "kind": "MailDomain",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"domain": domain, "recipients": {"source": {"type": "Any"}}},
    }


def of_domains(*names: str, **more: Any) -> dict[str, Any]:
    return {"target": {"type": "MailDomains", "mailDomains": {"names": list(names)}}, **more}


def of_label(name: str, value: str, **more: Any) -> dict[str, Any]:
    selector = {"matchLabels": {name: value}}
    return {"target": {"type": "MailDomains", "mailDomains": {"selector": selector}}, **more}


DOMAINS = (
    mail_domain("a", "a.example", tier="gold"),
    mail_domain("b", "b.example", tier="gold"),
    mail_domain("c", "c.team.example", "team", tier="gold"),
)


def compiled(*documents: dict[str, Any]) -> Compiled:
    objects = read_objects({"test.yaml": yaml.safe_dump_all([*DOMAINS, *documents])})
    result = compile_manifests(objects.domains, objects.policies, AROUND)
    assert decode_configuration(result.configuration.encode()) == result.configuration
    return result


def state(result: Compiled, name: str, namespace: str = "default") -> tuple[str, str]:
    """The reason of the condition that is false, and its message; Accepted without one."""
    for condition in result.conditions[ObjectKey("RelayPolicy", namespace, name)]:
        if condition.status is Status.FALSE:
            return condition.reason, condition.message
    return "Accepted", ""


def targets(result: Compiled, name: str, namespace: str = "default") -> dict[str, str]:
    found = result.targets[ObjectKey("RelayPolicy", namespace, name)]
    return {each.name: each.condition.reason for each in found}


# -- the merge table


def test_every_field_of_the_spec_has_a_row_and_no_row_is_left_over() -> None:
    """Fails for a field of RelayPolicySpec of which nobody said what a domain's value does."""
    fields = list(spec_fields())
    assert [field for field in fields if row_of(field) is None] == []
    assert [path for path in TABLE if not any(f == path or f.startswith(f"{path}.") for f in fields)] == []


PARTS: list[tuple[str, dict[str, Any], dict[str, Any], Any]] = [
    ("recipients.greylist.enabled", {"enabled": True}, {"enabled": False}, True),
    ("recipients.greylist.enabled", {}, {"enabled": True}, True),
    ("recipients.greylist.delay", {"enabled": True, "delay": "5m"}, {"delay": "1h"}, "1h"),
    ("recipients.greylist.delay", {"enabled": True, "delay": "1h"}, {"delay": "5m"}, "1h"),
    ("recipients.greylist.delay", {"enabled": True}, {"delay": "1m"}, "5m"),  # 5m is the default in force
    ("recipients.greylist.delay", {}, {"enabled": True, "delay": "1m"}, "1m"),  # nothing is in force
    ("recipients.greylist.keep", {"enabled": True}, {"keep": "100h"}, "100h"),
    ("recipients.greylist.keep", {"enabled": True, "keep": "10h"}, {"keep": "100h"}, "10h"),
    ("smtp.limits.messageSize", {}, {"messageSize": "10Mi"}, "10Mi"),
    ("smtp.limits.messageSize", {"messageSize": "1M"}, {"messageSize": "10Mi"}, "1M"),
    ("smtp.limits.messageSize", {}, {"messageSize": "100Mi"}, "50Mi"),
    ("authentication.dmarc.reject", {"reject": "Reject"}, {"reject": "Tag"}, "Tag"),
    ("authentication.dmarc.reject", {"reject": "Reject"}, {"quarantine": "Tag"}, "Reject"),
    ("authentication.arc.trustedSealers", {"trustedSealers": ["x"]}, {"trustedSealers": ["y"]}, ["x", "y"]),
    ("attachments.maxDepth", {}, {"maxDepth": 30}, 30),
    ("attachments.maxDepth", {"maxParts": 10}, {"maxDepth": 30}, 20),  # the default is in force
    ("attachments.maxParts", {"maxParts": 10}, {"maxParts": 20}, 10),
    (
        "attachments.extensions",
        {"extensions": {"exe": "Reject", "pif": "Tag"}},
        {"extensions": {"exe": "Tag", "scr": "Reject"}},
        {"exe": "Tag", "pif": "Tag", "scr": "Reject"},
    ),
    ("spamTraps.addresses", {"addresses": ["x@a"]}, {"addresses": ["y@a"]}, ["x@a", "y@a"]),
]


@pytest.mark.parametrize(("path", "below", "above", "wanted"), PARTS)
def test_what_a_value_does(path: str, below: dict[str, Any], above: dict[str, Any], wanted: Any) -> None:
    *parents, field = path.split(".")

    def nested(part: dict[str, Any]) -> dict[str, Any]:
        for name in reversed(parents):
            part = {name: part}
        return part

    objects = read_objects({"x": yaml.safe_dump(policy("p", of_domains("a", **nested(above))))})
    found = merge(nested(below) if below else {}, objects.policies[0].spec)
    for name in parents:
        found = found[name]
    assert found[field] == wanted


# -- targets and ownership

ONLY_LISTENERS: dict[str, dict[str, Any]] = {
    "spec.relay": {"relay": {"authenticated": {"enabled": True}}},
    "spec.relay ": {"relay": {}},
    "spec.tls": {"tls": {"mode": "Disabled"}},
    "spec.connection": {"connection": {"allow": ["192.0.2.1"]}},
    "spec.access": {"access": {"inline": [{"match": {"to": "a.example"}, "action": "Relay"}]}},
    "spec.recipients.max": {"recipients": {"max": 5}},
    "spec.spamTraps.ban": {"spamTraps": {"addresses": ["t@a.example"], "ban": {"client": "1h"}}},
    "spec.allowExemptions": {"allowExemptions": ["Dnsbl"]},
    "spec.authentication.deadline": {"authentication": {"deadline": "1s"}},
}


@pytest.mark.parametrize("field", ONLY_LISTENERS)
def test_a_domain_cannot_touch_what_protects_others(field: str) -> None:
    """Fails without the names of the fields that are the listener's alone in the condition."""
    result = compiled(policy("p", of_domains("a", **ONLY_LISTENERS[field])))
    reason, message = state(result, "p")
    assert reason == "NotAllowed"
    assert message.startswith(f"{field.strip()}: ")
    assert result.configuration.overlays == ()
    assert targets(result, "p") == {"a": "NotAllowed"}


def test_no_row_lets_a_domain_relax_what_protects_others() -> None:
    assert all(TABLE[part].rule is Rule.LISTENER_ONLY for part in ("relay", "tls", "connection", "access"))


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("no such domain", of_domains("x", authentication={}), "MailDomainNotFound", "names"),
    (
        "a domain of another namespace",
        of_domains("c", authentication={}),
        "MailDomainNotFound",
        "namespace 'default'",
    ),
    (
        "neither names nor selector",
        {"target": {"type": "MailDomains", "mailDomains": {}}},
        "Invalid",
        "exactly one",
    ),
    ("a Shadow's rollout", {"target": LISTENERS, "mode": "Shadow", "rollout": {"percent": 5}}, "Invalid", "Shadow"),
    ("a listener's exemptions", {"target": LISTENERS, "exemptions": ["Dnsbl"]}, "Invalid", "allowExemptions"),
    (
        "what no listener would take either",
        of_domains("a", authentication={"spf": {"fail": "Relay"}}),
        "Invalid",
        "spec.authentication.spf.fail",
    ),
]


@pytest.mark.parametrize(("spec", "reason", "text"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(spec: dict[str, Any], reason: str, text: str) -> None:
    found, message = state(compiled(policy("p", spec)), "p")
    assert found == reason
    assert text in message


def test_a_domain_policy_lies_in_its_domains_namespace_a_listeners_only_in_the_releases() -> None:
    result = compiled(
        policy("p", of_domains("c", recipients={"greylist": {"enabled": True}}), "team"),
        policy("q", {"target": LISTENERS}, "team"),
    )
    assert state(result, "p", "team")[0] == "Accepted"
    assert {overlay.domains for overlay in result.configuration.overlays} == {("c.team.example",)}
    assert state(result, "q", "team")[0] == "NotAllowed"


def test_one_enforced_and_one_beside_it_for_each_target_the_oldest_wins() -> None:
    """Fails without a single policy in force for each listener and domain, and the younger one told so."""
    grey = {"recipients": {"greylist": {"enabled": True}}}
    result = compiled(
        policy("young", {"target": LISTENERS}, created="2026-02-01T00:00:00Z"),
        policy("old", {"target": LISTENERS, "recipients": {"max": 5}}, created="2026-01-01T00:00:00Z"),
        policy("canary", {"target": LISTENERS, "rollout": {"percent": 5}}, created="2026-01-01T00:00:00Z"),
        policy("shadow", {"target": LISTENERS, "mode": "Shadow"}, created="2026-02-01T00:00:00Z"),
        policy("a", of_domains("a", **grey), created="2026-01-01T00:00:00Z"),
        policy("gold", of_label("tier", "gold", **grey), created="2026-02-01T00:00:00Z"),
        policy("try", of_domains("a", mode="Shadow", **grey), created="2026-02-01T00:00:00Z"),
        policy("again", of_domains("a", "b", mode="Shadow", **grey), created="2026-03-01T00:00:00Z"),
    )
    assert {name: state(result, name)[0] for name in ("old", "canary", "a", "gold", "try")} == dict.fromkeys(
        ("old", "canary", "a", "gold", "try"), "Accepted"
    )
    assert {name: state(result, name)[0] for name in ("young", "shadow", "again")} == dict.fromkeys(
        ("young", "shadow", "again"), "Conflicted"
    )
    assert "RelayPolicy default/old is older" in state(result, "young")[1]
    assert targets(result, "gold") == {"a": "Conflicted", "b": "Accepted"}
    assert targets(result, "again") == {"a": "Conflicted", "b": "Conflicted"}
    assert targets(result, "canary") == {"mx": "Accepted"}
    (beside,) = result.configuration.beside
    assert (beside.policy.origin, beside.shadow, beside.percent) == ("RelayPolicy default/canary", False, 5)
    mx = Tables(result.configuration).listeners["mx"]
    assert mx.policy.max_recipients == 5
    assert mx.layer("b.example", "192.0.2.1").origin == "RelayPolicy default/gold"


def test_a_selector_that_selects_nothing_is_warned_about() -> None:
    result = compiled(policy("p", of_label("tier", "lead")))
    assert "selects no MailDomain" in result.warnings[ObjectKey("RelayPolicy", "default", "p")][0]


# -- what is in force

DNSBL = {"lists": [{"zone": "zen.example.org"}]}


def test_exemptions_count_where_the_listener_allows_them() -> None:
    """Fails without the listener's say in what domains switch off."""
    wish = of_domains("a", exemptions=["Dnsbl", "Greylist", "Helo"])
    listener = {"target": LISTENERS, "dnsbl": DNSBL, "recipients": {"greylist": {"enabled": True}}}
    refused = compiled(policy("mx", listener), policy("p", wish))
    assert refused.configuration.overlays == ()
    allowed = compiled(policy("mx", {**listener, "allowExemptions": ["Dnsbl", "Greylist"]}), policy("p", wish))
    (overlay,) = allowed.configuration.overlays
    assert overlay.exempt == (Exemption.DNSBL, Exemption.GREYLIST)
    assert allowed.warnings[ObjectKey("RelayPolicy", "default", "p")] == (
        "exemptions Helo: no listener's policy has them in allowExemptions",
    )
    mx = Tables(allowed.configuration).listeners["mx"]
    a, b = mx.layer("a.example", ""), mx.layer("b.example", "")
    assert (a.policy.greylist, a.exempt) == (None, {"dnsbl"})
    assert b.policy.greylist is not None
    assert b.exempt == frozenset()
    assert a.content == b.content  # so they share messages


def test_a_domains_layer_over_each_listener_and_over_what_stands_beside_it() -> None:
    result = compiled(
        policy("mx", {"target": LISTENERS, "authentication": {"dmarc": {"reject": "Reject"}}}),
        policy("next", {"target": LISTENERS, "rollout": {"percent": 100}, "mode": "Shadow"}),
        policy("shadow", {"target": LISTENERS, "mode": "Shadow", "authentication": {"spf": {"fail": "Reject"}}}),
        policy("p", of_domains("a", authentication={"dmarc": {"reject": "Discard"}})),
    )
    assert state(result, "next")[0] == "Invalid"
    over = {one.over: one for one in result.configuration.overlays if one.listener == "mx"}
    assert set(over) == {"RelayPolicy default/mx", "RelayPolicy default/shadow"}
    shadow = over["RelayPolicy default/shadow"].authentication
    assert shadow is not None
    assert (shadow.dmarc.reject.value, shadow.spf.fail.value) == ("Discard", "Reject")
    mx = Tables(result.configuration).listeners["mx"]
    assert mx.layer("a.example", "").content != mx.layer("b.example", "").content
    assert mx.shadow is not None
    assert mx.shadow.layer("a.example", "").policy.authentication == shadow


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_layer_that_says_nothing_changes_nothing(file: Path) -> None:
    """Fails for a field of the listener's whose value does not reach the effective policy of a domain."""
    documents = [each for each in yaml.safe_load_all(file.read_text("utf-8")) if each["kind"] == "RelayPolicy"]
    around = msgspec.structs.replace(AROUND, listeners={**AROUND.listeners, "inside": Role.INTERNAL})
    empty = policy("empty", of_domains("a", rollout={"percent": 100}))
    objects = read_objects({"test.yaml": yaml.safe_dump_all([*DOMAINS, *documents, empty])})
    result = compile_manifests(objects.domains, objects.policies, around)
    assert result.rejected == ()
    assert result.configuration.overlays == ()


def test_traps_of_a_domain_ban_nobody_by_themselves() -> None:
    """Fails without the listener's say in bans, which are for all domains."""
    traps = of_domains("a", spamTraps={"addresses": ["trap@a.example"]})
    alone = compiled(policy("p", traps)).configuration.overlays[0].spam_traps
    assert alone is not None
    assert (alone.ban_client, alone.ban_sender) == (0.0, 0.0)
    listener = {"target": LISTENERS, "spamTraps": {"addresses": ["x@b.example"], "ban": {"client": "1h"}}}
    both = compiled(policy("mx", listener), policy("p", traps)).configuration.overlays
    with_listeners = next(one.spam_traps for one in both if one.listener == "mx")
    assert with_listeners is not None
    assert with_listeners.ban_client == 3600.0
    assert set(with_listeners.addresses) == {"trap@a.example", "x@b.example"}


# -- the rollout

CLIENTS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


@given(CLIENTS, st.integers(0, 100), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_whoever_is_in_stays_in(client: str, one: int, other: int) -> None:
    less, more = sorted((one, other))
    assert in_rollout(client, "p", more) or not in_rollout(client, "p", less)
    assert in_rollout(client, "p", 100)
    assert not in_rollout(client, "p", 0)


def test_neighbours_share_their_fate_and_the_share_is_about_right() -> None:
    networks = [f"10.{n // 256}.{n % 256}" for n in range(2000)]
    inside = [network for network in networks if in_rollout(f"{network}.1", "p", 20)]
    assert 300 < len(inside) < 500
    assert all(in_rollout(f"{network}.200", "p", 20) for network in inside)
    base = ipaddress.ip_address("2001:db8::")
    answers = {in_rollout(str(base + n), "p", 50) for n in range(100)}
    assert len(answers) == 1
    assert {n for n in networks if in_rollout(f"{n}.1", "q", 20)} != set(inside)
