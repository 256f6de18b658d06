"""`gatepost explain`: each value with where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gatepost.cli.main import main

SETTINGS = """
hostname: mx.example.test
directories: {users: {ldif: {file: users.ldif}}}
listeners:
  - {name: mx, role: mx, address: "127.0.0.1:2525"}
  - {name: submission, role: submission, address: "127.0.0.1:2587"}
stores: {local: {maildir: {path: mail}}}
"""
OBJECTS = """
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: public}
spec:
  target: {type: Listeners, listeners: [mx]}
  recipients: {max: 200, errorsBeforeDisconnect: 20}
  access: {inline: [{match: {from: spam.example}, action: Reject}]}
---
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: example}
spec:
  domain: example.test
  aliasDomains: [example.org]
  recipients:
    source: {type: Directory, directoryRef: {name: users}}
    subaddressing: {}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gatepost.yaml").write_text(SETTINGS, "utf-8")
    (tmp_path / "all.yaml").write_text(OBJECTS, "utf-8")
    return tmp_path


def explained(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> list[dict[str, Any]]:
    main(["explain", str(folder), "--output", "json", *more])
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def rows(one: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in one["rows"]}


def test_a_listener_with_a_policy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = explained(folder, capsys, "--listener", "mx")
    assert one["object"] == "RelayPolicy default/public"
    found = rows(one)
    assert found["max_recipients"] == {
        "name": "max_recipients",
        "value": 200,
        "default": "",
        "file": str(folder / "all.yaml"),
        "fields": ["spec.recipients.max"],
        "also": [],
    }
    assert found["idle_timeout"]["default"] == "default of role mx"
    assert found["access.inline"]["fields"] == ["spec.access.inline"]
    assert one["same"] == ["spec.recipients.errorsBeforeDisconnect"]


def test_a_listener_without_a_policy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = explained(folder, capsys, "--listener", "submission")
    found = rows(one)
    assert one["object"] == ""
    assert found["auth_require_for"]["value"] == "All"
    assert {row["default"] for row in one["rows"]} == {"default of role submission"}


def test_a_domain_also_by_its_other_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = explained(folder, capsys, "--domain", "EXAMPLE.org")
    found = rows(one)
    assert found["directory"]["fields"] == ["spec.recipients.source"]
    assert found["alias_domains"]["fields"] == ["spec.aliasDomains"]
    assert found["separators"]["fields"] == ["spec.recipients.subaddressing"]
    assert found["delivery.store"] | {"file": ""} == {
        "name": "delivery.store",
        "value": "local",
        "default": "default of a domain",
        "file": "",
        "fields": [],
        "also": [],
    }


def test_all_of_it_as_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "listener submission (role submission): no object, defaults only" in text
    assert f"= 200   [{folder / 'all.yaml'}: spec.recipients.max]" in text
    assert "domain example.test: MailDomain default/example" in text


LAYERS = """
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: public}
spec:
  target: {type: Listeners, listeners: [mx]}
  allowExemptions: [Dnsbl]
  authentication: {dmarc: {reject: Reject}}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: next}
spec: {target: {type: Listeners, listeners: [mx]}, rollout: {percent: 5}, recipients: {max: 300}}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: gold}
spec:
  target: {type: MailDomains, mailDomains: {names: [example]}}
  exemptions: [Dnsbl]
  authentication: {dmarc: {quarantine: Quarantine}}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: trial}
spec:
  target: {type: MailDomains, mailDomains: {names: [example]}}
  mode: Shadow
  recipients: {greylist: {enabled: true}}
"""


def test_layers_with_what_each_value_comes_from(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails without the policy, layer, mode and exemption behind each effective value."""
    (folder / "all.yaml").write_text(LAYERS + "---" + OBJECTS.split("---")[1], "utf-8")
    file = str(folder / "all.yaml")
    listener, canary = explained(folder, capsys, "--listener", "mx")
    assert (listener["layer"], canary["layer"]) == ("", "canary: 5 % of the clients")
    assert rows(canary)["max_recipients"]["fields"] == ["spec.recipients.max"]
    _, *layers = explained(folder, capsys, "--domain", "example.test")
    found = {(one["object"], one["layer"]): rows(one) for one in layers if "listener mx" in one["name"]}
    gold = found["RelayPolicy default/gold", "over RelayPolicy default/public"]
    assert gold["exempt"]["value"] == ["Dnsbl"]
    assert gold["exempt"]["fields"] == ["spec.exemptions"]
    assert gold["exempt"]["also"] == [f"{file}: spec.allowExemptions"]
    strict, held = gold["authentication.dmarc.reject"], gold["authentication.dmarc.quarantine"]
    assert (strict["value"], strict["fields"]) == ("Reject", [])
    assert strict["also"] == [f"{file}: spec.authentication.dmarc.reject"]
    assert (held["value"], held["fields"]) == ("Quarantine", ["spec.authentication.dmarc.quarantine"])
    assert held["also"] == []
    assert gold["greylist"]["default"] == "default"
    shadow = "over RelayPolicy default/public; Shadow: decides and records, never acts"
    trial = found["RelayPolicy default/trial", shadow]
    assert trial["greylist.delay"]["fields"] == ["spec.recipients.greylist.enabled"]
    assert ("RelayPolicy default/gold", "over RelayPolicy default/next") in found
    assert main(["explain", str(folder)]) == 0
    assert "(over RelayPolicy default/public)" in capsys.readouterr().out


def test_check_names_the_targets_that_another_policy_has(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = """---
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: other, labels: {tier: gold}}
spec: {domain: other.test, recipients: {source: {type: Any}}}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: tier}
spec:
  target: {type: MailDomains, mailDomains: {selector: {matchLabels: {tier: gold}}}}
  recipients: {greylist: {enabled: true}}
"""
    first = OBJECTS.split("---")[1].replace("name: example}", "name: example, labels: {tier: gold}}")
    (folder / "all.yaml").write_text(LAYERS + "---" + first + second, "utf-8")
    assert main(["check", str(folder)]) == 0
    text = capsys.readouterr().out
    assert (
        "not for MailDomain example: Conflicted: spec.target.mailDomains: RelayPolicy default/gold is older" in text
    )


def test_what_is_not_in_force_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yaml").write_text(
        OBJECTS.split("---")[0].replace("name: public", "name: second"), "utf-8"
    )  # a second policy for the listener
    assert main(["explain", str(folder), "--listener", "mx"]) == 1
    assert "not in force: RelayPolicy default/second" in capsys.readouterr().err
    assert main(["explain", str(folder), "--listener", "nothing"]) == 1
