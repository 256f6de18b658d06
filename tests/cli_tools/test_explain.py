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
    }


def test_all_of_it_as_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "listener submission (role submission): no object, defaults only" in text
    assert f"= 200   [{folder / 'all.yaml'}: spec.recipients.max]" in text
    assert "domain example.test: MailDomain default/example" in text


def test_what_is_not_in_force_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yaml").write_text(
        OBJECTS.split("---")[0].replace("name: public", "name: second"), "utf-8"
    )  # a second policy for the listener
    assert main(["explain", str(folder), "--listener", "mx"]) == 1
    assert "not in force: RelayPolicy default/second" in capsys.readouterr().err
    assert main(["explain", str(folder), "--listener", "nothing"]) == 1
