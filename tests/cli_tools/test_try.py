"""`gatepost try`: the real edge for a session that never was."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from gatepost.cli.main import main

SETTINGS = """
hostname: mx.example.test
directories: {users: {ldif: {file: users.ldif}}}
listeners:
  - {name: mx, role: mx, address: "127.0.0.1:2525"}
stores: {local: {maildir: {path: mail}}}
dns: {servers: ["127.0.0.1:9"], timeout: 1s}
"""
OBJECTS = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: example}
spec:
  domain: example.test
  recipients: {source: {type: Static, addresses: [bob, alice]}}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: public}
spec:
  target: {type: Listeners, listeners: [mx]}
  access:
    inline:
      - {match: {connect: "198.51.100"}, action: Reject, code: 554, text: not from your network}
      - {match: {connect: "2001:db8::/32"}, action: Reject}
      - {match: {to: alice@}, action: Accept}
      - {match: {helo: held.example}, action: Quarantine}
"""


@pytest.fixture(autouse=True)
def _quiet_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the command sets up would stay behind here, on a stream that is closed by then."""

    def quiet(*_: object) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    monkeypatch.setattr("gatepost.cli.try_.configure_logging", quiet)
    yield
    structlog.reset_defaults()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gatepost.yaml").write_text(SETTINGS, "utf-8")
    (tmp_path / "all.yaml").write_text(OBJECTS, "utf-8")
    (tmp_path / "users.ldif").write_text("version: 1\n", "utf-8")
    return tmp_path


def tried(folder: Path, client: str, *recipients: str, more: tuple[str, ...] = ()) -> list[str]:
    to = [word for recipient in recipients for word in ("--to", recipient)]
    state = ["--state", str(folder / "state")]
    return ["try", str(folder), "--client-ip", client, "--helo", "h.example", "--from", "<>", *to, *state, *more]


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_mail_that_is_taken_is_not_delivered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tried(folder, "192.0.2.1", "bob@example.test", more=("--output", "json"))) == 0
    found = result(capsys)
    assert found["accepted"] is True
    steps = {step["command"]: step for step in found["steps"]}
    assert steps["(message)"]["reply"].startswith("250 2.0.0 Ok: queued as")
    assert [check["event"] for check in steps["(message)"]["checks"]] == ["accepted"]
    assert sorted(path.name for path in folder.iterdir()) == ["all.yaml", "gatepost.yaml", "users.ldif"]


@pytest.mark.parametrize(("client", "reply"), [("198.51.100.7", "554 5.7.1"), ("2001:db8::7", "550 5.7.1")])
def test_the_clients_address_counts_and_the_rule_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], client: str, reply: str
) -> None:
    assert main(tried(folder, client, "bob@example.test", "alice@example.test", more=("--output", "json"))) == 1
    found = result(capsys)
    first, second = (step for step in found["steps"] if step["command"].startswith("RCPT"))
    assert first["reply"].startswith(f"{reply} <bob@example.test>")
    assert second["reply"].startswith("250")
    judged = [check for check in first["checks"] if check["event"] == "judged"]
    assert judged[0]["origin"].startswith("access.inline[")
    assert any(check["event"] == "judged" and check["action"] == "Accept" for check in second["checks"])


def test_a_message_with_dots_and_a_text_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "message").write_bytes(b"Subject: x\n\n.hidden\n.\nend")
    more = ("--message", str(folder / "message"), "--listener", "mx")
    assert main(tried(folder, "192.0.2.1", "bob@example.test", more=more)) == 0
    text = capsys.readouterr().out
    assert "listener mx; nothing is delivered" in text
    assert "C: RCPT TO:<bob@example.test>\n" in text
    assert "S: 250 2.0.0 Ok: queued as" in text


def test_a_table_that_cannot_be_read_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = OBJECTS.replace("  access:\n", "  access:\n    tables: [{file: gone}]\n")
    (folder / "all.yaml").write_text(text, "utf-8")
    assert main(tried(folder, "192.0.2.1", "bob@example.test", more=("--output", "json"))) == 1
    found = result(capsys)
    assert "gone: cannot be read" in found["faults"][0]
    assert [step["reply"][:9] for step in found["steps"] if step["command"].startswith("RCPT")] == ["451 4.3.5"]
    assert main(["check", str(folder)]) == 1
    assert "gone: cannot be read" in capsys.readouterr().out


def test_calls_that_make_no_sense(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tried(folder, "nowhere", "bob@example.test")) == 2
    assert "--client-ip" in capsys.readouterr().err
    assert main(tried(folder, "192.0.2.1", "bob@example.test", more=("--listener", "x"))) == 2
    (folder / "all.yaml").write_text(OBJECTS.replace("[mx]", "[other]"), "utf-8")
    assert main(tried(folder, "192.0.2.1", "bob@example.test")) == 2
